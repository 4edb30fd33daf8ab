"""The history of people: all changes, and undoing one."""

from __future__ import annotations

from dataclasses import replace
from typing import Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from app.core.errors import OceanoError
from app.core.texts import translator
from app.people import Author
from app.service import Services
from app.web.api.people import person_id_from
from app.web.audit import write_audit
from app.web.deps import AccessDep, ServicesDep, current_access
from app.web.i18n import language_of
from app.web.pages.change_views import ChangeView, back_to, read_lines, toast_of, with_people, with_refused
from app.web.pages.form_fields import last_of, query_fields
from app.web.pages.people import group_id_from, show
from app.web.pages.people_views import shown_name
from app.web.pages.person_edits import version_of
from app.web.redirects import see_other
from app.web.uploads import read_fields

CHANGES: Final = 50  # lines of a page


def router() -> APIRouter:
    """Return the route that undoes a change, which is not in the schema; the API has `GET /changes`."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    routes.add_api_route("/undo", _undo, methods=["POST"])
    return routes


async def changes_page(request: Request, services: Services) -> HTMLResponse:
    """Render `GET /changes` for a browser; programs get JSON.

    Args:
        request: says which changes are shown.
        services: as the one sees them who asks.

    Raises:
        OceanoError: `forbidden` for somebody who sees some folders only; `ledger_unavailable`.
    """
    services.require_all_folders()
    fields, t, access = query_fields(request), translator(language_of(request)), current_access(request)
    asked, text = last_of(fields, "person_id"), last_of(fields, "before")
    person_id = person_id_from(asked) if asked else None
    before = version_of(fields, "before") if text else None
    lines, is_more = await services.lookups.run(
        lambda: read_lines(services, t, access, person_id=person_id, before=before, limit=CHANGES)
    )
    person = (await services.lookups.run(services.people.names, [person_id])).get(person_id) if person_id else None
    if person_id is None:
        lines = await services.lookups.run(with_people, lines, services, t)
    await write_audit(request, "changes.list", {"person_id": person_id, "changes": len(lines)})
    toast = await toast_of(request, services)
    shown = [_marked(one, toast) for one in lines]
    if any(one.refused for one in shown):
        toast = None  # the line says it
    values = {"person_id": person_id, "before": _last(lines[-1]) if is_more else None}
    context = {
        "changes": shown,
        "older": urlencode({name: value for name, value in values.items() if value}) if is_more else "",
        "here": urlencode({name: value for name, value in {**values, "before": before}.items() if value}),
        "is_first": before is None,
        "person_id": person_id or "",
        "person": shown_name(person, t),
        "toast": toast,
    }
    response = await show(request, services, "changes.html", context)
    response.headers["Vary"] += ", Accept"
    return response


def _last(line: ChangeView) -> int:
    return line.parts[-1].number if line.parts else line.number


def _marked(line: ChangeView, told: ChangeView | None) -> ChangeView:
    """Return a line with why it could not be undone."""
    refused = told.refused if told is not None and told.number == line.number and not line.parts else ""
    parts = tuple(_marked(one, told) for one in line.parts)
    refused = refused or next((one.refused for one in parts if one.refused), "")
    return replace(line, refused=refused, parts=parts)


async def _undo(request: Request, services: ServicesDep, access: AccessDep) -> Response:
    services.require_all_folders()
    fields = await read_fields(request)
    number, address = version_of(fields, "number"), last_of(fields, "next") or "/changes"
    try:
        done = await services.lookups.run(services.people.naming.undo, number, Author(access.who))
    except OceanoError as failure:
        if failure.code != "change_conflict":
            raise
        there = await services.lookups.run(still_there, services, address)
        return see_other(request, with_refused(there, number))
    await write_audit(request, "change.undo", {"change": number})
    return back_to(request, await services.lookups.run(still_there, services, address), done.change)


def still_there(services: Services, address: str) -> str:
    """Return the address of a page, or that of the list if its person or group is not there any more; blocking."""
    kind, _, rest = address.removeprefix("/").partition("/")
    name = rest.partition("?")[0].partition("#")[0].partition("/")[0]
    try:
        if kind == "person":
            services.people.get(person_id_from(name))
        elif kind == "group" and not services.people.unnamed.group(group_id_from(name), after=None, limit=1).faces:
            return "/people?tab=groups"
    except OceanoError as failure:
        if failure.code not in ("person_unknown", "not_found"):
            raise
        return "/people" if kind == "person" else "/people?tab=groups"
    return address
