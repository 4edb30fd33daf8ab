"""Work in threads, results in order: what the stages of an ingest are made of."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


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
