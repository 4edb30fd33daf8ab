from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request

from app.core.config import Settings
from app.main import create_app
from app.web.auth import _sent_key
from tests.support.clients import TestClient
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.packs import put
from tests.support.pictures import encoded
from tests.support.running import environment, oceano

KEY = "an-example-key-of-length"
OTHER = "contraseña-con-eñe-y-日本"
CLOSED = [
    ("GET", "/"), ("POST", "/"), ("POST", "/search"), ("POST", "/detect"), ("POST", "/compare"),
    ("GET", "/faces/0f9e6f8a-0a9f-5f0c-9d0e-7a0f3a3b1c2d"), ("GET", "/thumbs/0f9e6f8a-0a9f-5f0c-9d0e-7a0f3a3b1c2d"),
    ("GET", "/status"), ("GET", "/metrics"), ("GET", "/openapi.json"),
]  # fmt: skip
OPEN = [("GET", "/health"), ("HEAD", "/health"), ("GET", "/static/style.css")]


def _basic(password: str | bytes, user: str = "anyone") -> dict[str, str]:
    password = password.encode() if isinstance(password, str) else password
    return {"Authorization": "Basic " + base64.b64encode(user.encode() + b":" + password).decode()}


def _closed(settings: Settings, *keys: str) -> TestClient:
    settings = settings.model_copy(update={"api_keys": keys})
    return TestClient(create_app(settings, engine=FakeEngine(), index=MemoryIndex()))


@pytest.fixture
def closed(settings: Settings) -> Iterator[TestClient]:
    with _closed(settings, KEY, OTHER) as client:
        yield client


def test_without_keys_everything_is_open(settings: Settings) -> None:
    with TestClient(create_app(settings, engine=FakeEngine(), index=MemoryIndex())) as client:
        for method, path in [*CLOSED, *OPEN]:
            assert client.request(method, path).status_code != 401
        assert client.get("/status", headers={"X-API-Key": "anything"}).status_code == 200


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_with_keys_nothing_is_answered_without_one(closed: TestClient, method: str, path: str) -> None:
    answer = closed.request(method, path, headers={"X-Request-ID": "mine"})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="Oceano"'
    assert answer.headers["x-request-id"] == "mine"
    assert answer.json() == {
        "error": {
            "code": "unauthorized",
            "message": "an API key is needed, as X-API-Key or bearer token; in a browser, sign in at /sign-in",
            "details": {},
        },
        "request_id": "mine",
    }


@pytest.mark.parametrize(("method", "path"), OPEN)
def test_health_and_static_files_ask_for_no_key(closed: TestClient, method: str, path: str) -> None:
    assert closed.request(method, path).status_code == 200


@pytest.mark.parametrize("key", [KEY, OTHER])
@pytest.mark.parametrize(
    "headers",
    [
        lambda key: {"X-API-Key": key.encode()},
        lambda key: {"x-api-key": key.encode()},
        lambda key: {"Authorization": b"Bearer " + key.encode()},
        lambda key: {"Authorization": b"bearer  " + key.encode()},
        _basic,
        lambda key: _basic(key, user=""),
        lambda key: {"Authorization": _basic(key)["Authorization"].replace("Basic", "BASIC")},
    ],
)
def test_a_key_is_taken_in_every_way_it_can_come(closed: TestClient, key: str, headers: Any) -> None:
    assert closed.get("/status", headers=headers(key)).status_code == 200


def test_a_key_opens_every_route(closed: TestClient) -> None:
    assert closed.get("/status", headers={"X-API-Key": KEY}).status_code == 200
    assert closed.get("/", headers=_basic(KEY)).status_code == 200
    assert closed.post("/search", files={"image": encoded()}, headers={"Authorization": f"Bearer {KEY}"}).is_success


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": KEY + "x"},
        {"X-API-Key": KEY.upper()},
        {"X-API-Key": f"{KEY},{OTHER}".encode()},
        {"X-API-Key": b"\xff\xfe\xe9"},
        {"Authorization": KEY},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Token {KEY}"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Basic "},
        {"Authorization": "Basic ===="},
        {"Authorization": b"Basic \xe9\xe9\xe9\xe9"},
        {"Authorization": "Basic " + base64.b64encode(KEY.encode()).decode()},  # a user without a password
        {"Authorization": "Basic " + base64.b64encode(b"\xff\xff\xff").decode()},
        _basic(b""),
        _basic(b"\xff\xfe"),
        _basic("wrong", user=KEY),
        {"Cookie": f"api_key={KEY}"},
    ],
)
def test_anything_else_is_refused(closed: TestClient, headers: dict[str, Any]) -> None:
    answer = closed.get("/status", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
    assert KEY not in answer.text


def test_a_password_may_contain_a_colon(settings: Settings) -> None:
    with _closed(settings, key := "part-one:part-two:part-three") as client:
        assert client.get("/status", headers=_basic(key)).status_code == 200


def test_a_key_need_not_be_utf_8() -> None:
    raw = b"a-key-with-\xff\xfe-in-it"  # as os.environ has it: with surrogates
    assert _sent_key(Request({"type": "http", "headers": [(b"x-api-key", raw)]})) == os.fsdecode(raw)


def test_a_key_in_the_query_string_is_no_key(closed: TestClient) -> None:
    assert closed.get(f"/status?api_key={KEY}&x-api-key={KEY}").status_code == 401


def test_no_answer_repeats_the_key_that_was_given(closed: TestClient) -> None:
    answer = closed.get("/status", headers={"X-API-Key": "guess-guess-guess"})
    assert "guess" not in answer.text + str(answer.headers)


def test_without_a_key_no_upload_is_read(closed: TestClient) -> None:
    answer = closed.post("/search", files={"image": b"no picture"})
    assert answer.status_code == 401


def test_onnx_runtime_reports_nothing_to_its_maker(tmp_path: Path) -> None:
    """Told otherwise, or told too late, it keeps a number of this machine and what it is going to send in ~/.cache."""
    put(tmp_path / "models" / "small")
    env = environment(tmp_path, MODEL_NAME="small", HOME=tmp_path / "home")
    (tmp_path / "home").mkdir()
    done = oceano("device", env=env)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "home").rglob("*")) == []
