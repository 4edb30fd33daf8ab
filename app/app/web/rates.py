"""Limits on how many requests a key or an address may send per minute, and on wrong keys and passwords."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from app.core.errors import OceanoError
from app.security import LOCAL, Access

ATTEMPTS_PER_MINUTE: Final = 20  # wrong keys and passwords from one address
_MOST_WAITING: Final = 64  # attempts from all addresses; one takes 1 ms with a key, 50 ms or more with a password
_IPV6_SITE: Final = 64  # bits; one customer has all addresses below


@dataclass(slots=True)
class Attempt:
    """A comparison of a key or password; `succeeded` if it was right."""

    succeeded: bool = False


class Rates:
    """Counts the requests of the last minute, in this process.

    Args:
        per_minute: the most requests of one key or user, and of one address; 0: any number.
    """

    def __init__(self, per_minute: int) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._requests = RateLimitItemPerMinute(per_minute) if per_minute else None
        self._attempts = RateLimitItemPerMinute(ATTEMPTS_PER_MINUTE)
        self._waiting: Counter[str] = Counter()  # attempts by address

    def count(self, access: Access, address: str) -> None:
        """Count a request; raise OceanoError `too_many_requests` if there were too many."""
        if self._requests is None or access == LOCAL:
            return
        for kind, name in (("who", access.who), ("address", _site(address))):
            if not self._limiter.hit(self._requests, kind, name):
                raise self._too_many(self._requests, kind, name)

    @contextmanager
    def attempt(self, address: str) -> Iterator[Attempt]:
        """Count the comparison of a key or password with its hash, unless `Attempt.succeeded` is set.

        Comparisons that run or wait count, too, so that no more are begun at once than may fail.

        Raises:
            OceanoError: `too_many_requests` if there were too many from an address, `overloaded` if too many wait.
        """
        site = _site(address)
        left = self._limiter.get_window_stats(self._attempts, "attempt", site).remaining
        if self._waiting[site] >= left:
            raise self._too_many(self._attempts, "attempt", site)
        if self._waiting.total() >= _MOST_WAITING:
            raise OceanoError("overloaded", "too many people are signing in; try again soon", retry_after=5)
        self._waiting[site] += 1
        attempt = Attempt()
        try:
            yield attempt
        finally:
            self._waiting[site] -= 1
            if not self._waiting[site]:
                del self._waiting[site]
            if not attempt.succeeded:  # also if the request was cancelled: the comparison may still run
                self._limiter.hit(self._attempts, "attempt", site)

    def _too_many(self, limit: RateLimitItem, kind: str, name: str) -> OceanoError:
        reset = self._limiter.get_window_stats(limit, kind, name).reset_time
        seconds = max(1, math.ceil(reset - time.time()))
        what = "wrong keys or passwords" if kind == "attempt" else "requests"
        return OceanoError(
            "too_many_requests",
            f"more than {limit.amount} {what} per minute; try again in {seconds} s",
            details={"cause": "attempts" if kind == "attempt" else "rate", "seconds": seconds},
            retry_after=seconds,
        )


def _site(address: str) -> str:
    """Return an address, of IPv6 its network."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    return str(int(found) >> (128 - _IPV6_SITE)) if isinstance(found, IPv6Address) else address
