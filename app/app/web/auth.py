"""Who sends a request, and whether they may: `Requires`, the dependency of every route but the public ones."""

from __future__ import annotations

import base64
from typing import Final

from fastapi import Request

from app.core.errors import OceanoError
from app.security import LOCAL, Access, Right, role_for
from app.service import Services
from app.web.csrf import require_own_site
from app.web.rates import Rates

COOKIE: Final = "oceano_session"
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Requires:
    """Lets a request pass whose sender has a right; the dependency's value is the `Access`.

    A key is in `X-API-Key`, in `Authorization: Bearer`, or the password of `Authorization: Basic`. A browser sends the
    cookie of its session. Without any key, user or sign-in service everyone has the role admin.

    Args:
        right: what the route needs.

    Raises:
        OceanoError: `unauthorized`, `forbidden`, `too_many_requests`, `ledger_unavailable`.
    """

    def __init__(self, right: Right) -> None:
        self.right = right

    async def __call__(self, request: Request) -> Access:
        """Return who sends the request."""
        access = await access_of(request)
        if access is None:
            raise _unauthorized(request)
        if request.method not in SAFE_METHODS and not _has_key_header(request):
            require_own_site(request, getattr(request.state, "form_token", None))
        if not access.may(self.right):
            role = role_for(self.right)
            raise OceanoError(
                "forbidden",
                f"this needs the role {role}; yours is {access.role}",
                details={"cause": "role", "needed": role, "role": access.role},
            )
        if self.right == "admin" and not access.sees_all:  # what admins see and change is of all folders
            raise OceanoError(
                "forbidden", "this is about all folders, and you may see some of them only", details={"cause": "scope"}
            )
        return access


async def access_of(request: Request) -> Access | None:
    """Return who sends a request; None if it has no key and no session, or one that has ended.

    `request.state` keeps it, and for the page: `form_token`, `new_session` (a token for the browser), `session_ended`.

    Raises:
        OceanoError: `unauthorized` for a wrong key, `too_many_requests`, `ledger_unavailable`.
    """
    state = request.state
    if not hasattr(state, "access"):
        state.access = None
        state.access = await _find(request)
        if state.access is not None:
            rates: Rates = request.app.state.rates
            rates.count(state.access, address_of(request))
    access: Access | None = state.access
    return access


def address_of(request: Request) -> str:
    """Return the address of the client, which a trusted proxy may have named; `-` if there is none."""
    return request.client.host if request.client else "-"


async def _find(request: Request) -> Access | None:
    services: Services = request.app.state.services
    authenticator, lookups = services.authenticator, services.lookups
    if (needs_key := authenticator.needs_key) is None:
        needs_key = await lookups.run(authenticator.find_whether_key_is_needed)
    if not needs_key:
        return LOCAL
    if key := _sent_key(request):
        if (known := authenticator.known(key)) is not None:
            return known
        rates: Rates = request.app.state.rates
        if authenticator.was_right(key):
            known = await lookups.run(authenticator.by_key, key)
        else:
            with rates.attempt(address_of(request)) as attempt:
                known = await services.sign_ins.run(authenticator.by_key, key)
                attempt.succeeded = known is not None
        if known is None:
            raise OceanoError("unauthorized", "this API key is not valid", details={"cause": "wrong_key"})
        return known
    if (token := request.cookies.get(COOKIE)) is None:
        return None
    is_page = request.method == "GET" and request.headers.get("sec-fetch-dest", "document") == "document"
    visit = await lookups.run(lambda: authenticator.by_session(token, rotate=is_page))
    if visit is None:
        request.state.session_ended = True
        return None
    request.state.form_token, request.state.new_session = visit.form_token, visit.token
    return visit.access


def _unauthorized(request: Request) -> OceanoError:
    if getattr(request.state, "session_ended", False):
        return OceanoError("unauthorized", "your session has ended; sign in again", details={"cause": "session_ended"})
    return OceanoError(
        "unauthorized", "an API key is needed, as X-API-Key or bearer token; in a browser, sign in at /sign-in"
    )


def _has_key_header(request: Request) -> bool:
    """Return whether the request has a key that no browser adds by itself, so no other site can have caused it."""
    scheme = request.headers.get("authorization", "").partition(" ")[0].lower()
    return bool(_sent_key(request)) and ("x-api-key" in request.headers or scheme == "bearer")


def _sent_key(request: Request) -> str:
    """Return the key that was sent, empty if there is none; Starlette decodes headers as Latin-1."""
    if key := request.headers.get("x-api-key"):
        return _text(key.encode("latin-1"))
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return _text(value.strip().encode("latin-1"))
    if scheme.lower() == "basic":
        try:
            return _text(base64.b64decode(value.strip(), validate=True).partition(b":")[2])
        except ValueError:  # not base64, or not ASCII
            return ""
    return ""


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")
