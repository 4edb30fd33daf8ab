"""Opens the catalog: the SQLite file in `state/`, or the PostgreSQL database of `CATALOG_URL`."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError

from app import __version__
from app.catalog.adoption import adopting, put_aside
from app.catalog.database import Database
from app.catalog.ledger import Ledger
from app.catalog.schema import is_current, upgrade
from app.catalog.sqlite import SqliteDatabase
from app.core.errors import OceanoError
from app.core.locks import locked

CATALOG_FILE: Final = "catalog.sqlite3"
EARLIER_LEDGER: Final = "ledger.sqlite3"
_ADVISORY_LOCK: Final = 0x0CEA_0001  # any number that only Oceano uses in its database
_POSTGRESQL: Final = ("postgresql", "postgresql+psycopg", "postgres")
_SETTING: Final = "CATALOG_URL"
_EXAMPLE: Final = "postgresql+psycopg://oceano:PASSWORD@HOST:5432/oceano"


def open_sqlite(path: Path, first: Callable[[Connection], None] = lambda _: None) -> SqliteDatabase:
    """Open a catalog in a SQLite file; create or upgrade it if necessary.

    Args:
        path: the file.
        first: fills a new catalog, in the transaction that creates it.

    Raises:
        OceanoError: `ledger_unavailable` or `disk_full`.
    """
    database = SqliteDatabase(path)
    try:
        with database.reading() as connection:
            if is_current(connection, database.name):
                return database
        with locked(path.with_name(f".{path.name}.lock")), database.writing() as connection:
            _upgrade(connection, database.name, first)
    except BaseException:
        database.close()
        raise
    return database


def open_postgresql(
    url: str, first: Callable[[Connection], None] = lambda _: None, *, setting: str = _SETTING
) -> Database:
    """Open a catalog in a PostgreSQL database; create its tables or upgrade them if necessary.

    Args:
        url: such as `postgresql+psycopg://oceano:PASSWORD@HOST:5432/oceano`.
        first: as for `open_sqlite`.
        setting: what names the URL, for messages.

    Raises:
        OceanoError: `invalid_setting` if the URL is wrong, `ledger_unavailable`, `disk_full`.
    """
    parsed = _checked(url, setting)
    from app.catalog.postgresql import PostgresqlDatabase

    database = PostgresqlDatabase(parsed.set(drivername="postgresql+psycopg"), setting)
    try:
        with database.reading() as connection:
            database.require_utf8(connection)
            if is_current(connection, database.name):
                return database
        with database.writing() as connection, _advisory_lock(connection):
            _upgrade(connection, database.name, first)
    except BaseException:
        database.close()
        raise
    return database


def open_ledger(path: Path, collection: str) -> Ledger:
    """Open the results of a collection in a SQLite file.

    A ledger of an earlier version beside it, `ledger.sqlite3`, is taken over once and kept under another name.

    Raises:
        OceanoError: `ledger_unavailable` or `disk_full`.
    """
    earlier = path.with_name(EARLIER_LEDGER)
    database = open_sqlite(path, adopting(earlier))
    put_aside(earlier, __version__)
    return Ledger(database, collection)


def is_on_this_machine(url: str) -> bool:
    """Return whether a URL of a database names a server of this machine."""
    host = _checked(url, _SETTING).host or "localhost"
    names = {"localhost", "::1", socket.gethostname(), socket.getfqdn()}
    return host in names or host.startswith(("/", "127."))


def _upgrade(connection: Connection, name: str, first: Callable[[Connection], None]) -> None:
    if is_current(connection, name):  # another process did it meanwhile
        return
    upgrade(connection, name)
    first(connection)


@contextmanager
def _advisory_lock(connection: Connection) -> Iterator[None]:
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")  # until the transaction ends
    yield


def _checked(url: str, setting: str) -> URL:
    """Return a URL of a PostgreSQL database.

    Raises:
        OceanoError: `invalid_setting`.
    """
    if url.partition("://")[2].count("@") > 1:  # else a part of the password would become the name of the host
        raise _wrong_url("it has more than one @; write @ in the password as %40", setting)
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as failure:  # such as a port that is not a number
        raise _wrong_url("it is not a URL", setting) from failure
    if parsed.drivername not in _POSTGRESQL:
        raise _wrong_url(f"{parsed.drivername} is not supported", setting)
    if not parsed.database:
        raise _wrong_url("it names no database", setting)
    return parsed


def _wrong_url(reason: str, setting: str) -> OceanoError:
    advice = "Leave it empty for SQLite, or set it like" if setting == _SETTING else "Use sqlite, or a URL such as"
    return OceanoError("invalid_setting", f"{setting}: {reason}. {advice} {_EXAMPLE}", details={"settings": [setting]})
