"""Work in threads, results in order: what the stages of an ingest are made of."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
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
    crowded: Callable[[Sequence[_Result]], bool] = lambda _: False,
) -> Generator[_Result, None, None]:
    """What `work` returns for each item, in the items' order, worked out by the pool up to `ahead` items ahead.

    Items are taken one by one, as there is room; there is none while the results that wait are `crowded`. What
    `work` raises is raised in its turn, and ends the iteration. Items that nobody began on are then dropped.
    """
    window: deque[Future[_Result]] = deque()
    try:
        for item in items:
            window.append(pool.submit(work, item))
            while len(window) >= ahead or crowded(_finished(window)):
                yield window.popleft().result()
        while window:
            yield window.popleft().result()
    finally:
        for future in window:
            future.cancel()


def _finished(window: Iterable[Future[_Result]]) -> list[_Result]:
    return [one.result() for one in window if one.done() and one.exception() is None]
