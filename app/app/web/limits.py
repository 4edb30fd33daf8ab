"""Middleware that limits requests: how many at once, how long, how large."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.errors import OceanoError
from app.web.errors import TrackedSend, send_error, too_large

FORM_OVERHEAD: Final = 64_000  # bytes of a multipart body beside its files
UNTIL_ANSWERED: Final = "oceano.until_answered"  # in a scope: an AsyncExitStack that is left with the request
_DRAIN_FACTOR: Final = 8  # of a body that is too large, this many times the limit is still read and thrown away


class ConcurrencyLimit:
    """More requests at once than that are answered 503 `overloaded`; `/health` always gets through."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._now = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/health":
            await self._app(scope, receive, send)
            return
        if self._now >= self._most:
            error = OceanoError(
                "overloaded", f"{self._most} requests are being answered already; try again soon", retry_after=1
            )
            await send_error(error, scope, receive, send)
            return
        self._now += 1
        try:
            async with contextlib.AsyncExitStack() as until_answered:
                scope[UNTIL_ANSWERED] = until_answered
                await self._app(scope, receive, send)
        finally:
            self._now -= 1


class TimeLimit:
    """A request that takes longer is answered 504 `timeout`."""

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
                "timeout", f"the answer took longer than {self._seconds:g} s", details={"seconds": self._seconds}
            )
            await send_error(error, scope, receive, send)


class BodyLimit:
    """A body that is too large ends while it streams in, in 413 `image_too_large`, before it is stored or parsed.

    The rest of it is read and thrown away, within reason: a client that is still sending would miss the answer.
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
            if headers.get("expect", "").lower() != "100-continue":  # such a client has not begun, and need not
                await _drain(receive, limit * _DRAIN_FACTOR)
            await send_error(too_large(self._max_file_bytes), scope, receive, send)
            return
        await self._app(scope, limited, send)


async def _drain(receive: Receive, most: int) -> None:
    read = 0
    while read < most:
        message = await receive()
        read += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return
