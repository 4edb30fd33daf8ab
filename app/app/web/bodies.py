"""Request bodies while they arrive: a minimum rate, and a limit on the bytes of all of them together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from starlette.types import Message, Receive

from app.core.errors import OceanoError

# Apache (mod_reqtimeout) allows 20 s and 500 bytes/s, Kestrel 5 s and 240 bytes/s. A phone on EDGE sends 10,000.
MIN_RATE: Final = 1000.0  # bytes per second
STALL_SECONDS: Final = 20.0

BYTES_TOGETHER: Final = 512_000_000  # in memory and temporary files


class Body:
    """The body of one request, counted from its first byte to the end of the request."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._credit = bodies.stall_seconds  # seconds that this client may still let us wait
        self._timeout: asyncio.Timeout | None = None  # of the wait that is in progress
        self._start = asyncio.get_running_loop().time()
        self._arrived = 0
        self._is_ended = False
        self.is_complete = False
        self.kept = 0  # bytes that count for the limit of all bodies

    async def receive(self, receive: Receive) -> Message:
        """Receive the next message.

        Raises:
            OceanoError: `upload_too_slow`.
        """
        if self.is_complete:
            return await receive()
        if self._is_ended:
            raise self._too_slow()
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            async with asyncio.timeout(self._credit) as self._timeout:
                message = await receive()
        except TimeoutError:
            raise self._too_slow() from None
        finally:
            self._timeout = None
        size = len(message.get("body", b""))
        self._arrived += size
        self._credit += start - loop.time() + size / self._bodies.min_rate
        self._credit = min(self._credit, self._bodies.stall_seconds)
        self.is_complete = not message.get("more_body", False)
        return message

    def keep(self, size: int) -> None:
        """Count bytes that are stored until the end of the request.

        Raises:
            OceanoError: `overloaded` if all bodies together are too large and none is slower than this one.
        """
        self._bodies.make_room(size, self)
        self._bodies.kept += size
        self.kept += size

    def release(self) -> None:
        """Stop counting the bytes of this body."""
        self._bodies.kept -= self.kept
        self.kept = 0

    @property
    def rate(self) -> float:
        """Bytes per second since the request began; the first second counts in full."""
        return self._arrived / max(1.0, asyncio.get_running_loop().time() - self._start)

    def end(self) -> None:
        """End the request with `upload_too_slow`, and release its bytes."""
        self._is_ended = True
        self.release()
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time())

    @property
    def may_be_ended(self) -> bool:
        """Whether the service still waits for this body."""
        return not (self.is_complete or self._is_ended)

    def _too_slow(self) -> OceanoError:
        return OceanoError(
            "upload_too_slow",
            f"the upload arrives too slowly: at least {self._bodies.min_rate / 1000:g} kB/s are needed, and more while "
            "the service is busy; send a smaller picture, or try again with a better connection",
            details={"min_bytes_per_second": self._bodies.min_rate},
        )


class Bodies:
    """The bodies of all requests.

    A client that pauses for `stall_seconds`, or whose average falls below `min_rate` for that long, is ended. If the
    bodies together reach `max_bytes`, the slowest ones that still arrive are ended to make room for a faster one.

    Args:
        max_bytes: the most bytes of all bodies together.
        min_rate: bytes per second.
        stall_seconds: the longest wait for a client without data.
    """

    def __init__(self, max_bytes: int, min_rate: float, stall_seconds: float) -> None:
        self.min_rate = min_rate
        self.stall_seconds = stall_seconds
        self.kept = 0  # bytes of all bodies together
        self._max_bytes = max_bytes
        self._bodies: set[Body] = set()

    @contextmanager
    def body(self) -> Iterator[Body]:
        """Count the body of a request until the context ends."""
        body = Body(self)
        self._bodies.add(body)
        try:
            yield body
        finally:
            self._bodies.discard(body)
            body.release()

    def make_room(self, size: int, asking: Body) -> None:
        """End slower bodies until `size` more bytes fit.

        Raises:
            OceanoError: `overloaded` if that is not enough.
        """
        while self.kept + size > self._max_bytes:
            arriving = [body for body in self._bodies if body.may_be_ended and body.kept and body is not asking]
            slowest = min(arriving, key=lambda body: body.rate, default=asking)
            if slowest.rate >= asking.rate:
                raise OceanoError(
                    "overloaded",
                    f"uploads of {self._max_bytes / 1e6:g} MB are in progress already; try again soon",
                    retry_after=1,
                )
            slowest.end()
