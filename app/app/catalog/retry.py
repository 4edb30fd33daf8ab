"""Retries of requests to the catalog while its server is away for a while: restarted, or out of connections."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from threading import Event
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from app.core.errors import OceanoError
from app.core.retry import RETRY_SECONDS, retry_part

T = TypeVar("T")
P = ParamSpec("P")


class TemporaryError(OceanoError):
    """An error of a server that is away for a while, so that a later attempt may succeed."""


class RetryPolicy:
    """How long requests are retried: not at all, until `enable` is called.

    A request that was cut off may have been executed, so only requests that may safely run twice are retried.

    Attributes:
        stop: as for `enable`; before that, an event that nobody sets.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self.stop = Event()

    def enable(self, stop: Event, seconds: float = RETRY_SECONDS) -> None:
        """Retry requests from now on.

        Args:
            stop: once set, ends the current pause and the retries.
            seconds: no retry of a request starts after this time.
        """
        self._seconds, self.stop = seconds, stop

    def run(self, work: Callable[[], T]) -> T:
        """Run `work`, and retry it while it raises a `TemporaryError`.

        Raises:
            OceanoError: of the last attempt.
        """
        return retry_part(work, self.stop, part="catalog", is_temporary=_is_temporary, seconds=self._seconds)


class _HasRetries(Protocol):
    retries: RetryPolicy


class _HasDatabase(Protocol):
    @property
    def database(self) -> _HasRetries: ...


S = TypeVar("S", bound=_HasDatabase)


def retried(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Let a method of a class with a `database` retry while the server is away; it may safely run twice."""

    @wraps(method)
    def wrapper(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.database.retries.run(lambda: method(self, *args, **kwargs))

    return wrapper


def _is_temporary(failure: BaseException) -> bool:
    return isinstance(failure, TemporaryError)
