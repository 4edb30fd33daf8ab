"""Requests with an upload, through the whole application with a fake engine.

The first byte of an input chooses the route. Up to the first line feed follows the header Content-Type, up to the
second the query string, then the body. The last route gets the body as a cursor, to which a checksum is added.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from starlette.types import Message

from app.core.config import Settings
from app.core.types import FaceFilter, Picture
from app.images import DecoderPool, decode
from app.images.jpeg import is_plain_jpeg
from app.main import create_app
from app.service.cursor import Cursor, Position, encode_cursor
from app.service.query import Query
from tests.fuzz.fields import body_of, cursor_of
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex, embedding_of
from tests.support.pictures import encoded, point

_ROUTES: Final = ("/search", "/compare", "/detect", "/search/more", "/", "/search/more")
_URL_ENCODED: Final = b"application/x-www-form-urlencoded"
_CHUNK: Final = 200  # bytes, so that a boundary spans two


def _decode_here(
    self: DecoderPool, data: bytes, *, name: str = "", admission: object = None, **options: Any
) -> Picture:
    """Start no process for an image."""
    is_plain_jpeg(data)
    return decode(data, **options)


class _Failures(logging.Handler):
    """Keeps the exceptions that the service logs with an answer `internal`."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the exception of a record."""
        if record.exc_info:
            _failures.append(record.exc_info[1])


_failures: Final[list[BaseException | None]] = []


class _Service:
    """The application, started, in an event loop of its own."""

    def __init__(self) -> None:
        DecoderPool.decode = _decode_here  # type: ignore[method-assign]
        logging.basicConfig(handlers=[_Failures()], level=logging.ERROR)
        folder = tempfile.mkdtemp(prefix="oceano-fuzz-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        index = MemoryIndex()
        index.upsert([point(number) for number in range(3)])
        settings = Settings(_env_file=None, data_dir=Path(folder), max_image_megapixels=0.3, max_upload_mb=0.1)
        self.app = create_app(settings, FakeEngine(), index)
        self.loop = asyncio.new_event_loop()
        self._lifespan = self.app.router.lifespan_context(self.app)
        self.loop.run_until_complete(self._lifespan.__aenter__())

    def post(self, path: str, content_type: bytes, query: bytes, body: bytes) -> tuple[int, bytes]:
        """Send a request; return status and body. An exception of the application is raised."""
        chunks = [body[start : start + _CHUNK] for start in range(0, len(body), _CHUNK)] or [b""]
        waiting: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
        waiting[-1]["more_body"] = False
        sent: list[Message] = []

        async def receive() -> Message:
            if waiting:
                return waiting.pop(0)
            return await asyncio.Future()  # the client stays connected

        async def send(message: Message) -> None:
            sent.append(message)

        headers = [(b"host", b"localhost"), (b"content-type", content_type)]
        headers.append((b"content-length", str(len(body)).encode()))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query,
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        self.loop.run_until_complete(self.app(scope, receive, send))
        content = b"".join(message.get("body", b"") for message in sent[1:])
        return sent[0]["status"], content


_SERVICE: Final = _Service()


def fuzz_one(data: bytes) -> None:
    """Send one request. No input may cause a 5xx, and every JSON body must be valid."""
    head, _, rest = data.partition(b"\n")
    query, _, body = rest.partition(b"\n")
    route = head[0] % len(_ROUTES) if head else 0
    path, content_type = _ROUTES[route], head[1:]
    if route == len(_ROUTES) - 1:
        content_type, body = _URL_ENCODED, b"after=" + cursor_of(body, FAKE_PACK.digest).encode()
    status, content = _SERVICE.post(path, content_type, query, body)
    if _failures:
        raise AssertionError(f"{status} {content!r}") from _failures.pop()
    assert status < 500, (status, content)
    if path != "/":
        json.loads(content.decode("utf-8"))


def _part(name: str, value: bytes, file: bool = False) -> bytes:
    extra = b'; filename="a.png"\r\nContent-Type: image/png' if file else b""
    return (
        b'--B\r\nContent-Disposition: form-data; name="' + name.encode() + b'"' + extra + b"\r\n\r\n" + value + b"\r\n"
    )


def _request(route: int, *parts: bytes, query: bytes = b"", charset: bytes = b"") -> bytes:
    kind = bytes([route]) + b"multipart/form-data; boundary=B" + charset
    return b"\n".join((kind, query, b"".join(parts) + b"--B--\r\n"))


def _seeds() -> list[bytes]:
    image = _part("image", encoded(size=(8, 6)), file=True)
    pair = [_part(name, encoded(size=(8, 6)), file=True) for name in ("image_a", "image_b")]
    filters = [
        _part(name, value.encode())
        for name, value in {
            "limit": "5",
            "threshold": "0.5",
            "folder": "/photos",
            "person": "Ada",
            "taken_from": "2021-06",
            "without": "blurred",
            "group_by": "image_id",
        }.items()
    ]
    where = FaceFilter(folder=("/", "/photos"), min_quality=0.5, without=("blurred",))
    query = Query(embedding_of(1), -1.0, where, group_by="image_id")
    cursor = Cursor(query, Position(1, (0.9, "0" * 32), (), 7))
    return [
        _request(0, image),
        _request(0, image, *filters, query=b"max_faces=3&taken_to=2022"),
        _request(0, image, _part("person", b"\xe9"), charset=b"; charset=utf-8"),
        _request(0, image, _part("person", b"a"), charset=b"; charset=undefined"),
        _request(1, *pair, _part("all_pairs", b"true")),
        _request(2, image),
        _request(3, _part("after", b"AAAA")),
        b"\x05\n\n" + body_of(encode_cursor(cursor, FAKE_PACK.digest)),
        b"\x03" + _URL_ENCODED + b"\nlimit=5\nafter=AAAA%20",
        _request(4, image, _part("lang", b"es"), *filters[:2]),
        b"\x00multipart/form-data\n\n",
    ]


SEEDS: Final = _seeds()
