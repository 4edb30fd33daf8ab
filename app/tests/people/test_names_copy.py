"""The copy of the names in the index: repaired after a kill, and whatever it has that the catalog does not."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from app.catalog import Database, Making, PeopleStore, open_sqlite
from app.people import NamesCopy, Naming, Profile
from tests.people.conftest import ANA, ON_BOTH, Named
from tests.support.fakes import MemoryIndex
from tests.support.people_gallery import COLLECTION, face_ids, gallery

_KILLED: Final = 9


class Deadly(MemoryIndex):
    """An index that ends its process at the second write."""

    writes = 0

    def set_payload(self, face_ids: object, *, person: str | None) -> None:
        self.writes += 1
        if self.writes == 2:
            os._exit(_KILLED)
        super().set_payload(face_ids, person=person)  # type: ignore[arg-type]


def _filled(index: MemoryIndex) -> MemoryIndex:
    index.upsert(gallery(people=10, of_each=4))
    return index


def _change(path: Path, kind: str) -> None:
    """Name faces twice in a process that dies: in the middle of the second transaction, or after it."""
    with closing(open_sqlite(path)) as database:
        index = _filled(Deadly() if kind == "after" else MemoryIndex())
        naming = Naming(database, index, NamesCopy(database, index, COLLECTION))
        naming.create(Profile(name="Ana"), face_ids(0, 1), ANA)
        if kind == "within":
            Making.finish = lambda _: os._exit(_KILLED)  # type: ignore[method-assign, assignment, return-value]
        naming.create(Profile(name="Eva"), face_ids(4, 5), ANA)


@pytest.mark.parametrize(("kind", "names"), [("within", {"Ana": 2}), ("after", {"Ana": 2, "Eva": 2})])
def test_a_change_that_was_killed_is_there_as_a_whole_or_not_at_all(
    tmp_path: Path, kind: str, names: dict[str, int]
) -> None:
    path = tmp_path / "catalog.sqlite3"
    process = multiprocessing.get_context("spawn").Process(target=_change, args=(path, kind))
    process.start()
    process.join()
    assert process.exitcode == _KILLED
    index = _filled(MemoryIndex())
    with closing(open_sqlite(path)) as database:
        NamesCopy(database, index, COLLECTION).catch_up()
        store = PeopleStore(database)
        people = store.find()
        assert {one.name: len(store.assignments_of(one.id)) for one in people} == names
        found = [point.payload.person for point in index.points.values()]
    missing = {} if kind == "within" else {"Eva": 2}  # the first change had been copied, to an index that is gone
    assert {one.name: found.count(one.id) for one in people if found.count(one.id)} == missing


class Slow(MemoryIndex):
    """An index before whose next write another process does something."""

    meanwhile: Callable[[], object] | None = None

    def set_payload(self, face_ids: Sequence[str], *, person: str | None) -> None:
        if (meanwhile := self.meanwhile) is not None:
            self.meanwhile = None
            meanwhile()
        super().set_payload(face_ids, person=person)


@ON_BOTH
def test_two_services_that_name_the_same_face_at_once_leave_the_name_of_the_catalog(database: Database) -> None:
    index = Slow()
    _filled(index)
    one, other = (Naming(database, index, NamesCopy(database, index, COLLECTION)) for _ in range(2))
    index.meanwhile = lambda: other.create(Profile(name="Eva"), face_ids(0), ANA, replace=True)
    one.create(Profile(name="Ana"), face_ids(0), ANA)
    (eva,) = PeopleStore(database).named("Eva")
    assert index.points[face_ids(0)[0]].payload.person == eva.id
    names = NamesCopy(database, index, COLLECTION)
    assert names.is_current()
    index.set_payload(face_ids(0), person=None)
    index.meanwhile = lambda: other.delete(eva.id, 1, ANA)
    names.copy_images([f"{0:064x}"])
    assert index.points[face_ids(0)[0]].payload.person is None


@ON_BOTH
def test_names_that_the_index_lacks_or_made_up_are_found_and_repaired(named: Named) -> None:
    person = named.person("Ana", 0, 1)
    named.index.set_payload(face_ids(1), person=None)
    named.index.set_payload(face_ids(7), person=person.id)
    named.index.set_payload(face_ids(8), person="00000000-0000-4000-8000-000000000000")
    wrong = set(named.names.wrong_images())
    assert wrong == {f"{number:064x}" for number in (1, 7, 8)}
    assert named.names.copy_images(sorted(wrong)) == 3
    assert named.names_in_index() == {0: "Ana", 1: "Ana"}
    assert set(named.names.wrong_images()) == set()


@ON_BOTH
def test_all_names_are_copied_with_the_number_of_those_that_found_no_face(named: Named) -> None:
    person = named.person("Ana", 0, 1, 2)
    named.index.delete(face_ids(2))
    named.index.set_payload(face_ids(0, 9), person="00000000-0000-4000-8000-000000000000")
    counts = named.names.copy_all()
    assert (counts.kept, counts.lost) == (2, 1)
    found = {number: named.payload(number).person for number in (0, 1, 9)}
    assert found == {0: person.id, 1: person.id, 9: None}
