"""HTTP connections: a deadline for headers, a limit on their number, clients that close their sending side."""

from __future__ import annotations

import asyncio
import logging
import resource
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS: Final = 10.0
_RESERVED_FILES: Final = 256  # descriptors for files, the index and workers
_MIN_CONNECTIONS: Final = 64

_log = logging.getLogger(__name__)


def max_connections() -> int:
    """Return how many connections fit below the process's limit on open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(_MIN_CONNECTIONS, soft - _RESERVED_FILES) if soft != resource.RLIM_INFINITY else 1 << 20


class Connection(H11Protocol):
    """A connection of uvicorn that waits at most HEADER_SECONDS for headers.

    A connection beyond `max_connections` is closed at once; that is logged when the limit is reached. A client may
    close its sending side after its request (`shutdown(SHUT_WR)`) and still gets the response.
    """

    _is_full = False  # of the whole process, so that it is logged once

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._deadline: asyncio.TimerHandle | None = None
        self._is_half_closed = False

    def connection_made(self, transport: Any) -> None:
        """Start the deadline, or close a connection beyond the limit."""
        super().connection_made(transport)
        most = max_connections()
        if len(self.connections) > most:
            if not Connection._is_full:
                _log.warning("%d connections are open, as many as the limit on open files allows", most)
            Connection._is_full = True
            transport.close()
            return
        Connection._is_full = False
        self._watch_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the deadline."""
        self._stop_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Handle data; the deadline ends when the headers are complete."""
        super().data_received(data)
        self._watch_headers()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection for the response to a complete request."""
        self._is_half_closed = self._is_answering and not self.cycle.more_body
        return self._is_half_closed

    def on_response_complete(self) -> None:
        """Close the connection after the response if the client sends nothing more."""
        super().on_response_complete()
        if self._is_half_closed:
            self.transport.close()
        else:
            self._watch_headers()  # a part of the next request may be here already

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _watch_headers(self) -> None:
        if self._is_answering:
            self._stop_deadline()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
