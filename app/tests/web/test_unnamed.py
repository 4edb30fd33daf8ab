"""Faces that are in no group, and those that were set aside or are none: over REST, on pages, and in a folder only."""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from app.catalog import CopiedNames, FaceNames, FaceTable, GroupedFace
from app.core.config import Settings
from app.core.types import FacePoint
from app.main import create_app
from app.people import edits
from app.security import Role, hash_key
from app.service import Services, seen_groups
from app.web.pages import people
from tests.support.clients import TestClient
from tests.support.face_pictures import faces_of, ids_of, stored_face
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.html import elements
from tests.web.test_people_pages import followed, hidden_in, told

MINE, OTHERS = "/photos/mine", "/photos/others"
POOR = [stored_face(f"{MINE}/poor-{n}.jpg", 50 + n, flaws=("blurred",), quality=0.1) for n in range(2)]
CLEAR = [stored_face(f"{MINE}/clear-{n}.jpg", 60 + n) for n in range(7)]
ELSEWHERE = [stored_face(f"{OTHERS}/clear-{n}.jpg", 80 + n) for n in range(5)]
GROUP_HERE, GROUP_THERE = faces_of(1, 3, MINE), faces_of(1, 4, OTHERS)
ACROSS = [*faces_of(2, 1, MINE), *faces_of(2, 3, OTHERS)]  # one of them is in the folder
KEYS = {one: f"oceano_{one * 16}_{'secret' * 6}" for one in ("0", "5")}
PAGE = {"Accept": "text/html"}


@pytest.fixture
def index() -> MemoryIndex:
    index = MemoryIndex()
    index.upsert([*POOR, *CLEAR, *ELSEWHERE, *GROUP_HERE, *GROUP_THERE, *ACROSS])
    return index


@pytest.fixture
def client(settings: Settings, index: MemoryIndex) -> Iterator[TestClient]:
    """A service with grouped faces, and a key for one of two folders."""
    with TestClient(create_app(settings, FakeEngine(), index), follow_redirects=False) as client:
        for group in ([*GROUP_HERE, *GROUP_THERE], ACROSS, *([one] for one in (*CLEAR, *ELSEWHERE, *POOR))):
            grouped(client, group)
        yield client


def services_of(client: TestClient) -> Services:
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    return services


def table_of(client: TestClient) -> FaceTable:
    ledger = services_of(client).ledger
    return FaceTable(ledger.database, ledger.collection)


def grouped(client: TestClient, faces: Sequence[FacePoint]) -> str:
    """Put faces into one group; return its id."""
    group_id = faces[0].face_id
    rows = [GroupedFace(one.face_id, one.payload.image_id, group_id, one not in POOR) for one in faces]
    table_of(client).write(rows)
    return group_id


def scoped(client: TestClient, *, role: Role = "admin", folders: Sequence[str] = (MINE,)) -> dict[str, str]:
    """Let requests need a key; return the header of one for a folder. Other requests have one for all folders."""
    services = services_of(client)
    for one, kind, paths in (("0", "admin", ()), ("5", role, folders)):
        services.keys.add(
            one * 16, "key", one, hash_key(KEYS[one]), role=kind, folders=[*paths], expires_at=None, by="t"
        )
    services.authenticator.find_whether_key_is_needed()
    client.headers["X-API-Key"] = KEYS["0"]
    return {"X-API-Key": KEYS["5"]}


def read(
    client: TestClient, path: str, limit: int = 4, headers: dict[str, str] | None = None, **options: str
) -> list[str]:
    """Read all pages of a list of faces; return their ids."""
    found: list[str] = []
    after: dict[str, str] = {}
    for _ in range(100):
        answer = client.get(path, params={"limit": limit, **options, **after}, headers=headers)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert len(body["faces"]) <= limit
        found += [one["face_id"] for one in body["faces"]]
        if body["next"] is None:
            return found
        after = {"after": body["next"]}
    raise AssertionError("the list has no end")


def dismiss(client: TestClient, faces: Sequence[FacePoint], kind: str | None, headers: Any = None) -> None:
    answer = client.post("/faces/dismiss", json={"face_ids": ids_of(faces), "kind": kind}, headers=headers)
    assert answer.status_code == 200, answer.text


