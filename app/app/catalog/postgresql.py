"""The catalog in a PostgreSQL database: any number of processes on any number of machines."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Final

from sqlalchemy import URL, Connection, create_engine, func, select
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.catalog.retry import RetryPolicy, TemporaryError
from app.catalog.tables import METADATA
from app.catalog.writers_lock import IDLE_SECONDS, Held, Refused, Wait, lock
from app.core.errors import ErrorCode, OceanoError

_CONNECT_SECONDS: Final = 10
_STATEMENT_SECONDS: Final = 60
# A firewall or router that drops packets silently is noticed after this time; TCP alone waits for 15 minutes or more.
_SILENT_SECONDS: Final = 30
_KEEPALIVES: Final = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
# The server notices a lost connection as soon as the client; a transaction of a suspended process ends, with its locks.
_OF_THE_SESSION: Final = {
    "statement_timeout": _STATEMENT_SECONDS * 1000,
    "idle_in_transaction_session_timeout": IDLE_SECONDS * 1000,
    "synchronous_commit": "on",
    "tcp_user_timeout": _SILENT_SECONDS * 1000,
    **{f"tcp_{name}": value for name, value in _KEEPALIVES.items()},
}
_CONNECTIONS: Final = 5  # of one process
_LOCK_SECONDS: Final = 2  # of one attempt to take the lock of all writers; then a stop is looked at
# The locks that this thread has, by URL of the database.
_EXCLUSIVE: Final[ContextVar[Mapping[str, Held]]] = ContextVar("exclusive", default=MappingProxyType({}))
_FULL: Final = "53100"
_READ_ONLY: Final = "25006"
_CANCELLED: Final = "57014"
_NOT_FREE: Final = "55P03"  # a lock
# Serialization failure, deadlock, too many connections, shutdown, crash of another session, start, time limits of a
# statement and of an idle transaction.
_TEMPORARY: Final = frozenset({"40001", "40P01", "53300", "57P01", "57P02", "57P03", _CANCELLED, "25P03"})
# What a server answers to a new connection, which has no code, if a later one may succeed.
_REFUSED_FOR_NOW: Final = ("the database system is", "too many")
_IS_IT_RUNNING: Final = " Is the server running on that host and accepting TCP/IP connections?"
# Of libpq's own messages, which have no code and no FATAL: what no later attempt changes.
_WRONG_SETTING: Final = re.compile("no password supplied|invalid .* value|SSL was required|certificate")
_NO_SCHEMA: Final = "3F000"
_HINTS: Final = {
    _READ_ONLY: "The database is read-only: name the primary server, and a user who may write.",
    _CANCELLED: f"A statement took longer than {_STATEMENT_SECONDS} s: the server is overloaded, or a table is locked.",
    "53300": "Raise max_connections of the server, or run fewer workers.",
    "42501": "The user must be allowed to create tables.",
    _NO_SCHEMA: "Create the schema that search_path names.",
}


class PostgresqlDatabase:
    """A PostgreSQL database.

    Args:
        url: with the driver psycopg.
        setting: what names the URL, for messages.
    """

    has_many_writers = True
    longest_path = 2600  # an entry of an index has 2,704 bytes at most

    def __init__(self, url: URL, setting: str = "CATALOG_URL") -> None:
        self._setting = setting
        self.name = url.set(query={}).render_as_string(hide_password=True)  # a query can have a password
        self.retries = RetryPolicy()
        self._key = url.render_as_string(hide_password=False)
        self.engine = create_engine(
            url,
            pool_size=_CONNECTIONS,
            max_overflow=0,
            pool_timeout=_CONNECT_SECONDS,
            pool_pre_ping=True,  # the server was restarted
            connect_args={
                **{name: value for name, value in _connection_defaults().items() if name not in url.query},
                "client_encoding": "utf8",
                "options": _options(url),
            },
        )

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._oceano_errors(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self, *, urgent: bool = False) -> Iterator[Connection]:
        with self._oceano_errors(), self.engine.begin() as connection:
            if (held := _EXCLUSIVE.get().get(self._key)) is not None:
                self._require(held)
            elif not urgent:
                with self._refusals():
                    Wait(self.retries.stop).share(connection)
            yield connection

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        if self._key in _EXCLUSIVE.get():
            yield
            return
        wait = Wait(self.retries.stop)
        while (found := self.retries.run(lambda: self._locked(wait))) is None:
            pass
        with closing(found) as held:
            token = _EXCLUSIVE.set({**_EXCLUSIVE.get(), self._key: held})
            try:
                yield
                self._require(held)
            finally:
                _EXCLUSIVE.reset(token)

    def _locked(self, wait: Wait) -> Held | None:
        """Return the lock of all writers; None if it was not free for a while."""
        with self._oceano_errors(), ExitStack() as opened:
            connection = opened.enter_context(self.engine.connect())
            try:
                lock(connection, _LOCK_SECONDS)
            except DBAPIError as failure:
                if getattr(failure.orig, "sqlstate", None) != _NOT_FREE:
                    raise
                connection.rollback()
                with self._refusals():
                    wait.go_on(connection)
                return None
            opened.pop_all()
            return Held(connection)

    def _require(self, held: Held) -> None:
        """Raise `ledger_unavailable` if this process has lost the lock of all writers: others may write since then."""
        if (failure := held.failure()) is not None:
            reason = " ".join(str(getattr(failure, "orig", failure)).split())
            message = f"this process had the catalog to itself, and lost its connection: {reason}"
            raise self._error(OceanoError, "ledger_unavailable", message) from failure

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except Refused as failure:
            raise self._error(OceanoError, "ledger_unavailable", str(failure)) from failure

    def require_utf8(self, connection: Connection) -> None:
        """Raise `invalid_setting` if the database cannot store every character."""
        if (found := connection.exec_driver_sql("SHOW server_encoding").scalar_one()) != "UTF8":
            message = f"the database has the encoding {found}; create one with UTF8 (createdb -E UTF8 -T template0)"
            raise self._error(OceanoError, "invalid_setting", message)

    def version(self) -> tuple[object, ...]:
        """The transactions of the whole server: other programs' changes count, too, which costs only time."""
        with self.reading() as connection:
            return (connection.exec_driver_sql("SELECT pg_current_snapshot()::text").scalar_one(),)

    def check(self) -> None:
        with self.reading() as connection:
            for table in METADATA.sorted_tables:
                connection.execute(select(func.count()).select_from(table)).scalar_one()

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def _oceano_errors(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeout as failure:
            message = f"all {_CONNECTIONS} connections of this process are busy"
            raise self._error(TemporaryError, "ledger_unavailable", message) from failure
        except DBAPIError as failure:
            raise self._converted(failure) from failure

    def _converted(self, failure: DBAPIError) -> OceanoError:
        message = " ".join(str(failure.orig).split()).removesuffix(_IS_IT_RUNNING)
        state = getattr(failure.orig, "sqlstate", None)
        if state is None and any(part in message for part in _REFUSED_FOR_NOW):
            return self._error(TemporaryError, "ledger_unavailable", message)
        # FATAL: the server refused the connection; ProgrammingError: an option in the URL that does not exist
        is_wrong = "FATAL:" in message or _WRONG_SETTING.search(message) or isinstance(failure, ProgrammingError)
        if (state is None and is_wrong) or state == _NO_SCHEMA:
            return self._error(OceanoError, "invalid_setting", _with_hint(message, state))
        if state == _FULL:
            return self._error(OceanoError, "disk_full", message)
        is_lost = isinstance(failure, OperationalError) and (state is None or failure.connection_invalidated)
        is_temporary = is_lost or (state is not None and (state in _TEMPORARY or state.startswith("08")))
        kind = TemporaryError if is_temporary else OceanoError
        return self._error(kind, "ledger_unavailable", _with_hint(message, state))

    def _error(self, kind: type[OceanoError], code: ErrorCode, message: str) -> OceanoError:
        return kind(code, f"{self._setting} {self.name}: {message}", details={"settings": [self._setting]})


def _with_hint(message: str, state: str | None) -> str:
    return f"{message}. {_HINTS[state]}" if state in _HINTS else message


def _connection_defaults() -> dict[str, str | int]:
    """Return the options of a connection; the URL can set others."""
    return {
        "application_name": f"oceano {socket.gethostname()}:{os.getpid()}",  # says who has a lock
        "connect_timeout": _CONNECT_SECONDS,
        "tcp_user_timeout": _SILENT_SECONDS * 1000,
        **_KEEPALIVES,
    }


def _options(url: URL) -> str:
    """Return the settings of a session, after those of the URL."""
    given = url.query.get("options", ())
    ours = [f"-c {name}={value}" for name, value in _OF_THE_SESSION.items()]
    return " ".join([given] if isinstance(given, str) else given) + " " + " ".join(ours)
