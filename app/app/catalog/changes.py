"""Changes to the people of a catalog: each is one transaction and an entry of a journal, and can be undone."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Table, delete, func, insert, select, text, update

from app.catalog.clock import timestamp
from app.catalog.covers import choose_covers
from app.catalog.database import AnyRow, Database, execute_many, insert_or_ignore, insert_or_replace, rows, storable
from app.catalog.people import Place
from app.catalog.tables import ASSIGNMENTS, CHANGED_PEOPLE, CHANGED_ROWS, CHANGES, PEOPLE
from app.catalog.undoing import COVERS, conflict, put_back
from app.core.errors import OceanoError
from app.core.iteration import chunks

Row = dict[str, Any]
"""The values of a row by column."""

_LOCK: Final = 0x0CEA_0004  # any number that only Oceano uses in its database
_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Change:
    """A change, as the journal has it.

    Attributes:
        number: from 1; later changes have higher ones.
        at: UTC, ISO 8601.
        who: as in `app.security.Access`.
        kind: such as `assign`.
        faces: number of faces that it was about.
        details: for people, such as names.
        undoes: number of the change that it undid.
        undone_by: number of the change that undid it.
    """

    number: int
    at: str
    who: str
    kind: str
    faces: int
    details: Mapping[str, Any]
    undoes: int | None = None
    undone_by: int | None = None


@dataclass(frozen=True, slots=True)
class NewChange:
    """A change before it is made.

    Attributes:
        who: as in `Change`.
        kind: as in `Change`.
        details: as in `Change`; more may be added while it is made.
        key: of an idempotent request; None: each request is a change of its own.
        request: what the request asked for, as text, to refuse the key for another one.
    """

    who: str
    kind: str
    details: dict[str, Any] = field(default_factory=dict)
    key: str | None = None
    request: str = ""


@dataclass(frozen=True, slots=True)
class Removal:
    """The change by which somebody is not there any more.

    Attributes:
        change: the change.
        name: of the person before it; may be empty.
        merged_into: id of the person who has got the faces; None: the person was deleted.
    """

    change: Change
    name: str
    merged_into: str | None


class AlreadyDone(Exception):
    """An idempotent request that was answered before; `change` is what it did."""

    def __init__(self, change: Change) -> None:
        super().__init__(change.number)
        self.change = change


class ChangeLog:
    """The journal of a catalog. Safe for threads; any number of processes may change people at the same time.

    All methods raise OceanoError: `ledger_unavailable` or `disk_full`.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    @contextmanager
    def making(self, new: NewChange, versions: Mapping[str, int]) -> Iterator[Making]:
        """Make a change in one durable transaction; nothing of it is kept if the context ends with an error.

        Args:
            new: what is made.
            versions: the version that the request saw of each person that it changes.

        Raises:
            OceanoError: `person_unknown`; `person_changed` if a person has another version now; `invalid_request` if
                the key of an idempotent request was used for another one.
            AlreadyDone: the request was answered before.
        """
        with self.database.writing(urgent=True) as connection:
            lock_changes(connection)
            if new.key is not None:
                _require_new(connection, new)
            making = Making(connection, new)
            making.require(versions)
            yield making
            making.finish()

    def get(self, number: int) -> Change | None:
        """Return a change; None if there is none with this number."""
        found = rows(self.database, select(CHANGES).where(CHANGES.c.number == number))
        return _change(found[0]) if found else None

    def find(self, *, person_id: str | None = None, before: int | None = None, limit: int = 100) -> list[Change]:
        """Return changes, newest first.

        Args:
            person_id: only those of this person.
            before: only those with a lower number; None: from the newest.
            limit: the largest number of them.
        """
        query = select(CHANGES).order_by(CHANGES.c.number.desc()).limit(limit)
        if person_id is not None:
            of_person = select(CHANGED_PEOPLE.c.change).where(CHANGED_PEOPLE.c.person_id == person_id)
            query = query.where(CHANGES.c.number.in_(of_person))
        if before is not None:
            query = query.where(CHANGES.c.number < before)
        return [_change(row) for row in rows(self.database, query)]

    def later(self, number: int) -> Change | None:
        """Return the newest change of what a change did, or of a person whom it added; None if none is known."""
        people = select(CHANGED_PEOPLE.c.person_id).where(CHANGED_PEOPLE.c.change == number)
        of_people = (
            select(CHANGED_PEOPLE.c.change)
            .distinct()
            .where(CHANGED_PEOPLE.c.person_id.in_(people), CHANGED_PEOPLE.c.change > number)
        )
        newest = of_people.order_by(CHANGED_PEOPLE.c.change.desc()).limit(_AT_ONCE)
        is_said = CHANGED_ROWS.c.table_name != COVERS
        own = select(CHANGED_ROWS.c.row_id).where(CHANGED_ROWS.c.change == number, is_said)
        query = select(CHANGED_ROWS.c.change).where(
            CHANGED_ROWS.c.change.in_(newest), CHANGED_ROWS.c.row_id.in_(own), is_said
        )
        found = rows(self.database, query.order_by(CHANGED_ROWS.c.change.desc()).limit(1))
        if not found:
            added = own.where(CHANGED_ROWS.c.table_name == PEOPLE.name, CHANGED_ROWS.c.before.is_(None))
            of_added = select(CHANGED_PEOPLE.c.change).where(
                CHANGED_PEOPLE.c.person_id.in_(added), CHANGED_PEOPLE.c.change > number
            )
            found = rows(self.database, of_added.order_by(CHANGED_PEOPLE.c.change.desc()).limit(1))
        return self.get(found[0].change) if found else None

    def people_of(self, numbers: Sequence[int], limit: int) -> list[str]:
        """Return ids of the people whom changes were about and who are there still, by name, at most `limit`."""
        ids = select(CHANGED_PEOPLE.c.person_id).where(CHANGED_PEOPLE.c.change.in_(numbers))
        query = select(PEOPLE.c.id).where(PEOPLE.c.id.in_(ids)).order_by(PEOPLE.c.name_key, PEOPLE.c.id)
        return [str(row.id) for row in rows(self.database, query.limit(limit))]

    def removal_of(self, person_id: str) -> Removal | None:
        """Return the change that removed a person; None for somebody who is there, or never was."""
        newest = select(func.max(CHANGED_PEOPLE.c.change)).where(CHANGED_PEOPLE.c.person_id == person_id)
        query = select(CHANGED_ROWS).where(
            CHANGED_ROWS.c.change == newest.scalar_subquery(),
            CHANGED_ROWS.c.table_name == PEOPLE.name,
            CHANGED_ROWS.c.row_id == person_id,
            CHANGED_ROWS.c.after.is_(None),
        )
        found = rows(self.database, query)
        change = self.get(found[0].change) if found else None
        if change is None:
            return None
        is_merge = "merge" in (change.kind, change.details.get("undone"))  # an undone one that was done again, too
        into = change.details.get("person_id") if is_merge else None
        return Removal(change, json.loads(found[0].before)["name"], into)

    def newest_number(self) -> int:
        """Return the highest number; 0 if nothing was changed."""
        return int(rows(self.database, select(func.coalesce(func.max(CHANGES.c.number), 0)))[0][0])

    def images_after(self, number: int) -> list[str]:
        """Return the images whose faces later changes were about."""
        query = select(CHANGED_ROWS.c.image_id).where(
            CHANGED_ROWS.c.change > number, CHANGED_ROWS.c.image_id.is_not(None)
        )
        return [row.image_id for row in rows(self.database, query.distinct())]

    def undo(self, number: int, new: NewChange) -> Change:
        """Undo a change: each of its rows becomes what it was before.

        Args:
            number: of the change.
            new: the change that undoes it.

        Raises:
            OceanoError: `change_unknown`; `change_conflict` if it is undone already, or if a row has changed since.
            AlreadyDone: the request was answered before.
        """
        with self.making(new, {}) as making:
            making.undo(number)
        assert making.change is not None  # noqa: S101 - a change has rows, which were changed
        return making.change


