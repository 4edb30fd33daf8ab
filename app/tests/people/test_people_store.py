"""Lists of people, and changes that several threads make at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from app.catalog import Person, name_key
from app.core.errors import OceanoError
from app.people import Profile
from tests.people.conftest import ANA, ON_BOTH, Named
from tests.support.people_gallery import face_ids


def listed(named: Named, order: str, size: int, text: str = "") -> list[str]:
    """Read all pages of a list of people."""
    found: list[Person] = []
    after: tuple[int | str, str] | None = None
    while page := named.store.find(text, order=order, after=after, limit=size):  # type: ignore[arg-type]
        found += page
        after = (page[-1].faces if order == "faces" else name_key(page[-1].name), page[-1].id)
    return [one.name for one in found]


@pytest.mark.parametrize("size", [1, 2, 100])
@ON_BOTH
def test_pages_have_every_person_once(named: Named, size: int) -> None:
    for name, faces in (("Zoë", (0, 1)), ("ana", (4,)), ("Ana", (8,)), ("", ()), ("Ärger", (12, 13, 14)), ("Ben", ())):
        named.person(name, *faces)
    by_faces = listed(named, "faces", size)
    assert by_faces[:2] == ["Ärger", "Zoë"]
    assert sorted(by_faces) == sorted(["Zoë", "ana", "Ana", "", "Ärger", "Ben"])
    by_name = listed(named, "name", size)
    assert [name.casefold() for name in by_name] == ["", "ana", "ana", "ärger", "ben", "zoë"]


@ON_BOTH
def test_names_that_are_long_when_compared_are_paged_and_found(named: Named) -> None:
    """Some characters stand for eighteen others."""
    for number in range(3):
        named.person("\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}" * 400 + str(number))
    assert len(name_key("\ufdfa" * 400)) == 500
    assert sorted(name[-1] for name in listed(named, "name", 1)) == ["0", "1", "2"]
    assert len(named.store.alike("\ufdfa" * 400, 10)) == 3


@ON_BOTH
def test_nobody_is_found_by_a_name_with_a_nul(named: Named) -> None:
    named.person("Ana", 0)
    assert listed(named, "faces", 5, "a\0na") == ["Ana"]
    assert named.store.find("\0") == named.store.find("")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("zoe", {"Zoë|Ñandú"}), ("NANDU", {"Zoë|Ñandú"}), ("%", set()), ("_", set()), ("e|", {"Zoë|Ñandú"}),
        ("\N{COMBINING DIAERESIS}", {"Zoë|Ñandú", "أحمد"}), ("حم", {"أحمد"}), ("nobody", set()),
    ],
)  # fmt: skip
@ON_BOTH
def test_a_search_by_name_ignores_case_and_accents(named: Named, text: str, names: set[str]) -> None:
    named.person("Zoë|Ñandú")
    named.person("أحمد")
    assert {one.name for one in named.store.find(text)} == names


def test_hidden_people_are_in_a_list_of_their_own(named: Named) -> None:
    person = named.person("Ana")
    named.naming.edit(person.id, 1, Profile(hidden=True), ANA)
    assert named.store.find() == []
    assert [one.name for one in named.store.find(hidden=True)] == ["Ana"]
    assert (named.store.count(), named.store.count(hidden=True), named.store.count(hidden=None)) == (0, 1, 1)


@ON_BOTH
def test_people_who_are_in_pictures_together_are_counted(named: Named) -> None:
    for number, beside in ((4, 0), (5, 1), (8, 0)):
        point = named.index.points[face_ids(number)[0]]
        payload = replace(
            point.payload, image_id=named.payload(beside).image_id, bbox=(500.0, 0.0, 600.0, 90.0 + number)
        )
        named.index.points[point.face_id] = replace(point, payload=payload)
    ana, eva, ida = named.person("Ana", 0, 1, 2), named.person("Eva", 4, 5), named.person("Ida", 9)
    assert named.store.together(ana.id) == [(eva.id, 2)]
    assert named.store.together(ida.id) == []


@ON_BOTH
def test_of_two_changes_that_saw_one_version_the_second_is_refused(named: Named) -> None:
    person = named.person("Ana", 0)

    def assign(number: int) -> str:
        try:
            named.naming.assign(person.id, 1, face_ids(number), ANA)
        except OceanoError as failure:
            return failure.code
        return "done"

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(assign, range(4, 8)))
    assert sorted(outcomes) == ["done", "person_changed", "person_changed", "person_changed"]
    assert named.now(person).faces == 2


@ON_BOTH
def test_many_changes_at_once_are_numbered_without_gaps(named: Named) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: named.person(f"Person {number}", number), range(24)))
    assert [one.number for one in named.log.find(limit=100)] == [*range(24, 0, -1)]
    assert named.names_in_index() == {number: f"Person {number}" for number in range(24)}
    assert named.names.is_current()
