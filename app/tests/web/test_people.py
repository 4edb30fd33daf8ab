"""People over REST: every route, what it answers, and what went wrong with people in other products."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest

from app.catalog import CATALOG_FILE, FaceTable, open_ledger
from app.core.config import Settings
from app.core.types import FacePoint, collection_name
from app.main import create_app
from tests.support.clients import TestClient
from tests.support.face_pictures import BOXES, faces_of, ids_of, stored_face
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex

ADA, BEN, EVE = faces_of(1, 12), faces_of(2, 6), faces_of(3, 4)
COLLECTION = collection_name("faces", FAKE_PACK)
NOBODY = "0f9e6f8a-0a9f-5f0c-9d0e-7a0f3a3b1c2d"
PERSON = {
    "id", "name", "hidden", "faces", "cover", "cover_url", "birth_date", "notes", "created_at", "changed_at", "version",
}  # fmt: skip
CHANGE = {"number", "at", "who", "kind", "faces", "details", "undoes", "undone_by"}


@pytest.fixture
def index() -> MemoryIndex:
    index = MemoryIndex()
    index.upsert([*ADA, *BEN, *EVE])
    return index


@pytest.fixture
def client(settings: Settings, index: MemoryIndex) -> Iterator[TestClient]:
    with TestClient(create_app(settings, FakeEngine(), index), raise_server_exceptions=False) as client:
        yield client


def sent(client: TestClient, path: str, method: str = "POST", *, key: str = "", **body: Any) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    return client.request(method, path, json=body, headers=headers)


def made(client: TestClient, name: str, faces: Sequence[FacePoint] = (), **body: Any) -> dict[str, Any]:
    """Add a person."""
    answer = sent(client, "/people", name=name, face_ids=ids_of(faces), **body)
    assert answer.status_code == 200, answer.text
    person: dict[str, Any] = answer.json()["person"]
    return person


def person_of(client: TestClient, person_id: str) -> dict[str, Any]:
    answer = client.get(f"/people/{person_id}")
    assert answer.status_code == 200, answer.text
    person: dict[str, Any] = answer.json()["person"]
    return person


def faces_named(client: TestClient, person_id: str, **query: Any) -> list[str]:
    answer = client.get(f"/people/{person_id}/faces", params=query)
    assert answer.status_code == 200, answer.text
    return [face["face_id"] for face in answer.json()["faces"]]


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# --- one person


def test_a_person_is_added_with_faces_and_answered_with_the_change(client: TestClient) -> None:
    answer = sent(
        client, "/people", name=" Ada  Lovelace ", birth_date="1815-12-10", notes="met at the lake",
        face_ids=ids_of(ADA[:3]),
    )  # fmt: skip
    assert answer.status_code == 200
    assert answer.headers["etag"].startswith('"1-')
    body = answer.json()
    assert set(body) == {"request_id", "model", "person", "change"}
    person, change = body["person"], body["change"]
    assert (set(person), set(change)) == (PERSON, CHANGE)
    assert str(uuid.UUID(person["id"])) == person["id"]
    assert (person["name"], person["faces"], person["hidden"], person["version"]) == ("Ada Lovelace", 3, False, 1)
    assert (person["birth_date"], person["notes"]) == ("1815-12-10", "met at the lake")
    assert person["cover"] in ids_of(ADA[:3])
    assert person["cover_url"] == f"/thumbs/{person['cover']}"
    assert (change["number"], change["kind"], change["faces"], change["who"]) == (1, "create", 3, "local")
    assert (change["undoes"], change["undone_by"]) == (None, None)
    assert person_of(client, person["id"]) == person
    assert sorted(faces_named(client, person["id"])) == sorted(ids_of(ADA[:3]))


def test_a_person_needs_no_name_and_no_face(client: TestClient) -> None:
    person = sent(client, "/people").json()["person"]
    assert (person["name"], person["faces"], person["cover"], person["cover_url"]) == ("", 0, None, None)
    assert faces_named(client, person["id"]) == []
    assert client.get(f"/people/{person['id']}/suggestions").json()["suggestions"] == []


@pytest.mark.parametrize(
    "name",
    [
        "alex", "Alex", "Smith | Wesson", "\N{HEBREW LETTER ALEF}\N{HEBREW LETTER BET}", "\u202eabc", "x" * 300, "",
        "<b>&amp;",
    ],
    ids=["alex", "Alex", "bar", "Hebrew", "override", "300", "empty", "HTML"],
)  # fmt: skip
def test_a_name_comes_back_as_it_was_sent_and_another_person_may_have_it(client: TestClient, name: str) -> None:
    first, second = made(client, name, ADA[:1]), made(client, name, BEN[:2])
    assert first["id"] != second["id"]
    people = client.get("/people").json()["people"]
    assert [(one["id"], one["name"], one["faces"]) for one in people] == [
        (second["id"], name, 2), (first["id"], name, 1),
    ]  # fmt: skip


def test_upper_and_lower_case_are_two_names_and_one_search(client: TestClient) -> None:
    ids = {made(client, name)["id"] for name in ("alex", "Alex", "Álex")}
    made(client, "Eve")
    found = client.get("/people", params={"name": "ALEX", "order": "name"}).json()["people"]
    assert {one["id"] for one in found} == ids
    assert {one["name"] for one in found} == {"alex", "Alex", "Álex"}


def test_a_person_is_edited_and_what_is_left_out_stays(client: TestClient) -> None:
    person = made(client, "Ada", ADA[:3], notes="tall")
    path, cover = f"/people/{person['id']}", ids_of(ADA)[2]
    answer = sent(client, path, "PATCH", version=1, name="Ada L.", hidden=True, birth_date="1815", cover=cover)
    edited = answer.json()["person"]
    assert (edited["name"], edited["hidden"], edited["birth_date"], edited["cover"]) == ("Ada L.", True, "1815", cover)
    assert (edited["notes"], edited["faces"], edited["version"]) == ("tall", 3, 2)
    assert answer.json()["change"]["kind"] == "edit"
    assert answer.headers["etag"] == client.get(path).headers["etag"]
    emptied = sent(client, path, "PATCH", version=2, notes="", birth_date="").json()["person"]
    assert (emptied["notes"], emptied["birth_date"], emptied["name"]) == (None, None, "Ada L.")
    again = sent(client, path, "PATCH", version=3, name="Ada L.").json()
    assert (again["change"], again["person"]["version"]) == (None, 3)


def test_a_cover_must_be_a_face_of_the_person(client: TestClient) -> None:
    person = made(client, "Ada", ADA[:3])
    for cover in (ids_of(BEN)[0], NOBODY):
        answer = sent(client, f"/people/{person['id']}", "PATCH", version=1, cover=cover)
        assert code_of(answer) == (404, "face_unknown")
    assert person_of(client, person["id"])["version"] == 1


def test_a_deleted_person_leaves_faces_without_a_name(client: TestClient, index: MemoryIndex) -> None:
    person = made(client, "Ada", ADA[:3])
    answer = sent(client, f"/people/{person['id']}", "DELETE", version=1)
    assert (answer.json()["person"], answer.json()["change"]["kind"]) == (None, "delete")
    assert code_of(client.get(f"/people/{person['id']}")) == (404, "person_unknown")
    assert {point.payload.person for point in index.points.values()} == {None}
    assert len(index.points) == len(ADA) + len(BEN) + len(EVE)


# --- versions, entity tags, idempotency keys


def _writes(person_id: str, other: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Every request that changes a person, without a version."""
    return [
        ("PATCH", f"/people/{person_id}", {"name": "New"}),
        ("DELETE", f"/people/{person_id}", {}),
        ("POST", f"/people/{person_id}/faces", {"face_ids": ids_of(ADA[5:6])}),
        ("POST", f"/people/{person_id}/reject", {"face_ids": ids_of(ADA[:1])}),
        ("POST", f"/people/{person_id}/merge", {"others": [{"id": other["id"], "version": other["version"]}]}),
        ("POST", f"/people/{person_id}/split", {"face_ids": ids_of(ADA[:1]), "name": "Part"}),
    ]


