"""A real S3 server in this process, on a free port of 127.0.0.1, and stores of thumbnails of both kinds."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from app.images import S3Location, S3ThumbStore, Thumbs, ThumbStore
from tests.support.running import free_port

ACCESS_KEY, SECRET_KEY = "an-access-key", "a-secret-key"
_numbers = itertools.count()


@contextmanager
def s3_server(port: int | None = None) -> Iterator[str]:
    """Run a server; its URL. Its objects stay in this process after it has ended."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port or free_port(), verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def plain_client(endpoint: str) -> Any:
    """A client that checks what the store under test did."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )


def new_location(endpoint: str, prefix: str = "some/thumbs") -> S3Location:
    """A prefix in a new, empty bucket."""
    bucket = f"bucket-{next(_numbers)}"
    plain_client(endpoint).create_bucket(Bucket=bucket)
    return S3Location(bucket, prefix, endpoint, ACCESS_KEY, SECRET_KEY)


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """The URL of a server."""
    with s3_server() as url:
        yield url


@pytest.fixture
def s3_location(s3_url: str) -> S3Location:
    return new_location(s3_url)


@pytest.fixture
def s3_settings(s3_location: S3Location, monkeypatch: pytest.MonkeyPatch) -> S3Location:
    """The settings of this process name an empty bucket."""
    monkeypatch.setenv("THUMBS_URL", s3_location.url)
    monkeypatch.setenv("THUMBS_S3_ENDPOINT", s3_location.endpoint)
    monkeypatch.setenv("THUMBS_S3_ACCESS_KEY", ACCESS_KEY)
    monkeypatch.setenv("THUMBS_S3_SECRET_KEY", SECRET_KEY)
    return s3_location


@pytest.fixture(params=["folder", "s3"])
def thumbs(request: pytest.FixtureRequest, tmp_path: Path) -> Thumbs:
    """An empty store of either kind."""
    if request.param == "folder":
        return ThumbStore(tmp_path / "thumbs")
    return S3ThumbStore(request.getfixturevalue("s3_location"), tmp_path / "thumbs" / "previews")
