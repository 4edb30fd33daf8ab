"""Threads for work that blocks; work in threads with results in order."""

from __future__ import annotations

import asyncio
import contextvars
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


def processors(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Processors that this process may keep busy: its affinity, and a container's quota where that is less."""
    mine = len(os.sched_getaffinity(0))
    try:
        allowed, period = quota.read_text(encoding="ascii").split()
        return mine if allowed == "max" else max(1, min(mine, math.ceil(int(allowed) / int(period))))
    except (OSError, ValueError):
        return mine


class Threads:
    """At most `most` calls run at once; the others wait their turn, first come, first served.

    A caller that gives up (the time limit of a request) takes a waiting call away with it. A call that runs cannot
    be stopped: it keeps its place until it ends. So calls that hang never hold more than `most` threads, nor the
    memory of more than `most` pictures, however many callers have given up on them.
    """

    def __init__(self, most: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(most, thread_name_prefix=name)

    async def run(self, work: Callable[_Args, _Result], *args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
        """What `work` returns or raises; it sees the caller's context (the request id in the logs)."""
        context = contextvars.copy_context()
        call = partial(work, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, context.run, call)

    def close(self) -> None:
        """Take no more calls and drop those that wait; those that run end on their own."""
        self._pool.shutdown(wait=False, cancel_futures=True)


_Item = TypeVar("_Item")


def in_order(
    pool: Executor,
    work: Callable[[_Item], _Result],
    items: Iterable[_Item],
    *,
    ahead: int,
    full: Callable[[], bool] = lambda: False,
) -> Generator[_Result, None, None]:
    """What `work` returns for each item, in the items' order, worked out by the pool up to `ahead` items ahead.

    Items are taken one by one, as there is room; while it is `full` there is none, for more than one. What `work`
    raises is raised in its turn, and ends the iteration. Items that nobody began on are then dropped.
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
    """Bytes that are held somewhere; safe for threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._lock = threading.Lock()

    def change(self, by: int) -> None:
        """Hold so many more, or fewer."""
        with self._lock:
            self._held += by

    def spent(self) -> bool:
        """Is more held than there should be?"""
        return self._held > self._most
