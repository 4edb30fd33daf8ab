"""A value that takes long to compute, and is computed again now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_LEAST_SECONDS: Final = 2.0
_SHARE: Final = 20.0


class CachedValue(Generic[T]):
    """Computes a value at most every two seconds, and less often if that takes long: a twentieth of the time at most.

    Safe for threads; one of them computes, and the others wait for it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._forgotten = 0
        self._known: tuple[T, int, float] | None = None  # with `_forgotten` of then, and until when it is valid

    def get(self, compute: Callable[[], T]) -> T:
        """Return the value, as `compute` returns it or has returned it; its errors are raised and not kept."""
        with self._lock:
            if self._known is None or self._known[1] != self._forgotten or time.monotonic() >= self._known[2]:
                start, forgotten = time.monotonic(), self._forgotten
                value = compute()
                until = start + max(_LEAST_SECONDS, _SHARE * (time.monotonic() - start))
                self._known = (value, forgotten, until)
            return self._known[0]

    def forget(self) -> None:
        """Let the value be computed again at the next call."""
        self._forgotten += 1
