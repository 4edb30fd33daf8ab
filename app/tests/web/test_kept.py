"""Kept searches over HTTP: kept on purpose, opened, deleted; not by other sites."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.core.config import Settings
from app.main import create_app
from app.security import LOCAL
from tests.support.clients import TestClient
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.html import elements, fields_of
from tests.support.pictures import GREEN, RED, encoded, point

FOLDER = "/photos/2019"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    index = MemoryIndex()
    folders = ("/", "/photos", FOLDER)
    index.upsert([point(number, RED, path=f"{FOLDER}/{number}.jpg", folder=folders) for number in range(1, 4)])
    index.upsert([point(9, RED), point(10, GREEN)])
    settings = Settings(_env_file=None, data_dir=tmp_path_factory.mktemp("data"))
    with TestClient(create_app(settings, FakeEngine(), index), follow_redirects=False) as client:
        yield client


@pytest.fixture
def client(running: TestClient) -> Iterator[TestClient]:
    running.cookies.clear()
    yield running
    kept = running.app.state.services.kept  # type: ignore[attr-defined]
    for one in kept.all(LOCAL):
        kept.delete(one.kept_id, LOCAL)


def form_of(html: str) -> dict[str, str]:
    return dict(fields_of(html, "keep"))


def keep(client: TestClient, html: str, name: str = "Ana at the lake", **fields: str) -> str:
    response = client.post("/kept", data=form_of(html) | {"name": name, "days": "30"} | fields)
    assert response.status_code == 303, response.text
    address: str = response.headers["location"]
    return address


def cards(html: str) -> int:
    return len(elements(html, "li", "data-face-id"))


def test_the_search_with_a_photograph_is_kept_with_its_filters_and_a_crop(client: TestClient) -> None:
    html = client.post("/?lang=en", files={"image": encoded(RED)}, data={"folder": FOLDER}).text
    assert "This stores the numbers that describe the face" in html
    address = keep(client, html)
    shown = client.get(address).text
    assert cards(shown) == 3
    assert "Ana at the lake" in shown
    assert "Kept on the server until" in shown
    assert any(one.attributes["src"].startswith("data:image/jpeg") for one in elements(shown, "img"))
    all_of_it = [one for one in elements(shown, of_class="chip") if one.attributes["aria-label"] == f"Remove: {FOLDER}"]
    assert cards(client.get(all_of_it[0].attributes["href"]).text) == 4


def test_the_search_from_an_indexed_face_is_kept(client: TestClient) -> None:
    address = keep(client, client.get(f"/face/{point(10, GREEN).face_id}").text)
    assert cards(client.get(address).text) == 1
    assert client.get(f"{address}/facets").status_code == 200


def test_a_kept_search_is_renamed_and_deleted_from_the_start_page(client: TestClient) -> None:
    keep(client, client.get(f"/face/{point(10, GREEN).face_id}").text)
    rename, delete = (
        one.attributes["action"]
        for one in elements(client.get("/").text, "form")
        if "/kept/" in one.attributes.get("action", "")
    )
    response = client.post(rename, data={"name": "Ana in winter"})
    assert (response.status_code, response.headers["location"]) == (303, "/")
    assert "Ana in winter" in client.get("/").text
    assert client.post(rename, data={"name": " "}).status_code == 400
    other = {"Sec-Fetch-Site": "cross-site"}
    assert client.post(rename, data={"name": "Eve"}, headers=other).status_code == 403
    assert client.post(delete).status_code == 303
    assert "Ana in winter" not in client.get("/").text


def test_a_search_that_could_not_be_opened_is_not_kept(client: TestClient) -> None:
    form = form_of(client.get(f"/face/{point(10, GREEN).face_id}").text)
    unknown = f"{point(7).face_id[:-1]}0"
    for filters, code in ((f"folder={FOLDER}x", "folder_unknown"), (f"not={unknown}", "face_unknown")):
        response = client.post("/kept", data=form | {"name": "Ana", "days": "30", "filters": filters})
        assert response.status_code in (400, 404)
        assert code in response.text
    assert "Kept searches" not in client.get("/").text


def test_the_name_of_a_kept_search_turns_no_text_around(client: TestClient) -> None:
    name = "Ana\N{RIGHT-TO-LEFT OVERRIDE}gpj"
    address = keep(client, client.get(f"/face/{point(10, GREEN).face_id}").text, name=name)
    for html in (client.get(address).text, client.get("/").text):
        assert "Ana\\u202egpj" in html
        assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in html


def test_the_start_page_lists_kept_searches(client: TestClient) -> None:
    assert "Kept searches" not in client.get("/").text
    address = keep(client, client.get(f"/face/{point(9, RED).face_id}").text, name="<i>Ana</i>")
    page = client.get("/")
    html = page.text
    assert page.headers["cache-control"] == client.get(address).headers["cache-control"] == "no-store"
    assert "&lt;i&gt;Ana&lt;/i&gt;" in html
    assert address in {one.attributes["href"] for one in elements(html, "a", "href")}


def test_a_kept_search_can_be_deleted(client: TestClient) -> None:
    address = keep(client, client.get(f"/face/{point(9, RED).face_id}").text)
    response = client.post(f"{address}/delete")
    assert (response.status_code, response.headers["location"]) == (303, "/")
    gone = client.get(address)
    assert gone.status_code == 404
    assert "its time is over, or it was deleted" in gone.text


def test_a_search_of_another_model_is_explained_and_not_searched(client: TestClient) -> None:
    kept = client.app.state.services.kept  # type: ignore[attr-defined]
    one = kept.keep("old", [point(9, RED).embedding], access=LOCAL, model_digest="0" * 64)
    response = client.get(f"/kept/{one.kept_id}")
    assert response.status_code == 409
    assert "another face model" in response.text


@pytest.mark.parametrize("fields", [{"name": " "}, {"days": "0"}, {"days": "366"}, {"days": "x"}, {"person": "x"}])
def test_a_wrong_field_keeps_nothing(client: TestClient, fields: dict[str, str]) -> None:
    form = form_of(client.get(f"/face/{point(9, RED).face_id}").text) | {"name": "one", "days": "1"} | fields
    assert client.post("/kept", data=form).status_code in (400, 404)
    assert client.app.state.services.kept.all(LOCAL) == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9999"},
    ],
)
def test_another_site_can_neither_keep_nor_delete(client: TestClient, headers: dict[str, str]) -> None:
    html = client.get(f"/face/{point(9, RED).face_id}").text
    address = keep(client, html)
    assert client.post("/kept", data=form_of(html) | {"name": "evil"}, headers=headers).status_code == 403
    assert client.post(f"{address}/delete", headers=headers).status_code == 403
    assert client.get(address).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin", "Origin": "null"},
        {"Origin": "http://localhost"},
        {"Origin": "https://photos.example", "X-Forwarded-Host": "photos.example"},
    ],
)
def test_its_own_pages_can(client: TestClient, headers: dict[str, str]) -> None:
    address = keep(client, client.get(f"/face/{point(9, RED).face_id}").text)
    assert client.post(f"{address}/delete", headers=headers).status_code == 303


def test_pages_with_such_forms_let_the_browser_name_its_origin(client: TestClient) -> None:
    assert client.get(f"/face/{point(9, RED).face_id}").headers["referrer-policy"] == "same-origin"
