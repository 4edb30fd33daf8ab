"""The audit log in the catalog: a chain of entries, each with a digest of itself and of the one before it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, LargeBinary, and_, case, cast, delete, func, insert, literal, select
from sqlalchemy.sql import ColumnElement, Select

from app.catalog.database import AnyRow, Database, rows, storable
from app.catalog.retry import retried
from app.catalog.tables import AUDIT

PRUNED: Final = "audit.pruned"
NO_DIGEST: Final = ""  # before the first entry
_ENTRY: Final = AUDIT.c
_PAGE: Final = 2000
_PRUNED_AT_ONCE: Final = 10_000  # a transaction; others wait for it
_LOCK: Final = 0x0CEA_0003  # any number that only Oceano uses in its database
_NEWEST: Final = select(AUDIT).order_by(_ENTRY.number.desc()).limit(1)
_INSERT: Final = insert(AUDIT)
_TEXTS: Final = (_ENTRY.at, _ENTRY.who, _ENTRY.address, _ENTRY.action, _ENTRY.purpose, _ENTRY.details, _ENTRY.digest)


@dataclass(frozen=True, slots=True)
class NewEntry:
    """Something that was done, before it has a number.

    Attributes:
        at: when, as `audit_time` writes it.
        who: as in `app.security.Access`, or such as `command ana@host`.
        address: of the client; None for commands.
        action: dotted, such as `search.more`.
        purpose: why; None if nobody said so.
        details: a JSON object.
    """

    at: str
    who: str
    address: str | None
    action: str
    purpose: str | None
    details: str


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An entry of the log: `NewEntry` with its number, from 1, and its digest, 64 hexadecimal digits."""

    number: int
    at: str
    who: str
    address: str | None
    action: str
    purpose: str | None
    details: str
    digest: str


@dataclass(frozen=True, slots=True)
class RawEntry:
    """An entry as the database has it: bytes of text that may be damaged; `is_text` says whether all are text."""

    number: int
    texts: tuple[bytes | None, ...]
    is_text: bool


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries are asked for.

    Attributes:
        who: the whole text, or its beginning before a `*`; empty: all.
        action: the same; `search*` are all searches.
        since: least `at`; empty: any.
        until: `at` must be less; empty: any.
    """

    who: str = ""
    action: str = ""
    since: str = ""
    until: str = ""


@dataclass(frozen=True, slots=True)
class Pruned:
    """The last entry that was pruned, as an entry `audit.pruned` says; `at` is the time of the latter."""

    through: int
    digest: str
    at: str


def audit_time(at: datetime | None = None) -> str:
    """Return a time as entries have it: ISO 8601 in UTC, to the millisecond; without an argument it is now."""
    return (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="milliseconds")


def chained(number: int, texts: Sequence[str | None], before: str) -> str:
    """Return the digest of an entry: SHA-256 of a JSON list of its number, its texts and the digest before it.

    Args:
        number: of the entry.
        texts: at, who, address, action, purpose, details.
        before: digest of the entry before it.
    """
    content = json.dumps([number, *texts, before], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


class AuditLog:
    """The audit log of a catalog. Safe for threads; any number of processes and machines may append at the same time.

    All methods raise OceanoError: `ledger_unavailable` or `disk_full`.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def append(self, entries: Sequence[NewEntry]) -> list[AuditEntry]:
        """Add entries in one durable transaction, in their order; return them with their numbers."""
        with self.database.writing(urgent=True) as connection:
            lock_audit(connection)
            return _append(connection, entries)

    @retried
    def newest(self) -> AuditEntry | None:
        """Return the entry with the highest number; None if there is none."""
        with self.database.reading() as connection:
            return _newest(connection)

    @retried
    def newest_number(self) -> int | None:
        """Return the highest number; None if there is no entry."""
        with self.database.reading() as connection:
            number: int | None = connection.execute(select(func.max(_ENTRY.number))).scalar_one()
        return number

    @retried
    def oldest(self) -> int | None:
        """Return the least number; None if there is no entry."""
        with self.database.reading() as connection:
            number: int | None = connection.execute(select(func.min(_ENTRY.number))).scalar_one()
        return number

    def find(self, wanted: AuditFilter, *, before: int | None = None, limit: int = 100) -> list[AuditEntry]:
        """Return entries, newest first.

        Args:
            wanted: which.
            before: only entries with a lower number; None: from the newest.
            limit: the most of them.
        """
        query = select(AUDIT).where(*_conditions(wanted))
        if before is not None:
            query = query.where(_ENTRY.number < before)
        found = rows(self.database, query.order_by(_ENTRY.number.desc()).limit(limit))
        return [_entry(row) for row in found]

    def all(self, wanted: AuditFilter) -> Iterator[AuditEntry]:
        """Yield entries, oldest first, read in pages."""
        query = select(AUDIT).where(*_conditions(wanted)).order_by(_ENTRY.number).limit(_PAGE)
        after = 0
        while found := rows(self.database, query.where(_ENTRY.number > after)):
            yield from map(_entry, found)
            after = found[-1].number

    def raw_page(self, after: int, through: int) -> list[RawEntry]:
        """Return the next entries with a number above `after`, as they are in the database, in their order.

        Args:
            after: a number.
            through: the highest number.
        """

        def read() -> list[RawEntry]:
            with self.database.reading() as connection:
                found = connection.execute(_raw(connection.dialect.name, after, through)).all()
            return [RawEntry(row[0], tuple(row[2:]), bool(row[1])) for row in found]

        return self.database.retries.run(read)

    def digests(self, numbers: Sequence[int]) -> Mapping[int, str]:
        """Return the digests of entries by number; a number without an entry is left out. At most some hundred."""
        query = select(_ENTRY.number, _ENTRY.digest).where(_ENTRY.number.in_(numbers))
        return {row.number: row.digest for row in rows(self.database, query)}

    def pruned(self, through: int | None = None) -> Pruned | None:
        """Return what an entry says was pruned last; with `through`, the entry that says so of this number."""
        query = select(_ENTRY.details, _ENTRY.at).where(_ENTRY.action == PRUNED).order_by(_ENTRY.number.desc())
        for row in rows(self.database, query if through is not None else query.limit(1)):
            found = read_pruned(row.details, str(row.at))
            if found is not None and through in (None, found.through):
                return found
        return None

    def prune(self, before: str, who: str) -> int:
        """Delete the entries before a time, from the beginning; an entry `audit.pruned` says which.

        Args:
            before: entries up to the first one with this `at` or a later one are deleted.
            who: of that entry.

        Returns:
            The number of deleted entries.
        """
        total = 0
        while deleted := self._prune_some(before, who):
            total += deleted
        return total

    def _prune_some(self, before: str, who: str) -> int:
        with self.database.writing(urgent=True) as connection:
            lock_audit(connection)
            query = select(_ENTRY.number, _ENTRY.at, _ENTRY.action, _ENTRY.digest).order_by(_ENTRY.number)
            some = connection.execute(query.limit(_PRUNED_AT_ONCE)).all()
            deleted = next((place for place, row in enumerate(some) if row.at >= before), len(some))
            are_left = deleted == len(some) and all(row.action == PRUNED for row in some)  # by an earlier pruning
            if not deleted or are_left:
                return 0
            last = some[deleted - 1]
            connection.execute(delete(AUDIT).where(_ENTRY.number <= last.number))
            details = {"through": last.number, "digest": last.digest, "entries": deleted}
            entry = NewEntry(audit_time(), who, None, PRUNED, None, json.dumps(details))
            _append(connection, [entry], after=(last.number, last.digest))
            return deleted


