"""people.metadata_names: names from pictures never contradict what somebody said, and can be undone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.catalog import ChangeLog, Database, NewChange, PeopleStore
from app.core.types import BBox, FacePoint
from app.images import FileNames, Layer, PictureNames, Region
from app.people import Author, MetadataNames, NamesCopy, Naming, Profile
from tests.support.catalogs import KINDS, new_catalog
from tests.support.fakes import MemoryIndex
from tests.support.pictures import point

LEFT: BBox = (10, 10, 30, 30)
RIGHT: BBox = (60, 10, 80, 30)
BY = Author("test")
COLLECTION = "faces__fake__ffffffff"


class Bench:
    """An index of pictures with two faces each, 100 x 100 pixels, and a catalog."""

    def __init__(self, database: Database) -> None:
        self.index = MemoryIndex()
        self.database = database
        self.store = PeopleStore(database)
        self.log = ChangeLog(database)
        self.naming = Naming(database, self.index, NamesCopy(database, self.index, COLLECTION))
        self.names = MetadataNames(database, self.index, COLLECTION, "test")

    def points(self, number: int) -> list[FacePoint]:
        base = point(number, (200, 30, 30))
        return [
            replace(base, face_id=self.face(number, side), payload=replace(
                base.payload, image_id=self.image(number), bbox=box, width=100, height=100, person=None
            ))
            for side, box in enumerate((LEFT, RIGHT))
        ]  # fmt: skip

    def store_picture(self, number: int) -> None:
        self.index.upsert(self.names.stamped(self.points(number)))

    @staticmethod
    def image(number: int) -> str:
        return f"{number:064x}"

    @staticmethod
    def face(number: int, side: int) -> str:
        return f"00000000-0000-4000-8000-{2 * number + side:012x}"

    def picture(self, number: int, left: str = "", right: str = "") -> PictureNames:
        regions = tuple(
            Region(name, (box[0] / 100, box[1] / 100, box[2] / 100, box[3] / 100))
            for name, box in ((left, LEFT), (right, RIGHT))
            if name
        )
        found = FileNames((Layer("the file", regions),))
        return PictureNames(f"/p/{number}.jpg", self.image(number), 100, 100, (LEFT, RIGHT), found)

    def names_of(self, number: int) -> list[str]:
        """The names of a picture's faces from left to right, as the index has them."""
        people = self.store.persons([one.person_id for one in self.store.assignments_in([self.image(number)]).get(
            self.image(number), ())])  # fmt: skip
        shown = [self.index.points[self.face(number, side)].payload.person for side in (0, 1)]
        return ["" if person is None else people[person].name for person in shown]

    def people(self) -> list[str]:
        return sorted(person.name for person in self.store.find(hidden=None))


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with new_catalog(request.param, tmp_path) as database:
        made = Bench(database)
        for number in range(4):
            made.store_picture(number)
        yield made


def test_regions_name_faces_in_catalog_and_index_in_one_change(bench: Bench) -> None:
    pictures = [bench.picture(0, "Ana", "Bob"), bench.picture(1, "Ana")]
    applied = bench.names.apply(pictures, [])
    assert (applied.named, applied.people, applied.problems) == (3, 2, ())
    assert bench.names_of(0) == ["Ana", "Bob"]
    assert bench.names_of(1) == ["Ana", ""]
    (change,) = bench.log.find()
    assert (change.kind, change.faces, change.details) == ("metadata", 3, {"names": ["Ana", "Bob"], "people": 2})
    assert {one.source for one in bench.store.all_assignments()} == {"metadata"}


def test_the_same_names_again_change_nothing(bench: Bench) -> None:
    for _ in range(2):
        bench.names.apply([bench.picture(0, "Ana", "Bob")], [])
    assert len(bench.log.find()) == 1
    assert bench.people() == ["Ana", "Bob"]


def test_the_change_can_be_undone(bench: Bench) -> None:
    bench.names.apply([bench.picture(0, "Ana", "Bob")], [])
    bench.naming.undo(1, BY)
    assert bench.names_of(0) == ["", ""]
    assert bench.people() == []


def test_alex_is_not_alex_with_a_capital(bench: Bench) -> None:
    bench.names.apply([bench.picture(0, "alex", "Alex")], [])
    assert bench.names_of(0) == ["alex", "Alex"]


