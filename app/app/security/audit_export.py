"""The audit log for people and programs: filters as they are given, and exports as CSV or JSON lines."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from app.catalog import AuditEntry, AuditFilter, audit_time
from app.core.errors import OceanoError
from app.core.times import full_time

EXPORTS: Final[Mapping[str, str]] = MappingProxyType(
    {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson; charset=utf-8"}
)
"""Media types by kind."""

_COLUMNS: Final = AuditEntry.__slots__
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def audit_filter(who: str = "", action: str = "", since: str = "", until: str = "") -> AuditFilter:
    """Return the filter that somebody asks for.

    Args:
        who: as in an entry, or its beginning and a `*`; empty: all.
        action: the same.
        since: a year, month, day or time in ISO 8601, without an offset in UTC; empty: any.
        until: the same, inclusive.

    Raises:
        OceanoError: `invalid_request`, with the field in its details.
    """
    return AuditFilter(who, action, _bound("since", since), _bound("until", until))


def _bound(field: str, text: str) -> str:
    if not text:
        return ""
    try:
        full = full_time(text, last=field == "until") or ""
        moment = datetime.fromisoformat(full)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return audit_time(moment + timedelta(milliseconds=1) if field == "until" else moment)
    except (OceanoError, OverflowError):
        raise OceanoError(
            "invalid_request",
            f"{field} must be a year, month, day or time in ISO 8601, such as 2026-11-28, not {text[:64]!r}",
            details={"field": field, "value": text[:64]},
        ) from None


def audit_lines(entries: Iterable[AuditEntry], kind: str) -> Iterator[bytes]:
    """Yield the lines of a file, UTF-8.

    Args:
        entries: in the order of the file.
        kind: of `EXPORTS`.
    """
    if kind == "jsonl":
        for entry in entries:
            yield json.dumps(as_json(entry), ensure_ascii=False).encode("utf-8") + b"\n"
        return
    line = io.StringIO()
    writer = csv.writer(line)
    writer.writerow(_COLUMNS)
    for entry in entries:
        writer.writerow([_cell(getattr(entry, name)) for name in _COLUMNS])
        yield _taken(line)
    yield _taken(line)


def as_json(entry: AuditEntry) -> dict[str, object]:
    """Return an entry with its details as an object; as text if they cannot be read."""
    values: dict[str, object] = {name: getattr(entry, name) for name in _COLUMNS}
    with contextlib.suppress(ValueError):
        values["details"] = json.loads(entry.details)
    return values


def _cell(value: object) -> object:
    """Return a value that a spreadsheet takes for no formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _taken(line: io.StringIO) -> bytes:
    text = line.getvalue()
    line.seek(0)
    line.truncate()
    return text.encode("utf-8", "replace")
