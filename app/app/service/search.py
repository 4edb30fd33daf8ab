"""The query path: picture -> faces -> matches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from app.core.boxes import area
from app.core.concurrency import Threads
from app.core.errors import OceanoError
from app.core.protocols import Engine, FaceIndex
from app.core.types import Face, FaceFilter, FaceMatches, Floats, Match, MatchPage, Picture, SearchResult
from app.metrics import Metrics
from app.service.cursor import Cursor, GroupBy, decode_cursor, encode_cursor
from app.service.folders import require_known_folders
from app.service.paging import DECIMALS as _DECIMALS
from app.service.paging import SLACK as _SLACK
from app.service.paging import further_matches

DEFAULT_LIMIT: Final = 20  # matches per face
MAX_LIMIT: Final = 1000
MAX_FETCHED: Final = 10_000  # matches fetched for one face to find enough groups


@dataclass(frozen=True, slots=True)
class FacePair:
    """A face of each of two pictures, by their positions in canonical order, and their cosine, -1 to 1."""

    a: int
    b: int
    similarity: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The faces of two pictures.

    Attributes:
        a: faces of the first picture, in canonical order.
        b: faces of the second picture.
    """

    a: tuple[Face, ...]
    b: tuple[Face, ...]

    @property
    def largest(self) -> FacePair:
        """The largest face of each picture."""
        return self._pair(_largest(self.a, 1)[0], _largest(self.b, 1)[0])

    @property
    def pairs(self) -> list[FacePair]:
        """Every face of the first with every face of the second, most similar first; slow for large groups."""
        pairs = [self._pair(one, other) for one in range(len(self.a)) for other in range(len(self.b))]
        return sorted(pairs, key=lambda pair: -pair.similarity)

    def _pair(self, one: int, other: int) -> FacePair:
        return FacePair(one, other, round(float(self.a[one].embedding @ self.b[other].embedding), _DECIMALS))


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
            Faces in canonical order, each with its matches, best first. Similarities are rounded to six decimals, and
            compared with the threshold after rounding: a threshold equal to a similarity in a result includes it.

        Raises:
            OceanoError: `face_not_found`, `folder_unknown`, `engine_unhealthy`, `index_unavailable`.
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
        """Compare the faces of one picture with those of another.

        Raises:
            OceanoError: `face_not_found` with "image_a" or "image_b" in its details, `engine_unhealthy`.
        """
        took_ms = {} if took_ms is None else took_ms
        found: list[tuple[Face, ...]] = []
        for name, picture in (("image_a", a), ("image_b", b)):
            faces = await self.detect(picture, took_ms=took_ms)
            if not faces:
                raise OceanoError("face_not_found", f"no face was found in {name}", details={"image": name})
            found.append(tuple(faces))
        return Comparison(*found)

    async def more_like(
        self, embedding: Floats, *, limit: int, threshold: float, where: FaceFilter | None = None
    ) -> list[Match]:
        """Return the matches of one embedding of shape (D,), best first.

        Raises:
            OceanoError: `index_unavailable`.
        """
        query = _Query(limit, threshold, None, where, None)
        found, _ = (await self._threads.run(self._search, [embedding], query))[0]
        return found

    async def more(self, after: str, *, limit: int, count_from: float = -1.0) -> MatchPage:
        """Return the next page of a face's matches.

        Args:
            after: `next` of the page before.
            limit: matches of the page.
            count_from: lowest similarity of the matches that `total` counts, -1 to 1; not below the query's threshold.

        Raises:
            OceanoError: `cursor_invalid`, `index_unavailable`.
        """
        return await self._threads.run(self._more, after, limit, count_from)

    def close(self) -> None:
        """Drop waiting calls; those in work end on their own."""
        self._threads.close()

    def _run(self, picture: Picture, query: _Query, took_ms: dict[str, float]) -> SearchResult:
        before_ms = sum(took_ms.values())
        start = time.perf_counter()
        require_known_folders(self._index, query.where)
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
        undated = self._undated(query.where)
        took_ms["search"] = (time.perf_counter() - search_start) * 1000
        took_ms["total"] = before_ms + (time.perf_counter() - start) * 1000
        return SearchResult(
            width=picture.width,
            height=picture.height,
            threshold=query.threshold,
            faces=tuple(
                FaceMatches(
                    position, faces[position], tuple(found), self._next(faces[position], found, query) if more else None
                )
                for position, (found, more) in zip(positions, matches, strict=True)
            ),
            took_ms=took_ms,
            undated_left_out=undated,
        )

    def _more(self, after: str, limit: int, count_from: float) -> MatchPage:
        start = time.perf_counter()
        pack = self._engine.pack
        cursor = decode_cursor(after, pack.digest, pack.embedding_size)
        with self._metrics.stage.labels("search").time():
            found = further_matches(self._index, cursor, limit, count_from=count_from)
        milliseconds = (time.perf_counter() - start) * 1000
        return MatchPage(
            matches=found.matches,
            first=cursor.shown + 1,
            total=found.total,
            next=None if found.next is None else encode_cursor(found.next, pack.digest),
            threshold=cursor.threshold,
            took_ms={"search": milliseconds, "total": milliseconds},
        )

    def _next(self, face: Face, found: Sequence[Match], query: _Query) -> str:
        """Return the cursor after a first page."""
        seen = tuple(match.face_id for match in found)
        cursor = Cursor(face.embedding, query.threshold, query.where, query.group_by, len(found), None, seen)
        return encode_cursor(cursor, self._engine.pack.digest)

    def _undated(self, where: FaceFilter | None) -> int | None:
        """Count the faces without a date that a filter on `taken_at` leaves out."""
        if where is None or (where.taken_from is None and where.taken_to is None):
            return None
        return self._index.count(replace(where, taken_from=None, taken_to=None, undated=True))

    def _detect(self, picture: Picture, took_ms: dict[str, float]) -> list[Face]:
        timings: dict[str, float] = {}
        faces = self._engine.analyze([picture], timings)[0]
        for face in faces:
            self._metrics.faces.labels(face.found_by).inc()
        for stage, milliseconds in timings.items():
            self._metrics.stage.labels(stage).observe(milliseconds / 1000)
            took_ms[stage] = took_ms.get(stage, 0.0) + milliseconds
        return faces

    def _search(self, embeddings: Sequence[Floats], query: _Query) -> list[tuple[list[Match], bool]]:
        """Return the matches of each embedding, and whether there are more.

        Fetches one more than asked for; when grouping even more, until there are enough groups or no more matches.
        """
        wanted = query.limit + 1
        fetch = wanted if query.group_by is None else min(MAX_FETCHED, 4 * wanted)
        while True:
            with self._metrics.stage.labels("search").time():
                found = self._index.search_batch(
                    embeddings, limit=fetch, threshold=query.threshold - _SLACK, where=query.where
                )
            kept = [_reaching(matches, query.threshold) for matches in found]
            is_cut = [len(matches) == fetch for matches in kept]
            if query.group_by is not None:
                kept = [_best_of_each(matches, query.group_by) for matches in kept]
                too_few = any(len(best) < wanted and cut for best, cut in zip(kept, is_cut, strict=True))
                if too_few and fetch < MAX_FETCHED:
                    fetch = min(MAX_FETCHED, 4 * fetch)
                    continue
            return [
                (best[: query.limit], cut or len(best) > query.limit) for best, cut in zip(kept, is_cut, strict=True)
            ]


def reaches(similarity: float, threshold: float) -> bool:
    """Return whether a similarity, rounded as in results, is at or above a threshold."""
    return similarity >= round(threshold, _DECIMALS)


def _largest(faces: Sequence[Face], count: int | None) -> list[int]:
    """Positions of the `count` largest faces, in canonical order."""
    positions = list(range(len(faces)))
    if count is None or count >= len(positions):
        return positions
    return sorted(sorted(positions, key=lambda position: area(faces[position].bbox), reverse=True)[:count])


def _reaching(matches: Sequence[Match], threshold: float) -> list[Match]:
    """Round the similarities and keep those that reach the threshold."""
    rounded = [Match(match.face_id, round(match.similarity, _DECIMALS), match.payload) for match in matches]
    return [match for match in rounded if reaches(match.similarity, threshold)]


def _best_of_each(matches: Sequence[Match], group_by: GroupBy) -> list[Match]:
    best: dict[str, Match] = {}
    for match in matches:
        best.setdefault(getattr(match.payload, group_by) or match.face_id, match)
    return list(best.values())