def test_a_name_of_several_people_is_that_of_the_oldest_who_is_not_hidden(bench: Bench) -> None:
    hidden, oldest, _ = (
        bench.naming.create(Profile(name="Ana", hidden=hides), [], BY) for hides in (True, False, False)
    )
    assert hidden.person is not None
    assert oldest.person is not None
    visible = sorted(one.id for one in bench.store.find("Ana"))
    bench.names.apply([bench.picture(0, "Ana")], [])
    given = bench.index.points[bench.face(0, 0)].payload.person
    assert given in visible
    assert given == min((one.created_at, one.id) for one in bench.store.find("Ana", hidden=False))[1]


def test_only_a_hidden_person_keeps_the_name(bench: Bench) -> None:
    bench.naming.create(Profile(name="Ana", hidden=True), [], BY)
    bench.names.apply([bench.picture(0, "Ana")], [])
    assert bench.people() == ["Ana"]


def test_a_name_given_by_hand_stays(bench: Bench) -> None:
    bench.naming.create(Profile(name="Carla"), [bench.face(0, 0)], BY)
    applied = bench.names.apply([bench.picture(0, "Ana", "Bob")], [])
    assert bench.names_of(0) == ["Carla", "Bob"]
    assert [problem.reason for problem in applied.problems] == ["named_by_hand"]
    assert bench.people() == ["Bob", "Carla"]


def test_a_rejected_name_does_not_come_back(bench: Bench) -> None:
    bench.names.apply([bench.picture(0, "Ana")], [])
    (ana,) = bench.store.find("Ana")
    bench.naming.reject(ana.id, ana.version, [bench.face(0, 0)], BY)
    applied = bench.names.apply([bench.picture(0, "Ana")], [])
    assert bench.names_of(0) == ["", ""]
    assert [problem.reason for problem in applied.problems] == ["name_rejected"]


@pytest.mark.parametrize("kind", ["set_aside", "not_a_face"])
def test_a_dismissed_face_gets_no_name(bench: Bench, kind: str) -> None:
    bench.naming.dismiss([bench.face(0, 0)], kind, BY)  # type: ignore[arg-type]
    bench.names.apply([bench.picture(0, "Ana")], [])
    assert bench.names_of(0) == ["", ""]
    assert bench.people() == []


def test_two_faces_of_a_picture_are_never_one_person(bench: Bench) -> None:
    bench.naming.create(Profile(name="Ana"), [bench.face(0, 1)], BY)
    applied = bench.names.apply([bench.picture(0, "Ana")], [])
    assert bench.names_of(0) == ["", "Ana"]
    assert [problem.reason for problem in applied.problems] == ["name_twice"]


def test_a_name_that_was_corrected_in_the_file_replaces_the_one_that_came_from_it(bench: Bench) -> None:
    bench.names.apply([bench.picture(0, "Ana")], [])
    bench.names.apply([bench.picture(0, "Eva")], [])
    assert bench.names_of(0) == ["Eva", ""]
    bench.names.apply([bench.picture(0, "Ana")], [])
    assert bench.names_of(0) == ["Ana", ""]


def test_somebody_who_was_renamed_here_keeps_the_new_name(bench: Bench) -> None:
    bench.names.apply([bench.picture(0, "Ana")], [])
    (ana,) = bench.store.find("Ana")
    bench.naming.edit(ana.id, ana.version, Profile(name="Ana García"), BY)
    applied = bench.names.apply([bench.picture(0, "Ana", "Bob")], [])
    assert bench.names_of(0) == ["Ana García", "Bob"]
    assert applied.problems == ()


def test_somebody_who_was_merged_here_stays_merged(bench: Bench) -> None:
    bench.names.apply([bench.picture(0, "Anna"), bench.picture(1, "Ana")], [])
    (anna,), (ana,) = bench.store.find("Anna"), bench.store.named("Ana")
    bench.naming.merge(ana.id, ana.version, {anna.id: anna.version}, BY)
    bench.names.apply([bench.picture(0, "Anna")], [])
    assert bench.names_of(0) == ["Ana", ""]
    assert bench.people() == ["Ana"]


def test_a_region_without_a_face_is_reported(bench: Bench) -> None:
    picture = replace(bench.picture(0), found=FileNames((Layer("the file", (Region("Eve", (0.1, 0.7, 0.3, 0.9)),)),)))
    applied = bench.names.apply([picture], [])
    (problem,) = applied.problems
    assert (problem.path, problem.reason) == ("/p/0.jpg", "region_without_face")
    assert "Eve" in problem.message


def test_sources_that_differ_are_reported(bench: Bench) -> None:
    first, second = bench.picture(0, "Ana").found.layers[0], bench.picture(0, "Eve").found.layers[0]
    applied = bench.names.apply([replace(bench.picture(0), found=FileNames((first, second)))], [])
    assert bench.names_of(0) == ["Ana", ""]
    assert [problem.reason for problem in applied.problems] == ["names_differ"]


