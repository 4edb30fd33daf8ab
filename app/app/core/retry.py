"""Retries of requests while a part is unavailable for a while: the index, or the server of the catalog."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event
from typing import Final, TypeVar

import tenacity

from app.core.errors import OceanoError

T = TypeVar("T")

_log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 300.0


def retry_index(work: Callable[[], T], stop: Event, *, seconds: float = RETRY_SECONDS) -> T:
    """Run `work` and retry it while it raises `index_unavailable`, as `retry_part` does.

    Raises:
        OceanoError: `index_unavailable`, the error of the last attempt; any other code at once.
    """
    return retry_part(work, stop, part="index", is_temporary=_is_unavailable, seconds=seconds)


def retry_part(
    work: Callable[[], T],
    stop: Event,
    *,
    part: str,
    is_temporary: Callable[[BaseException], bool],
    seconds: float = RETRY_SECONDS,
) -> T:
    """Run `work` and retry it while it raises a temporary error, with growing, random pauses.

    Args:
        work: a function that may safely run twice.
        stop: once set, ends the current pause and the retries.
        part: its name, for the log.
        is_temporary: whether an error is retried.
        seconds: no retry starts after this time.

    Returns:
        The result of `work`.

    Raises:
        OceanoError: the error of the last attempt; one that is not temporary at once.
    """

    def log_retry(state: tenacity.RetryCallState) -> None:
        failure = state.outcome.exception() if state.outcome else None
        wait = state.next_action.sleep if state.next_action else 0
        _log.warning("the %s is unavailable, retrying in %.0f s: %s", part, wait, failure)

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_temporary),
        wait=tenacity.wait_exponential(multiplier=0.5, max=15) + tenacity.wait_random(0, 0.5),
        stop=tenacity.stop_any(tenacity.stop_after_delay(seconds), tenacity.stop_when_event_set(stop)),
        sleep=tenacity.sleep_using_event(stop),
        before_sleep=log_retry,
        reraise=True,
    )(work)


def _is_unavailable(failure: BaseException) -> bool:
    return isinstance(failure, OceanoError) and failure.code == "index_unavailable"
