"""Protection against other sites: their pages cannot send requests that change something with a visitor's browser."""

from __future__ import annotations

import hmac
from typing import Final
from urllib.parse import urlsplit

from fastapi import Request

from app.core.errors import OceanoError

# With `no-referrer`, which all other responses have, a browser sends `Origin: null` with a form of the page itself.
REFERRER_POLICY: Final = "same-origin"
TOKEN_HEADER: Final = "X-Form-Token"  # noqa: S105 - names, not values
TOKEN_FIELD: Final = "form_token"  # noqa: S105 - in the address, because forms with photographs are parsed later


def require_own_site(request: Request, form_token: str | None) -> None:
    """Allow a request that a page of this service sent, or that no browser sent.

    Browsers say where a request comes from in `Sec-Fetch-Site`, over plain HTTP only in `Origin`. Other sites can
    change neither, nor add `X-Forwarded-Host`, in which a proxy says by which name the visitor called it. A request
    with neither header needs the token of the session's forms.

    Args:
        request: with a method that changes something.
        form_token: that of the session; None if there is no session.

    Raises:
        OceanoError: `forbidden`.
    """
    headers = request.headers
    origin = headers.get("origin", "")
    if origin and origin in request.app.state.settings.cors_origins and form_token is None:
        return  # without a session, what such a page may send is what CORS_ORIGINS allows it
    if site := headers.get("sec-fetch-site"):
        is_own = site in ("same-origin", "none")
    elif origin:
        own = {headers.get("host", "").lower(), headers.get("x-forwarded-host", "").lower()} - {""}
        is_own = _host_of(origin) in own
    elif form_token is not None:
        sent = headers.get(TOKEN_HEADER) or request.query_params.get(TOKEN_FIELD, "")
        is_own = hmac.compare_digest(sent.encode("utf-8", "surrogateescape"), form_token.encode())
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
