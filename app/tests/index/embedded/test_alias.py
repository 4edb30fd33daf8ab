"""The alias file, indexes of other models, and backups."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.protocols import FaceIndex
from app.core.types import collection_name
from app.index import open_index
from app.index.embedded.alias import open_embedded, read_alias
from tests.index.conftest import (
    OTHER_PACK,
    PACK,
    QUICK,
    collection_folder,
    ids_of,
    open_quick,
    points,
    settings_at,
)


def test_the_settings_open_the_embedded_index(settings: Settings) -> None:
    index = open_index(settings, PACK)
    assert index.info().collection == collection_name("faces", PACK)
    assert index.info().kind == "embedded"
    index.close()


def test_an_index_that_does_not_exist_is_created_only_on_request(settings: Settings) -> None:
    with pytest.raises(OceanoError) as caught:
        open_index(settings, PACK, create=False)
    assert caught.value.code == "not_found"
    assert not settings.index_dir.exists()
    open_quick(settings).close()
    open_index(settings, PACK, create=False).close()


def test_an_index_with_faces_of_another_model_is_refused_with_advice(settings: Settings, index: FaceIndex) -> None:
    index.upsert(points(3))
    with pytest.raises(
        OceanoError, match=r"MODEL_NAME=testpack.*oceano reembed --model otherpack.*QDRANT_COLLECTION"
    ) as caught:
        open_embedded(settings, OTHER_PACK, **QUICK)
    assert caught.value.code == "index_model_mismatch"
    assert caught.value.details == {
        "index_model": "testpack",
        "index_digest": PACK.digest,
        "index_embedding_size": 512,
        "given_model": "otherpack",
        "given_digest": OTHER_PACK.digest,
        "points": 3,
    }
    assert index.count() == 3
    reopened = open_quick(settings)
    assert reopened.count() == 3
    reopened.close()


def test_an_empty_index_of_another_model_is_replaced(settings: Settings) -> None:
    open_quick(settings).close()
    index = open_embedded(settings, OTHER_PACK, **QUICK)
    assert index.info().collection == collection_name("faces", OTHER_PACK)
    alias = read_alias(settings.index_dir / "embedded" / "faces.alias.json")
    assert alias is not None
    assert alias["digest"] == OTHER_PACK.digest
    index.close()


def test_the_same_model_under_another_name_finds_its_faces(settings: Settings, index: FaceIndex) -> None:
    index.upsert(points(3))
    renamed = open_embedded(settings, dataclasses.replace(PACK, name="copy-of-testpack"), **QUICK)
    assert renamed.count() == 3
    renamed.close()


def test_two_aliases_are_two_indexes(settings: Settings, index: FaceIndex) -> None:
    index.upsert(points(3))
    second = open_quick(settings.model_copy(update={"qdrant_collection": "second"}))
    assert (index.count(), second.count()) == (3, 0)
    second.close()


def test_a_damaged_alias_file_is_reported(settings: Settings) -> None:
    open_quick(settings).close()
    (settings.index_dir / "embedded" / "faces.alias.json").write_text("[]")
    with pytest.raises(OceanoError, match="damaged") as caught:
        open_quick(settings)
    assert caught.value.code == "index_unavailable"


def test_a_data_folder_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OceanoError) as caught:
        open_quick(settings_at(tmp_path / "file" / "data"))
    assert caught.value.code == "index_unavailable"


def test_a_backup_copied_to_the_place_of_an_index_opens_with_all_faces(
    settings: Settings, index: FaceIndex, tmp_path: Path
) -> None:
    faces = points(200)
    index.upsert(faces)
    index.set_payload([faces[3].face_id], person="Ana")
    index.backup(tmp_path / "copies" / "monday")
    index.upsert(points(50, seed=9))
    index.delete(ids_of(faces[:10]))

    restored = settings_at(tmp_path / "restored")
    restored.index_dir.mkdir(parents=True)
    shutil.copytree(tmp_path / "copies" / "monday", restored.index_dir / "embedded")
    copy = open_quick(restored)
    assert copy.count() == 200
    found = copy.retrieve(ids_of(faces), with_embedding=True)
    assert [record.payload.person for record in found][:5] == [None, None, None, "Ana", None]
    assert all(
        np.allclose(record.embedding, face.embedding, atol=1e-6)
        for record, face in zip(found, faces, strict=True)
        if record.embedding is not None
    )
    copy.close()
    assert index.count() == 240
    assert not list(collection_folder(settings).glob("backup-*"))


def test_a_backup_never_overwrites(settings: Settings, index: FaceIndex, tmp_path: Path) -> None:
    index.backup(tmp_path / "copy")
    with pytest.raises(OceanoError, match="new folder") as caught:
        index.backup(tmp_path / "copy")
    assert caught.value.code == "invalid_request"


def test_a_backup_that_fails_leaves_nothing(settings: Settings, index: FaceIndex, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OceanoError):
        index.backup(tmp_path / "file" / "copy")
    assert not list(collection_folder(settings).glob("backup-*"))
    assert index.count() == 0
