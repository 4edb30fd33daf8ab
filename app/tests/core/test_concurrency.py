"""Thread pools, the map in order and the budget."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from app.core import logs
from app.core.concurrency import Admission, Budget, FairGate, KeyedLocks, Reservations, Threads, in_order
from app.core.errors import OceanoError
from tests.support.concurrency import ConcurrencyCounter

# --- Threads


def _in_threads(max_threads: int) -> Threads:
    return Threads(max_threads, "test")


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
    counter = ConcurrencyCounter()

    async def run() -> None:
        threads = _in_threads(3)
        await asyncio.gather(*(threads.run(counter.call) for _ in range(30)))
        threads.close()

    asyncio.run(run())
    assert counter.maximum == 3


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


# --- in_order and Budget


def _numbers(taken: list[int], count: int = 50) -> Iterator[int]:
    for number in range(count):
        time.sleep(0.001)
        taken.append(number)
        yield number


def test_results_come_in_order_however_long_each_takes() -> None:
    def work(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number * number

    with ThreadPoolExecutor(4) as pool:
        assert list(in_order(pool, work, range(40), ahead=8)) == [number * number for number in range(40)]
        assert list(in_order(pool, work, [], ahead=8)) == []


def test_no_more_is_taken_than_it_may_be_ahead() -> None:
    taken: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        for result in in_order(pool, lambda number: number, _numbers(taken), ahead=5):
            assert len(taken) <= result + 5


def test_nothing_more_is_taken_while_it_is_full() -> None:
    taken: list[int] = []
    held = Budget(2)
    with ThreadPoolExecutor(1) as pool:

        def work(number: int) -> int:
            held.change(1)
            return number

        results = in_order(pool, work, _numbers(taken), ahead=1000, full=held.is_exceeded)
        with closing(results):
            for expected in range(50):
                assert next(results) == expected
                held.change(-1)
    assert len(taken) < 500


def test_one_that_is_too_large_for_all_comes_alone() -> None:
    with ThreadPoolExecutor(2) as pool:
        assert list(in_order(pool, lambda n: n, range(20), ahead=8, full=lambda: True)) == list(range(20))


def test_a_budget_counts_for_many_threads() -> None:
    budget = Budget(0)
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda n: budget.change(n % 3 - 1), range(3000)):
            pass
    assert not budget.is_exceeded()
    budget.change(1)
    assert budget.is_exceeded()


def test_what_the_work_raises_is_raised_in_its_turn_and_the_rest_is_dropped() -> None:
    done: list[int] = []

    def work(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        time.sleep(0.005)
        done.append(number)
        return number

    with ThreadPoolExecutor(1) as pool:
        results = in_order(pool, work, range(100), ahead=10)
        with pytest.raises(ValueError, match="three"):
            for _ in results:
                pass
    assert len(done) <= 13


def test_closed_early_it_begins_on_nothing_more() -> None:
    done: list[int] = []
    gate = threading.Event()

    def work(number: int) -> int:
        gate.wait(5)
        time.sleep(0.01)
        done.append(number)
        return number

    with ThreadPoolExecutor(1) as pool:
        results = in_order(pool, work, range(100), ahead=10)
        threading.Timer(0.05, gate.set).start()
        with closing(results):
            assert next(results) == 0
    assert len(done) < 10


def test_bytes_are_reserved_within_the_budget_or_alone() -> None:
    budget = Reservations(100)
    with budget.reserve(60, 0) as first, budget.reserve(40, 0) as second, budget.reserve(1, 0) as third:
        assert (first, second, third) == (True, True, False)
    with budget.reserve(500, 0) as alone, budget.reserve(1, 0) as other:
        assert (alone, other) == (True, False)
    with budget.reserve(100, 0) as again:
        assert again


def test_a_reservation_waits_for_others() -> None:
    budget = Reservations(100)
    with ThreadPoolExecutor(1) as threads:
        with budget.reserve(100):
            waiting = threads.submit(lambda: budget.reserve(50, 10).__enter__())
        assert waiting.result(10)


# --- Admission


def test_an_admission_holds_the_largest_reservation_until_it_is_released() -> None:
    budget = Reservations(100)
    admission, other = Admission(budget, 0), Admission(budget, 0)
    assert admission.take(60)
    assert admission.take(30)
    assert not other.take(50), "60 are held, not 30"
    assert admission.take(500), "more than there is, while it is alone"
    assert not other.take(1)
    admission.release()
    assert other.take(100)


def test_two_admissions_that_need_more_do_not_wait_for_each_other() -> None:
    budget = Reservations(100)
    one, other = Admission(budget, 10), Admission(budget, 10)
    assert one.take(50)
    assert other.take(50)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(one.take, 100)  # returns its 50 first
        assert other.take(60)
        other.close()
        assert waiting.result(5)


def test_an_admission_that_is_closed_while_it_waits_holds_nothing() -> None:
    budget = Reservations(100)
    admission = Admission(budget, 10)
    with ThreadPoolExecutor(1) as threads:
        with budget.reserve(100):
            waiting = threads.submit(admission.take, 50)
            time.sleep(0.05)
            admission.close()
        assert not waiting.result(5)
    with budget.reserve(100, 0) as free:
        assert free
    assert not admission.take(1)


# --- FairGate


def test_a_thread_that_comes_back_is_let_in_after_one_that_waits() -> None:
    gate, turns = FairGate(1), list[str]()

    def enter(name: str) -> None:
        with gate:
            turns.append(name)

    with ThreadPoolExecutor(1) as threads:
        for _ in range(10):
            with gate:
                waiting = threads.submit(enter, "waited")
                time.sleep(0.02)
            enter("came back")
            waiting.result(5)
    assert turns == ["waited", "came back"] * 10


def test_no_more_threads_are_inside_than_there_are_places() -> None:
    gate, most = FairGate(2), 0
    lock, now = threading.Lock(), 0

    def enter(_: int) -> None:
        nonlocal now, most
        with gate:
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(0.002)
            with lock:
                now -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(enter, range(40)))
    assert most == 2


def test_a_place_is_left_when_the_work_fails() -> None:
    gate = FairGate(1)
    with pytest.raises(ValueError, match="no"), gate:
        raise ValueError("no")
    with gate:
        pass


# --- results that must be closed


def _opening(timing: str) -> tuple[list[str], list[str]]:
    """Cancel a call before its function runs, while it runs, or after it has returned; what was opened and closed."""
    opened, closed = [], []
    free, begun = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        free.wait(10)
        opened.append("file")
        return "file"

    def returned() -> None:
        while not opened:
            time.sleep(0.001)
        time.sleep(0.02)

    async def run() -> None:
        threads = Threads(1, "test")
        busy = asyncio.ensure_future(threads.run(free.wait, 10)) if timing == "before" else None
        call = asyncio.ensure_future(threads.run_opening(work, closed.append))
        await asyncio.sleep(0.01)
        if timing != "before":
            assert begun.wait(5)
        if timing == "after":
            free.set()
            returned()  # the loop is blocked, and does not see the result before it cancels the call
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        free.set()
        if busy:
            await busy
        await threads.run(lambda: None)  # the only thread is free again
        threads.close()

    asyncio.run(run())
    return opened, closed


@pytest.mark.parametrize("timing", ["before", "while", "after"])
def test_what_is_opened_for_a_caller_that_was_cancelled_is_closed(timing: str) -> None:
    opened, closed = _opening(timing)
    assert closed == opened == ([] if timing == "before" else ["file"])


def test_what_is_opened_for_a_caller_that_waits_stays_open() -> None:
    closed: list[str] = []

    async def run() -> str:
        threads = Threads(1, "test")
        found = await threads.run_opening(lambda: "file", closed.append)
        with pytest.raises(ValueError, match="wrong"):
            await threads.run_opening(lambda: int("wrong"), closed.append)
        threads.close()
        return found

    assert asyncio.run(run()) == "file"
    assert not closed


# --- KeyedLocks


def test_a_key_is_held_by_one_thread_and_forgotten_afterwards() -> None:
    locks, counter = KeyedLocks(), ConcurrencyCounter()

    def work(key: int) -> None:
        with locks.held(key):
            counter.call()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, [1] * 8))
    assert counter.maximum == 1
    assert not locks._locks
    with locks.held(1), locks.held(2):
        assert len(locks._locks) == 2


def test_a_lock_is_given_back_after_an_error() -> None:
    locks = KeyedLocks()
    for _ in range(2):
        with pytest.raises(ValueError, match="wrong"), locks.held("key"):
            raise ValueError("wrong")
