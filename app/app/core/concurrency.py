"""Thread pools for blocking work, and a parallel map that keeps the order of its items."""

from __future__ import annotations

import asyncio
import contextvars
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


def processors(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Return how many processors this process may use: its affinity, or a container's CPU quota if that is lower.

    Args:
        quota: the CPU limit of cgroup v2; ignored if it is missing or unreadable.
    """
    affinity = len(os.sched_getaffinity(0))
    try:
        allowed, period = quota.read_text(encoding="ascii").split()
        return affinity if allowed == "max" else max(1, min(affinity, math.ceil(int(allowed) / int(period))))
    except (OSError, ValueError):
        return affinity


class Threads:
    """A thread pool for blocking calls of async code; further calls wait in a queue, first in, first out.

    When a caller is cancelled (a request timeout), its call is removed from the queue. A running call cannot be
    cancelled and keeps its thread until it ends. So calls that hang hold at most `max_threads` threads and images,
    however many of their callers have timed out.

    Args:
        max_threads: maximum number of concurrent calls.
        name: prefix of the threads' names.
    """

    def __init__(self, max_threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_threads, thread_name_prefix=name)

    async def run(self, work: Callable[_Args, _Result], *args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
        """Call a function in a thread, in the caller's context (the request id of the logs).

        Args:
            work: the function.
            args: its positional arguments.
            kwargs: its keyword arguments.

        Returns:
            The result of `work`. An exception of `work` is raised here.
        """
        context = contextvars.copy_context()
        call = partial(work, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, context.run, call)

    async def run_opening(self, work: Callable[[], _Result], close: Callable[[_Result], object]) -> _Result:
        """Call a function as `run` does, if its result must be closed, such as an open file.

        Args:
            work: the function.
            close: closes the result if the caller is cancelled; otherwise the caller does.

        Returns:
            The result of `work`. An exception of `work` is raised here.
        """
        future = self._pool.submit(contextvars.copy_context().run, work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:  # the result may come at any time, or is there and could not be returned
            future.add_done_callback(partial(_close_result, close=close))
            raise

    def close(self) -> None:
        """Refuse new calls and cancel queued ones; running calls end on their own."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _close_result(future: Future[_Result], *, close: Callable[[_Result], object]) -> None:
    if not future.cancelled() and future.exception() is None:
        close(future.result())


_Item = TypeVar("_Item")


def in_order(
    pool: Executor,
    work: Callable[[_Item], _Result],
    items: Iterable[_Item],
    *,
    ahead: int,
    full: Callable[[], bool] = lambda: False,
) -> Generator[_Result, None, None]:
    """Map items to results in a pool, in the order of the items.

    When the generator ends, by an exception or `close`, items that the pool has not started are cancelled.

    Args:
        pool: runs `work`.
        work: the function for one item.
        items: read one at a time, each just before it is submitted.
        ahead: maximum number of items that are submitted and not yet yielded.
        full: while it returns True, no item is submitted until the results of all earlier ones are yielded.

    Yields:
        The result of `work` for each item. An exception of `work` is raised at its item's turn.
    """
    window: deque[Future[_Result]] = deque()
    try:
        for item in items:
            window.append(pool.submit(work, item))
            while len(window) >= ahead or (window and full()):
                yield window.popleft().result()
        while window:
            yield window.popleft().result()
    finally:
        for future in window:
            future.cancel()


class Budget:
    """A thread-safe count of bytes in memory, with a limit that it reports but does not enforce.

    Args:
        limit: in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._lock = threading.Lock()

    def change(self, by: int) -> None:
        """Add bytes to the count; negative to subtract."""
        with self._lock:
            self._held += by

    def is_exceeded(self) -> bool:
        """Return whether the count is above the limit."""
        return self._held > self._limit


class Reservations:
    """A thread-safe budget of bytes that callers reserve before they use them.

    A reservation of more bytes than there are waits until there are no others.

    Args:
        limit: in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._reserved = 0
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, size: int, timeout: float | None = None) -> Iterator[bool]:
        """Reserve bytes until the context ends.

        Args:
            size: in bytes.
            timeout: seconds to wait for them; None to wait as long as it takes.

        Yields:
            Whether they are reserved.
        """
        with self._changed:
            is_free = lambda: not self._reserved or self._reserved + size <= self._limit  # noqa: E731
            reserved = self._changed.wait_for(is_free, timeout)
            self._reserved += size if reserved else 0
        try:
            yield reserved
        finally:
            if reserved:
                with self._changed:
                    self._reserved -= size
                    self._changed.notify_all()


class Admission:
    """What one request has reserved, for one image after another; safe to use from several threads.

    It holds one reservation at a time, the largest so far, so that two requests of two images never wait for each
    other.

    Args:
        reservations: the budget.
        wait_seconds: how long to wait for a reservation; None: as long as it takes.
    """

    def __init__(self, reservations: Reservations, wait_seconds: float | None) -> None:
        self._reservations = reservations
        self._wait_seconds = wait_seconds
        self._held = ExitStack()
        self._size = 0
        self._closed = False
        self._lock = threading.Lock()

    def take(self, size: int, *, wait: bool = True) -> bool:
        """Hold at least `size` bytes until `release`; a smaller reservation is returned first.

        Args:
            size: in bytes.
            wait: False: do not wait for others.

        Returns:
            Whether they are reserved; False after `close`.
        """
        if size <= self._size:
            return not self._closed
        self.release()
        with ExitStack() as stack:
            if not stack.enter_context(self._reservations.reserve(size, self._wait_seconds if wait else 0)):
                return False
            with self._lock:
                if self._closed:  # while this thread waited, its request was given up
                    return False
                self._held, self._size = stack.pop_all(), size
            return True

    def release(self) -> None:
        """Return what is held."""
        with self._lock:
            held, self._held, self._size = self._held, ExitStack(), 0
        held.close()

    def close(self) -> None:
        """Return what is held, and reserve nothing more."""
        self._closed = True
        self.release()


class KeyedLocks:
    """A lock for each key, for as long as a thread holds it or waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[Hashable, tuple[threading.Lock, int]] = {}

    @contextmanager
    def held(self, key: Hashable) -> Iterator[None]:
        """Hold the lock of a key."""
        with self._lock:
            lock, users = self._locks.get(key, (threading.Lock(), 0))
            self._locks[key] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._lock:
                _, users = self._locks[key]
                if users == 1:
                    del self._locks[key]
                else:
                    self._locks[key] = (lock, users - 1)


class FairGate:
    """A semaphore that threads enter in the order in which they came.

    `threading.Semaphore` often lets a thread that leaves and comes back enter before those that wait, so that one
    large image keeps small ones waiting until its last run.

    Args:
        places: how many threads may be inside.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: deque[threading.Lock] = deque()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            if self._free:  # then nobody waits
                self._free -= 1
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()  # released by the thread that leaves its place to this one

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1
