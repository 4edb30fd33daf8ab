from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest

from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.types import FaceFilter, FaceRecord, Floats, Match, Score
from app.index import open_index
from app.metrics import Metrics
from app.service import Query, ResultPage, Results, list_cache, ranked, results
from app.service.counts import Counted, facets_of
from app.service.ranked import RankedList, all_matches
from tests.support.fakes import FAKE_PACK, MemoryIndex
from tests.support.matches import ADA, BOB, EVE, stored

T = TypeVar("T")

ANY = Query(ADA, 0.4)
ORDERS = {
    "similarity": ANY,
    "newest": replace(ANY, sort="newest"),
    "oldest": replace(ANY, sort="oldest"),
    "min_face": replace(ANY, min_face=5),
    "unlike": replace(ANY, unlike=(BOB,)),
    "together": replace(ANY, together=(EVE,)),
    "image": replace(ANY, group_by="image_id"),
    "alike": replace(ANY, group_by="alike"),
    "newest_day": replace(ANY, sort="newest", group_by="day"),
}
EVERY = pytest.mark.parametrize("query", ORDERS.values(), ids=ORDERS)
UNGROUPED = pytest.mark.parametrize(
    "query", [query for query in ORDERS.values() if query.group_by is None], ids=[*ORDERS][:6]
)


class Counting(MemoryIndex):
    """Counts its exact searches; the approximate one misses every third face."""

    def __init__(self) -> None:
        super().__init__()
        self.searches = 0

    def search_batch(self, embeddings: Sequence[Floats], *, limit: int, **how: Any) -> list[list[Match]]:
        found = super().search_batch(embeddings, limit=10**9, **how)
        return [[match for n, match in enumerate(matches) if n % 3][:limit] for matches in found]

    def search_exact(self, embedding: Floats, **how: Any) -> list[Score]:
        self.searches += 1
        return super().search_exact(embedding, **how)


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@pytest.fixture
def index() -> Counting:
    return Counting()


@pytest.fixture
def lists(index: Counting) -> Iterator[Results]:
    with closing(Results(index, FAKE_PACK, Metrics())) as made:
        yield made


def _fill(index: MemoryIndex, count: int, first: int = 0) -> list[str]:
    """Images with a face of Ada, most of them with Eve; the ids of Ada's faces."""
    faces = []
    for n in range(first, first + count):
        taken = None if n % 5 == 0 else f"20{n % 23:02}-0{n % 9 + 1}-{n % 28 + 1:02}T{n % 24:02}:00:00"
        how = {"taken_at": taken, "phash": f"{(n // 2) * 0x9E3779B97F4A7C15 % 2**64:016x}"}
        faces.append(stored(n, ADA, 0.41 + 0.5 * ((n * 37) % 997) / 997, **how))
        index.upsert([faces[-1]])
        if n % 4:
            index.upsert([stored(n, EVE, 0.7, place=1, **how)])
    return [face.face_id for face in faces]


def _pages(
    lists: Results, query: Query, limit: int, between: Callable[[int], object] = lambda page: None
) -> list[ResultPage]:
    found = [_run(lists.page(query, limit=limit))]
    while found[-1].next is not None:
        between(len(found))
        found.append(_run(lists.page(query, limit=limit, after=found[-1].next)))
    return found


def _ids(pages: Sequence[ResultPage]) -> list[str]:
    return [one.match.face_id for page in pages for one in page.matches]


@EVERY
@pytest.mark.parametrize("limit", [7, 60, 1000])
def test_pages_have_every_match_once_and_are_the_list_of_matches(
    lists: Results, index: Counting, query: Query, limit: int
) -> None:
    _fill(index, 60)
    pages = _pages(lists, query, limit)
    everything = [one.match.face_id for one in lists.matches(query)]
    assert len(everything) >= 20
    if query is ANY:  # the first page is approximate
        if len(pages) > 1:
            assert sorted(_ids(pages)) == sorted(everything)
    else:
        assert _ids(pages) == everything
        assert {page.total for page in pages} == {len(everything)}
    assert [page.first for page in pages] == [
        1 + sum(len(page.matches) for page in pages[:n]) for n in range(len(pages))
    ]
    assert all(len(page.matches) == limit for page in pages[:-1])


