"""Thumbnails on an S3 server: names of objects, many objects, and servers that fail."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app.core.errors import OceanoError
from app.images import S3Location, S3ThumbStore, s3_client, s3_thumbs
from tests.images.test_thumb_stores import FACE_ID, face_ids
from tests.support.running import free_port
from tests.support.s3_store import plain_client, s3_server

USES: list[tuple[str, Callable[[S3ThumbStore], object]]] = [
    ("read", lambda store: store.read(FACE_ID)),
    ("read", lambda store: store.read_many([FACE_ID])),
    ("written", lambda store: store.write(FACE_ID, b"jpeg")),
    ("listed", lambda store: list(store.face_ids())),
    ("listed", lambda store: store.missing(face_ids(9))),
    ("deleted", lambda store: store.delete([FACE_ID])),
]
each_use = pytest.mark.parametrize(("work", "use"), USES)


def error_of(use: Callable[[S3ThumbStore], object], store: S3ThumbStore) -> OceanoError:
    with pytest.raises(OceanoError) as caught:
        use(store)
    return caught.value


@contextmanager
def answering(status: int, body: str) -> Iterator[S3Location]:
    """A server with one answer for everything."""

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline()
            if self.raw_requestline and self.parse_request():
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body.encode())
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            yield S3Location("thumbs", "", f"http://127.0.0.1:{server.server_port}", "key", "secret")
        finally:
            server.shutdown()


def refusal(code: str) -> str:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message></Error>'


def test_boto3_is_imported_only_for_a_store_on_s3() -> None:
    """It takes half a second, of which `oceano --help` and a folder need nothing."""
    code = "import sys, app.cli, app.images, app.service; sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("prefix", ["", "a", "some/thumbs"])
def test_an_object_has_the_name_of_the_file_in_a_folder(s3_location: S3Location, tmp_path: Path, prefix: str) -> None:
    store = S3ThumbStore(replace(s3_location, prefix=prefix), tmp_path)
    store.write(FACE_ID, b"jpeg")
    (found,) = plain_client(s3_location.endpoint).list_objects_v2(Bucket=s3_location.bucket)["Contents"]
    assert found["Key"] == f"{prefix}/0f/{FACE_ID}.jpg".lstrip("/")
    head = plain_client(s3_location.endpoint).head_object(Bucket=s3_location.bucket, Key=found["Key"])
    assert head["ContentType"] == "image/jpeg"
    assert list(store.face_ids()) == [FACE_ID]


def test_other_objects_are_neither_listed_nor_deleted(s3_location: S3Location, tmp_path: Path) -> None:
    client = plain_client(s3_location.endpoint)
    others = [
        f"{s3_location.prefix}/previews/0f/{FACE_ID}.jpg", f"{s3_location.prefix}/1f/{FACE_ID}.jpg",
        f"{s3_location.prefix}/0f/{FACE_ID.upper()}.jpg", f"{s3_location.prefix}-2/0f/{FACE_ID}.jpg",
        f"0f/{FACE_ID}.jpg",
    ]  # fmt: skip
    for key in others:
        client.put_object(Bucket=s3_location.bucket, Key=key, Body=b"x")
    store = S3ThumbStore(s3_location, tmp_path)
    assert list(store.face_ids()) == []
    assert store.missing([FACE_ID]) == {FACE_ID}
    store.delete([FACE_ID])
    assert len(client.list_objects_v2(Bucket=s3_location.bucket)["Contents"]) == len(others)


def test_listings_of_several_pages_are_complete(
    s3_location: S3Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3ThumbStore(s3_location, tmp_path)
    ids = sorted(face_ids(25))
    for face_id in ids:
        store.write_soon(face_id, b"jpeg")
    store.flush()
    paginator = store._client.get_paginator
    monkeypatch.setattr(
        store._client,
        "get_paginator",
        lambda name: type("Small", (), {"paginate": lambda _, **some: paginator(name).paginate(**some, MaxKeys=4)})(),
    )
    assert list(store.face_ids()) == ids
    lost = set(face_ids(3, seed=5))
    assert store.missing(sorted([*ids, *lost])) == lost, "what the first page lacks is asked for"


def test_a_prefix_of_its_own_is_what_a_store_sees(s3_location: S3Location, tmp_path: Path) -> None:
    one, other = (S3ThumbStore(replace(s3_location, prefix=prefix), tmp_path) for prefix in ("one", "other"))
    one.write(FACE_ID, b"jpeg")
    assert other.read(FACE_ID) is None
    assert list(other.face_ids()) == []


@each_use
def test_a_missing_bucket_is_named(
    s3_location: S3Location, tmp_path: Path, work: str, use: Callable[[S3ThumbStore], object]
) -> None:
    error = error_of(use, S3ThumbStore(replace(s3_location, bucket="not-there"), tmp_path))
    assert error.code == "thumbs_unavailable"
    assert error.exit_code == 3
    assert error.message.startswith(f"thumbnails cannot be {work}, THUMBS_URL=s3://not-there/some/thumbs: ")
    assert "has no bucket 'not-there': create it" in error.message
    assert error.retry_after is None


@each_use
def test_a_server_that_does_not_run_is_named(tmp_path: Path, work: str, use: Callable[[S3ThumbStore], object]) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    error = error_of(use, S3ThumbStore(S3Location("thumbs", "", endpoint, "key", "secret"), tmp_path))
    assert error.code == "thumbs_unavailable"
    assert f"thumbnails cannot be {work}, THUMBS_URL=s3://thumbs: {endpoint} cannot be reached" in error.message
    assert "correct THUMBS_S3_ENDPOINT" in error.message
    assert error.retry_after == 5


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (403, refusal("AccessDenied"), "thumbs_unavailable", "denies access: the key needs the rights s3:ListBucket"),
        (403, refusal("InvalidAccessKeyId"), "thumbs_unavailable", "refuses the credentials .*THUMBS_S3_ACCESS_KEY"),
        (403, refusal("SignatureDoesNotMatch"), "thumbs_unavailable", "refuses the credentials .*THUMBS_S3_SECRET_KEY"),
        (507, refusal("XMinioStorageFull"), "disk_full", "is full"),
        (400, refusal("AuthorizationHeaderMalformed"), "thumbs_unavailable", "another region .*AWS_REGION"),
        (404, "<html><body>no such page</body></html>", "thumbs_unavailable", "does not respond as an S3 store"),
        (405, "", "thumbs_unavailable", "does not respond as an S3 store"),
        (503, refusal("SlowDown"), "thumbs_unavailable", "cannot be reached or fails"),
    ],
)
@pytest.mark.parametrize(("work", "use"), [USES[0], USES[2], USES[3], USES[5]])
def test_what_a_server_refuses_is_said_with_the_remedy(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    body: str,
    code: str,
    words: str,
    work: str,
    use: Callable[[S3ThumbStore], object],
) -> None:
    monkeypatch.setattr(s3_client, "_PATIENT_ATTEMPTS", 1)
    with answering(status, body) as location:
        error = error_of(use, S3ThumbStore(location, tmp_path))
    assert error.code == code
    assert f"thumbnails cannot be {work}, THUMBS_URL=s3://thumbs: " in error.message
    assert re.search(words, error.message), error.message


def test_a_server_that_is_no_s3_store_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    with answering(200, "<html>hello</html>") as location:
        for _, use in (USES[0], USES[2], USES[3], USES[4]):
            assert "does not respond as an S3 store" in error_of(use, S3ThumbStore(location, tmp_path)).message


def test_without_credentials_it_is_said_where_they_are_looked_for(
    s3_location: S3Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    keyless = replace(s3_location, access_key="", secret_key="")
    error = error_of(lambda store: store.read(FACE_ID), S3ThumbStore(keyless, tmp_path))
    assert "there are no credentials" in error.message
    assert "THUMBS_S3_ACCESS_KEY" in error.message
    assert "AWS_ACCESS_KEY_ID" in error.message
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert S3ThumbStore(keyless, tmp_path).read(FACE_ID) is None, "those of the environment are used"


def test_a_profile_that_does_not_exist_is_an_invalid_setting(
    s3_location: S3Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(OceanoError, match="nobody") as caught:
        S3ThumbStore(replace(s3_location, access_key="", secret_key=""), tmp_path)
    assert caught.value.code == "invalid_setting"


def test_reads_fail_at_once_for_a_while_after_the_server_did_not_respond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "_READ_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections, and never answers
        port = silent.getsockname()[1]
        store = S3ThumbStore(S3Location("thumbs", "", f"http://127.0.0.1:{port}", "key", "secret"), tmp_path)
        first = error_of(lambda one: one.read(FACE_ID), store)
        assert first.retry_after == 5
        asked: list[object] = []
        monkeypatch.setattr(store._reader, "get_object", lambda **arguments: asked.append(arguments))
        again = error_of(lambda one: one.read_many(face_ids(50)), store)
        assert again.message == first.message
        assert asked == []


def test_reads_go_on_once_the_server_is_back(
    s3_location: S3Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3ThumbStore(s3_location, tmp_path)
    store.write(FACE_ID, b"jpeg")
    with monkeypatch.context() as patch:
        patch.setattr(store, "_location", replace(s3_location, bucket="x"))
        store._unreachable = (time.monotonic() + 0.2, OceanoError("thumbs_unavailable", "gone"))
        assert error_of(lambda one: one.read(FACE_ID), store).message == "gone"
    time.sleep(0.25)
    assert store.read(FACE_ID) == b"jpeg"


def test_writes_of_an_ingest_outlast_a_restart_of_the_server(tmp_path: Path) -> None:
    port = free_port()
    location = S3Location("restarted", "", f"http://127.0.0.1:{port}", "key", "secret")
    store = S3ThumbStore(location, tmp_path)
    with s3_server(port):
        plain_client(location.endpoint).create_bucket(Bucket=location.bucket)
    for face_id in face_ids(5):
        store.write_soon(face_id, b"jpeg")
    time.sleep(0.5)
    with s3_server(port):
        store.flush()
        assert store.missing(face_ids(5)) == set()


def test_a_thumbnail_that_could_not_be_written_is_the_error_of_the_flush_or_of_the_next(
    s3_location: S3Location, tmp_path: Path
) -> None:
    store = S3ThumbStore(replace(s3_location, bucket="not-there"), tmp_path)
    store.write_soon(FACE_ID, b"jpeg")
    assert "has no bucket" in error_of(lambda one: one.flush(), store).message
    store.flush()
    store.write_soon(FACE_ID, b"jpeg")
    with pytest.raises(OceanoError, match="has no bucket"):
        for face_id in face_ids(1000):
            store.write_soon(face_id, b"jpeg")


def test_after_a_failure_those_that_wait_are_not_tried(
    s3_location: S3Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3ThumbStore(s3_location, tmp_path)
    ids = face_ids(200)
    tried: list[str] = []

    def put(key: str, _: bytes) -> None:
        tried.append(key)
        time.sleep(0.02)
        raise OceanoError("thumbs_unavailable", "gone")

    monkeypatch.setattr(store, "_put", put)
    with pytest.raises(OceanoError, match="gone"):
        for face_id in ids:
            store.write_soon(face_id, b"jpeg")
        store.flush()
    assert len(tried) < len(ids)
    assert not store._writes._unflushed


def test_no_more_than_some_thumbnails_wait_in_memory(
    s3_location: S3Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_thumbs, "MOST_WAITING", 8)
    store = S3ThumbStore(s3_location, tmp_path)
    released = threading.Event()
    monkeypatch.setattr(store, "_put", lambda *_: released.wait(10))
    written: list[str] = []

    def write() -> None:
        for face_id in face_ids(20):
            store.write_soon(face_id, b"jpeg")
            written.append(face_id)

    thread = threading.Thread(target=write)
    thread.start()
    time.sleep(0.2)
    assert len(written) == 8
    released.set()
    thread.join()
    store.flush()
    assert len(written) == 20
