"""What SQLite does for queries: whether one reads a whole table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import event

from app.catalog import Database

_WHOLE: Final = re.compile(r"SCAN (?!CONSTANT)|SEARCH \w+ USING .*\((collection=\?)?( AND )?(face_id>\?)?\)$")


@contextmanager
def selects_of(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """Collect the SELECT statements of a catalog with their values until the context ends."""
    asked: list[tuple[str, Any]] = []

    def hear(_c: object, _cursor: object, statement: str, values: Any, _context: object, _many: object) -> None:
        if statement.lstrip().upper().startswith("SELECT"):
            asked.append((statement, values))

    engine: Any = database.engine  # type: ignore[attr-defined]
    event.listen(engine, "before_cursor_execute", hear)
    try:
        yield asked
    finally:
        event.remove(engine, "before_cursor_execute", hear)


def whole_reads(database: Database, statement: str, values: Any) -> list[str]:
    """Return the steps of a statement that read all rows of a table, or of a collection, in SQLite."""
    with database.reading() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
    return [step for step in (str(row[3]) for row in plan) if _WHOLE.match(step)]
