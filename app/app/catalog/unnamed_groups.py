"""Groups of unnamed faces, as lists show them: only faces that have no name and were not dismissed."""

from __future__ import annotations

from threading import Lock
from typing import Final

from sqlalchemy import and_, func, select

from app.catalog.database import Database, rows
from app.catalog.tables import FACES

LEAST_FACES: Final = 2
"""Faces of the smallest group that is shown."""

_FACE: Final = FACES.c


class UnnamedGroups:
    """The groups of a collection, largest first. Safe for threads.

    They are counted once, and again when the database has changed. All methods raise OceanoError: `ledger_unavailable`.
    """

    def __init__(self, database: Database, collection: str) -> None:
        self.database = database
        self._is_shown = and_(
            _FACE.collection == collection,
            _FACE.group_id.is_not(None),
            _FACE.person_id.is_(None),
            _FACE.dismissed.is_(None),
        )
        self._lock = Lock()
        self._version: tuple[object, ...] | None = None
        self._counted: list[tuple[str, int]] = []

    def all(self) -> list[tuple[str, int]]:
        """Return the ids of all groups with their numbers of faces."""
        version = self.database.version()
        with self._lock:
            if version != self._version:
                faces = func.count().label("faces")
                query = select(_FACE.group_id, faces).where(self._is_shown).group_by(_FACE.group_id)
                query = query.having(faces >= LEAST_FACES).order_by(faces.desc(), _FACE.group_id)
                self._counted = [(row.group_id, row.faces) for row in rows(self.database, query)]
                self._version = version
            return self._counted

    def faces(self, group_id: str, *, after: str = "", limit: int) -> list[str]:
        """Return a page of the face_ids of a group in their order, from the one after an id on."""
        query = select(_FACE.face_id).where(self._is_shown, _FACE.group_id == group_id, _FACE.face_id > after)
        return [row.face_id for row in rows(self.database, query.order_by(_FACE.face_id).limit(limit))]
