"""What both kinds of index share: checks of arguments, large requests in parts, pages."""

from __future__ import annotations

import logging
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from app.core.iteration import chunks
from app.core.paths import folders_of
from app.core.types import FaceFilter, FacePoint, FaceRecord, Floats, Match, Score, ScrollPage
from app.index.payload import (
    conditions_of,
    is_intact,
    payload_of,
    require_hash,
    require_limit,
    require_threshold,
    similarity_of,
    unit_rows,
    uuid_of,
)

_log = logging.getLogger(__name__)

# The embedded index's worker handles one request at a time. These limits, and the size of its batches of writes, keep a
# request below about 50 ms, so that searches do not wait long.
READ_POINTS: Final = 1000
_SEARCH_VECTORS: Final = 16


StoredFace = tuple[str, Mapping[str, Any], Floats | None]
"""Id, stored values and embedding (if read) of a face, as they are in the index, perhaps damaged."""


class BaseIndex(ABC):
    """The common part of all `app.core.protocols.FaceIndex` classes; the Protocol documents the methods.

    Args:
        embedding_size: the D of the index's model; embeddings of another shape are refused.
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
        for part in chunks(embeddings, _SEARCH_VECTORS):
            found += self._nearest(unit_rows(part, self._size), limit, threshold, conditions)
        return found

    def search_scores(
        self, embeddings: Sequence[Floats], *, limit: int, threshold: float | None = None, candidates: int = 128
    ) -> list[list[Score]]:
        require_limit(limit)
        require_threshold(threshold)
        found: list[list[Score]] = []
        for part in chunks(embeddings, _SEARCH_VECTORS):
            found += self._nearest_scores(unit_rows(part, self._size), limit, threshold, candidates)
        return found

    def search_exact(
        self, embedding: Floats, *, limit: int, threshold: float | None = None, where: FaceFilter | None = None
    ) -> list[Score]:
        require_limit(limit)
        require_threshold(threshold)
        return self._exact(unit_rows([embedding], self._size), limit, threshold, conditions_of(where))

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
        next_offset = None if offset is None else str(uuid_of(offset))
        records: list[FaceRecord] = []
        while True:
            part = min(limit - len(records), READ_POINTS)
            found, next_offset = self._page(part, next_offset, conditions, with_embedding)
            records += records_of(found)
            if next_offset is None or len(records) >= limit:
                return ScrollPage(tuple(records), next_offset)

    def damaged_faces(self) -> Iterator[str]:
        offset: str | None = None
        while True:
            page, offset = self._page(READ_POINTS, offset, {}, with_embedding=True)
            for face_id, stored, embedding in page:
                if not is_intact(stored, embedding):
                    yield face_id
            if offset is None:
                return

    def set_payload(self, face_ids: Sequence[str], *, person: str | None) -> None:
        self._set_fields(face_ids, {"person": person})

    def set_paths(self, face_ids: Sequence[str], *, paths: Sequence[str]) -> None:
        self._set_fields(face_ids, {"path": paths[0], "folder": list(folders_of(*paths))})

    def set_phash(self, face_ids: Sequence[str], *, phash: str) -> None:
        self._set_fields(face_ids, {"phash": require_hash(phash)})

    @abstractmethod
    def _nearest(
        self, rows: Floats, limit: int, threshold: float | None, conditions: dict[str, Any]
    ) -> list[list[Match]]:
        """Return the matches of each row of (n, D), best first; n fits into one request."""

    @abstractmethod
    def _nearest_scores(self, rows: Floats, limit: int, threshold: float | None, candidates: int) -> list[list[Score]]:
        """Return the scores of each row of (n, D), best first; n fits into one request."""

    @abstractmethod
    def _exact(self, row: Floats, limit: int, threshold: float | None, conditions: dict[str, Any]) -> list[Score]:
        """Return the scores of a row of (1, D), best first, from a scan of all faces."""

    @abstractmethod
    def _page(
        self, limit: int, offset: str | None, conditions: dict[str, Any], with_embedding: bool
    ) -> tuple[list[StoredFace], str | None]:
        """Return at most `limit` (READ_POINTS or less) faces from the id `offset` on, and the next offset."""

    @abstractmethod
    def _set_fields(self, face_ids: Sequence[str], fields: dict[str, Any]) -> None:
        """Set payload fields of the faces that exist."""


def unique_points(points: Sequence[FacePoint]) -> dict[uuid.UUID, FacePoint]:
    """Return the points by id; of several with one id the first, as if they were inserted one after the other.

    Raises:
        OceanoError: `invalid_request` if a face_id is not a UUID.
    """
    unique: dict[uuid.UUID, FacePoint] = {}
    for point in points:
        unique.setdefault(uuid_of(point.face_id), point)
    return unique


def matches_of(hits: Iterable[tuple[str, float, Mapping[str, Any]]]) -> list[Match]:
    """Convert ids, scores and stored values to matches; damaged ones are left out and logged."""
    matches = []
    for face_id, score, stored in hits:
        similarity, payload = similarity_of(score), payload_of(stored)
        if similarity is None or payload is None:
            _log_damaged(face_id)
        else:
            matches.append(Match(face_id, similarity, payload))
    return matches


def scores_of(hits: Iterable[tuple[str, float]]) -> list[Score]:
    """Convert ids and scores; damaged ones are left out and logged."""
    scores = []
    for face_id, score in hits:
        if (similarity := similarity_of(score)) is None:
            _log_damaged(face_id)
        else:
            scores.append(Score(face_id, similarity))
    return scores


def records_of(found: Iterable[StoredFace]) -> list[FaceRecord]:
    """Convert stored faces to records; damaged ones are left out and logged."""
    records = []
    for face_id, stored, embedding in found:
        if (payload := payload_of(stored)) is None:
            _log_damaged(face_id)
        else:
            records.append(FaceRecord(face_id, payload, embedding))
    return records


def _log_damaged(face_id: str) -> None:
    _log.error("the face %s in the index is damaged; run `oceano doctor --fix`", face_id)
