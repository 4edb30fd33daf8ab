"""Measures how many calls run at the same time."""

from __future__ import annotations

import threading
import time


class ConcurrencyCounter:
    """Counts calls of `call`; `maximum` is the largest number that ran at the same time."""

    def __init__(self) -> None:
        self.maximum = 0
        self._running = 0
        self._lock = threading.Lock()

    def call(self) -> None:
        """Take 5 ms, long enough to overlap with other calls."""
        with self._lock:
            self._running += 1
            self.maximum = max(self.maximum, self._running)
        time.sleep(0.005)
        with self._lock:
            self._running -= 1