def test_every_change_needs_the_version_that_it_saw_and_a_stale_one_changes_nothing(client: TestClient) -> None:
    person, other = made(client, "Ada", ADA[:3]), made(client, "Ben", BEN[:3])
    sent(client, f"/people/{person['id']}", "PATCH", version=1, name="Ada of another tab")
    before = client.get("/changes").json()["changes"]
    for method, path, body in _writes(person["id"], other):
        assert code_of(client.request(method, path, json=body)) == (400, "invalid_request"), path
        stale = client.request(method, path, json=body | {"version": 1})
        assert code_of(stale) == (409, "person_changed"), path
        assert stale.json()["error"]["details"] == {"person_id": person["id"], "version": 2}
        by_header = client.request(method, path, json=body, headers={"If-Match": '"1"'})
        assert code_of(by_header) == (409, "person_changed"), path
        two = client.request(method, path, json=body | {"version": 2}, headers={"If-Match": '"1"'})
        assert code_of(two) == (400, "invalid_request"), path
    assert client.get("/changes").json()["changes"] == before
    assert (person_of(client, person["id"])["faces"], person_of(client, other["id"])["faces"]) == (3, 3)


def test_every_change_takes_the_version_from_if_match(client: TestClient) -> None:
    other = made(client, "Ben", BEN[:3])
    for place in range(6):
        person = made(client, "Ada", ADA[:3], replace=True)
        method, path, body = _writes(person["id"], other)[place]
        etag = client.get(f"/people/{person['id']}").headers["etag"]
        answer = client.request(method, path, json=body, headers={"If-Match": etag})
        assert answer.status_code == 200, answer.text
        assert answer.json()["change"] is not None


