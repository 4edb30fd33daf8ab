from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from app.core.config import Settings, load_settings
from app.core.errors import OceanoError
from app.main import create_app
from tests.support.clients import TestClient
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.pictures import encoded, point


def _client(settings: Settings, **changes: Any) -> TestClient:
    index = MemoryIndex()
    index.upsert([point(1)])
    return TestClient(create_app(settings.model_copy(update=changes), FakeEngine(), index))


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with _client(settings) as client:
        yield client


# host names


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9100", "127.0.0.1:9100", "[::1]:9100", "[::1]"])
def test_without_keys_names_of_this_machine_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/status", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9100", "localhost.evil.example", "127.0.0.1.com"])
def test_without_keys_other_names_are_refused(client: TestClient, host: str) -> None:
    for path in ("/", "/status", "/openapi.json", "/static/style.css"):
        answer = client.get(path, headers={"Host": host})
        assert (answer.status_code, answer.json()["error"]["code"]) == (421, "host_not_allowed")
    assert client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("changes", "host", "status"),
    [
        ({"allowed_hosts": ("photos.example.org",)}, "photos.example.org", 200),
        ({"allowed_hosts": ("photos.example.org",)}, "localhost", 200),
        ({"allowed_hosts": ("*",)}, "evil.example", 200),
        ({"uvicorn_host": "0.0.0.0"}, "nas.example", 200),
        ({"uvicorn_host": "0.0.0.0", "allowed_hosts": ("nas.example",)}, "nas.example:9100", 200),
        ({"uvicorn_host": "0.0.0.0", "allowed_hosts": ("nas.example",)}, "evil.example", 421),
        ({"api_keys": ("k" * 16,)}, "evil.example", 200),
        ({"uvicorn_host": "::1"}, "evil.example", 421),
        ({"uvicorn_host": "localhost"}, "evil.example", 421),
    ],
)
def test_allowed_hosts_decide_otherwise(settings: Settings, changes: dict[str, Any], host: str, status: int) -> None:
    with _client(settings, **changes) as client:
        assert client.get("/status", headers={"Host": host, "X-API-Key": "k" * 16}).status_code == status


@pytest.mark.parametrize("value", ["http://a.example", "a.example:80", "a b", "a/b"])
def test_a_host_that_is_no_name_is_an_invalid_setting(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ALLOWED_HOSTS", value)
    with pytest.raises(OceanoError, match="ALLOWED_HOSTS"):
        load_settings(None)


# no redirects


@pytest.mark.parametrize("path", ["/status/", "//", "/health/", "//evil.example/", "/static", "/faces/"])
def test_a_slash_too_many_is_404_and_no_redirect(client: TestClient, path: str) -> None:
    answer = client.get(f"http://localhost{path}", follow_redirects=False)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert "location" not in answer.headers


def test_head_answers_where_get_does(client: TestClient) -> None:
    for path in ("/", "/status", "/metrics", "/health", "/openapi.json", "/static/style.css"):
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (200, b""), path
        assert answer.headers["content-type"] == client.get(path).headers["content-type"]
    assert client.head("/search").status_code == 405
    assert client.head("/nowhere").status_code == 404
    assert 'method="HEAD",route="/status",status="200"' in client.get("/metrics").text


# behind a proxy under a sub-path


def test_every_address_carries_the_root_path(settings: Settings) -> None:
    with _client(settings, root_path="/oceano") as client:
        page = client.get("/oceano/?lang=es")
        assert "Path=/oceano" in page.headers["set-cookie"]
        body = client.post("/oceano/search", files={"image": encoded()}).json()
        thumb = body["faces"][0]["matches"][0]["thumb_url"]
        assert thumb.startswith("/oceano/thumbs/")
        html = page.text + client.post("/oceano/", files={"image": encoded()}).text
        for part in html.replace("'", '"').split('"')[1::2]:
            assert not part.startswith("/") or part.startswith(("/oceano/", "/photos/")), part  # paths of pictures
        assert 'src="/oceano/thumbs/' in html
        style = next(part for part in html.split('"') if "style.css" in part)
        for prefix in ("", "/oceano"):  # proxies that remove the path, and those that do not
            assert client.get(style.removeprefix("/oceano") if not prefix else style).status_code == 200
            assert client.get(f"{prefix}/status").status_code == 200
        assert client.get("/oceano").status_code == 200
        assert client.get("/oceanography").status_code == 404
        assert client.get("/openapi.json").json()["servers"] == [{"url": "/oceano"}]


@pytest.mark.parametrize(("value", "path"), [("/oceano/", "/oceano"), ("/a/b", "/a/b"), ("/", "")])
def test_a_root_path_is_taken_without_its_last_slash(monkeypatch: pytest.MonkeyPatch, value: str, path: str) -> None:
    monkeypatch.setenv("ROOT_PATH", value)
    assert load_settings(None).root_path == path


@pytest.mark.parametrize("value", ["oceano", "//evil.example", "/a b", "/a/../b", 'x"', "https://a.example/b"])
def test_a_root_path_that_is_no_path_is_an_invalid_setting(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ROOT_PATH", value)
    with pytest.raises(OceanoError, match="ROOT_PATH"):
        load_settings(None)
