"""A catalog that several machines share is used with the index that has its faces, and with no other."""

from __future__ import annotations

import pytest

from app.catalog import add_index, replace_indexes, require_index
from app.catalog.database import Database
from app.core.errors import OceanoError


def test_the_first_index_of_a_collection_belongs_to_the_catalog(database: Database) -> None:
    require_index(database, "c", "1", "QDRANT_URL=http://one:6333")
    require_index(database, "c", "1", "QDRANT_URL=http://the-same-elsewhere:6333")


def test_another_index_is_refused_with_the_name_of_the_right_one(database: Database) -> None:
    require_index(database, "c", "1", "QDRANT_URL=http://one:6333")
    with pytest.raises(
        OceanoError, match=r"another index: QDRANT_URL=http://one:6333; this is QDRANT_URL=http://two"
    ) as e:
        require_index(database, "c", "2", "QDRANT_URL=http://two:6333")
    assert e.value.code == "invalid_setting"


def test_collections_have_indexes_of_their_own(database: Database) -> None:
    require_index(database, "c", "1", "one")
    require_index(database, "d", "2", "two")


def test_an_index_to_which_the_faces_were_copied_belongs_to_the_catalog_too(database: Database) -> None:
    require_index(database, "c", "1", "one")
    add_index(database, "c", "2", "two")
    add_index(database, "c", "2", "two")
    require_index(database, "c", "2", "two")
    require_index(database, "c", "1", "one")


def test_an_index_that_replaces_others_is_the_only_one_of_its_collection(database: Database) -> None:
    require_index(database, "c", "1", "one")
    add_index(database, "c", "2", "two")
    require_index(database, "d", "1", "one")
    assert replace_indexes(database, "c", "3", "three") == ["one", "two"]
    assert replace_indexes(database, "c", "3", "three") == []
    require_index(database, "c", "3", "three")
    require_index(database, "d", "1", "one")
    with pytest.raises(OceanoError, match="belongs to another index: three"):
        require_index(database, "c", "1", "one")
