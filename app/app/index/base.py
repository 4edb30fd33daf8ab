"""What both kinds of index do alike: checks before anything is asked, large questions in parts, pages."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final

from app.core.paths import folders_of
from app.core.types import FaceFilter, FacePoint, FaceRecord, Floats, Match, ScrollPage
from app.index.payload import chunks, conditions_of, require_limit, require_threshold, unit_rows, uuid_of

# A request holds the embedded index's worker; these, and its batches of writes, keep one below some 50 ms, so that a
# search finds its turn between them.
READ_POINTS: Final = 1000
_SEARCH_VECTORS: Final = 16


class BaseIndex(ABC):
    """Half of `app.core.protocols.FaceIndex`, which says what each method does; the rest is how one kind is asked.

    `embedding_size` is the D of the model that the index is for; embeddings of another shape are refused.
    """

    def __init__(self, embedding_size: int) -> None:
        self._size = embedding_size

    def search(
        self, embedding: Floats, *, limit: int, threshold: float | None = None, where: FaceFilter | None = None
    ) -> list[Match]:
        return self.search_batch([embedding], limit=limit, threshold=threshold, where=where)[0]

    def search_batch(
        self,
        embeddings: Sequence[Floats],
        *,
        limit: int,
        threshold: float | None = None,
        where: FaceFilter | None = None,
    ) -> list[list[Match]]:
        require_limit(limit)
        require_threshold(threshold)
        conditions = conditions_of(where)
        found: list[list[Match]] = []
        for some in chunks(embeddings, _SEARCH_VECTORS):
            found += self._nearest(unit_rows(some, self._size), limit, threshold, conditions)
        return found

    def scroll(
        self,
        *,
        limit: int,
        offset: str | None = None,
        where: FaceFilter | None = None,
        with_embedding: bool = False,
    ) -> ScrollPage:
        require_limit(limit)
        conditions = conditions_of(where)
        following = None if offset is None else str(uuid_of(offset))
        records: list[FaceRecord] = []
        while True:
            count = min(limit - len(records), READ_POINTS)
            found, following = self._page(count, following, conditions, with_embedding)
            records += found
            if following is None or len(records) >= limit:
                return ScrollPage(tuple(records), following)

    def set_payload(self, face_ids: Sequence[str], *, person: str | None) -> None:
        self._set(face_ids, {"person": person})

    def set_path(self, face_ids: Sequence[str], *, path: str) -> None:
        self._set(face_ids, {"path": path, "folder": list(folders_of(path))})

    @abstractmethod
    def _nearest(
        self, rows: Floats, limit: int, threshold: float | None, conditions: dict[str, Any]
    ) -> list[list[Match]]:
        """For each row of (n, D), as many as one request may hold."""

    @abstractmethod
    def _page(
        self, count: int, following: str | None, conditions: dict[str, Any], with_embedding: bool
    ) -> tuple[list[FaceRecord], str | None]:
        """At most READ_POINTS faces from the id `following` on, and the id after them."""

    @abstractmethod
    def _set(self, face_ids: Sequence[str], fields: dict[str, Any]) -> None:
        """Fields of the payload of those that are there."""


def first_of_each(points: Sequence[FacePoint]) -> dict[uuid.UUID, FacePoint]:
    """The first of two with the same id, as with two calls."""
    fresh: dict[uuid.UUID, FacePoint] = {}
    for point in points:
        fresh.setdefault(uuid_of(point.face_id), point)
    return fresh
