"""Memory that the C library keeps after it was freed."""

from __future__ import annotations

import contextlib
import ctypes


def trim() -> None:
    """Return freed memory of all threads to the system; does nothing without glibc.

    glibc keeps what a thread has freed for that thread, so that after a few large images each thread that decoded one
    holds tens of megabytes.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
