"""Readers: more processes that search; their answers are those of the worker, whatever is written or killed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.core.config import Settings
from app.core.protocols import FaceIndex
from app.core.types import FaceFilter
from tests.index.conftest import (
    children_of,
    collection_folder,
    everything,
    ids_of,
    kill,
    open_quick,
    owner_pid,
    points,
    processes_of,
    wait_until,
)

FACES = points(400)
GRAPH: dict[str, Any] = {"indexing_points": 250, "full_scan_kb": 100, "hnsw_m": 8, "hnsw_ef_construct": 32}


@pytest.fixture
def index(settings: Settings) -> Iterator[FaceIndex]:
    """An index with FACES, which may start one reader."""
    opened = open_quick(settings, readers=1, **GRAPH)
    opened.upsert(FACES)
    yield opened
    opened.close()
    wait_until(lambda: not processes_of(settings.data_dir))
    assert not list(collection_folder(settings).glob("reader-*"))


def readers_of(settings: Settings) -> list[int]:
    """The pids of the readers."""
    found = []
    for pid in processes_of(settings.data_dir):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"read" in words:
            found.append(pid)
    return found


@contextmanager
def searches(index: FaceIndex) -> Iterator[None]:
    """Eight threads that search for stored faces, so that reads wait for each other; each must find its face."""
    done = threading.Event()

    def search(turn: int) -> None:
        while not done.is_set():
            face = FACES[turn % len(FACES)]
            assert index.search(face.embedding, limit=1)[0].face_id == face.face_id
            turn += 7

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(search, turn) for turn in range(8)]
        try:
            yield
        finally:
            done.set()
        for one in running:
            one.result()


def joined(settings: Settings) -> Callable[[], bool]:
    """Whether a reader answers requests, which the log says."""
    log = settings.logs_dir / "index.log"
    return lambda: " started in " in log.read_text(encoding="utf-8", errors="replace").rpartition(" stops: ")[2]


def test_a_reader_starts_when_searches_wait_and_answers_what_has_been_written(
    index: FaceIndex, settings: Settings
) -> None:
    assert readers_of(settings) == []
    with searches(index):
        wait_until(joined(settings), 60)
        assert len(readers_of(settings)) == 1
        for number, face in enumerate(points(60, seed=5)):
            index.upsert([face])
            assert [index.search(face.embedding, limit=1)[0].face_id for _ in range(3)] == [face.face_id] * 3
            if number % 3 == 0:
                index.set_payload([face.face_id], person=f"Ada {number}")
                assert all(everything(index, FaceFilter(person=f"Ada {number}")) == {face.face_id} for _ in range(3))
            if number % 2:
                index.delete([face.face_id])
                assert all(index.retrieve([face.face_id]) == [] for _ in range(3))
    assert index.count() == len(FACES) + 30


def test_what_is_written_while_a_reader_starts_is_in_it(index: FaceIndex, settings: Settings) -> None:
    more = points(300, seed=6)
    with searches(index):
        for face in more:
            index.upsert([face])
        index.delete(ids_of(more[:50]))
        wait_until(joined(settings), 60)
        for _ in range(4):
            assert everything(index) == {*ids_of(FACES), *ids_of(more[50:])}


def test_a_reader_that_could_not_start_is_started_again_soon(index: FaceIndex, settings: Settings) -> None:
    """A build that replaces the shard while a reader starts is enough."""
    with searches(index):
        wait_until(lambda: readers_of(settings) != [], 60)
        kill(readers_of(settings)[0])
        wait_until(joined(settings), 30)


@pytest.mark.parametrize("which", ["reader", "worker"])
def test_no_search_fails_when_a_process_is_killed(which: str, index: FaceIndex, settings: Settings) -> None:
    with searches(index):
        wait_until(joined(settings), 60)
        (reader,) = readers_of(settings)
        (worker,) = [pid for pid in children_of(owner_pid(settings)) if pid != reader]
        kill(reader if which == "reader" else worker)
        late = points(5, seed=8)
        index.upsert(late)
        assert {*ids_of(late)} <= everything(index)
    assert everything(index) == {*ids_of(FACES), *ids_of(late)}


def test_a_build_replaces_the_readers(index: FaceIndex, settings: Settings) -> None:
    with searches(index):
        wait_until(joined(settings), 60)
        (before,) = readers_of(settings)
        index.maintain(wait=True)
        assert before not in readers_of(settings)
        index.upsert(points(1, seed=9))
        assert index.count() == len(FACES) + 1
        wait_until(joined(settings), 60)
        assert all(index.count() == len(FACES) + 1 for _ in range(4))


def test_the_copy_of_a_killed_owner_is_removed(index: FaceIndex, settings: Settings) -> None:
    with searches(index):
        wait_until(joined(settings), 60)
    kill(owner_pid(settings))
    assert everything(index) == {*ids_of(FACES)}
    wait_until(lambda: not list(collection_folder(settings).glob("reader-*")))