def test_a_delete_needs_no_body(client: TestClient) -> None:
    person = made(client, "Ada", ADA[:1])
    assert client.delete(f"/people/{person['id']}", headers={"If-Match": '"1"'}).status_code == 200


@pytest.mark.parametrize("tag", ["1", "*", 'W/"1"', '"1", "2"', '"x"', '""', '"' + "1" * 40 + '"', '"-1"'])
def test_an_if_match_that_names_no_single_version_is_refused(client: TestClient, tag: str) -> None:
    person = made(client, "Ada", ADA[:1])
    answer = client.delete(f"/people/{person['id']}", headers={"If-Match": tag})
    assert code_of(answer) == (400, "invalid_request")
    assert person_of(client, person["id"])["version"] == 1


def test_a_stale_tab_merges_nobody(client: TestClient) -> None:
    """PhotoPrism 5764: the versions of both count, whichever was changed."""
    ada, ben = made(client, "Ada", ADA[:5]), made(client, "Ben", BEN[:5])
    sent(client, f"/people/{ben['id']}/faces", version=1, face_ids=ids_of(BEN[5:6]))
    path = f"/people/{ada['id']}/merge"
    stale = sent(client, path, version=1, others=[{"id": ben["id"], "version": 1}])
    assert code_of(stale) == (409, "person_changed")
    assert stale.json()["error"]["details"] == {"person_id": ben["id"], "version": 2}
    assert [person_of(client, one["id"])["faces"] for one in (ada, ben)] == [5, 6]


def test_a_rename_to_a_name_that_exists_merges_nobody(client: TestClient) -> None:
    """PhotoPrism 3414."""
    ada, ben = made(client, "Ada", ADA[:5]), made(client, "Ben", BEN[:5])
    renamed = sent(client, f"/people/{ben['id']}", "PATCH", version=1, name="Ada").json()["person"]
    assert (renamed["id"], renamed["name"], renamed["faces"]) == (ben["id"], "Ada", 5)
    assert person_of(client, ada["id"]) == ada
    assert len(client.get("/people", params={"name": "ada"}).json()["people"]) == 2


