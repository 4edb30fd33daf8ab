"""The network between one of two workers and PostgreSQL is cut; the job is still done exactly once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import cv2
import numpy as np
import pytest
from sqlalchemy import make_url

from app.catalog import Job, Jobs, Ledger, open_postgresql
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.protocols import FaceIndex
from app.core.types import Face, Picture
from app.images import DecoderPool, ThumbStore
from app.service import worker as workers
from app.service.worker import IngestWorker, WorkerParts
from tests.support.dying import wait_for
from tests.support.fakes import FakeEngine, MemoryIndex, decode_here
from tests.support.proxy import Proxy
from tests.support.shared_jobs import COLLECTION, queue_folder

PICTURES = 90
LEASE_SECONDS = 1


class SlowEngine(FakeEngine):
    """A fake engine that takes 40 ms per picture."""

    def analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
        time.sleep(0.04 * len(pictures))
        return super().analyze(pictures, timings)


@dataclass
class Running:
    """A worker in a thread, and how it ended."""

    thread: Thread | None = None
    failures: list[OceanoError] = field(default_factory=list)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DecoderPool, "decode", decode_here)
    monkeypatch.setattr(workers, "TAKEN_AT_ONCE", 8)
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng, folder = np.random.default_rng(13), tmp_path / "pictures"
    folder.mkdir()
    for number in range(PICTURES):
        pixels = rng.integers(40, 255, (8, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number:02}.png"), cv2.resize(pixels, (64, 48)))
    return folder


@contextmanager
def _proxy(url: str) -> Iterator[tuple[Proxy, str]]:
    parsed = make_url(url)
    with Proxy(str(parsed.host), parsed.port or 5432) as proxy:
        through = parsed.set(host="127.0.0.1", port=proxy.port)
        yield proxy, through.render_as_string(hide_password=False)


def _start(stack: ExitStack, url: str, index: FaceIndex, tmp_path: Path, *, retry_seconds: float) -> Running:
    ledger = stack.enter_context(closing(Ledger(open_postgresql(url), COLLECTION)))
    stop, running = Event(), Running()
    ledger.database.retries.enable(stop, retry_seconds)
    parts = WorkerParts(SlowEngine(), index, ledger, ThumbStore(tmp_path / "thumbs"))
    settings = Settings(_env_file=None, data_dir=tmp_path / "data", catalog_url=url)
    worker = IngestWorker(parts, settings, stop, lease_seconds=LEASE_SECONDS)

    def run() -> None:
        try:
            worker.run(once=True)
        except OceanoError as failure:
            running.failures.append(failure)

    running.thread = Thread(target=run, daemon=True)
    running.thread.start()
    stack.callback(stop.set)
    return running


def _join(running: Running) -> None:
    assert running.thread is not None
    running.thread.join(40)
    assert not running.thread.is_alive()


def _require_done(ledger: Ledger, job_id: str, index: MemoryIndex) -> None:
    job: Job = Jobs(ledger.database, COLLECTION).get(job_id)
    assert (job.state, job.workers) == ("done", 0)
    counts = {name: job.counts.get(name, 0) for name in ("files", "done", "duplicate", "failed", "faces")}
    assert counts == {"files": PICTURES, "done": PICTURES, "duplicate": 0, "failed": 0, "faces": PICTURES}
    assert Counter(one.status for one in ledger.files("/")) == {"done": PICTURES}
    assert index.count() == PICTURES
    assert ledger.unsettled(10) == []
    assert ledger.replaced() == []


@pytest.mark.parametrize("for_good", [False, True], ids=["and comes back", "for good"])
def test_a_job_is_done_once_though_the_network_of_one_worker_is_cut(
    folder: Path, tmp_path: Path, postgresql_url: str, for_good: bool
) -> None:
    index = MemoryIndex()
    with _proxy(postgresql_url) as (proxy, through), ExitStack() as stack:
        ledger = stack.enter_context(closing(Ledger(open_postgresql(postgresql_url), COLLECTION)))
        jobs = Jobs(ledger.database, COLLECTION)
        job_id = queue_folder(folder, postgresql_url)
        cut = _start(stack, through, index, tmp_path, retry_seconds=2 if for_good else 30)
        other = _start(stack, postgresql_url, index, tmp_path, retry_seconds=30)
        wait_for(lambda: jobs.get(job_id).images >= 10 and jobs.get(job_id).workers == 2)
        proxy.cut()
        wait_for(lambda: jobs.get(job_id).workers == 1)  # its lease has ended
        assert jobs.get(job_id).state == "running"
        if not for_good:
            proxy.resume()
        _join(cut)
        _join(other)
        _require_done(ledger, job_id, index)
    assert other.failures == []
    assert [one.code for one in cut.failures] == (["ledger_unavailable"] if for_good else [])


def test_a_slow_network_makes_a_job_slower_only(folder: Path, tmp_path: Path, postgresql_url: str) -> None:
    index = MemoryIndex()
    with _proxy(postgresql_url) as (proxy, through), ExitStack() as stack:
        ledger = stack.enter_context(closing(Ledger(open_postgresql(postgresql_url), COLLECTION)))
        job_id = queue_folder(folder, postgresql_url)
        proxy.delay = 0.005
        _join(slow := _start(stack, through, index, tmp_path, retry_seconds=30))
        _require_done(ledger, job_id, index)
    assert slow.failures == []
