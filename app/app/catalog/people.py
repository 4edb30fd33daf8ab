"""The people in the catalog: their names, whose face each face is, and what was said about faces besides."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import RowMapping, Table, exists, func, or_, select, tuple_, union
from sqlalchemy.sql import ColumnElement, Select

from app.catalog.database import Database
from app.catalog.retry import retried
from app.catalog.tables import ASSIGNMENTS, DISMISSALS, PEOPLE, REJECTIONS
from app.core.boxes import overlap
from app.core.iteration import chunks
from app.core.types import BBox

Source = Literal["manual", "confirmed", "metadata"]
DismissalKind = Literal["set_aside", "not_a_face"]
Order = Literal["faces", "name"]

MAX_KEY: Final = 500
"""Characters of a name that searches and orders compare: some characters stand for many."""

_PERSON: Final = PEOPLE.c
_SAME_FACE: Final = 0.4  # overlap of the boxes of two detectors; those of two faces seldom reach 0.1
_AT_ONCE: Final = 500  # values of one query


@dataclass(frozen=True, slots=True)
class Person:
    """A person.

    Attributes:
        id: a UUID.
        name: any text; may be empty, and several people may have the same.
        hidden: left out of what shows or offers people, unless it is asked for.
        cover: id of the assignment whose face stands for the person; None: there was none yet.
        birth_date: ISO 8601, as far as it is known: 1970, 1970-05 or 1970-05-17.
        notes: any text.
        faces: number of assignments.
        created_at: UTC, ISO 8601.
        changed_at: UTC, ISO 8601.
        version: one more with each change, also of the person's faces.
    """

    id: str
    name: str
    hidden: bool
    cover: str | None
    birth_date: str | None
    notes: str | None
    faces: int
    created_at: str
    changed_at: str
    version: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a face is, whatever the model: the image, its page from 0, and the bounding box on the upright image."""

    image_id: str
    page: int
    bbox: BBox


@dataclass(frozen=True, slots=True)
class Assignment:
    """A face that shows a person.

    Attributes:
        id: a UUID.
        person_id: whom.
        place: the face.
        source: named by hand, a confirmed suggestion, or read from the metadata of the picture.
        assigned_by: who did.
        assigned_at: UTC, ISO 8601.
    """

    id: str
    person_id: str
    place: Place
    source: Source
    assigned_by: str
    assigned_at: str


@dataclass(frozen=True, slots=True)
class Rejection:
    """A face that does not show a person, as somebody said."""

    id: str
    person_id: str
    place: Place


@dataclass(frozen=True, slots=True)
class Dismissal:
    """A face that nobody should be asked about again: set aside, or not a face at all."""

    id: str
    kind: DismissalKind
    place: Place


