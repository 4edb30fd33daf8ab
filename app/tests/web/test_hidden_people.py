"""Hidden people: nowhere shown or offered by themselves, and found by those who ask for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from app.catalog import FaceTable, GroupedFace
from app.core.config import Settings
from app.core.types import FacePoint
from app.main import create_app
from app.security import hash_key
from app.service import Services
from tests.support.clients import TestClient
from tests.support.face_pictures import ids_of, stored_face
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.html import elements

PICTURES = [f"/photos/party-{number}.jpg" for number in range(4)]
ADA = [stored_face(one, 1, number) for number, one in enumerate(PICTURES)]
BEN = [stored_face(one, 2, number, place=1) for number, one in enumerate(PICTURES[:3])]
EVE = [stored_face(PICTURES[0], 3, 0, place=2)]
BROWSER = {"Accept": "text/html"}
KEY = f"oceano_{'7' * 16}_{'secret' * 6}"


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """A service with Ada, Eve, and Ben, who is hidden and is in three pictures with Ada."""
    index = MemoryIndex()
    index.upsert([*ADA, *BEN, *EVE])
    with TestClient(create_app(settings, FakeEngine(), index)) as client:
        yield client


@pytest.fixture
def people(client: TestClient) -> dict[str, str]:
    """Their ids."""
    return {
        "Ada": made(client, name="Ada", face_ids=ids_of(ADA)),
        "Ben": made(client, name="Ben", face_ids=ids_of(BEN), hidden=True),
        "Eve": made(client, name="Eve", face_ids=ids_of(EVE)),
    }


def made(client: TestClient, **body: Any) -> str:
    answer = client.post("/people", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["person"]["id"])


def page(client: TestClient, path: str) -> str:
    answer = client.get(path, headers=BROWSER)
    assert answer.status_code == 200
    return str(answer.text)


def links(html: str, path: str) -> list[str]:
    """The texts of the links to an address in the main part of a page."""
    html = html[html.index("<main") : html.index("</main>")]
    return [one.words for one in elements(html, "a", "href") if one.attributes["href"].partition("?")[0] == path]


def together(client: TestClient, person_id: str, hidden: str = "") -> list[str]:
    answer = client.get(f"/people/{person_id}/together", params={"hidden": hidden} if hidden else {})
    assert answer.status_code == 200, answer.text
    return [one["person"]["name"] for one in answer.json()["together"]]


def test_lists_the_start_page_and_completed_names_leave_them_out(client: TestClient, people: dict[str, str]) -> None:
    listed = client.get("/people", params={"name": "b"}).json()["people"]  # with this, names are completed
    assert listed == []
    assert [one["name"] for one in client.get("/people?hidden=true").json()["people"]] == ["Ben"]
    for path in ("/", "/people", "/people?q=Ben"):
        html = page(client, path)
        assert links(html, f"/person/{people['Ben']}") == []
    faces = [stored_face("/photos/new.jpg", number, 9, place=number) for number in (1, 2)]  # like Ada, and like Ben
    client.app.state.services.index.upsert(faces)  # type: ignore[attr-defined]
    for face, likely in zip(faces, ("Ada", ""), strict=True):
        html = page(client, f"/naming?id={face.face_id}")
        assert {one.attributes["value"] for one in elements(html, "option")} == {"Ada", "Eve"}
        assert ("person-choice" in html) == bool(likely)
        assert "Ben" not in html
    assert links(page(client, "/people?tab=hidden"), f"/person/{people['Ben']}") == ["Ben 3 faces"]


def test_who_is_often_in_the_same_pictures_is_told_without_them(client: TestClient, people: dict[str, str]) -> None:
    assert together(client, people["Ada"]) == ["Eve"]
    assert together(client, people["Ada"], "true") == ["Ben"]
    assert together(client, people["Ada"], "all") == ["Ben", "Eve"]
    assert together(client, people["Ben"]) == ["Ada", "Eve"], "on the page of a hidden person the others are shown"
    assert client.get(f"/people/{people['Ada']}/together?hidden=perhaps").status_code == 400
    html = page(client, f"/person/{people['Ada']}")
    assert links(html, f"/person/{people['Eve']}")
    assert links(html, f"/person/{people['Ben']}") == []


def test_the_limit_counts_only_those_who_are_told(client: TestClient, people: dict[str, str]) -> None:
    found = client.get(f"/people/{people['Ada']}/together?limit=1").json()["together"]
    assert [one["person"]["name"] for one in found] == ["Eve"]


def test_in_a_part_of_the_folders_they_are_left_out_as_well(client: TestClient, people: dict[str, str]) -> None:
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    digest = hash_key(KEY)
    services.keys.add("7" * 16, "key", "7", digest, role="admin", folders=["/photos"], expires_at=None, by="t")
    services.authenticator.find_whether_key_is_needed()
    for hidden, names in (("false", ["Eve"]), ("true", ["Ben"]), ("all", ["Ben", "Eve"])):
        answer = client.get(f"/people/{people['Ada']}/together", params={"hidden": hidden}, headers={"X-API-Key": KEY})
        assert [one["person"]["name"] for one in answer.json()["together"]] == names


def test_somebody_to_merge_with_is_hidden_until_asked_for_or_typed(client: TestClient, people: dict[str, str]) -> None:
    where = f"/person/{people['Ada']}/merge"

    def offered(query: str) -> dict[str, str]:
        found = elements(page(client, where + query), "a", of_class="person-choice")
        return {one.attributes["href"].partition("with=")[2]: one.words for one in found}

    assert offered("") == {people["Eve"]: "Eve 1 face"}
    assert links(page(client, where), where)[1:] == ["Show hidden people, too"]
    assert offered("?hidden=1") == {people["Ben"]: "Ben 3 faces · hidden", people["Eve"]: "Eve 1 face"}
    assert "Show hidden people" not in page(client, f"{where}?hidden=1")
    assert offered("?q=be") == {people["Ben"]: "Ben 3 faces · hidden"}
    assert "· hidden" in page(client, f"{where}?with={people['Ben']}")
    assert "Show hidden people" not in page(client, f"/person/{people['Ben']}/merge"), "there is nobody else"


def test_a_photograph_and_a_result_say_that_somebody_is_hidden_instead_of_the_name(
    client: TestClient, people: dict[str, str]
) -> None:
    for path in (f"/photo/{ADA[0].payload.image_id}", f"/face/{BEN[0].face_id}"):
        html = page(client, path)
        assert set(links(html, f"/person/{people['Ben']}")) == {"Hidden person"}
        assert ">Ben<" not in html
    asked = page(client, f"/face/{BEN[0].face_id}?named={people['Ben']}")
    assert set(links(asked, f"/person/{people['Ben']}")) == {"Ben"}, "asked for by name"


def test_programs_are_told_the_name_and_that_it_is_hidden(client: TestClient, people: dict[str, str]) -> None:
    face = client.get(f"/faces/{BEN[0].face_id}").json()["person"]
    assert face == {"id": people["Ben"], "name": "Ben", "hidden": True}
    rows = client.get(f"/face/{BEN[0].face_id}/export?format=json").json()
    assert {(row["person"], row["person_id"]) for row in rows} == {(None, people["Ben"])}


def test_their_faces_are_not_offered_as_unnamed_ones(client: TestClient, people: dict[str, str]) -> None:
    unnamed = [stored_face("/photos/new.jpg", 2, number, place=number) for number in (1, 2)]
    client.app.state.services.index.upsert(unnamed)  # type: ignore[attr-defined]
    grouped(client, [*BEN, *unnamed])
    (group,) = client.get("/people/groups").json()["groups"]
    assert group["faces"] == 2
    assert sorted(group["face_ids"]) == sorted(ids_of(unnamed))


def test_who_is_shown_again_is_everywhere_again(client: TestClient, people: dict[str, str]) -> None:
    version = client.get(f"/people/{people['Ben']}").json()["person"]["version"]
    client.patch(f"/people/{people['Ben']}", json={"hidden": False, "version": version})
    assert together(client, people["Ada"]) == ["Ben", "Eve"]
    assert set(links(page(client, f"/photo/{ADA[0].payload.image_id}"), f"/person/{people['Ben']}")) == {"Ben"}


def grouped(client: TestClient, faces: Sequence[FacePoint]) -> None:
    ledger = client.app.state.services.ledger  # type: ignore[attr-defined]
    rows = [GroupedFace(one.face_id, one.payload.image_id, faces[0].face_id, clear=True) for one in faces]
    FaceTable(ledger.database, ledger.collection).write(rows)
