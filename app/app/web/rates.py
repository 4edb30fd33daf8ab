"""Limits on how many requests a key or an address may send per minute, and on wrong keys and passwords."""

from __future__ import annotations

import math
import time
from ipaddress import IPv6Address, ip_address
from typing import Final

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from app.core.errors import OceanoError
from app.security import LOCAL, Access

ATTEMPTS_PER_MINUTE: Final = 20  # wrong keys and passwords from one address
_IPV6_SITE: Final = 64  # bits; one customer has all addresses below


class Rates:
    """Counts the requests of the last minute, in this process.

    Args:
        per_minute: the most requests of one key or user, and of one address; 0: any number.
    """

    def __init__(self, per_minute: int) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._requests = RateLimitItemPerMinute(per_minute) if per_minute else None
        self._attempts = RateLimitItemPerMinute(ATTEMPTS_PER_MINUTE)

    def count(self, access: Access, address: str) -> None:
        """Count a request; raise OceanoError `too_many_requests` if there were too many."""
        if self._requests is None or access == LOCAL:
            return
        for kind, name in (("who", access.who), ("address", _site(address))):
            if not self._limiter.hit(self._requests, kind, name):
                raise self._too_many(self._requests, kind, name)

    def require_attempt(self, address: str) -> None:
        """Raise OceanoError `too_many_requests` if too many keys and passwords from an address were wrong."""
        if not self._limiter.test(self._attempts, "attempt", _site(address)):
            raise self._too_many(self._attempts, "attempt", _site(address))

    def record_failure(self, address: str) -> None:
        """Count a wrong key or password."""
        self._limiter.hit(self._attempts, "attempt", _site(address))

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
