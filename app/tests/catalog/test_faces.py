from collections.abc import Iterator

import pytest

from app.catalog import (
    CopiedNames,
    Database,
    DismissedFaces,
    FaceNames,
    FaceTable,
    FileRecord,
    GroupedFace,
    Ledger,
    UnnamedGroups,
    only_grouping,
)
from app.catalog.tables import DISMISSALS, PEOPLE
from app.core.errors import OceanoError

HERE, THERE = "faces__a__11111111", "faces__b__22222222"


@pytest.fixture
def table(database: Database) -> Iterator[FaceTable]:
    yield FaceTable(database, HERE)


def _face(name: str, group: str, *, image: str = "", clear: bool = True) -> GroupedFace:
    return GroupedFace(name, image or f"image-{name}", group, clear)


def _groups(table: FaceTable, *names: str) -> list[str | None]:
    known = table.known(names)
    return [known[name].group_id for name in names]


def _person(database: Database, person_id: str, *, faces: int = 1) -> None:
    values = {"id": person_id, "name": person_id, "name_key": person_id, "created_at": "2026", "changed_at": "2026"}
    with database.writing() as connection:
        connection.execute(PEOPLE.insert().values(values | {"faces": faces}))


def _record(database: Database, *images: tuple[str, int], collection: str = HERE) -> Ledger:
    ledger = Ledger(database, collection)
    ledger.record([FileRecord(f"/p/{image}", 1, 1, image, "done", faces) for image, faces in images])
    return ledger


def test_a_group_has_the_faces_that_were_written_to_it(table: FaceTable) -> None:
    table.write([_face("a1", "a1"), _face("a2", "a1", clear=False), _face("b1", "b1")])
    found = [(one.group_id, one.face_id, one.image_id, one.clear) for one in table.members(["a1", "b1", "x"])]
    assert found == [("a1", "a1", "image-a1", True), ("a1", "a2", "image-a2", False), ("b1", "b1", "image-b1", True)]
    assert table.groups_among(["a1", "a2", "b1"]) == {"a1", "b1"}


def test_merged_groups_are_renamed_with_the_new_faces(table: FaceTable) -> None:
    table.write([_face("a1", "a1"), _face("b1", "b1"), _face("b2", "b1")])
    table.write([_face("c1", "a1")], merged=[("b1", "a1")])
    assert _groups(table, "a1", "b1", "b2", "c1") == ["a1"] * 4


def test_groups_and_names_do_not_overwrite_each_other(database: Database, table: FaceTable) -> None:
    names = CopiedNames(database, HERE)
    names.write([FaceNames("a1", "image-a1", "ana", "assignment", None)])
    table.write([_face("a1", "ana", clear=False)])
    assert table.known(["a1"])["a1"].person_id == "ana"
    names.write([FaceNames("a1", "image-a1", "ben", "other", "set_aside")])
    (member,) = table.members(["ana"])
    assert (member.person_id, member.clear) == ("ben", False)
    names.write([FaceNames("a1", "image-a1")])
    assert _groups(table, "a1") == ["ana"]


def test_other_collections_are_left_alone(database: Database, table: FaceTable) -> None:
    other = FaceTable(database, THERE)
    table.write([_face("a1", "a1")])
    other.write([_face("a1", "z")])
    table.write([], merged=[("a1", "q")])
    table.forget_all_groups()
    assert (_groups(table, "a1"), _groups(other, "a1")) == ([None], ["z"])
    table.remove(["a1"])
    assert (table.known(["a1"]), _groups(other, "a1")) == ({}, ["z"])


