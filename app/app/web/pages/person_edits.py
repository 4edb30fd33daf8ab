"""What the forms of a person's page do: edit, hide, remove, make cover, confirm and reject."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from app.core.errors import OceanoError
from app.people import MAX_FACES, Author, Done, Profile
from app.security import Access, Action
from app.service import Services
from app.web.api.faces import face_id_from
from app.web.api.people import person_id_from
from app.web.audit import write_audit
from app.web.deps import AccessDep, ServicesDep
from app.web.numbers import whole_number
from app.web.pages.change_views import back_to
from app.web.pages.filters import Fields
from app.web.pages.form_fields import all_of, last_of
from app.web.pages.person import Entered, person_page
from app.web.uploads import read_fields

MAX_FIELDS: Final = MAX_FACES + 100
# what a form that was not accepted is shown again for; other errors have a page of their own
_EXPLAINED: Final = frozenset({"invalid_request", "person_changed", "face_named", "face_unknown"})

Make = Callable[[], Done]


def router() -> APIRouter:
    """Return the routes, which are not in the schema of the API."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    routes.add_api_route("/person/{person_id}/edit", _edit, methods=["POST"])
    routes.add_api_route("/person/{person_id}/hide", _hide, methods=["POST"])
    routes.add_api_route("/person/{person_id}/faces", _faces, methods=["POST"])
    routes.add_api_route("/person/{person_id}/suggestions", _suggestions, methods=["POST"])
    return routes


def version_of(fields: Fields, name: str = "version") -> int:
    """Return the version that a form saw.

    Raises:
        OceanoError: `invalid_request`.
    """
    if (version := whole_number(last_of(fields, name))) is None:
        raise OceanoError("invalid_request", f"{name} must be a number", details={"field": name})
    return version


def face_ids_in(fields: Fields, name: str) -> tuple[str, ...]:
    """Return the face ids of a field, each once.

    Raises:
        OceanoError: `face_unknown` if one of them is none.
    """
    return tuple(dict.fromkeys(face_id_from(one) for one in all_of(fields, name)))


async def record(request: Request, action: Action, done: Done, **more: object) -> None:
    """Write an entry of a change to the audit log; none if everything was so already.

    Raises:
        OceanoError: as `write_audit` does.
    """
    if done.change is None:
        return
    person_id = done.change.details.get("person_id")
    details: dict[str, object] = {"change": done.change.number, "person_id": person_id, "faces": done.change.faces}
    await write_audit(request, action, details | more)


async def _edit(request: Request, person_id: str, services: ServicesDep, access: AccessDep) -> Response:
    person_id = person_id_from(person_id)
    fields = await read_fields(request)
    name, birth_date, notes = (_text(fields, one) for one in ("name", "birth_date", "notes"))
    entered = Entered("edit", name, birth_date, notes, version=version_of(fields))
    profile = Profile(name=name, birth_date=birth_date, notes=notes)
    return await _changed(request, services, access, person_id, entered, "person.edit", profile)


async def _hide(request: Request, person_id: str, services: ServicesDep, access: AccessDep) -> Response:
    person_id = person_id_from(person_id)
    fields = await read_fields(request)
    entered = Entered(version=version_of(fields))
    profile = Profile(hidden=bool(last_of(fields, "hidden")))
    return await _changed(request, services, access, person_id, entered, "person.edit", profile)


async def _faces(request: Request, person_id: str, services: ServicesDep, access: AccessDep) -> Response:
    """Do with the selected faces what the pressed button says; then show the page of the field `next`, if given."""
    person_id = person_id_from(person_id)
    fields = await read_fields(request, most=MAX_FIELDS)
    face_ids, what = face_ids_in(fields, "id"), last_of(fields, "do")
    entered = Entered("faces", face_ids=face_ids, version=(version := version_of(fields)))
    by, naming, cover = Author(access.who), services.people.naming, Profile(cover=face_ids[0] if face_ids else "")
    makes: Mapping[str, tuple[Action, Make]] = {
        "reject": ("person.reject", lambda: naming.reject(person_id, version, face_ids, by)),
        "cover": ("person.edit", lambda: naming.edit(person_id, version, cover, by)),
    }
    chosen, back = _one_of(makes, what), last_of(fields, "next")
    return await _made(request, services, access, person_id, entered, *chosen, back=back)


async def _suggestions(request: Request, person_id: str, services: ServicesDep, access: AccessDep) -> Response:
    """Confirm or reject one suggestion, or confirm all that were shown above the line."""
    person_id = person_id_from(person_id)
    fields = await read_fields(request, most=MAX_FIELDS)
    yes, no = face_ids_in(fields, "yes"), face_ids_in(fields, "no")
    every = face_ids_in(fields, "sure") if last_of(fields, "do") == "all" else ()
    version, by, naming = version_of(fields), Author(access.who), services.people.naming
    makes: Mapping[str, tuple[Action, Make]] = {
        "yes": ("person.assign", lambda: naming.assign(person_id, version, every or yes, by, source="confirmed")),
        "no": ("person.reject", lambda: naming.reject(person_id, version, no, by)),
    }
    what = "no" if no and not every else "yes"
    return await _made(request, services, access, person_id, Entered(version=version), *_one_of(makes, what))


async def _changed(
    request: Request,
    services: Services,
    access: Access,
    person_id: str,
    entered: Entered,
    action: Action,
    profile: Profile,
) -> Response:
    version = entered.version or 0
    naming, by = services.people.naming, Author(access.who)
    return await _made(
        request, services, access, person_id, entered, action, lambda: naming.edit(person_id, version, profile, by)
    )


async def _made(
    request: Request,
    services: Services,
    access: Access,
    person_id: str,
    entered: Entered,
    action: Action,
    make: Make,
    back: str = "",
) -> Response:
    """Make a change and go back to a page; show the person's, with what was typed, if the change is not accepted."""
    try:
        done = await services.lookups.run(make)
    except OceanoError as failure:
        if failure.code not in _EXPLAINED:
            raise
        return await person_page(request, services, access, person_id, entered=entered, failure=failure)
    await record(request, action, done)
    if back:
        return back_to(request, back, done.change)
    order = request.query_params.get("order", "")
    address = f"/person/{person_id}{f'?order={order}' if order in ('oldest', 'similarity') else ''}"
    return back_to(request, address, done.change)


def _one_of(makes: Mapping[str, tuple[Action, Make]], what: str) -> tuple[Action, Make]:
    if what not in makes:
        raise OceanoError("invalid_request", f"do must be one of {', '.join(makes)}", details={"field": "do"})
    return makes[what]


def _text(fields: Fields, name: str) -> str:
    """Return a field as it was typed, also if it is empty: an empty one removes what was there."""
    values = all_of(fields, name, keep_blank=True)
    return values[-1] if values else ""