def shown_on(html: str) -> list[str]:
    """The faces that a page shows."""
    return [one.attributes["data-face-id"] for one in elements(html, "li", "data-face-id")]


def test_faces_in_no_group_are_listed_clear_ones_first(client: TestClient) -> None:
    found = read(client, "/people/unnamed")
    assert sorted(found[:12]) == sorted(ids_of([*CLEAR, *ELSEWHERE]))
    assert sorted(found[12:]) == sorted(ids_of(POOR))
    assert read(client, "/people/unnamed", limit=1) == found
    assert read(client, "/people/unnamed", limit=100) == found


def test_what_is_named_or_dismissed_is_no_single_face_until_that_is_taken_back(client: TestClient) -> None:
    done = client.post("/people", json={"name": "Ada", "face_ids": ids_of(CLEAR[:1])}).json()
    dismiss(client, CLEAR[1:2], "set_aside")
    dismiss(client, CLEAR[2:3], "not_a_face")
    assert sorted(read(client, "/people/unnamed")) == sorted(ids_of([*CLEAR[3:], *ELSEWHERE, *POOR]))
    table_of(client).follow_names()  # what a grouping begins with
    dismiss(client, CLEAR[1:3], None)
    client.post(f"/changes/{done['change']['number']}/undo")
    table_of(client).follow_names()
    assert sorted(read(client, "/people/unnamed")) == sorted(ids_of([*CLEAR, *ELSEWHERE, *POOR]))


def test_the_last_face_of_a_group_is_a_single_one(client: TestClient) -> None:
    client.post("/people", json={"name": "Ada", "face_ids": ids_of(ACROSS[1:])})
    assert ACROSS[0].face_id in read(client, "/people/unnamed")
    assert [one["faces"] for one in client.get("/people/groups").json()["groups"]] == [7]


def test_an_unnamed_face_beside_a_person_is_a_suggestion_and_no_single_face(client: TestClient) -> None:
    client.post("/people", json={"name": "Ada", "face_ids": ids_of(GROUP_HERE[:2])})
    table_of(client).follow_names()
    assert not {*read(client, "/people/unnamed")} & {*ids_of([*GROUP_HERE, *GROUP_THERE])}


def test_a_group_has_no_named_face_at_once_whoever_named_it(client: TestClient) -> None:
    def sizes() -> list[int]:
        return [one["faces"] for one in client.get("/people/groups").json()["groups"]]

    assert sizes() == [7, 4]
    client.post("/people", json={"name": "Ada", "face_ids": ids_of(GROUP_HERE[:1])})
    assert sizes() == [6, 4]
    ledger = services_of(client).ledger
    elsewhere = CopiedNames(ledger.database, ledger.collection)  # another machine, whose changes nobody tells here
    elsewhere.write([FaceNames(one.face_id, one.payload.image_id, "ben", "1") for one in ACROSS[:3]])
    elsewhere.write([FaceNames(GROUP_THERE[0].face_id, GROUP_THERE[0].payload.image_id, dismissed="set_aside")])
    (group,) = client.get("/people/groups").json()["groups"]
    assert group["faces"] == 5
    assert not {*group["face_ids"]} & {GROUP_HERE[0].face_id, GROUP_THERE[0].face_id}


