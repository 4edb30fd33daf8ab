"""The people in other answers: whom matches show, filters by person, and who a searched face is likely to be."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from app.catalog import AuditFilter
from app.core.config import Settings
from app.core.types import Face, FacePoint, Floats, Picture
from app.main import create_app
from app.service import People, Services
from tests.support.clients import TestClient
from tests.support.face_pictures import faces_of, ids_of, likeness, stored_face
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.pictures import KPS, RED, encoded

ADA, BEN = faces_of(1, 8), faces_of(2, 6)
NOBODY = "0f9e6f8a-0a9f-5f0c-9d0e-7a0f3a3b1c2d"


class Group(FakeEngine):
    """Sees Ada, Ben and a stranger in every picture."""

    @staticmethod
    def _faces(picture: Picture) -> list[Face]:
        seen: list[Floats] = [likeness(person, 900) for person in (1, 2, 77)]
        boxes = [(10.0 * place, 0.0, 10.0 * place + 8, 9.0) for place in range(3)]
        return [Face(box, KPS, 0.9, 0.8, "direct", one) for box, one in zip(boxes, seen, strict=True)]


@pytest.fixture
def index() -> MemoryIndex:
    index = MemoryIndex()
    index.upsert([*ADA, *BEN])
    return index


@pytest.fixture
def client(settings: Settings, index: MemoryIndex) -> Iterator[TestClient]:
    with TestClient(create_app(settings, Group(), index)) as client:
        yield client


def named(client: TestClient, name: str, faces: list[FacePoint]) -> dict[str, Any]:
    answer = client.post("/people", json={"name": name, "face_ids": ids_of(faces)})
    assert answer.status_code == 200, answer.text
    return {"id": answer.json()["person"]["id"], "name": name, "hidden": False}


def searched(client: TestClient, **fields: Any) -> Any:
    answer = client.post("/search", files={"image": encoded(RED)}, data={"limit": "100", **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_every_answer_with_faces_says_whom_they_show(client: TestClient) -> None:
    ada, face = named(client, "Ada", ADA[:3]), ADA[0]
    image = face.payload.image_id
    of_search = searched(client)["faces"][0]["matches"]
    combined = client.post(f"/faces/{face.face_id}/search").json()["combined"]["matches"]
    batch = client.post("/search/batch", json={"queries": [{"face_id": face.face_id}]}).json()
    of_batch = batch["results"][0]["combined"]["matches"]
    for matches in (of_search, combined, of_batch):
        people = {match["face_id"]: match["person"] for match in matches}
        assert [people[one] for one in ids_of(ADA[:4])] == [ada, ada, ada, None]
    assert client.get(f"/faces/{face.face_id}").json()["person"] == ada
    assert [one["person"] for one in client.get(f"/images/{image}").json()["faces"]] == [ada]
    after = searched(client, limit="2")["faces"][0]["next"]
    more = client.post("/search/more", data={"after": after, "limit": "100"}).json()["matches"]
    assert {one["face_id"]: one["person"] for one in more}.items() <= {
        one["face_id"]: one["person"] for one in of_search
    }.items()


def test_a_new_name_is_in_the_next_answer(client: TestClient) -> None:
    ada = named(client, "Ada", ADA[:3])
    assert searched(client)["faces"][0]["matches"]
    client.patch(f"/people/{ada['id']}", json={"version": 1, "name": "Ada L."})
    people = [one["person"] for one in searched(client)["faces"][0]["matches"]]
    assert {one["name"] for one in people if one} == {"Ada L."}
    client.request("DELETE", f"/people/{ada['id']}", json={"version": 2})
    assert {one["person"] for one in searched(client)["faces"][0]["matches"]} == {None}


def test_names_are_looked_up_once_for_an_answer_and_not_without_a_name(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    names = People.names

    def counted(self: People, ids: list[str]) -> Any:
        asked.append(ids)
        return names(self, ids)

    monkeypatch.setattr(People, "names", counted)
    searched(client)
    assert asked == []
    people = [named(client, "Ada", ADA[:3]), named(client, "Ben", BEN[:3])]
    searched(client, threshold="-1")
    client.post("/search/batch", json={"queries": [{"face_id": one.face_id} for one in (*ADA[:3], *BEN[:3])]})
    assert asked == [sorted(one["id"] for one in people)] * 2


def test_faces_of_further_people_have_names_too(settings: Settings) -> None:
    index = MemoryIndex()
    party = [stored_face("/photos/party.jpg", 1), stored_face("/photos/party.jpg", 2, place=1)]
    index.upsert([*party, *ADA, *BEN])
    with TestClient(create_app(settings, Group(), index)) as client:
        ada, ben = named(client, "Ada", [*ADA[:1], party[0]]), named(client, "Ben", [*BEN[:1], party[1]])
        answer = client.post(f"/faces/{ADA[0].face_id}/search", data={"with_face_id": BEN[0].face_id}).json()
        (match,) = answer["combined"]["matches"]
        assert (match["person"], [one["person"] for one in match["together"]]) == (ada, [ben])


def test_filters_by_person_and_by_having_none(client: TestClient) -> None:
    ada, ben = named(client, "Ada", ADA[:3]), named(client, "Ben", BEN[:2])

    def found(**fields: str) -> set[str]:
        return {one["face_id"] for one in searched(client, threshold="-1", **fields)["faces"][0]["matches"]}

    assert found(person=ada["id"]) == {*ids_of(ADA[:3])}
    assert found(person=ben["id"].upper()) == {*ids_of(BEN[:2])}
    assert found(person=NOBODY) == set()
    assert found(named="true") == {*ids_of(ADA[:3]), *ids_of(BEN[:2])}
    assert found(unnamed="true") == {*ids_of(ADA[3:]), *ids_of(BEN[2:])}
    assert found(person=ada["id"], unnamed="true") == set()
    assert found(person=ada["id"], sort="newest") == found(person=ada["id"])
    client.post(f"/people/{ada['id']}/faces", json={"version": 1, "face_ids": ids_of(ADA[3:5])})
    assert found(person=ada["id"], sort="newest") == {*ids_of(ADA[:5])}, "no list of before"
    of_face = client.post(f"/faces/{ADA[0].face_id}/search", data={"person": ada["id"]}).json()
    assert len(of_face["combined"]["matches"]) == 5


@pytest.mark.parametrize("person", ["Ada", "5", "x" * 36, f"{NOBODY}x", f"{NOBODY} {NOBODY}"])
def test_a_filter_by_a_name_is_refused(client: TestClient, person: str) -> None:
    answer = client.post("/search", files={"image": encoded(RED)}, data={"person": person})
    assert answer.status_code == 400
    assert answer.json()["error"]["details"] == {"fields": {"person": "must be the id of a person, a UUID"}}
    two = client.post("/search", files={"image": encoded(RED)}, data={"person": [NOBODY, NOBODY]})
    assert two.status_code == 400


def test_each_searched_face_is_identified_with_the_margin_to_the_next(client: TestClient) -> None:
    ada, ben = named(client, "Ada", ADA[:5]), named(client, "Ben", BEN[:5])
    faces = searched(client, identify="true")["faces"]
    known = [face["identified"] for face in faces]
    assert [one and one["person"] for one in known] == [ada, ben, None]
    for one in known[:2]:
        assert set(one) == {"person", "similarity", "margin", "sure", "next"}
        assert one["similarity"] > 0.8
        assert one["sure"] is True
        assert (one["margin"], one["next"]) == (None, None), "nobody else is similar at all"
    assert [face["identified"] for face in searched(client)["faces"]] == [None, None, None]


def test_a_face_between_two_people_is_not_sure_and_names_both(settings: Settings, index: MemoryIndex) -> None:
    between = likeness(1, 900) + likeness(2, 900)
    vector = [float(one) for one in between]
    with TestClient(create_app(settings, Group(), index)) as client:
        ada, ben = named(client, "Ada", ADA[:5]), named(client, "Ben", BEN[:5])
        answer = client.post("/search", data={"embedding": str(vector), "identify": "true"}).json()
        known = answer["combined"]["identified"]
        assert {known["person"]["id"], known["next"]["id"]} == {ada["id"], ben["id"]}
        assert 0 <= known["margin"] < 0.05
        assert known["sure"] is False


def test_somebody_is_identified_by_several_faces_and_not_by_the_nearest_one(settings: Settings) -> None:
    """One wrong name among many right ones decides nothing."""
    index = MemoryIndex()
    wrong = replace(
        stored_face("/photos/wrong.jpg", 1), embedding=likeness(1, 900)
    )  # exactly the face that is searched
    index.upsert([*ADA, *BEN, wrong])
    with TestClient(create_app(settings, Group(), index)) as client:
        ada = named(client, "Ada", ADA[:6])
        named(client, "Ben", [*BEN, wrong])
        found = searched(client, identify="true")["faces"][0]
        assert found["matches"][0]["person"]["name"] == "Ben"
        assert found["identified"]["person"] == ada


def test_nobody_is_identified_while_nobody_has_a_name(client: TestClient) -> None:
    assert [face["identified"] for face in searched(client, identify="true")["faces"]] == [None] * 3


def test_the_exports_have_the_name_and_the_id(client: TestClient) -> None:
    ada = named(client, "=Ada", ADA[:2])
    address = f"/face/{ADA[0].face_id}/export"
    rows = client.get(f"{address}?format=json").json()
    people = {row["face_id"]: (row["person"], row["person_id"]) for row in rows}
    assert people[ADA[1].face_id] == ("=Ada", ada["id"])
    assert people[ADA[2].face_id] == (None, None)
    text = client.get(f"{address}?format=csv").content.decode("utf-8-sig")
    table = {row["face_id"]: (row["person"], row["person_id"]) for row in csv.DictReader(io.StringIO(text))}
    assert table[ADA[1].face_id] == ("'=Ada", ada["id"])
    assert table[ADA[2].face_id] == ("", "")


def test_searches_and_changes_of_people_are_in_the_audit_log_without_names(client: TestClient) -> None:
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    ada = named(client, "Ada of the lake", ADA[:2])
    path = f"/people/{ada['id']}"
    client.get("/people?name=lake")
    for rest in ("", "/faces", "/suggestions", "/together"):
        client.get(path + rest)
    client.get("/people/groups")
    client.patch(path, json={"version": 1, "name": "Eve of the lake"})
    client.post(f"{path}/faces", json={"version": 2, "face_ids": ids_of(ADA[2:3])})
    client.post(f"{path}/reject", json={"version": 3, "face_ids": ids_of(ADA[2:3])})
    client.post(f"{path}/split", json={"version": 4, "face_ids": ids_of(ADA[:1]), "name": "Zoe of the lake"})
    client.post("/faces/dismiss", json={"face_ids": ids_of(BEN[:1]), "kind": "set_aside"})
    client.get("/changes")
    client.post("/changes/6/undo")
    client.request("DELETE", path, json={"version": 5})
    entries = [*services.audit.log.all(AuditFilter())]
    actions = [one.action for one in entries]
    assert sorted(actions) == sorted(
        [
            "person.create", "people.list", "person.view", "person.faces", "person.suggestions", "person.together",
            "people.groups", "person.edit", "person.assign", "person.reject", "person.split", "face.dismiss",
            "changes.list", "change.undo", "person.delete",
        ]
    )  # fmt: skip
    assert not any("lake" in one.details for one in entries)
    assert any(ada["id"] in one.details for one in entries)


@pytest.mark.parametrize("path", ["", "/{}", "/{}/faces", "/{}/suggestions", "/{}/together", "/groups"])
def test_who_looks_at_people_says_why_where_that_is_required(settings: Settings, index: MemoryIndex, path: str) -> None:
    settings = settings.model_copy(update={"require_purpose": True})
    with TestClient(create_app(settings, Group(), index)) as client:
        ada = named(client, "Ada", ADA[:2])
        address = f"/people{path.format(ada['id'])}"
        refused = client.get(address)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "purpose_required")
        assert client.get(address, headers={"X-Purpose": "a case"}).status_code == 200
