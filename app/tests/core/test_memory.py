"""Freed memory goes back to the system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import psutil
from app.core.memory import trim

blocks = [bytes(100_000) for _ in range(1000)]
kept = [bytes(1000) for _ in range(10)]  # above them on the heap
memory = psutil.Process().memory_info
full = memory().rss
del blocks
freed = memory().rss
trim()
print(full - freed, full - memory().rss)
"""


def test_what_was_freed_is_returned() -> None:
    folder = Path(__file__).parents[2]
    printed = subprocess.run([sys.executable, "-c", _PROGRAM], cwd=folder, capture_output=True, text=True, check=True)
    before, after = map(int, printed.stdout.split())
    assert before < 50_000_000 < after