class Making:
    """A change that is being made; `ChangeLog.making` opens it.

    Attributes:
        connection: in the transaction, to read what is there.
        change: the entry of the journal once the context has ended; None if nothing was changed.
        ratings: how well faces stand for a person, by their places, for the choice of covers.
    """

    def __init__(self, connection: Connection, new: NewChange) -> None:
        self.connection = connection
        self.change: Change | None = None
        self.ratings: dict[Place, float] = {}
        self._new = new
        self._undoes: int | None = None
        self._journal: list[Row] = []
        self._people: set[str] = set()
        self._faces: set[tuple[Any, ...]] = set()
        self._assigned: list[Row] = []
        self._covers: dict[str, tuple[str | None, str | None]] = {}  # before and after

    @property
    def details(self) -> dict[str, Any]:
        """Details of the change, to add to."""
        return self._new.details

    def require(self, versions: Mapping[str, int]) -> None:
        """Raise `person_unknown` or `person_changed` unless people have these versions, by id."""
        now = {row["id"]: row["version"] for row in self.rows(PEOPLE, "id", [*versions])}
        for person_id, version in versions.items():
            if (found := now.get(person_id)) is None:
                raise unknown_person(person_id)
            if found != version:
                raise OceanoError(
                    "person_changed",
                    f"this person was changed meanwhile: version {found}, and the request saw {version}. Load the "
                    "person again",
                    details={"person_id": person_id, "version": found},
                )

    def rows(self, table: Table, column: str, values: Sequence[str]) -> list[Row]:
        """Return the rows of a table whose column has one of some values."""
        found: list[Row] = []
        for some in chunks([*dict.fromkeys(values)], _AT_ONCE):
            query = select(table).where(table.c[column].in_(some))
            found += [dict(row) for row in self.connection.execute(query).mappings()]
        return found

    def by_image(self, table: Table, image_ids: Sequence[str]) -> dict[str, list[Row]]:
        """Return the rows of a table about some images, by image; for others, an empty list."""
        found: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows(table, "image_id", image_ids):
            found[row["image_id"]].append(row)
        return found

    def put(self, table: Table, pairs: Sequence[tuple[Row | None, Row]]) -> None:
        """Insert or replace rows.

        Args:
            table: of people, assignments, rejections or dismissals.
            pairs: each row before the change, None for a new one, and after it.
        """
        changed = [(before, _clean(after)) for before, after in pairs if before != after]
        added = [after for before, after in changed if before is None]
        execute_many(self.connection, insert(table), added)
        replaced = [after for before, after in changed if before is not None]
        execute_many(self.connection, insert_or_replace(table, self.connection.dialect.name), replaced)
        for before, after in changed:
            self._note(table, before, after)

    def delete(self, table: Table, gone: Sequence[Row]) -> None:
        """Delete rows."""
        for some in chunks([row["id"] for row in gone], _AT_ONCE):
            self.connection.execute(delete(table).where(table.c.id.in_(some)))
        for row in gone:
            self._note(table, row, None)

    def undo(self, number: int) -> None:
        """Put back what the rows of a change were before it."""
        change = self.connection.execute(select(CHANGES).where(CHANGES.c.number == number)).one_or_none()
        if change is None:
            raise OceanoError("change_unknown", f"there is no change {number}", details={"change": number})
        if change.undone_by is not None:
            raise conflict(number, f"change {number} is undone already", "undone")
        self._undoes = number
        before = json.loads(change.details)
        self.details.update(before)
        if change.kind == "undo":  # `undone` stays the kind of the change that was undone, and is done again
            self.details["again"] = not before.get("again", False)
        else:
            self.details["undone"] = change.kind
        put_back(self, number)
        self._mark(change.undoes)

    def _mark(self, number: int | None) -> None:
        """Record that a change, which was undone, counts again; so what it had undone does not, and so on."""
        undone_by: int | None = None
        while number is not None:
            row = CHANGES.c.number == number
            self.connection.execute(update(CHANGES).where(row).values(undone_by=undone_by))
            undone_by = number if undone_by is None else None
            number = self.connection.execute(select(CHANGES.c.undoes).where(row)).scalar_one()

    def set_cover(self, person_id: str, before: str | None, after: str | None) -> None:
        """Set a cover that nobody chose: it follows from the faces, so it never stands in the way of an undo."""
        self.connection.execute(update(PEOPLE).where(PEOPLE.c.id == person_id).values(cover=after))
        first, _ = self._covers.get(person_id, (before, None))
        self._covers[person_id] = (first, after)

    def finish(self) -> None:
        """Count the faces of the people, choose their covers, raise their versions and write the journal.

        Nothing if nothing changed.
        """
        if not self._journal:
            return
        for person_id, before, after in choose_covers(self.connection, self._people, self._assigned, self.ratings):
            self.set_cover(person_id, before, after)
        for person_id, (cover_before, cover_after) in sorted(self._covers.items()):
            self._write_down(COVERS, person_id, None, {"cover": cover_before}, {"cover": cover_after})
        connection, now = self.connection, timestamp()
        number = int(connection.execute(select(func.coalesce(func.max(CHANGES.c.number), 0))).scalar_one()) + 1
        self.change = Change(
            number, now, self._new.who, self._new.kind, len(self._faces), self.details, undoes=self._undoes
        )
        values = {name: getattr(self.change, name) for name in Change.__slots__}
        values |= {"who": storable(self._new.who), "details": _json(self.details)}
        values |= {"key": self._new.key, "request": self._new.request}
        connection.execute(insert(CHANGES).values(values))
        journal = [{**row, "change": number, "place": place} for place, row in enumerate(self._journal)]
        execute_many(connection, insert(CHANGED_ROWS), journal)
        people = [{"person_id": person_id, "change": number} for person_id in sorted(self._people)]
        execute_many(connection, insert_or_ignore(CHANGED_PEOPLE, connection.dialect.name), people)
        if self._undoes is not None:
            connection.execute(update(CHANGES).where(CHANGES.c.number == self._undoes).values(undone_by=number))
        counted = select(func.count()).where(ASSIGNMENTS.c.person_id == PEOPLE.c.id).scalar_subquery()
        for some in chunks(sorted(self._people), _AT_ONCE):
            touched = update(PEOPLE).where(PEOPLE.c.id.in_(some))
            connection.execute(touched.values(faces=counted, version=PEOPLE.c.version + 1, changed_at=now))

    def _note(self, table: Table, before: Row | None, after: Row | None) -> None:
        row = after or before
        assert row is not None  # noqa: S101 - one of the two is there
        if table is PEOPLE:
            self._people.add(row["id"])
        else:
            self._people.update(one["person_id"] for one in (before, after) if one and "person_id" in one)
            if table is ASSIGNMENTS and after is not None:
                self._assigned.append(after)
            self._faces.add((row["image_id"], row["page"], row["x1"], row["y1"], row["x2"], row["y2"]))
        self._write_down(table.name, row["id"], row.get("image_id"), before, after)

    def _write_down(self, table: str, row_id: str, image_id: str | None, before: Row | None, after: Row | None) -> None:
        self._journal.append(
            {
                "table_name": table,
                "row_id": row_id,
                "image_id": image_id,
                "before": None if before is None else _json(before),
                "after": None if after is None else _json(after),
            }
        )


def unknown_person(person_id: str) -> OceanoError:
    """Return the error for an id that nobody has."""
    return OceanoError("person_unknown", "there is no person with this id", details={"person_id": person_id})


def lock_changes(connection: Connection) -> None:
    """Let changes be made one after the other, so that none has a number below that of an earlier one."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})


def _require_new(connection: Connection, new: NewChange) -> None:
    row = connection.execute(select(CHANGES).where(CHANGES.c.key == new.key)).one_or_none()
    if row is None:
        return
    if row.request != new.request:
        raise OceanoError(
            "invalid_request",
            "this Idempotency-Key was used for another request",
            details={"field": "Idempotency-Key", "change": row.number},
        )
    raise AlreadyDone(_change(row))


def _change(row: AnyRow) -> Change:
    return Change(row.number, row.at, row.who, row.kind, row.faces, json.loads(row.details), row.undoes, row.undone_by)


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def _clean(row: Row) -> Row:
    return {name: storable(value) if isinstance(value, str) else value for name, value in row.items()}
