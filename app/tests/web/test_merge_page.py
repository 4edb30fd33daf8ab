"""What the page says before two people are merged about birth dates and notes, which is what happens then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from app.core.config import Settings
from app.main import create_app
from tests.support.clients import TestClient
from tests.support.face_pictures import ids_of, stored_face
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.html import elements

BORN, NOTES = "1970-05-17", "met at the lake"
GETS = ["Gets the birth date of Ben: 17 May 1970.", "Gets the notes of Ben."]
LOSES = ["The birth date of Ben is deleted: 17 May 1970.", "The notes of Ben are deleted."]


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings, FakeEngine(), MemoryIndex()), follow_redirects=False) as client:
        yield client


def made(client: TestClient, name: str, born: str, notes: str) -> dict[str, Any]:
    answer = client.post("/people", json={"name": name, "birth_date": born, "notes": notes})
    return dict(answer.json()["person"])


def said(client: TestClient, one: dict[str, Any], other: dict[str, Any], lang: str = "en") -> list[list[str]]:
    """What the page says of each choice, below the name and the number of faces."""
    html = client.get(f"/person/{one['id']}/merge?with={other['id']}&lang={lang}").text
    choices = html.partition("<fieldset")[2].partition("</fieldset>")[0].split("</label>")[:2]
    return [[note.words for note in elements(choice, "span", of_class="note")][1:] for choice in choices]


@pytest.mark.parametrize(
    ("born", "notes", "ada", "ben"),
    [
        ("", "", GETS, []),
        ("1815", "", [LOSES[0], GETS[1]], ["The birth date of Ada is deleted: 1815."]),
        ("1815", "older", LOSES, ["The birth date of Ada is deleted: 1815.", "The notes of Ada are deleted."]),
        (BORN, NOTES, [], []),
    ],
)
def test_it_says_whose_birth_date_and_notes_are_kept_and_deleted(
    client: TestClient, born: str, notes: str, ada: list[str], ben: list[str]
) -> None:
    one, other = made(client, "Ada", born, notes), made(client, "Ben", BORN, NOTES)
    assert said(client, one, other) == [ada, ben]
    form = {"with": other["id"], "version": one["version"], "other_version": other["version"], "keep": one["id"]}
    assert client.post(f"/person/{one['id']}/merge", data=form).status_code == 303
    merged = client.get(f"/people/{one['id']}").json()["person"]
    assert merged["birth_date"] == (BORN if GETS[0] in ada else born)
    assert merged["notes"] == (NOTES if GETS[1] in ada else notes)


def test_it_warns_if_both_are_in_one_photograph_and_offers_who_has_more_faces(settings: Settings) -> None:
    faces = [stored_face(f"/photos/{number}.jpg", 5, number) for number in range(3)]
    beside = stored_face("/photos/0.jpg", 6, 9, place=1)
    index = MemoryIndex()
    index.upsert([*faces, beside])
    with TestClient(create_app(settings, FakeEngine(), index)) as client:
        few, many = (
            client.post("/people", json={"name": name, "face_ids": ids_of(some)}).json()["person"]["id"]
            for name, some in (("Ann", [beside]), ("Anna", faces))
        )
        html = client.get(f"/person/{few}/merge?with={many}").text
        assert "Ann and Anna are together in 1 photograph" in html
        (checked,) = elements(html, "input", "checked")
        assert checked.attributes["value"] == many
        assert "are together" not in client.get(f"/person/{few}/merge").text


def test_it_says_so_in_spanish(client: TestClient) -> None:
    one, other = made(client, "Ada", "", ""), made(client, "Ben", "1970", NOTES)
    assert said(client, one, other, "es")[0] == [
        "Recibe la fecha de nacimiento de Ben: 1970.",
        "Recibe las notas de Ben.",
    ]
