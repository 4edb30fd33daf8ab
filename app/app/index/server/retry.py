"""Errors of a Qdrant server: which are retried, and their conversion to OceanoErrors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

import grpc
import tenacity
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from app.core.errors import OceanoError
from app.index.errors import unavailable

T = TypeVar("T")

_log = logging.getLogger(__name__)

# The timeout of one attempt, and the time after which none starts: a search ends within REQUEST_TIMEOUT_SECONDS.
TRY_SECONDS: Final = 10
RETRY_SECONDS: Final = 12.0

_TEMPORARY_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_TEMPORARY_CODES: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)
_AUTH_CODES: Final = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})
_PERMANENT_CODES: Final = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS})
_DISK_FULL: Final = ("no space left", "disk is full", "out of disk", "not enough disk", "disk space", "storage full")
_CERTIFICATE: Final = ("certificate_verify_failed", "certificate verify failed")
_HINTS: Final = {
    **dict.fromkeys(_CERTIFICATE, " - if its certificate is signed by your own authority, set QDRANT_CA_FILE"),
    "wrong_version_number": " - does the server use http, and QDRANT_URL https?",
    "wrong version number": " - does the server use http, and QDRANT_URL https?",
    "illegal request line": " - is this the gRPC port, or does the server use https?",
    "disconnected without": " - is this the gRPC port, or does the server use https?",
    "connection refused": " - is the server running, and is QDRANT_URL correct?",
}
_MAX_TEXT: Final = 300


def retry_server(work: Callable[[], T], *, seconds: float | None = None) -> T:
    """Run `work` and retry temporary errors, with growing, random pauses.

    Args:
        work: a request that may safely run twice: if a response is lost, the request may have been executed.
        seconds: no attempt starts after this time; None for RETRY_SECONDS.

    Returns:
        The result of `work`.

    Raises:
        OceanoError: `index_unavailable` (with `retry_after`), `disk_full`, `invalid_setting` (the key or the
            collection).
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_temporary),
        wait=_pause,
        stop=tenacity.stop_after_delay(RETRY_SECONDS if seconds is None else seconds),
        reraise=True,
    )
    try:
        return retrying(work)
    except OceanoError:
        raise
    except Exception as failure:  # qdrant-client does not convert the errors of its libraries
        raise to_error(failure) from failure


def to_error(failure: BaseException) -> OceanoError:
    """Convert an error of qdrant-client or its libraries.

    Returns:
        `disk_full`, `invalid_setting` if the server rejects the key or the request, else `index_unavailable`.
    """
    text = text_of(failure)
    if any(sign in text.lower() for sign in _DISK_FULL):
        return OceanoError("disk_full", f"The disk of the Qdrant server is full: {text}", retry_after=30)
    if _is_unauthorized(failure):
        return OceanoError(
            "invalid_setting",
            f"The Qdrant server rejects QDRANT_API_KEY (for the target of `migrate`: MIGRATE_API_KEY): {text}",
            details={"settings": ["QDRANT_API_KEY"]},
        )
    if _is_permanent(failure):
        return OceanoError(
            "invalid_setting",
            f"The Qdrant server rejects the request: {text}. Check QDRANT_COLLECTION.",
            details={"settings": ["QDRANT_COLLECTION"]},
        )
    if isinstance(failure, ResourceExhaustedResponse):
        busy = f"The Qdrant server is overloaded: {text}"
        return OceanoError("index_unavailable", busy, retry_after=max(1, failure.retry_after_s))
    hint = next((hint for sign, hint in _HINTS.items() if sign in text.lower()), "")
    return unavailable(f"The Qdrant server failed: {text}{hint}")


def is_missing(failure: BaseException) -> bool:
    """Return whether an error says that the collection does not exist."""
    if isinstance(failure, UnexpectedResponse):
        return failure.status_code == 404
    if isinstance(failure, grpc.RpcError):
        return _code_of(failure) is grpc.StatusCode.NOT_FOUND
    return isinstance(failure, ValueError) and "not found" in str(failure)  # qdrant-client's local mode


_backoff = tenacity.wait_random_exponential(multiplier=0.1, max=2)


def _pause(state: tenacity.RetryCallState) -> float:
    failure = state.outcome.exception() if state.outcome else None
    seconds = _backoff(state)
    if isinstance(failure, ResourceExhaustedResponse):
        seconds = max(seconds, min(failure.retry_after_s, RETRY_SECONDS))
    if state.attempt_number == 1:
        _log.warning("the Qdrant server failed, retrying: %s", text_of(failure))
    return seconds


def _is_temporary(failure: BaseException) -> bool:
    text = text_of(failure).lower()
    if any(sign in text for sign in (*_DISK_FULL, *_CERTIFICATE)):
        return False
    if isinstance(failure, UnexpectedResponse):
        return failure.status_code in _TEMPORARY_STATUS
    if isinstance(failure, grpc.RpcError):
        return _code_of(failure) in _TEMPORARY_CODES
    return isinstance(failure, (ResponseHandlingException, ResourceExhaustedResponse, OSError))


def _is_unauthorized(failure: BaseException) -> bool:
    if isinstance(failure, UnexpectedResponse):
        return failure.status_code in (401, 403)
    return isinstance(failure, grpc.RpcError) and _code_of(failure) in _AUTH_CODES


def _is_permanent(failure: BaseException) -> bool:
    """Return whether the server rejects the request itself, as with vectors of another size."""
    if isinstance(failure, UnexpectedResponse):
        return failure.status_code in (400, 409, 422)
    return isinstance(failure, grpc.RpcError) and _code_of(failure) in _PERMANENT_CODES


def _code_of(failure: Any) -> Any:
    return failure.code() if callable(getattr(failure, "code", None)) else None


def text_of(failure: BaseException | None) -> str:
    """Return the text of an error in one line, cut to 300 characters."""
    if isinstance(failure, UnexpectedResponse):
        text = f"{failure.status_code} {failure.content.decode('utf-8', 'replace')}"
    elif isinstance(failure, grpc.RpcError) and callable(getattr(failure, "details", None)):
        text = f"{_code_of(failure)} {failure.details()}"
    elif isinstance(failure, ResponseHandlingException):
        text = f"{failure.source}" or type(failure.source).__name__
    else:
        text = str(failure) or type(failure).__name__
    return " ".join(text.split())[:_MAX_TEXT]
