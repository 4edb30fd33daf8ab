"""Writes what requests do to the audit log, before they are answered, and reads for what purpose they are sent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Final
from urllib.parse import quote, unquote

from cachetools import TTLCache
from fastapi import Request
from starlette.responses import Response

from app.core.errors import JsonValue, OceanoError
from app.core.paths import readable
from app.core.types import FaceFilter
from app.security import MAX_PURPOSE, Access, Action, new_entry
from app.service import Services
from app.web.auth import address_of
from app.web.root_path import root_path_of

PURPOSE_HEADER: Final = "X-Purpose"
PURPOSE_COOKIE: Final = "oceano_purpose"
# What must have a purpose where REQUIRE_PURPOSE is set: all that searches, shows or exports faces and photographs.
_WITH_PURPOSE: Final = frozenset[Action](
    {
        "search", "search.more", "detect", "compare", "results", "face.view", "photo.view", "original.view", "export",
        "kept.add", "kept.view",
        "people.list", "people.groups", "person.view", "person.faces", "person.suggestions", "person.together",
    }
)  # fmt: skip
_AGAIN_SECONDS: Final = 900.0  # what belongs to one page, such as its counts and previews, is one entry
_AGAIN: Final = 10_000

Details = Mapping[str, object]


async def write_audit(
    request: Request,
    action: Action,
    details: Details | None = None,
    *,
    who: str | None = None,
    once: str = "",
    again: str = "",
) -> None:
    """Write an entry of what a request does; the route sends its response after that.

    Args:
        request: says who sends it, from where and for what purpose.
        action: what it does.
        details: hashes and counts; never an image, an embedding or a key. Values of None are left out.
        who: as in `Access`; None: the request's own, or `-` if it has none.
        once: what is looked at. If this process has an entry with the same `once`, sender and purpose of the last 15
            minutes, no other is written: a page loads parts of itself later.
        again: what is looked at: an entry is written, and none for later requests with the same `once`.

    Raises:
        OceanoError: `purpose_required`, `invalid_request` if the purpose is too long, `ledger_unavailable`,
            `disk_full`.
    """
    services: Services = request.app.state.services
    purpose = require_purpose(request) if action in _WITH_PURPOSE else purpose_of(request)
    audit = services.audit
    if not audit.is_kept:
        return
    access: Access | None = getattr(request.state, "access", None)
    name = who or (access.who if access else "-")
    address = address_of(request)
    key = (name, address, purpose, once or again)
    seen = _seen(request)
    if once and key in seen:
        return
    await asyncio.wrap_future(audit.submit(new_entry(action, name, details, address=address, purpose=purpose)))
    if once or again:
        seen.add(key)


def require_purpose(request: Request) -> str | None:
    """Return the purpose of a request, which it must have if `REQUIRE_PURPOSE` is set; also as a dependency of routes.

    Raises:
        OceanoError: `purpose_required`, `invalid_request`.
    """
    purpose = purpose_of(request)
    if purpose is None and request.app.state.settings.require_purpose:
        raise OceanoError("purpose_required", f"a purpose is required; programs send it in the header {PURPOSE_HEADER}")
    return purpose


def purpose_of(request: Request) -> str | None:
    """Return the purpose that a request has in its header, or else in the cookie of the page; None if in neither.

    Raises:
        OceanoError: `invalid_request` if it has more than `MAX_PURPOSE` characters.
    """
    if sent := request.headers.get(PURPOSE_HEADER):
        raw = sent.encode("latin-1")  # as Starlette decoded it
        try:
            return checked_purpose(raw.decode("utf-8"))
        except UnicodeDecodeError:
            return checked_purpose(sent)
    cookie = request.cookies.get(PURPOSE_COOKIE)
    return checked_purpose(unquote(cookie)[:MAX_PURPOSE]) if cookie else None


def checked_purpose(text: str) -> str | None:
    """Return a purpose without control characters and surrounding spaces; None if nothing is left.

    Raises:
        OceanoError: `invalid_request` if it has more than `MAX_PURPOSE` characters.
    """
    purpose = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    if len(purpose) > MAX_PURPOSE:
        raise OceanoError(
            "invalid_request",
            f"the purpose has {len(purpose)} characters; at most {MAX_PURPOSE} are allowed",
            details={"field": "purpose", "max_characters": MAX_PURPOSE},
        )
    return purpose or None


def keep_purpose(request: Request, response: Response, purpose: str | None) -> None:
    """Let the browser send a purpose with its requests, until it is closed; None: let it forget its own."""
    path = root_path_of(request) or "/"
    if purpose is None:
        response.delete_cookie(PURPOSE_COOKIE, path=path)
        return
    response.set_cookie(
        PURPOSE_COOKIE,
        quote(purpose, safe=""),
        path=path,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def listed(texts: Sequence[str]) -> list[JsonValue] | None:
    """Return texts as a value of details; None, which is left out, if there are none."""
    return [*texts] or None


def folders_in(where: FaceFilter | None) -> list[JsonValue] | None:
    """Return the folders of a filter as a value of details; None if it has none."""
    if where is None or where.folder is None:
        return None
    folders = (where.folder,) if isinstance(where.folder, str) else where.folder
    return [readable(folder) for folder in folders]


class _Seen:
    """What entries of this process are about, for some minutes. Safe for threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._keys: TTLCache[tuple[str | None, ...], bool] = TTLCache(_AGAIN, _AGAIN_SECONDS)

    def __contains__(self, key: tuple[str | None, ...]) -> bool:
        with self._lock:
            return key in self._keys

    def add(self, key: tuple[str | None, ...]) -> None:
        """Remember something."""
        with self._lock:
            self._keys[key] = True


def _seen(request: Request) -> _Seen:
    state = request.app.state
    if not hasattr(state, "audited"):
        state.audited = _Seen()
    seen: _Seen = state.audited
    return seen