def test_a_folder_names_the_only_face(bench: Bench) -> None:
    one = replace(bench.picture(0), faces=(LEFT,), found=FileNames(), folder="Ana")
    several = replace(bench.picture(1), found=FileNames(), folder="Ana")
    applied = bench.names.apply([one, several], [])
    assert bench.names_of(0) == ["Ana", ""]
    assert bench.names_of(1) == ["", ""]
    assert [problem.reason for problem in applied.problems] == ["folder_unsure"]


def test_an_image_that_is_stored_again_has_its_names(bench: Bench) -> None:
    bench.names.apply([bench.picture(0, "Ana")], [])
    (ana,) = bench.store.find("Ana")
    stamped = bench.names.stamped([*bench.points(0), *bench.points(1)])
    assert [one.payload.person for one in stamped] == [ana.id, None, None, None]


def test_a_name_that_is_taken_away_while_its_image_is_stored_is_not_left_in_the_index(bench: Bench) -> None:
    bench.names.apply([bench.picture(0, "Ana")], [])
    (ana,) = bench.store.find("Ana")
    rebuilt = MemoryIndex()
    names = MetadataNames(bench.database, rebuilt, "faces__other__ffffffff", "test")
    stamped = names.stamped(bench.points(0))
    bench.naming.delete(ana.id, ana.version, Author("user ana"))
    rebuilt.upsert(stamped)
    names.apply([], stamped)
    assert rebuilt.points[bench.face(0, 0)].payload.person is None


def test_a_new_index_gets_the_names_of_the_images_that_are_stored_in_it(bench: Bench) -> None:
    bench.names.apply([bench.picture(0, "Ana")], [])
    rebuilt = MemoryIndex()
    names = MetadataNames(bench.database, rebuilt, "faces__other__ffffffff", "test")
    other_box = [
        replace(one, payload=replace(one.payload, bbox=(12.0, 9.0, 31.0, 32.0))) for one in bench.points(0)[:1]
    ]
    rebuilt.upsert(other_box)  # as an older version did, without the name
    names.apply([], other_box)
    assert rebuilt.points[bench.face(0, 0)].payload.person is not None


def test_an_image_named_before_gets_its_names_beside_one_that_is_named_now(bench: Bench) -> None:
    bench.names.apply([bench.picture(0, "Ana")], [])
    rebuilt = MemoryIndex()
    names = MetadataNames(bench.database, rebuilt, "faces__other__ffffffff", "test")
    NamesCopy(bench.database, rebuilt, "faces__other__ffffffff").catch_up()
    stored = [*bench.points(0), *bench.points(1)]
    rebuilt.upsert(stored)
    names.apply([bench.picture(0, "Ana"), bench.picture(1, "Bob")], stored)
    named = [rebuilt.points[bench.face(number, 0)].payload.person for number in (0, 1)]
    people = bench.store.persons([one for one in named if one])
    assert [one and people[one].name for one in named] == ["Ana", "Bob"]


def test_names_whose_copy_to_the_index_was_cut_off_are_copied_when_they_are_read_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    catch_up = NamesCopy.catch_up

    def killed(_: NamesCopy) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(NamesCopy, "catch_up", killed)
    with pytest.raises(KeyboardInterrupt):
        bench.names.apply([bench.picture(0, "Ana")], [])
    assert bench.names_of(0) == ["", ""]
    monkeypatch.setattr(NamesCopy, "catch_up", catch_up)
    bench.names.apply([bench.picture(0, "Ana")], [])
    assert bench.names_of(0) == ["Ana", ""]
    assert len(bench.log.find()) == 1


def test_many_names_are_one_change(bench: Bench) -> None:
    for number in range(4, 600):
        bench.store_picture(number)
    applied = bench.names.apply([bench.picture(number, "Ana", "Bob") for number in range(600)], [])
    assert applied.named == 1200
    assert len(bench.log.find()) == 1
    bench.naming.undo(1, BY)
    assert not bench.store.is_any()


def test_a_change_made_by_an_import_has_its_own_kind(bench: Bench) -> None:
    from app.catalog import Place
    from app.people import Given

    given = [Given("/p/0.jpg", Place(bench.image(0), 0, LEFT), "Ana")]
    done = bench.names.give(given, NewChange("me", "import"))
    assert done.change is not None
    assert (done.change.kind, done.change.who) == ("import", "me")