def read_pruned(details: str | bytes, at: str) -> Pruned | None:
    """Return what the details of an entry `audit.pruned` say; None if they are of another kind."""
    try:
        found = json.loads(details)
        return Pruned(int(found["through"]), str(found["digest"]), at)
    except (ValueError, TypeError, KeyError):
        return None


def lock_audit(connection: Connection) -> None:
    """Let no other process append until the transaction ends; a write transaction of SQLite is alone anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))


def _append(
    connection: Connection, entries: Sequence[NewEntry], *, after: tuple[int, str] = (0, NO_DIGEST)
) -> list[AuditEntry]:
    """Append in a transaction.

    Args:
        connection: has the lock.
        entries: to add.
        after: number and digest of the last entry if the log is empty by now.
    """
    newest = _newest(connection)
    number, digest = after if newest is None else (newest.number, newest.digest)
    added: list[AuditEntry] = []
    for entry in entries:
        number += 1
        clean = NewEntry(
            at=entry.at,
            who=_storable(entry.who),
            address=storable(entry.address),
            action=_storable(entry.action),
            purpose=storable(entry.purpose),
            details=_storable(entry.details),
        )
        values = {name: getattr(clean, name) for name in NewEntry.__slots__}
        digest = chained(number, [*values.values()], digest)
        added.append(AuditEntry(number=number, digest=digest, **values))
    if added:
        connection.execute(_INSERT, [{name: getattr(one, name) for name in AuditEntry.__slots__} for one in added])
    return added


def _storable(text: str) -> str:
    return storable(text) or ""


def _newest(connection: Connection) -> AuditEntry | None:
    row = connection.execute(_NEWEST).one_or_none()
    return None if row is None else _entry(row)


def _entry(row: AnyRow) -> AuditEntry:
    return AuditEntry(row.number, row.at, row.who, row.address, row.action, row.purpose, row.details, row.digest)


def _conditions(wanted: AuditFilter) -> list[ColumnElement[bool]]:
    found = [
        column.startswith(text[:-1], autoescape=True) if text.endswith("*") else column == text
        for column, text in ((_ENTRY.who, wanted.who), (_ENTRY.action, wanted.action))
        if text
    ]
    found += [_ENTRY.at >= wanted.since] if wanted.since else []
    found += [_ENTRY.at < wanted.until] if wanted.until else []
    return found


def _raw(dialect: str, after: int, through: int) -> Select[Any]:
    """Return a query of bytes: text that is damaged in SQLite's file could not be read as text."""
    columns: list[ColumnElement[Any]]
    if dialect == "sqlite":
        are_texts = and_(*(func.typeof(column).in_(("text", "null")) for column in _TEXTS))
        is_text: ColumnElement[Any] = case((are_texts, 1), else_=0)
        columns = [cast(column, LargeBinary) for column in _TEXTS]
    else:
        is_text = literal(1)
        columns = [func.convert_to(column, "UTF8") for column in _TEXTS]
    query = select(_ENTRY.number, is_text.label("is_text"), *columns)
    return query.where(_ENTRY.number > after, _ENTRY.number <= through).order_by(_ENTRY.number).limit(_PAGE)
