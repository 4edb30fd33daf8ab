"""The query path: picture -> faces -> matches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from app.core.concurrency import Threads
from app.core.errors import OceanoError
from app.core.protocols import Engine, FaceIndex
from app.core.types import Face, FaceFilter, FaceMatches, Floats, Match, Picture, SearchResult
from app.metrics import Metrics

GroupBy = Literal["image_id", "person"]
DEFAULT_LIMIT: Final = 20  # matches per face
MAX_LIMIT: Final = 1000
MAX_FETCHED: Final = 10_000  # matches fetched for one face to find enough groups


@dataclass(frozen=True, slots=True)
class Comparison:
    """The largest face of each of two pictures, as (position in canonical order, face), and their cosine, -1 to 1."""

    a: tuple[int, Face]
    b: tuple[int, Face]
    similarity: float


@dataclass(frozen=True, slots=True)
class _Query:
    limit: int
    threshold: float
    max_faces: int | None
    where: FaceFilter | None
    group_by: GroupBy | None


class Search:
    """Finds faces in pictures and their matches in the index, in worker threads off the event loop.

    Methods that take `took_ms` add the milliseconds of each stage to it ("detect", "embed", "search").

    Args:
        engine: finds and embeds the faces.
        index: holds the faces to compare with.
        metrics: counts faces and stages.
        threads: pictures in work at once; further calls wait in a queue.
    """

    def __init__(self, engine: Engine, index: FaceIndex, metrics: Metrics, *, threads: int) -> None:
        self._engine = engine
        self._index = index
        self._metrics = metrics
        self._threads = Threads(threads, "search")
        self.threads = threads

    async def run(
        self,
        picture: Picture,
        *,
        limit: int,
        threshold: float,
        max_faces: int | None = None,
        where: FaceFilter | None = None,
        group_by: GroupBy | None = None,
        took_ms: dict[str, float] | None = None,
    ) -> SearchResult:
        """Search for every face of a picture.

        Args:
            picture: the query.
            limit: matches per face.
            threshold: least cosine of a match, -1 to 1.
            max_faces: search for this many of the largest faces only; None: for all.
            where: which stored faces count; None: all.
            group_by: keep the best match of each image or person only. Faces without a name are not grouped.
            took_ms: stages before the search, such as "decode"; updated.

        Returns:
            Faces in canonical order, each with its matches, best first.

        Raises:
            OceanoError: `face_not_found`, `engine_unhealthy`, `index_unavailable`.
        """
        query = _Query(limit, threshold, max_faces, where, group_by)
        with self._metrics.waiting.track_inprogress():
            return await self._threads.run(self._run, picture, query, {} if took_ms is None else took_ms)

    async def detect(self, picture: Picture, *, took_ms: dict[str, float] | None = None) -> list[Face]:
        """Return the faces of a picture in canonical order; no face is an empty list.

        Raises:
            OceanoError: `engine_unhealthy`, `invalid_image`.
        """
        with self._metrics.waiting.track_inprogress():
            return await self._threads.run(self._detect, picture, {} if took_ms is None else took_ms)

    async def compare(self, a: Picture, b: Picture, *, took_ms: dict[str, float] | None = None) -> Comparison:
        """Compare the largest face of one picture with the largest of another.

        Raises:
            OceanoError: `face_not_found` with "image_a" or "image_b" in its details, `engine_unhealthy`.
        """
        took_ms = {} if took_ms is None else took_ms
        largest: list[tuple[int, Face]] = []
        for name, picture in (("image_a", a), ("image_b", b)):
            faces = await self.detect(picture, took_ms=took_ms)
            if not faces:
                raise OceanoError("face_not_found", f"no face was found in {name}", details={"image": name})
            position = max(range(len(faces)), key=lambda position: _area(faces[position]))
            largest.append((position, faces[position]))
        similarity = float(largest[0][1].embedding @ largest[1][1].embedding)
        return Comparison(largest[0], largest[1], similarity)

    async def more_like(
        self, embedding: Floats, *, limit: int, threshold: float, where: FaceFilter | None = None
    ) -> list[Match]:
        """Return the matches of one embedding of shape (D,), best first.

        Raises:
            OceanoError: `index_unavailable`.
        """
        query = _Query(limit, threshold, None, where, None)
        return (await self._threads.run(self._search, [embedding], query))[0]

    def close(self) -> None:
        """Drop waiting calls; those in work end on their own."""
        self._threads.close()

    def _run(self, picture: Picture, query: _Query, took_ms: dict[str, float]) -> SearchResult:
        before_ms = sum(took_ms.values())
        start = time.perf_counter()
        faces = self._detect(picture, took_ms)
        if not faces:
            raise OceanoError(
                "face_not_found",
                "no face was found in the picture",
                details={"width": picture.width, "height": picture.height},
            )
        positions = _largest(faces, query.max_faces)
        search_start = time.perf_counter()
        matches = self._search([faces[position].embedding for position in positions], query)
        took_ms["search"] = (time.perf_counter() - search_start) * 1000
        took_ms["total"] = before_ms + (time.perf_counter() - start) * 1000
        return SearchResult(
            width=picture.width,
            height=picture.height,
            threshold=query.threshold,
            faces=tuple(
                FaceMatches(position, faces[position], tuple(found))
                for position, found in zip(positions, matches, strict=True)
            ),
            took_ms=took_ms,
        )

    def _detect(self, picture: Picture, took_ms: dict[str, float]) -> list[Face]:
        timings: dict[str, float] = {}
        faces = self._engine.analyze([picture], timings)[0]
        for face in faces:
            self._metrics.faces.labels(face.found_by).inc()
        for stage, milliseconds in timings.items():
            self._metrics.stage.labels(stage).observe(milliseconds / 1000)
            took_ms[stage] = took_ms.get(stage, 0.0) + milliseconds
        return faces

    def _search(self, embeddings: Sequence[Floats], query: _Query) -> list[list[Match]]:
        """Fetch more matches than asked for when grouping, until there are enough groups or no more matches."""
        fetch = query.limit if query.group_by is None else min(MAX_FETCHED, 4 * query.limit)
        while True:
            with self._metrics.stage.labels("search").time():
                found = self._index.search_batch(embeddings, limit=fetch, threshold=query.threshold, where=query.where)
            if query.group_by is None:
                return found
            grouped = [_best_of_each(matches, query.group_by) for matches in found]
            too_few = any(
                len(best) < query.limit and len(matches) == fetch for best, matches in zip(grouped, found, strict=True)
            )
            if not too_few or fetch == MAX_FETCHED:
                return [best[: query.limit] for best in grouped]
            fetch = min(MAX_FETCHED, 4 * fetch)


def _largest(faces: Sequence[Face], count: int | None) -> list[int]:
    """Positions of the `count` largest faces, in canonical order."""
    positions = list(range(len(faces)))
    if count is None or count >= len(positions):
        return positions
    return sorted(sorted(positions, key=lambda position: _area(faces[position]), reverse=True)[:count])


def _area(face: Face) -> float:
    x1, y1, x2, y2 = face.bbox
    return (x2 - x1) * (y2 - y1)


def _best_of_each(matches: Sequence[Match], group_by: GroupBy) -> list[Match]:
    best: dict[str, Match] = {}
    for match in matches:
        best.setdefault(getattr(match.payload, group_by) or match.face_id, match)
    return list(best.values())
