from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest

from app.core.errors import OceanoError
from app.core.types import BBox, Face, FaceFilter, Floats, Match, Picture
from app.metrics import Metrics
from app.service import Query, Search, SearchResult
from app.service.search import FacePair
from tests.support.concurrency import ConcurrencyCounter
from tests.support.fakes import FakeEngine, MemoryIndex, embedding_of, picture_of
from tests.support.pictures import BLACK, GREEN, KPS, RED, point

T = TypeVar("T")


def _picture(colour: tuple[int, int, int] = RED, size: tuple[int, int] = (64, 48)) -> Picture:
    return picture_of(np.full((size[1], size[0], 3), colour[::-1], np.uint8))


class ManyFaces(FakeEngine):
    """Sees these boxes in every picture; face number n is person n."""

    def __init__(self, *boxes: BBox) -> None:
        super().__init__()
        self._boxes = boxes

    def analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
        if timings is not None:
            timings |= {"detect": 3.0, "embed": 2.0}
        faces = [Face(box, KPS, 0.9, 0.8, "direct", embedding_of(n)) for n, box in enumerate(self._boxes)]
        return [list(faces) for _ in pictures]


class Recording(MemoryIndex):
    """Remembers how it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[dict[str, Any]] = []

    def search_batch(self, embeddings: Sequence[Floats], **how: Any) -> list[list[Match]]:
        self.asked.append({"queries": len(embeddings)} | how)
        return super().search_batch(embeddings, **how)


@pytest.fixture
def index() -> Recording:
    return Recording()


@pytest.fixture
def made() -> Iterator[list[Search]]:
    searches: list[Search] = []
    yield searches
    for one in searches:
        one.close()


@pytest.fixture
def search(index: Recording, made: list[Search]) -> Search:
    made.append(Search(FakeEngine(), index, Metrics(), threads=2))
    return made[0]


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def test_the_same_person_is_found_and_another_is_not(search: Search, index: Recording) -> None:
    index.upsert([point(1, RED), point(2, GREEN), point(3, RED)])
    result = _run(search.run(_picture(RED), limit=10, threshold=0.4))
    assert (result.width, result.height, result.threshold) == (64, 48, 0.4)
    (found,) = result.faces
    assert found.face_index == 0
    assert {match.match.face_id for match in found.matches} == {point(1).face_id, point(3).face_id}
    assert all(match.match.similarity == pytest.approx(1.0, abs=1e-5) for match in found.matches)


def test_matches_come_best_first_and_no_more_than_asked_for(search: Search, index: Recording) -> None:
    query = point(0).embedding
    other = embedding_of(77)
    for number, share in enumerate((0.1, 0.5, 0.9, 0.3, 0.7)):
        mixed = share * query + (1 - share) * other
        index.upsert([replace(point(number), embedding=np.asarray(mixed / np.linalg.norm(mixed), np.float32))])
    (found,) = _run(search.run(_picture(), limit=3, threshold=-1)).faces
    similarities = [match.match.similarity for match in found.matches]
    assert len(similarities) == 3
    assert similarities == sorted(similarities, reverse=True)
    assert found.matches[0].match.face_id == point(2).face_id


def test_the_threshold_is_the_least_cosine_that_counts(search: Search, index: Recording) -> None:
    query = point(0).embedding
    across = embedding_of(5)
    across = across - float(across @ query) * query
    across /= np.linalg.norm(across)
    half = np.asarray(0.5 * query + np.sqrt(0.75) * across, np.float32)
    index.upsert([replace(point(1), embedding=half)])

    def found(threshold: float) -> int:
        return len(_run(search.run(_picture(), limit=9, threshold=threshold)).faces[0].matches)

    assert (found(0.499), found(0.501), found(-1.0), found(1.0)) == (1, 0, 1, 0)


def test_nothing_that_resembles_is_an_empty_list_and_no_error(search: Search) -> None:
    (found,) = _run(search.run(_picture(), limit=10, threshold=0.4)).faces
    assert found.matches == ()


def test_no_face_in_the_picture_is_face_not_found_and_the_index_is_not_asked(search: Search, index: Recording) -> None:
    with pytest.raises(OceanoError) as caught:
        _run(search.run(_picture(BLACK), limit=10, threshold=0.4))
    assert (caught.value.code, caught.value.details) == ("face_not_found", {"width": 64, "height": 48})
    assert index.asked == []


def test_all_faces_are_asked_for_at_once(index: Recording, made: list[Search]) -> None:
    boxes = [(0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), (40.0, 0.0, 50.0, 10.0)]
    made.append(Search(ManyFaces(*boxes), index, Metrics(), threads=1))
    where = FaceFilter(person="Ada")
    result = _run(made[0].run(_picture(), limit=7, threshold=0.3, where=where))
    assert [found.face_index for found in result.faces] == [0, 1, 2]
    assert [found.face.bbox for found in result.faces] == boxes
    assert index.asked == [{"queries": 3, "limit": 8, "threshold": pytest.approx(0.3, abs=2e-6), "where": where}]


@pytest.mark.parametrize(
    ("most", "places"),
    [(None, [0, 1, 2, 3]), (4, [0, 1, 2, 3]), (99, [0, 1, 2, 3]), (1, [2]), (2, [1, 2]), (3, [0, 1, 2])],
)
def test_max_faces_keeps_the_largest_in_their_order(
    index: Recording, made: list[Search], most: int | None, places: list[int]
) -> None:
    engine = ManyFaces((0, 0, 5, 5), (10, 0, 20, 20), (30, 0, 60, 40), (40, 0, 45, 5))
    made.append(Search(engine, index, Metrics(), threads=1))
    result = _run(made[0].run(_picture(), limit=5, threshold=0, max_faces=most))
    assert [found.face_index for found in result.faces] == places
    assert [found.face.bbox for found in result.faces] == [engine._boxes[place] for place in places]
    assert index.asked[0]["queries"] == len(places)


def _gallery(index: MemoryIndex, images: int, faces: int) -> None:
    """`images` pictures with `faces` faces each, all of one person, ever less alike."""
    query, other = point(0).embedding, embedding_of(77)
    points = []
    for image in range(images):
        for place in range(faces):
            share = 1 - (image * faces + place) / (2 * images * faces)
            mixed = share * query + (1 - share) * other
            one = point(image * faces + place, image_id=f"{image:064x}", person=f"P{image % 3}" if image else None)
            face_id = point(image * faces + place).face_id
            points.append(
                replace(one, face_id=face_id, embedding=np.asarray(mixed / np.linalg.norm(mixed), np.float32))
            )
    index.upsert(points)


def test_grouped_by_image_each_image_counts_once_with_its_best_match(search: Search, index: Recording) -> None:
    _gallery(index, images=6, faces=3)
    (found,) = _run(search.run(_picture(), limit=4, threshold=0, group_by="image_id")).faces
    assert [match.match.payload.image_id for match in found.matches] == [f"{image:064x}" for image in range(4)]
    (best,) = index.search(point(0).embedding, limit=1)
    assert found.matches[0].match == replace(best, similarity=round(best.similarity, 6))
    assert [match.group_size for match in found.matches] == [3] * 4
    assert found.more


def test_grouped_by_person_each_counts_once_and_the_nameless_stand_alone(search: Search, index: Recording) -> None:
    _gallery(index, images=6, faces=3)
    (found,) = _run(search.run(_picture(), limit=99, threshold=0, group_by="person")).faces
    people = [match.match.payload.person for match in found.matches]
    assert people == [None, None, None, "P1", "P2", "P0"]


def test_without_grouping_the_index_is_asked_for_what_is_wanted(search: Search, index: Recording) -> None:
    _run(search.run(_picture(), limit=20, threshold=0.4))
    assert [asked["limit"] for asked in index.asked] == [21], "one more, to know whether there are more"


def test_the_times_of_the_stages_are_told_and_the_total_holds_them(index: Recording, made: list[Search]) -> None:
    class Slow(Recording):
        def search_batch(self, embeddings: Sequence[Floats], **how: Any) -> list[list[Match]]:
            time.sleep(0.02)
            return super().search_batch(embeddings, **how)

    class Timed(FakeEngine):
        def analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
            time.sleep(0.01)
            assert timings is not None
            timings |= {"detect": 6.0, "embed": 4.0}
            return super().analyze(pictures)

    made.append(Search(Timed(), Slow(), Metrics(), threads=1))
    result = _run(made[0].run(_picture(), limit=1, threshold=0))
    took = result.took_ms
    assert list(took) == ["detect", "embed", "search", "total"]
    assert (took["detect"], took["embed"]) == (6.0, 4.0)
    assert took["search"] >= 20
    assert took["total"] >= took["detect"] + took["embed"] + took["search"] - 0.5


def test_the_time_of_decoding_comes_first_and_is_part_of_the_total(search: Search) -> None:
    took = _run(search.run(_picture(), limit=1, threshold=0, took_ms={"decode": 1000.0})).took_ms
    assert list(took) == ["decode", "detect", "embed", "search", "total"]
    assert took["decode"] == 1000.0
    assert 1000.0 < took["total"] < 2000.0


def test_detect_gives_faces_in_order_and_no_face_is_an_empty_list(search: Search) -> None:
    took: dict[str, float] = {}
    faces = _run(search.detect(_picture(), took_ms=took))
    assert [face.found_by for face in faces] == ["direct"]
    assert took == {"detect": 1.0, "embed": 1.0}
    assert _run(search.detect(_picture(BLACK))) == []


def test_compare_takes_the_largest_face_of_each_picture_and_adds_the_times(made: list[Search]) -> None:
    engine = ManyFaces((0, 0, 10, 10), (10, 0, 40, 30), (50, 0, 55, 5))
    made.append(Search(engine, MemoryIndex(), Metrics(), threads=1))
    took = {"decode": 1.0}
    comparison = _run(made[0].compare(_picture(), _picture(GREEN), took_ms=took))
    assert comparison.largest == FacePair(1, 1, 1.0)
    assert len(comparison.pairs) == len(comparison.a) * len(comparison.b) == 9
    assert {(pair.a, pair.b) for pair in comparison.pairs[:3]} == {(0, 0), (1, 1), (2, 2)}
    assert took == {"decode": 1.0, "detect": 6.0, "embed": 4.0}


def test_compare_names_the_picture_without_a_face(search: Search) -> None:
    with pytest.raises(OceanoError) as caught:
        _run(search.compare(_picture(), _picture(BLACK)))
    assert (caught.value.code, caught.value.details) == ("face_not_found", {"image": "image_b"})


def test_a_threshold_equal_to_a_similarity_in_a_result_includes_it(search: Search, index: Recording) -> None:
    query = embedding_of(1)
    for number in range(200):
        mixed = query + np.float32(0.3 + number / 100) * embedding_of(number + 2)
        stored = replace(point(number), embedding=np.asarray(mixed / np.linalg.norm(mixed), np.float32))
        index.upsert([stored])
    index.upsert([replace(point(999), embedding=query)])

    def found(threshold: float) -> list[Match]:
        page = _run(search.results.page(Query(query, threshold), limit=1000))
        return [one.match for one in page.matches]

    everything = found(-1)
    assert len(everything) == 201
    for match in everything:
        again = found(match.similarity)
        assert match.face_id in {one.face_id for one in again}
        assert all(one.similarity >= match.similarity for one in again)
    assert everything[0].similarity == 1.0


def test_a_result_says_whether_there_are_more_matches(search: Search, index: Recording) -> None:
    index.upsert([point(number) for number in range(6)])
    for limit, more in ((5, True), (6, False), (7, False)):
        (found,) = _run(search.run(_picture(), limit=limit, threshold=0.4)).faces
        assert (len(found.matches), found.more) == (min(limit, 6), more)
    (found,) = _run(search.run(_picture(), limit=5, threshold=0.4, group_by="image_id")).faces
    assert (len(found.matches), found.more) == (5, True)


def test_a_date_filter_counts_the_undated_faces_that_it_leaves_out(search: Search, index: Recording) -> None:
    index.upsert([point(1, taken_at="2024-05-01T10:00:00"), point(2), point(3), point(4, folder=("/", "/b"))])
    where = FaceFilter(folder="/photos", taken_from="2024")
    result = _run(search.run(_picture(), limit=5, threshold=0.4, where=where))
    assert (len(result.faces[0].matches), result.undated_left_out) == (1, 2)
    assert _run(search.run(_picture(), limit=5, threshold=0.4)).undated_left_out is None


def test_an_unknown_folder_is_refused_with_the_nearest_known_ones(search: Search, index: Recording) -> None:
    index.upsert([point(1, folder=("/", "/photos", "/photos/2021"), path="/photos/2021/1.jpg")])
    with pytest.raises(OceanoError) as caught:
        _run(search.run(_picture(), limit=5, threshold=0.4, where=FaceFilter(folder=("/photos", "/photos/2012"))))
    assert (caught.value.code, caught.value.details["folder"]) == ("folder_unknown", "/photos/2012")
    assert "/photos/2021" in caught.value.details["nearest"]  # type: ignore[operator]


@pytest.mark.parametrize("code", ["engine_unhealthy", "index_unavailable"])
def test_a_part_that_fails_is_told_as_it_is(made: list[Search], code: str) -> None:
    class Failing(MemoryIndex, FakeEngine):
        health = FakeEngine().health
        pictures = 0

        def __init__(self) -> None:
            MemoryIndex.__init__(self)

        def analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
            if code == "engine_unhealthy":
                raise OceanoError(code, "?")
            return FakeEngine.analyze(self, pictures, timings)

        def search_batch(self, embeddings: Sequence[Floats], **how: Any) -> list[list[Match]]:
            raise OceanoError("index_unavailable", "?")

    part = Failing()
    made.append(Search(part, part, Metrics(), threads=1))
    with pytest.raises(OceanoError) as caught:
        _run(made[0].run(_picture(), limit=1, threshold=0))
    assert caught.value.code == code


def test_metrics_count_faces_stages_and_pictures_in_work(index: Recording, made: list[Search]) -> None:
    metrics = Metrics()
    seen: list[float] = []

    class Looking(FakeEngine):
        def analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
            seen.append(metrics.waiting._value.get())
            return super().analyze(pictures, timings)

    made.append(Search(Looking(), index, metrics, threads=1))
    _run(made[0].run(_picture(), limit=1, threshold=0))
    with pytest.raises(OceanoError):
        _run(made[0].run(_picture(BLACK), limit=1, threshold=0))
    text = metrics.exposition().decode()
    assert seen == [1.0, 1.0]
    assert "oceano_pictures_in_work 0.0" in text
    assert 'oceano_faces_found_total{found_by="direct"} 1.0' in text
    for stage, times in (("detect", 2), ("embed", 2), ("search", 1)):
        assert f'oceano_stage_seconds_count{{stage="{stage}"}} {times}.0' in text


def test_no_more_pictures_are_in_work_at_once_than_there_are_threads(index: Recording, made: list[Search]) -> None:
    counter = ConcurrencyCounter()

    class Counting(FakeEngine):
        def analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
            counter.call()
            return super().analyze(pictures, timings)

    made.append(Search(Counting(), index, Metrics(), threads=2))

    async def many() -> list[SearchResult]:
        return await asyncio.gather(*(made[0].run(_picture(), limit=1, threshold=0) for _ in range(20)))

    assert len(_run(many())) == 20
    assert counter.maximum == 2


def test_an_index_that_hangs_holds_no_more_threads_than_there_are(made: list[Search]) -> None:
    """Requests that are given up (504) must not pile up threads and pictures behind an index that hangs."""
    release = threading.Event()
    hanging: list[int] = []

    class Hanging(MemoryIndex):
        def search_batch(self, embeddings: Sequence[Floats], **how: Any) -> list[list[Match]]:
            hanging.append(threading.get_ident())
            release.wait(10)
            return [[] for _ in embeddings]

    made.append(Search(FakeEngine(), Hanging(), Metrics(), threads=2))

    async def wave() -> None:
        calls = (asyncio.wait_for(made[0].run(_picture(), limit=1, threshold=0), 0.05) for _ in range(10))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(result) for result in results} == {TimeoutError}

    async def waves() -> None:
        for _ in range(3):
            await wave()
        release.set()

    _run(waves())
    assert len(hanging) == 2
