from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.catalog import ClaimedLedger, FileRecord, Job, Jobs, Ledger, Totals, Worker, open_ledger
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.types import EngineHealth, IndexInfo
from app.images import PreviewStore
from app.images.thumbnails import ThumbStore
from app.library import Pictures
from app.metrics import Metrics
from app.security import LOCAL
from app.service import Search, Services
from app.service import monitor as module
from app.service.monitor import Monitor
from app.service.shown import Shown
from tests.index.conftest import ids_of, points
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex
from tests.support.pictures import point


class Part(MemoryIndex):
    """An index whose `info` does what a test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.does: Callable[[], None] = lambda: None
        self.closed = 0
        self.asked = 0

    def info(self) -> IndexInfo:
        self.asked += 1
        self.does()
        return super().info()

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def index() -> Part:
    made = Part()
    made.upsert(points(1))
    return made


@pytest.fixture
def services(settings: Settings, engine: FakeEngine, index: Part, tmp_path: Path) -> Iterator[Services]:
    metrics = Metrics()
    ledger = open_ledger(tmp_path / "catalog.sqlite3", "faces__fake__ffffffff")
    search = Search(engine, index, metrics, threads=1)
    monitor = Monitor(engine, index, ledger, metrics)
    pictures = Pictures(index, ledger, ())
    shown = Shown(pictures, PreviewStore(tmp_path / "previews", 1_000_000), 1_000_000)
    thumbs = ThumbStore(tmp_path / "thumbs")
    services = Services(settings, engine, index, ledger, thumbs, search, monitor, metrics, pictures, shown)
    yield services
    services.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "ENGINE_POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "INDEX_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(module, "STALE_SECONDS", 0.2)


def _watch(services: Services, until: Callable[[], bool], seconds: float = 5.0) -> None:
    """Let the watch run until something is so."""

    async def run() -> None:
        watch = asyncio.create_task(services.monitor.run())
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, "it never came so"
            assert not watch.done(), "the watch has ended"
            await asyncio.sleep(0.005)
        watch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watch

    asyncio.run(run())


def _fail(code: str = "index_unavailable", message: str = "no connection") -> Callable[[], None]:
    def fail() -> None:
        raise OceanoError(code, message)

    return fail


def test_before_the_first_look_nothing_is_well(services: Services) -> None:
    assert not services.monitor.index_ok
    assert services.monitor.faces_indexed is None
    assert services.monitor.snapshot.index_error == "not checked yet"


def test_a_look_sees_the_index(services: Services, index: Part) -> None:
    index.points.clear()
    index.upsert([point(1), point(2)])
    asyncio.run(services.monitor.check_index())
    assert services.monitor.index_ok
    assert services.monitor.faces_indexed == 2
    assert services.monitor.snapshot.index_error == ""
    text = services.metrics.exposition().decode()
    assert "oceano_index_up 1.0" in text
    assert "oceano_index_points 2.0" in text
    assert "oceano_engine_healthy 1.0" in text


def test_an_index_that_is_gone_is_seen_at_once_and_said_once(
    services: Services, index: Part, caplog: pytest.LogCaptureFixture
) -> None:
    asyncio.run(services.monitor.check_index())
    index.does = _fail()
    for _ in range(3):
        asyncio.run(services.monitor.check_index())
    assert not services.monitor.index_ok
    assert services.monitor.faces_indexed is None
    assert services.monitor.snapshot.index_error == "no connection"
    assert "oceano_index_up 0.0" in services.metrics.exposition().decode()
    assert [record.getMessage() for record in caplog.records] == ["no connection"]
    index.does = lambda: None
    asyncio.run(services.monitor.check_index())
    assert services.monitor.index_ok
    assert services.monitor.snapshot.index_error == ""


def test_an_index_that_hangs_is_believed_until_it_is_stale(
    services: Services, index: Part, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    asyncio.run(services.monitor.check_index())
    release = threading.Event()
    index.does = lambda: release.wait(10) and None
    asyncio.run(services.monitor.check_index())
    assert services.monitor.index_ok, "one slow answer is no outage"
    time.sleep(0.2)
    assert not services.monitor.index_ok
    assert services.monitor.faces_indexed is None
    assert services.monitor.snapshot.index_error == "the index has not answered within 0.05 s"
    release.set()


def test_an_index_that_hangs_is_not_asked_by_ever_more_threads(services: Services, index: Part, quick: None) -> None:
    release = threading.Event()
    index.does = lambda: release.wait(10) and None

    async def looks() -> None:
        for _ in range(4):
            await services.monitor.check_index()

    before = threading.active_count()
    asyncio.run(looks())
    assert index.asked == 1
    assert threading.active_count() <= before + 1
    release.set()


def test_the_watch_sees_what_changes(services: Services, index: Part, engine: FakeEngine, quick: None) -> None:
    index.points.clear()
    _watch(services, lambda: services.monitor.faces_indexed == 0)
    index.upsert([point(1)])
    _watch(services, lambda: services.monitor.faces_indexed == 1)
    index.does = _fail()
    _watch(services, lambda: not services.monitor.index_ok)
    index.does = lambda: None
    _watch(services, lambda: services.monitor.index_ok)


def test_the_watch_goes_on_after_an_error_that_nobody_foresaw(
    services: Services, index: Part, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    def odd() -> None:
        raise ZeroDivisionError

    index.does = odd
    _watch(services, lambda: index.asked >= 3)
    assert not services.monitor.index_ok
    assert any(record.exc_info for record in caplog.records)
    index.does = lambda: None
    _watch(services, lambda: services.monitor.index_ok)


def test_the_watch_sees_the_index_while_the_engine_or_the_ledger_hangs(
    services: Services, index: Part, engine: FakeEngine, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    checks: list[int] = []

    def hang() -> EngineHealth:
        checks.append(1)
        release.wait(10)
        return engine.health

    def hang_too() -> Totals:
        release.wait(10)
        return Totals()

    monkeypatch.setattr(engine, "check", hang, raising=False)
    monkeypatch.setattr(Ledger, "totals", lambda self: hang_too())
    asked = index.asked
    try:
        _watch(services, lambda: len(checks) > 0 and index.asked > asked + 5 and services.monitor.index_ok)
    finally:
        release.set()
    assert len(checks) == 1


def test_the_engine_is_checked_again_and_again_and_its_state_is_told(
    services: Services, engine: FakeEngine, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    checks: list[EngineHealth] = []

    def check() -> EngineHealth:
        engine.health = EngineHealth(len(checks) != 1, 0.5, "cosine 0.5 to the reference")
        checks.append(engine.health)
        return engine.health

    engine.check = check  # type: ignore[method-assign]
    _watch(services, lambda: len(checks) >= 4)
    assert "the engine is unhealthy: cosine 0.5 to the reference" in caplog.text
    engine.health = EngineHealth(False, 0.0, "?")
    asyncio.run(services.monitor.check_index())
    assert "oceano_engine_healthy 0.0" in services.metrics.exposition().decode()


def test_an_engine_whose_check_fails_is_checked_again(services: Services, engine: FakeEngine, quick: None) -> None:
    checks: list[int] = []

    def check() -> EngineHealth:
        checks.append(1)
        raise OceanoError("engine_unhealthy", "CUDA error")

    engine.check = check  # type: ignore[method-assign]
    _watch(services, lambda: len(checks) >= 3)


def _record(path: str, faces: int = 2) -> FileRecord:
    return FileRecord(path, 10, 1, "a" * 64, "done", faces)


def test_kept_searches_are_deleted_when_their_time_is_over(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    services.kept.keep("short", [point(1).embedding], access=LOCAL, model_digest="d", days=1)
    later = datetime.now(UTC) + timedelta(days=2)
    monkeypatch.setattr("app.service.kept._now", lambda: later)
    asyncio.run(services.monitor.check_kept())
    with closing(sqlite3.connect(services.kept.path)) as connection:
        assert connection.execute("SELECT count(*) FROM searches").fetchone() == (0,)


def test_the_ledger_is_counted(services: Services) -> None:
    services.ledger.record([_record("/a"), _record("/b"), replace(_record("/c", 0), status="failed", reason="x")])
    seconds = asyncio.run(services.monitor.check_ledger())
    assert seconds >= module.POLL_SECONDS
    assert services.monitor.snapshot.totals == Totals(done=2, failed=1, faces=4)
    text = services.metrics.exposition().decode()
    assert 'oceano_ledger_files{status="done"} 2.0' in text
    assert 'oceano_ledger_files{status="failed"} 1.0' in text


def test_a_ledger_that_fails_does_not_make_the_index_unwell(
    services: Services, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def locked(self: Ledger) -> Totals:
        raise OceanoError("ledger_unavailable", "database is locked")

    monkeypatch.setattr(Ledger, "totals", locked)
    asyncio.run(services.monitor.check_index())
    for _ in range(3):
        asyncio.run(services.monitor.check_ledger())
    assert services.monitor.index_ok
    assert services.monitor.snapshot.totals is None
    assert services.monitor.snapshot.ledger_error == "database is locked"
    assert len(caplog.records) == 1


def test_a_large_ledger_is_counted_less_often(services: Services, monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    def slow(self: Ledger) -> Totals:
        time.sleep(0.05)
        return Totals()

    monkeypatch.setattr(Ledger, "totals", slow)
    assert asyncio.run(services.monitor.check_ledger()) >= 1.0, "at most a twentieth of the time"


def test_jobs_that_have_not_ended_are_in_the_snapshot_and_the_metrics(services: Services, quick: None) -> None:
    jobs = Jobs(services.ledger.database, services.ledger.collection)
    worker = Worker(services.ledger.database, services.ledger.collection, "one:1")
    worker.join()
    try:
        jobs.end(jobs.add("/ended", {}, "ann@one"), "done")
        job_id = jobs.add("/photos", {}, "ann@one")
        assert worker.take_job() == job_id
        jobs.add("/waits", {}, "ann@one")
        assert worker.hold("scan")
        ClaimedLedger(worker, job_id).end_scan({"skipped": 60}, 2000)
        jobs.set_counts(job_id, {"files": 2000, "done": 790, "failed": 10, "skipped": 60})
        _watch(services, until=lambda: services.monitor.snapshot.jobs is not None)
    finally:
        worker.leave()
    found = services.monitor.snapshot.jobs
    assert found is not None
    assert {(job.folder, job.state, job.workers) for job in found} == {
        ("/photos", "running", 1),
        ("/waits", "queued", 0),
    }
    text = services.metrics.exposition().decode()
    for line in (
        'oceano_jobs{state="running"} 1.0', 'oceano_jobs{state="queued"} 1.0', 'oceano_jobs{state="stopping"} 0.0',
        "oceano_job_workers 1.0", "oceano_job_files 2000.0", "oceano_job_files_finished 860.0",
        "oceano_job_images 800.0", "oceano_job_problems 0.0",
    ):  # fmt: skip
        assert line in text
    assert not re.search(r"^oceano_job_images_per_second 0\.0$", text, re.MULTILINE)
    asyncio.run(services.monitor.check_jobs())
    assert "oceano_job_workers 0.0" in services.metrics.exposition().decode(), "the worker has left"


def test_jobs_that_cannot_be_read_are_unknown_and_do_not_stop_the_monitor(
    services: Services, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, quick: None
) -> None:
    failures = [_fail("ledger_unavailable", "no connection")] * 5

    def running(self: Jobs) -> list[Job]:
        if failures:
            failures.pop()()
        return []

    monkeypatch.setattr(Jobs, "running", running)
    asyncio.run(services.monitor.check_jobs())
    assert services.monitor.snapshot.jobs is None
    assert services.monitor.snapshot.totals is None
    _watch(services, until=lambda: services.monitor.snapshot.jobs == ())
    assert sum("no connection" in record.message for record in caplog.records) == 1


def test_jobs_that_are_slow_to_read_are_read_less_often_and_off_the_event_loop(
    services: Services, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    threads: list[str] = []

    def slow(self: Jobs) -> list[Job]:
        threads.append(threading.current_thread().name)
        time.sleep(0.05)
        return []

    monkeypatch.setattr(Jobs, "running", slow)
    assert asyncio.run(services.monitor.check_jobs()) >= 1.0, "at most a twentieth of the time"
    assert threads[0].startswith("monitor-jobs")


def test_only_the_demo_pack_is_a_demo(services: Services, engine: FakeEngine) -> None:
    assert not services.demo
    engine.pack = replace(FAKE_PACK, name="demo")  # type: ignore[misc]
    assert services.demo


def test_closing_closes_every_part_even_if_one_fails(services: Services, index: Part) -> None:
    def fails() -> None:
        index.closed += 1
        raise OceanoError("index_unavailable", "gone already")

    index.close = fails  # type: ignore[method-assign]
    with pytest.raises(OceanoError, match="gone already"):
        services.close()
    assert index.closed == 1
    with pytest.raises(OceanoError, match="closed"):
        services.ledger.totals()
    index.close = lambda: None  # type: ignore[method-assign]


def test_nothing_is_logged_while_all_is_well(
    services: Services, quick: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INDEX_TIMEOUT_SECONDS", 5)
    index = services.index
    assert isinstance(index, Part)
    with caplog.at_level(logging.INFO):
        _watch(services, lambda: index.asked > 3)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("app")] == []


def test_an_index_without_a_face_is_said_for_it_may_be_the_wrong_one(
    services: Services, index: Part, caplog: pytest.LogCaptureFixture
) -> None:
    index.delete(ids_of(points(1)))
    services.ledger.record([_record("/photos/1.jpg")])
    assert _said_of_empty(services, caplog) == [(logging.WARNING, True)]


def test_an_empty_index_in_a_new_data_folder_is_no_reason_to_warn(
    services: Services, index: Part, caplog: pytest.LogCaptureFixture
) -> None:
    index.delete(ids_of(points(1)))
    assert _said_of_empty(services, caplog) == [(logging.INFO, False)]
    assert "ingest FOLDER" in caplog.text


def test_an_empty_index_beside_one_of_another_model_is_said(
    services: Services, index: Part, caplog: pytest.LogCaptureFixture
) -> None:
    index.delete(ids_of(points(1)))
    (services.settings.embedded_dir / "faces__other__01234567" / "current").mkdir(parents=True)
    assert _said_of_empty(services, caplog) == [(logging.WARNING, True)]


def test_an_empty_index_is_said_if_another_model_ingested_files(
    services: Services, index: Part, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index.delete(ids_of(points(1)))
    with closing(open_ledger(tmp_path / "catalog.sqlite3", "faces__other__01234567")) as other:
        other.record([_record("/photos/1.jpg")])
    assert _said_of_empty(services, caplog) == [(logging.WARNING, True)]


def _said_of_empty(services: Services, caplog: pytest.LogCaptureFixture) -> list[tuple[int, bool]]:
    """Look at all parts twice; the level of each message about an empty index, and whether it names the model."""

    async def look() -> None:
        for _ in range(2):
            await services.monitor.check_index()
            await services.monitor.check_ledger()

    with caplog.at_level(logging.INFO):
        asyncio.run(look())
    return [
        (record.levelno, "MODEL_NAME" in record.getMessage())
        for record in caplog.records
        if "index is empty" in record.getMessage()
    ]


@pytest.mark.usefixtures("quick")
def test_a_damaged_ledger_is_said_until_it_is_sound(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(services.ledger, "check", _fail("ledger_unavailable", "page 3 is damaged"))
        _watch(services, until=lambda: services.monitor.snapshot.ledger_error == "page 3 is damaged")
        assert services.monitor.snapshot.totals is None
    _watch(services, until=lambda: services.monitor.snapshot.totals is not None)
    assert services.monitor.snapshot.ledger_error == ""