class PeopleStore:
    """Reads the people of a catalog. Safe for threads.

    All methods raise OceanoError: `ledger_unavailable` or `disk_full`.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def person(self, person_id: str) -> Person | None:
        """Return a person by the id."""
        return self.persons([person_id]).get(person_id)

    def persons(self, person_ids: Sequence[str]) -> dict[str, Person]:
        """Return people by their ids; unknown ids are left out."""
        return {row["id"]: to_person(row) for row in self._in(select(PEOPLE), _PERSON.id, person_ids)}

    def named(self, name: str) -> list[Person]:
        """Return the people with exactly this name, the oldest first."""
        query = select(PEOPLE).where(_PERSON.name_key == name_key(name), _PERSON.name == name)
        return [to_person(row) for row in self._rows(query.order_by(_PERSON.created_at, _PERSON.id))]

    def alike(self, name: str, limit: int) -> list[Person]:
        """Return the people with a name, whatever its case and accents, most faces first."""
        query = select(PEOPLE).where(_PERSON.name_key == name_key(name))
        return [to_person(row) for row in self._rows(query.order_by(_PERSON.faces.desc(), _PERSON.id).limit(limit))]

    def find(
        self,
        text: str = "",
        *,
        hidden: bool | None = False,
        order: Order = "faces",
        after: tuple[int | str, str] | None = None,
        limit: int = 100,
    ) -> list[Person]:
        """Return a page of people.

        Args:
            text: part of the name; case and accents do not matter. Empty: all.
            hidden: only those who are hidden, or who are not; None: both.
            order: most faces first, or by name.
            after: of the last person of the page before: number of faces or `name_key` of the name, and id.
            limit: the largest number.
        """
        query = select(PEOPLE).limit(limit)
        if hidden is not None:
            query = query.where(_PERSON.hidden == int(hidden))
        if text:
            query = query.where(_PERSON.name_key.contains(name_key(text), autoescape=True))
        if order == "name":
            if after is not None:
                query = query.where(tuple_(_PERSON.name_key, _PERSON.id) > tuple_(str(after[0]), after[1]))
            query = query.order_by(_PERSON.name_key, _PERSON.id)
        else:
            if after is not None:
                fewer = _PERSON.faces < int(after[0])
                query = query.where(or_(fewer, (_PERSON.faces == int(after[0])) & (_PERSON.id < after[1])))
            query = query.order_by(_PERSON.faces.desc(), _PERSON.id.desc())
        return [to_person(row) for row in self._rows(query)]

    @retried
    def count(self, *, hidden: bool | None = False) -> int:
        """Return the number of people; those who are hidden, who are not, or both."""
        query = select(func.count()).select_from(PEOPLE)
        if hidden is not None:
            query = query.where(_PERSON.hidden == int(hidden))
        with self.database.reading() as connection:
            return int(connection.execute(query).scalar_one())

    @retried
    def is_any(self) -> bool:
        """Return whether there is anybody."""
        with self.database.reading() as connection:
            return bool(connection.execute(select(exists().where(_PERSON.id.is_not(None)))).scalar_one())

    def assignments(self, assignment_ids: Sequence[str]) -> dict[str, Assignment]:
        """Return assignments by their ids; unknown ids are left out."""
        return {row["id"]: _assignment(row) for row in self._in(select(ASSIGNMENTS), ASSIGNMENTS.c.id, assignment_ids)}

    def assignments_in(self, image_ids: Sequence[str]) -> dict[str, list[Assignment]]:
        """Return the assignments of images by image; images without one are left out."""
        return self._by_image(ASSIGNMENTS, image_ids, _assignment)

    def assignments_of(self, person_id: str, *, after: str = "", limit: int | None = None) -> list[Assignment]:
        """Return the assignments of a person in the order of their ids, from the one after an id on."""
        query = select(ASSIGNMENTS).where(ASSIGNMENTS.c.person_id == person_id, ASSIGNMENTS.c.id > after)
        return [_assignment(row) for row in self._rows(query.order_by(ASSIGNMENTS.c.id).limit(limit))]

    def all_assignments(self, *, after: str = "", limit: int = 10_000) -> list[Assignment]:
        """Return a page of all assignments in the order of their ids, from the one after an id on."""
        query = select(ASSIGNMENTS).where(ASSIGNMENTS.c.id > after).order_by(ASSIGNMENTS.c.id).limit(limit)
        return [_assignment(row) for row in self._rows(query)]

    def rejections_in(self, image_ids: Sequence[str]) -> dict[str, list[Rejection]]:
        """Return the rejections of images by image; images without one are left out."""
        return self._by_image(REJECTIONS, image_ids, _rejection)

    def rejections_of(self, person_id: str) -> list[Rejection]:
        """Return the rejections of a person."""
        return [_rejection(row) for row in self._rows(select(REJECTIONS).where(REJECTIONS.c.person_id == person_id))]

    def all_rejections(self, *, after: str = "", limit: int = 10_000) -> list[Rejection]:
        """Return a page of all rejections in the order of their ids, from the one after an id on."""
        query = select(REJECTIONS).where(REJECTIONS.c.id > after).order_by(REJECTIONS.c.id).limit(limit)
        return [_rejection(row) for row in self._rows(query)]

    def dismissals_in(self, image_ids: Sequence[str]) -> dict[str, list[Dismissal]]:
        """Return the dismissals of images by image; images without one are left out."""
        return self._by_image(DISMISSALS, image_ids, _dismissal)

    @retried
    def named_images(self, *, after: str = "", limit: int = 10_000) -> list[str]:
        """Return a page of the images with assignments or dismissals, from the one after an id on."""
        parts = [select(table.c.image_id).where(table.c.image_id > after) for table in (ASSIGNMENTS, DISMISSALS)]
        found = union(*parts).subquery()
        query = select(found.c.image_id).order_by(found.c.image_id).limit(limit)
        with self.database.reading() as connection:
            return list(connection.execute(query).scalars())

    def together(self, person_id: str, *, hidden: bool | None = False) -> list[tuple[str, int]]:
        """Return the ids of people who are in images with a person, with the number of images, most first.

        Args:
            person_id: the person.
            hidden: only those who are hidden, or who are not; None: both.
        """
        own, other = ASSIGNMENTS.alias("own"), ASSIGNMENTS.alias("other")
        images = func.count(other.c.image_id.distinct()).label("images")
        query = select(other.c.person_id, images).join_from(own, other, own.c.image_id == other.c.image_id)
        query = query.where(own.c.person_id == person_id, other.c.person_id != person_id)
        if hidden is not None:
            query = query.join(PEOPLE, _PERSON.id == other.c.person_id).where(_PERSON.hidden == int(hidden))
        query = query.group_by(other.c.person_id).order_by(images.desc(), other.c.person_id)
        return [(row["person_id"], row["images"]) for row in self._rows(query)]

    def _by_image(self, table: Table, image_ids: Sequence[str], make: Any) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = defaultdict(list)
        for row in self._in(select(table), table.c.image_id, image_ids):
            found[row["image_id"]].append(make(row))
        return dict(found)

    def _in(self, query: Select[Any], column: ColumnElement[Any], values: Sequence[str]) -> list[RowMapping]:
        return [row for some in chunks([*dict.fromkeys(values)], _AT_ONCE) for row in self._rows(query, column, some)]

    @retried
    def _rows(
        self, query: Select[Any], column: ColumnElement[Any] | None = None, values: Sequence[str] = ()
    ) -> Sequence[RowMapping]:
        if column is not None:
            query = query.where(column.in_(values))
        with self.database.reading() as connection:
            return connection.execute(query).mappings().all()


def name_key(name: str) -> str:
    """Return what searches compare of a name: the beginning, without case, accents, and differences of width."""
    plain = unicodedata.normalize("NFKD", name.casefold())
    return "".join(sign for sign in plain if sign != "\0" and not unicodedata.combining(sign))[:MAX_KEY]


def to_person(row: Mapping[str, Any] | RowMapping) -> Person:
    """Return a person from a row of the table."""
    values = {name: row[name] for name in Person.__slots__}
    return Person(**{**values, "hidden": bool(values["hidden"])})


def is_same_face(one: Place, other: Place) -> bool:
    """Return whether two places are of one face, as two models may have found it."""
    if (one.image_id, one.page) != (other.image_id, other.page):
        return False
    return one.bbox == other.bbox or overlap(one.bbox, other.bbox) >= _SAME_FACE


def place_values(place: Place) -> dict[str, object]:
    """Return the columns of a place."""
    x1, y1, x2, y2 = place.bbox
    return {"image_id": place.image_id, "page": place.page, "x1": x1, "y1": y1, "x2": x2, "y2": y2}


def place_in(row: Mapping[str, Any] | RowMapping) -> Place:
    """Return the place of a row."""
    return Place(row["image_id"], row["page"], (row["x1"], row["y1"], row["x2"], row["y2"]))


def _assignment(row: RowMapping) -> Assignment:
    return Assignment(row["id"], row["person_id"], place_in(row), row["source"], row["assigned_by"], row["assigned_at"])


def _rejection(row: RowMapping) -> Rejection:
    return Rejection(row["id"], row["person_id"], place_in(row))


def _dismissal(row: RowMapping) -> Dismissal:
    return Dismissal(row["id"], row["kind"], place_in(row))
