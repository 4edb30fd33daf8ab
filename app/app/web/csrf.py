"""Protection of forms that change something: a page of another site cannot send them with the visitor's browser."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from fastapi import Request

from app.core.errors import OceanoError

# With `no-referrer`, which all other responses have, a browser sends `Origin: null` with a form of the page itself.
REFERRER_POLICY: Final = "same-origin"


def require_same_origin(request: Request) -> None:
    """Allow a request that a page of this service sent, or that no browser sent: a dependency.

    Browsers say where a request comes from in `Sec-Fetch-Site`, over plain HTTP only in `Origin`. Other sites can
    change neither, nor add `X-Forwarded-Host`, in which a proxy says by which name the visitor called it.

    Raises:
        OceanoError: `forbidden`.
    """
    headers = request.headers
    if site := headers.get("sec-fetch-site"):
        is_own = site in ("same-origin", "none")
    elif origin := headers.get("origin"):
        own = {headers.get("host", "").lower(), headers.get("x-forwarded-host", "").lower()} - {""}
        is_own = _host_of(origin) in own
    else:
        is_own = True
    if not is_own:
        raise OceanoError(
            "forbidden",
            "this request comes from a page of another site; open the page of this service, and send it from there",
            details={"cause": "other_site"},
        )


def _host_of(origin: str) -> str:
    """Return host and port of an origin; empty if it has none, such as `null`."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # such as http://[
        return ""
