"""The lock of a PostgreSQL catalog that writers of results share, and that `exclusive` has alone.

It is an advisory lock of a transaction, so it ends with its connection. The server ends a connection whose transaction
is silent for a minute (`IDLE_SECONDS`). While a process has the lock, a thread uses the connection now and then: a
process that is suspended or whose machine is gone loses the lock, and nobody waits for it any longer.
"""

from __future__ import annotations

import logging
import time
from threading import Event, Lock, Thread
from typing import Final

from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import SQLAlchemyError

_log = logging.getLogger(__name__)

IDLE_SECONDS: Final = 60
_BEAT_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.1
_SAID_AFTER_SECONDS: Final = 5.0
_LONGEST_WAIT_SECONDS: Final = 3600.0
_NUMBER: Final = 0x0CEA_0002  # any number that only Oceano uses in its database
_TRY_SHARED: Final = select(func.pg_try_advisory_xact_lock_shared(_NUMBER))
_LOCK: Final = select(func.pg_advisory_xact_lock(_NUMBER))
_STILL_CONNECTED: Final = select(1)
_OTHERS: Final = text(
    "SELECT a.application_name || coalesce(' at ' || host(a.client_addr), '') || ', server process ' || a.pid "
    "FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) "
    "WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 0 AND l.objid = :number AND pid <> pg_backend_pid() "
    "AND a.datname = current_database() ORDER BY a.xact_start LIMIT 3"
).bindparams(number=_NUMBER)


class Refused(Exception):
    """The wait for the lock was ended by a stop, or took too long; the message says who has the lock."""


class Wait:
    """A wait for the lock: the log says once who has it; a stop and a limit end the wait.

    Args:
        stop: ends the wait once it is set.
    """

    def __init__(self, stop: Event) -> None:
        self._stop = stop
        self._start = time.monotonic()
        self._is_said = False

    def share(self, connection: Connection) -> None:
        """Share the lock until the transaction ends.

        Raises:
            Refused: see there.
        """
        while not connection.scalar(_TRY_SHARED):
            self.go_on(connection)
            self._stop.wait(_POLL_SECONDS)

    def go_on(self, connection: Connection) -> None:
        """Say who has the lock, once it takes long.

        Raises:
            Refused: see there.
        """
        waited = time.monotonic() - self._start
        if self._stop.is_set():
            raise Refused(f"stopped while waiting for {_others(connection)}")
        if waited >= _LONGEST_WAIT_SECONDS:
            raise Refused(f"waited for {waited / 60:.0f} minutes for {_others(connection)}")
        if waited >= _SAID_AFTER_SECONDS and not self._is_said:
            self._is_said = True
            _log.warning("waiting for another process that has the catalog to itself: %s", _others(connection))


class Held:
    """The lock, held alone from `take` to `close`.

    Args:
        connection: in the transaction that has the lock.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._in_use = Lock()
        self._failure: SQLAlchemyError | None = None
        self._closed = Event()
        self._beating = Thread(target=self._beat, name="catalog-lock", daemon=True)
        self._beating.start()

    def failure(self) -> SQLAlchemyError | None:
        """Return why the lock was lost; None if this process has it still."""
        with self._in_use:
            if self._failure is None:
                try:
                    self._connection.execute(_STILL_CONNECTED)
                except SQLAlchemyError as failure:
                    self._failure = failure
            return self._failure

    def close(self) -> None:
        """Give the lock back."""
        self._closed.set()
        self._beating.join()
        self._connection.close()

    def _beat(self) -> None:
        while not self._closed.wait(_BEAT_SECONDS):
            if self.failure() is not None:
                return


def lock(connection: Connection, seconds: int) -> None:
    """Take the lock alone, until the transaction ends.

    Raises:
        DBAPIError: it was not free within some seconds (55P03), or as usual.
    """
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {seconds * 1000}")
    connection.execute(_LOCK)


def _others(connection: Connection) -> str:
    return "; ".join(connection.execute(_OTHERS).scalars()) or "another process"
