"""What is always asked for: to merge two people, and to delete one."""

from __future__ import annotations

from itertools import permutations
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from app.core.errors import OceanoError
from app.core.texts import Translator, translator
from app.people import MAX_NAME, Author
from app.security import Access
from app.service import Services, ShownPerson
from app.web.api.people import person_id_from
from app.web.audit import write_audit
from app.web.deps import AccessDep, ServicesDep
from app.web.i18n import language_of
from app.web.pages.change_views import back_to, change_view
from app.web.pages.form_fields import last_of, query_fields
from app.web.pages.people import show
from app.web.pages.people_views import PersonView, person_tile, person_view
from app.web.pages.person_edits import record, version_of
from app.web.pages.views import error_view
from app.web.uploads import read_fields

_FOUND: Final = 30
_MOST_TOGETHER: Final = 1_000  # people


def router() -> APIRouter:
    """Return the routes, which are not in the schema of the API."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    routes.add_api_route("/person/{person_id}/merge", _ask_to_merge, methods=["GET"])
    routes.add_api_route("/person/{person_id}/merge", _merge, methods=["POST"])
    routes.add_api_route("/person/{person_id}/delete", _ask_to_delete, methods=["GET"])
    routes.add_api_route("/person/{person_id}/delete", _delete, methods=["POST"])
    return routes


async def _ask_to_merge(request: Request, person_id: str, services: ServicesDep, access: AccessDep) -> HTMLResponse:
    other = last_of(query_fields(request), "with")
    return await _merge_page(request, services, access, person_id, other)


async def _merge_page(
    request: Request,
    services: Services,
    access: Access,
    person_id: str,
    other_id: str,
    failure: OceanoError | None = None,
) -> HTMLResponse:
    """Show people to choose from, or the person and the chosen one side by side."""
    fields, t = query_fields(request), translator(language_of(request))
    text, with_hidden = last_of(fields, "q")[:MAX_NAME], bool(last_of(fields, "hidden"))
    person_id = person_id_from(person_id)
    one = await services.lookups.run(services.people.get, person_id)
    other: ShownPerson | None = None
    found: list[ShownPerson] = []
    has_hidden = False
    if other_id:
        other = await services.lookups.run(services.people.get, person_id_from(other_id))
    else:
        found, has_hidden = await services.lookups.run(_candidates, services, person_id, text, with_hidden)
    both = [shown for shown in (one, other) if shown is not None]
    views = [person_view(shown, t) for shown in both]
    await write_audit(request, "person.view", {"person_id": person_id}, once=f"person {person_id}")
    context = {
        "one": views[0],
        "other": views[1] if other else None,
        "choices": [(stays, _consequences(stays, goes, t)) for stays, goes in permutations(views)] if other else [],
        "preferred": max(views, key=lambda view: (bool(view.name), view.faces)).id,
        "together": await services.lookups.run(_together, services, one, other) if other else 0,
        "found": [person_tile(candidate) for candidate in found],
        "text": text,
        "has_hidden": has_hidden,
        "newest": await services.lookups.run(_newest, services, access, both, t) if failure else [],
        "failure": "" if failure is None else error_view(failure, t, "").message,
    }
    return await show(request, services, "merge.html", context, status=200 if failure is None else failure.status)


def _consequences(stays: PersonView, goes: PersonView, t: Translator) -> list[str]:
    """Say what becomes of the birth date and the notes of the one who goes: they fill what is empty."""
    said = []
    if goes.birth_date and goes.birth_date != stays.birth_date:
        said.append(t("merge.loses_born" if stays.birth_date else "merge.gets_born", name=goes.shown, date=goes.born))
    if goes.notes and goes.notes != stays.notes:
        said.append(t("merge.loses_notes" if stays.notes else "merge.gets_notes", name=goes.shown))
    return said


def _together(services: Services, one: ShownPerson, other: ShownPerson) -> int:
    """Return the number of images that show both."""
    found = services.people.together(one.person.id, hidden=None, limit=_MOST_TOGETHER)
    return next((company.images for company in found if company.person.person.id == other.person.id), 0)


def _candidates(services: Services, person_id: str, text: str, with_hidden: bool) -> tuple[list[ShownPerson], bool]:
    """Return people to merge with, and whether hidden ones are left out: they are found by their names, too."""
    is_for_all = with_hidden or bool(text)
    page = services.people.find(text, hidden=None if is_for_all else False, limit=_FOUND + 1)
    found = [candidate for candidate in page.people if candidate.person.id != person_id][:_FOUND]
    hidden = [] if is_for_all else services.people.find(hidden=True, limit=2).people
    return found, any(candidate.person.id != person_id for candidate in hidden)


async def _merge(request: Request, person_id: str, services: ServicesDep, access: AccessDep) -> Response:
    """Merge two people; the field `keep` says whose id and name stay."""
    fields = await read_fields(request)
    one, other = person_id_from(person_id), person_id_from(last_of(fields, "with"))
    versions = {one: version_of(fields), other: version_of(fields, "other_version")}
    stays = other if last_of(fields, "keep") == other else one
    goes = one if stays == other else other
    by = Author(access.who)
    try:
        done = await services.lookups.run(
            lambda: services.people.naming.merge(stays, versions[stays], {goes: versions[goes]}, by)
        )
    except OceanoError as failure:
        if failure.code != "person_changed":
            raise
        return await _merge_page(request, services, access, one, other, failure)
    await record(request, "person.merge", done, others=[goes])
    return back_to(request, f"/person/{stays}", done.change)


async def _ask_to_delete(request: Request, person_id: str, services: ServicesDep, access: AccessDep) -> HTMLResponse:
    return await _delete_page(request, services, access, person_id)


async def _delete_page(
    request: Request, services: Services, access: Access, person_id: str, failure: OceanoError | None = None
) -> HTMLResponse:
    t = translator(language_of(request))
    person_id = person_id_from(person_id)
    shown = await services.lookups.run(services.people.get, person_id)
    await write_audit(request, "person.view", {"person_id": person_id}, once=f"person {person_id}")
    context = {
        "person": person_view(shown, t),
        "newest": await services.lookups.run(_newest, services, access, [shown], t) if failure else [],
        "failure": "" if failure is None else error_view(failure, t, "").message,
    }
    status = 200 if failure is None else failure.status
    return await show(request, services, "delete_person.html", context, status=status)


async def _delete(request: Request, person_id: str, services: ServicesDep, access: AccessDep) -> Response:
    fields = await read_fields(request)
    person_id, version, by = person_id_from(person_id), version_of(fields), Author(access.who)
    try:
        done = await services.lookups.run(services.people.naming.delete, person_id, version, by)
    except OceanoError as failure:
        if failure.code != "person_changed":
            raise
        return await _delete_page(request, services, access, person_id, failure)
    await record(request, "person.delete", done, person=person_id)
    return back_to(request, "/people", done.change)


def _newest(services: Services, access: Access, people: list[ShownPerson], t: Translator) -> list[object]:
    """Return the newest change of each person, which is why a form was not accepted."""
    if not access.sees_all:
        return []
    found = [change for one in people for change in services.people.changes(person_id=one.person.id, limit=1)]
    return [change_view(one, t, access) for one in found]
