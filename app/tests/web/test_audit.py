"""What requests write to the audit log, purposes, and the page of the log."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from app.catalog import AuditEntry, AuditFilter, FileRecord, NewEntry
from app.core.config import Settings
from app.core.errors import OceanoError
from app.main import create_app
from app.security import Audit, add_key, checked_grant
from tests.support.clients import TestClient
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.html import elements, fields_of
from tests.support.pictures import GREEN, RED, encoded, point

FACE = point(1, RED).face_id
IMAGE = point(1, RED).payload.image_id
KEY = "an-example-key-of-length"


def index_of() -> MemoryIndex:
    index = MemoryIndex()
    index.upsert([point(number, RED, path=f"/photos/{number}.jpg", folder=("/", "/photos")) for number in range(1, 4)])
    index.upsert([point(10, GREEN)])
    return index


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings, FakeEngine(), index_of()), follow_redirects=False) as client:
        yield client


@pytest.fixture
def strict(settings: Settings) -> Iterator[TestClient]:
    """A service that requires a purpose."""
    settings = settings.model_copy(update={"require_purpose": True})
    with TestClient(create_app(settings, FakeEngine(), index_of()), follow_redirects=False) as client:
        yield client


def audit_of(client: TestClient) -> Audit:
    audit: Audit = client.app.state.services.audit  # type: ignore[attr-defined]
    return audit


def entries(client: TestClient) -> list[AuditEntry]:
    return list(audit_of(client).log.all(AuditFilter()))


def only(client: TestClient) -> tuple[AuditEntry, dict[str, Any]]:
    (entry,) = entries(client)
    return entry, json.loads(entry.details)


# --- what is written


def test_a_search_is_written_with_the_hash_of_the_photograph_and_counts(client: TestClient) -> None:
    photograph = encoded(RED)
    response = client.post("/search", files={"image": photograph}, data={"folder": "/photos"})
    assert response.status_code == 200
    entry, details = only(client)
    assert (entry.who, entry.action, entry.address) == ("local", "search", "testclient")
    assert details == {
        "images": [hashlib.sha256(photograph).hexdigest()],
        "faces": 1,
        "matches": 3,
        "threshold": response.json()["threshold"],
        "folders": ["/photos"],
    }


def test_a_search_for_a_stored_face_has_its_id_and_the_hash_of_its_embedding(client: TestClient) -> None:
    assert client.post(f"/faces/{FACE}/search").status_code == 200
    entry, details = only(client)
    expected = hashlib.sha256(point(1, RED).embedding.astype("<f4").tobytes()).hexdigest()
    assert (entry.action, details["face_ids"], details["query"]) == ("search", [FACE], expected)
    assert (details["faces"], details["matches"]) == (1, 3)


REQUESTS: list[tuple[str, str, dict[str, Any], str, dict[str, object]]] = [
    ("POST", "/detect", {"files": {"image": encoded(RED)}}, "detect", {"faces": 1}),
    ("POST", "/compare", {"files": {"image_a": encoded(RED), "image_b": encoded(GREEN)}}, "compare", {"faces": 2}),
    (
        "POST", "/search/batch", {"json": {"queries": [{"face_id": FACE}, {"face_id": "no"}]}}, "search",
        {"queries": 2, "matches": 3},
    ),
    ("GET", f"/faces/{FACE}", {}, "face.view", {"face_id": FACE}),
    ("GET", f"/face/{FACE}", {}, "results", {"face_ids": [FACE], "matches": 3}),
    ("GET", f"/face/{FACE}/facets", {}, "results", {"total": 3}),
    ("POST", "/results", {"files": {"image": encoded(RED)}}, "results", {"matches": 3, "faces": 1}),
    ("GET", f"/images/{IMAGE}", {}, "photo.view", {"image_id": IMAGE, "faces": 1}),
    ("GET", f"/photo/{IMAGE}", {}, "photo.view", {"image_id": IMAGE, "faces": 1}),
    ("GET", f"/face/{FACE}/export?format=csv&id={FACE}", {}, "export", {"format": "csv", "selected": 1}),
    ("GET", f"/face/{FACE}/export?format=zip&estimate=1", {}, "export", {"format": "zip", "estimate": True}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "sent", "action", "expected"), REQUESTS, ids=[f"{one[0]} {one[1][:18]}" for one in REQUESTS]
)
def test_what_is_looked_at_is_one_entry(
    client: TestClient, method: str, path: str, sent: dict[str, Any], action: str, expected: dict[str, object]
) -> None:
    response = client.request(method, path, **sent)
    assert response.status_code == 200, response.text
    entry, details = only(client)
    assert entry.action == action
    assert details | expected == details


@pytest.mark.parametrize(("method", "path", "sent", "action", "expected"), REQUESTS)
def test_no_answer_without_a_purpose_where_one_is_required(
    strict: TestClient, method: str, path: str, sent: dict[str, Any], action: str, expected: dict[str, object]
) -> None:
    response = strict.request(method, path, **sent)
    assert response.status_code == 400
    assert "purpose_required" in response.text
    assert entries(strict) == []
    assert strict.request(method, path, **sent, headers={"X-Purpose": "a case"}).status_code == 200
    assert [(one.action, one.purpose) for one in entries(strict)] == [(action, "a case")]


@pytest.mark.parametrize(("method", "path", "sent", "action", "expected"), REQUESTS)
def test_no_answer_if_the_log_cannot_be_written(
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    sent: dict[str, Any],
    action: str,
    expected: dict[str, object],
) -> None:
    def fail(_: list[NewEntry]) -> None:
        raise OceanoError("ledger_unavailable", "the disk is gone")

    monkeypatch.setattr(audit_of(client).log, "append", fail)
    response = client.request(method, path, **sent)
    assert response.status_code == 503
    assert "ledger_unavailable" in response.text
    assert "/photos/" not in response.text


def test_the_next_page_of_a_search_is_written(client: TestClient) -> None:
    found = client.post("/search", files={"image": encoded(RED)}, data={"limit": "1"}).json()
    after = found["faces"][0]["next"]
    assert client.post("/search/more", data={"after": after}).status_code == 200
    last = entries(client)[-1]
    assert last.action == "search.more"
    assert json.loads(last.details)["query"] == hashlib.sha256(after.encode()).hexdigest()


def test_the_counts_that_a_page_loads_later_belong_to_its_entry(client: TestClient) -> None:
    client.get(f"/face/{FACE}")
    client.get(f"/face/{FACE}/facets")
    assert [one.action for one in entries(client)] == ["results"]
    client.get(f"/face/{FACE}/facets", headers={"X-Purpose": "another"})
    assert [one.purpose for one in entries(client)] == [None, "another"]


def test_a_download_is_written(settings: Settings, tmp_path: Path) -> None:
    index, path = MemoryIndex(), tmp_path / "1.png"
    path.write_bytes(encoded(RED))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    index.upsert([point(1, RED, path=str(path), image_id=digest)])
    with TestClient(create_app(settings, FakeEngine(), index)) as client:
        stat = path.stat()
        record = FileRecord(str(path), stat.st_size, stat.st_mtime_ns, digest, "done", 1, ctime_ns=stat.st_ctime_ns)
        client.app.state.services.ledger.record([record])  # type: ignore[attr-defined]
        response = client.get(f"/images/{digest}/file?download=true")
        assert response.status_code == 200, response.text
        _, details = only(client)
        assert details == {"image_id": digest, "download": True}
        small, large = (client.get(f"/images/{digest}/preview?width={width}") for width in (1, 100_000))
        assert (small.status_code, large.status_code) == (200, 200)
        assert [one.action for one in entries(client)] == ["original.view", "photo.view"]
        client.get(f"/images/{digest}/preview?width=100000", headers={"If-None-Match": "x"})
        assert len(entries(client)) == 2


def test_thumbnails_static_files_and_other_pages_are_not_written(client: TestClient) -> None:
    for path in ("/", f"/thumbs/{FACE}", "/static/style.css", "/status", "/health", "/metrics", "/help/similarity"):
        client.get(path)
    assert client.get("/faces/no").status_code == 404
    assert entries(client) == []


def test_kept_searches_are_written_without_their_names(client: TestClient) -> None:
    form = dict(fields_of(client.get(f"/face/{FACE}").text, "keep"))
    address = client.post("/kept", data=form | {"name": "Ana at the lake", "days": "30"}).headers["location"]
    client.get(address)
    client.get(f"{address}/facets")
    client.post(f"{address}/rename", data={"name": "Eva"})
    client.post(f"{address}/delete")
    found = entries(client)[1:]
    assert [one.action for one in found] == ["kept.add", "kept.view", "kept.rename", "kept.delete"]
    kept_id = address.rpartition("/")[2]
    assert {json.loads(one.details)["kept_id"] for one in found} == {kept_id}
    assert not any(name in one.details for one in found for name in ("Ana", "Eva"))


def test_no_entry_has_a_picture_an_embedding_or_a_key(settings: Settings) -> None:
    settings = settings.model_copy(update={"api_keys": (KEY,)})
    with TestClient(create_app(settings, FakeEngine(), index_of()), headers={"X-API-Key": KEY}) as client:
        html = client.post("/", files={"image": encoded(RED)}).text
        token = next(
            one.attributes["value"] for one in elements(html, "input") if one.attributes.get("name") == "query"
        )
        client.post("/search", files={"image": encoded(RED)})
        client.post("/export", data={"query": token, "format": "json"})
        client.post("/search", data={"embedding": json.dumps([0.5] * FakeEngine().pack.embedding_size)})
        found = entries(client)
        assert [one.action for one in found] == ["results", "search", "export", "search"]
        for one in found:
            assert len(one.details) < 600
            assert KEY not in str(one)
            assert token not in one.details
            assert one.who != "local"


def test_without_days_nothing_is_written_and_everything_is_answered(settings: Settings) -> None:
    settings = settings.model_copy(update={"audit_days": 0})
    with TestClient(create_app(settings, FakeEngine(), index_of())) as client:
        assert client.post("/search", files={"image": encoded(RED)}).status_code == 200
        assert entries(client) == []
        assert "AUDIT_DAYS is 0" in client.get("/audit?lang=en").text


# --- purposes


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("caso 7/ñ".encode(), "caso 7/ñ"), (b"caso \xf1", "caso ñ"), (b"  a   b ", "a b"), (b" ", None)],
)
def test_the_purpose_in_the_header_is_written(client: TestClient, sent: bytes, kept: str | None) -> None:
    client.get(f"/faces/{FACE}", headers={b"X-Purpose": sent})  # type: ignore[dict-item]
    assert only(client)[0].purpose == kept


def test_a_purpose_that_is_too_long_is_refused(client: TestClient) -> None:
    assert client.get(f"/faces/{FACE}", headers={"X-Purpose": "p" * 500}).status_code == 200
    response = client.get(f"/faces/{FACE}", headers={"X-Purpose": "p" * 501})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_request")
    assert client.get(f"/face/{FACE}", headers={"X-Purpose": "p" * 501}).status_code == 400


@pytest.mark.parametrize("language", ["en", "es"])
def test_a_page_asks_for_the_purpose_and_goes_on(strict: TestClient, language: str) -> None:
    address = f"/face/{FACE}?lang={language}&size=s"
    response = strict.get(address)
    assert response.status_code == 400
    (form,) = elements(response.text, "form", of_class="purpose")
    assert form.attributes["action"] == "/purpose"
    assert form.attributes["method"] == "post"
    fields = {one.attributes["name"]: one.attributes for one in elements(response.text, "input", "name")}
    assert fields["next"]["value"] == address
    assert "required" in fields["purpose"]
    kept = strict.post("/purpose", data={"next": address, "purpose": " caso 7/ñ; "})
    assert (kept.status_code, kept.headers["location"]) == (303, address)
    cookie = kept.headers["set-cookie"]
    assert cookie.startswith(f"oceano_purpose={quote('caso 7/ñ;', safe='')}")
    assert ("HttpOnly" in cookie, "SameSite=strict" in cookie, "Max-Age" in cookie) == (True, True, False)
    assert strict.get(address).status_code == 200
    assert only(strict)[0].purpose == "caso 7/ñ;"
    start = strict.get("/").text
    assert "caso 7/ñ;" in [one.attributes.get("value") for one in elements(start, "input")]


def test_the_purpose_can_be_forgotten(client: TestClient) -> None:
    assert "/purpose" not in client.get("/").text
    client.post("/purpose", data={"purpose": "a case"})
    assert "/purpose" in client.get("/").text
    response = client.post("/purpose", data={"purpose": ""})
    assert response.headers["location"] == "/"
    assert "/purpose" not in client.get("/").text


@pytest.mark.parametrize("address", ["https://example.org/", "//example.org", "/\\example.org", "javascript:x", ""])
def test_the_form_of_the_purpose_leads_to_no_other_site(client: TestClient, address: str) -> None:
    assert client.post("/purpose", data={"purpose": "x", "next": address}).headers["location"] == "/"


def test_a_script_gets_the_form_of_the_purpose_for_the_page_that_it_is_on(strict: TestClient) -> None:
    page = "http://localhost/search/abcdefgh?size=s"
    headers = {"X-Requested-With": "fetch", "Referer": page}
    response = strict.post("/results", files={"image": encoded(RED)}, headers=headers)
    assert response.status_code == 400
    fields = {one.attributes["name"]: one.attributes for one in elements(response.text, "input", "name")}
    assert fields["next"]["value"] == "/search/abcdefgh?size=s"
    response = strict.post("/results", files={"image": encoded(RED)}, headers={"Referer": "http://example.org/x"})
    fields = {one.attributes["name"]: one.attributes for one in elements(response.text, "input", "name")}
    assert fields["next"]["value"] == ""


def test_another_site_cannot_set_the_purpose(client: TestClient) -> None:
    response = client.post("/purpose", data={"purpose": "x"}, headers={"Sec-Fetch-Site": "cross-site"})
    assert response.status_code == 403


# --- the page


def rows_of(html: str) -> list[str]:
    body = html.partition("<tbody>")[2].partition("</tbody>")[0]
    return [code.text for code in elements(body, "code")]


@pytest.mark.parametrize(("language", "title"), [("en", "Audit log"), ("es", "Registro de auditoría")])
def test_the_page_shows_entries_newest_first(client: TestClient, language: str, title: str) -> None:
    client.get(f"/faces/{FACE}", headers={"X-Purpose": "<b>caso</b>"})
    client.post("/detect", files={"image": encoded(RED)})
    response = client.get(f"/audit?lang={language}")
    assert response.status_code == 200
    assert title in response.text
    assert rows_of(response.text) == ["detect", "face.view"]
    assert "&lt;b&gt;caso&lt;/b&gt;" in response.text
    assert response.headers["cache-control"] == "no-store"
    assert [one.action for one in entries(client)][-1] == "audit.view"


def test_the_page_filters_and_goes_back_in_time(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.web.pages.audit.ENTRIES", 2)
    for _ in range(3):
        client.get(f"/faces/{FACE}")
    client.post("/detect", files={"image": encoded(RED)})
    assert rows_of(client.get("/audit?action=face*&who=local").text) == ["face.view"] * 2
    html = client.get("/audit?action=face.view&since=2020&until=2999").text
    (older,) = [one.attributes["href"] for one in elements(html, "a") if "before=" in one.attributes.get("href", "")]
    page = client.get(older).text
    assert rows_of(page) == ["face.view"]
    assert "before=" not in "".join(one.attributes.get("href", "") for one in elements(page, "a", of_class="button"))
    assert "There are no entries" in client.get("/audit?who=nobody&lang=en").text


def test_a_wrong_time_is_explained_on_the_page(client: TestClient) -> None:
    response = client.get("/audit?since=yesterday&lang=en")
    assert response.status_code == 400
    assert "Since must be a year, month, day or time" in response.text
    assert [one.attributes.get("value") for one in elements(response.text, "input", "name")][2] == "yesterday"


def test_entries_whose_details_are_damaged_are_shown(client: TestClient) -> None:
    audit_of(client).log.append(
        [NewEntry("2026", "x", None, "search", None, "{damaged"), NewEntry("", "", "", "", "", "[1]")]
    )
    html = client.get("/audit").text
    assert "{damaged" in html
    assert "[1]" in html


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_the_log_is_exported_and_that_is_an_entry(client: TestClient, kind: str) -> None:
    client.get(f"/faces/{FACE}")
    client.post("/detect", files={"image": encoded(RED)})
    response = client.get(f"/audit/export?format={kind}&action=face*")
    assert response.status_code == 200
    assert f'.{kind}"' in response.headers["content-disposition"]
    lines = response.text.splitlines()
    assert len(lines) == (2 if kind == "csv" else 1)
    last = entries(client)[-1]
    assert (last.action, json.loads(last.details)) == ("audit.export", {"action": "face*", "format": kind})
    assert client.get("/audit/export?format=xml").status_code == 400


def test_only_admins_see_the_log(settings: Settings) -> None:
    settings = settings.model_copy(update={"api_keys": (KEY,)})
    with TestClient(create_app(settings, FakeEngine(), index_of()), follow_redirects=False) as client:
        keys = client.app.state.services.keys  # type: ignore[attr-defined]
        made = {
            role: add_key(keys, checked_grant(role, role, [], None), "tests")[1]
            for role in ("admin", "search", "curate", "ingest")
        }
        for path in ("/audit", "/audit/export"):
            assert client.get(path).status_code == 401
            for role, key in made.items():
                status = client.get(path, headers={"X-API-Key": key}).status_code
                assert status == (200 if role == "admin" else 403), role
        client.get(f"/faces/{FACE}", headers={"X-API-Key": made["search"]})
        assert entries(client)[-1].who == "key search"


def test_an_entry_is_durable_before_the_response_is_sent(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    submit, answered = audit_of(client).submit, list[bool]()

    def watched(entry: NewEntry) -> Future[int]:
        future = submit(entry)
        future.add_done_callback(lambda _: answered.append(True))
        return future

    monkeypatch.setattr(audit_of(client), "submit", watched)
    client.get(f"/faces/{FACE}")
    assert answered == [True]
    assert len(entries(client)) == 1
