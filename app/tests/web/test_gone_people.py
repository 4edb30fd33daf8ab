"""Addresses of people who were merged or deleted: what is said, and to whom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from app.core.config import Settings
from app.main import create_app
from app.security import hash_key
from app.service import People, Services
from tests.support.clients import TestClient
from tests.support.face_pictures import faces_of, ids_of
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.html import elements

MINE, OTHERS = "/photos/mine", "/photos/others"
ADA, BEN, EVE = faces_of(1, 3, MINE), faces_of(2, 4, OTHERS), faces_of(3, 4, OTHERS)
KEYS = {one: f"oceano_{one * 16}_{'secret' * 6}" for one in ("0", "5", "7")}
ALL, SOME, READER = ({"X-API-Key": key} for key in KEYS.values())
PAGE = {"Accept": "text/html"}
NOBODY = "0f9e6f8a-0a9f-5f0c-9d0e-7a0f3a3b1c2d"


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """A service with keys for all folders, for one of them, and for searching only."""
    index = MemoryIndex()
    index.upsert([*ADA, *BEN, *EVE])
    with TestClient(create_app(settings, FakeEngine(), index), raise_server_exceptions=False) as client:
        services: Services = client.app.state.services  # type: ignore[attr-defined]
        for one, role, folders in (("0", "admin", []), ("5", "admin", [MINE]), ("7", "search", [])):
            services.keys.add(
                one * 16, "key", one, hash_key(KEYS[one]), role=role, folders=folders, expires_at=None, by="t"
            )
        services.authenticator.find_whether_key_is_needed()
        yield client


@pytest.fixture
def people(client: TestClient) -> dict[str, str]:
    """The ids of three people."""
    return {name: made(client, name, ids_of(some)) for name, some in (("Ada", ADA), ("Ben", BEN), ("Eve", EVE))}


def made(client: TestClient, name: str, face_ids: list[str]) -> str:
    answer = client.post("/people", json={"name": name, "face_ids": face_ids}, headers=ALL)
    return str(answer.json()["person"]["id"])


def changed(client: TestClient, method: str, path: str, **body: Any) -> int:
    """Change something; return the number of the change."""
    answer = client.request(method, path, json=body, headers=ALL)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["change"]["number"])


def version(client: TestClient, person_id: str) -> int:
    return int(client.get(f"/people/{person_id}", headers=ALL).json()["person"]["version"])


def merged(client: TestClient, gone: str, stays: str) -> int:
    others = [{"id": gone, "version": version(client, gone)}]
    return changed(client, "POST", f"/people/{stays}/merge", others=others, version=version(client, stays))


def details(client: TestClient, person_id: str, key: dict[str, str]) -> dict[str, Any]:
    answer = client.get(f"/people/{person_id}", headers=key)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "person_unknown")
    return dict(answer.json()["error"]["details"])


def said(client: TestClient, path: str, key: dict[str, str] = ALL, **options: Any) -> tuple[str, str, list[str]]:
    """The title of an error page, its message, and its links but for the last one, to the search."""
    answer = client.request(options.pop("method", "GET"), path, headers=key | PAGE, **options)
    assert answer.status_code == 404, answer.text
    problem = answer.text.partition('data-code="person_unknown"')[2].partition("</section>")[0]
    (title,), (message,) = elements(problem, "h1"), elements(problem, "p", "data-message")
    *links, _ = (one.attributes["href"] for one in elements(problem, "a"))
    return title.words, message.words, links


def test_the_page_of_somebody_merged_says_into_whom_and_leads_there_and_to_the_history(
    client: TestClient, people: dict[str, str]
) -> None:
    ada, ben = people["Ada"], people["Ben"]
    number = merged(client, ada, ben)
    history = f"/changes?person_id={ada}"
    words = ("Ada was merged into Ben", "Their faces were given to Ben.")
    assert said(client, f"/person/{ada}") == (*words, [f"/person/{ben}", history])
    for below in ("merge", "delete"):
        assert said(client, f"/person/{ada}/{below}")[:2] == words
    spanish = said(client, f"/person/{ada}?lang=es")
    assert spanish[:2] == ("Ada se unió a Ben", "Sus rostros pasaron a Ben.")
    assert client.get(history, headers=ALL | PAGE).status_code == 200
    client.cookies.clear()
    changed(client, "POST", f"/changes/{number}/undo")
    assert client.get(f"/person/{ada}", headers=ALL | PAGE).status_code == 200
    assert "merged_into" not in details(client, NOBODY, ALL)


@pytest.mark.parametrize(
    ("form", "fields"),
    [
        ("edit", {"name": "Ada B.", "birth_date": "", "notes": ""}),
        ("hide", {"hidden": "1"}),
        ("faces", {"do": "reject", "id": ids_of(ADA)[0]}),
        ("delete", {}),
    ],
)
def test_a_form_of_somebody_merged_says_so(
    client: TestClient, people: dict[str, str], form: str, fields: dict[str, str]
) -> None:
    ada, ben = people["Ada"], people["Ben"]
    merged(client, ada, ben)
    sent = {**fields, "version": "1"}
    title, _, links = said(client, f"/person/{ada}/{form}", method="POST", data=sent)
    assert title == "Ada was merged into Ben"
    assert f"/person/{ben}" in links


def test_a_chain_of_merges_leads_to_who_is_there_and_a_merge_that_was_done_again_counts(
    client: TestClient, people: dict[str, str]
) -> None:
    ada, ben, eve = people["Ada"], people["Ben"], people["Eve"]
    undo = changed(client, "POST", f"/changes/{merged(client, ada, ben)}/undo")
    changed(client, "POST", f"/changes/{undo}/undo")
    assert details(client, ada, ALL)["merged_into"] == ben
    merged(client, ben, eve)
    assert details(client, ada, ALL)["merged_into"] == eve
    changed(client, "DELETE", f"/people/{eve}", version=version(client, eve))
    assert "merged_into" not in details(client, ada, ALL)


def test_somebody_deleted_is_told_as_deleted(client: TestClient, people: dict[str, str]) -> None:
    ada = people["Ada"]
    changed(client, "DELETE", f"/people/{ada}", version=1)
    title, message, links = said(client, f"/person/{ada}")
    assert (title, message) == ("Ada was deleted", "Their faces have no name now.")
    assert links == [f"/changes?person_id={ada}"]
    assert said(client, f"/person/{ada}", READER)[2] == [], "who may not undo is not led to the history"
    assert said(client, f"/person/{NOBODY}")[0] == "Not found"


def test_who_sees_some_folders_is_told_what_is_told_of_somebody_who_never_was(
    client: TestClient, people: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    merged(client, people["Eve"], people["Ben"])
    merged(client, people["Ben"], people["Ada"])

    def reads(_: object) -> None:
        raise AssertionError("it takes longer than for somebody who never was")

    monkeypatch.setattr(People, "gone", reads)
    for gone in (people["Eve"], people["Ben"]):
        assert "merged_into" not in details(client, gone, SOME)
        assert said(client, f"/person/{gone}", SOME) == said(client, f"/person/{NOBODY}", SOME)


def test_rest_says_into_whom_in_the_language_of_the_request(client: TestClient, people: dict[str, str]) -> None:
    ada, ben = people["Ada"], people["Ben"]
    merged(client, ada, ben)
    for lang, words in (("en", f"this person was merged into the person {ben}"), ("es", f"a la persona {ben}.")):
        sent = {"name": "Ada B.", "version": 1}
        answer = client.patch(f"/people/{ada}", json=sent, headers=ALL | {"Accept-Language": lang})
        assert answer.status_code == 404
        assert answer.json()["error"]["details"] == {"person_id": ada, "merged_into": ben}
        assert words in answer.json()["error"]["message"]
