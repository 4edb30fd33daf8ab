"""Retries of requests to the catalog while its server is away for a while: restarted, or out of connections."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from threading import Event
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

import tenacity

from app.core.errors import OceanoError

T = TypeVar("T")
P = ParamSpec("P")

_log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 300.0  # of an ingest, as for the index


class MayPassError(OceanoError):
    """An error of a server that is away for a while, so that a later attempt may succeed."""


class Patience:
    """How long requests are retried: not at all, unless `last` says so.

    A request that was cut off may have been done; so only those are retried that may safely run twice.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._stop = Event()

    def last(self, seconds: float, stop: Event) -> None:
        """Retry requests from now on.

        Args:
            seconds: no retry starts after this time.
            stop: once set, ends the current pause and the retries.
        """
        self._seconds, self._stop = seconds, stop

    def retry(self, work: Callable[[], T]) -> T:
        """Run `work`, and retry it while the server is away, with growing, random pauses.

        Raises:
            OceanoError: of the last attempt; one that will not pass at once.
        """
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(MayPassError),
            wait=tenacity.wait_exponential(multiplier=0.2, max=10) + tenacity.wait_random(0, 0.2),
            stop=tenacity.stop_any(tenacity.stop_after_delay(self._seconds), tenacity.stop_when_event_set(self._stop)),
            sleep=tenacity.sleep_using_event(self._stop),
            before_sleep=_log_retry,
            reraise=True,
        )(work)


class _HasPatience(Protocol):
    patience: Patience


class _HasDatabase(Protocol):
    @property
    def database(self) -> _HasPatience: ...


S = TypeVar("S", bound=_HasDatabase)


def retried(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Let a method of a class with a `database` retry while the server is away; it may safely run twice."""

    @wraps(method)
    def wrapper(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.database.patience.retry(lambda: method(self, *args, **kwargs))

    return wrapper


def _log_retry(state: tenacity.RetryCallState) -> None:
    failure: Any = state.outcome.exception() if state.outcome else None
    wait = state.next_action.sleep if state.next_action else 0
    _log.warning("the catalog is unavailable, retrying in %.0f s: %s", wait, failure)
