"""Groups of unnamed faces, and single ones, as lists show them: faces that have no name and were not dismissed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import and_, exists, func, select

from app.catalog.database import Database, rows
from app.catalog.tables import ASSIGNMENTS, FACES, PEOPLE, REJECTIONS
from app.core.cached_value import CachedValue
from app.core.iteration import chunks

LEAST_FACES: Final = 2
"""Faces of the smallest group that is shown."""

_FACE: Final = FACES.c
_SORTED: Final = _FACE.face_id.concat("")  # an expression: else SQLite reads all faces in the order of their ids
_AT_ONCE: Final = 500


class UnnamedGroups:
    """The groups of a collection, largest first. Safe for threads.

    They are counted now and then (`CachedValue`). All methods raise OceanoError: `ledger_unavailable`.
    """

    def __init__(self, database: Database, collection: str) -> None:
        self.database = database
        self._is_open = and_(_FACE.collection == collection, _FACE.person_id.is_(None), _FACE.dismissed.is_(None))
        self._is_shown = and_(
            self._is_open,
            _FACE.group_id.is_not(None),
            # what the group of a person has are suggestions, if there is a face to compare with
            _FACE.group_id.not_in(select(PEOPLE.c.id).where(PEOPLE.c.faces > 0)),
        )
        self._counted = CachedValue[list[tuple[str, int]]]()
        self._waiting = CachedValue[dict[str, int]]()

    def all(self) -> list[tuple[str, int]]:
        """Return the ids of all groups with their numbers of faces."""
        return self._counted.get(self._count)

    def waiting(self) -> dict[str, int]:
        """Return in how many images each person, who is not hidden, has an unnamed face in the person's group.

        Images where the person has a face already, or a face that is not them, are left out, as are people without one.
        """
        return self._waiting.get(self._count_waiting)

    def forget(self) -> None:
        """Let all be counted again at the next call, because names have changed."""
        self._counted.forget()
        self._waiting.forget()

    def size(self, group_id: str) -> int | None:
        """Return the number of faces of a group as it is now; None if it is too small to be shown."""
        query = select(func.count()).select_from(FACES).where(self._is_shown, _FACE.group_id == group_id)
        faces = int(rows(self.database, query)[0][0])
        return faces if faces >= LEAST_FACES else None

    def sizes(self, group_ids: Sequence[str]) -> dict[str, int]:
        """Return the numbers of faces of groups as they are now, also of single faces; empty groups are left out."""
        found: dict[str, int] = {}
        for some in chunks(group_ids, _AT_ONCE):
            query = select(_FACE.group_id, func.count().label("faces")).where(self._is_shown, _FACE.group_id.in_(some))
            found |= {row.group_id: row.faces for row in rows(self.database, query.group_by(_FACE.group_id))}
        return found

    def of_face(self, face_id: str) -> str | None:
        """Return the id of the group that a face is in; None if it is in none."""
        return self.of_faces([face_id]).get(face_id)

    def of_faces(self, face_ids: Sequence[str]) -> dict[str, str | None]:
        """Return the groups of faces, None for one that is to be grouped again, without named and dismissed ones."""
        found: dict[str, str | None] = {}
        for some in chunks(face_ids, _AT_ONCE):
            for condition in (self._is_shown, and_(self._is_open, _FACE.group_id.is_(None))):
                query = select(_FACE.face_id, _FACE.group_id).where(condition, _FACE.face_id.in_(some))
                found |= {row.face_id: row.group_id for row in rows(self.database, query)}
        return found

    def faces(self, group_id: str, *, after: str = "", limit: int) -> list[str]:
        """Return a page of the face_ids of a group in their order, from the one after an id on."""
        query = select(_FACE.face_id).where(self._is_shown, _FACE.group_id == group_id, after < _SORTED)
        return [row.face_id for row in rows(self.database, query.order_by(_SORTED).limit(limit))]

    def singles(self, *, clear: bool, after: str = "", limit: int) -> list[tuple[str, str]]:
        """Return a page of the groups that have one face only, from the one after an id on, each with its face.

        Args:
            clear: the face may found groups, or it is too poor for that.
            after: id of the last group of the page before.
            limit: the largest number.
        """
        face_id = func.min(_FACE.face_id).label("face_id")
        query = select(_FACE.group_id, face_id).where(self._is_shown, _FACE.group_id > after).group_by(_FACE.group_id)
        query = query.having(and_(func.count() == 1, func.max(_FACE.clear) == int(clear)))
        return [(row.group_id, row.face_id) for row in rows(self.database, query.order_by(_FACE.group_id).limit(limit))]

    def ungrouped(self, *, clear: bool, after: str = "", limit: int) -> list[str]:
        """Return a page of the faces that are to be grouped again, such as one that has lost its name.

        Arguments are those of `singles`; `after` is the last face of the page before.
        """
        query = select(_FACE.face_id).where(
            self._is_open, _FACE.group_id.is_(None), _FACE.clear == int(clear), _FACE.face_id > after
        )
        return [row.face_id for row in rows(self.database, query.order_by(_FACE.face_id).limit(limit))]

    def _count(self) -> list[tuple[str, int]]:
        faces = func.count().label("faces")
        query = select(_FACE.group_id, faces).where(self._is_shown).group_by(_FACE.group_id)
        query = query.having(faces >= LEAST_FACES).order_by(faces.desc(), _FACE.group_id)
        return [(row.group_id, row.faces) for row in rows(self.database, query)]

    def _count_waiting(self) -> dict[str, int]:
        images = func.count(_FACE.image_id.distinct()).label("images")
        shown = select(PEOPLE.c.id).where(PEOPLE.c.hidden == 0, PEOPLE.c.faces > 0)
        query = select(_FACE.group_id, images).where(self._is_open, _FACE.group_id.in_(shown))
        for told in (ASSIGNMENTS.c, REJECTIONS.c):
            of_image = (told.image_id == _FACE.image_id) & (told.person_id == _FACE.group_id)
            query = query.where(~exists().where(of_image))
        return {row.group_id: row.images for row in rows(self.database, query.group_by(_FACE.group_id))}
