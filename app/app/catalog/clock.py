"""The clock of the catalog: times as the tables keep them, and the database's own clock for leases."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, cast, extract, func


def timestamp() -> str:
    """Return the current time as the tables keep it: ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def seconds_now(connection: Connection) -> ColumnElement[Any]:
    """Return an expression for the database's clock in seconds since 1970: the clocks of machines differ."""
    if connection.dialect.name == "sqlite":
        return cast(func.strftime("%s", "now"), BigInteger)
    return cast(extract("epoch", func.clock_timestamp()), BigInteger)
