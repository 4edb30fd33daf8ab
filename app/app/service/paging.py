"""The pages of a list of matches after the first, in the order of similarity.

The first page comes from an approximate search. Every further page comes from an exact search, so the list has no gaps:
matches are ordered by similarity, then face_id; a page has those after the position of the page before, without the
faces of the first page. A match that the first page missed is on the second.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from typing import Final

from app.core.protocols import FaceIndex
from app.core.types import FaceFilter, Floats, Match
from app.service.cursor import Position
from app.service.query import Query

DECIMALS: Final = 6  # of a similarity in a result; float32 has seven digits
SLACK: Final = 10**-DECIMALS  # the index compares unrounded similarities, whose last digit differs between queries

_COUNTED: Final = 50_000  # scores of the exact search that counts all matches; 9 us each
_SPARE: Final = 100  # scores beyond a page, for equally similar faces
_GROWTH: Final = 4

Rank = tuple[float, str]
"""The order of a list: a sort value, here the negative similarity, and the face_id."""


@dataclass(frozen=True, slots=True)
class FurtherMatches:
    """A page after the first: its matches, the position of the next page, and the number of all matches if known."""

    matches: tuple[Match, ...]
    next: Position | None
    total: int | None


@dataclass(frozen=True, slots=True)
class Ranking:
    """The ranks of the matches of an embedding, best first.

    Attributes:
        ranks: of the matches.
        is_cut: the index has more matches than these.
    """

    ranks: list[Rank]
    is_cut: bool


def reaches(similarity: float, threshold: float) -> bool:
    """Return whether a similarity, rounded as in results, is at or above a threshold."""
    return similarity >= round(threshold, DECIMALS)


def further_matches(index: FaceIndex, query: Query, position: Position, limit: int) -> FurtherMatches:
    """Read the page after a position.

    Args:
        index: holds the faces.
        query: in the order of similarity, with no other conditions than its filter.
        position: where the page begins.
        limit: matches of the page.

    Raises:
        OceanoError: `index_unavailable`.
    """
    total = position.counted
    fetch = position.shown + limit + _SPARE
    if total is None and position.shown < _COUNTED:
        fetch = max(fetch, _COUNTED)
    while True:
        ranking = rank_all(index, query.embedding, query.threshold, query.where, fetch)
        rest = _after(ranking.ranks, position)[: limit + 1]
        if len(rest) > limit or not ranking.is_cut:
            break
        fetch *= _GROWTH
    total = total if ranking.is_cut else len(ranking.ranks)
    page = rest[:limit]
    payloads = {record.face_id: record.payload for record in index.retrieve([face_id for _, face_id in page])}
    after = None
    if len(rest) > limit:
        after = replace(_next(position, page, ranking.ranks), counted=total)
    return FurtherMatches(
        matches=tuple(Match(face_id, -rank, payloads[face_id]) for rank, face_id in page if face_id in payloads),
        next=after,
        total=total,
    )


def rank_all(index: FaceIndex, embedding: Floats, threshold: float, where: FaceFilter | None, fetch: int) -> Ranking:
    """Rank the matches of an embedding by an exact search.

    Args:
        index: holds the faces.
        embedding: float32, (D,), with norm 1.
        threshold: lowest cosine similarity of a match.
        where: which stored faces count; None: all.
        fetch: maximum number of matches; of equally similar ones at the cut, none is kept.

    Raises:
        OceanoError: `index_unavailable`.
    """
    scores = index.search_exact(embedding, limit=fetch, threshold=threshold - SLACK, where=where)
    ranks = sorted((-round(score.similarity, DECIMALS), score.face_id) for score in scores)
    is_cut = len(ranks) >= fetch
    # of equally similar faces at the cut, any may be missing
    end = -round(threshold, DECIMALS)
    if is_cut and ranks[-1][0] <= end:
        return Ranking(ranks[: bisect_left(ranks, (ranks[-1][0], ""))], is_cut=True)
    return Ranking(ranks[: bisect_right(ranks, end, key=lambda rank: rank[0])], is_cut=False)


def rank_at_least(index: FaceIndex, query: Query, count: int) -> list[Rank]:
    """Rank the matches of a query by an exact search.

    Args:
        index: holds the faces.
        query: in the order of similarity, with no other conditions than its filter.
        count: number of the most similar matches that are surely among the ranks, if there are so many.

    Raises:
        OceanoError: `index_unavailable`.
    """
    fetch = count + _SPARE
    while True:
        ranking = rank_all(index, query.embedding, query.threshold, query.where, fetch)
        if len(ranking.ranks) >= count or not ranking.is_cut:
            return ranking.ranks
        fetch *= _GROWTH


def _after(ranks: list[Rank], position: Position) -> list[Rank]:
    seen = set(position.seen)
    start = 0 if position.rank is None else bisect_right(ranks, position.rank)
    return [rank for rank in ranks[start:] if rank[1] not in seen]


def _next(position: Position, page: list[Rank], ranks: list[Rank]) -> Position:
    passed = {one for _, one in ranks[: bisect_right(ranks, page[-1])]}
    seen = tuple(one for one in position.seen if one not in passed)
    return Position(position.shown + len(page), page[-1], seen)
