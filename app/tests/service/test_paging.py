from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from app.core.errors import OceanoError
from app.core.types import FaceFilter, FacePoint, Floats, Match, Score
from app.metrics import Metrics
from app.service import Search, paging
from tests.support.fakes import FakeEngine, MemoryIndex, picture_of
from tests.support.pictures import RED, point

PICTURE = picture_of(np.full((48, 64, 3), RED[::-1], np.uint8))


class Approximate(MemoryIndex):
    """Its approximate search misses every third face; its exact search has no order among equals."""

    def search_batch(self, embeddings: Sequence[Floats], *, limit: int, **how: Any) -> list[list[Match]]:
        found = super().search_batch(embeddings, limit=10**9, **how)
        return [[match for n, match in enumerate(matches) if n % 3][:limit] for matches in found]

    def search_exact(self, embedding: Floats, *, limit: int, **how: Any) -> list[Score]:
        found = super().search_exact(embedding, limit=10**9, **how)
        found.sort(key=lambda score: (-score.similarity, hash(score.face_id)))
        return found[:limit]


def _point(number: int, similarity: float, **payload: Any) -> FacePoint:
    """A face of the given similarity to RED."""
    base = point(number, **payload)
    other = np.random.default_rng(number).normal(size=base.embedding.shape).astype(np.float32)
    other -= (other @ base.embedding) * base.embedding
    other /= np.linalg.norm(other)
    embedding = similarity * base.embedding + (1 - similarity**2) ** 0.5 * other
    return FacePoint(base.face_id, (embedding / np.linalg.norm(embedding)).astype(np.float32), base.payload)


def _read(index: MemoryIndex, limits: Sequence[int], between: Any = None, **how: Any) -> list[Any]:
    """All pages of a search; the last limit counts for all further pages."""

    async def pages() -> list[Any]:
        search = Search(FakeEngine(), index, Metrics(), threads=2)
        try:
            result = await search.run(PICTURE, limit=limits[0], threshold=0.4, **how)
            found: list[Any] = [result.faces[0]]
            while found[-1].next is not None:
                if between:
                    between(len(found))
                found.append(await search.more(found[-1].next, limit=limits[min(len(found), len(limits) - 1)]))
            return found
        finally:
            search.close()

    return asyncio.run(pages())


def _ids(pages: Sequence[Any]) -> list[str]:
    return [match.match.face_id for page in pages for match in page.matches]


@pytest.mark.parametrize("limits", [[1], [7], [20, 100], [100, 3], [90], [1000]], ids=str)
def test_pages_have_every_match_once_although_the_first_is_approximate(limits: list[int]) -> None:
    index = Approximate()
    index.upsert([_point(n, 0.3 + 0.6 * n / 100) for n in range(100)])
    pages = _read(index, limits)
    within = {one for one, stored in index.points.items() if float(stored.embedding @ point(0).embedding) >= 0.4}
    if len(pages) > 1:
        assert sorted(_ids(pages)) == sorted(within)
        assert [page.total for page in pages[1:]] == [len(within)] * (len(pages) - 1)
        assert [page.first for page in pages[1:]] == [
            1 + sum(len(page.matches) for page in pages[:n]) for n in range(1, len(pages))
        ]
        later = [match.match.similarity for page in pages[1:] for match in page.matches]
        assert later == sorted(later, reverse=True)


def test_equally_similar_faces_are_neither_lost_nor_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "_SPARE", 5)
    monkeypatch.setattr(paging, "_COUNTED", 10)
    index = Approximate()
    index.upsert([point(n) for n in range(400)])
    pages = _read(index, [10, 30])
    assert sorted(_ids(pages)) == sorted(index.points)


def test_faces_that_are_stored_or_deleted_meanwhile_do_not_move_the_others() -> None:
    index = Approximate()
    old = [_point(n, 0.45 + 0.5 * n / 200) for n in range(200)]
    index.upsert(old)
    gone = {one.face_id for one in old[::10]}

    def change(page: int) -> None:
        index.upsert([_point(1000 * page + n, 0.45 + 0.5 * n / 15) for n in range(15)])
        if page == 3:
            index.delete(sorted(gone & index.points.keys()))

    shown = _ids(_read(index, [20], change))
    assert len(shown) == len(set(shown))
    assert {one.face_id for one in old} - gone <= set(shown)


def test_a_total_that_is_not_known_is_none_and_found_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "_COUNTED", 30)
    monkeypatch.setattr(paging, "_SPARE", 1)
    index = Approximate()
    index.upsert([_point(n, 0.45 + 0.5 * n / 100) for n in range(100)])
    pages = _read(index, [10])
    assert pages[1].total is None
    assert pages[-1].total == 100
    assert len(_ids(pages)) == 100


@pytest.mark.parametrize("limit", [1, 4, 7])
def test_groups_are_shown_once(limit: int) -> None:
    index = Approximate()
    people = [_point(n, 0.45 + 0.5 * n / 90, person=f"P{n % 11}" if n % 11 else None) for n in range(90)]
    index.upsert(people)
    pages = _read(index, [limit], group_by="person")
    shown = [one.match.payload.person or one.match.face_id for page in pages for one in page.matches]
    assert len(shown) == len(set(shown))
    assert set(shown) == {one.payload.person or one.face_id for one in people}
    assert pages[-1].total == len(shown)


def test_a_filter_counts_on_every_page() -> None:
    index = Approximate()
    index.upsert([_point(n, 0.45 + 0.5 * n / 90, folder=("/", f"/{n % 3}")) for n in range(90)])
    shown = _ids(_read(index, [5], where=FaceFilter(folder="/2")))
    assert sorted(shown) == sorted(one.face_id for one in index.points.values() if "/2" in one.payload.folder)


def test_a_cursor_of_nothing_is_refused() -> None:
    search = Search(FakeEngine(), MemoryIndex(), Metrics(), threads=1)
    with pytest.raises(OceanoError, match="cursor_invalid"):
        asyncio.run(search.more("rubbish", limit=5))
    search.close()
