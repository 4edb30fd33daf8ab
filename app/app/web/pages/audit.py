"""HTML routes of the audit log, for admins: a page with filters, and exports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final, get_args
from urllib.parse import urlencode

from fastapi import APIRouter
from fastapi.requests import Request
from fastapi.responses import HTMLResponse, StreamingResponse
from starlette.responses import Response

from app.catalog import AuditEntry, AuditFilter
from app.core.errors import OceanoError
from app.core.texts import Translator, translator
from app.security import EXPORTS, Action, Audit, audit_filter, audit_lines
from app.web.audit import write_audit
from app.web.csrf import REFERRER_POLICY
from app.web.i18n import language_of
from app.web.numbers import whole_number
from app.web.pages.names import printable
from app.web.pages.result_views import day_text
from app.web.pages.templating import render
from app.web.pages.views import error_view

ENTRIES: Final = 100  # of a page
_MAX_TEXT: Final = 200  # characters of a filter
_MAX_DIGITS: Final = 18
_BLOCK: Final = 1 << 16  # bytes
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_HASH_SHOWN: Final = 12
_BEGINNINGS: Final = ("search*", "kept*", "sign_in*", "key*", "audit*", "command*")


@dataclass(frozen=True, slots=True)
class EntryView:
    """An entry as the page shows it; `details` are names with values."""

    number: int
    at: str
    day: str
    time: str
    who: str
    address: str
    action: str
    purpose: str
    details: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Entered:
    """The filters as they were entered."""

    who: str = ""
    action: str = ""
    since: str = ""
    until: str = ""

    def query(self, **more: str) -> str:
        """Return them as a query string."""
        return urlencode({name: value for name, value in (asdict(self) | more).items() if value})


def router() -> APIRouter:
    """Return the routes, which are not in the schema of the API."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    routes.add_api_route("/audit", _list, methods=["GET"])
    routes.add_api_route("/audit/export", _export, methods=["GET"])
    return routes


async def _list(request: Request) -> HTMLResponse:
    t, services = translator(language_of(request)), request.app.state.services
    entered, failure, wanted = _entered(request), None, AuditFilter()
    try:
        wanted = audit_filter(**asdict(entered))
    except OceanoError as wrong:
        failure = wrong
    before = _before(request)
    found: list[AuditEntry] = []
    if failure is None:
        found = await services.lookups.run(lambda: services.audit.log.find(wanted, before=before, limit=ENTRIES + 1))
        await write_audit(request, "audit.view", _told(entered) | {"before": before, "entries": len(found[:ENTRIES])})
    shown = found[:ENTRIES]
    context = {
        "entries": [_view(one, t) for one in shown],
        "entered": entered,
        "actions": (*_BEGINNINGS, *get_args(Action)),
        "older": entered.query(before=str(shown[-1].number)) if len(found) > ENTRIES else "",
        "newest": entered.query() if before is not None else None,
        "exports": {kind: entered.query(format=kind) for kind in EXPORTS},
        "is_kept": services.audit.is_kept,
        "days": services.settings.audit_days,
        "failure": "" if failure is None else error_view(failure, t, "").message,
    }
    response = render(request, "audit.html", context, status=200 if failure is None else failure.status)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = REFERRER_POLICY
    return response


async def _export(request: Request) -> Response:
    audit: Audit = request.app.state.services.audit
    entered, kind = _entered(request), request.query_params.get("format", "csv")
    if kind not in EXPORTS:
        raise OceanoError("invalid_request", f"format must be one of {', '.join(EXPORTS)}", details={"field": "format"})
    wanted = audit_filter(**asdict(entered))
    await write_audit(request, "audit.export", _told(entered) | {"format": kind})
    name = f"oceano-audit-{datetime.now(UTC):%Y-%m-%d-%H%M%S}.{kind}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    lines = audit_lines(audit.log.all(wanted), kind)
    return StreamingResponse(_blocks(lines), media_type=EXPORTS[kind], headers=headers)


def _blocks(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Join lines: each that is sent costs a change of threads."""
    block = bytearray()
    for line in lines:
        block += line
        if len(block) >= _BLOCK:
            yield bytes(block)
            block.clear()
    yield bytes(block)


def _entered(request: Request) -> Entered:
    names = Entered.__slots__
    return Entered(**{name: request.query_params.get(name, "").strip()[:_MAX_TEXT] for name in names})


def _told(entered: Entered) -> dict[str, object]:
    return {name: value or None for name, value in asdict(entered).items()}


def _before(request: Request) -> int | None:
    return whole_number(request.query_params.get("before", ""), _MAX_DIGITS)


def _view(entry: AuditEntry, t: Translator) -> EntryView:
    return EntryView(
        entry.number,
        entry.at,
        day_text(entry.at[:10], t),
        entry.at[11:19],
        printable(entry.who),
        printable(entry.address or ""),
        entry.action,
        printable(entry.purpose or ""),
        tuple(_details(entry.details)),
    )


def _details(text: str) -> Iterator[tuple[str, str]]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        yield "", printable(text)
        return
    for name, value in found.items():
        values = value if isinstance(value, list) else [value]
        yield printable(name), ", ".join(printable(_short(one)) for one in values)


def _short(value: object) -> str:
    """Return a value for a table; of a hash, the beginning: exports have all of it."""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:_HASH_SHOWN]}…" if _HASH.fullmatch(text) else text
