"""Bringing a copy of a shard up to date with the writes that arrived after it was copied.

Each write records the ids of its points in a journal. The points of the journal are then made equal in the copy, in
rounds while writes go on, and once more while no write runs.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from app.index.embedded.protocol import ID_BYTES, Op, join_ids, pack, read_reply, split_ids
from app.index.errors import unavailable

_POINTS: Final = 128  # of one request
_LAST_ROUND_BYTES: Final = 512 * ID_BYTES
_MAX_ROUNDS: Final = 20

Call = Callable[[bytes], bytes]


class Journal:
    """Ids of the points written since the copy, in an unnamed file. One thread may append while another reads.

    `size` is the length in bytes.

    Args:
        folder: where to create the file.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        self.size = 0

    def append(self, ids: bytes) -> None:
        """Append raw UUIDs, 16 bytes each, concatenated."""
        os.pwrite(self._file.fileno(), ids, self.size)
        self.size += len(ids)

    def read(self, start: int, limit: int) -> bytes:
        """Return at most `limit` bytes from the byte `start` on."""
        return os.pread(self._file.fileno(), min(limit, self.size - start), start)

    def close(self) -> None:
        """Close and remove the file."""
        self._file.close()


class CatchUp:
    """Copies the points of a journal from one worker to another.

    Args:
        journal: the ids of the points that were written.
        original: sends a packed request to the worker of the original.
        copy: sends a packed request to the worker of the copy.
        before_each: called before each part of a round; raises to stop.
    """

    def __init__(
        self, journal: Journal, original: Call, copy: Call, before_each: Callable[[], None] = lambda: None
    ) -> None:
        self._journal, self._original, self._copy, self._before_each = journal, original, copy, before_each
        self._done = 0

    def follow(self) -> None:
        """Copy points in rounds, until few are left or they are written faster than they are copied."""
        for _ in range(_MAX_ROUNDS):
            self._round()
            if self._journal.size - self._done <= _LAST_ROUND_BYTES:
                return

    def finish(self) -> None:
        """Copy the last points; the caller holds the write lock.

        Raises:
            OceanoError: `index_unavailable` if the copy then lacks points or has extra ones.
        """
        self._round()
        request = pack(Op.COUNT, body={})
        old, new = read_reply(self._original(request)), read_reply(self._copy(request))
        if old != new:
            raise unavailable(f"The copy of the shard holds {new} points instead of {old}, so it is not used.")

    def _round(self) -> None:
        end = self._journal.size
        while self._done < end:
            self._before_each()
            ids = self._journal.read(self._done, min(end - self._done, _POINTS * ID_BYTES))
            self._copy_points(join_ids(dict.fromkeys(split_ids(ids))))
            self._done += len(ids)

    def _copy_points(self, ids: bytes) -> None:
        """Make these points of the copy equal to those of the original."""
        request = pack(Op.RETRIEVE, ids, True)
        old = {key: (payload, vector) for key, payload, vector in read_reply(self._original(request))}
        new = {key: (payload, vector) for key, payload, vector in read_reply(self._copy(request))}
        changed = [key for key, value in old.items() if new.get(key) != value]
        if changed:
            vectors = b"".join(old[key][1] for key in changed)
            payloads = [old[key][0] for key in changed]
            read_reply(self._copy(pack(Op.PUT, join_ids(changed), (vectors, payloads))))
        if removed := [key for key in new if key not in old]:
            read_reply(self._copy(pack(Op.DELETE, join_ids(removed))))