def test_dismissed_faces_are_listed_by_kind_the_last_one_first(
    client: TestClient, index: MemoryIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = itertools.count(100)
    monkeypatch.setattr(edits, "timestamp", lambda: f"2026-01-01T00:00:00.{next(now)}Z")
    for face in (*CLEAR, GROUP_HERE[0]):
        dismiss(client, [face], "set_aside")
    dismiss(client, ELSEWHERE[:3], "not_a_face")
    index.delete(ids_of(CLEAR[:1]))
    assert read(client, "/people/dismissed") == ids_of([GROUP_HERE[0], *reversed(CLEAR[1:])])
    assert read(client, "/people/dismissed", limit=1) == read(client, "/people/dismissed", limit=100)
    assert sorted(read(client, "/people/dismissed", kind="not_a_face")) == sorted(ids_of(ELSEWHERE[:3]))
    dismiss(client, CLEAR[3:5], None)
    dismiss(client, CLEAR[5:6], "not_a_face")
    client.post("/people", json={"name": "Ada", "face_ids": ids_of(CLEAR[6:])})
    assert read(client, "/people/dismissed") == ids_of([GROUP_HERE[0], CLEAR[2], CLEAR[1]])
    assert CLEAR[5].face_id in read(client, "/people/dismissed", kind="not_a_face")


def test_of_a_folder_only_its_faces_are_listed(client: TestClient) -> None:
    key = scoped(client)
    alone = [*CLEAR, ACROSS[0]]  # the others of its group are not seen
    found = read(client, "/people/unnamed", headers=key)
    assert sorted(found[:8]) == sorted(ids_of(alone))
    assert sorted(found[8:]) == sorted(ids_of(POOR))
    assert sorted(read(client, "/people/unnamed", limit=1, headers=key)) == sorted(found)
    dismiss(client, [CLEAR[0], *ELSEWHERE, *ACROSS[1:]], "set_aside")
    assert read(client, "/people/dismissed", headers=key) == ids_of(CLEAR[:1])
    dismiss(client, CLEAR[1:3], "set_aside")
    mark = client.get("/people/dismissed?limit=1", headers=key).json()["next"]
    mark = base64.urlsafe_b64decode(mark + "===")
    assert re.search(rb"\[\d+\]$", mark), "no time and id, which may be of a face that is not seen"
    assert sorted(read(client, "/people/dismissed", limit=1, headers=key)) == sorted(ids_of(CLEAR[:3]))


@pytest.mark.parametrize("most", [1000, 0])
def test_groups_of_a_folder_are_ordered_by_what_is_seen_of_them_unless_that_is_much(
    client: TestClient, index: MemoryIndex, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(seen_groups, "_MOST", most)
    larger_here = [*faces_of(3, 4, MINE), *faces_of(3, 1, OTHERS)]
    index.upsert(larger_here)
    grouped(client, larger_here)
    key = scoped(client)

    def sizes() -> list[int]:
        found: list[int] = []
        after: dict[str, str] = {}
        while True:
            page = client.get("/people/groups", params={"limit": 1, **after}, headers=key).json()
            found += [one["faces"] for one in page["groups"]]
            if page["next"] is None:
                return found
            after = {"after": page["next"]}

    assert [one["faces"] for one in client.get("/people/groups").json()["groups"]] == [7, 5, 4]
    assert sizes() == ([4, 3] if most else [3, 4])
    dismiss(client, larger_here[:2], "set_aside")
    assert sizes() == [3, 2]
    dismiss(client, larger_here[:2], None)
    assert sorted(sizes()) == [3, 4]


@pytest.mark.parametrize("path", ["/people/unnamed", "/people/dismissed"])
def test_a_cursor_of_another_list_is_refused(client: TestClient, path: str) -> None:
    dismiss(client, GROUP_HERE[:2], "set_aside")
    other = "/people/dismissed" if path == "/people/unnamed" else "/people/unnamed"
    cursor = client.get(other, params={"limit": 1}).json()["next"]
    for after in (cursor, "x", "A" * 40):
        answer = client.get(path, params={"after": after})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "cursor_invalid")
    kinds = client.get("/people/dismissed", params={"limit": 1}).json()["next"]
    assert client.get("/people/dismissed", params={"after": kinds, "kind": "not_a_face"}).status_code == 400
    assert client.get("/people/dismissed", params={"kind": "face"}).status_code == 400


def test_a_single_face_is_named_set_aside_and_brought_back_on_pages(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people, "FACES", 5)
    client.headers["Accept"] = "text/html"
    html = client.get("/people?tab=single").text
    assert len(shown_on(html)) == 5
    (further,) = elements(html, "a", of_class="button-quiet")
    following = shown_on(client.get(further.attributes["href"]).text)
    assert len(following) == 5 and not {*following} & {*shown_on(html)}
    first, second, third = shown_on(html)[:3]
    form = hidden_in(html, "/naming")
    html = followed(client, client.post("/naming", data={**form, "id": first, "name": "Ada"}))
    assert told(html) == "Ada added with 1 face Undo"
    assert 'data-state="people"' in html and first not in shown_on(html)
    html = followed(client, client.post("/dismiss", data={**form, "id": [second, third], "kind": "set_aside"}))
    assert told(html) == "2 faces set aside Undo"
    html = client.get("/people?tab=aside").text
    assert {*shown_on(html)} == {second, third}
    form = hidden_in(html, "/naming")
    assert shown_on(client.get("/people?tab=aside&kind=not_a_face").text) == []
    html = followed(client, client.post("/dismiss", data={**form, "id": second, "kind": "not_a_face"}))
    assert shown_on(html) == [third]
    html = client.get("/people?tab=aside&kind=not_a_face").text
    assert shown_on(html) == [second]
    form = hidden_in(html, "/naming")
    html = followed(client, client.post("/dismiss", data={**form, "id": second, "kind": "bring_back"}))
    assert told(html) == "1 face brought back Undo"
    assert "Nothing is marked as not a face" in html
    assert second in shown_on(client.get("/people?tab=single").text)


def test_a_face_that_is_taken_off_a_person_is_a_single_one_at_once(client: TestClient) -> None:
    made = client.post("/people", json={"name": "Ada", "face_ids": ids_of(GROUP_HERE)}).json()["person"]
    other = client.post("/people", json={"name": "Ben", "face_ids": ids_of(CLEAR[:1])}).json()["person"]
    table_of(client).follow_names()  # as a grouping does: the faces are in the group of the person
    path = f"/people/{made['id']}/reject"
    for version, face in ((1, GROUP_HERE[0]), (2, GROUP_THERE[0])):  # one of them had no name yet
        assert face.face_id not in read(client, "/people/unnamed")
        sent = {"face_ids": [face.face_id], "version": version}
        assert client.post(path, json=sent).status_code == 200
        assert face.face_id in read(client, "/people/unnamed")
    rejected = {"face_ids": ids_of(GROUP_THERE[1:2]), "version": 1}
    client.post(f"/people/{other['id']}/reject", json=rejected)
    assert GROUP_THERE[1].face_id not in read(client, "/people/unnamed"), "it is still to be confirmed as Ada"


def test_a_photograph_says_which_faces_are_dismissed_and_brings_them_back(
    client: TestClient, index: MemoryIndex
) -> None:
    beside = [stored_face(f"{MINE}/clear-0.jpg", 90 + place, place=place) for place in (1, 2)]
    index.upsert(beside)
    dismiss(client, CLEAR[:1], "set_aside")
    dismiss(client, beside[:1], "not_a_face")
    client.headers["Accept"] = "text/html"
    address = f"/photo/{CLEAR[0].payload.image_id}"
    html = client.get(address).text
    labels = [one.words for one in elements(html, "span", of_class="people-number")]
    assert labels == ["Face 1 · Set aside", "Face 2 · Not a face", "Face 3"]
    assert "2 faces" in [one.words for one in elements(html, "h2")]
    form = hidden_in(html, "/dismiss")
    assert form["id"] == CLEAR[0].face_id
    html = followed(client, client.post("/dismiss", data={**form, "kind": "bring_back"}))
    assert [one.words for one in elements(html, "span", of_class="people-number")][:2] == [
        "Face 1",
        "Face 2 · Not a face",
    ]
    form = hidden_in(html, "/dismiss")
    html = followed(client, client.post("/dismiss", data={**form, "kind": "set_aside"}))
    assert elements(html, "span", of_class="people-number")[0].words == "Face 1 · Set aside"
    back = client.get(f"{address}?from=/people%3Ftab%3Daside").text
    assert "Back to the list" in back


def test_who_may_only_search_sees_the_lists_and_no_forms(client: TestClient) -> None:
    key = scoped(client, role="search", folders=())
    html = client.get("/people?tab=single", headers=key | PAGE).text
    assert len(shown_on(html)) == 14
    assert elements(html, "form", of_class="selection") == [] and elements(html, "input", "name") == []
