"""`GET /thumbs/{face_id}` with thumbnails in an S3 store, and other requests while it is down."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from app.core.config import Settings
from app.images import S3Location, S3ThumbStore, s3_client
from app.main import create_app
from tests.support.clients import TestClient
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.library import Library, ingested_library
from tests.support.pictures import RED, encoded
from tests.support.running import free_port
from tests.support.s3_store import s3_location, s3_url

__all__ = ["s3_location", "s3_url"]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return ingested_library(tmp_path_factory.mktemp("library"))


def client(library: Library, location: S3Location) -> TestClient:
    return library.client(
        thumbs_url=location.url,
        thumbs_s3_endpoint=location.endpoint,
        thumbs_s3_access_key=location.access_key,
        thumbs_s3_secret_key=location.secret_key,
    )


def test_a_thumbnail_is_served_from_the_store_and_drawn_anew_if_it_is_lost(
    library: Library, s3_location: S3Location, tmp_path: Path
) -> None:
    store, face_id = S3ThumbStore(s3_location, tmp_path), library.face_of("/a.jpg")
    with client(library, s3_location) as page:
        drawn = page.get(f"/thumbs/{face_id}")
        assert drawn.status_code == 200
        assert store.read(face_id) == drawn.content, "it is stored"
        store.write(face_id, b"another")
        answer = page.get(f"/thumbs/{face_id}")
        assert (answer.content, answer.headers["content-type"]) == (b"another", "image/jpeg")
        assert answer.headers["cache-control"] == "private, max-age=86400"


@pytest.mark.parametrize("what", ["no server", "no bucket"])
def test_while_the_store_fails_a_thumbnail_is_an_error_and_a_search_is_answered(
    library: Library, s3_location: S3Location, what: str
) -> None:
    broken = (
        replace(s3_location, endpoint=f"http://127.0.0.1:{free_port()}")
        if what == "no server"
        else replace(s3_location, bucket="not-there")
    )
    with client(library, broken) as page:
        answer = page.get(f"/thumbs/{library.face_of('/a.jpg')}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "thumbs_unavailable")
        assert answer.headers["retry-after"] == "5"
        assert page.post("/search", files={"image": encoded(RED)}).json()["faces"]
        assert page.post("/results", files={"image": encoded(RED)}).status_code == 200
        kept = page.post("/kept", data={"person": library.face_of("/a.jpg"), "name": "Ana"}, follow_redirects=False)
        assert kept.status_code == 303, "without its picture"


def test_a_page_of_thumbnails_does_not_hold_up_other_requests_while_the_store_is_silent(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "_READ_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0), backlog=200) as silent:  # accepts connections, and never answers
        location = S3Location("bucket", "", f"http://127.0.0.1:{silent.getsockname()[1]}", "key", "secret")
        with client(library, location) as page, ThreadPoolExecutor(60) as browsers:
            face_id = library.face_of("/a.jpg")
            waiting = [browsers.submit(page.get, f"/thumbs/{face_id}") for _ in range(60)]
            time.sleep(0.3)
            answer = page.post("/search", files={"image": encoded(RED)})
            assert answer.status_code == 200
            assert not any(one.done() for one in waiting), "it did not wait for them"
            assert {one.result().status_code for one in waiting} == {503}


def test_a_wrong_store_does_not_stop_the_service_from_starting(settings: Settings, s3_location: S3Location) -> None:
    made = settings.model_copy(update={"thumbs_url": "s3://not-there", "thumbs_s3_endpoint": s3_location.endpoint})
    with TestClient(create_app(made, FakeEngine(), MemoryIndex())) as page:
        assert page.get("/health").status_code == 200
