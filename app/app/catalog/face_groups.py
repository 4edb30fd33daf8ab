"""The groups of unnamed faces, for those who look at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import func, or_, select
from sqlalchemy.sql import Select

from app.catalog.database import Database, rows
from app.catalog.tables import FACES, PEOPLE
from app.core.iteration import chunks

_FACE: Final = FACES.c
_AT_ONCE: Final = 500  # values of one query


@dataclass(frozen=True, slots=True)
class FaceGroup:
    """Unnamed faces that show one person, as far as it is known.

    Attributes:
        id: of the group.
        faces: how many there are.
        samples: face_ids of some of them, clear ones if there are any.
    """

    id: str
    faces: int
    samples: tuple[str, ...]


class FaceGroups:
    """The groups in one collection. Safe for threads.

    Only faces count that nobody has named or dismissed, and groups that are not of a person.

    All methods raise OceanoError: `ledger_unavailable` or `disk_full`.

    Args:
        database: the catalog.
        collection: full name of the index's collection.
    """

    def __init__(self, database: Database, collection: str) -> None:
        self.database = database
        self._open = (_FACE.collection == collection, _FACE.person_id.is_(None), _FACE.dismissed.is_(None))
        self._mine = _FACE.collection == collection

    def find(
        self, *, after: tuple[int, str] | None = None, limit: int = 100, least: int = 2, samples: int = 4
    ) -> list[FaceGroup]:
        """Return a page of groups, the largest first; takes about half a second with 1,000,000 faces.

        Args:
            after: number of faces and id of the last group of the page before.
            limit: the largest number of groups.
            least: the smallest number of faces.
            samples: the largest number of samples of each.
        """
        counted = self._counted(least).subquery()
        query = select(counted.c.group_id, counted.c.faces).limit(limit)
        if after is not None:
            faces, group_id = after
            same = (counted.c.faces == faces) & (counted.c.group_id > group_id)
            query = query.where(or_(counted.c.faces < faces, same))
        found = rows(self.database, query.order_by(counted.c.faces.desc(), counted.c.group_id))
        return [FaceGroup(row.group_id, row.faces, self._samples(row.group_id, samples)) for row in found]

    def count(self, least: int = 2) -> int:
        """Return the number of groups with at least so many faces; as slow as `find`."""
        return int(rows(self.database, select(func.count()).select_from(self._counted(least).subquery()))[0][0])

    def faces_of(self, group_id: str, *, after: str = "", limit: int = 100) -> list[str]:
        """Return a page of a group's faces in the order of their ids.

        Args:
            group_id: the group; also that of a person, whose group has the faces that may be theirs.
            after: the last face of the page before.
            limit: the largest number of faces.
        """
        query = select(_FACE.face_id).where(*self._open, _FACE.group_id == group_id, _FACE.face_id > after)
        return [row.face_id for row in rows(self.database, query.order_by(_FACE.face_id).limit(limit))]

    def size(self, group_id: str) -> int:
        """Return the number of faces of a group."""
        query = select(func.count()).where(*self._open, _FACE.group_id == group_id)
        return int(rows(self.database, query)[0][0])

    def groups_of(self, face_ids: Sequence[str]) -> dict[str, str]:
        """Return the groups of faces by face_id; those of faces that were not looked at are left out."""
        query = select(_FACE.face_id, _FACE.group_id).where(self._mine, _FACE.group_id.is_not(None))
        return {
            row.face_id: row.group_id
            for some in chunks([*dict.fromkeys(face_ids)], _AT_ONCE)
            for row in rows(self.database, query.where(_FACE.face_id.in_(some)))
        }

    def _counted(self, least: int) -> Select[Any]:
        return (
            select(_FACE.group_id, func.count().label("faces"))
            .where(*self._open, _FACE.group_id.is_not(None), _FACE.group_id.not_in(select(PEOPLE.c.id)))
            .group_by(_FACE.group_id)
            .having(func.count() >= least)
        )

    def _samples(self, group_id: str, limit: int) -> tuple[str, ...]:
        query = select(_FACE.face_id).where(*self._open, _FACE.group_id == group_id).order_by(_FACE.face_id)
        found = rows(self.database, query.where(_FACE.clear == 1).limit(limit))
        if len(found) < limit:
            found = [*found, *rows(self.database, query.where(_FACE.clear == 0).limit(limit - len(found)))]
        return tuple(row.face_id for row in found)
