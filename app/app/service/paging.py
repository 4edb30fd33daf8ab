"""The pages of a list of matches after the first.

The first page comes from an approximate search. Every further page comes from an exact search, so the list has no gaps:
matches are ordered by similarity, then face_id; a page has those after the position of the page before, without the
faces of the first page. A match that the first page missed is on the second.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from typing import Final

from app.core.protocols import FaceIndex
from app.core.types import FacePayload, Match
from app.service.cursor import Cursor, GroupBy

DECIMALS: Final = 6  # of a similarity in a result; float32 has seven digits
SLACK: Final = 10**-DECIMALS  # the index compares unrounded similarities, whose last digit differs between queries

_COUNTED: Final = 50_000  # scores of the exact search that counts all matches; 9 us each
_SPARE: Final = 100  # scores beyond a page, for equally similar faces
_GROWTH: Final = 4
_GROUPED: Final = 1000  # payloads read at a time

_Rank = tuple[float, str]  # negative similarity and face_id: the order of a list


@dataclass(frozen=True, slots=True)
class FurtherMatches:
    """A page after the first: its matches, the cursor of the page after it, and the number of all matches if known."""

    matches: tuple[Match, ...]
    next: Cursor | None
    total: int | None


@dataclass(frozen=True, slots=True)
class _Ranking:
    ranks: list[_Rank]
    is_cut: bool  # the index has more than these

    def count(self, threshold: float) -> int | None:
        """Count the matches at or above a threshold; None if they may be more than the ranks."""
        found = bisect_right(self.ranks, -round(threshold, DECIMALS), key=lambda rank: rank[0])
        return None if self.is_cut and found == len(self.ranks) else found


def further_matches(index: FaceIndex, cursor: Cursor, limit: int, *, count_from: float) -> FurtherMatches:
    """Read the page after a cursor.

    Args:
        index: holds the faces.
        cursor: where the page begins.
        limit: matches of the page.
        count_from: lowest similarity of the matches that `total` counts; at least the cursor's threshold is used.

    Raises:
        OceanoError: `index_unavailable`.
    """
    level = max(count_from, cursor.threshold)
    total = cursor.counted[1] if cursor.counted and cursor.counted[0] == level else None
    fetch = cursor.shown + limit + _SPARE
    if cursor.group_by is not None:
        fetch *= _GROWTH
    elif total is None and cursor.shown < _COUNTED:
        fetch = max(fetch, _COUNTED)
    while True:
        ranking = _ranking(index, cursor, fetch)
        if cursor.group_by is None:
            counted = ranking.count(level)
            rest = _after(ranking.ranks, cursor)[: limit + 1]
        else:
            rest, counted = _groups_after(index, ranking, cursor, cursor.group_by, limit + 1)
        if len(rest) > limit or not ranking.is_cut:
            break
        fetch *= _GROWTH
    total = total if counted is None else counted
    cursor = replace(cursor, counted=None if total is None else (level, total))
    page = rest[:limit]
    payloads = {record.face_id: record.payload for record in index.retrieve([face_id for _, face_id in page])}
    return FurtherMatches(
        matches=tuple(Match(face_id, -rank, payloads[face_id]) for rank, face_id in page if face_id in payloads),
        next=_next(cursor, page, ranking.ranks) if len(rest) > limit else None,
        total=total,
    )


def _ranking(index: FaceIndex, cursor: Cursor, fetch: int) -> _Ranking:
    scores = index.search_exact(cursor.embedding, limit=fetch, threshold=cursor.threshold - SLACK, where=cursor.where)
    ranks = sorted((-round(score.similarity, DECIMALS), score.face_id) for score in scores)
    is_cut = len(ranks) >= fetch
    # of equally similar faces at the cut, any may be missing
    end = -round(cursor.threshold, DECIMALS)
    if is_cut and ranks[-1][0] <= end:
        return _Ranking(ranks[: bisect_left(ranks, (ranks[-1][0], ""))], is_cut=True)
    return _Ranking(ranks[: bisect_right(ranks, end, key=lambda rank: rank[0])], is_cut=False)


def _after(ranks: list[_Rank], cursor: Cursor) -> list[_Rank]:
    seen = set(cursor.seen)
    return [rank for rank in ranks[_start(ranks, cursor) :] if rank[1] not in seen]


def _start(ranks: list[_Rank], cursor: Cursor) -> int:
    if cursor.position is None:
        return 0
    similarity, face_id = cursor.position
    return bisect_right(ranks, (-similarity, face_id))


def _groups_after(
    index: FaceIndex, ranking: _Ranking, cursor: Cursor, group_by: GroupBy, wanted: int
) -> tuple[list[_Rank], int | None]:
    """Return the best match of each further group, and the number of all groups if all were read."""
    ranks = ranking.ranks
    seen = {_group(record.face_id, record.payload, group_by) for record in index.retrieve(cursor.seen)}
    groups = set(seen)
    best: list[_Rank] = []
    start = _start(ranks, cursor)
    for first in range(0, len(ranks), _GROUPED):
        part = ranks[first : first + _GROUPED]
        payloads = {one.face_id: one.payload for one in index.retrieve([face_id for _, face_id in part])}
        for place, rank in enumerate(part, start=first):
            if rank[1] not in payloads or (key := _group(rank[1], payloads[rank[1]], group_by)) in groups:
                continue
            groups.add(key)
            if place >= start:
                best.append(rank)
        if len(best) >= wanted:
            return best[:wanted], None
    return best, None if ranking.is_cut else len(groups)


def _group(face_id: str, payload: FacePayload, group_by: GroupBy) -> str:
    return getattr(payload, group_by) or face_id


def _next(cursor: Cursor, page: list[_Rank], ranks: list[_Rank]) -> Cursor:
    last, face_id = page[-1]
    passed = {one for _, one in ranks[: bisect_right(ranks, page[-1])]}
    # a group stays seen: a further face of it may follow
    seen = cursor.seen if cursor.group_by else tuple(one for one in cursor.seen if one not in passed)
    return replace(cursor, shown=cursor.shown + len(page), position=(-last, face_id), seen=seen)
