"""One shape for every failure: a code, a message, an HTTP status, details."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

JsonValue = str | int | float | bool | None | list["JsonValue"] | dict[str, "JsonValue"]

STATUS: Final[Mapping[str, int]] = MappingProxyType(
    {
        # what came in was wrong
        "invalid_request": 400,
        "invalid_image": 400,
        "unauthorized": 401,
        "forbidden": 403,
        "not_found": 404,
        "face_unknown": 404,
        "thumbnail_missing": 404,
        "method_not_allowed": 405,
        "image_too_large": 413,
        "unsupported_image": 415,
        "face_not_found": 422,
        "changed_while_read": 409,
        # what is here does not fit
        "index_model_mismatch": 409,
        "index_in_use": 409,
        "ingest_in_progress": 409,
        "migration_incomplete": 409,
        "invalid_setting": 500,
        "model_not_found": 503,
        "model_corrupt": 503,
        "model_download_failed": 503,
        "device_unavailable": 503,
        "engine_unhealthy": 503,
        "index_unavailable": 503,
        "disk_full": 507,
        "ledger_unavailable": 503,
        "thumbs_unavailable": 503,
        "folder_unavailable": 503,
        # what did not fit into now
        "too_many_requests": 429,
        "overloaded": 503,
        "timeout": 504,
        "internal": 500,
    }
)

EXIT_OK: Final = 0
EXIT_SOME_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNAVAILABLE: Final = 3
EXIT_INTERRUPTED: Final = 130

_USAGE_CODES: Final = frozenset({"invalid_setting", "invalid_request", "not_found"})


class OceanoError(Exception):
    """A failure that somebody can act on.

    Args:
        code: a key of `STATUS`; clients, logs, the ledger and the translations go by it.
        message: one English sentence that says what is wrong and, where known, what would be right.
        details: values behind the sentence, JSON only; never a picture, an embedding or a key.
        retry_after: seconds after which trying again makes sense (HTTP `Retry-After`), else None.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        details: Mapping[str, JsonValue] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = STATUS[code]
        self.details: dict[str, JsonValue] = dict(details or {})
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross a process border (the index owner): pickle them whole."""
        return (_rebuild, (self.code, self.message, self.details, self.retry_after))

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @property
    def exit_code(self) -> int:
        """2 wrong use or settings; 3 a part is unavailable (index, model)."""
        return EXIT_USAGE if self.code in _USAGE_CODES else EXIT_UNAVAILABLE


def is_full(failure: OSError) -> bool:
    """Was there no room on the disk, or none left to this user?"""
    return failure.errno in (errno.ENOSPC, errno.EDQUOT)


def _rebuild(code: str, message: str, details: Mapping[str, JsonValue], retry_after: float | None) -> OceanoError:
    return OceanoError(code, message, details=details, retry_after=retry_after)
