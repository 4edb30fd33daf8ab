"""The history of people: all changes, and undoing one."""

from __future__ import annotations

from dataclasses import replace
from typing import Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from app.core.errors import OceanoError
from app.people import Author
from app.service import Services
from app.web.api.people import person_id_from
from app.web.audit import write_audit
from app.web.deps import AccessDep, ServicesDep, current_access
from app.web.i18n import language_of, translator
from app.web.pages.change_views import back_to, change_view
from app.web.pages.form_fields import last_of, query_fields
from app.web.pages.people import show
from app.web.pages.person_edits import version_of
from app.web.pages.views import error_view
from app.web.uploads import read_fields

CHANGES: Final = 50


def router() -> APIRouter:
    """Return the route that undoes a change, which is not in the schema; the API has `GET /changes`."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    routes.add_api_route("/undo", _undo, methods=["POST"])
    return routes


async def changes_page(request: Request, services: Services, failure: OceanoError | None = None) -> HTMLResponse:
    """Render `GET /changes` for a browser; programs get JSON.

    Args:
        request: says which changes are shown.
        services: as the one sees them who asks.
        failure: why a change could not be undone; None if none was to be.

    Raises:
        OceanoError: `forbidden` for somebody who sees some folders only; `ledger_unavailable`.
    """
    services.require_all_folders()
    fields, t, access = query_fields(request), translator(language_of(request)), current_access(request)
    person, text = last_of(fields, "person_id"), last_of(fields, "before")
    person_id = person_id_from(person) if person else None
    before = version_of(fields, "before") if text else None
    found = await services.lookups.run(
        lambda: services.people.changes(person_id=person_id, before=before, limit=CHANGES + 1)
    )
    shown = found[:CHANGES]
    views = [change_view(one, t, access) for one in shown]
    there = await services.lookups.run(services.people.names, [one.person_id for one in views if one.person_id])
    await write_audit(request, "changes.list", {"person_id": person_id, "changes": len(shown)})
    older = ""
    if len(found) > CHANGES:
        values = {"person_id": person_id, "before": shown[-1].number}
        older = urlencode({name: value for name, value in values.items() if value})
    context = {
        "changes": [one if one.person_id in there else replace(one, person_id="") for one in views],
        "older": older,
        "is_first": before is None,
        "person_id": person_id or "",
        "failure": "" if failure is None else error_view(failure, t, "").message,
    }
    status = 200 if failure is None else failure.status
    response = await show(request, services, "changes.html", context, status=status)
    response.headers["Vary"] += ", Accept"
    return response


async def _undo(request: Request, services: ServicesDep, access: AccessDep) -> Response:
    services.require_all_folders()
    fields = await read_fields(request)
    number = version_of(fields, "number")
    try:
        done = await services.lookups.run(services.people.naming.undo, number, Author(access.who))
    except OceanoError as failure:
        if failure.code != "change_conflict":
            raise
        return await changes_page(request, services, failure)
    await write_audit(request, "change.undo", {"change": number})
    address = last_of(fields, "next") or "/changes"
    if address.startswith("/person/") and not await _is_there(services, address):
        address = "/people"  # the change had added the person
    return back_to(request, address, done.change)


async def _is_there(services: Services, address: str) -> bool:
    person_id = address.removeprefix("/person/").partition("?")[0].partition("/")[0]
    try:
        await services.lookups.run(services.people.get, person_id)
    except OceanoError as failure:
        if failure.code != "person_unknown":
            raise
        return False
    return True
