"""Error responses: as JSON or as the page, and the handlers that make them from exceptions."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, JsonValue
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from app.core import logs
from app.core.errors import ErrorCode, OceanoError
from app.web.auth import require_key
from app.web.i18n import error_message, language_of

_log = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 5  # for temporary errors without a retry_after

_PAGES: Final = frozenset({"/", "/results", "/kept", "/export"})
_BELOW_PAGES: Final = ("/face/", "/photo/", "/kept/", "/results/", "/help/")
_BELOW_PAGES_GET: Final = (*_BELOW_PAGES, "/search/")  # a POST there is of the API
# Always JSON: the page would reveal data without a key, and cannot render after an internal error.
_ALWAYS_JSON: Final = frozenset({"unauthorized", "host_not_allowed", "internal"})


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
    if (_is_page(request) and error.code not in _ALWAYS_JSON) or _is_lost(request, error):
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


def accepts_html(request: Request) -> bool:
    """Return whether the client asks for a page, as browsers do."""
    return "text/html" in request.headers.get("accept", "")


def _is_page(request: Request) -> bool:
    path: str = request.scope["path"]
    return path in _PAGES or path.startswith(_BELOW_PAGES_GET if request.method == "GET" else _BELOW_PAGES)


def _is_lost(request: Request, error: OceanoError) -> bool:
    """Return whether a browser opened an address without a page; without a key the page would reveal data."""
    is_missing = error.code in ("not_found", "method_not_allowed")
    if not is_missing or request.method != "GET" or not accepts_html(request):
        return False
    try:
        require_key(request)
    except OceanoError:
        return False
    return True


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
        return error_response(failure, request)

    async def http(request: Request, failure: Exception) -> Response:
        assert isinstance(failure, HTTPException)  # noqa: S101
        errors: dict[int, tuple[ErrorCode, str]] = {
            404: ("not_found", "there is nothing at this address"),
            405: ("method_not_allowed", f"this address does not accept {request.method}"),
        }
        code, message = errors.get(failure.status_code, ("invalid_request", str(failure.detail)))
        return error_response(OceanoError(code, message), request, failure.headers)

    async def validation(request: Request, failure: Exception) -> Response:
        return error_response(OceanoError("invalid_request", "a parameter of the request is wrong"), request)

    app.add_exception_handler(OceanoError, oceano)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, validation)