def test_what_a_client_has_already_is_not_sent_again(client: TestClient) -> None:
    person = made(client, "Ada", ADA[:1])
    path = f"/people/{person['id']}"
    first = client.get(path)
    etag = first.headers["etag"]
    assert (etag[:3], first.headers["cache-control"]) == ('"1-', "private, no-cache")
    again = client.get(path, headers={"If-None-Match": etag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    sent(client, path, "PATCH", version=1, name="Eve")
    changed = client.get(path, headers={"If-None-Match": etag})
    assert (changed.status_code, changed.headers["etag"][:3]) == (200, '"2-')


def test_a_person_who_lost_a_face_without_a_change_is_sent_again(settings: Settings, client: TestClient) -> None:
    person = made(client, "Ada", ADA[:2])
    path = f"/people/{person['id']}"
    seen = {"If-None-Match": client.get(path).headers["etag"]}
    with closing(open_ledger(settings.state_dir / CATALOG_FILE, COLLECTION)) as ledger:
        # as `--prune` does with a deleted picture
        FaceTable(ledger.database, COLLECTION).remove(ids_of(ADA[:1]))
    answer = client.get(path, headers=seen)
    assert (answer.status_code, answer.json()["person"]["faces"], answer.json()["person"]["version"]) == (200, 1, 1)


def test_a_request_with_the_same_key_is_made_once(client: TestClient) -> None:
    first = sent(client, "/people", name="Ada", face_ids=ids_of(ADA[:2]), key="request 1")
    again = sent(client, "/people", name="Ada", face_ids=ids_of(ADA[:2]), key="request 1")
    assert first.json()["person"] == again.json()["person"]
    assert first.json()["change"] == again.json()["change"]
    assert len(client.get("/people").json()["people"]) == 1
    other = sent(client, "/people", name="Eve", key="request 1")
    assert code_of(other) == (400, "invalid_request")
    assert other.json()["error"]["details"]["field"] == "Idempotency-Key"
    person_id = first.json()["person"]["id"]
    for _ in range(2):  # also after the version has changed
        done = sent(client, f"/people/{person_id}/faces", version=1, face_ids=ids_of(ADA[2:4]), key="request 2")
        assert (done.status_code, done.json()["person"]["faces"]) == (200, 4)
    for _ in range(2):
        assert sent(client, "/changes/2/undo", key="request 3").json()["change"]["number"] == 3
    assert person_of(client, person_id)["faces"] == 2


@pytest.mark.parametrize("key", ["", "x" * 201, "a\tb", "caf\xe9", "\x7f"])
def test_an_idempotency_key_is_a_short_printable_text(client: TestClient, key: str) -> None:
    answer = client.post("/people", json={"name": "Ada"}, headers={"Idempotency-Key": key.encode("latin-1")})
    assert code_of(answer) == (400, "invalid_request")
    assert client.get("/people").json()["people"] == []
    assert sent(client, "/people", name="Ada", key="x" * 200).status_code == 200


# --- faces


def test_faces_are_assigned_and_say_how(client: TestClient) -> None:
    person = made(client, "Ada", ADA[:1])
    path = f"/people/{person['id']}"
    answer = sent(client, f"{path}/faces", version=1, face_ids=ids_of(ADA[1:3]), source="confirmed")
    assert (answer.json()["change"]["kind"], answer.json()["change"]["faces"]) == ("confirm", 2)
    assert (answer.json()["person"]["faces"], answer.json()["person"]["version"]) == (3, 2)
    faces = client.get(f"{path}/faces").json()
    assert (faces["total"], faces["next"]) == (3, None)
    assert {one["face_id"]: one["source"] for one in faces["faces"]} == dict(
        zip(ids_of(ADA), ["manual", "confirmed", "confirmed"], strict=False)
    )
    for face in faces["faces"]:
        assert face["thumb_url"] == f"/thumbs/{face['face_id']}"
        assert face["image_url"] == f"/images/{face['image_id']}"
    same = sent(client, f"{path}/faces", version=2, face_ids=ids_of(ADA[:2]))
    assert (same.json()["change"], same.json()["person"]["version"]) == (None, 2)


def test_a_face_of_somebody_else_is_not_taken_without_replace(client: TestClient) -> None:
    ada, ben = made(client, "Ada", ADA[:3]), made(client, "Ben", BEN[:1])
    path, face_ids = f"/people/{ben['id']}/faces", ids_of([*ADA[:2], BEN[1]])
    refused = sent(client, path, version=1, face_ids=face_ids)
    assert code_of(refused) == (409, "face_named")
    assert refused.json()["error"]["details"] == {"faces": 2, "person_ids": [ada["id"]]}
    assert code_of(sent(client, "/people", name="Eve", face_ids=face_ids)) == (409, "face_named")
    assert person_of(client, ada["id"])["faces"] == 3
    taken = sent(client, path, version=1, face_ids=face_ids, replace=True)
    assert taken.json()["person"]["faces"] == 4
    assert person_of(client, ada["id"])["faces"] == 1


def test_faces_of_a_person_come_in_pages_by_time_and_by_similarity(client: TestClient) -> None:
    person = made(client, "Ada", ADA)
    in_time = ids_of(ADA)
    for order, expected in (("newest", in_time[::-1]), ("oldest", in_time)):
        assert faces_named(client, person["id"], order=order) == expected
    read: list[str] = []
    after = None
    similarities: list[float] = []
    while True:
        query = {"order": "similarity", "limit": 5} | ({"after": after} if after else {})
        page = client.get(f"/people/{person['id']}/faces", params=query).json()
        read += [one["face_id"] for one in page["faces"]]
        similarities += [one["similarity"] for one in page["faces"]]
        assert page["total"] == 12
        if (after := page["next"]) is None:
            break
    assert sorted(read) == sorted(in_time)
    assert similarities == sorted(similarities, reverse=True)


def test_a_rejected_face_loses_the_name_and_is_not_suggested_again(client: TestClient) -> None:
    person = made(client, "Ada", ADA[:3])
    path, rejected = f"/people/{person['id']}", ids_of(ADA)[2:4]
    assert rejected[1] in _suggested(client, person["id"])
    answer = sent(client, f"{path}/reject", version=1, face_ids=rejected)
    assert (answer.json()["change"]["kind"], answer.json()["person"]["faces"]) == ("reject", 2)
    assert not set(rejected) & set(_suggested(client, person["id"]))
    assert not set(rejected) & set(faces_named(client, person["id"]))


def test_a_merge_gives_one_person_all_faces_and_can_be_undone(client: TestClient) -> None:
    ada, ben, eve = made(client, "Ada", ADA[:5]), made(client, "Ben", BEN), made(client, "Eve", EVE)
    others = [{"id": one["id"], "version": one["version"]} for one in (ben, eve)]
    answer = sent(client, f"/people/{ada['id']}/merge", version=1, others=others).json()
    assert (answer["person"]["name"], answer["person"]["faces"]) == ("Ada", 15)
    assert code_of(client.get(f"/people/{ben['id']}")) == (404, "person_unknown")
    undone = sent(client, f"/changes/{answer['change']['number']}/undo").json()
    assert undone["change"]["undoes"] == answer["change"]["number"]
    assert [person_of(client, one["id"])["faces"] for one in (ada, ben, eve)] == [5, 6, 4]
    assert [person_of(client, one["id"])["name"] for one in (ada, ben, eve)] == ["Ada", "Ben", "Eve"]


def test_a_split_moves_the_selected_faces_and_no_others(client: TestClient) -> None:
    """nextcloud/recognize 602."""
    person = made(client, "Ada", ADA[:6])
    moved = ids_of(ADA)[1:3]
    answer = sent(client, f"/people/{person['id']}/split", version=1, face_ids=moved, name="Eve").json()
    new = answer["person"]
    assert (new["name"], new["faces"], answer["change"]["kind"], answer["change"]["faces"]) == ("Eve", 2, "split", 2)
    assert sorted(faces_named(client, new["id"])) == sorted(moved)
    assert sorted(faces_named(client, person["id"])) == sorted({*ids_of(ADA[:6])} - {*moved})
    path, before = f"/people/{person['id']}/split", person_of(client, person["id"])
    refused = sent(client, path, version=before["version"], face_ids=ids_of([ADA[0], BEN[0]]), name="Nobody")
    assert code_of(refused) == (400, "invalid_request")
    assert person_of(client, person["id"]) == before


def test_a_face_that_is_set_aside_is_not_one_that_nobody_looked_at(client: TestClient) -> None:
    """LibrePhotos 1409; and a "not a face" does not come back (recognize 1124)."""
    person = made(client, "Ada", ADA[:3])
    aside, none = ids_of(ADA)[3], ids_of(ADA)[4]
    assert {aside, none} <= set(_suggested(client, person["id"]))
    for face_id, kind in ((aside, "set_aside"), (none, "not_a_face")):
        answer = sent(client, "/faces/dismiss", face_ids=[face_id], kind=kind).json()
        assert (answer["person"], answer["change"]["kind"], answer["change"]["faces"]) == (None, "dismiss", 1)
    assert not {aside, none} & set(_suggested(client, person["id"]))
    again = sent(client, "/faces/dismiss", face_ids=[aside], kind="set_aside").json()
    assert again["change"] is None
    sent(client, "/faces/dismiss", face_ids=[aside], kind=None)
    assert {aside, none} & set(_suggested(client, person["id"])) == {aside}
    named = sent(client, "/faces/dismiss", face_ids=ids_of(ADA[:1]), kind="set_aside")
    assert code_of(named) == (409, "face_named")
    sent(client, "/faces/dismiss", face_ids=ids_of(ADA[:1]), kind="not_a_face")
    assert person_of(client, person["id"])["faces"] == 2


def _suggested(client: TestClient, person_id: str) -> list[str]:
    answer = client.get(f"/people/{person_id}/suggestions")
    assert answer.status_code == 200, answer.text
    return [one["face_id"] for one in answer.json()["suggestions"]]


# --- suggestions, company, lists


def test_suggestions_are_the_other_faces_of_the_person_best_first_with_the_reason(client: TestClient) -> None:
    person = made(client, "Ada", ADA[:3])
    found = client.get(f"/people/{person['id']}/suggestions").json()["suggestions"]
    assert sorted(one["face_id"] for one in found) == sorted(ids_of(ADA[3:]))
    similarities = [one["similarity"] for one in found]
    assert similarities == sorted(similarities, reverse=True)
    assert all(one["reason"] in ("group", "similar") and one["clear"] and one["sure"] for one in found)
    assert len(client.get(f"/people/{person['id']}/suggestions?limit=2").json()["suggestions"]) == 2


def test_two_faces_of_one_picture_are_never_suggested_as_one_person(settings: Settings) -> None:
    """immich 12921."""
    index = MemoryIndex()
    index.upsert(ADA[:3])
    twice = [stored_face("/photos/mirror.jpg", 1, 50 + place, place=place) for place in range(len(BOXES))]
    beside = stored_face(ADA[0].payload.path, 1, 60, place=1)
    index.upsert([*twice, beside])
    with TestClient(create_app(settings, FakeEngine(), index)) as client:
        person = made(client, "Ada", ADA[:3])
        found = _suggested(client, person["id"])
        assert len(set(found) & set(ids_of(twice))) == 1
        assert beside.face_id not in found


def test_who_is_in_the_same_pictures_and_how_often(settings: Settings) -> None:
    index = MemoryIndex()
    pictures = [f"/photos/party-{number}.jpg" for number in range(4)]
    ada = [stored_face(one, 1, number) for number, one in enumerate(pictures)]
    ben = [stored_face(one, 2, number, place=1) for number, one in enumerate(pictures[:3])]
    eve = [stored_face(pictures[0], 3, 0, place=2), *EVE]
    index.upsert([*ada, *ben, *eve])
    with TestClient(create_app(settings, FakeEngine(), index)) as client:
        first, second, third = made(client, "Ada", ada), made(client, "Ben", ben), made(client, "Eve", eve)
        found = client.get(f"/people/{first['id']}/together").json()["together"]
        assert [(one["person"]["id"], one["person"]["name"], one["images"]) for one in found] == [
            (second["id"], "Ben", 3), (third["id"], "Eve", 1),
        ]  # fmt: skip
        assert len(client.get(f"/people/{first['id']}/together?limit=1").json()["together"]) == 1


def test_people_are_listed_in_pages_by_faces_and_by_name(client: TestClient) -> None:
    counts = {"Zoe": 3, "alex": 1, "Ben": 2, "Émile": 0, "eve": 0}
    faces = iter(ADA)
    ids = {name: made(client, name, [next(faces) for _ in range(count)])["id"] for name, count in counts.items()}
    sent(client, f"/people/{ids['eve']}", "PATCH", version=1, hidden=True)
    assert _paged(client, "/people", "people", "name") == ["Zoe", "Ben", "alex", "Émile"]
    assert _paged(client, "/people", "people", "name", order="name") == ["alex", "Ben", "Émile", "Zoe"]
    assert _paged(client, "/people", "people", "name", hidden="true") == ["eve"]
    assert _paged(client, "/people", "people", "name", hidden="all", order="name") == [
        "alex", "Ben", "Émile", "eve", "Zoe",
    ]  # fmt: skip
    assert _paged(client, "/people", "people", "name", name="EM") == ["Émile"]


def _paged(client: TestClient, path: str, part: str, what: str, **query: Any) -> list[Any]:
    found: list[Any] = []
    after: str | None = None
    while True:
        answer = client.get(path, params=query | {"limit": 2} | ({"after": after} if after else {}))
        assert answer.status_code == 200, answer.text
        found += [one[what] for one in answer.json()[part]]
        if (after := answer.json()["next"]) is None:
            return found


def test_a_cursor_of_another_list_is_refused(client: TestClient) -> None:
    for name, faces in (("Ada", ADA), ("Ben", BEN[:3]), ("Eve", EVE)):
        made(client, name, faces)
    people = client.get("/people?limit=1").json()
    person_id = people["people"][0]["id"]
    faces = client.get(f"/people/{person_id}/faces?limit=1").json()["next"]
    changes = client.get("/changes?limit=1").json()["next"]
    cursors = {"people": people["next"], "faces": faces, "changes": changes}
    assert None not in cursors.values()
    for path, own in (
        ("/people", "people"), ("/people?order=name", ""), ("/people?name=e", ""), ("/people?hidden=all", ""),
        (f"/people/{person_id}/faces", "faces"), (f"/people/{person_id}/faces?order=oldest", ""),
        ("/changes", "changes"), (f"/changes?person_id={person_id}", ""), ("/people/groups", ""),
    ):  # fmt: skip
        for name, after in {**cursors, "none": "x" * 40, "damaged": f"{people['next']}A"}.items():
            answer = client.get(path, params={**dict(_query(path)), "after": after})
            if name == own:
                assert answer.status_code == 200, (path, name)
            else:
                assert code_of(answer) == (400, "cursor_invalid"), (path, name)


def _query(path: str) -> list[tuple[str, str]]:
    query = path.partition("?")[2]
    return [(name, value) for name, _, value in (part.partition("=") for part in query.split("&") if part)]


# --- the journal


def test_every_change_is_in_the_journal_and_can_be_undone(client: TestClient) -> None:
    person = made(client, "Ada", ADA[:3])
    other = made(client, "Ben", BEN[:3])
    path = f"/people/{person['id']}"
    states = [client.get("/people").json()["people"]]
    for route, body in (
        ("", {"name": "Ada L."}), ("/faces", {"face_ids": ids_of(ADA[3:5])}),
        ("/reject", {"face_ids": ids_of(ADA[:1])}), ("/split", {"face_ids": ids_of(ADA[1:2])}),
    ):  # fmt: skip
        version = person_of(client, person["id"])["version"]
        answer = client.request("POST" if route else "PATCH", path + route, json=body | {"version": version})
        assert answer.status_code == 200, answer.text
        states.append(client.get("/people").json()["people"])
    changes = client.get("/changes").json()["changes"]
    assert [one["kind"] for one in changes] == ["split", "reject", "assign", "edit", "create", "create"]
    assert [one["number"] for one in changes] == [6, 5, 4, 3, 2, 1]
    for number, state in zip((6, 5, 4, 3), states[-2::-1], strict=True):
        undone = sent(client, f"/changes/{number}/undo").json()["change"]
        assert (undone["kind"], undone["undoes"]) == ("undo", number)
        assert _kept(client.get("/people").json()["people"]) == _kept(state)
    of_ben = client.get("/changes", params={"person_id": other["id"]}).json()["changes"]
    assert [one["number"] for one in of_ben] == [2]
    assert _paged(client, "/changes", "changes", "number") == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]


def _kept(people: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: one[key] for key in ("id", "name", "faces", "hidden")} for one in people]