def test_images_with_faces_that_were_not_looked_at_are_found(database: Database, table: FaceTable) -> None:
    _record(database, ("i1", 2), ("i2", 1), ("i3", 1), ("i4", 1))
    _record(database, ("i9", 1), collection=THERE)
    assert table.images_to_group() == [("i1", 2), ("i2", 1), ("i3", 1), ("i4", 1)]
    assert table.images_to_group("i1", limit=2) == [("i2", 1), ("i3", 1)]
    table.write([_face("f1", "f1", image="i1"), _face("f2", "f2", image="i2")])
    CopiedNames(database, HERE).write(
        [FaceNames("f3", "i3", "ana", "assignment"), FaceNames("f4", "i4", dismissed="not_a_face")]
    )
    assert table.images_to_group() == [("i1", 2), ("i3", 1)]
    assert table.count_new() == 2
    table.forget_groups(["f2"])
    assert table.images_to_group() == [("i1", 2), ("i2", 1), ("i3", 1)]


def test_faces_of_deleted_images_are_found(database: Database, table: FaceTable) -> None:
    ledger = _record(database, ("i1", 1), ("i2", 1))
    table.write([_face("f1", "f1", image="i1"), _face("f2", "f2", image="i2")])
    assert not table.has_more_than_ledger()
    assert list(table.without_image()) == []
    ledger.delete_images(["i1"])
    assert table.has_more_than_ledger()
    assert list(table.without_image()) == [["f1"]]


def test_the_rest_of_a_group_follows_the_name_of_a_clear_face(database: Database, table: FaceTable) -> None:
    _person(database, "ana")
    table.write([_face(name, "g") for name in ("a", "b", "c")])
    CopiedNames(database, HERE).write([FaceNames("a", "image-a", "ana", "1")])
    table.follow_names()
    assert _groups(table, "a", "b", "c") == ["ana"] * 3


def test_the_rest_of_a_group_stays_if_the_named_face_is_poor(database: Database, table: FaceTable) -> None:
    _person(database, "ana")
    table.write([_face("a", "g", clear=False), _face("b", "g"), _face("c", "g")])
    CopiedNames(database, HERE).write([FaceNames("a", "image-a", "ana", "1")])
    table.follow_names()
    assert _groups(table, "a", "b", "c") == ["ana", "g", "g"]


def test_the_rest_of_a_group_with_two_names_is_looked_at_again(database: Database, table: FaceTable) -> None:
    _person(database, "ana")
    _person(database, "ben")
    table.write([_face(name, "g") for name in ("a", "b", "c")])
    CopiedNames(database, HERE).write([FaceNames("a", "image-a", "ana", "1"), FaceNames("b", "image-b", "ben", "2")])
    table.follow_names()
    assert _groups(table, "a", "b", "c") == ["ana", "ben", None]


def test_a_group_of_a_person_stays_theirs_when_one_of_its_faces_gets_another_name(
    database: Database, table: FaceTable
) -> None:
    _person(database, "ana")
    _person(database, "ben")
    table.write([_face(name, "ana") for name in ("a", "b", "c")])
    names = CopiedNames(database, HERE)
    names.write([FaceNames("a", "image-a", "ana", "1"), FaceNames("b", "image-b", "ben", "2")])
    table.follow_names()
    assert _groups(table, "a", "b", "c") == ["ana", "ben", "ana"]
    names.write([FaceNames("a", "image-a")])
    table.follow_names()
    assert _groups(table, "a", "b", "c") == [None, "ben", None]


def test_what_is_not_a_face_has_no_group(database: Database, table: FaceTable) -> None:
    table.write([_face("a", "g"), _face("b", "g")])
    CopiedNames(database, HERE).write(
        [FaceNames("a", "image-a", dismissed="not_a_face"), FaceNames("b", "image-b", dismissed="set_aside")]
    )
    table.follow_names()
    assert _groups(table, "a", "b") == [None, "g"]
    assert [table.known([name])[name].is_face for name in ("a", "b")] == [False, True]


