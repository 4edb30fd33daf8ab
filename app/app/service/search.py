"""The query path: picture -> faces -> matches."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Unpack

from app.core.boxes import area
from app.core.concurrency import Threads
from app.core.errors import OceanoError
from app.core.protocols import Engine, FaceIndex
from app.core.types import Face, Floats, Picture
from app.metrics import Metrics
from app.service.cursor import Cursor, Position, decode_cursor, encode_cursor
from app.service.paging import DECIMALS as _DECIMALS
from app.service.query import Conditions, FaceMatches, Query, ResultPage, SearchResult
from app.service.results import Results

DEFAULT_LIMIT: Final = 20  # matches per face
MAX_LIMIT: Final = 1000


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


class Search:
    """Finds faces in pictures and their matches in the index, in worker threads off the event loop.

    Methods that take `took_ms` add the milliseconds of each stage to it ("detect", "embed", "search").

    Args:
        engine: finds and embeds the faces.
        index: holds the faces to compare with.
        metrics: counts faces and stages.
        threads: pictures in work at once; further calls wait in a queue.

    Attributes:
        results: the lists of matches in the index.
        threads: as above.
    """

    def __init__(self, engine: Engine, index: FaceIndex, metrics: Metrics, *, threads: int) -> None:
        self._engine = engine
        self._index = index
        self._metrics = metrics
        self._threads = Threads(threads, "search")
        self.results = Results(index, engine.pack, metrics)
        self.threads = threads

    def through(self, index: FaceIndex, part: str) -> Search:
        """Return the search for faces that another index shows, in the same threads; see `Results.through`."""
        other = copy.copy(self)
        other._index, other.results = index, self.results.through(index, part)
        return other

    async def run(
        self,
        picture: Picture,
        *,
        limit: int,
        threshold: float,
        max_faces: int | None = None,
        took_ms: dict[str, float] | None = None,
        **conditions: Unpack[Conditions],
    ) -> SearchResult:
        """Search for every face of a picture.

        Args:
            picture: the query.
            limit: matches per face.
            threshold: least cosine of a match, -1 to 1.
            max_faces: search for this many of the largest faces only; None: for all.
            took_ms: stages before the search, such as "decode"; updated.
            conditions: as in `Query`.

        Returns:
            Faces in canonical order, each with its matches, best first. Similarities are rounded to six decimals, and
            compared with the threshold after rounding: a threshold equal to a similarity in a result includes it.

        Raises:
            OceanoError: `face_not_found`, `folder_unknown`, `engine_unhealthy`, `index_unavailable`.
        """
        took_ms = {} if took_ms is None else took_ms
        query_of = partial(Query, threshold=threshold, **conditions)
        with self._metrics.waiting.track_inprogress():
            return await self._threads.run(self._run, picture, query_of, limit, max_faces, took_ms)

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

    async def find(
        self, queries: Sequence[Query], *, limit: int, took_ms: dict[str, float] | None = None
    ) -> list[ResultPage]:
        """Return the first pages of queries that differ only in their embeddings, in few requests to the index.

        Args:
            queries: at least one.
            limit: matches of each page.
            took_ms: stages before the search, such as "decode"; updated.

        Raises:
            OceanoError: `folder_unknown`, `index_unavailable`.
        """
        return await self._threads.run(self._find, queries, limit, {} if took_ms is None else took_ms)

    async def more(self, after: str, *, limit: int) -> ResultPage:
        """Return the next page of a face's matches.

        Args:
            after: `next` of the page before.
            limit: matches of the page.

        Raises:
            OceanoError: `cursor_invalid`, `index_unavailable`.
        """
        return await self._threads.run(self._more, after, limit)

    def close(self) -> None:
        """Drop waiting calls; those in work end on their own."""
        self._threads.close()
        self.results.close()

    def _run(
        self,
        picture: Picture,
        query_of: Callable[[Floats], Query],
        limit: int,
        max_faces: int | None,
        took_ms: dict[str, float],
    ) -> SearchResult:
        before_ms = sum(took_ms.values())
        start = time.perf_counter()
        faces = self._detect(picture, took_ms)
        if not faces:
            raise OceanoError(
                "face_not_found",
                "no face was found in the picture",
                details={"width": picture.width, "height": picture.height},
            )
        positions = _largest(faces, max_faces)
        queries = [query_of(faces[position].embedding) for position in positions]
        search_start = time.perf_counter()
        with self._metrics.stage.labels("search").time():
            pages = self.results.first_pages(queries, limit)
        took_ms["search"] = (time.perf_counter() - search_start) * 1000
        took_ms["total"] = before_ms + (time.perf_counter() - start) * 1000
        return SearchResult(
            width=picture.width,
            height=picture.height,
            threshold=queries[0].threshold,
            faces=tuple(
                FaceMatches(position, faces[position], page.matches, self._cursor(query, following))
                for position, query, (page, following) in zip(positions, queries, pages, strict=True)
            ),
            took_ms=took_ms,
            undated_left_out=pages[0][0].undated_left_out,
        )

    def _find(self, queries: Sequence[Query], limit: int, took_ms: dict[str, float]) -> list[ResultPage]:
        before_ms = sum(milliseconds for stage, milliseconds in took_ms.items() if stage != "total")
        start = time.perf_counter()
        with self._metrics.stage.labels("search").time():
            pages = self.results.first_pages(queries, limit)
        took_ms["search"] = took_ms.get("search", 0.0) + (time.perf_counter() - start) * 1000
        took_ms["total"] = before_ms + (time.perf_counter() - start) * 1000
        return [
            replace(page, next=self._cursor(query, following), took_ms=took_ms)
            for query, (page, following) in zip(queries, pages, strict=True)
        ]

    def _more(self, after: str, limit: int) -> ResultPage:
        pack = self._engine.pack
        cursor = decode_cursor(after, self.results.cursor_key, pack.embedding_size)
        page, following = self.results.page_at(cursor.query, cursor.position, limit)
        return replace(page, next=self._cursor(cursor.query, following))

    def _cursor(self, query: Query, following: Position | None) -> str | None:
        return None if following is None else encode_cursor(Cursor(query, following), self.results.cursor_key)

    def _detect(self, picture: Picture, took_ms: dict[str, float]) -> list[Face]:
        timings: dict[str, float] = {}
        faces = self._engine.analyze([picture], timings)[0]
        for face in faces:
            self._metrics.faces.labels(face.found_by).inc()
        for stage, milliseconds in timings.items():
            self._metrics.stage.labels(stage).observe(milliseconds / 1000)
            took_ms[stage] = took_ms.get(stage, 0.0) + milliseconds
        return faces


def _largest(faces: Sequence[Face], count: int | None) -> list[int]:
    """Positions of the `count` largest faces, in canonical order."""
    positions = list(range(len(faces)))
    if count is None or count >= len(positions):
        return positions
    return sorted(sorted(positions, key=lambda position: area(faces[position].bbox), reverse=True)[:count])
