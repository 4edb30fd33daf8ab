"""HTTP connections: a deadline for headers, a limit on their number, clients that close their sending side.

Beyond the limit, the connection of the slowest client is closed, as nginx closes idle ones when it has none left.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS: Final = 10.0
_MOST_FILES: Final = 1 << 16
_MOST_BACKLOG: Final = 2048
_RESERVED_FILES: Final = 256  # descriptors for files, the index and workers
_FILES_PER_CONNECTION: Final = 2  # its socket, and a temporary file for an upload
_MIN_CONNECTIONS: Final = 64
_SPARED_SECONDS: Final = 1.0  # a client may need this long to send its request

_log = logging.getLogger(__name__)


def max_connections() -> int:
    """Return how many connections fit below the process's limit on open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 20
    return max(_MIN_CONNECTIONS, (soft - _RESERVED_FILES) // _FILES_PER_CONNECTION)


def raise_file_limit() -> None:
    """Raise the soft limit of this process on open files, which is often 1024, towards the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def backlog() -> int:
    """Return how many connections may wait to be accepted; asyncio accepts all before it serves one."""
    return min(_MOST_BACKLOG, max_connections() // 4)


class Connection(H11Protocol):
    """A connection of uvicorn that waits at most HEADER_SECONDS for headers.

    For a connection beyond `max_connections`, the one that sends its request the slowest is closed, or else the new
    one; that is logged when the limit is reached. A client may close its sending side after its request
    (`shutdown(SHUT_WR)`) and still gets the response.
    """

    _is_full = False  # of the whole process, so that it is logged once

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._deadline: asyncio.TimerHandle | None = None
        self._is_half_closed = False
        self._waits_since = self.loop.time()
        self._received = 0  # bytes since then

    def connection_made(self, transport: Any) -> None:
        """Start the deadline; close a connection if there are too many."""
        super().connection_made(transport)
        most = max_connections()
        is_full = len(self.connections) > most
        if is_full and not Connection._is_full:
            _log.warning("%d connections are open, as many as the limit on open files allows", most)
        Connection._is_full = is_full
        if is_full:
            slowest = self._slowest()
            slowest.transport.abort()
            if slowest is self:
                return
        self._watch_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the deadline."""
        self._stop_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Handle data; the deadline ends when the headers are complete."""
        self._received += len(data)
        super().data_received(data)
        self._watch_headers()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection for the response to a complete request."""
        self._is_half_closed = self._is_answering and not self.cycle.more_body
        return self._is_half_closed

    def on_response_complete(self) -> None:
        """Close the connection after the response if the client sends nothing more."""
        super().on_response_complete()
        self._waits_since, self._received = self.loop.time(), 0
        if self._is_half_closed:
            self.transport.close()
        else:
            self._watch_headers()  # a part of the next request may be here already

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _slowest(self) -> Connection:
        """Return the connection whose client sends the slowest; this one if the service waits for no other."""
        now = self.loop.time()
        waiting = [
            other
            for other in self.connections
            if isinstance(other, Connection)
            and now - other._waits_since >= _SPARED_SECONDS
            and not (other._is_answering and not other.cycle.more_body)
            and not other.transport.is_closing()
        ]
        return min(waiting, key=lambda other: other._received / (now - other._waits_since), default=self)

    def _watch_headers(self) -> None:
        if self._is_answering:
            self._stop_deadline()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
