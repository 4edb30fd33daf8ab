"""People for somebody who may see one folder: who has a face there, as often as there, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from app.catalog.faces import FaceTable, GroupedFace
from app.core.config import Settings
from app.main import create_app
from app.security import hash_key
from app.service import Services
from tests.support.clients import TestClient
from tests.support.face_pictures import faces_of, ids_of, stored_face
from tests.support.fakes import FakeEngine, MemoryIndex

MINE, OTHERS = "/photos/mine", "/photos/others"
ADA_HERE, ADA_THERE = faces_of(1, 3, MINE), faces_of(1, 5, OTHERS)
BEN, EVE = faces_of(2, 4, OTHERS), faces_of(3, 4, MINE)
UNNAMED_HERE, UNNAMED_THERE = faces_of(4, 3, MINE), faces_of(4, 6, OTHERS)
COLLECTION = "faces__fake__ffffffff"
KEYS = {one: f"oceano_{one * 16}_{'secret' * 6}" for one in ("0", "5")}
ALL, SOME = ({"X-API-Key": key} for key in KEYS.values())


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """A service with a key for all folders and one for one of them."""
    index = MemoryIndex()
    index.upsert([*ADA_HERE, *ADA_THERE, *BEN, *EVE, *UNNAMED_HERE, *UNNAMED_THERE])
    with TestClient(create_app(settings, FakeEngine(), index), raise_server_exceptions=False) as client:
        services: Services = client.app.state.services  # type: ignore[attr-defined]
        for one, folders in (("0", []), ("5", [MINE])):
            digest = hash_key(KEYS[one])
            services.keys.add(one * 16, "key", one, digest, role="admin", folders=folders, expires_at=None, by="t")
        services.authenticator.find_whether_key_is_needed()
        faces = [*UNNAMED_HERE, *UNNAMED_THERE]
        group_id = ids_of(UNNAMED_THERE)[0]
        FaceTable(services.ledger.database, COLLECTION).write(
            [GroupedFace(one.face_id, one.payload.image_id, group_id, True) for one in faces]
        )
        yield client


@pytest.fixture
def people(client: TestClient) -> dict[str, dict[str, Any]]:
    """Ada is in both folders, Ben in the other one, Eve in this one."""
    faces = {"Ada": [*ADA_HERE, *ADA_THERE], "Ben": BEN, "Eve": EVE}
    return {name: made(client, ALL, name=name, face_ids=ids_of(some)) for name, some in faces.items()}


def made(client: TestClient, key: dict[str, str], **body: Any) -> dict[str, Any]:
    answer = client.post("/people", json=body, headers=key)
    assert answer.status_code == 200, answer.text
    person: dict[str, Any] = answer.json()["person"]
    return person


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_person_of_other_folders_is_looked_up_like_one_who_is_unknown(
    client: TestClient, people: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    count, retrieve, scroll = MemoryIndex.facet, MemoryIndex.retrieve, MemoryIndex.scroll
    for name, method in (("facet", count), ("retrieve", retrieve), ("scroll", scroll)):

        def logged(*args: Any, name: str = name, method: Any = method, **options: Any) -> Any:
            asked.append(name)
            return method(*args, **options)

        monkeypatch.setattr(MemoryIndex, name, logged)
    done: list[list[str]] = []
    for person_id in (people["Ben"]["id"], "0f9e6f8a-0a9f-5f0c-9d0e-7a0f3a3b1c2d"):
        asked.clear()
        assert code_of(client.get(f"/people/{person_id}", headers=SOME)) == (404, "person_unknown")
        done.append([*asked])
    assert done[0] == done[1]


def test_only_people_with_a_face_in_the_folder_are_listed_with_the_faces_there(
    client: TestClient, people: dict[str, dict[str, Any]]
) -> None:
    listed = client.get("/people", headers=SOME).json()["people"]
    assert [(one["name"], one["faces"]) for one in listed] == [("Eve", 4), ("Ada", 3)]
    whole = client.get("/people", headers=ALL).json()["people"]
    assert {one["name"]: one["faces"] for one in whole} == {"Ada": 8, "Ben": 4, "Eve": 4}
    covers = {one["name"]: one["cover"] for one in listed}
    assert covers["Ada"] in ids_of(ADA_HERE)
    assert covers["Eve"] in ids_of(EVE)
    assert client.get("/people?name=ben", headers=SOME).json()["people"] == []
    pages = [client.get("/people?limit=1&order=name", headers=SOME).json()]
    following = {"order": "name", "limit": 1, "after": pages[0]["next"]}
    pages.append(client.get("/people", params=following, headers=SOME).json())
    assert [[one["name"] for one in page["people"]] for page in pages] == [["Ada"], ["Eve"]]
    assert pages[1]["next"] is None
    of_all = client.get("/people?limit=1&order=name", headers=ALL).json()["next"]
    refused = client.get("/people", params={"order": "name", "limit": 1, "after": of_all}, headers=SOME)
    assert code_of(refused) == (400, "cursor_invalid")


def test_a_person_is_as_if_there_were_no_other_faces(client: TestClient, people: dict[str, dict[str, Any]]) -> None:
    path = f"/people/{people['Ada']['id']}"
    one = client.get(path, headers=SOME).json()["person"]
    assert (one["faces"], one["cover"] in ids_of(ADA_HERE)) == (3, True)
    for order in ("newest", "oldest", "similarity"):
        faces = client.get(f"{path}/faces?order={order}", headers=SOME).json()
        assert sorted(face["face_id"] for face in faces["faces"]) == sorted(ids_of(ADA_HERE))
        assert faces["total"] == 3
    client.patch(path, json={"version": 1, "cover": ids_of(ADA_THERE)[0]}, headers=ALL)
    assert client.get(path, headers=SOME).json()["person"]["cover"] in ids_of(ADA_HERE)


def test_somebody_without_a_face_there_does_not_exist(client: TestClient, people: dict[str, dict[str, Any]]) -> None:
    path, version = f"/people/{people['Ben']['id']}", {"version": 1}
    for rest in ("", "/faces", "/suggestions", "/together"):
        assert code_of(client.get(path + rest, headers=SOME)) == (404, "person_unknown")
    face_ids = ids_of(EVE[:1])
    for method, rest, body in (
        ("PATCH", "", {"name": "X"}), ("DELETE", "", {}), ("POST", "/faces", {"face_ids": face_ids}),
        ("POST", "/reject", {"face_ids": face_ids}), ("POST", "/split", {"face_ids": face_ids}),
        ("POST", "/merge", {"others": [{"id": people["Eve"]["id"], "version": 1}]}),
    ):  # fmt: skip
        answer = client.request(method, path + rest, json=body | version, headers=SOME)
        assert code_of(answer) == (404, "person_unknown"), (method, rest)
    merged = {"version": 1, "others": [{"id": people["Ben"]["id"], "version": 1}]}
    answer = client.post(f"/people/{people['Eve']['id']}/merge", json=merged, headers=SOME)
    assert code_of(answer) == (404, "person_unknown")
    assert client.get(path, headers=ALL).json()["person"] == people["Ben"]


def test_faces_of_other_folders_do_not_exist(client: TestClient, people: dict[str, dict[str, Any]]) -> None:
    there = ids_of([UNNAMED_THERE[0]])
    eve = f"/people/{people['Eve']['id']}"
    for path, body in (
        ("/people", {"name": "X", "face_ids": there}), (f"{eve}/faces", {"version": 1, "face_ids": there}),
        (f"{eve}/reject", {"version": 1, "face_ids": there}),
        ("/faces/dismiss", {"face_ids": there, "kind": "set_aside"}),
        (f"/people/{people['Ada']['id']}/split", {"version": 1, "face_ids": ids_of(ADA_THERE[:1])}),
    ):  # fmt: skip
        assert code_of(client.post(path, json=body, headers=SOME)) == (404, "face_unknown"), path
    cover = client.patch(eve, json={"version": 1, "cover": there[0]}, headers=SOME)
    assert code_of(cover) == (404, "face_unknown")


def test_somebody_with_faces_elsewhere_is_not_renamed_merged_or_deleted(
    client: TestClient, people: dict[str, dict[str, Any]]
) -> None:
    ada, eve = people["Ada"], people["Eve"]
    for method, path, body in (
        ("PATCH", f"/people/{ada['id']}", {"name": "X"}), ("DELETE", f"/people/{ada['id']}", {}),
        ("POST", f"/people/{ada['id']}/merge", {"others": [{"id": eve["id"], "version": 1}]}),
        ("POST", f"/people/{eve['id']}/merge", {"others": [{"id": ada["id"], "version": 1}]}),
    ):  # fmt: skip
        assert code_of(client.request(method, path, json=body | {"version": 1}, headers=SOME)) == (403, "forbidden")
    assert client.get(f"/people/{ada['id']}", headers=ALL).json()["person"] == ada
    renamed = client.patch(f"/people/{eve['id']}", json={"version": 1, "name": "Eva"}, headers=SOME).json()["person"]
    assert renamed["name"] == "Eva"


def test_faces_that_are_seen_may_be_named_and_rejected(client: TestClient, people: dict[str, dict[str, Any]]) -> None:
    ada = f"/people/{people['Ada']['id']}"
    here = ids_of(UNNAMED_HERE)
    answer = client.post(f"{ada}/faces", json={"version": 1, "face_ids": here[:1]}, headers=SOME).json()
    assert (answer["person"]["faces"], answer["person"]["version"]) == (4, 2)
    assert client.get(ada, headers=ALL).json()["person"]["faces"] == 9
    answer = client.post(f"{ada}/reject", json={"version": 2, "face_ids": here[:1]}, headers=SOME).json()
    assert answer["person"]["faces"] == 3
    new = made(client, SOME, name="New", face_ids=here[:2])
    assert (new["faces"], client.get(f"/people/{new['id']}", headers=ALL).json()["person"]["name"]) == (2, "New")
    last = client.post(f"/people/{new['id']}/reject", json={"version": 1, "face_ids": here[:2]}, headers=SOME).json()
    assert last["person"] is None, "nobody whom this key may see"
    assert code_of(client.post("/people", json={"name": "X"}, headers=SOME)) == (400, "invalid_request")


def test_a_group_has_the_faces_and_the_id_of_the_folder(client: TestClient) -> None:
    (whole,) = client.get("/people/groups", headers=ALL).json()["groups"]
    assert (whole["faces"], whole["id"]) == (9, ids_of(UNNAMED_THERE)[0])
    (part,) = client.get("/people/groups", headers=SOME).json()["groups"]
    assert (part["faces"], part["id"] in ids_of(UNNAMED_HERE)) == (3, True)
    assert set(part["face_ids"]) == set(ids_of(UNNAMED_HERE))
    assert part["thumb_urls"] == [f"/thumbs/{one}" for one in part["face_ids"]]
    read: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = client.get(f"/people/groups/{part['id']}", params={"limit": 2, **after}, headers=SOME).json()
        read += [one["face_id"] for one in page["faces"]]
        assert page["total"] == 3
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert sorted(read) == sorted(ids_of(UNNAMED_HERE))
    assert code_of(client.get(f"/people/groups/{whole['id']}", headers=SOME)) == (404, "not_found")


def test_a_group_loses_the_faces_that_are_named_or_set_aside(client: TestClient) -> None:
    group = f"/people/groups/{ids_of(UNNAMED_THERE)[0]}"
    made(client, ALL, name="New", face_ids=ids_of(UNNAMED_HERE[:2]))
    body = {"face_ids": ids_of(UNNAMED_THERE[1:3]), "kind": "set_aside"}
    client.post("/faces/dismiss", json=body, headers=ALL)
    found = client.get(group, headers=ALL).json()
    left = [*UNNAMED_HERE[2:], UNNAMED_THERE[0], *UNNAMED_THERE[3:]]
    assert sorted(one["face_id"] for one in found["faces"]) == sorted(ids_of(left))
    assert {one["source"] for one in found["faces"]} == {None}
    client.post("/faces/dismiss", json=body | {"kind": None}, headers=ALL)
    assert len(client.get(group, headers=ALL).json()["faces"]) == len(left) + 2


def test_suggestions_and_company_are_of_the_folder_only(settings: Settings, client: TestClient) -> None:
    index: MemoryIndex = client.app.state.services.index  # type: ignore[attr-defined]
    beside = [stored_face(one.payload.path, 2, 70 + n, place=1) for n, one in enumerate([ADA_HERE[0], ADA_THERE[0]])]
    index.upsert(beside)
    ada = made(client, ALL, name="Ada", face_ids=ids_of([*ADA_HERE[:2], *ADA_THERE[:2]]))
    ben = made(client, ALL, name="Ben", face_ids=ids_of([*BEN, *beside]))
    path = f"/people/{ada['id']}"
    suggested = client.get(f"{path}/suggestions", headers=SOME).json()["suggestions"]
    assert [one["face_id"] for one in suggested] == ids_of(ADA_HERE[2:])
    for key, images, faces in ((ALL, 2, 6), (SOME, 1, 1)):
        (one,) = client.get(f"{path}/together", headers=key).json()["together"]
        assert (one["person"]["id"], one["images"], one["person"]["faces"]) == (ben["id"], images, faces)


def test_the_journal_is_of_all_folders(client: TestClient, people: dict[str, dict[str, Any]]) -> None:
    for answer in (client.get("/changes", headers=SOME), client.post("/changes/1/undo", headers=SOME)):
        assert code_of(answer) == (403, "forbidden")
        assert answer.json()["error"]["details"] == {"cause": "scope"}
    assert client.post("/changes/1/undo", headers=ALL).status_code == 200
