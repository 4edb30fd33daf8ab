"""Results of a query: its pages, its counts, and all of its matches."""

from __future__ import annotations

import copy
import math
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Final, TypeVar

from app.core.concurrency import Threads
from app.core.errors import OceanoError
from app.core.iteration import chunks
from app.core.protocols import FaceIndex
from app.core.types import FaceFilter, Floats, Match, ModelPack
from app.metrics import Metrics
from app.service.counts import Counted, facets_of, part_of
from app.service.cursor import START, Position, decode_position, encode_position, encode_query
from app.service.folders import require_known_folders
from app.service.list_cache import KEPT_SECONDS, ListCache
from app.service.paging import DECIMALS, SLACK, Rank, further_matches, rank_at_least, reaches
from app.service.query import Facets, ListedMatch, Query, ResultPage
from app.service.ranked import RankedList, Row, all_matches, arranged, only_within

T = TypeVar("T")

_THREADS: Final = 4
_FRESH_SECONDS: Final = 30.0  # a first page is not older
_MAX_EXPORTED: Final = 1_000_000
_READ: Final = 500


class Results:
    """Lists of matches. Its methods may be called from several threads.

    Args:
        index: holds the faces.
        pack: the model pack of the index.
        metrics: counts the time of searches.
    """

    def __init__(self, index: FaceIndex, pack: ModelPack, metrics: Metrics) -> None:
        self._index = index
        self._digest = pack.digest
        self._metrics = metrics
        self._threads = Threads(_THREADS, "results")
        self._lists = ListCache()
        self._part = ""
        self._named = (-math.inf, False)

    def through(self, index: FaceIndex, part: str) -> Results:
        """Return the lists of the matches that another index shows; threads and the cache of lists are shared.

        Args:
            index: shows a part of the faces.
            part: names the part. Positions and cursors that were made for one part are refused by the others.
        """
        other = copy.copy(self)
        other._index, other._part, other._named = index, part, (-math.inf, False)
        return other

    @property
    def cursor_key(self) -> str:
        """What cursors of these lists belong to, for `encode_cursor`: the model, and the part of the faces."""
        return f"{self._digest}\0{self._part}" if self._part else self._digest

    async def page(self, query: Query, *, limit: int, after: str | None = None) -> ResultPage:
        """Return a page of the results.

        In the order of similarity, the first page comes from the graph of the index and is approximate; every other
        page is exact.

        Args:
            query: the query.
            limit: matches of the page.
            after: `next` of the page before; None: the first page.

        Raises:
            OceanoError: `cursor_invalid`, `folder_unknown`, `index_unavailable`.
        """
        position = START if after is None else decode_position(after, query, self.cursor_key)
        found, following = await self._threads.run(self.page_at, query, position, limit)
        return found if following is None else replace(found, next=encode_position(following, query, self.cursor_key))

    async def facets(self, query: Query, *, least: float | None = None, folders: int = 50) -> Facets:
        """Count all matches of a query by year and folder; `sort` and `group_by` do not matter.

        Args:
            query: the query.
            least: the threshold of `Facets.similarities` if it is lower than that of the query.
            folders: maximum number of folders.

        Raises:
            OceanoError: `index_unavailable`, `invalid_request`.
        """
        return await self._threads.run(lambda: facets_of(self._counted(query, least), folders))

    def matches(self, query: Query, *, limit: int | None = None) -> Iterator[ListedMatch]:
        """Yield all matches of a query in its order, from an exact search at the first one; blocks while it reads.

        Arguments and errors are those of `listed`.
        """
        yield from self.listed(query, limit=limit)

    def listed(self, query: Query, *, limit: int | None = None) -> AllMatches:
        """Find all matches of a query by an exact search; blocking. They are read while they are iterated.

        Args:
            query: the query.
            limit: the largest number of matches; None: all.

        Raises:
            OceanoError: `folder_unknown`, `index_unavailable`.
        """
        require_known_folders(self._index, query.where)
        if query.needs_list:
            return AllMatches(self._listed(query, KEPT_SECONDS).rows[:limit], self._read)
        wanted = _MAX_EXPORTED if limit is None else limit
        return AllMatches(rank_at_least(self._index, query, wanted)[:wanted], self._read_ranks)

    async def embeddings_of(self, face_ids: Sequence[str]) -> list[Floats]:
        """Return the embeddings of stored faces, float32, (D,), in their order.

        Raises:
            OceanoError: `face_unknown` if one is not in the index; `index_unavailable`.
        """
        found = await self._threads.run(self._embeddings, face_ids)
        return [found[face_id] for face_id in face_ids]

    async def has_names(self) -> bool:
        """Return whether any face has a name, as it was at most half a minute ago.

        Raises:
            OceanoError: `index_unavailable`.
        """
        asked, named = self._named
        if time.monotonic() - asked > _FRESH_SECONDS:
            named = bool(await self._threads.run(lambda: self._index.facet("person", limit=1)))
            self._named = (time.monotonic(), named)
        return named

    def forget_names(self) -> None:
        """Let no further page come from a list that was built with the names of before."""
        self._lists.names += 1
        self._named = (-math.inf, False)

    def close(self) -> None:
        """Drop waiting calls; those in work end on their own."""
        self._threads.close()

    def page_at(self, query: Query, position: Position, limit: int) -> tuple[ResultPage, Position | None]:
        """Return a page and the position of the next one; blocking. Arguments and errors are those of `page`."""
        start = time.perf_counter()
        with self._metrics.stage.labels("search").time():
            if position == START:
                ((page, following),) = self.first_pages([query], limit)
            elif query.needs_list:
                page, following = self._list_page(query, position, limit)
            else:
                found = further_matches(self._index, query, position, limit)
                listed = tuple(map(ListedMatch, found.matches))
                page, following = ResultPage(listed, position.shown + 1, found.total, query.threshold), found.next
        milliseconds = (time.perf_counter() - start) * 1000
        return replace(page, took_ms={"search": milliseconds, "total": milliseconds}), following

    def first_pages(self, queries: Sequence[Query], limit: int) -> list[tuple[ResultPage, Position | None]]:
        """Return the first pages of queries that differ only in their embeddings; blocking, in few requests.

        Args:
            queries: at least one.
            limit: matches of each page.

        Raises:
            OceanoError: `folder_unknown`, `index_unavailable`.
        """
        first = queries[0]
        require_known_folders(self._index, first.where)
        if first.needs_list:
            pages = [self._list_page(query, START, limit) for query in queries]
        else:
            found = self._index.search_batch(
                [query.embedding for query in queries],
                limit=limit + 1,
                threshold=first.threshold - SLACK,
                where=first.where,
            )
            pages = [_approximate_page(matches, query, limit) for query, matches in zip(queries, found, strict=True)]
        undated = self._undated(first)
        return [(replace(page, undated_left_out=undated), following) for page, following in pages]

    def _list_page(self, query: Query, position: Position, limit: int) -> tuple[ResultPage, Position | None]:
        found = self._listed(query, _FRESH_SECONDS if position == START else KEPT_SECONDS)
        start = 0 if position.rank is None else bisect_right(found.rows, position.rank, key=found.rank)
        rows = found.rows[start : start + limit]
        following = None
        if start + limit < len(found.rows):
            following = Position(position.shown + len(rows), found.rank(rows[-1]))
        total = None if found.is_cut else len(found.rows)
        return ResultPage(tuple(self._read(rows)), position.shown + 1, total, query.threshold), following

    def _listed(self, query: Query, seconds: float) -> RankedList:
        if query.sort == "similarity" and query.group_by is None:
            return only_within(self._all(query, seconds), query.within)

        def build() -> RankedList:
            return arranged(only_within(self._all(query, seconds), query.within), query.sort, query.group_by)

        return self._lists.get(self._key(query), seconds, build)

    def _counted(self, query: Query, least: float | None) -> Counted:
        """List the matches without each filter, in as few searches as that needs: a list may be a part of another."""
        lower = query if least is None or least >= query.threshold else replace(query, threshold=least)
        base = query if query.together else lower  # of a pair, both reach the threshold
        where = query.where or FaceFilter()
        any_date = replace(where, taken_from=None, taken_to=None, undated=False)

        def part(threshold: float, given: FaceFilter) -> RankedList:
            """List the matches that meet a filter from those of any date."""
            listed = self._all(replace(base, where=_condition(replace(any_date, folder=given.folder))), _FRESH_SECONDS)
            return part_of(listed, threshold=threshold, where=given) or self._all(
                replace(query, threshold=threshold, where=_condition(given)), _FRESH_SECONDS
            )

        matches = part(query.threshold, where)
        below = matches
        if lower is not query:
            below = self._all(lower, _FRESH_SECONDS) if query.together else part(lower.threshold, where)
        any_folder = matches
        if where.folder is not None:
            without = replace(where, folder=None)
            if where == any_date:
                any_folder = part(query.threshold, without)
            else:  # those of any date are too many
                any_folder = self._all(replace(query, where=without), _FRESH_SECONDS)
        return Counted(
            only_within(matches, query.within),
            only_within(part(query.threshold, any_date), query.within),
            only_within(any_folder, query.within),
            below,
        )

    def _all(self, query: Query, seconds: float) -> RankedList:
        plain = replace(query, sort="similarity", group_by=None, within=())
        return self._lists.get(self._key(plain), seconds, lambda: all_matches(self._index, plain))

    def _key(self, query: Query) -> str:
        """Return the key of a list in the cache, which all parts of the faces share."""
        names = self._lists.names if _needs_names(query) else ""
        return f"{self._part}\0{names}\0{encode_query(query, self._digest)}"

    def _read(self, rows: Sequence[Row]) -> Iterator[ListedMatch]:
        wanted = [face_id for row in rows for face_id in (row.face_id, *(one.face_id for one in row.together))]
        payloads = {record.face_id: record.payload for record in self._index.retrieve(wanted)}
        for row in rows:
            together = [
                Match(one.face_id, one.similarity, payloads[one.face_id])
                for one in row.together
                if one.face_id in payloads
            ]
            if row.face_id in payloads and len(together) == len(row.together):  # else deleted meanwhile
                match = Match(row.face_id, row.similarity, payloads[row.face_id])
                yield ListedMatch(match, row.group_size, tuple(together))

    def _read_ranks(self, ranks: Sequence[Rank]) -> Iterator[ListedMatch]:
        payloads = {one.face_id: one.payload for one in self._index.retrieve([face_id for _, face_id in ranks])}
        for value, face_id in ranks:
            if face_id in payloads:  # else deleted meanwhile
                yield ListedMatch(Match(face_id, -value, payloads[face_id]))

    def _embeddings(self, face_ids: Sequence[str]) -> dict[str, Floats]:
        records = self._index.retrieve(list(dict.fromkeys(face_ids)), with_embedding=True)
        found = {record.face_id: record.embedding for record in records if record.embedding is not None}
        for face_id in face_ids:
            if face_id not in found:
                raise OceanoError("face_unknown", "no face with this id is in the index", details={"face_id": face_id})
        return found

    def _undated(self, query: Query) -> int | None:
        """Count the faces without a date that a filter on `taken_at` leaves out."""
        where = query.where
        if where is None or (where.taken_from is None and where.taken_to is None):
            return None
        return self._index.count(replace(where, taken_from=None, taken_to=None, undated=True))


