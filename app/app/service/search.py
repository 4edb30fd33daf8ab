"""The query path: picture -> faces -> matches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from app.core.concurrency import Threads
from app.core.errors import OceanoError
from app.core.protocols import Engine, FaceIndex
from app.core.types import Face, FaceFilter, FaceMatches, Floats, Match, Picture, SearchResult
from app.metrics import Metrics

GroupBy = Literal["image_id", "person"]
MOST_MATCHES: Final = 10_000  # fetched for one face to find enough groups


@dataclass(frozen=True, slots=True)
class _Query:
    limit: int
    threshold: float
    max_faces: int | None
    where: FaceFilter | None
    group_by: GroupBy | None


class Search:
    """Answers pictures with matches; the work happens in a few threads, off the event loop.

    Args:
        threads: how many pictures are in work at once; the others wait their turn.
    """

    def __init__(self, engine: Engine, index: FaceIndex, metrics: Metrics, *, threads: int) -> None:
        self._engine = engine
        self._index = index
        self._metrics = metrics
        self._threads = Threads(threads, "search")

    async def run(
        self,
        picture: Picture,
        *,
        limit: int,
        threshold: float,
        max_faces: int | None = None,
        where: FaceFilter | None = None,
        group_by: GroupBy | None = None,
    ) -> SearchResult:
        """Matches of every face of a picture (of the `max_faces` largest), best first, at least `threshold` alike.

        With `group_by` only the best match of each image or of each person is kept; the nameless stand alone.

        Raises OceanoError `face_not_found`, `engine_unhealthy`, `index_unavailable`.
        """
        query = _Query(limit, threshold, max_faces, where, group_by)
        with self._metrics.waiting.track_inprogress():
            return await self._threads.run(self._run, picture, query)

    async def detect(self, picture: Picture) -> tuple[list[Face], dict[str, float]]:
        """The faces of a picture in canonical order, and milliseconds per stage. No face is an empty list."""
        with self._metrics.waiting.track_inprogress():
            return await self._threads.run(self._detect, picture)

    async def more_like(
        self, embedding: Floats, *, limit: int, threshold: float, where: FaceFilter | None = None
    ) -> list[Match]:
        """Matches of one embedding, best first."""
        query = _Query(limit, threshold, None, where, None)
        return (await self._threads.run(self._search, [embedding], query))[0]

    def close(self) -> None:
        self._threads.close()

    def _run(self, picture: Picture, query: _Query) -> SearchResult:
        start = time.perf_counter()
        faces, took = self._detect(picture)
        if not faces:
            raise OceanoError(
                "face_not_found",
                "no face was found in the picture",
                details={"width": picture.width, "height": picture.height},
            )
        chosen = _largest(faces, query.max_faces)
        searched = time.perf_counter()
        matches = self._search([faces[place].embedding for place in chosen], query)
        took["search"] = (time.perf_counter() - searched) * 1000
        took["total"] = (time.perf_counter() - start) * 1000
        return SearchResult(
            width=picture.width,
            height=picture.height,
            threshold=query.threshold,
            faces=tuple(
                FaceMatches(place, faces[place], tuple(found)) for place, found in zip(chosen, matches, strict=True)
            ),
            took_ms=took,
        )

    def _detect(self, picture: Picture) -> tuple[list[Face], dict[str, float]]:
        took: dict[str, float] = {}
        faces = self._engine.analyze([picture], took)[0]
        for face in faces:
            self._metrics.faces.labels(face.found_by).inc()
        self._observe(took)
        return faces, took

    def _search(self, embeddings: Sequence[Floats], query: _Query) -> list[list[Match]]:
        """Where matches are grouped, more are fetched until there are enough groups, or no more matches."""
        fetch = query.limit if query.group_by is None else min(MOST_MATCHES, 4 * query.limit)
        while True:
            with self._metrics.stage.labels("search").time():
                found = self._index.search_batch(embeddings, limit=fetch, threshold=query.threshold, where=query.where)
            if query.group_by is None:
                return found
            grouped = [_best_of_each(matches, query.group_by) for matches in found]
            few = any(
                len(best) < query.limit and len(matches) == fetch for best, matches in zip(grouped, found, strict=True)
            )
            if not few or fetch == MOST_MATCHES:
                return [best[: query.limit] for best in grouped]
            fetch = min(MOST_MATCHES, 4 * fetch)

    def _observe(self, took: dict[str, float]) -> None:
        for stage, milliseconds in took.items():
            self._metrics.stage.labels(stage).observe(milliseconds / 1000)


def _largest(faces: Sequence[Face], most: int | None) -> list[int]:
    """Places of the `most` largest faces (by the bbox's area), in canonical order."""
    places = list(range(len(faces)))
    if most is None or most >= len(places):
        return places

    def area(place: int) -> float:
        x1, y1, x2, y2 = faces[place].bbox
        return (x2 - x1) * (y2 - y1)

    return sorted(sorted(places, key=area, reverse=True)[:most])


def _best_of_each(matches: Sequence[Match], group_by: GroupBy) -> list[Match]:
    best: dict[str, Match] = {}
    for match in matches:
        best.setdefault(getattr(match.payload, group_by) or match.face_id, match)
    return list(best.values())


def with_decoding(result: SearchResult, decode_ms: float) -> SearchResult:
    """The result with the time that reading and decoding the upload took, first and in the total."""
    took = {"decode": decode_ms, **result.took_ms}
    took["total"] = took.get("total", 0.0) + decode_ms
    return replace(result, took_ms=took)
