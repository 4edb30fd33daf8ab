"""Oceano under a path of a real nginx, with the example of INSTALL.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.core.config import Settings
from app.main import create_app
from tests.support.fake_server import serving
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.pictures import encoded, point
from tests.support.sub_path import proxied


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    index = MemoryIndex()
    index.upsert([point(1)])
    settings = Settings(_env_file=None, data_dir=tmp_path / "data")
    with (
        serving(create_app(settings, FakeEngine(), index), with_lifespan=True) as port,
        proxied(tmp_path, port) as client,
    ):
        yield client


def test_every_address_is_below_the_path_that_nginx_removes_or_forwards(client: httpx.Client) -> None:
    for root in ("/oceano", "/whole"):
        page = client.get(f"{root}/?lang=es")
        assert f"Path={root};" in page.headers["set-cookie"]
        searched = client.post(f"{root}/?lang=es", files={"image": encoded()})
        assert (page.status_code, searched.status_code) == (200, 200)
        assert f'src="{root}/thumbs/' in searched.text
        linked = {part for part in page.text.split('"')[1::2] if part.startswith("/")}
        assert {path for path in linked if not path.startswith(f"{root}/")} == set()
        for path in re.findall(r'(?:href|src)="(/[^"]*)"', page.text):
            # start.js adds the key of a search to the latter
            assert client.get(path).status_code == 200 or path == f"{root}/search/", path
        body = client.post(f"{root}/search", files={"image": encoded()}).json()
        match = body["faces"][0]["matches"][0]
        face = client.get(f"{root}/faces/{match['face_id']}").json()
        assert match["thumb_url"] == face["thumb_url"] == f"{root}/thumbs/{match['face_id']}"
        assert client.get(f"{root}/openapi.json").json()["servers"] == [{"url": root}]
        for path in ("/health", "/status", "/metrics"):
            assert client.get(f"{root}{path}").status_code == 200
        assert client.get(f"{root}/nowhere").json()["error"]["code"] == "not_found"
        redirect = client.get(root)
        assert (redirect.status_code, httpx.URL(redirect.headers["location"]).path) == (301, f"{root}/")


def test_a_large_upload_passes_nginx(client: httpx.Client) -> None:
    large = encoded() + bytes(14_000_000)
    assert client.post("/oceano/compare", files={"image_a": large, "image_b": large}).status_code == 200
