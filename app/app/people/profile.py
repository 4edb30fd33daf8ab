"""What is said about a person besides their faces, checked."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Final

from app.core.errors import OceanoError

MAX_NAME: Final = 500
"""Characters of a name."""
MAX_NOTES: Final = 10_000
"""Characters of notes."""

_EARLIEST: Final = timezone(timedelta(hours=14))  # where a day begins first
_DATE: Final = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a request says about a person; None: nothing.

    Attributes:
        name: may be empty.
        hidden: left out of lists.
        birth_date: year, month or day in ISO 8601; empty: unknown.
        notes: any text.
        cover: face_id of the face that stands for the person; one of theirs.
    """

    name: str | None = None
    hidden: bool | None = None
    birth_date: str | None = None
    notes: str | None = None
    cover: str | None = None


def checked_name(name: str) -> str:
    """Return a name in Unicode form NFC, without control characters and spaces around it.

    Upper and lower case, scripts, and signs such as `|` stay. A name of which nothing is visible, such as one of
    zero-width characters, is empty.

    Raises:
        OceanoError: `invalid_request` if it has more than `MAX_NAME` characters.
    """
    shown = "".join(" " if _is_control(sign) else sign for sign in name)
    found = unicodedata.normalize("NFC", " ".join(shown.split()))
    if all(sign == " " or unicodedata.category(sign) == "Cf" for sign in found):
        return ""
    if len(found) > MAX_NAME:
        raise OceanoError(
            "invalid_request",
            f"the name has {len(found)} characters; at most {MAX_NAME} are allowed",
            details={"field": "name", "max_characters": MAX_NAME},
        )
    return found


def _is_control(sign: str) -> bool:
    """Return whether a character ends a line, controls a device, or is none in a text, as XML says."""
    return unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") or sign in "\ufffe\uffff"


def checked_notes(notes: str) -> str | None:
    """Return notes without spaces around them; None if they are empty.

    Raises:
        OceanoError: `invalid_request` if they have more than `MAX_NOTES` characters.
    """
    found = notes.strip()
    if len(found) > MAX_NOTES:
        raise OceanoError(
            "invalid_request",
            f"the notes have {len(found)} characters; at most {MAX_NOTES} are allowed",
            details={"field": "notes", "max_characters": MAX_NOTES},
        )
    return found or None


def checked_birth_date(text: str) -> str | None:
    """Return a date as year, month or day; None if it is empty.

    Raises:
        OceanoError: `invalid_request` if it is none, or if it is in the future everywhere on Earth.
    """
    given = text.strip()
    if not given:
        return None
    try:
        if (found := _DATE.fullmatch(given)) is None:
            raise ValueError
        year, month, day = (int(part or 1) for part in found.groups())
        first = date(year, month, day)
    except ValueError:
        raise OceanoError(
            "invalid_request",
            "the birth date must be a year, a month or a day, such as 1970, 1970-05 or 1970-05-17",
            details={"field": "birth_date"},
        ) from None
    if first > datetime.now(_EARLIEST).date():
        raise OceanoError(
            "invalid_request",
            f"the birth date {given} is in the future",
            details={"field": "birth_date", "value": given, "cause": "birth_date_future"},
        )
    return given