def test_what_was_changed_since_is_not_undone(client: TestClient) -> None:
    person = made(client, "Ada", ADA[:1])
    sent(client, f"/people/{person['id']}/faces", version=1, face_ids=ids_of(ADA[1:2]))
    made(client, "Eve", ADA[1:2], replace=True)
    answer = sent(client, "/changes/2/undo")
    assert code_of(answer) == (409, "change_conflict")
    assert answer.json()["error"]["details"] == {"change": 2, "cause": "changed"}
    assert code_of(sent(client, "/changes/99/undo")) == (404, "change_unknown")
    assert sent(client, "/changes/3/undo").status_code == 200
    assert code_of(sent(client, "/changes/3/undo")) == (409, "change_conflict")


def test_many_faces_are_one_change(settings: Settings) -> None:
    index = MemoryIndex()
    index.upsert([stored_face(f"/photos/{number}.jpg", 1) for number in range(1200)])
    with TestClient(create_app(settings, FakeEngine(), index)) as client:
        face_ids = [*index.points]
        person = sent(client, "/people", name="Ada", face_ids=face_ids).json()
        assert (person["person"]["faces"], person["change"]["faces"]) == (1200, 1200)
        sent(client, "/changes/1/undo")
        assert {point.payload.person for point in index.points.values()} == {None}


def test_a_browser_gets_pages_and_a_program_json(client: TestClient) -> None:
    for path in ("/people", "/changes"):
        page = client.get(path, headers={"Accept": "text/html"})
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8"), page.text
        answer = client.get(path)
        assert answer.headers["content-type"] == "application/json"
        assert "Accept" in answer.headers["vary"]
