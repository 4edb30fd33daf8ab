"""A value that is computed now and then: how often, after being forgotten, with errors and by several threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.core import cached_value
from app.core.cached_value import CachedValue


class Clock:
    """Time that passes only while a value is computed, or when a test says so."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(cached_value, "time", clock)
    return clock


def test_a_value_is_computed_every_two_seconds_or_less_often_if_that_takes_long(clock: Clock) -> None:
    took, computed = [0.01, 1.0, 0.01], []

    def compute() -> int:
        clock.now += took[len(computed)]
        computed.append(clock.now)
        return len(computed)

    value: CachedValue[int] = CachedValue()
    assert [value.get(compute), value.get(compute)] == [1, 1]
    clock.now = 2.0
    assert value.get(compute) == 2
    clock.now = 21.9  # twenty times the second that it took
    assert value.get(compute) == 2
    clock.now = 22.0
    assert value.get(compute) == 3


def test_a_forgotten_value_is_computed_again_also_if_that_happened_meanwhile(clock: Clock) -> None:
    value: CachedValue[str] = CachedValue()

    def outdated() -> str:
        value.forget()
        return "outdated"

    assert value.get(outdated) == "outdated"
    assert value.get(lambda: "new") == "new"
    assert value.get(lambda: "newer") == "new"
    value.forget()
    assert value.get(lambda: "newest") == "newest"


def test_an_error_is_not_kept(clock: Clock) -> None:
    value: CachedValue[int] = CachedValue()
    with pytest.raises(ZeroDivisionError):
        value.get(lambda: 1 // 0)
    assert value.get(lambda: 1) == 1


def test_one_thread_computes_and_the_others_wait_for_it() -> None:
    value: CachedValue[int] = CachedValue()
    started, computed = threading.Event(), []

    def compute() -> int:
        computed.append(started.wait(1))
        return len(computed)

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(value.get, compute) for _ in range(4)]
        started.set()
        assert [one.result() for one in asked] == [1] * 4
