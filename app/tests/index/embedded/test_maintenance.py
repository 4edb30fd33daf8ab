"""Building the graph on a copy: nothing blocks and nothing is lost, whichever process is killed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.protocols import FaceIndex
from app.core.types import FaceFilter
from app.index.embedded.storage import is_frozen
from tests.index.conftest import (
    children_of,
    collection_folder,
    everything,
    ids_of,
    is_gone,
    kill,
    open_quick,
    owner_pid,
    points,
    processes_of,
    settings_at,
    unit_vectors,
    wait_until,
)
from tests.support.memory import copy_tree

COUNT = 1200
FACES = points(COUNT)
LOW: dict[str, Any] = {"indexing_points": 250, "full_scan_kb": 100, "hnsw_m": 8, "hnsw_ef_construct": 32}
SLOW: dict[str, Any] = {**LOW, "hnsw_m": 48, "hnsw_ef_construct": 800}


@pytest.fixture(scope="module")
def filled(base: Path) -> Path:
    """An index that holds FACES, none of them in the graph; tests copy it and never open it."""
    settings = settings_at(base / "filled")
    index = open_quick(settings, **LOW)
    index.upsert(FACES)
    index.close()
    wait_until(lambda: not processes_of(settings.data_dir))
    return settings.index_dir


@pytest.fixture
def index(settings: Settings, filled: Path) -> Iterator[FaceIndex]:
    """An index with FACES that builds a graph of a few hundred points, on request only."""
    settings.data_dir.mkdir()
    copy_tree(filled, settings.index_dir)
    opened = open_quick(settings, **LOW)
    yield opened
    opened.close()


@pytest.fixture
def slow_index(settings: Settings, filled: Path) -> Iterator[FaceIndex]:
    """The same, with a build that takes long enough for many requests."""
    settings.data_dir.mkdir()
    copy_tree(filled, settings.index_dir)
    opened = open_quick(settings, **SLOW)
    yield opened
    opened.close()


def wait_for_builder(settings: Settings) -> int:
    """Wait for a builder and return its process id."""
    found: list[int] = []

    def has_started() -> bool:
        for pid in children_of(owner_pid(settings)):
            with contextlib.suppress(OSError):
                found.extend([pid] if b"\0build\0" in Path(f"/proc/{pid}/cmdline").read_bytes() else [])
        return bool(found)

    wait_until(has_started)
    return found[0]


def folders_of(settings: Settings) -> list[str]:
    return sorted(path.name for path in collection_folder(settings).iterdir() if path.is_dir())


def test_a_build_brings_all_points_into_the_graph(settings: Settings, index: FaceIndex) -> None:
    before = folders_of(settings)
    assert index.info().indexed == 0
    index.maintain(wait=True)
    info = index.info()
    assert (info.points, info.indexed, info.maintaining) == (COUNT, COUNT, False)
    after = folders_of(settings)
    assert len(before) == len(after) == 1
    assert before != after
    assert len(processes_of(settings.data_dir)) == 2


def test_similarities_from_the_graph_are_the_cosines_that_numpy_computes(index: FaceIndex) -> None:
    index.maintain(wait=True)
    rows = np.stack([face.embedding for face in FACES])
    hits = 0
    for query in unit_vectors(20, seed=3):
        cosines = rows @ query
        rows_of = {face.face_id: row for row, face in enumerate(FACES)}
        found = index.search(query, limit=10)
        assert np.allclose([m.similarity for m in found], [cosines[rows_of[m.face_id]] for m in found], atol=1e-4)
        hits += len({rows_of[m.face_id] for m in found} & set(np.argsort(-cosines)[:10].tolist()))
        threshold = found[4].similarity - 1e-6
        assert [m.face_id for m in index.search(query, limit=10, threshold=threshold)] == [m.face_id for m in found[:5]]
    assert hits > 180  # of 200


def test_a_search_with_a_filter_that_matches_few_points_finds_the_nearest(settings: Settings, index: FaceIndex) -> None:
    index.maintain(wait=True)
    narrow = open_quick(settings.model_copy(update={"hnsw_ef": 16}), **LOW)  # visits a small part of the graph
    matching = [face for face in FACES if face.payload.quality >= 0.7]
    assert len(matching) == COUNT * 3 // 10
    rows = np.stack([face.embedding for face in matching])
    hits = 0
    for query in unit_vectors(20, seed=4):
        nearest = {matching[row].face_id for row in np.argsort(-(rows @ query))[:10]}
        hits += len(nearest & {m.face_id for m in narrow.search(query, limit=10, where=FaceFilter(min_quality=0.7))})
    narrow.close()
    assert hits > 190  # of 200


def test_searches_and_writes_continue_during_a_build_and_nothing_is_lost(
    settings: Settings, slow_index: FaceIndex
) -> None:
    index = slow_index
    built = threading.Event()
    longest = 0.0

    def search() -> None:
        nonlocal longest
        count = 0
        while not built.is_set():
            began = time.perf_counter()
            face = FACES[count % 600]
            assert index.search(face.embedding, limit=1)[0].face_id == face.face_id
            longest = max(longest, time.perf_counter() - began)
            count += 1

    more = points(500, seed=11, folder=("/", "/more"))
    searching = threading.Thread(target=search)
    searching.start()
    try:
        index.maintain()
        wait_for_builder(settings)
        assert index.info().maintaining
        for start in range(0, 500, 20):
            index.upsert(more[start : start + 20])
        index.set_payload(ids_of(FACES[600:1000]), person="Named during")
        index.set_payload(ids_of(more[:5]), person="Named during")
        index.delete(ids_of(FACES[1000:1150]))
        index.delete(ids_of(more[400:]))
        index.upsert(FACES[:300])  # changes nothing
        assert index.info().maintaining, "the build ended before the writes: too fast for this test"
        wait_until(lambda: not index.info().maintaining, 60)
    finally:
        built.set()
        searching.join()
    expected = {*ids_of(FACES), *ids_of(more[:400])} - {*ids_of(FACES[1000:1150])}
    assert everything(index) == expected
    assert index.count(FaceFilter(person="Named during")) == 405
    assert index.count(FaceFilter(folder="/more")) == 400
    assert index.retrieve([FACES[5].face_id])[0].payload == FACES[5].payload
    assert index.info().indexed >= COUNT - 550
    assert longest < 2.0


def test_writes_during_a_build_are_durable_after_the_switch(settings: Settings, index: FaceIndex) -> None:
    index.maintain()
    wait_for_builder(settings)
    more = points(200, seed=12)
    index.upsert(more)
    index.flush()
    wait_until(lambda: not index.info().maintaining, 60)
    kill_processes(settings)
    assert everything(index) == {*ids_of(FACES), *ids_of(more)}


def kill_builder(settings: Settings) -> None:
    kill(wait_for_builder(settings))


def kill_owner(settings: Settings) -> None:
    wait_for_builder(settings)
    kill(owner_pid(settings))


def kill_all(settings: Settings) -> None:
    wait_for_builder(settings)
    kill_processes(settings)


def kill_processes(settings: Settings) -> None:
    for pid in processes_of(settings.data_dir):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("kill_some", [kill_builder, kill_owner, kill_all])
def test_a_kill_during_a_build_leaves_a_complete_index(
    settings: Settings, slow_index: FaceIndex, kill_some: Callable[[Settings], None]
) -> None:
    index, more = slow_index, points(100, seed=13)
    index.maintain()
    wait_for_builder(settings)
    index.upsert(more)
    index.flush()
    kill_some(settings)
    assert everything(index) == {*ids_of(FACES), *ids_of(more)}
    wait_until(lambda: not index.info().maintaining)
    wait_until(lambda: len(folders_of(settings)) == 1)
    index.maintain(wait=True)
    assert index.info().indexed == COUNT + 100
    assert everything(index) == {*ids_of(FACES), *ids_of(more)}


def test_a_builder_is_killed_with_its_owner(settings: Settings, slow_index: FaceIndex) -> None:
    slow_index.maintain()
    builder = wait_for_builder(settings)
    kill(owner_pid(settings))
    wait_until(lambda: is_gone(builder), 5)  # the build itself would take longer
    assert slow_index.count() == COUNT


@pytest.mark.parametrize("moment", range(4))
def test_a_kill_around_the_switch_leaves_a_complete_index(settings: Settings, index: FaceIndex, moment: int) -> None:
    """Kill everything 0 to 240 ms after the builder exits, around the switch."""
    more = points(60, seed=14)
    index.maintain()
    builder = wait_for_builder(settings)
    index.upsert(more)
    index.flush()
    wait_until(lambda: is_gone(builder), 60)
    time.sleep(moment * 0.08)
    kill_processes(settings)
    assert everything(index) == {*ids_of(FACES), *ids_of(more)}
    wait_until(lambda: len(folders_of(settings)) == 1)


def test_the_owner_builds_without_a_request_when_enough_points_are_outside_the_graph(settings: Settings) -> None:
    index = open_quick(settings, **LOW, build_min=1000, build_share=0.1)
    index.upsert(points(900))
    index.flush()
    assert not index.info().maintaining
    index.upsert(points(300, seed=15))
    index.flush()
    wait_until(lambda: index.info().indexed == 1200, 60)
    index.close()


def test_the_owner_builds_at_its_start_when_enough_points_are_outside_the_graph(settings: Settings) -> None:
    index = open_quick(settings, **LOW)
    index.upsert(points(1100))
    index.close()
    wait_until(lambda: not processes_of(settings.data_dir))
    index = open_quick(settings, **LOW, build_min=1000)
    wait_until(lambda: index.info().indexed == 1100, 60)
    index.close()


def test_a_build_is_cancelled_when_the_last_client_disconnects(settings: Settings, slow_index: FaceIndex) -> None:
    slow_index.maintain()
    wait_for_builder(settings)
    slow_index.close()
    wait_until(lambda: not processes_of(settings.data_dir))
    assert len(folders_of(settings)) == 1
    again = open_quick(settings, **LOW)
    assert everything(again) == set(ids_of(FACES))
    again.close()


def test_new_points_get_a_second_graph_until_they_are_many(settings: Settings, filled: Path) -> None:
    settings.data_dir.mkdir()
    copy_tree(filled, settings.index_dir)
    index = open_quick(settings, **LOW, build_share=0.4)
    index.maintain(wait=True)
    (first,) = _graphs(settings)
    stored = list(FACES)
    for seed, graphs in ((31, 2), (32, 2), (33, 1)):  # 300 and 600 points beside 1200, then 1000
        more = points(300 if seed < 33 else 400, seed=seed)
        index.upsert(more)
        index.maintain(wait=True)
        stored += more
        found = _graphs(settings)
        assert (len(found), first in found) == (graphs, graphs == 2)
        assert (index.info().points, index.info().indexed) == (len(stored), len(stored))
        for face in (*FACES[::400], more[0], more[-1]):
            assert index.search(face.embedding, limit=1)[0].face_id == face.face_id
    assert everything(index) == set(ids_of(stored))
    index.close()


def _graphs(settings: Settings) -> set[tuple[int, int]]:
    """Inodes and sizes of the vectors that are in a graph."""
    (shard,) = collection_folder(settings).glob("shard-*")
    found = [path.stat() for path in shard.rglob("matrix.dat")]
    return {(one.st_ino, one.st_size) for one in found}


def test_a_build_with_nothing_to_do_changes_nothing(settings: Settings) -> None:
    index = open_quick(settings)
    index.upsert(points(10))
    before = folders_of(settings)
    index.maintain(wait=True)
    assert folders_of(settings) == before
    assert index.count() == 10
    index.close()


def test_a_failed_build_is_reported_to_the_waiting_client_and_the_index_works(settings: Settings) -> None:
    index = open_quick(settings, **LOW)
    index.upsert(points(1000))
    index.maintain()
    killed = threading.Thread(target=kill_builder, args=(settings,))
    killed.start()
    with pytest.raises(OceanoError, match="exited with code -9") as caught:
        index.maintain(wait=True)
    killed.join()
    assert caught.value.code == "index_unavailable"
    assert index.count() == 1000
    index.close()


def test_a_build_without_disk_space_is_refused(settings: Settings) -> None:
    index = open_quick(settings, **LOW)
    index.upsert(points(1000))
    index.close()
    wait_until(lambda: not processes_of(settings.data_dir))
    index = open_quick(settings, **LOW, min_free_mb=10**9)
    with pytest.raises(OceanoError, match="free") as caught:
        index.maintain(wait=True)
    assert caught.value.code == "disk_full"
    assert index.count() == 1000
    index.close()


def test_edge_never_writes_to_files_that_a_copy_links(settings: Settings, index: FaceIndex) -> None:
    """Why hard links are safe (`storage.is_frozen`): deletions, names, insertions and builds do not change them."""
    index.maintain(wait=True)
    (shard,) = collection_folder(settings).glob("shard-*")
    before = _digests(shard)
    frozen = {"matrix.dat", "quantized.data", "id_tracker.mappings", "point_to_values.bin", "data.bin", "page_0.dat"}
    assert {name for name, _ in before} >= frozen
    index.delete(ids_of(FACES[:300]))
    index.set_payload(ids_of(FACES[300:600]), person="Ana")
    index.upsert(points(400, seed=16))
    index.flush()
    assert _digests(shard) == before
    open_files = {path: path.open("rb") for path in shard.rglob("*") if is_frozen(path)}
    index.maintain(wait=True)
    assert not shard.exists()
    after = {(path.name, hashlib.sha256(file.read()).hexdigest()) for path, file in open_files.items()}
    for file in open_files.values():
        file.close()
    assert after == before


def test_payloads_of_points_without_a_graph_are_copied(settings: Settings, index: FaceIndex) -> None:
    (shard,) = collection_folder(settings).glob("shard-*")
    pages = list(shard.rglob("page_0.dat"))
    assert pages
    assert not any(is_frozen(path) for path in pages)
    index.maintain(wait=True)
    (shard,) = collection_folder(settings).glob("shard-*")
    assert sum(is_frozen(path) for path in shard.rglob("page_0.dat")) == 1  # the other segment takes new points


def _digests(shard: Path) -> set[tuple[str, str]]:
    return {(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in shard.rglob("*") if is_frozen(path)}
