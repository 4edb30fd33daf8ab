"""`oceano worker` with a fake model: what it says."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from app.catalog import Job, Jobs, Ledger, open_ledger
from app.cli import main
from app.commands.worker import run_worker
from app.core.config import Settings, load_settings
from app.core.protocols import Engine, FaceIndex
from app.service.jobs import queue_ingest
from app.service.request import IngestRequest
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.pictures import encoded
from tests.support.shared_jobs import COLLECTION


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """The ledger of the worker, which has a fake model and an index in memory."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("CATALOG_URL", raising=False)
    monkeypatch.setattr("app.service.worker.POLL_SECONDS", 0.02)
    path = tmp_path / "data" / "state" / "catalog.sqlite3"
    path.parent.mkdir(parents=True)

    @contextmanager
    def open_fakes(_: Settings) -> Iterator[tuple[Engine, FaceIndex, Ledger]]:
        with closing(open_ledger(path, COLLECTION)) as opened:
            yield FakeEngine(), MemoryIndex(), opened

    monkeypatch.setattr("app.service.worker.open_for_ingest", open_fakes)
    with closing(open_ledger(path, COLLECTION)) as ledger:
        yield ledger


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "one.png").write_bytes(encoded((200, 40, 40)))
    return pictures


def test_a_worker_for_once_without_a_job_says_that_and_does_not_say_that_it_waits(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["worker", "--once"]) == 0
    assert capsys.readouterr().out == "no ingest is queued\n"


def test_a_worker_says_each_job_that_it_begins_and_leaves(
    ledger: Ledger, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = queue_ingest(ledger, IngestRequest(folder)).job_id
    assert main(["worker", "--once"]) == 0
    started, left, end = capsys.readouterr().out.splitlines()
    assert started.startswith(f"started job {job_id}")
    assert left.startswith(f"left job {job_id}")
    assert "done, 1 of 1 files" in left
    assert end == "no ingest is queued any more"


def test_a_job_that_is_left_and_begun_again_is_said_once(
    ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = Jobs(ledger.database, COLLECTION)
    job = jobs.get(queue_ingest(ledger, IngestRequest(folder)).job_id)
    monkeypatch.setattr("app.commands.worker.open_worker", _only_callbacks(job))
    assert run_worker(load_settings(), Event(), once=True) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["started", "left", "no"]


def _only_callbacks(job: Job) -> object:
    class Worker:
        def __init__(self, on_job: object) -> None:
            self._on_job = on_job

        def run(self, *, once: bool) -> None:
            for _ in range(3):
                for what in ("started", "left"):
                    self._on_job(job, what)  # type: ignore[operator]

    @contextmanager
    def opened(_: Settings, __: Event, on_job: object, ___: object) -> Iterator[Worker]:
        yield Worker(on_job)

    return opened


def test_a_second_worker_on_a_data_folder_with_sqlite_says_once_that_it_waits_and_for_which_process(
    ledger: Ledger, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job_id = queue_ingest(ledger, IngestRequest(folder)).job_id
    settings = load_settings()
    code = (
        "import sys, pathlib, app.library as l\n"
        "with l.only_writer(pathlib.Path(sys.argv[1])):\n"
        "    print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(settings.state_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        thread = Thread(target=run_worker, args=(settings, Event()), kwargs={"once": True})
        thread.start()
        time.sleep(0.5)
        other.communicate("")
    thread.join(30)
    out = capfd.readouterr().out
    assert out.count(f"another process ({other.pid}) ingests in this data folder") == 1
    assert "set CATALOG_URL" in out
    assert other.pid != os.getpid()
    assert Jobs(ledger.database, COLLECTION).get(job_id).state == "done"


def test_a_worker_alone_on_its_data_folder_says_nothing_of_others(
    ledger: Ledger, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queue_ingest(ledger, IngestRequest(folder))
    assert main(["worker", "--once"]) == 0
    assert "another process" not in capsys.readouterr().out
