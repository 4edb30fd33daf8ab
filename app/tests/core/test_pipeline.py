"""pipeline: in order, a little ahead, and nothing left running."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from app.core.concurrency import Budget, in_order


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

        results = in_order(pool, work, _numbers(taken), ahead=1000, full=held.spent)
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
    assert not budget.spent()
    budget.change(1)
    assert budget.spent()


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
