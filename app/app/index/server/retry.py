"""What can go wrong between here and a Qdrant server: tried again while it may pass, then said in our words."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

import grpc
import tenacity
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from app.core.errors import OceanoError
from app.index.embedded.protocol import unavailable

T = TypeVar("T")

_log = logging.getLogger(__name__)

# One try, and when the last one begins: a search still ends within REQUEST_TIMEOUT_SECONDS.
TRY_SECONDS: Final = 10
RETRY_SECONDS: Final = 12.0

_PASSING_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_PASSING_CODES: Final = frozenset(
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
_REFUSED_CODES: Final = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})
_WRONG_CODES: Final = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS})
_FULL: Final = ("no space left", "disk is full", "out of disk", "not enough disk", "disk space", "storage full")
_DISTRUST: Final = ("certificate_verify_failed", "certificate verify failed")
_HINTS: Final = {
    **dict.fromkeys(_DISTRUST, " - if your own authority vouches for the server, set QDRANT_CA_FILE"),
    "wrong_version_number": " - does QDRANT_URL say https of a server that speaks http?",
    "wrong version number": " - does QDRANT_URL say https of a server that speaks http?",
    "illegal request line": " - is this its gRPC port, or does it speak https?",
    "disconnected without": " - is this its gRPC port, or does it speak https?",
    "connection refused": " - is it started, and QDRANT_URL right?",
}
_LONGEST_SAID: Final = 300


def retry_server(work: Callable[[], T], *, seconds: float | None = None) -> T:
    """What `work` returns, tried again with growing, random pauses for `seconds` (12) while its failures may pass.

    `work` must be harmless when done twice: an answer that was lost says nothing of the request.
    Raises OceanoError `index_unavailable` (with `retry_after`), `disk_full`, `invalid_setting` (the key).
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_may_pass),
        wait=_pause,
        stop=tenacity.stop_after_delay(RETRY_SECONDS if seconds is None else seconds),
        reraise=True,
    )
    try:
        return retrying(work)
    except OceanoError:
        raise
    except Exception as failure:  # the libraries below qdrant-client raise what they like
        raise told(failure) from failure


def told(failure: BaseException) -> OceanoError:
    """A failure of qdrant-client, as an error of ours."""
    text = text_of(failure)
    if any(sign in text.lower() for sign in _FULL):
        return OceanoError("disk_full", f"The disk of the Qdrant server is full: {text}", retry_after=30)
    if _is_refusal(failure):
        return OceanoError(
            "invalid_setting",
            f"The Qdrant server does not accept QDRANT_API_KEY (of where `migrate` goes: MIGRATE_API_KEY): {text}",
            details={"settings": ["QDRANT_API_KEY"]},
        )
    if _is_wrong(failure):
        return OceanoError(
            "invalid_setting",
            f"The Qdrant server refused: {text}; is QDRANT_COLLECTION meant so?",
            details={"settings": ["QDRANT_COLLECTION"]},
        )
    if isinstance(failure, ResourceExhaustedResponse):
        busy = f"The Qdrant server has too much to do: {text}"
        return OceanoError("index_unavailable", busy, retry_after=max(1, failure.retry_after_s))
    hint = next((hint for sign, hint in _HINTS.items() if sign in text.lower()), "")
    return unavailable(f"The Qdrant server failed: {text}{hint}")


def is_missing(failure: BaseException) -> bool:
    """Did the server say that there is no such collection?"""
    if isinstance(failure, UnexpectedResponse):
        return failure.status_code == 404
    if isinstance(failure, grpc.RpcError):
        return _code_of(failure) is grpc.StatusCode.NOT_FOUND
    return isinstance(failure, ValueError) and "not found" in str(failure)  # qdrant-client's local mode


_growing = tenacity.wait_random_exponential(multiplier=0.1, max=2)


def _pause(state: tenacity.RetryCallState) -> float:
    failure = state.outcome.exception() if state.outcome else None
    seconds = _growing(state)
    if isinstance(failure, ResourceExhaustedResponse):
        seconds = max(seconds, min(failure.retry_after_s, RETRY_SECONDS))
    if state.attempt_number == 1:
        _log.warning("the Qdrant server failed, trying again: %s", text_of(failure))
    return seconds


def _may_pass(failure: BaseException) -> bool:
    text = text_of(failure).lower()
    if any(sign in text for sign in (*_FULL, *_DISTRUST)):
        return False
    if isinstance(failure, UnexpectedResponse):
        return failure.status_code in _PASSING_STATUS
    if isinstance(failure, grpc.RpcError):
        return _code_of(failure) in _PASSING_CODES
    return isinstance(failure, (ResponseHandlingException, ResourceExhaustedResponse, OSError))


def _is_refusal(failure: BaseException) -> bool:
    if isinstance(failure, UnexpectedResponse):
        return failure.status_code in (401, 403)
    return isinstance(failure, grpc.RpcError) and _code_of(failure) in _REFUSED_CODES


def _is_wrong(failure: BaseException) -> bool:
    """What will be refused as often as it is asked, such as vectors of another size."""
    if isinstance(failure, UnexpectedResponse):
        return failure.status_code in (400, 409, 422)
    return isinstance(failure, grpc.RpcError) and _code_of(failure) in _WRONG_CODES


def _code_of(failure: Any) -> Any:
    return failure.code() if callable(getattr(failure, "code", None)) else None


def text_of(failure: BaseException | None) -> str:
    """What the server said, in one line."""
    if isinstance(failure, UnexpectedResponse):
        text = f"{failure.status_code} {failure.content.decode('utf-8', 'replace')}"
    elif isinstance(failure, grpc.RpcError) and callable(getattr(failure, "details", None)):
        text = f"{_code_of(failure)} {failure.details()}"
    elif isinstance(failure, ResponseHandlingException):
        text = f"{failure.source}" or type(failure.source).__name__
    else:
        text = str(failure) or type(failure).__name__
    return " ".join(text.split())[:_LONGEST_SAID]
