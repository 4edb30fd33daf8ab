"""Middleware of every request: request id, security headers, access log, metrics, unexpected errors."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Mapping
from typing import Final

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.core import logs
from app.core.config import Settings
from app.core.errors import OceanoError
from app.metrics import Metrics
from app.web.addresses import HeadAsGet, HostCheck, SubPath
from app.web.errors import TrackedSend, send_error
from app.web.limits import BodyLimit, ConcurrencyLimit, TimeLimit
from app.web.session_cookie import SessionRenewal

_access = logging.getLogger(logs.ACCESS)
_log = logging.getLogger(__name__)

_CLIENT_DISCONNECTED: Final = 499  # in log and metrics, as in nginx: the client left before the response
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_FILES_BY_PATH: Final[Mapping[str, int]] = {"/compare": 2, "/search": 10, "/results": 10, "/": 10}


SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def add_middleware(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    """Add all middleware; the last one added is the outermost."""
    app.add_middleware(SessionRenewal)
    app.add_middleware(BodyLimit, max_file_bytes=settings.max_upload_bytes, files_by_path=_FILES_BY_PATH)
    app.add_middleware(TimeLimit, seconds=settings.request_timeout_seconds)
    app.add_middleware(ConcurrencyLimit, max_requests=settings.uvicorn_limit_concurrency)
    app.add_middleware(HeadAsGet)
    app.add_middleware(UnexpectedErrors)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "X-API-Key", "X-Request-ID", "Content-Type"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    app.add_middleware(HostCheck, settings=settings)
    app.add_middleware(RequestContext, metrics=metrics)
    app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies))
    app.add_middleware(SubPath, root_path=settings.root_path, proxies=settings.trusted_proxies)


class RequestContext:
    """The outermost middleware: sets the request id, adds headers, writes the access log, counts the request.

    A client's own `X-Request-ID` is used if it has up to 64 characters: ASCII letters, digits, dot, hyphen, underscore.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get("x-request-id", "")
        request_id = sent if _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
        logs.request_id.set(request_id)
        start = time.perf_counter()
        root_length = len(scope.get("root_path", ""))
        status = _CLIENT_DISCONNECTED

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
                mount = scope.get("root_path", "")[root_length:]
                self._record(scope, mount or "unmatched", status, time.perf_counter() - start)

    def _record(self, scope: Scope, otherwise: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", otherwise)  # not the raw path, to limit the number of labels
        method = scope["method"] if scope["method"] in _METHODS else "other"  # a client can send any word
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        client = (scope.get("client") or ("-",))[0]
        _access.info("%s %s %r %d %.1f ms", client, scope["method"], scope["path"], status, seconds * 1000)


class UnexpectedErrors:
    """Answers an unexpected exception with 500 `internal` and logs its traceback once.

    Starlette's own handler for `Exception` runs outside of all middleware: its responses have no request id and no
    CORS headers, and the server logs the traceback a second time. A client that disconnects is not an error.
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
            _log.info("the client disconnected before its request was read")
        except Exception as failure:
            if tracked.begun:  # the response has begun: the server logs the error and closes the connection
                raise
            _log.error("%s %r", scope["method"], scope["path"], exc_info=failure)
            error = OceanoError("internal", "an unexpected error; the log has the details")
            await send_error(error, scope, receive, send)
