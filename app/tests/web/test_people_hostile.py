"""People over REST: requests that are wrong, too large, or meant to break something."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from app.catalog import ChangeLog
from app.core.config import Settings
from app.core.errors import OceanoError
from app.main import create_app
from app.security import add_key, checked_grant
from app.service import Services, encode_mark
from app.web.api.requests import MAX_BODY
from tests.support.clients import TestClient
from tests.support.face_pictures import faces_of, ids_of
from tests.support.fakes import FakeEngine, MemoryIndex

ADA = faces_of(1, 5)
FACE = ADA[0].face_id
NOBODY = "0f9e6f8a-0a9f-5f0c-9d0e-7a0f3a3b1c2d"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    index = MemoryIndex()
    index.upsert(ADA)
    with TestClient(create_app(settings, FakeEngine(), index), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def ada(client: TestClient) -> str:
    """The id of a person with two faces, in version 1."""
    made = client.post("/people", json={"name": "Ada", "face_ids": ids_of(ADA[:2])}).json()
    person_id: str = made["person"]["id"]
    return person_id


def problem_of(answer: Any, status: int = 400, code: str = "invalid_request") -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["code"] == code, answer.text
    assert len(answer.content) < 5000, "an error does not send back what it got"
    return error


def changes(client: TestClient) -> int:
    return len(client.get("/changes?limit=1000").json()["changes"])


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("name", 5), ("name", None), ("name", ["Ada"]), ("name", "x" * 6000), ("hidden", "true"), ("hidden", 1),
        ("birth_date", 1815), ("notes", {"a": 1}), ("face_ids", "a"), ("face_ids", FACE), ("face_ids", {FACE: 1}),
        ("face_ids", [5]), ("face_ids", [None]), ("face_ids", ["no-uuid"]), ("face_ids", [FACE[:-1]]),
        ("face_ids", [f"{FACE}\n"]), ("face_ids", [[FACE]]), ("replace", "yes"), ("id", NOBODY), ("version", 1),
        ("faces", []), ("\ud7ff", 1),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_and_nothing_is_made(client: TestClient, field: str, wrong: Any) -> None:
    error = problem_of(client.post("/people", json={"name": "Eve", field: wrong}))
    assert list(error["details"]["fields"]) == [field]
    assert error["message"].startswith(f"{field}: ")
    assert client.get("/people").json()["people"] == []


@pytest.mark.parametrize(
    ("field", "wrong", "words"),
    [
        ("name", "x" * 501, "the name has 501 characters"), ("birth_date", "yesterday", "birth date"),
        ("birth_date", "2021-02-30", "birth date"), ("birth_date", "9021-05", "is in the future"),
        ("notes", "x" * 10_001, "the notes have 10001 characters"),
    ],
)  # fmt: skip
def test_texts_that_are_too_long_and_dates_that_are_none_are_refused(
    client: TestClient, ada: str, field: str, wrong: str, words: str
) -> None:
    for answer in (
        client.post("/people", json={field: wrong}),
        client.patch(f"/people/{ada}", json={"version": 1, field: wrong}),
    ):
        error = problem_of(answer)
        assert words in error["message"]
        assert error["details"]["field"] == field


@pytest.mark.parametrize("version", ["1", 1.0, 1.5, True, -1, 2**53, 10**30, [1], {"a": 1}, ""])
def test_a_version_is_a_whole_number(client: TestClient, ada: str, version: Any) -> None:
    error = problem_of(client.patch(f"/people/{ada}", json={"version": version, "name": "Eve"}))
    assert list(error["details"]["fields"]) == ["version"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"{", b"[]", b"null", b"5", b'"text"', b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe{}", b"{}{}",
        b'{"name": "\\ud800"}', b'{"version": NaN, "name": "a"}', b'{"version": Infinity}', b'{"version": 1e400}',
        b'{"version": ' + b"9" * 5000 + b"}", b'{"name": "a\x00"}', b"\x00" * 100,
    ],
    ids=lambda body: repr(body[:16]),
)  # fmt: skip
def test_what_is_no_json_object_is_refused(client: TestClient, ada: str, body: bytes) -> None:
    for method, path in (("POST", "/people"), ("PATCH", f"/people/{ada}"), ("POST", f"/people/{ada}/merge")):
        problem_of(client.request(method, path, content=body, headers=JSON))
    assert changes(client) == 1


def test_a_name_with_characters_that_are_not_shown_is_kept_without_them(client: TestClient) -> None:
    made = client.post("/people", content=b'{"name": "  A\\u0000d\\u2028a\\t "}', headers=JSON).json()["person"]
    assert made["name"] == "A d a"


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/json-seq"])
def test_a_body_that_is_not_sent_as_json_is_refused(client: TestClient, kind: str) -> None:
    answer = client.post("/people", content=b'{"name": "Ada"}', headers={"Content-Type": kind})
    assert "application/json" in problem_of(answer)["message"]


def test_a_charset_and_capital_letters_in_the_media_type_do_not_matter(client: TestClient) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert client.post("/people", content=b'{"name": "Ada"}', headers=headers).status_code == 200


@pytest.mark.parametrize(
    "path", ["/people", "/people/{}/faces", "/people/{}/reject", "/people/{}/split", "/faces/dismiss"]
)
def test_ten_thousand_faces_may_be_sent_and_one_more_may_not(client: TestClient, ada: str, path: str) -> None:
    ids = [str(uuid.UUID(int=number)) for number in range(10_001)]
    body: dict[str, Any] = {"/faces/dismiss": {"kind": "set_aside"}, "/people": {}}.get(path, {"version": 1})
    allowed = client.post(path.format(ada), json=body | {"face_ids": ids[:10_000]})
    error = problem_of(allowed, 404, "face_unknown")
    assert error["details"] == {"face_id": ids[0]}
    error = problem_of(client.post(path.format(ada), json=body | {"face_ids": ids}))
    assert list(error["details"]["fields"]) == ["face_ids"]
    assert "1 to 10000" in error["message"]
    if path != "/people":
        error = problem_of(client.post(path.format(ada), json=body | {"face_ids": []}))
        assert list(error["details"]["fields"]) == ["face_ids"]


def test_ten_thousand_wrong_faces_are_one_short_error(client: TestClient) -> None:
    error = problem_of(client.post("/people", json={"face_ids": ["x" * 100] * 10_000}))
    assert list(error["details"]["fields"]) == ["face_ids"]
    many = {f"field{number}": number for number in range(1000)}
    assert len(problem_of(client.post("/people", json=many))["details"]["fields"]) == 10


def test_a_body_of_many_megabytes_is_refused_before_it_is_parsed(client: TestClient) -> None:
    body = json.dumps({"notes": "x" * MAX_BODY}).encode()
    assert "larger than 2 MB" in problem_of(client.post("/people", content=body, headers=JSON))["message"]


def test_a_face_may_be_named_in_any_spelling_and_twice(client: TestClient) -> None:
    made = client.post("/people", json={"face_ids": [FACE.upper(), FACE, FACE]}).json()
    assert (made["person"]["faces"], made["change"]["faces"]) == (1, 1)


@pytest.mark.parametrize(
    "others",
    [
        [], [{}], [{"id": NOBODY}], [{"version": 1}], [{"id": NOBODY, "version": "1"}], [{"id": "x", "version": 1}],
        [{"id": NOBODY, "version": 1, "name": "Eve"}], NOBODY, [NOBODY], {"id": NOBODY, "version": 1}, None,
        [{"id": str(uuid.UUID(int=n)), "version": 1} for n in range(101)],
        [{"id": NOBODY, "version": 1}, {"id": NOBODY.upper(), "version": 2}],
    ],
    ids=lambda others: repr(others)[:40],
)  # fmt: skip
def test_a_merge_names_other_people_with_their_versions(client: TestClient, ada: str, others: Any) -> None:
    problem_of(client.post(f"/people/{ada}/merge", json={"version": 1, "others": others}))
    assert changes(client) == 1


def test_nobody_is_merged_with_themselves_or_with_somebody_unknown(client: TestClient, ada: str) -> None:
    path = f"/people/{ada}/merge"
    problem_of(client.post(path, json={"version": 1, "others": [{"id": ada, "version": 1}]}))
    answer = client.post(path, json={"version": 1, "others": [{"id": NOBODY, "version": 1}]})
    assert problem_of(answer, 404, "person_unknown")["details"] == {"person_id": NOBODY}


@pytest.mark.parametrize("kind", ["aside", "", 1, True, ["set_aside"]])
def test_a_face_is_dismissed_as_one_of_two_kinds(client: TestClient, kind: Any) -> None:
    error = problem_of(client.post("/faces/dismiss", json={"face_ids": [FACE], "kind": kind}))
    assert error["details"]["fields"] == {"kind": "must be set_aside, not_a_face or null"}


def test_a_dismissal_must_say_what_it_is(client: TestClient) -> None:
    assert list(problem_of(client.post("/faces/dismiss", json={"face_ids": [FACE]}))["details"]["fields"]) == ["kind"]


def test_an_assignment_from_metadata_cannot_be_sent(client: TestClient, ada: str) -> None:
    body = {"version": 1, "face_ids": ids_of(ADA[2:3]), "source": "metadata"}
    assert list(problem_of(client.post(f"/people/{ada}/faces", json=body))["details"]["fields"]) == ["source"]


@pytest.mark.parametrize(
    "person_id", ["nobody", NOBODY, "x" * 5000, "%00", "..%2f..", "1", "null", "\N{CYRILLIC SMALL LETTER A}"]
)
def test_somebody_who_does_not_exist_is_404_for_every_request(client: TestClient, person_id: str) -> None:
    paths = [
        ("GET", "", None), ("GET", "/faces", None), ("GET", "/suggestions", None), ("GET", "/together", None),
        ("PATCH", "", {"name": "Eve"}), ("DELETE", "", {}), ("POST", "/faces", {"face_ids": [FACE]}),
        ("POST", "/reject", {"face_ids": [FACE]}), ("POST", "/split", {"face_ids": [FACE]}),
        ("POST", "/merge", {"others": [{"id": str(uuid.UUID(int=5)), "version": 1}]}),
    ]  # fmt: skip
    for method, rest, body in paths:
        sent = None if body is None else body | {"version": 1}
        answer = client.request(method, f"/people/{person_id}{rest}", json=sent)
        problem_of(answer, 404, "not_found" if "%2f" in person_id else "person_unknown")


def test_an_id_of_a_person_may_be_in_any_spelling(client: TestClient, ada: str) -> None:
    for spelling in (ada.upper(), ada.replace("-", ""), f"{{{ada}}}"):
        assert client.get(f"/people/{spelling}").json()["person"]["id"] == ada


@pytest.mark.parametrize("group_id", ["nothing", NOBODY, "x" * 5000, "%00"])
def test_a_group_that_does_not_exist_is_404(client: TestClient, group_id: str) -> None:
    problem_of(client.get(f"/people/groups/{group_id}"), 404, "not_found")


@pytest.mark.parametrize("number", ["0", "-1", "99", "1.0", "x", "1e3", "9" * 40, "\u0661"])
def test_a_change_that_does_not_exist_is_404(client: TestClient, ada: str, number: str) -> None:
    problem_of(client.post(f"/changes/{number}/undo"), 404, "change_unknown")


def test_an_undo_has_no_fields(client: TestClient, ada: str) -> None:
    problem_of(client.post("/changes/1/undo", json={"version": 1}))
    assert client.post("/changes/1/undo", json={}).status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=1001", "limit=x", "limit=1.5", "limit=1&limit=2", "order=size", "hidden=1", "hidden=maybe",
        "name=a&name=b", "sort=name", "after=", "name=" + "x" * 6000,
    ],
)  # fmt: skip
def test_wrong_parameters_of_a_list_are_named(client: TestClient, query: str) -> None:
    if query == "after=":
        assert client.get(f"/people?{query}").status_code == 200, "blank is absent"
        return
    error = problem_of(client.get(f"/people?{query}"))
    assert list(error["details"]["fields"]) == [query.partition("=")[0]]


def test_lists_of_a_person_check_their_parameters_too(client: TestClient, ada: str) -> None:
    for path in (
        "faces?order=name",
        "faces?limit=0",
        "suggestions?limit=1001",
        "suggestions?after=x",
        "together?limit=0",
    ):
        problem_of(client.get(f"/people/{ada}/{path}"))
    for path in ("/changes?limit=0", "/changes?person_id=x", "/people/groups?limit=x"):
        problem_of(client.get(path))


@pytest.mark.parametrize(
    "mark", [(), ("a",), (1, 2), (1, "a", "b"), ("a", "b"), (-1, "a"), (2**80, "a"), (1, 2, 3), (1, "\0")]
)
def test_a_forged_cursor_is_refused_even_with_a_correct_checksum(client: TestClient, ada: str, mark: Any) -> None:
    for path, name in (
        ("/people", "people\0\0False\0faces\0"), ("/people/groups", "groups\0"),
        (f"/people/groups/{NOBODY}", f"group\0{NOBODY}\0"), ("/changes", "changes\0"),
    ):  # fmt: skip
        after = encode_mark(mark, name)
        answer = client.get(path, params={"after": after})
        if (path, mark) == (f"/people/groups/{NOBODY}", ("a",)):
            assert answer.json()["faces"] == []
        else:
            problem_of(answer, 400, "cursor_invalid")


def test_another_site_and_somebody_who_may_only_search_change_nothing(settings: Settings) -> None:
    index = MemoryIndex()
    index.upsert(ADA)
    with TestClient(create_app(settings, FakeEngine(), index)) as client:
        cross = {"Sec-Fetch-Site": "cross-site", **JSON}
        assert client.post("/people", content=b"{}", headers=cross).status_code == 403
        services: Services = client.app.state.services  # type: ignore[attr-defined]
        keys = {role: add_key(services.keys, checked_grant(role, role), "t")[1] for role in ("admin", "search")}
        services.authenticator.find_whether_key_is_needed()
        search = {"X-API-Key": keys["search"]}
        problem_of(client.post("/people", json={"name": "Eve"}, headers=search), 403, "forbidden")
        problem_of(client.get("/changes", headers=search), 403, "forbidden")
        assert client.get("/people", headers=search).json()["people"] == []
        assert ChangeLog(services.ledger.database).newest_number() == 0


def test_without_the_catalog_a_change_fails_and_searches_go_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = MemoryIndex()
    index.upsert(ADA)
    settings = settings.model_copy(update={"audit_days": 0})
    with TestClient(create_app(settings, FakeEngine(), index), raise_server_exceptions=False) as client:
        made = client.post("/people", json={"name": "Ada", "face_ids": ids_of(ADA[:2])}).json()["person"]

        def away(*_: object, **__: object) -> None:
            raise OceanoError("ledger_unavailable", "the catalog is away")

        services: Services = client.app.state.services  # type: ignore[attr-defined]
        for method in ("reading", "writing"):
            monkeypatch.setattr(type(services.ledger.database), method, away)
        problem_of(client.post("/people", json={"name": "Eve"}), 503, "ledger_unavailable")
        problem_of(client.get("/people"), 503, "ledger_unavailable")
        found = client.post(f"/faces/{FACE}/search")
        assert found.status_code == 200
        people = {match["face_id"]: match["person"] for match in found.json()["combined"]["matches"]}
        assert people[FACE] == {"id": made["id"], "name": None, "hidden": None}
        assert people[ids_of(ADA)[4]] is None


def test_without_the_index_nothing_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    index = MemoryIndex()
    index.upsert(ADA)
    with TestClient(create_app(settings, FakeEngine(), index), raise_server_exceptions=False) as client:

        def away(*_: object, **__: object) -> None:
            raise OceanoError("index_unavailable", "the index is away")

        monkeypatch.setattr(MemoryIndex, "retrieve", away)
        problem_of(client.post("/people", json={"face_ids": [FACE]}), 503, "index_unavailable")
        assert changes(client) == 0
