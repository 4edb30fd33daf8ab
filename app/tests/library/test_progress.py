"""How far an ingest is, as another process sees it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.library import Progress, SharedProgress, progress, running_progress


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "COUNT_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(progress, "WRITE_SECONDS", 0.0)


def test_nothing_runs_before_and_after_an_ingest(tmp_path: Path) -> None:
    assert running_progress(tmp_path) is None
    with SharedProgress(tmp_path, list):
        assert running_progress(tmp_path) == Progress(0, None)
    assert running_progress(tmp_path) is None


def test_the_files_are_counted_while_the_ingest_runs(tmp_path: Path) -> None:
    counted = threading.Event()

    def files() -> Iterator[int]:
        yield from range(200)
        counted.set()

    with SharedProgress(tmp_path, files) as shared:
        shared.update(7)
        assert counted.wait(10)
        deadline = time.monotonic() + 10
        while shared.total is None and time.monotonic() < deadline:
            time.sleep(0.01)
        shared.update(86)
        assert running_progress(tmp_path) == Progress(86, 200)


@pytest.mark.parametrize(
    ("finished", "total", "percent"), [(0, None, None), (0, 0, 0), (43, 100, 43), (999, 1000, 99), (12, 10, 99)]
)
def test_a_running_ingest_is_never_at_100_percent(finished: int, total: int | None, percent: int | None) -> None:
    assert Progress(finished, total).percent == percent


def test_a_line_is_written_at_most_once_in_two_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "WRITE_SECONDS", 2.0)
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with SharedProgress(tmp_path, list) as shared:
        for now, finished, shown in ((101.9, 5, 0), (102.0, 6, 6), (103.9, 7, 6), (104.0, 8, 8)):
            clock[0] = now
            shared.update(finished)
            found = running_progress(tmp_path)
            assert found is not None
            assert found.finished == shown


def test_a_shorter_number_replaces_a_longer_one(tmp_path: Path) -> None:
    with SharedProgress(tmp_path, list) as shared:
        shared.update(123_456)
    with SharedProgress(tmp_path, list) as shared:
        shared.update(7)
        found = running_progress(tmp_path)
        assert found is not None
        assert found.finished == 7


def test_a_killed_ingest_does_not_run(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom app.library import SharedProgress\n"
        "with SharedProgress(Path(sys.argv[1]), list):\n    print(flush=True)\n    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert running_progress(tmp_path) == Progress(0, None)
        os.kill(process.pid, signal.SIGKILL)
    assert (tmp_path / "ingest.progress").read_text().split() == ["0"]
    assert running_progress(tmp_path) is None


def test_what_cannot_be_written_does_not_end_an_ingest(tmp_path: Path) -> None:
    (tmp_path / "ingest.progress").mkdir()
    with SharedProgress(tmp_path, list) as shared:
        shared.update(3)
    assert running_progress(tmp_path) is None
