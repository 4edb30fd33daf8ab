"""The catalog in a PostgreSQL database: any number of processes on any number of machines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from contextvars import ContextVar
from typing import Final

from sqlalchemy import URL, Connection, create_engine, func, select
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.catalog.retry import RetryPolicy, TemporaryError
from app.catalog.tables import METADATA
from app.core.errors import ErrorCode, OceanoError

_CONNECT_SECONDS: Final = 10
_STATEMENT_SECONDS: Final = 60
# A firewall or router that drops packets silently is noticed after this time; TCP alone waits for 15 minutes or more.
_SILENT_SECONDS: Final = 30
_CONNECTION_DEFAULTS: Final = {  # the URL can set others
    "application_name": "oceano",
    "connect_timeout": _CONNECT_SECONDS,
    "tcp_user_timeout": _SILENT_SECONDS * 1000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
_CONNECTIONS: Final = 5  # of one process
_LOCK_POLL_SECONDS: Final = 0.1
# The databases that this thread has to itself, by URL.
_EXCLUSIVE: Final[ContextVar[frozenset[str]]] = ContextVar("exclusive", default=frozenset())
_WRITERS_LOCK: Final = 0x0CEA_0002  # writers of results share it; `exclusive` has it alone
_TRY_SHARED: Final = select(func.pg_try_advisory_xact_lock_shared(_WRITERS_LOCK))
_LOCK_EXCLUSIVE: Final = select(func.pg_advisory_xact_lock(_WRITERS_LOCK))
_STILL_CONNECTED: Final = select(1)  # else another process may have taken the lock
_FULL: Final = "53100"
_READ_ONLY: Final = "25006"
_CANCELLED: Final = "57014"
# Serialization failure, deadlock, too many connections, shutdown, crash of another session, start.
_TEMPORARY: Final = frozenset({"40001", "40P01", "53300", "57P01", "57P02", "57P03"})
# What a server answers to a new connection, which has no code, if a later one may succeed.
_REFUSED_FOR_NOW: Final = ("the database system is", "too many")
_IS_IT_RUNNING: Final = " Is the server running on that host and accepting TCP/IP connections?"
_NO_CREDENTIALS: Final = "no password supplied"  # libpq's own message, without FATAL
_HINTS: Final = {
    _READ_ONLY: "The database is read-only: name the primary server, and a user who may write.",
    _CANCELLED: f"A statement took longer than {_STATEMENT_SECONDS} s: the server is overloaded, or a table is locked.",
    "53300": "Raise max_connections of the server, or run fewer workers.",
    "42501": "The user must be allowed to create tables.",
}


class PostgresqlDatabase:
    """A PostgreSQL database.

    Args:
        url: with the driver psycopg.
    """

    has_many_writers = True
    longest_path = 2600  # an entry of an index has 2,704 bytes at most

    def __init__(self, url: URL) -> None:
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
                **{name: value for name, value in _CONNECTION_DEFAULTS.items() if name not in url.query},
                "client_encoding": "utf8",
                "options": f"-c statement_timeout={_STATEMENT_SECONDS * 1000} -c synchronous_commit=on",
            },
        )

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._oceano_errors(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self, *, urgent: bool = False) -> Iterator[Connection]:
        with self._oceano_errors(), self.engine.begin() as connection:
            if not urgent and self._key not in _EXCLUSIVE.get():
                while not connection.scalar(_TRY_SHARED):
                    time.sleep(_LOCK_POLL_SECONDS)
            yield connection

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        if self._key in _EXCLUSIVE.get():
            yield
            return
        with closing(self.retries.run(self._locked)) as connection:
            token = _EXCLUSIVE.set(_EXCLUSIVE.get() | {self._key})
            try:
                yield
                with self._oceano_errors():
                    connection.execute(_STILL_CONNECTED)
            finally:
                _EXCLUSIVE.reset(token)

    def _locked(self) -> Connection:
        """Return a connection that has the lock of all writers until it is closed."""
        with self._oceano_errors(), ExitStack() as opened:
            connection = opened.enter_context(self.engine.connect())
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            connection.execute(_LOCK_EXCLUSIVE)
            opened.pop_all()
            return connection

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
        if state is None and ("FATAL:" in message or _NO_CREDENTIALS in message):  # the server refused the connection
            if any(part in message for part in _REFUSED_FOR_NOW):
                return self._error(TemporaryError, "ledger_unavailable", message)
            return self._error(OceanoError, "invalid_setting", message)
        if state is None and isinstance(failure, ProgrammingError):  # an option in the URL that does not exist
            return self._error(OceanoError, "invalid_setting", message)
        if state == _FULL:
            return self._error(OceanoError, "disk_full", message)
        is_temporary = failure.connection_invalidated or state is None or state in _TEMPORARY or state.startswith("08")
        kind = TemporaryError if is_temporary and isinstance(failure, OperationalError) else OceanoError
        return self._error(kind, "ledger_unavailable", f"{message}. {_HINTS[state]}" if state in _HINTS else message)

    def _error(self, kind: type[OceanoError], code: ErrorCode, message: str) -> OceanoError:
        return kind(code, f"CATALOG_URL {self.name}: {message}", details={"settings": ["CATALOG_URL"]})
