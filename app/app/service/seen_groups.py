"""The groups of unnamed faces in a part of the folders, by the number of faces that are seen there."""

from __future__ import annotations

from collections import Counter
from threading import Lock
from typing import Final

from cachetools import LRUCache

from app.catalog import LEAST_FACES, UnnamedGroups
from app.core.cached_value import CachedValue
from app.core.iteration import chunks
from app.core.protocols import FaceIndex
from app.core.scrolling import scrolled
from app.core.types import FaceFilter

_MOST: Final = 20_000  # unnamed faces of a part that are read: about two seconds
_READ: Final = 5_000
_PARTS: Final = 100  # whose groups are kept


class SeenGroups:
    """Counts the groups of parts of the folders as `UnnamedGroups` counts all. Safe for threads.

    Args:
        groups: of all folders.
    """

    def __init__(self, groups: UnnamedGroups) -> None:
        self._groups = groups
        self._lock = Lock()
        self._counted: LRUCache[str, CachedValue[list[tuple[str, int]] | None]] = LRUCache(_PARTS)

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
        with self._lock:
            if (counted := self._counted.get(key)) is None:
                counted = self._counted[key] = CachedValue()
        return counted.get(lambda: self._count(index))

    def forget(self) -> None:
        """Let all groups be counted again at the next call, because names have changed."""
        with self._lock:
            self._counted.clear()

    def _count(self, index: FaceIndex) -> list[tuple[str, int]] | None:
        where = FaceFilter(unnamed=True)
        if index.count(where) > _MOST:
            return None
        sizes: Counter[str] = Counter()
        for some in chunks(scrolled(index, page=_READ, where=where), _READ):
            groups = self._groups.of_faces([record.face_id for record in some])
            sizes.update(group for group in groups.values() if group is not None)
        found = ((group, faces) for group, faces in sizes.items() if faces >= LEAST_FACES)
        return sorted(found, key=lambda one: (-one[1], one[0]))
