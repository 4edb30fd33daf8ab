"""The faces that were set aside or marked as not a face, as lists show them: last dismissed first."""

from __future__ import annotations

from typing import Final

from sqlalchemy import select, tuple_

from app.catalog.database import Database, rows
from app.catalog.people import Dismissal, DismissalKind, place_in
from app.catalog.tables import DISMISSALS

_ROW: Final = DISMISSALS.c


class DismissedFaces:
    """The dismissals of a catalog. Safe for threads.

    All methods raise OceanoError: `ledger_unavailable`.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def newest(
        self, kind: DismissalKind, *, after: tuple[str, str] | None = None, skip: int = 0, limit: int
    ) -> list[tuple[str, Dismissal]]:
        """Return a page of the dismissals of a kind, each with its time, newest first.

        Args:
            kind: set aside, or not a face.
            after: time and id of the last one of the page before; None: the first page.
            skip: the number of dismissals before the page, in place of `after`.
            limit: the largest number.
        """
        query = select(DISMISSALS).where(_ROW.kind == kind)
        if after is not None:
            query = query.where(tuple_(_ROW.dismissed_at, _ROW.id) < after)
        query = query.order_by(_ROW.dismissed_at.desc(), _ROW.id.desc()).limit(limit).offset(skip)
        found = [row._mapping for row in rows(self.database, query)]
        return [(row["dismissed_at"], Dismissal(row["id"], row["kind"], place_in(row))) for row in found]