def test_unnamed_groups_leave_out_names_dismissed_faces_and_groups_of_persons(
    database: Database, table: FaceTable
) -> None:
    _person(database, "ana")
    _person(database, "ben", faces=0)
    table.write(
        [_face(f"g{number}", "g") for number in range(5)] + [_face("h1", "h"), _face("i1", "i"), _face("i2", "i")]
    )
    table.write([_face(name, "ana" if name[0] == "a" else "ben") for name in ("a1", "a2", "b1", "b2", "b3", "b4")])
    CopiedNames(database, HERE).write(
        [FaceNames("g0", "image-g0", "ana", "1"), FaceNames("g1", "image-g1", dismissed="set_aside")]
    )
    assert UnnamedGroups(database, HERE).all() == [("ben", 4), ("g", 3), ("i", 2)]


def test_one_grouping_of_a_collection_at_a_time(database: Database) -> None:
    with only_grouping(database, HERE) as require:
        require()
        with pytest.raises(OceanoError, match="groups the faces") as refused, only_grouping(database, HERE):
            pass
        with only_grouping(database, THERE):
            pass
    assert refused.value.code == "ingest_in_progress"
    with only_grouping(database, HERE):
        pass


def test_single_faces_come_in_pages_by_how_clear_they_are(database: Database, table: FaceTable) -> None:
    _person(database, "ana")
    singles = [_face(f"s{number}", f"s{number}", clear=number % 3 > 0) for number in range(10)]
    pair, persons = [_face("p1", "p"), _face("p2", "p")], [_face("a1", "ana")]
    table.write([*singles, *pair, *persons])
    CopiedNames(database, HERE).write(
        [
            FaceNames("s1", "image-s1", "ana", "1"),
            FaceNames("s2", "image-s2", dismissed="set_aside"),
            FaceNames("p2", "image-p2", dismissed="not_a_face"),
        ]
    )
    groups = UnnamedGroups(database, HERE)
    clear = ["p1", "s4", "s5", "s7", "s8"]
    assert [face for _, face in groups.singles(clear=True, limit=10)] == clear
    assert [face for _, face in groups.singles(clear=False, limit=10)] == ["s0", "s3", "s6", "s9"]
    first = groups.singles(clear=True, limit=2)
    assert first == [("p", "p1"), ("s4", "s4")]
    assert [face for _, face in groups.singles(clear=True, after=first[-1][0], limit=10)] == clear[2:]
    table.forget_groups(["s4", "s0", "s5", "s2"])
    assert groups.ungrouped(clear=True, limit=10) == ["s4", "s5"]
    assert groups.ungrouped(clear=True, after="s4", limit=10) == ["s5"]
    assert groups.ungrouped(clear=False, limit=10) == ["s0"]
    assert groups.of_faces(["s4", "s7", "s1", "s2", "a1"]) == {"s4": None, "s7": "s7"}
    assert groups.sizes(["p", "s7", "s4", "ana"]) == {"p": 1, "s7": 1}
    assert UnnamedGroups(database, THERE).singles(clear=True, limit=10) == []


def test_dismissals_come_in_pages_the_last_one_first(database: Database) -> None:
    with database.writing() as connection:
        for number, kind in enumerate(["set_aside", "not_a_face"] * 3 + ["set_aside"]):
            place = {"image_id": f"image-{number}", "page": 0, "x1": 0.0, "y1": 0.0, "x2": 9.0, "y2": 9.0}
            when = f"2026-01-0{1 + number // 4}T00:00:00Z"
            row = {"id": str(number), "kind": kind, "dismissed_by": "ana", "dismissed_at": when, **place}
            connection.execute(DISMISSALS.insert().values(row))
    dismissed = DismissedFaces(database)
    assert [one.id for _, one in dismissed.newest("set_aside", limit=10)] == ["6", "4", "2", "0"]
    assert [one.id for _, one in dismissed.newest("not_a_face", limit=10)] == ["5", "3", "1"]
    first = dismissed.newest("set_aside", limit=3)
    when, last = first[-1]
    assert (len(first), when) == (3, "2026-01-01T00:00:00Z")
    assert [one.id for _, one in dismissed.newest("set_aside", after=(when, last.id), limit=3)] == ["0"]
