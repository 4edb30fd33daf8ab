"""Naming: what each change does to catalog and index, what it refuses, and that it can be undone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from app.catalog import CopiedNames, Database
from app.core.errors import OceanoError
from app.core.types import FacePoint
from app.people import MAX_FACES, Author, NamesCopy, Naming, Profile
from tests.people.conftest import ANA, ON_BOTH, Named
from tests.support.fakes import MemoryIndex
from tests.support.people_gallery import COLLECTION, face_ids, gallery

BEN = Author("user ben")


@ON_BOTH
def test_naming_faces_adds_a_person_and_writes_the_names_to_the_index(named: Named) -> None:
    person = named.person("Zoë  Ñandú", 0, 1)
    assert (person.name, person.faces, person.version) == ("Zoë Ñandú", 2, 1)
    assert named.names_in_index() == {0: "Zoë Ñandú", 1: "Zoë Ñandú"}
    (first, _) = named.store.assignments_of(person.id)
    assert (first.source, first.assigned_by) == ("manual", "user ana")
    done = named.naming.assign(person.id, 1, face_ids(2), BEN, source="confirmed")
    assert done.person is not None
    assert (done.person.faces, done.person.version) == (3, 2)
    assert done.change is not None
    assert (done.change.kind, done.change.faces, done.change.who) == ("confirm", 1, "user ben")


def test_what_is_so_already_is_no_change(named: Named) -> None:
    person = named.person("Ana", 0)
    done = named.naming.assign(person.id, 1, face_ids(0), ANA)
    assert done.change is None
    assert done.person == person
    assert named.naming.edit(person.id, 1, Profile(name="Ana"), ANA).change is None


@pytest.mark.parametrize(
    "change",
    [
        lambda named, one, other: named.naming.edit(one.id, 1, Profile(name="Other"), ANA),
        lambda named, one, other: named.naming.delete(one.id, 1, ANA),
        lambda named, one, other: named.naming.assign(one.id, 1, face_ids(9), ANA),
        lambda named, one, other: named.naming.reject(one.id, 1, face_ids(0), ANA),
        lambda named, one, other: named.naming.split(one.id, 1, face_ids(0), "Part", ANA),
        lambda named, one, other: named.naming.merge(one.id, 1, {other.id: 1}, ANA),
        lambda named, one, other: named.naming.merge(other.id, 1, {one.id: 1}, ANA),
    ],
    ids=["edit", "delete", "assign", "reject", "split", "merge into", "merge from"],
)
def test_a_stale_tab_changes_nothing(named: Named, change: Callable[[Named, object, object], object]) -> None:
    one, other = named.person("One", 0, 1), named.person("Other", 4, 5)
    named.naming.edit(one.id, 1, Profile(name="One of today"), BEN)
    before = named.names_in_catalog(), named.names_in_index(), named.log.newest_number()
    with pytest.raises(OceanoError) as caught:
        change(named, one, other)
    assert caught.value.code == "person_changed"
    assert caught.value.details == {"person_id": one.id, "version": 2}
    assert (named.names_in_catalog(), named.names_in_index(), named.log.newest_number()) == before


@ON_BOTH
def test_renaming_to_the_name_of_another_person_merges_nobody(named: Named) -> None:
    one, other = named.person("Alex", 0), named.person("Ben", 4, 5)
    named.naming.edit(other.id, 1, Profile(name="Alex"), ANA)
    assert sorted((one.name, one.faces) for one in named.store.find()) == [("Alex", 1), ("Alex", 2)]
    assert {person.id for person in named.store.named("Alex")} == {one.id, other.id}


@pytest.mark.parametrize(
    "name", ["Alex", "alex", "Smith|Wesson", "אבגד هوز", "x" * 300, "", "Ana\N{COMBINING ACUTE ACCENT}", "<b>&amp;"]
)
def test_a_name_is_kept_as_it_was_typed(named: Named, name: str) -> None:
    named.person("Alex", 0)
    person = named.person(name, 4)
    assert person.name == (name if name.isascii() or len(name) > 4 else "Aná")
    assert named.store.named("Alex")[0].faces == 1


@pytest.mark.parametrize("name", ["\u200b", "\u2060 \u200d", "\uffff", "\ufeff\n"])
def test_a_name_of_which_nothing_is_visible_is_empty(named: Named, name: str) -> None:
    assert named.person(name, 0).name == ""
    assert named.person(f"Zoë\u200dX{name}", 1).name.startswith("Zoë\u200dX")


def test_too_long_names_and_wrong_dates_are_refused(named: Named) -> None:
    for profile in (
        Profile(name="x" * 501),
        Profile(birth_date="yesterday"),
        Profile(birth_date="2021-13"),
        Profile(birth_date="١٩٧٠"),
        Profile(notes="x" * 10_001),
    ):
        with pytest.raises(OceanoError, match=r"at most|birth date"):
            named.naming.create(profile, [], ANA)
    assert named.log.newest_number() == 0


def test_a_face_with_another_name_is_not_taken_without_asking(named: Named) -> None:
    one, other = named.person("One", 0, 1), named.person("Other", 4)
    with pytest.raises(OceanoError) as caught:
        named.naming.assign(other.id, 1, face_ids(0, 5), ANA)
    assert caught.value.code == "face_named"
    assert caught.value.details == {"faces": 1, "person_ids": [one.id]}
    assert named.names_in_index() == {0: "One", 1: "One", 4: "Other"}
    named.naming.assign(other.id, 1, face_ids(0, 5), ANA, replace=True)
    assert named.names_in_index() == {0: "Other", 1: "One", 4: "Other", 5: "Other"}
    assert (named.now(one).faces, named.now(one).version) == (1, 2)


def test_a_name_is_taken_only_from_those_of_whom_that_was_said(named: Named) -> None:
    one, two = named.person("One", 0), named.person("Two", 4)
    with pytest.raises(OceanoError, match="1 of the faces") as caught:
        named.naming.create(Profile(name="Other"), face_ids(0, 4), ANA, replace=[one.id])
    assert caught.value.details["person_ids"] == [two.id]
    named.naming.create(Profile(name="Other"), face_ids(0, 4), ANA, replace=[one.id, two.id])
    assert named.names_in_index() == {0: "Other", 4: "Other"}


def test_two_faces_of_one_picture_get_one_name_only_if_that_was_said(named: Named) -> None:
    named.index.upsert(gallery(people=11, of_each=4, images={41: 40})[40:])  # 40 and 41 are in one picture
    with pytest.raises(OceanoError) as caught:
        named.person("Ana", 40, 41, 43)
    assert (caught.value.code, caught.value.details["faces"]) == ("person_in_image", 2)
    ana = named.person("Ana", 40, 43)
    with pytest.raises(OceanoError) as caught:
        named.naming.assign(ana.id, 1, face_ids(40, 41, 43), ANA)
    assert (caught.value.code, caught.value.details["faces"]) == ("person_in_image", 1)
    named.naming.assign(ana.id, 1, face_ids(41), ANA, same_image=True)
    named.naming.assign(ana.id, 2, face_ids(40, 41), ANA)  # what is so already needs no word
    assert named.names_in_index() == {40: "Ana", 41: "Ana", 43: "Ana"}


def test_a_rejected_face_loses_the_name_and_is_remembered(named: Named) -> None:
    person = named.person("Ana", 0, 1)
    named.naming.reject(person.id, 1, face_ids(1, 2), ANA)
    assert named.names_in_index() == {0: "Ana"}
    assert sorted(one.place.image_id for one in named.store.rejections_of(person.id)) == [f"{n:064x}" for n in (1, 2)]
    named.naming.assign(person.id, 2, face_ids(2), ANA)
    assert [one.place.image_id for one in named.store.rejections_of(person.id)] == [f"{1:064x}"]


@ON_BOTH
def test_a_merge_moves_everything_of_the_others(named: Named) -> None:
    one, other, third = named.person("One", 0), named.person("Other", 1), named.person("Third", 2)
    named.naming.edit(other.id, 1, Profile(notes="met in Lima"), ANA)
    named.naming.reject(other.id, 2, face_ids(0, 9), ANA)
    done = named.naming.merge(one.id, 1, {other.id: 3, third.id: 1}, ANA)
    assert done.person is not None
    assert (done.person.name, done.person.faces, done.person.notes) == ("One", 3, "met in Lima")
    assert named.names_in_index() == {0: "One", 1: "One", 2: "One"}
    assert [place.place.image_id for place in named.store.rejections_of(one.id)] == [f"{9:064x}"]
    assert named.store.person(other.id) is None
    assert done.change is not None
    named.naming.undo(done.change.number, ANA)
    assert named.names_in_index() == {0: "One", 1: "Other", 2: "Third"}
    assert len(named.store.rejections_of(other.id)) == 2


@ON_BOTH
def test_a_split_moves_only_the_faces_that_were_selected(named: Named) -> None:
    person = named.person("Ana", 0, 1, 2, 3)
    done = named.naming.split(person.id, 1, face_ids(1, 3), "Eva", ANA)
    assert done.person is not None
    assert (done.person.name, done.person.faces) == ("Eva", 2)
    assert named.names_in_index() == {0: "Ana", 1: "Eva", 2: "Ana", 3: "Eva"}
    assert len(named.store.rejections_of(person.id)) == 2
    with pytest.raises(OceanoError, match="1 of the faces is not this person's"):
        named.naming.split(person.id, 2, face_ids(0, 9), "Nobody", ANA)


def test_a_deleted_person_leaves_unnamed_faces_and_can_be_brought_back(named: Named) -> None:
    person = named.person("Ana", 0, 1)
    done = named.naming.delete(person.id, 1, ANA)
    assert done.person is None
    assert named.names_in_index() == {}
    assert done.change is not None
    named.naming.undo(done.change.number, ANA)
    assert named.names_in_index() == {0: "Ana", 1: "Ana"}
    assert named.now(person).version > person.version


@ON_BOTH
def test_a_dismissed_face_is_not_one_that_nobody_has_looked_at(named: Named) -> None:
    person = named.person("Ana", 0)
    named.naming.dismiss(face_ids(1), "set_aside", ANA)
    named.naming.dismiss(face_ids(0), "not_a_face", ANA)
    assert named.names_in_index() == {}
    assert named.now(person).faces == 0
    found = named.store.dismissals_in([f"{number:064x}" for number in range(3)])
    kinds = {image_id: one.kind for image_id, (one,) in found.items()}
    assert kinds == {f"{0:064x}": "not_a_face", f"{1:064x}": "set_aside"}
    with pytest.raises(OceanoError) as caught:
        named.person("Eva", 5)
        named.naming.dismiss(face_ids(5), "set_aside", ANA)
    assert caught.value.code == "face_named"
    named.naming.dismiss(face_ids(1), None, ANA)
    assert named.store.dismissals_in([f"{1:064x}"]) == {}
    named.naming.assign(person.id, named.now(person).version, face_ids(0), ANA)
    assert named.store.dismissals_in([f"{0:064x}"]) == {}


@ON_BOTH
def test_every_change_can_be_undone_and_done_again(named: Named) -> None:
    person = named.person("Ana", 0, 1)
    states = [(named.names_in_catalog(), named.names_in_index())]
    named.naming.edit(person.id, 1, Profile(name="Eva", hidden=True, birth_date="1970-05"), ANA)
    states.append((named.names_in_catalog(), named.names_in_index()))
    named.naming.assign(person.id, 2, face_ids(2, 3), ANA)
    states.append((named.names_in_catalog(), named.names_in_index()))
    for number, state in ((3, states[1]), (2, states[0])):
        undone = named.naming.undo(number, ANA).change
        assert undone is not None
        assert (named.names_in_catalog(), named.names_in_index()) == state
        assert undone.undoes == number
    redone = named.naming.undo(named.log.newest_number(), ANA).change
    assert redone is not None
    assert named.names_in_catalog() == {"Eva": 2}
    assert [one.undone_by for one in named.log.find(limit=10)][::-1] == [None, None, 4, None, 6, None]


def test_a_change_whose_faces_were_changed_since_is_not_undone(named: Named) -> None:
    person = named.person("Ana", 0)
    named.naming.assign(person.id, 1, face_ids(1), ANA)
    other = named.person("Eva", 4)
    named.naming.assign(other.id, 1, face_ids(1), ANA, replace=True)
    with pytest.raises(OceanoError) as caught:
        named.naming.undo(2, ANA)
    assert (caught.value.code, caught.value.details["cause"]) == ("change_conflict", "changed")
    with pytest.raises(OceanoError) as caught:
        named.naming.undo(3, ANA)
    assert caught.value.details["cause"] == "has_faces"
    with pytest.raises(OceanoError) as caught:
        named.naming.undo(99, ANA)
    assert caught.value.code == "change_unknown"
    assert named.names_in_index() == {0: "Ana", 1: "Eva", 4: "Eva"}


def test_a_rejection_is_not_undone_onto_a_face_with_another_name(named: Named) -> None:
    person = named.person("Ana", 0, 1)
    named.naming.reject(person.id, 1, face_ids(1), ANA)
    named.person("Eva", 1)
    with pytest.raises(OceanoError) as caught:
        named.naming.undo(2, ANA)
    assert caught.value.details["cause"] == "named"
    assert named.names_in_index() == {0: "Ana", 1: "Eva"}


@pytest.mark.parametrize(
    "change",
    [
        lambda named, one, other: named.naming.assign(other.id, 1, face_ids(0), ANA, replace=True),
        lambda named, one, other: named.naming.split(one.id, 1, face_ids(0), "Part", ANA),
        lambda named, one, other: named.naming.reject(one.id, 1, face_ids(0), ANA),
        lambda named, one, other: named.naming.dismiss(face_ids(0), "not_a_face", ANA),
    ],
    ids=["replace", "split", "reject", "dismiss"],
)
def test_faces_are_not_given_back_to_a_deleted_person(
    named: Named, change: Callable[[Named, object, object], object]
) -> None:
    one, other = named.person("One", 0, 1), named.person("Other", 4)
    change(named, one, other)
    number = named.log.newest_number()
    named.naming.delete(one.id, 2, ANA)
    before = named.names_in_catalog(), named.names_in_index()
    with pytest.raises(OceanoError) as caught:
        named.naming.undo(number, ANA)
    assert (caught.value.code, caught.value.details["cause"]) == ("change_conflict", "person_deleted")
    assert (named.names_in_catalog(), named.names_in_index()) == before


def test_nothing_is_undone_against_what_was_said_of_a_face_since(named: Named) -> None:
    person = named.person("Ana", 0)
    for said, contrary, cause in (
        (named.naming.reject, named.naming.assign, "named"),
        (named.naming.assign, named.naming.reject, "rejected"),
    ):
        said(person.id, named.now(person).version, face_ids(8), ANA)
        number = named.log.newest_number() + 1
        named.naming.undo(number - 1, ANA)
        contrary(person.id, named.now(person).version, face_ids(8), ANA)
        with pytest.raises(OceanoError) as caught:
            named.naming.undo(number, ANA)
        assert caught.value.details["cause"] == cause
        named.naming.undo(number + 1, ANA)
    named.naming.dismiss(face_ids(9), "set_aside", ANA)
    number = named.log.newest_number() + 1
    named.naming.dismiss(face_ids(9), None, ANA)
    named.naming.assign(person.id, named.now(person).version, face_ids(9), ANA)
    with pytest.raises(OceanoError) as caught:
        named.naming.undo(number, ANA)
    assert caught.value.details["cause"] == "named"


def test_a_change_is_undone_once(named: Named) -> None:
    named.person("Ana", 0)
    named.naming.undo(1, ANA)
    with pytest.raises(OceanoError) as caught:
        named.naming.undo(1, ANA)
    assert caught.value.details["cause"] == "undone"


@ON_BOTH
def test_a_repeated_request_is_answered_and_not_done_again(named: Named) -> None:
    by = Author("user ana", "key 1")
    first = named.naming.create(Profile(name="Ana"), face_ids(0), by)
    again = named.naming.create(Profile(name="Ana"), face_ids(0), by)
    assert again == first
    assert len(named.store.find()) == 1
    with pytest.raises(OceanoError, match="another request"):
        named.naming.create(Profile(name="Eva"), face_ids(1), by)
    assert named.naming.create(Profile(name="Ana"), [], Author("user ben", "key 1")).person != first.person


def test_unknown_faces_and_too_many_are_refused(named: Named) -> None:
    for ids, code in ((["0" * 8], "face_unknown"), (face_ids(0, 99), "face_unknown"), ([], "invalid_request")):
        with pytest.raises(OceanoError) as caught:
            named.naming.dismiss(ids, "not_a_face", ANA)
        assert caught.value.code == code
    with pytest.raises(OceanoError, match=str(MAX_FACES)):
        named.naming.dismiss([str(number) for number in range(MAX_FACES + 1)], "not_a_face", ANA)


class Broken(MemoryIndex):
    """An index that fails to write payloads while `fails` is set."""

    fails = False

    def set_payload(self, face_ids: object, *, person: str | None) -> None:
        if self.fails:
            raise OceanoError("index_unavailable", "the index is away")
        super().set_payload(face_ids, person=person)  # type: ignore[arg-type]


@ON_BOTH
def test_names_that_the_index_missed_are_copied_later(database: Database) -> None:
    index = Broken()
    index.upsert(gallery(people=2, of_each=3))
    names = NamesCopy(database, index, COLLECTION)
    naming = Naming(database, index, names)
    index.fails = True
    done = naming.create(Profile(name="Ana"), face_ids(0, 1), ANA)
    assert done.person is not None
    assert not names.is_current()
    assert index.count() == 6
    index.fails = False
    again = NamesCopy(database, index, COLLECTION)  # as after a kill and a new start
    assert again.catch_up() == 2
    assert again.catch_up() == 0
    assert {point.payload.person for point in index.points.values()} == {None, done.person.id}
    assert CopiedNames(database, COLLECTION).number() == 1


def test_another_index_gets_the_names_whatever_the_model_found(named: Named) -> None:
    person = named.person("Ana", 0, 1)
    named.naming.dismiss(face_ids(4), "not_a_face", ANA)
    other = MemoryIndex()
    for point in gallery(people=10, of_each=4):
        x1, y1, x2, y2 = point.payload.bbox
        moved = replace(point.payload, bbox=(x1 - 9, y1 + 7, x2 + 5, y2 + 11))
        other.upsert([FacePoint(point.face_id[:-2] + "00", point.embedding, moved)])
    names = NamesCopy(named.database, other, "faces__other__eeeeeeee")
    assert names.catch_up() == 3
    found = [point.payload.image_id for point in other.points.values() if point.payload.person == person.id]
    assert sorted(found) == [f"{n:064x}" for n in (0, 1)]


def test_two_faces_of_a_picture_keep_their_own_names(database: Database) -> None:
    index = MemoryIndex()
    index.upsert(gallery(people=2, of_each=1, images={1: 0}))
    naming = Naming(database, index, NamesCopy(database, index, COLLECTION))
    one = naming.create(Profile(name="Left"), face_ids(0), ANA).person
    other = naming.create(Profile(name="Right"), face_ids(1), ANA).person
    assert one is not None
    assert other is not None
    assert index.points[face_ids(0)[0]].payload.person == one.id
    assert index.points[face_ids(1)[0]].payload.person == other.id


@ON_BOTH
def test_the_journal_knows_into_whom_somebody_was_merged(named: Named) -> None:
    stays, goes, deleted = named.person("Stays", 0), named.person("Goes", 4), named.person("Deleted", 8)
    merge = named.naming.merge(stays.id, 1, {goes.id: 1}, ANA).change
    named.naming.delete(deleted.id, 1, ANA)
    removal = named.log.removal_of(goes.id)
    assert removal is not None
    assert (removal.change, removal.name, removal.merged_into) == (merge, "Goes", stays.id)
    removal = named.log.removal_of(deleted.id)
    assert removal is not None
    assert (removal.change.kind, removal.name, removal.merged_into) == ("delete", "Deleted", None)
    assert named.log.removal_of(stays.id) is None
    assert named.log.removal_of("nobody") is None
    assert merge is not None
    undo = named.naming.undo(merge.number, ANA).change
    assert named.log.removal_of(goes.id) is None, "the undo brought them back"
    assert undo is not None
    redo = named.naming.undo(undo.number, ANA).change
    removal = named.log.removal_of(goes.id)
    assert removal is not None
    assert (removal.change, removal.merged_into) == (redo, stays.id)
