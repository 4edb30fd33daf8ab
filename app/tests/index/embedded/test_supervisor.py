"""A worker that dies while it opens the shard."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.core.errors import OceanoError
from app.core.locks import try_lock
from app.index.embedded import supervisor as module
from app.index.embedded.folder_guard import mark_new
from app.index.embedded.options import OwnerOptions
from app.index.embedded.protocol import Op, pack, read_reply
from app.index.embedded.supervisor import WorkerSupervisor, command
from tests.index.conftest import children_of, wait_until

COUNT = pack(Op.COUNT, body={})
REPORTS_AN_ERROR = """
import sys
from multiprocessing.connection import Connection
from app.core.errors import OceanoError
from app.index.embedded.protocol import error_reply
Connection(int(sys.argv[1])).send_bytes(error_reply(OceanoError("invalid_setting", "no")))
"""


class FakeStarts:
    """Replaces the command line of the first workers; counts the starts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scripts: list[str] = []
        self.starts = 0
        monkeypatch.setattr(module, "command", self._command)

    def _command(self, task: str, options: OwnerOptions, shard: Path, number: int) -> list[str]:
        self.starts += 1
        if not self.scripts:
            return command(task, options, shard, number)
        return [sys.executable, "-c", self.scripts.pop(0), str(number)]


def dies_of(number: signal.Signals) -> str:
    return f"import os; os.kill(os.getpid(), {int(number)})"


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> FakeStarts:
    return FakeStarts(monkeypatch)


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[WorkerSupervisor]:
    lock = try_lock(tmp_path / "owner.lock")
    assert lock is not None
    mark_new(tmp_path)
    opened = WorkerSupervisor(tmp_path / "shard-1", OwnerOptions(tmp_path, 8), lock)
    yield opened
    opened.close()
    os.close(lock)


def test_a_worker_killed_while_it_opens_is_replaced_and_the_request_succeeds(
    supervisor: WorkerSupervisor, starts: FakeStarts
) -> None:
    starts.scripts = ["import time; time.sleep(60)"] * 2
    before = set(children_of(os.getpid()))

    def opening() -> set[int]:
        return set(children_of(os.getpid())) - before

    with ThreadPoolExecutor(1) as threads:
        reply = threads.submit(supervisor.call, COUNT)
        for number in (1, 2):
            wait_until(lambda: starts.starts == number and opening())  # noqa: B023
            os.kill(opening().pop(), signal.SIGKILL)
        assert read_reply(reply.result()) == 0
    assert starts.starts == 3


def test_a_worker_that_dies_at_every_start_is_an_error_and_the_next_request_may_succeed(
    supervisor: WorkerSupervisor, starts: FakeStarts, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts.scripts = [dies_of(signal.SIGKILL)] * 3
    with pytest.raises(OceanoError, match="crashed 3 times while opening") as caught:
        supervisor.call(COUNT)
    assert caught.value.code == "index_unavailable"
    with pytest.raises(OceanoError, match="crashed 3 times"):  # not another three starts for each waiting client
        supervisor.call(COUNT)
    assert starts.starts == 3
    monkeypatch.setattr(module, "_START_FAILURE_SECONDS", 0.0)
    assert read_reply(supervisor.call(COUNT)) == 0


def test_a_full_disk_that_kills_the_opening_worker_is_disk_full(
    supervisor: WorkerSupervisor, starts: FakeStarts
) -> None:
    starts.scripts = [dies_of(signal.SIGBUS)] * 3
    with pytest.raises(OceanoError) as caught:
        supervisor.call(COUNT)
    assert caught.value.code == "disk_full"
    assert starts.starts == 1


def test_an_error_that_the_worker_reports_is_not_repeated(supervisor: WorkerSupervisor, starts: FakeStarts) -> None:
    starts.scripts = [REPORTS_AN_ERROR]
    with pytest.raises(OceanoError) as caught:
        supervisor.call(COUNT)
    assert caught.value.code == "invalid_setting"
    assert starts.starts == 1


def test_a_worker_that_hangs_while_it_opens_is_not_repeated(
    supervisor: WorkerSupervisor, starts: FakeStarts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOAD_SECONDS", 0.1)
    starts.scripts = ["import time; time.sleep(60)"] * 3
    with pytest.raises(OceanoError, match="did not open shard-1 within") as caught:
        supervisor.call(COUNT)
    assert caught.value.code == "index_unavailable"
    assert starts.starts == 1


def test_a_second_worker_that_cannot_start_does_not_disturb_requests(
    supervisor: WorkerSupervisor, starts: FakeStarts
) -> None:
    assert read_reply(supervisor.call(COUNT)) == 0
    starts.scripts = [REPORTS_AN_ERROR]
    with pytest.raises(OceanoError):
        supervisor.start_worker(supervisor.shard)
    supervisor.worker().kill()
    assert read_reply(supervisor.call(COUNT)) == 0
