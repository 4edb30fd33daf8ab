"""Error responses: as JSON or as the page, and the handlers that make them from exceptions."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, JsonValue
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import Message, Receive, Scope, Send

from app.core import logs
from app.core.errors import ErrorCode, OceanoError
from app.web.auth import access_of
from app.web.gone import told_of_gone
from app.web.i18n import error_message, language_of
from app.web.root_path import root_path_of

_log = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 5  # for temporary errors without a retry_after

_PAGES: Final = frozenset({"/", "/results", "/kept", "/export", "/audit", "/purpose", "/naming", "/dismiss", "/undo"})
_FOR_BOTH: Final = frozenset({"/people", "/changes"})  # of the API, and pages for browsers
_BELOW_PAGES: Final = ("/audit/", "/face/", "/photo/", "/kept/", "/results/", "/help/", "/person/", "/group/")
_BELOW_PAGES_GET: Final = (*_BELOW_PAGES, "/search/")  # a POST there is of the API
_ALWAYS_JSON: Final = frozenset({"host_not_allowed", "internal"})  # the page cannot be rendered
# A browser shows these as a page wherever they happen; programs get JSON.
_PAGES_OF_BROWSERS: Final = frozenset({404, 405, 503})
_OF_ACCESS: Final = frozenset(
    {"unauthorized", "sign_in_failed", "sign_in_unavailable", "forbidden", "too_many_requests"}
)
SIGN_IN: Final = "/sign-in"


def current_request_id() -> str:
    """Return the id of the request that is being handled."""
    return logs.request_id.get()


class Problem(BaseModel):
    """What went wrong."""

    code: ErrorCode = Field(description="stable, for programs")
    message: str = Field(description="for people, in the language of the request")
    details: dict[str, JsonValue]


class ErrorResponse(BaseModel):
    """Body of every response with a status of 400 or above, except `GET /health`."""

    error: Problem
    request_id: str = Field(default_factory=current_request_id, description="as in the header X-Request-ID")


def error_response(error: OceanoError, request: Request, headers: Mapping[str, str] | None = None) -> Response:
    """Make the response for an error: JSON, or at an address of the page the page itself.

    Args:
        error: the error.
        request: decides the form and the language.
        headers: additional headers.
    """
    if error.code == "unauthorized" and _opens_page(request):
        return RedirectResponse(_sign_in_address(request), 303, headers={"Cache-Control": "no-store"})
    if _shows_page(request, error):
        response: Response = request.app.state.error_page(request, error)
    else:
        response = _error_json(error, request)
    response.headers.update(headers or {})
    retry_after = _RETRY_SECONDS if error.retry_after is None and error.status in (429, 503) else error.retry_after
    if retry_after is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
    if error.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="Oceano"'
    return response


def accepts_html(request: Request) -> bool:
    """Return whether the client asks for a page, as browsers do."""
    return "text/html" in request.headers.get("accept", "")


def _is_page(request: Request) -> bool:
    path: str = request.scope["path"]
    return path in _PAGES or path.startswith(_BELOW_PAGES_GET if request.method == "GET" else _BELOW_PAGES)


def _shows_page(request: Request, error: OceanoError) -> bool:
    if error.code in _ALWAYS_JSON:
        return False
    if error.code in _OF_ACCESS:
        return accepts_html(request)
    has_page = error.status in _PAGES_OF_BROWSERS or error.code == "purpose_required"
    if request.scope["path"] in _FOR_BOTH and request.method == "GET" and accepts_html(request):
        return True
    return _is_page(request) or (request.method == "GET" and accepts_html(request) and has_page)


def _opens_page(request: Request) -> bool:
    """Return whether a person opened an address in a browser, rather than a script of the page."""
    is_fetch = request.headers.get("x-requested-with") == "fetch"
    return request.method == "GET" and accepts_html(request) and not is_fetch and request.scope["path"] != SIGN_IN


def _sign_in_address(request: Request) -> str:
    """Return the address of the sign-in page, which leads back to that of the request."""
    path = request.scope["path"]
    values = {"next": f"{path}?{request.url.query}" if request.url.query else path}
    if getattr(request.state, "session_ended", False):
        values["ended"] = "1"
    return f"{root_path_of(request)}{SIGN_IN}?{urlencode(values)}"


async def send_error(error: OceanoError, scope: Scope, receive: Receive, send: Send) -> None:
    """Send the response for an error from middleware."""
    await error_response(error, Request(scope))(scope, receive, send)


class TrackedSend:
    """A `send` that records whether the response has begun; no error response can be sent after that."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        self.begun = True
        await self._send(message)


def _error_json(error: OceanoError, request: Request) -> Response:
    problem = Problem(code=error.code, message=error_message(error, language_of(request)), details=error.details)
    request.app.state.metrics.errors.labels(error.code).inc()
    return JSONResponse(ErrorResponse(error=problem).model_dump(), status_code=error.status)


def too_large(max_bytes: int) -> OceanoError:
    """Return the error for an upload over the limit."""
    return OceanoError(
        "image_too_large",
        f"the upload is larger than {max_bytes / 1e6:g} MB",
        details={"max_megabytes": max_bytes / 1e6},
    )


def add_error_handlers(app: FastAPI) -> None:
    """Turn the exceptions that routes raise on purpose into error responses."""

    async def oceano(request: Request, failure: Exception) -> Response:
        assert isinstance(failure, OceanoError)  # noqa: S101 - registered for this type only
        if failure.status >= 500:
            _log.error("%s", failure)
        if failure.code == "person_unknown":
            failure = await told_of_gone(request, failure)
        return error_response(failure, request)

    async def http(request: Request, failure: Exception) -> Response:
        assert isinstance(failure, HTTPException)  # noqa: S101
        errors: dict[int, tuple[ErrorCode, str]] = {
            404: ("not_found", "there is nothing at this address"),
            405: ("method_not_allowed", f"this address does not accept {request.method}"),
        }
        code, message = errors.get(failure.status_code, ("invalid_request", str(failure.detail)))
        with contextlib.suppress(OceanoError):  # no route has asked; the page shows more to those who are signed in
            await access_of(request)
        return error_response(OceanoError(code, message), request, failure.headers)

    async def validation(request: Request, failure: Exception) -> Response:
        return error_response(OceanoError("invalid_request", "a parameter of the request is wrong"), request)

    app.add_exception_handler(OceanoError, oceano)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, validation)
