from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from app.core import logs
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
            # paths of pictures, and crops as base64
            assert not part.startswith("/") or part.startswith(("/oceano/", "/photos/", "/9j/")), part
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


def _page(settings: Settings, headers: list[tuple[str, str]], peer: str = "127.0.0.1", **changes: Any) -> str:
    app = create_app(settings.model_copy(update=changes), FakeEngine(), MemoryIndex())
    with TestClient(app, client=(peer, 50000)) as client:
        return client.get("/", headers=headers).text


@pytest.mark.parametrize(("sent", "root"), [("/oceano", "/oceano"), ("/a/b.c_d~e-f/", "/a/b.c_d~e-f"), (" /a ", "/a")])
def test_the_prefix_of_a_trusted_proxy_is_the_root_path(settings: Settings, sent: str, root: str) -> None:
    assert f'href="{root}/static/style.css' in _page(settings, [("X-Forwarded-Prefix", sent)])


@pytest.mark.parametrize(
    "sent",
    [
        "", "/", "oceano", "//evil.example", "/a//b", "https://evil.example", "/a b", "/a\tb", '/a"b', "/a'b", "/<b>",
        "/a/../b", "/..", "/a, /b", "/%2e%2e", "/a?b", "/a#b", "/a\\b", "/\xe9", "/a;b", "/a:b@c", "javascript:1",
    ],
)  # fmt: skip
def test_a_malformed_prefix_is_ignored(settings: Settings, sent: str) -> None:
    page = _page(settings, [("X-Forwarded-Prefix", sent.encode("latin-1"))])  # type: ignore[list-item]
    assert 'href="/static/style.css' in page
    assert "evil" not in page


def test_a_repeated_prefix_is_ignored(settings: Settings) -> None:
    assert 'href="/static/style.css' in _page(settings, [("X-Forwarded-Prefix", "/a"), ("X-Forwarded-Prefix", "/b")])


@pytest.mark.parametrize(
    ("peer", "proxies", "counts"),
    [
        ("127.0.0.1", ("127.0.0.1", "::1"), True),
        ("::1", ("127.0.0.1", "::1"), True),
        ("10.0.0.5", ("127.0.0.1", "::1"), False),
        ("10.0.0.5", ("10.0.0.0/8",), True),
        ("11.0.0.5", ("10.0.0.0/8",), False),
        ("11.0.0.5", ("*",), True),
        ("a.sock", ("127.0.0.1",), False),
        ("127.0.0.1", (), False),
    ],
)
def test_only_proxies_that_are_allowed_count(
    settings: Settings, peer: str, proxies: tuple[str, ...], counts: bool
) -> None:
    headers = [("X-Forwarded-Prefix", "/oceano"), ("X-Forwarded-For", "10.9.9.9")]  # the client's own address
    root = "/oceano" if counts else ""
    assert f'href="{root}/static/style.css' in _page(settings, headers, peer, trusted_proxies=proxies)


def test_root_path_overrides_the_header(settings: Settings) -> None:
    assert 'href="/a/static/style.css' in _page(settings, [("X-Forwarded-Prefix", "/b")], root_path="/a")


def test_an_allowed_proxy_names_the_client_and_the_scheme(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    headers = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
    app = create_app(settings, FakeEngine(), MemoryIndex())
    for peer, client_address, is_secure in (("127.0.0.1", "192.0.2.7", True), ("192.0.2.9", "192.0.2.9", False)):
        caplog.clear()
        with TestClient(app, client=(peer, 50000)) as client, caplog.at_level(logging.INFO, logger=logs.ACCESS):
            cookie = client.get("/?lang=es", headers=headers).headers["set-cookie"]
        assert ("Secure" in cookie) == is_secure
        assert f"{client_address} GET '/'" in caplog.text


@pytest.mark.parametrize("value", ["proxy.example", "10.0.0.1/8", "10.0.0.256"])
def test_a_proxy_that_is_no_address_is_an_invalid_setting(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("TRUSTED_PROXIES", value)
    with pytest.raises(OceanoError, match="TRUSTED_PROXIES"):
        load_settings(None)
