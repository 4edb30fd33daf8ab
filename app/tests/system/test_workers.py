"""Several workers, with one PostgreSQL database, do what one undisturbed ingest does, however often they are killed.

Index, catalog and thumbnails are real. The engine is a fake: kills are to hit the work on files.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Event

import cv2
import numpy as np
import pytest

from app.catalog import Ledger, open_ledger, open_postgresql
from app.core.config import Settings
from app.core.types import Face, Picture
from app.images import DecoderPool, ThumbStore, image_id_of
from app.index import open_index
from app.ingest import Ingest, IngestOptions
from app.service.worker import IngestWorker, WorkerParts
from tests.support import memory
from tests.support.fakes import FAKE_PACK, FakeEngine, decode_here
from tests.support.shared_jobs import COLLECTION, job_of, queue_folder, results_by_image

PICTURES = int(os.environ.get("OCEANO_TEST_PICTURES", "240"))
COPIES = PICTURES // 6
KILLS = int(os.environ.get("OCEANO_TEST_WORKER_KILLS", "12"))
WORKERS = 4
LEASE_SECONDS = 2

base, tmp_path = memory.base, memory.tmp_path
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["app.service.worker", "app.catalog.postgresql", "app.index.embedded.alias", "tests.system.test_workers"]
)


class LoggingEngine(FakeEngine):
    """A fake engine that takes 20 ms per picture and notes what it analyzed."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self._log = log

    def analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
        time.sleep(0.02 * len(pictures))
        with self._log.open("a") as log:
            log.writelines(f"{picture.image_id}\n" for picture in pictures)
        return super().analyze(pictures, timings)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures with one face each, and copies of some of them in other folders."""
    rng, folder = np.random.default_rng(7), tmp_path / "pictures"
    for number in range(PICTURES):
        path = folder / f"{number % 7}" / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.resize(rng.integers(40, 255, (8, 8, 3), dtype=np.uint8), (64, 48)))
        if number < COPIES:
            (path.parent / f"{number:04}-copy.png").write_bytes(path.read_bytes())
    (folder / "notes.txt").write_text("no picture")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    return folder


def _work(data: Path, index_data: Path, url: str, log: Path) -> None:
    setattr(DecoderPool, "decode", decode_here)  # noqa: B010
    settings = Settings(_env_file=None, data_dir=data, catalog_url=url)
    index = open_index(Settings(_env_file=None, data_dir=index_data), FAKE_PACK)
    with closing(index), closing(Ledger(open_postgresql(url), COLLECTION)) as ledger:
        parts = WorkerParts(LoggingEngine(log), index, ledger, ThumbStore(data.parent / "thumbs"))
        IngestWorker(parts, settings, Event(), lease_seconds=LEASE_SECONDS).run(once=True)


def _start(tmp_path: Path, number: int, url: str) -> BaseProcess:
    data = tmp_path / f"data-{number % 2}"
    process = CONTEXT.Process(target=_work, args=(data, tmp_path / "data-0", url, tmp_path / f"analyzed-{number}"))
    process.start()
    return process


def _faces(data: Path) -> dict[str, frozenset[str]]:
    with closing(open_index(Settings(_env_file=None, data_dir=data), FAKE_PACK)) as index:
        return {one.face_id: frozenset(one.payload.folder) for one in index.scroll(limit=10_000).records}


def _undisturbed(folder: Path, tmp_path: Path) -> tuple[dict[str, frozenset[str]], object]:
    data = tmp_path / "undisturbed"
    settings = Settings(_env_file=None, data_dir=data)
    with (
        closing(open_index(settings, FAKE_PACK)) as index,
        closing(open_ledger(settings.state_dir / "catalog.sqlite3", COLLECTION)) as ledger,
    ):
        Ingest(FakeEngine(), index, ledger, ThumbStore(settings.thumbs_dir), IngestOptions(10**6)).run(folder)
        faces = {one.face_id: frozenset(one.payload.folder) for one in index.scroll(limit=10_000).records}
        return faces, results_by_image(ledger)


def _require_same(folder: Path, tmp_path: Path, url: str, job_id: str) -> None:
    faces, results = _undisturbed(folder, tmp_path)
    assert len(faces) == PICTURES
    assert _faces(tmp_path / "data-0") == faces
    with closing(Ledger(open_postgresql(url), COLLECTION)) as ledger:
        assert results_by_image(ledger) == results
        assert ledger.unsettled(10) == []
        assert ledger.replaced() == []
    thumbs = ThumbStore(tmp_path / "thumbs")
    assert all(thumbs.path(face_id).exists() for face_id in faces)
    job = job_of(job_id, url)
    assert (job.state, job.workers) == ("done", 0)
    counts = {name: job.counts.get(name, 0) for name in ("files", "done", "duplicate", "failed", "ignored", "faces")}
    assert counts == {
        "files": PICTURES + COPIES + 2,
        "done": PICTURES,
        "duplicate": COPIES,
        "failed": 1,
        "ignored": 1,
        "faces": PICTURES,
    }


def _end(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.join(120)
        assert process.exitcode == 0


def test_four_workers_embed_each_image_once(folder: Path, tmp_path: Path, postgresql_url: str) -> None:
    job_id = queue_folder(folder, postgresql_url)
    _end([_start(tmp_path, number, postgresql_url) for number in range(WORKERS)])
    _require_same(folder, tmp_path, postgresql_url, job_id)
    analyzed = Counter(line for path in tmp_path.glob("analyzed-*") for line in path.read_text().splitlines())
    assert set(analyzed) >= {image_id_of(path.read_bytes()) for path in folder.rglob("0*.png")}
    assert set(analyzed.values()) == {1}
    assert len(list(tmp_path.glob("analyzed-*"))) > 1


def test_workers_that_are_killed_lose_nothing_and_count_nothing_twice(
    folder: Path, tmp_path: Path, postgresql_url: str
) -> None:
    rng = random.Random(3)
    job_id = queue_folder(folder, postgresql_url)
    running = {number: _start(tmp_path, number, postgresql_url) for number in range(WORKERS)}
    for _ in range(KILLS):
        time.sleep(rng.uniform(0.05, 0.6))
        number = rng.randrange(WORKERS)
        if (pid := running[number].pid) is not None and running[number].is_alive():
            os.kill(pid, signal.SIGKILL)
        running[number].join()
        running[number] = _start(tmp_path, number, postgresql_url)
    _end(list(running.values()))
    _require_same(folder, tmp_path, postgresql_url, job_id)
