"""How exports begin and end: errors have their status, and a client that leaves keeps no photograph open."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest
from starlette.types import Message

from app.core.config import Settings
from app.main import create_app
from app.web.pages.export import _PartsResponse
from tests.support.clients import TestClient
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.pictures import RED, point

FACE = point(1, RED)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    index = MemoryIndex()
    index.upsert([FACE])
    settings = Settings(_env_file=None, data_dir=tmp_path_factory.mktemp("data"))
    with TestClient(create_app(settings, FakeEngine(), index)) as running:
        yield running


@pytest.mark.parametrize("kind", ["csv", "json", "paths", "zip", "previews", "pdf"])
def test_an_export_of_an_unknown_folder_is_refused_before_it_begins(client: TestClient, kind: str) -> None:
    response = client.get(f"/face/{FACE.face_id}/export", params={"format": kind, "folder": "/nowhere"})
    assert response.status_code == 400
    assert "Content-Disposition" not in response.headers


def test_a_client_that_leaves_closes_what_it_was_sent_from() -> None:
    closed = []

    def parts() -> Iterator[bytes]:
        try:
            while True:
                yield b"part"
        finally:
            closed.append(True)

    rest = parts()  # the test keeps a reference, as a cycle of objects does until it is collected
    response = _PartsResponse(next(rest), rest, media_type="application/zip", headers={})
    sent = []

    async def send(message: Message) -> None:
        sent.append(message)
        if len(sent) > 3:
            raise OSError("the client has left")

    async def receive() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}}
    with pytest.raises(Exception):  # noqa: B017 - Starlette's own error, which differs between its versions
        anyio.run(response, scope, receive, send)
    assert closed == [True]


@pytest.mark.parametrize("side", ["000000001" + "9" * 5000, "0000000019999999999", "10001"])
def test_a_number_with_many_digits_is_refused_as_a_side(client: TestClient, side: str) -> None:
    page = client.get(f"/face/{FACE.face_id}", params={"min_face": side})
    assert page.status_code == 200 and 'aria-invalid="true"' in page.text  # reported beside the field
    export = client.get(f"/face/{FACE.face_id}/export", params={"min_face": side, "format": "csv"})
    assert export.status_code == 400


def test_an_origin_that_is_no_address_is_of_another_site(client: TestClient) -> None:
    response = client.post("/kept", data={"name": "x"}, headers={"Origin": "http://["})
    assert response.status_code == 403
