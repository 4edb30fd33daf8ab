"""The groups of an index's faces, as `oceano group` keeps them: what a run reads and writes, in batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, and_, delete, exists, func, or_, select, update
from sqlalchemy.sql import ColumnElement

from app.catalog.database import AnyRow, Database, insert_or_update, rows
from app.catalog.retry import retried
from app.catalog.tables import FACES, FILES, PEOPLE
from app.core.iteration import chunks

_FACE: Final = FACES.c
_OTHER: Final = FACES.alias("other").c
_AT_ONCE: Final = 500  # values of one query
_FEW: Final = 20  # groups of one query; they may be large
_IMAGES: Final = 10_000  # of one read
_GROUPED: Final = ("group_id", "clear")
_NO_FACE: Final = "not_a_face"
_IS_A_FACE: Final = or_(_FACE.dismissed.is_(None), _FACE.dismissed != _NO_FACE)


@dataclass(frozen=True, slots=True)
class GroupedFace:
    """A face that was looked at.

    Attributes:
        face_id: the face.
        image_id: its image.
        group_id: of its group: a person's id, or that of one of the group's faces. A face that is like no other is a
            group of its own.
        clear: whether it may found groups and make them merge.
    """

    face_id: str
    image_id: str
    group_id: str
    clear: bool


@dataclass(frozen=True, slots=True)
class KnownFace:
    """What the table says about a face.

    Attributes:
        group_id: of its group; None: it was not looked at yet.
        person_id: whom it is assigned to.
        is_face: False if somebody said that it is not a face.
    """

    group_id: str | None
    person_id: str | None
    is_face: bool


@dataclass(frozen=True, slots=True)
class Member:
    """A face of a group; as in `GroupedFace`, and whom it is assigned to."""

    group_id: str
    face_id: str
    image_id: str
    clear: bool
    person_id: str | None


class FaceTable:
    """The rows of one collection. Safe for threads.

    Names are copied into the same rows (`CopiedNames`); neither changes what the other wrote.

    All methods raise OceanoError: `ledger_unavailable` or `disk_full`.

    Args:
        database: the catalog.
        collection: full name of the index's collection.
    """

    def __init__(self, database: Database, collection: str) -> None:
        self.database = database
        self.collection = collection
        self._mine = _FACE.collection == collection

    def images_to_group(self, after: str = "", limit: int = _IMAGES) -> list[tuple[str, int]]:
        """Return images with faces that were not looked at yet, in the order of their ids, and their number of faces.

        Args:
            after: the last image of the page before.
            limit: the largest number of images.
        """
        looked_at = self._mine & or_(_FACE.group_id.is_not(None), ~_IS_A_FACE)
        known = (
            select(_FACE.image_id, func.count().label("faces"))
            .where(looked_at, _FACE.image_id > after)
            .group_by(_FACE.image_id)
            .subquery()
        )
        query = (
            select(FILES.c.image_id, FILES.c.faces)
            .outerjoin(known, FILES.c.image_id == known.c.image_id)
            .where(
                FILES.c.collection == self.collection,
                FILES.c.status == "done",
                FILES.c.image_id > after,
                func.coalesce(known.c.faces, 0) < FILES.c.faces,
            )
            .order_by(FILES.c.image_id)
            .limit(limit)
        )
        return [(row.image_id, row.faces) for row in rows(self.database, query)]

    def known(self, face_ids: Iterable[str]) -> dict[str, KnownFace]:
        """Return what the table says about faces; those that it does not have are left out."""
        query = select(_FACE.face_id, _FACE.group_id, _FACE.person_id, _FACE.dismissed)
        return {
            row.face_id: KnownFace(row.group_id, row.person_id, row.dismissed != _NO_FACE)
            for some in chunks(face_ids, _AT_ONCE)
            for row in rows(self.database, query.where(self._mine, _FACE.face_id.in_(some)))
        }

    def members(self, group_ids: Sequence[str]) -> Iterator[Member]:
        """Yield the faces of groups; those of one group follow each other, in the order of their ids."""
        query = select(_FACE.group_id, _FACE.face_id, _FACE.image_id, _FACE.clear, _FACE.person_id)
        query = query.order_by(_FACE.group_id, _FACE.face_id)
        for some in chunks(group_ids, _FEW):
            for row in rows(self.database, query.where(self._mine, _FACE.group_id.in_(some))):
                yield Member(row.group_id, row.face_id, row.image_id, bool(row.clear), row.person_id)

    @retried
    def groups_among(self, group_ids: Sequence[str]) -> set[str]:
        """Return which of these groups exist."""
        with self.database.reading() as connection:
            return self._groups_among(connection, group_ids)

    @retried
    def write(self, faces: Sequence[GroupedFace], merged: Sequence[tuple[str, str]] = ()) -> None:
        """Record the groups of faces in one transaction; names stay as they are.

        Args:
            faces: the faces that were looked at.
            merged: groups that became part of another one: the old and the new id.
        """
        with self.database.writing() as connection:
            for old, new in merged:
                self._rename(connection, old, new)
            put = insert_or_update(FACES, connection.dialect.name, _GROUPED)
            for some in chunks(faces, _IMAGES):
                connection.execute(put, [self._row(one) for one in some])

    @retried
    def forget_groups(self, face_ids: Sequence[str]) -> None:
        """Let faces be looked at again, as if they were new."""
        with self.database.writing() as connection:
            for some in chunks(face_ids, _AT_ONCE):
                self._set_group(connection, None, _FACE.face_id.in_(some))

    @retried
    def forget_all_groups(self) -> None:
        """Let all faces be looked at again."""
        with self.database.writing() as connection:
            self._set_group(connection, None, _FACE.group_id.is_not(None))

    @retried
    def follow_names(self) -> None:
        """Bring the groups in line with the names, in one transaction.

        A named face is in the group of its person. The rest of its group goes with it if the face is clear and the
        person has no group yet, and is looked at again if clear faces of it are of several people, or of somebody who
        has a group. Faces in the group of a person without a named face are looked at again. What is not a face has no
        group.
        """
        elsewhere = _FACE.person_id.is_not(None) & (_FACE.group_id != _FACE.person_id) & _IS_A_FACE
        with self.database.writing() as connection:
            self._set_group(connection, None, ~_IS_A_FACE & _FACE.group_id.is_not(None))
            moved = select(_FACE.group_id, _FACE.person_id).where(self._mine, elsewhere, _FACE.clear == 1).distinct()
            found = connection.execute(moved.order_by(_FACE.group_id, _FACE.person_id)).all()
            have_one = self._groups_among(connection, {row.person_id for row in found})
            self._set_group(connection, _FACE.person_id, elsewhere)
            self._move_rest(connection, found, have_one)
            named = exists().where(_OTHER.collection == self.collection, _OTHER.person_id == _FACE.group_id)
            left = _FACE.group_id.in_(select(PEOPLE.c.id)) & ~named
            self._set_group(connection, None, left)

    def count_new(self) -> int:
        """Return how many faces of the ledger were not looked at yet, about."""
        query = select(func.count()).select_from(FACES)
        looked_at = query.where(self._mine, or_(_FACE.group_id.is_not(None), ~_IS_A_FACE))
        return max(0, self._in_ledger() - int(rows(self.database, looked_at)[0][0]))

    def has_more_than_ledger(self) -> bool:
        """Return whether the table has more faces than the ledger: images were deleted."""
        mine = select(func.count()).select_from(FACES).where(self._mine)
        return int(rows(self.database, mine)[0][0]) > self._in_ledger()

    def without_image(self) -> Iterator[list[str]]:
        """Yield face_ids, in lists, of images that the ledger does not have any more; perhaps the index has them."""
        after = ""
        done = select(FILES.c.image_id).where(FILES.c.collection == self.collection, FILES.c.status == "done")
        page = select(_FACE.face_id, _FACE.image_id).where(self._mine).order_by(_FACE.face_id).limit(_IMAGES)
        while found := rows(self.database, page.where(_FACE.face_id > after)):
            after = found[-1].face_id
            here: set[str] = set()
            for some in chunks({row.image_id for row in found}, _AT_ONCE):
                here.update(row.image_id for row in rows(self.database, done.where(FILES.c.image_id.in_(some))))
            if gone := [row.face_id for row in found if row.image_id not in here]:
                yield gone

    @retried
    def remove(self, face_ids: Sequence[str]) -> None:
        """Delete the rows of faces."""
        with self.database.writing() as connection:
            for some in chunks(face_ids, _AT_ONCE):
                connection.execute(delete(FACES).where(self._mine, _FACE.face_id.in_(some)))

    def _in_ledger(self) -> int:
        done = (FILES.c.collection == self.collection) & (FILES.c.status == "done")
        return int(rows(self.database, select(func.coalesce(func.sum(FILES.c.faces), 0)).where(done))[0][0])

    def _groups_among(self, connection: Connection, group_ids: Iterable[str]) -> set[str]:
        found: set[str] = set()
        for some in chunks(sorted(group_ids), _AT_ONCE):
            query = select(_FACE.group_id).where(self._mine, _FACE.group_id.in_(some)).distinct()
            found.update(connection.execute(query).scalars())
        return found

    def _move_rest(self, connection: Connection, moved: Sequence[AnyRow], have_one: set[str]) -> None:
        """Move what is left of groups whose clear named faces were moved: pairs of a group and a person."""
        persons: dict[str, list[str]] = defaultdict(list)
        for row in moved:
            persons[row.group_id].append(row.person_id)
        alive: set[str] = set()
        for some in chunks(persons, _AT_ONCE):
            alive.update(connection.execute(select(PEOPLE.c.id).where(PEOPLE.c.id.in_(some))).scalars())
        for group_id, of_group in persons.items():
            if group_id in alive:  # the person keeps the rest
                continue
            person_id = of_group[0]
            if len(of_group) == 1 and person_id not in have_one:
                have_one.add(person_id)
                self._rename(connection, group_id, person_id)
            else:
                self._set_group(connection, None, _FACE.group_id == group_id)

    def _rename(self, connection: Connection, old: str, new: str) -> None:
        self._set_group(connection, new, _FACE.group_id == old)

    def _set_group(self, connection: Connection, group: Any, where: ColumnElement[bool]) -> None:
        connection.execute(update(FACES).where(and_(self._mine, where)).values(group_id=group))

    def _row(self, face: GroupedFace) -> dict[str, object]:
        return {
            "collection": self.collection,
            "face_id": face.face_id,
            "image_id": face.image_id,
            "group_id": face.group_id,
            "clear": int(face.clear),
        }
