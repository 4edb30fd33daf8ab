"""The names of an index's faces as they were last copied: up to which change, and whose each face is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.sql import ColumnElement, Select

from app.catalog.database import Database, execute_many, insert_or_replace, rows
from app.catalog.prepared import clear_rows, update_rows
from app.catalog.retry import retried
from app.catalog.tables import ASSIGNMENTS, COPIED_NAMES, FACES
from app.core.iteration import chunks

_FACE: Final = FACES.c
_AT_ONCE: Final = 500
_ID: Final = 36  # characters of a face_id
_LEAVE_GROUP: Final = (
    update(FACES)
    .where(
        _FACE.collection == bindparam("of"), _FACE.face_id == bindparam("face"), _FACE.group_id == bindparam("group")
    )
    .values(group_id=None)
)
_COPIES: Final = ("person_id", "assignment_id", "dismissed")


@dataclass(frozen=True, slots=True)
class FaceNames:
    """What the catalog says about a face of an index.

    Attributes:
        face_id: the face.
        image_id: its image.
        person_id: whom it is assigned to; None: nobody.
        assignment_id: the assignment.
        dismissed: the kind of its dismissal; None: it is not dismissed.
        not_these: people whom it does not show, as somebody said.
    """

    face_id: str
    image_id: str
    person_id: str | None = None
    assignment_id: str | None = None
    dismissed: str | None = None
    not_these: frozenset[str] = frozenset()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is said."""
        return self.person_id is None and self.dismissed is None


class CopiedNames:
    """The copies for one collection. Safe for threads.

    All methods raise OceanoError: `ledger_unavailable` or `disk_full`.
    """

    def __init__(self, database: Database, collection: str) -> None:
        self.database = database
        self._collection = collection

    def number(self) -> int | None:
        """Return the last change whose names were copied; None if none were."""
        query = select(COPIED_NAMES.c.change).where(COPIED_NAMES.c.collection == self._collection)
        found = rows(self.database, query)
        return int(found[0][0]) if found else None

    @retried
    def set_number(self, number: int) -> None:
        """Record that the names were copied up to a change; a lower number than the recorded one changes nothing."""
        known = select(COPIED_NAMES.c.change).where(COPIED_NAMES.c.collection == self._collection)
        with self.database.writing(urgent=True) as connection:
            last = connection.execute(known).scalar_one_or_none()
            if last is None or last < number:
                row = {"collection": self._collection, "change": number}
                connection.execute(insert_or_replace(COPIED_NAMES, connection.dialect.name), row)

    @retried
    def write(self, names: Sequence[FaceNames]) -> None:
        """Record what is said about faces, in one transaction.

        Their groups stay as they are, but for unnamed faces in the group of a person whom they do not show: these are
        grouped again.
        """
        some = [self._row(one) for one in names if not one.is_empty]
        none = [(self._collection, one.face_id) for one in names if one.is_empty]
        wrong = [
            {"of": self._collection, "face": one.face_id, "group": person_id}
            for one in names
            if one.person_id is None
            for person_id in one.not_these
        ]
        with self.database.writing(urgent=True) as connection:
            update_rows(connection, FACES, _COPIES, some)
            clear_rows(connection, FACES, _COPIES, none)
            execute_many(connection, _LEAVE_GROUP, wrong)

    def unnamed_beside(self, person_id: str, *, limit: int) -> list[str]:
        """Return unnamed faces that are in one group with faces of a person, but with nobody else's."""
        own = self._of(_FACE.group_id).where(_FACE.person_id == person_id, _FACE.group_id.is_not(None)).distinct()
        groups = {person_id, *(row.group_id for row in rows(self.database, own))}
        found: list[str] = []
        for some in chunks(sorted(groups), _AT_ONCE):
            of_others = self._of(_FACE.group_id).where(
                _FACE.group_id.in_(some), _FACE.person_id.is_not(None), _FACE.person_id != person_id
            )
            left = set(some) - {row.group_id for row in rows(self.database, of_others.distinct())}
            unnamed = self._of(_FACE.face_id).where(
                _FACE.group_id.in_(left), _FACE.person_id.is_(None), _FACE.dismissed.is_(None)
            )
            found += [row.face_id for row in rows(self.database, unnamed.limit(limit - len(found)))]
            if len(found) >= limit:
                break
        return found

    def counts(self, person_ids: Sequence[str]) -> dict[str, int]:
        """Return the number of faces of people; those without a face are left out."""
        found: dict[str, int] = {}
        for some in chunks(person_ids, _AT_ONCE):
            query = self._of(_FACE.person_id, func.count().label("faces")).where(_FACE.person_id.in_(some))
            found |= {row.person_id: row.faces for row in rows(self.database, query.group_by(_FACE.person_id))}
        return found

    def covers(self, people: Mapping[str, str | None]) -> dict[str, str]:
        """Return a face for each person: that of the cover; those without a face are left out.

        If the index does not have the cover, such as after its picture was deleted: of the faces that it has, the one
        that the person has had for the longest time.

        Args:
            people: the assignment of the cover by person_id.
        """
        found: dict[str, str] = {}
        chosen = [person_id for person_id, cover in people.items() if cover is not None]
        for some in chunks(chosen, _AT_ONCE):  # two people may have one cover, of which it was taken away from one
            exact = self._of(_FACE.person_id, _FACE.assignment_id, _FACE.face_id).where(
                _FACE.person_id.in_(some), _FACE.assignment_id.in_({people[one] for one in some})
            )
            of_cover = rows(self.database, exact)
            found |= {row.person_id: row.face_id for row in of_cover if row.assignment_id == people[row.person_id]}
        for some in chunks([one for one in people if one not in found], _AT_ONCE):
            # dates are equally long texts, as are ids
            first = func.min(ASSIGNMENTS.c.assigned_at.concat(_FACE.face_id)).label("first")
            query = self._of(_FACE.person_id, first).join(ASSIGNMENTS, ASSIGNMENTS.c.id == _FACE.assignment_id)
            query = query.where(_FACE.person_id.in_(some)).group_by(_FACE.person_id)
            found |= {row.person_id: row.first[-_ID:] for row in rows(self.database, query)}
        return found

    def _of(self, *columns: ColumnElement[Any]) -> Select[Any]:
        return select(*columns).where(_FACE.collection == self._collection)

    def _row(self, names: FaceNames) -> tuple[object, ...]:
        copies = (names.person_id, names.assignment_id, names.dismissed)
        return self._collection, names.face_id, names.image_id, None, 1, *copies
