"""Processes that kill themselves at a given step, or suspend themselves; and waiting for what others do."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
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


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait until a condition is true; fail if that takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def wait_until_suspended(process: int) -> None:
    """Wait until a process has suspended itself (SIGSTOP)."""
    status = Path(f"/proc/{process}/status")
    wait_for(lambda: "State:\tT" in status.read_text())
