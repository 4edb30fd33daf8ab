"""The groups of unnamed faces in a part of the folders, by the number of faces that are seen there."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from threading import Lock
from typing import Final

from cachetools import LRUCache

from app.catalog import LEAST_FACES, UnnamedGroups
from app.core.iteration import chunks
from app.core.protocols import FaceIndex
from app.core.scrolling import scrolled
from app.core.types import FaceFilter

_MOST: Final = 20_000  # unnamed faces of a part that are read: about two seconds
_READ: Final = 5_000
_PARTS: Final = 100  # whose groups are kept
_LEAST_SECONDS: Final = 2.0
_SHARE: Final = 20.0


@dataclass(frozen=True, slots=True)
class _Counted:
    groups: list[tuple[str, int]]
    changes: int
    valid_until: float


class SeenGroups:
    """Counts the groups of parts of the folders as `UnnamedGroups` counts all. Safe for threads.

    Args:
        groups: of all folders.
    """

    def __init__(self, groups: UnnamedGroups) -> None:
        self._groups = groups
        self._lock = Lock()
        self._changes = 0
        self._counted: LRUCache[str, _Counted] = LRUCache(_PARTS)

    def of(self, key: str, index: FaceIndex) -> list[tuple[str, int]] | None:
        """Return the ids of groups of which at least two faces are seen, with the number of these, most first.

        Args:
            key: names the part of the folders.
            index: shows the faces in it.

        Returns:
            The groups; None if the part has so many unnamed faces that this would take long.

        Raises:
            OceanoError: `index_unavailable`, `ledger_unavailable`.
        """
        start = time.monotonic()
        with self._lock:
            known, changes = self._counted.get(key), self._changes
        if known is not None and known.changes == changes and start < known.valid_until:
            return known.groups
        where = FaceFilter(unnamed=True)
        if index.count(where) > _MOST:
            return None
        sizes: Counter[str] = Counter()
        for some in chunks(scrolled(index, page=_READ, where=where), _READ):
            groups = self._groups.of_faces([record.face_id for record in some])
            sizes.update(group for group in groups.values() if group is not None)
        found = sorted(
            ((group, faces) for group, faces in sizes.items() if faces >= LEAST_FACES),
            key=lambda one: (-one[1], one[0]),
        )
        until = start + max(_LEAST_SECONDS, _SHARE * (time.monotonic() - start))
        with self._lock:
            self._counted[key] = _Counted(found, changes, until)
        return found

    def forget(self) -> None:
        """Let all groups be counted again at the next call, because names have changed."""
        with self._lock:
            self._changes += 1
