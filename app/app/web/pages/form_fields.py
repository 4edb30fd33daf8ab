"""Fields of forms and query strings, of which a name may occur several times."""

from __future__ import annotations

from fastapi.requests import Request

from app.core.errors import OceanoError
from app.web.numbers import whole_number
from app.web.pages.filters import Fields

_MAX_DIGITS = 3


def query_fields(request: Request) -> dict[str, list[str]]:
    """Return the fields of the query string, each with all its values."""
    fields: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        fields.setdefault(name, []).append(value)
    return fields


def all_of(fields: Fields, name: str, *, keep_blank: bool = False) -> list[str]:
    """Return all values of a field, by default without blank ones."""
    value = fields.get(name, ())
    values = [value] if isinstance(value, str) else [*value]
    return values if keep_blank else [one for one in values if one.strip()]


def last_of(fields: Fields, name: str) -> str:
    """Return the last value of a field that is not blank; empty if there is none."""
    values = all_of(fields, name)
    return values[-1].strip() if values else ""


def numbers_of(fields: Fields, name: str) -> list[int]:
    """Return the values of a field as numbers, from 0 to 999.

    Raises:
        OceanoError: `invalid_request`.
    """
    found = []
    for value in all_of(fields, name):
        if (number := whole_number(value, _MAX_DIGITS)) is None:
            raise OceanoError("invalid_request", f"{name} must be the number of a face", details={"field": name})
        found.append(number)
    return found
