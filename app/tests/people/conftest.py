"""A catalog of either kind, an index in memory with faces of several people, and what names them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.catalog import ChangeLog, Database, PeopleStore, Person
from app.core.types import FacePayload
from app.people import Author, NamesCopy, Naming, Profile
from tests.support.catalogs import KINDS, new_catalog
from tests.support.fakes import MemoryIndex
from tests.support.people_gallery import COLLECTION, face_ids, gallery

ANA = Author("user ana")


ON_BOTH = pytest.mark.parametrize("database", KINDS, indirect=True)
"""For tests whose statements the two kinds of databases may understand differently."""


@pytest.fixture(params=["sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty catalog; of either kind for tests marked `ON_BOTH`."""
    with new_catalog(request.param, tmp_path / "state") as opened:
        yield opened


@dataclass
class Named:
    """What a test names faces with."""

    database: Database
    index: MemoryIndex
    store: PeopleStore
    log: ChangeLog
    names: NamesCopy
    naming: Naming

    def person(self, name: str, *numbers: int) -> Person:
        """Add a person with the faces of these numbers."""
        done = self.naming.create(Profile(name=name), face_ids(*numbers), ANA)
        assert done.person is not None
        return done.person

    def now(self, person: Person) -> Person:
        """Return a person as they are now."""
        found = self.store.person(person.id)
        assert found is not None
        return found

    def payload(self, number: int) -> FacePayload:
        """Return the payload of a face."""
        return self.index.points[face_ids(number)[0]].payload

    def names_in_index(self) -> dict[int, str]:
        """Return the names of the faces in the index by number."""
        people = {one.id: one.name for one in self.store.find(hidden=None, limit=1000)}
        found = {number: self.payload(number).person for number in range(len(self.index.points))}
        return {number: people[person] for number, person in found.items() if person is not None}

    def names_in_catalog(self) -> dict[str, int]:
        """Return the number of assignments by name."""
        return {one.name: len(self.store.assignments_of(one.id)) for one in self.store.find(hidden=None, limit=1000)}


@pytest.fixture
def named(database: Database) -> Named:
    """Forty faces of ten people, four each in pictures of their own; nobody has a name."""
    index = MemoryIndex()
    index.upsert(gallery(people=10, of_each=4))
    names = NamesCopy(database, index, COLLECTION)
    naming = Naming(database, index, names)
    return Named(database, index, PeopleStore(database), ChangeLog(database), names, naming)
