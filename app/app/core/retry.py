"""Work that waits for an index that is gone for a while."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event
from typing import Final, TypeVar

import tenacity

from app.core.errors import OceanoError

T = TypeVar("T")

_log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 300.0


def retry_index(work: Callable[[], T], stop: Event, *, seconds: float = PATIENCE_SECONDS) -> T:
    """What `work` returns, done again while the index is `index_unavailable`, for `seconds` or until `stop`.

    `work` must be harmless when done twice. Raises the last OceanoError.
    """
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_gone),
        wait=tenacity.wait_exponential(multiplier=0.5, max=15) + tenacity.wait_random(0, 0.5),
        stop=tenacity.stop_any(tenacity.stop_after_delay(seconds), tenacity.stop_when_event_set(stop)),
        sleep=tenacity.sleep_using_event(stop),
        before_sleep=_say_waiting,
        reraise=True,
    )(work)


def _is_gone(failure: BaseException) -> bool:
    return isinstance(failure, OceanoError) and failure.code == "index_unavailable"


def _say_waiting(state: tenacity.RetryCallState) -> None:
    failure = state.outcome.exception() if state.outcome else None
    wait = state.next_action.sleep if state.next_action else 0
    _log.warning("the index is gone, trying again in %.0f s: %s", wait, failure)
