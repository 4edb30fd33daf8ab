"""Middleware that limits concurrent requests, the time of a request, and the size of its body."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.errors import OceanoError
from app.web.errors import TrackedSend, send_error, too_large

FORM_OVERHEAD: Final = 64_000  # bytes of a multipart body that are not files
_DRAIN_FACTOR: Final = 8  # of a body that is too large, up to this many times the limit is read and discarded


class ConcurrencyLimit:
    """Answers requests beyond a number of concurrent ones with 503 `overloaded`; `/health` is not counted.

    Args:
        app: the next application.
        max_requests: the most concurrent requests.
    """

    def __init__(self, app: ASGIApp, max_requests: int) -> None:
        self._app = app
        self._max_requests = max_requests
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/health":
            await self._app(scope, receive, send)
            return
        if self._running >= self._max_requests:
            error = OceanoError(
                "overloaded", f"{self._max_requests} requests are running already; try again soon", retry_after=1
            )
            await send_error(error, scope, receive, send)
            return
        self._running += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._running -= 1


class TimeLimit:
    """Answers a request that takes too long with 504 `timeout`.

    Args:
        app: the next application.
        seconds: the time limit.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        tracked = TrackedSend(send)
        try:
            async with asyncio.timeout(self._seconds) as limit:
                await self._app(scope, receive, tracked)
        except TimeoutError:
            if tracked.begun or not limit.expired():
                raise
            error = OceanoError(
                "timeout", f"the request took longer than {self._seconds:g} s", details={"seconds": self._seconds}
            )
            await send_error(error, scope, receive, send)


class BodyLimit:
    """Answers a body that is too large with 413 `image_too_large` while it is received, before it is stored or parsed.

    Up to `_DRAIN_FACTOR` times the limit of the body is read and discarded, because many clients read the response
    only after they have sent the body.

    Args:
        app: the next application.
        max_file_bytes: the largest size of one file.
        files_by_path: number of files for paths that accept more than one.
    """

    def __init__(self, app: ASGIApp, max_file_bytes: int, files_by_path: Mapping[str, int]) -> None:
        self._app = app
        self._max_file_bytes = max_file_bytes
        self._files_by_path = files_by_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._max_file_bytes * self._files_by_path.get(scope["path"], 1) + FORM_OVERHEAD
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                if message.get("more_body"):
                    await _drain(receive, limit * _DRAIN_FACTOR)
                raise too_large(self._max_file_bytes)
            return message

        headers = Headers(scope=scope)
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > limit:
            if headers.get("expect", "").lower() != "100-continue":  # this client waits for permission to send
                await _drain(receive, limit * _DRAIN_FACTOR)
            await send_error(too_large(self._max_file_bytes), scope, receive, send)
            return
        await self._app(scope, limited, send)


async def _drain(receive: Receive, max_bytes: int) -> None:
    read = 0
    while read < max_bytes:
        message = await receive()
        read += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return