def _needs_names(query: Query) -> bool:
    where = query.where or FaceFilter()
    return query.group_by == "person" or bool(where.person or where.not_person) or where.named or where.unnamed


def _condition(where: FaceFilter) -> FaceFilter | None:
    return None if where == FaceFilter() else where


def _approximate_page(found: Sequence[Match], query: Query, limit: int) -> tuple[ResultPage, Position | None]:
    rounded = (replace(match, similarity=round(match.similarity, DECIMALS)) for match in found)
    matches = [match for match in rounded if reaches(match.similarity, query.threshold)]
    page, is_cut = matches[:limit], len(matches) > limit
    following = Position(len(page), None, tuple(match.face_id for match in page)) if is_cut else None
    return ResultPage(tuple(map(ListedMatch, page)), 1, None if is_cut else len(page), query.threshold), following


class AllMatches:
    """All matches of a query, which can be iterated several times: only their ids and similarities are kept.

    Its length counts those that are deleted from the index meanwhile, too.
    """

    def __init__(self, found: Sequence[T], read: Callable[[Sequence[T]], Iterator[ListedMatch]]) -> None:
        self._length = len(found)
        self._parts: Callable[[], Iterator[Iterator[ListedMatch]]] = lambda: map(read, chunks(found, _READ))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[ListedMatch]:
        return chain.from_iterable(self._parts())
