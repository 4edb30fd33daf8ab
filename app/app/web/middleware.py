"""What every request passes: its id, security headers, access log and metrics; and what nobody foresaw."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core import logs
from app.core.errors import OceanoError
from app.metrics import Metrics
from app.web.errors import TrackedSend, send_error

_access = logging.getLogger(logs.ACCESS)
_log = logging.getLogger(__name__)

_LEFT: Final = 499  # in log and metrics (nginx's number): the client was gone before there was an answer
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


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
        tracked = TrackedSend(send)
        try:
            await self._app(scope, receive, tracked)
        except ClientDisconnect:
            _log.info("the client left before its request was read")
        except Exception as failure:
            if tracked.begun:  # too late for another answer: the server logs it and breaks the connection off
                raise
            _log.error("%s %r", scope["method"], scope["path"], exc_info=failure)
            error = OceanoError("internal", "something went wrong here; the log has the details")
            await send_error(error, scope, receive, send)
