"""Processes that kill themselves at a given step."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any


def die_at(holder: Any, name: str, border: str, times: int) -> None:
    """Let this process kill itself before or after a call of a function.

    Args:
        holder: the object that holds the function.
        name: of the function.
        border: "before" or "after".
        times: number of the call, from 1.
    """
    real: Callable[..., Any] = getattr(holder, name)
    lock = threading.Lock()
    calls = [0]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with lock:
            calls[0] += 1
            last = calls[0] == times
        if last and border == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(holder, name, wrapped)
