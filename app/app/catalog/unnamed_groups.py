"""Groups of unnamed faces, as lists show them: only faces that have no name and were not dismissed."""

from __future__ import annotations

import time
from threading import Lock
from typing import Final

from sqlalchemy import and_, func, select

from app.catalog.database import Database, rows
from app.catalog.tables import FACES, PEOPLE

LEAST_FACES: Final = 2
"""Faces of the smallest group that is shown."""

_FACE: Final = FACES.c
_LEAST_SECONDS: Final = 2.0
_SHARE: Final = 20.0


class UnnamedGroups:
    """The groups of a collection, largest first. Safe for threads.

    They are counted at most every two seconds, and large catalogs less often: that takes a twentieth of the time at
    most. All methods raise OceanoError: `ledger_unavailable`.
    """

    def __init__(self, database: Database, collection: str) -> None:
        self.database = database
        self._is_shown = and_(
            _FACE.collection == collection,
            _FACE.group_id.is_not(None),
            _FACE.person_id.is_(None),
            _FACE.dismissed.is_(None),
            _FACE.group_id.not_in(select(PEOPLE.c.id)),  # what a person's group has are suggestions
        )
        self._lock = Lock()
        self._changes = 0
        self._counted_of = -1
        self._valid_until = 0.0
        self._counted: list[tuple[str, int]] = []

    def all(self) -> list[tuple[str, int]]:
        """Return the ids of all groups with their numbers of faces."""
        with self._lock:
            if self._counted_of != self._changes or time.monotonic() >= self._valid_until:
                start, changes = time.monotonic(), self._changes
                faces = func.count().label("faces")
                query = select(_FACE.group_id, faces).where(self._is_shown).group_by(_FACE.group_id)
                query = query.having(faces >= LEAST_FACES).order_by(faces.desc(), _FACE.group_id)
                self._counted = [(row.group_id, row.faces) for row in rows(self.database, query)]
                self._counted_of = changes
                self._valid_until = start + max(_LEAST_SECONDS, _SHARE * (time.monotonic() - start))
            return self._counted

    def forget(self) -> None:
        """Let the groups be counted again at the next call, because names have changed."""
        self._changes += 1

    def size(self, group_id: str) -> int | None:
        """Return the number of faces of a group as it is now; None if it is too small to be shown."""
        query = select(func.count()).select_from(FACES).where(self._is_shown, _FACE.group_id == group_id)
        faces = int(rows(self.database, query)[0][0])
        return faces if faces >= LEAST_FACES else None

    def of_face(self, face_id: str) -> str | None:
        """Return the id of the group that a face is in; None if it is in none."""
        found = rows(self.database, select(_FACE.group_id).where(self._is_shown, _FACE.face_id == face_id))
        return str(found[0].group_id) if found else None

    def faces(self, group_id: str, *, after: str = "", limit: int) -> list[str]:
        """Return a page of the face_ids of a group in their order, from the one after an id on."""
        query = select(_FACE.face_id).where(self._is_shown, _FACE.group_id == group_id, _FACE.face_id > after)
        return [row.face_id for row in rows(self.database, query.order_by(_FACE.face_id).limit(limit))]
