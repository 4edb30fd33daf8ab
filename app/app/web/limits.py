"""Middleware that limits concurrent requests, the time of a request, and its body."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from functools import partial
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.errors import OceanoError
from app.web import bodies
from app.web.errors import TrackedSend, send_error, too_large

FORM_OVERHEAD: Final = 64_000  # bytes of a multipart body that are not files
_DRAIN_FACTOR: Final = 8  # of a body that is too large, up to this many times the limit is read and discarded
_METHODS_WITH_BODY: Final = ("POST", "PUT", "PATCH")  # routes of other methods do not read a body, so would never count
_DRAIN_SECONDS: Final = 30.0
_MIN_FILES: Final = 10  # of the largest size, those of one search, fit at once, whatever MAX_UPLOAD_MB is


class ConcurrencyLimit:
    """Answers requests beyond a number of concurrent ones with 503 `overloaded`; `/health` is not counted.

    A request that waits for its body is not counted either, so that slow clients keep nobody else out.

    Args:
        app: the next application.
        max_requests: the most concurrent requests.
    """

    def __init__(self, app: ASGIApp, max_requests: int) -> None:
        self._app = app
        self.max_requests = max_requests
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/health":
            await self._app(scope, receive, send)
            return
        place = _Place(self, receive)
        try:
            place.check()
            if scope["method"] not in _METHODS_WITH_BODY or not _has_body(Headers(scope=scope)):
                place.take()
        except OceanoError as error:
            await send_error(error, scope, receive, send)
            return
        try:
            await self._app(scope, place.receive, send)
        finally:
            place.free()


class _Place:
    """The place of one request among the concurrent ones; free while the request waits for its body."""

    def __init__(self, limit: ConcurrencyLimit, receive: Receive) -> None:
        self._limit = limit
        self._receive = receive
        self._is_taken = False
        self._is_complete = False  # the body

    def check(self) -> None:
        if self._limit.running >= self._limit.max_requests:
            message = f"{self._limit.max_requests} requests are running already; try again soon"
            raise OceanoError("overloaded", message, retry_after=1)

    def take(self) -> None:
        self.check()
        self._limit.running += 1
        self._is_taken = True

    def free(self) -> None:
        self._limit.running -= self._is_taken
        self._is_taken = False

    async def receive(self) -> Message:
        if self._is_complete:
            return await self._receive()
        self.free()
        message = await self._receive()
        self._is_complete = not message.get("more_body", False)
        if self._is_complete and message["type"] == "http.request":
            self.take()
        return message


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


class TimeLimit:
    """Answers a request that takes too long with 504 `timeout`; waiting for its body does not count.

    A response that has begun may last as long as it goes on: the limit then counts for each part of its body.

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
        loop = asyncio.get_running_loop()
        tracked = TrackedSend(send)
        is_complete = False

        async def untimed() -> Message:
            nonlocal is_complete
            deadline = limit.when()
            if is_complete or deadline is None or limit.expired():
                return await receive()
            start = loop.time()
            limit.reschedule(None)
            try:
                message = await receive()
            finally:
                limit.reschedule(deadline + loop.time() - start)
            is_complete = not message.get("more_body", False)
            return message

        async def progressing(message: Message) -> None:
            await tracked(message)
            if not limit.expired():
                limit.reschedule(loop.time() + self._seconds)

        try:
            async with asyncio.timeout(self._seconds) as limit:
                await self._app(scope, untimed, progressing)
        except TimeoutError:
            if tracked.begun or not limit.expired():
                raise
            error = OceanoError(
                "timeout", f"the request took longer than {self._seconds:g} s", details={"seconds": self._seconds}
            )
            await send_error(error, scope, receive, send)


class BodyLimit:
    """Limits the size of a body and the rate at which it arrives, before it is stored or parsed.

    A body that is too large is answered with 413 `image_too_large`. Up to `_DRAIN_FACTOR` times the limit of it is read
    and discarded, because many clients read the response only after they have sent the body. `Bodies` has the other
    limits: 408 `upload_too_slow` and 503 `overloaded`.

    Args:
        app: the next application.
        max_file_bytes: the largest size of one file.
        files_by_path: number of files for paths that accept more than one.
    """

    def __init__(self, app: ASGIApp, max_file_bytes: int, files_by_path: Mapping[str, int]) -> None:
        self._app = app
        self._max_file_bytes = max_file_bytes
        self._files_by_path = files_by_path
        most = max(bodies.BYTES_TOGETHER, _MIN_FILES * (max_file_bytes + FORM_OVERHEAD))
        self._bodies = bodies.Bodies(most, bodies.MIN_RATE, bodies.STALL_SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        tracked = TrackedSend(send)
        try:
            with self._bodies.body() as body:
                await self._run(scope, partial(body.receive, receive), tracked, body)
        except OceanoError as error:  # the application handles those that its own `receive` raises
            if tracked.begun:
                raise
            await send_error(error, scope, receive, send)

    async def _run(self, scope: Scope, arriving: Receive, send: Send, body: bodies.Body) -> None:
        limit = self._max_file_bytes * self._files_by_path.get(scope["path"], 1) + FORM_OVERHEAD
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await arriving()
            size = len(message.get("body", b""))
            received += size
            if received > limit:
                body.release()
                if message.get("more_body"):
                    await _drain(arriving, limit * _DRAIN_FACTOR)
                raise too_large(self._max_file_bytes)
            body.keep(size)
            return message

        headers = Headers(scope=scope)
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > limit:
            if headers.get("expect", "").lower() != "100-continue":  # this client waits for permission to send
                await _drain(arriving, limit * _DRAIN_FACTOR)
            raise too_large(self._max_file_bytes)
        await self._app(scope, limited, send)


async def _drain(receive: Receive, max_bytes: int) -> None:
    read = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            while read < max_bytes:
                message = await receive()
                read += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body"):
                    return
