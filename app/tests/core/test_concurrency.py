from __future__ import annotations

import asyncio
import threading
import time

import pytest

from app.core import logs
from app.core.concurrency import Threads
from app.core.errors import OceanoError


def _in_threads(most: int) -> Threads:
    return Threads(most, "test")


def test_work_runs_off_the_event_loop_and_gives_its_result() -> None:
    async def run() -> None:
        threads = _in_threads(1)
        assert (await threads.run(lambda: threading.current_thread().name)).startswith("test")
        assert await threads.run(divmod, 7, 4) == (1, 3)
        assert await threads.run(int, "ff", base=16) == 255
        threads.close()

    asyncio.run(run())


def test_what_the_work_raises_comes_back() -> None:
    def fail() -> None:
        raise OceanoError("internal", "no")

    async def run() -> None:
        threads = _in_threads(1)
        with pytest.raises(OceanoError, match="no"):
            await threads.run(fail)
        threads.close()

    asyncio.run(run())


def test_no_more_run_at_once_than_there_are_threads() -> None:
    now = most = 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.005)
        with lock:
            now -= 1

    async def run() -> None:
        threads = _in_threads(3)
        await asyncio.gather(*(threads.run(work) for _ in range(30)))
        threads.close()

    asyncio.run(run())
    assert most == 3


def test_work_sees_the_request_id_of_its_caller() -> None:
    async def one(threads: Threads, name: str) -> bool:
        logs.request_id.set(name)
        return await threads.run(logs.request_id.get) == name

    async def run() -> list[bool]:
        threads = _in_threads(2)
        seen = await asyncio.gather(*(one(threads, f"r{number}") for number in range(20)))
        threads.close()
        return seen

    seen = asyncio.run(run())
    assert len(seen) == 20
    assert all(seen)


def test_calls_that_hang_keep_their_threads_and_those_that_wait_go_with_their_callers() -> None:
    release = threading.Event()
    begun: list[int] = []

    def hang(number: int) -> None:
        begun.append(number)
        release.wait(10)

    async def run() -> None:
        threads = _in_threads(2)
        first = [asyncio.ensure_future(threads.run(hang, number)) for number in range(2)]
        while len(begun) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        for one in first:
            one.cancel()
        for _ in range(3):  # wave after wave of callers gives up
            calls = [asyncio.wait_for(threads.run(hang, number), 0.02) for number in range(2, 7)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(result) for result in results] == [TimeoutError] * 5
        assert sorted(begun) == [0, 1], "no other call began, and no other thread was started"
        release.set()
        assert await asyncio.wait_for(threads.run(lambda: "free again"), 5) == "free again"
        assert sorted(begun) == [0, 1], "what was given up while it waited never ran"
        threads.close()

    asyncio.run(run())


def test_closing_drops_what_waits() -> None:
    release = threading.Event()

    async def run() -> None:
        threads = _in_threads(1)
        running = asyncio.ensure_future(threads.run(release.wait, 10))
        waiting = asyncio.ensure_future(threads.run(lambda: "never"))
        await asyncio.sleep(0.02)
        threads.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        release.set()
        assert await running is True

    asyncio.run(run())
