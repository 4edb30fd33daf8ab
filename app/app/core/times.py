"""Times in ISO 8601, as people and filters give them: a year, a month, a day, or a full time."""

from __future__ import annotations

import calendar
import re
from datetime import UTC, date, datetime
from typing import Final

from app.core.errors import OceanoError

_YEAR_OR_MONTH: Final = re.compile(r"[0-9]{4}(-[0-9]{2})?")


def full_time(text: str | None, *, last: bool) -> str | None:
    """Return a time in full ISO 8601; for a year, month or day, its last instant if `last`, else its first; None: None.

    Raises:
        OceanoError: `invalid_request` if the text is not ISO 8601.
    """
    if text is None:
        return None
    given = text
    try:
        if _YEAR_OR_MONTH.fullmatch(text):
            year, month = int(text[:4]), int(text[5:] or (12 if last else 1))
            text = date(year, month, calendar.monthrange(year, month)[1] if last else 1).isoformat()
        moment = datetime.fromisoformat(text)
        if last and len(text) <= len("2024-01-31"):
            day = date.fromisoformat(text)
            moment = datetime(day.year, day.month, day.day, 23, 59, 59, 999_999)
    except ValueError:
        raise OceanoError("invalid_request", f"{given!r} is not a year, month, day or time in ISO 8601.") from None
    return moment.isoformat()


def timestamp(moment: datetime) -> float:
    """Return a time in seconds since 1970; without an offset, it counts as UTC."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def seconds_of(text: str | None) -> float | None:
    """Return a full time in seconds since 1970, without an offset as UTC; None if it is not ISO 8601, or None."""
    if text is None:
        return None
    try:
        return timestamp(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None
