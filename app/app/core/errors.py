"""`OceanoError`, its codes with their HTTP statuses, and the exit codes of the commands."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

JsonValue = str | int | float | bool | None | list["JsonValue"] | dict[str, "JsonValue"]

ErrorCode = Literal[
    "invalid_request",
    "invalid_image",
    "folder_unknown",
    "cursor_invalid",
    "purpose_required",
    "unauthorized",
    "sign_in_failed",
    "sign_in_unavailable",
    "forbidden",
    "not_found",
    "face_unknown",
    "person_unknown",
    "change_unknown",
    "thumbnail_missing",
    "image_unknown",
    "image_not_shown",
    "image_missing",
    "method_not_allowed",
    "upload_too_slow",
    "image_too_large",
    "unsupported_image",
    "range_not_satisfiable",
    "host_not_allowed",
    "face_not_found",
    "changed_while_read",
    "person_changed",
    "face_named",
    "person_in_image",
    "change_conflict",
    "index_model_mismatch",
    "index_in_use",
    "ingest_in_progress",
    "migration_incomplete",
    "invalid_setting",
    "model_not_found",
    "model_corrupt",
    "model_download_failed",
    "quantization_failed",
    "device_unavailable",
    "engine_unhealthy",
    "index_unavailable",
    "disk_full",
    "ledger_unavailable",
    "thumbs_unavailable",
    "folder_unavailable",
    "too_many_requests",
    "overloaded",
    "timeout",
    "internal",
]

STATUS: Final[Mapping[ErrorCode, int]] = MappingProxyType(
    {
        # The request is wrong.
        "invalid_request": 400,
        "invalid_image": 400,
        "folder_unknown": 400,
        "cursor_invalid": 400,
        "purpose_required": 400,
        "unauthorized": 401,
        "sign_in_failed": 401,
        "sign_in_unavailable": 503,
        "forbidden": 403,
        "not_found": 404,
        "face_unknown": 404,
        "person_unknown": 404,
        "change_unknown": 404,
        "thumbnail_missing": 404,
        "image_unknown": 404,
        "image_not_shown": 403,
        "image_missing": 404,
        "method_not_allowed": 405,
        "upload_too_slow": 408,
        "image_too_large": 413,
        "unsupported_image": 415,
        "range_not_satisfiable": 416,
        "host_not_allowed": 421,
        "face_not_found": 422,
        "changed_while_read": 409,
        "person_changed": 409,
        "face_named": 409,
        "person_in_image": 409,
        "change_conflict": 409,
        # The installation is wrong, or a part of it is unavailable.
        "index_model_mismatch": 409,
        "index_in_use": 409,
        "ingest_in_progress": 409,
        "migration_incomplete": 409,
        "invalid_setting": 500,
        "model_not_found": 503,
        "model_corrupt": 503,
        "model_download_failed": 503,
        "quantization_failed": 503,
        "device_unavailable": 503,
        "engine_unhealthy": 503,
        "index_unavailable": 503,
        "disk_full": 507,
        "ledger_unavailable": 503,
        "thumbs_unavailable": 503,
        "folder_unavailable": 503,
        # The service is too busy, or has a bug.
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

_USAGE_CODES: Final = frozenset(
    {
        "invalid_setting", "invalid_request", "not_found",
        "invalid_image", "unsupported_image", "image_too_large", "face_not_found", "face_unknown", "folder_unknown",
        "purpose_required", "person_unknown", "person_changed", "face_named", "person_in_image", "change_unknown",
        "change_conflict",
    }
)  # fmt: skip


class OceanoError(Exception):
    """An error that a user or an operator can act on.

    Args:
        code: stable, for programs; clients, logs, the ledger and the translations depend on it.
        message: one English sentence that says what is wrong and, if known, what to do.
        details: the values in the message, as JSON; never an image, an embedding or a key.
        retry_after: seconds after which a retry may succeed (HTTP `Retry-After`), None if unknown.

    Raises:
        KeyError: the code is not in `STATUS`.
    """

    def __init__(
        self,
        code: ErrorCode,
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
        """Pickle all fields: the embedded index sends errors to other processes."""
        return (_rebuild, (self.code, self.message, self.details, self.retry_after))

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @property
    def exit_code(self) -> int:
        """The exit code of a command: 2 for wrong usage or settings, 3 if a part (index, model) is unavailable."""
        return EXIT_USAGE if self.code in _USAGE_CODES else EXIT_UNAVAILABLE


def is_full(failure: OSError) -> bool:
    """Return whether the disk or the user's quota is full."""
    return failure.errno in (errno.ENOSPC, errno.EDQUOT)


def _rebuild(code: ErrorCode, message: str, details: Mapping[str, JsonValue], retry_after: float | None) -> OceanoError:
    return OceanoError(code, message, details=details, retry_after=retry_after)
