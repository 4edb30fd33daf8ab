"""The anchor file of the audit log: what the newest entry was at some times, kept outside the database.

Each line has a number, a digest and a time. Lines are added and never changed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.catalog import audit_time
from app.core.files import sync
from app.core.locks import locked

ANCHOR_FILE: Final = "audit.anchor"
_LINE: Final = re.compile(r"([1-9][0-9]{0,17}) ([0-9a-f]{64}) ([0-9T:.+-]{20,32})")
_MAX_LINE: Final = 200  # bytes


@dataclass(frozen=True, slots=True)
class Anchor:
    """Number and digest of an entry that was the newest one, and when that was."""

    number: int
    digest: str
    at: str = field(default="", compare=False)


class AnchorFile:
    """An anchor file. Several processes may add lines at the same time.

    Args:
        path: the file; created with the first line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, number: int, digest: str) -> None:
        """Add a line, and put it on the disk (fsync).

        Raises:
            OSError: it cannot be written.
        """
        line = f"{number} {digest} {audit_time()}\n".encode("ascii")
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_new = not self.path.exists()
        with locked(self.path.with_name(f".{self.path.name}.lock"), required=False):
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._end_line(handle)
                os.write(handle, line)
                os.fsync(handle)
            finally:
                os.close(handle)
        if is_new:
            sync(self.path.parent)

    def read(self) -> Iterator[Anchor | int]:
        """Yield the anchors in the order of the file; the number of a line, from 1, that is none.

        A last line without its end is left out: the machine was switched off while it was written.

        Raises:
            OSError: it cannot be read.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            place = 0
            while line := file.readline(_MAX_LINE):
                place += 1
                if not line.endswith(b"\n"):
                    if len(line) == _MAX_LINE or file.read(1):
                        yield place
                    return
                if found := _LINE.fullmatch(line[:-1].decode("ascii", "replace")):
                    yield Anchor(int(found[1]), found[2], found[3])
                elif line.strip():
                    yield place

    @staticmethod
    def _end_line(handle: int) -> None:
        """Leave a line that was cut off behind, so that the next one is whole."""
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            tail = os.pread(handle, _MAX_LINE, max(0, size - _MAX_LINE))
            os.ftruncate(handle, size - len(tail) + tail.rfind(b"\n") + 1)
