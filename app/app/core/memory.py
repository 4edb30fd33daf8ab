"""Memory: what the C library keeps after it was freed, and how often Python looks for unused objects."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from typing import Final

_NEW_OBJECTS: Final = 10_000
_OLDER: Final = 20


def trim() -> None:
    """Return freed memory of all threads to the system; does nothing without glibc.

    glibc keeps what a thread has freed for that thread, so that after a few large images each thread that decoded one
    holds tens of megabytes.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def collect_rarely() -> None:
    """Let Python look for unused objects after 10,000 new ones, not after 700.

    Answers of the index are thousands of small objects at once. Looking through them again and again took a third of
    the time of reading 10,000 faces.
    """
    gc.set_threshold(_NEW_OBJECTS, _OLDER, _OLDER)
