"""Keeps the lists of matches that were used last, so that further pages need no new search."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from app.core.concurrency import KeyedLocks
from app.service.ranked import RankedList

_MAX_ROWS: Final = 200_000  # of all cached lists; about 500 bytes each
_MAX_LISTS: Final = 500
KEPT_SECONDS: Final = 600.0  # a further page continues the list of the first one


class ListCache:
    """The lists used last, up to `_MAX_LISTS` and `_MAX_ROWS`; each is built once, however many ask at a time.

    Lists that are too old for any page are dropped when another one is added.

    Attributes:
        names: number of changes of names so far; lists that depend on names have it in their key.
    """

    def __init__(self) -> None:
        self.names = 0
        self._lock = threading.Lock()
        self._building = KeyedLocks()
        self._lists: OrderedDict[str, tuple[float, RankedList]] = OrderedDict()

    def get(self, key: str, seconds: float, build: Callable[[], RankedList]) -> RankedList:
        """Return the list of a key, built at most `seconds` ago."""
        with self._building.held(key):
            if (known := self._known(key, seconds)) is not None:
                return known
            found = build()
            self._add(key, found)
            return found

    def _known(self, key: str, seconds: float) -> RankedList | None:
        with self._lock:
            built, found = self._lists.get(key, (0.0, None))
            if found is None or time.monotonic() - built > seconds:
                return None
            self._lists.move_to_end(key)
            return found

    def _add(self, key: str, found: RankedList) -> None:
        with self._lock:
            self._lists[key] = (time.monotonic(), found)
            self._lists.move_to_end(key)
            oldest = time.monotonic() - KEPT_SECONDS
            for other in [other for other, (built, _) in self._lists.items() if built < oldest]:
                del self._lists[other]
            while len(self._lists) > 1 and (len(self._lists) > _MAX_LISTS or self._rows() > _MAX_ROWS):
                self._lists.popitem(last=False)

    def _rows(self) -> int:
        return sum(len(one.rows) for _, one in self._lists.values())
