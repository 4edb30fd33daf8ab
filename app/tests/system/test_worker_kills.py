"""A worker that is killed before or after any of its steps leaves a job that another worker completes, exactly.

Index, catalog and thumbnails are real. The engine is a fake.
"""

from __future__ import annotations

import signal
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import cv2
import numpy as np
import pytest

from app.catalog import ClaimedLedger, Jobs, Ledger, open_postgresql
from app.core.config import Settings
from app.images import DecoderPool, ThumbStore
from app.index import open_index
from app.index.embedded.client import EmbeddedIndex
from app.service import worker as workers
from app.service.worker import IngestWorker, WorkerParts
from tests.support import memory
from tests.support.catalogs import new_postgresql_database
from tests.support.dying import die_at
from tests.support.fakes import FAKE_PACK, FakeEngine, decode_here
from tests.support.shared_jobs import COLLECTION, queue_folder, results_by_image
from tests.system.test_workers import CONTEXT

PICTURES, COPIES = 24, 4
LEASE_SECONDS = 1

# The steps of a worker: the object that holds the function, its name, and which of its calls dies.
POINTS: dict[str, tuple[Any, str, int]] = {
    "add": (ClaimedLedger, "add", 2),
    "end the scan": (ClaimedLedger, "end_scan", 1),
    "take": (ClaimedLedger, "take", 2),
    "upsert": (EmbeddedIndex, "upsert", 1),
    "flush": (EmbeddedIndex, "flush", 1),
    "record": (ClaimedLedger, "record", 1),
    "finish": (workers._SharedIngest, "_finish", 1),
    "end the job": (ClaimedLedger, "end_job", 1),
}
base, tmp_path = memory.base, memory.tmp_path


@dataclass(frozen=True)
class Outcome:
    """What a job left behind: the faces with their folders, the results by image, state and counts."""

    faces: dict[str, frozenset[str]]
    results: dict[str | None, Counter[tuple[str, int]]]
    state: str
    counts: dict[str, int]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with one face each, copies of some, a file that is no picture, and a broken one."""
    rng, folder = np.random.default_rng(11), tmp_path_factory.mktemp("pictures")
    for number in range(PICTURES):
        path = folder / f"{number:02}.png"
        cv2.imwrite(str(path), cv2.resize(rng.integers(40, 255, (8, 8, 3), dtype=np.uint8), (64, 48)))
        if number < COPIES:
            (folder / "copies").mkdir(exist_ok=True)
            (folder / "copies" / path.name).write_bytes(path.read_bytes())
    (folder / "notes.txt").write_text("no picture")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The outcome of a worker that is not killed."""
    data = tmp_path_factory.mktemp("undisturbed")
    with new_postgresql_database() as url:
        job_id = queue_folder(folder, url)
        _complete(data, url)
        return _outcome(data, url, job_id)


def _work(data: Path, url: str) -> None:
    setattr(DecoderPool, "decode", decode_here)  # noqa: B010
    setattr(workers, "TAKEN_AT_ONCE", 8)  # noqa: B010
    setattr(workers, "_SCANNED_AT_ONCE", 10)  # noqa: B010
    setattr(workers, "POLL_SECONDS", 0.1)  # noqa: B010
    settings = Settings(_env_file=None, data_dir=data, catalog_url=url)
    index = open_index(Settings(_env_file=None, data_dir=data), FAKE_PACK)
    with closing(index), closing(Ledger(open_postgresql(url), COLLECTION)) as ledger:
        parts = WorkerParts(FakeEngine(), index, ledger, ThumbStore(settings.thumbs_dir))
        IngestWorker(parts, settings, Event(), lease_seconds=LEASE_SECONDS).run(once=True)


def _work_and_die(data: Path, url: str, point: str, border: str) -> None:
    holder, name, times = POINTS[point]
    die_at(holder, name, border, times)
    _work(data, url)


def _complete(data: Path, url: str) -> None:
    process = CONTEXT.Process(target=_work, args=(data, url))
    process.start()
    process.join(60)
    assert process.exitcode == 0


def _outcome(data: Path, url: str, job_id: str) -> Outcome:
    with closing(open_index(Settings(_env_file=None, data_dir=data), FAKE_PACK)) as index:
        faces = {one.face_id: frozenset(one.payload.folder) for one in index.scroll(limit=1000).records}
        assert index.count() == len(faces)
    with closing(Ledger(open_postgresql(url), COLLECTION)) as ledger:
        results = results_by_image(ledger)
        assert ledger.unsettled(10) == []
        assert ledger.replaced() == []
        job = Jobs(ledger.database, COLLECTION).get(job_id)
    thumbs = ThumbStore(Settings(_env_file=None, data_dir=data).thumbs_dir)
    assert all(thumbs.path(face_id).exists() for face_id in faces)
    return Outcome(faces, results, job.state, {name: number for name, number in job.counts.items() if number})


@pytest.mark.parametrize("border", ["before", "after"])
@pytest.mark.parametrize("point", POINTS)
def test_another_worker_completes_the_job_of_a_killed_one(
    folder: Path, undisturbed: Outcome, tmp_path: Path, point: str, border: str
) -> None:
    with new_postgresql_database() as url:
        job_id = queue_folder(folder, url)
        dying = CONTEXT.Process(target=_work_and_die, args=(tmp_path, url, point, border))
        dying.start()
        dying.join(60)
        assert dying.exitcode == -signal.SIGKILL
        _complete(tmp_path, url)
        outcome = _outcome(tmp_path, url, job_id)
    assert len(outcome.faces) == PICTURES
    assert outcome == undisturbed
