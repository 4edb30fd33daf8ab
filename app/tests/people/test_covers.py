"""The face that stands for a person: a good one, chosen once, which does not change by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.catalog import CopiedNames, FaceNames, NewChange, Person, Place
from app.core.types import Flaw
from app.people import Given, MetadataNames, Profile, place_of
from tests.people.conftest import ANA, ON_BOTH, Named
from tests.support.people_gallery import COLLECTION, face_ids


def cover(named: Named, person: Person) -> int | None:
    """Return the number of the face that stands for a person."""
    known = {face_ids(number)[0]: number for number in range(40)}
    found = CopiedNames(named.database, COLLECTION).covers({person.id: named.now(person).cover})
    return known[found[person.id]] if found else None


def rate(named: Named, number: int, quality: float, *flaws: Flaw) -> None:
    point = named.index.points[face_ids(number)[0]]
    named.index.points[point.face_id] = replace(point, payload=replace(point.payload, quality=quality, flaws=flaws))


@ON_BOTH
def test_the_best_of_the_first_faces_is_the_cover_and_stays_it(named: Named) -> None:
    rate(named, 0, 0.99, "extreme_pose")
    rate(named, 1, 0.5)
    rate(named, 2, 0.7)
    person = named.person("Ana", 0, 1, 2)
    assert cover(named, person) == 2
    rate(named, 3, 0.9)
    for number in (3, *range(8, 40)):  # some of their ids are lower
        named.naming.assign(person.id, named.now(person).version, face_ids(number), ANA, source="confirmed")
        assert cover(named, person) == 2
    assert named.now(person).version == person.version + 33


def test_a_person_who_was_added_without_a_face_gets_the_best_of_the_first_ones(named: Named) -> None:
    person = named.person("Ana")
    assert cover(named, person) is None
    rate(named, 6, 0.9)
    named.naming.assign(person.id, 1, face_ids(4, 5, 6, 7), ANA)
    assert cover(named, person) == 6
    assert named.now(person).version == 2


@ON_BOTH
def test_names_of_metadata_choose_a_cover_too(named: Named) -> None:
    rate(named, 1, 0.9)
    names = MetadataNames(named.database, named.index, COLLECTION, "oceano")
    given = [Given(f"/photos/{number}.jpg", place_of(named.payload(number)), "Ana") for number in range(4)]
    ratings: dict[Place, float] = {place_of(named.payload(number)): 0.9 - abs(1 - number) / 10 for number in range(4)}
    names.give(given, NewChange("oceano", "metadata"), ratings)
    (person,) = named.store.named("Ana")
    assert cover(named, person) == 1


@ON_BOTH
def test_another_face_is_chosen_only_while_the_cover_is_lost(named: Named) -> None:
    rate(named, 1, 0.9)
    person = named.person("Ana", 0, 1)
    named.naming.assign(person.id, 1, face_ids(2), ANA)
    assert cover(named, person) == 1
    gone = named.naming.reject(person.id, 2, face_ids(1), ANA).change
    assert cover(named, person) in (0, 2)
    assert gone is not None
    back = named.naming.undo(gone.number, ANA).change
    assert cover(named, person) == 1
    assert back is not None
    named.naming.undo(back.number, ANA)
    assert cover(named, person) in (0, 2)


@ON_BOTH
def test_the_choice_of_a_cover_is_undone_and_done_again_although_the_former_one_was_lost(named: Named) -> None:
    rate(named, 1, 0.9)
    person = named.person("Ana", 0, 1, 2)
    chosen = named.naming.edit(person.id, 1, Profile(cover=face_ids(2)[0]), ANA).change
    named.naming.reject(person.id, 2, face_ids(1), ANA)
    assert chosen is not None
    undone = named.naming.undo(chosen.number, ANA).change
    assert cover(named, person) in (0, 2)
    assert undone is not None
    named.naming.undo(undone.number, ANA)
    assert cover(named, person) == 2


@ON_BOTH
def test_two_people_with_one_cover_have_the_one_face_once(named: Named) -> None:
    """It was taken away from one of them, who has no other face."""
    rate(named, 0, 0.9)
    ana = named.person("Ana", 0)
    eva = named.naming.create(Profile(name="Eva"), face_ids(0, 1, 2), ANA, replace=True).person
    assert eva is not None
    assert eva.cover == named.now(ana).cover
    covers = CopiedNames(named.database, COLLECTION).covers({one.id: named.now(one).cover for one in (eva, ana)})
    assert covers == {eva.id: face_ids(0)[0]}


def test_a_chosen_cover_is_the_cover_again_once_its_face_is_back(named: Named) -> None:
    person = named.person("Ana", 0, 1, 2)
    named.naming.edit(person.id, 1, Profile(cover=face_ids(2)[0]), ANA)
    gone = named.naming.dismiss(face_ids(2), "not_a_face", ANA).change
    assert cover(named, person) != 2
    assert gone is not None
    named.naming.undo(gone.number, ANA)
    assert cover(named, person) == 2


def test_a_person_without_a_face_has_the_old_cover_when_it_comes_back(named: Named) -> None:
    rate(named, 1, 0.9)
    person = named.person("Ana")
    named.naming.assign(person.id, 1, face_ids(0, 1, 2), ANA)
    undone = named.naming.undo(2, ANA).change
    assert cover(named, person) is None
    assert undone is not None
    named.naming.undo(undone.number, ANA)
    assert cover(named, person) == 1


def test_a_split_and_a_merge_leave_both_people_with_a_cover(named: Named) -> None:
    rate(named, 1, 0.9)
    rate(named, 2, 0.85)
    ana = named.person("Ana", 0, 1, 2, 3)
    eva = named.naming.split(ana.id, 1, face_ids(1, 2), "Eva", ANA).person
    assert eva is not None
    assert cover(named, eva) == 1
    assert (left := cover(named, ana)) in (0, 3)
    merged = named.naming.merge(ana.id, 2, {eva.id: named.now(eva).version}, ANA).change
    assert cover(named, ana) == left
    assert merged is not None
    named.naming.undo(merged.number, ANA)
    assert (cover(named, ana), cover(named, eva)) == (left, 1)


def test_a_name_is_undone_although_the_person_was_renamed_since(named: Named) -> None:
    """What follows from the faces is no change that an undo would have to put back."""
    person = named.person("Ana")
    named.naming.assign(person.id, 1, face_ids(0), ANA)
    named.naming.edit(person.id, 2, Profile(name="Anna"), ANA)
    named.naming.undo(2, ANA)
    assert (named.now(person).name, named.now(person).faces) == ("Anna", 0)


def test_adding_a_person_is_undone_although_they_have_got_another_cover_since(named: Named) -> None:
    person = named.person("Ana", 0)
    named.naming.assign(person.id, 1, face_ids(1), ANA)
    named.naming.reject(person.id, 2, face_ids(0), ANA)
    for number in (3, 2, 1):
        named.naming.undo(number, ANA)
    assert named.store.person(person.id) is None


def test_a_cover_that_somebody_chose_is_undone(named: Named) -> None:
    rate(named, 1, 0.9)
    person = named.person("Ana", 0, 1, 2)
    named.naming.edit(person.id, 1, Profile(cover=face_ids(2)[0]), ANA)
    assert cover(named, person) == 2
    named.naming.undo(2, ANA)
    assert cover(named, person) == 1


@ON_BOTH
def test_a_face_that_the_index_does_not_have_any_more_is_replaced_by_the_same_one_until_it_comes_back(
    named: Named, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(f"2026-01-01T00:00:{second:02}+00:00" for second in range(60))
    monkeypatch.setattr("app.people.edits.timestamp", lambda: next(times))
    rate(named, 1, 0.9)
    person = named.person("Ana", 0, 1)
    point = named.index.points.pop(face_ids(1)[0])
    faces = CopiedNames(named.database, COLLECTION)
    faces.write([FaceNames(point.face_id, point.payload.image_id)])
    for number in range(2, 20):
        assert cover(named, person) == 0
        named.naming.assign(person.id, number - 1, face_ids(number), ANA)
    assert cover(named, person) == 0
    named.index.points[point.face_id] = point
    named.names.copy_all()
    assert cover(named, person) == 1
