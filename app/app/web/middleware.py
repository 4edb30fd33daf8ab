"""What every request passes: its id, access log and metrics, the time limit, the body limit; and how errors look."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import time
import uuid
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core import logs
from app.core.errors import OceanoError
from app.metrics import Metrics
from app.web.i18n import error_message, pick_language

_access = logging.getLogger(logs.ACCESS)
_log = logging.getLogger(__name__)

FORM_OVERHEAD: Final = 64_000  # bytes of a multipart body beside its files
UNTIL_ANSWERED: Final = "oceano.until_answered"  # in a scope: an AsyncExitStack that is left with the request
_RETRY_SECONDS: Final = 5  # where an error that passes does not say when
_LEFT: Final = 499  # in log and metrics (nginx's number): the client was gone before there was an answer
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_DRAIN_FACTOR: Final = 8  # of a body that is too large, this many times the limit is still read and thrown away

# A page asked for without a key would tell what it is there to protect; one that is broken cannot show itself.
_NEVER_ON_THE_PAGE: Final = frozenset({"unauthorized", "internal"})

SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def language_of(request: Request) -> str:
    """The language of a request: `?lang=`, the cookie, or Accept-Language."""
    return pick_language(
        request.query_params.get("lang"), request.cookies.get("lang"), request.headers.get("accept-language")
    )


def error_response(error: OceanoError, request: Request, headers: Mapping[str, str] | None = None) -> Response:
    """The error as JSON; on the page's own address as the page shows it, for a browser without JavaScript."""
    if request.scope["path"] == "/" and error.code not in _NEVER_ON_THE_PAGE:
        response: Response = request.app.state.error_page(request, error)
    else:
        response = _error_json(error, request)
    response.headers.update(headers or {})
    retry_after = _RETRY_SECONDS if error.retry_after is None and error.status in (429, 503) else error.retry_after
    if retry_after is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
    if error.status == 401:
        response.headers["WWW-Authenticate"] = 'Basic realm="Oceano", charset="UTF-8"'
    return response


def _error_json(error: OceanoError, request: Request) -> Response:
    """`{"error": {"code", "message", "details"}, "request_id"}` with the error's status."""
    body = {
        "error": {
            "code": error.code,
            "message": error_message(error, language_of(request)),
            "details": error.details,
        },
        "request_id": logs.request_id.get(),
    }
    request.app.state.metrics.errors.labels(error.code).inc()
    return JSONResponse(body, status_code=error.status)


class RequestContext:
    """Outermost: an id for the request (the client's own if it is a plain word), headers, access log, metrics."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        logs.request_id.set(request_id)
        start = time.perf_counter()
        outside = len(scope.get("root_path", ""))
        status = _LEFT

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, send_with_headers)
            finally:
                mount = scope.get("root_path", "")[outside:]
                self._finished(scope, mount or "unmatched", status, time.perf_counter() - start)

    def _finished(self, scope: Scope, otherwise: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", otherwise)  # never the raw path: labels must stay few
        method = scope["method"] if scope["method"] in _METHODS else "other"  # a client can invent any word
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        client = (scope.get("client") or ("-",))[0]
        _access.info("%s %s %r %d %.1f ms", client, scope["method"], scope["path"], status, seconds * 1000)


class Unexpected:
    """What nobody foresaw is answered 500 `internal`, its traceback logged once; a client that left is no error.

    Starlette's own handler for `Exception` lies outside of all middleware: its answers would have no request id
    and no headers for other origins, and the server would log the traceback again.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except ClientDisconnect:
            _log.info("the client left before its request was read")
        except Exception as failure:
            if begun:  # too late for another answer: the server logs it and breaks the connection off
                raise
            _log.error("%s %r", scope["method"], scope["path"], exc_info=failure)
            error = OceanoError("internal", "something went wrong here; the log has the details")
            await error_response(error, Request(scope))(scope, receive, send)


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
            await error_response(error, Request(scope))(scope, receive, send)
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
        begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            async with asyncio.timeout(self._seconds) as limit:
                await self._app(scope, receive, send_and_note)
        except TimeoutError:
            if begun or not limit.expired():
                raise
            error = OceanoError(
                "timeout", f"the answer took longer than {self._seconds:g} s", details={"seconds": self._seconds}
            )
            await error_response(error, Request(scope))(scope, receive, send)


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
            await error_response(too_large(self._max_file_bytes), Request(scope))(scope, receive, send)
            return
        await self._app(scope, limited, send)


def too_large(max_bytes: int) -> OceanoError:
    """413: an upload over the limit."""
    return OceanoError(
        "image_too_large",
        f"the upload is larger than {max_bytes / 1e6:g} MB",
        details={"max_megabytes": max_bytes / 1e6},
    )


async def _drain(receive: Receive, most: int) -> None:
    read = 0
    while read < most:
        message = await receive()
        read += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return