@UNGROUPED
@pytest.mark.parametrize("expired", [False, True])
def test_an_ingest_meanwhile_gives_no_doubles_and_no_gaps(
    lists: Results, index: Counting, query: Query, expired: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if expired:
        monkeypatch.setattr(results, "KEPT_SECONDS", -1.0)
        monkeypatch.setattr(results, "_FRESH_SECONDS", -1.0)
    _fill(index, 90)
    before = {one.match.face_id for one in Results(index, FAKE_PACK, Metrics()).matches(query)}
    shown = _ids(_pages(lists, query, 10, lambda page: _fill(index, 12, 1000 * page)))
    assert len(shown) == len(set(shown))
    assert before <= set(shown)


@UNGROUPED
def test_faces_that_are_deleted_meanwhile_are_left_out(lists: Results, index: Counting, query: Query) -> None:
    faces = _fill(index, 60)
    before = [one.match.face_id for one in lists.matches(query)]
    gone = set(faces[::3])

    def delete(page: int) -> None:
        if page == 1:
            index.delete(sorted(gone))

    pages = _pages(lists, query, 10, delete)
    assert set(_ids(pages[1:])).isdisjoint(gone)
    assert set(before) - gone <= set(_ids(pages))


def test_pages_of_a_list_are_read_from_one_search(lists: Results, index: Counting) -> None:
    _fill(index, 60)
    _pages(lists, ORDERS["newest"], 10)
    assert index.searches == 1
    _run(lists.facets(ANY))
    _pages(lists, replace(ANY, group_by="day"), 10)
    assert index.searches == 1, "orders, groups and counts share the search"
    _pages(lists, ORDERS["unlike"], 10)
    assert index.searches == 3


def test_a_first_page_is_searched_again_after_a_while(
    lists: Results, index: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = ORDERS["newest"]
    _fill(index, 10)
    assert _run(lists.page(newest, limit=5)).total == 10
    _fill(index, 10, 100)
    clock = time.monotonic() + results._FRESH_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    assert _run(lists.page(newest, limit=5)).total == 20


def test_the_memory_of_lists_is_bounded(lists: Results, index: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_cache, "_MAX_ROWS", 25)
    _fill(index, 20)
    for threshold in (0.4, 0.401, 0.402):
        _run(lists.page(replace(ANY, threshold=threshold, min_face=5), limit=5))
    kept = [len(found.rows) for _, found in lists._lists._lists.values()]
    assert kept == [kept[-1]]
    assert 18 <= kept[0] <= 20


def test_a_list_that_many_ask_for_at_once_is_made_once(index: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Counting):
        def search_exact(self, embedding: Floats, **how: Any) -> list[Score]:
            time.sleep(0.05)
            return super().search_exact(embedding, **how)

    slow = Slow()
    _fill(slow, 20)

    async def many() -> list[ResultPage]:
        with closing(Results(slow, FAKE_PACK, Metrics())) as lists:
            return await asyncio.gather(*(lists.page(ORDERS["newest"], limit=5) for _ in range(8)))

    assert len({tuple(_ids([page])) for page in _run(many())}) == 1
    assert slow.searches == 1


def test_a_list_that_failed_is_tried_again(index: Counting) -> None:
    class Failing(Counting):
        def search_exact(self, embedding: Floats, **how: Any) -> list[Score]:
            found = super().search_exact(embedding, **how)
            if self.searches == 1:
                raise OceanoError("index_unavailable", "?")
            return found

    failing = Failing()
    _fill(failing, 20)
    with closing(Results(failing, FAKE_PACK, Metrics())) as lists:
        with pytest.raises(OceanoError, match="index_unavailable"):
            _run(lists.page(ORDERS["newest"], limit=5))
        assert _run(lists.page(ORDERS["newest"], limit=5)).total == 20


def test_the_position_of_another_query_is_refused(lists: Results, index: Counting) -> None:
    _fill(index, 30)
    for query in ORDERS.values():
        after = _run(lists.page(query, limit=3)).next
        assert after is not None
        for other in ORDERS.values():
            if other is not query:
                with pytest.raises(OceanoError, match="cursor_invalid"):
                    _run(lists.page(other, limit=3, after=after))
    with pytest.raises(OceanoError, match="cursor_invalid"):
        _run(lists.page(ANY, limit=3, after="rubbish"))


@EVERY
def test_no_match_is_an_empty_page(lists: Results, index: Counting, query: Query) -> None:
    index.upsert([stored(1, BOB, 0.9)])
    page = _run(lists.page(query, limit=5))
    assert (page.matches, page.first, page.total, page.next) == ((), 1, 0, None)
    assert list(lists.matches(query)) == []
    counts = _run(lists.facets(query))
    assert (counts.total, counts.is_cut, counts.undated) == (0, False, 0)


def test_the_number_of_matches_is_unknown_if_there_are_more_than_a_list_may_have(
    lists: Results, index: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranked, "MAX_LISTED", 20)
    _fill(index, 50)
    assert _run(lists.facets(ANY)).is_cut
    pages = _pages(lists, ORDERS["newest"], 8)
    assert {page.total for page in pages} == {None}
    assert 19 <= len(_ids(pages)) <= 20


WHERES = {
    "nothing": FaceFilter(),
    "date": FaceFilter(taken_from="2021-02", taken_to="2021-03-05"),
    "from": FaceFilter(taken_from="2021-02-10"),
    "undated": FaceFilter(undated=True),
    "folder": FaceFilter(folder="/2"),
    "both": FaceFilter(folder=("/2", "/1"), taken_to="2021-03", without=("blurred",)),
    "neither": FaceFilter(undated=True, taken_from="2021"),
}


def _dated(index: Counting) -> None:
    for n in range(90):
        moment = (None, f"2021-0{1 + n % 4}-0{1 + n % 9}T10:00:00", f"2021-02-0{1 + n % 9}T23:30:00-03:00")[n % 3]
        folder = f"/{n % 4}"
        index.upsert(
            [stored(n, ADA, 0.45 + n / 200, taken_at=moment, path=f"{folder}/{n}.jpg", folder=("/", folder),
                    flaws=("blurred",) if n % 7 == 0 else ())]
        )  # fmt: skip


@pytest.mark.parametrize("where", WHERES.values(), ids=WHERES.keys())
@pytest.mark.parametrize("extra", ["plain", "min_face", "unlike", "together"])
@pytest.mark.parametrize("cut", [False, True])
def test_counts_are_those_of_a_search_for_each_filter(
    lists: Results, index: Counting, where: FaceFilter, extra: str, *, cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cut:
        monkeypatch.setattr(ranked, "MAX_LISTED", 20)
    _dated(index)
    base = ANY if extra == "plain" else ORDERS[extra]
    query = replace(base, threshold=0.6, where=None if where == FaceFilter() else where, sort="newest", group_by="day")
    counted = _run(lists.facets(query, least=0.4))

    def found(threshold: float, **changes: Any) -> RankedList:
        return all_matches(index, replace(query, threshold=threshold, where=replace(where, **changes)))

    any_date = found(0.6, taken_from=None, taken_to=None, undated=False)
    expected = facets_of(Counted(found(0.6), any_date, found(0.6, folder=None), found(0.4)), 50)
    assert (counted.total, counted.is_cut, counted.years, counted.undated, counted.folders) == (
        expected.total, expected.is_cut, expected.years, expected.undated, expected.folders,
    )  # fmt: skip
    assert counted.similarities.tolist() == expected.similarities.tolist()


@pytest.mark.parametrize(
    ("name", "searches"), [("nothing", 1), ("date", 1), ("undated", 1), ("folder", 2), ("both", 2)]
)
def test_counts_need_a_search_for_each_folder_filter_only(
    lists: Results, index: Counting, name: str, searches: int
) -> None:
    _dated(index)
    query = replace(ANY, threshold=0.6, where=WHERES[name])
    _run(lists.facets(query, least=0.4))
    assert index.searches == searches
    _run(lists.facets(replace(query, threshold=0.7), least=0.4))
    assert index.searches <= searches + (name == "both"), "another sureness needs no search for its date"


def test_a_filter_counts_for_every_order_and_for_the_facets(lists: Results, index: Counting) -> None:
    for n in range(30):
        index.upsert([stored(n, ADA, 0.5 + n / 100, path=f"/{n % 3}/{n}.jpg", folder=("/", f"/{n % 3}"))])
    where = FaceFilter(folder="/2")
    for query in ORDERS.values():
        found = replace(query, where=where)
        if query.together:
            continue
        assert {one.match.payload.folder for one in lists.matches(found)} == {("/", "/2")}
        assert all(one.match.payload.folder == ("/", "/2") for one in _run(lists.page(found, limit=5)).matches)
    counts = _run(lists.facets(replace(ANY, where=where)))
    assert (counts.total, counts.folders) == (10, {"/0": 10, "/1": 10, "/2": 10})
    for query in (ANY, ORDERS["newest"]):
        with pytest.raises(OceanoError, match="folder_unknown"):
            _run(lists.page(replace(query, where=FaceFilter(folder="/9")), limit=5))


def test_matches_may_be_limited_and_equally_similar_ones_are_not_lost(lists: Results, index: Counting) -> None:
    index.upsert([replace(stored(n, ADA, 1.0), embedding=ADA) for n in range(400)])
    for query in (ANY, ORDERS["oldest"]):
        for limit in (1, 20, 399, 400, 1000):
            found = [one.match.face_id for one in lists.matches(query, limit=limit)]
            assert len(set(found)) == len(found) == min(limit, 400)


def test_further_persons_of_an_image_are_told_with_their_faces(lists: Results, index: Counting) -> None:
    _fill(index, 8)
    (first, *_) = _run(lists.page(ORDERS["together"], limit=5)).matches
    (eve,) = first.together
    assert eve.payload.image_id == first.match.payload.image_id
    assert eve.similarity == 0.7


def test_embeddings_come_in_the_order_of_their_ids_even_twice_and_an_unknown_id_is_refused(
    lists: Results, index: Counting
) -> None:
    faces = [stored(n, ADA, 0.5 + n / 10) for n in range(4)]
    index.upsert(faces)
    wanted = [faces[n] for n in (2, 0, 3, 2)]
    found = _run(lists.embeddings_of([face.face_id for face in wanted]))
    assert all(np.array_equal(one, face.embedding) for one, face in zip(found, wanted, strict=True))
    with pytest.raises(OceanoError) as caught:
        _run(lists.embeddings_of([faces[0].face_id, stored(99, ADA, 0.5).face_id]))
    assert (caught.value.code, caught.value.details) == ("face_unknown", {"face_id": stored(99, ADA, 0.5).face_id})


def test_all_matches_are_read_in_parts(index: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    class Watching(Counting):
        most = 0

        def retrieve(self, face_ids: Sequence[str], *, with_embedding: bool = False) -> list[FaceRecord]:
            self.most = max(self.most, len(face_ids))
            return super().retrieve(face_ids, with_embedding=with_embedding)

    monkeypatch.setattr(results, "_READ", 7)
    monkeypatch.setattr(ranked, "_READ", 7)
    watching = Watching()
    _fill(watching, 40)
    with closing(Results(watching, FAKE_PACK, Metrics())) as lists:
        for query in (ANY, ORDERS["newest"]):
            assert len(list(lists.matches(query))) == 40
    assert watching.most == 7


def test_the_embedded_index_gives_the_same_lists(settings: Settings) -> None:
    with closing(open_index(settings, FAKE_PACK)) as embedded:
        memory = MemoryIndex()
        for one in (embedded, memory):
            _fill(one, 40)  # type: ignore[arg-type]
        stop = threading.Event()

        def write() -> None:
            n = 5000
            while not stop.wait(0.01):
                _fill(embedded, 1, n := n + 1)  # type: ignore[arg-type]

        with (
            closing(Results(embedded, FAKE_PACK, Metrics())) as lists,
            closing(Results(memory, FAKE_PACK, Metrics())) as expected,
        ):
            for query in ORDERS.values():
                found, right = list(lists.matches(query)), list(expected.matches(query))
                assert [one.match.face_id for one in found] == [one.match.face_id for one in right]
                assert [one.group_size for one in found] == [one.group_size for one in right]
            before = {one.match.face_id for one in lists.matches(ANY)}
            writer = threading.Thread(target=write)
            writer.start()
            try:
                shown = _ids(_pages(lists, ANY, 6))
            finally:
                stop.set()
                writer.join()
            assert len(shown) == len(set(shown))
            assert before <= set(shown)


def test_lists_of_few_rows_do_not_stay_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_cache, "_MAX_LISTS", 3)
    index = Counting()
    with closing(Results(index, FAKE_PACK, Metrics())) as lists:
        for n in range(20):  # an empty index: no list has a row
            assert list(lists.matches(replace(ORDERS["newest"], threshold=0.4 + n / 100))) == []
        assert len(lists._lists._lists) == 3


def test_a_list_that_is_too_old_for_any_page_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(results.time, "monotonic", lambda: now[0])
    with closing(Results(Counting(), FAKE_PACK, Metrics())) as lists:
        for n in range(3):
            now[0] += 500
            list(lists.matches(replace(ORDERS["min_face"], threshold=0.4 + n / 100)))
        assert len(lists._lists._lists) == 2
