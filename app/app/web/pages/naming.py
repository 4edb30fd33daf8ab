"""Naming faces: asks for the name, and for the person where a name is known already; sets groups aside."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Final
from urllib.parse import urlencode
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from app.catalog import DismissalKind
from app.core.errors import OceanoError
from app.core.texts import translator
from app.people import Author, Done, Profile, checked_name, places_of
from app.security import Access
from app.service import Identity, Services
from app.web.api.people import person_id_from
from app.web.deps import AccessDep, ServicesDep
from app.web.i18n import language_of
from app.web.numbers import whole_number
from app.web.pages.change_views import back_to
from app.web.pages.changes import still_there
from app.web.pages.filters import Fields
from app.web.pages.form_fields import all_of, last_of, query_fields
from app.web.pages.naming_faces import ChosenFaces, chosen_faces
from app.web.pages.naming_questions import candidates_of, people_named, rejected_for, standing_of
from app.web.pages.people import names_to_complete, show
from app.web.pages.people_views import PersonTile, person_tile
from app.web.pages.person_edits import MAX_FIELDS, record
from app.web.pages.views import error_view
from app.web.redirects import is_own_address, see_other
from app.web.uploads import read_fields

_KINDS: Final[dict[str, DismissalKind | None]] = {
    "set_aside": "set_aside",
    "not_a_face": "not_a_face",
    "bring_back": None,
}
_MAX_ONCE: Final = 64
_MAX_ADDRESS: Final = 2000  # characters; longer ones do not pass every proxy
_ASKED_ABOUT: Final = ("face_named", "person_in_image")
_GROUPS: Final = "/people?tab=groups"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a form of naming has besides its faces.

    Attributes:
        name: that was typed.
        person_id: whom the faces show; empty: not said.
        version: of this person.
        is_new: the name is of somebody new, whoever else has it.
        same_image: pictures may show this person twice.
        replace: ids of people, who lose faces as the page said.
        next: address to go back to; empty: the person's page.
        once: of the page with the form, so that the same form makes one change only.
    """

    name: str
    person_id: str
    version: int
    is_new: bool
    same_image: bool
    replace: tuple[str, ...]
    next: str
    once: str


def router() -> APIRouter:
    """Return the routes, which are not in the schema of the API."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    routes.add_api_route("/naming", _ask, methods=["GET"])
    routes.add_api_route("/naming", _name, methods=["POST"])
    routes.add_api_route("/dismiss", _dismiss, methods=["POST"])
    return routes


async def _ask(request: Request, services: ServicesDep) -> HTMLResponse:
    fields = query_fields(request)
    return await _page(request, services, await chosen_faces(services, fields), _asked(fields))


async def _name(request: Request, services: ServicesDep, access: AccessDep) -> Response:
    """Name the faces, or ask what is not said yet: the name, which of several people, whether to rename faces."""
    fields = await read_fields(request, most=MAX_FIELDS)
    faces, asked = await chosen_faces(services, fields), _asked(fields)
    if not faces.face_ids or not faces.are_as_seen(fields) or not (asked.name or asked.person_id):
        return await _question(request, services, faces, asked)
    if not asked.person_id and not asked.is_new:
        same = await services.lookups.run(people_named, services, asked.name)
        if same:
            return await _question(request, services, faces, asked)
    try:
        done = await services.lookups.run(_made, services, access, faces, asked)
    except OceanoError as failure:
        if failure.code in _ASKED_ABOUT:
            return await _question(request, services, faces, asked)
        if failure.code not in ("person_changed", "person_unknown"):
            raise
        return await _page(request, services, faces, asked, failure)
    await record(request, "person.assign" if asked.person_id else "person.create", done)
    return back_to(request, await services.lookups.run(_after, services, asked.next, faces, done), done.change)


async def _dismiss(request: Request, services: ServicesDep, access: AccessDep) -> Response:
    """Set faces aside, mark them as not a face, or take that back."""
    fields = await read_fields(request, most=MAX_FIELDS)
    kind = last_of(fields, "kind")
    if kind not in _KINDS:
        raise OceanoError("invalid_request", f"kind must be one of {', '.join(_KINDS)}", details={"field": "kind"})
    faces = await chosen_faces(services, fields)
    naming, by = services.people.naming, Author(access.who)
    done = await services.lookups.run(naming.dismiss, faces.face_ids, _KINDS[kind], by)
    await record(request, "face.dismiss", done, kind=kind)
    address = last_of(fields, "next") or _GROUPS
    return back_to(request, await services.lookups.run(still_there, services, address), done.change)


def _after(services: Services, address: str, faces: ChosenFaces, done: Done) -> str:
    """Return the address of the page that follows: the one before, the next group, or the person; blocking."""
    if address:
        return still_there(services, address)
    if faces.group_id and services.people.unnamed.groups(limit=1).groups:
        return _GROUPS
    return "/people" if done.person is None else f"/person/{done.person.id}"


def _made(services: Services, access: Access, faces: ChosenFaces, asked: _Asked) -> Done:
    naming, face_ids = services.people.naming, faces.face_ids
    taken, same_image = asked.replace, asked.same_image

    def make(by: Author) -> Done:
        if asked.person_id:
            person = asked.person_id, asked.version
            return naming.assign(*person, face_ids, by, replace=taken, same_image=same_image)
        return naming.create(Profile(name=asked.name), face_ids, by, replace=taken, same_image=same_image)

    done = make(Author(access.who, _key(faces, asked)))
    if done.change is not None and services.people.was_changed_again(done.change):  # the same form, sent again later
        return make(Author(access.who))
    return done


def _key(faces: ChosenFaces, asked: _Asked) -> str | None:
    if not asked.once:
        return None
    said = astuple(replace(asked, next=""))
    text = "\0".join([*map(str, said), *sorted(faces.face_ids)])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _asked(fields: Fields) -> _Asked:
    person, version, same = [*last_of(fields, "person").split(":"), "", ""][:3]
    typed, new = all_of(fields, "name"), last_of(fields, "new")
    return _Asked(
        checked_name(typed[-1]) if typed else "",
        person_id_from(person) if person else "",
        whole_number(version) or 0,
        bool(new),
        "same" in (same, new),
        tuple(one for one in last_of(fields, "replace").split(",") if one),
        next_ if is_own_address(next_ := last_of(fields, "next")) else "",
        last_of(fields, "once")[:_MAX_ONCE],
    )


async def _question(request: Request, services: Services, faces: ChosenFaces, asked: _Asked) -> Response:
    """Ask on a page with an address, which can be reloaded; on one without if it would be too long."""
    values = {
        "name": asked.name,
        "person": f"{asked.person_id}:{asked.version}" if asked.person_id else "",
        "new": "1" if asked.is_new else "",
        "next": asked.next,
        "once": asked.once,
    }
    pairs = [*faces.fields, *((name, value) for name, value in values.items() if value)]
    address = f"/naming?{urlencode(pairs, errors='surrogatepass')}"
    if len(address) > _MAX_ADDRESS:
        return await _page(request, services, faces, asked)
    return see_other(request, address)


async def _page(
    request: Request, services: Services, faces: ChosenFaces, asked: _Asked, failure: OceanoError | None = None
) -> HTMLResponse:
    t = translator(language_of(request))
    people = await services.lookups.run(
        lambda: candidates_of(services, asked.name, asked.person_id, is_new=asked.is_new)
    )
    standing = await services.lookups.run(standing_of, services, faces.face_ids, people, t)
    likely = None if standing.candidates or asked.name else await _likely(services, faces)
    context = {
        "faces": faces,
        "asked": asked,
        "standing": standing,
        "likely": likely if likely and likely.id not in [one.id for one, _ in standing.named] else None,
        "failure": "" if failure is None else error_view(failure, t, "").message,
        "names": await services.lookups.run(names_to_complete, services),
        "once": asked.once or uuid4().hex,
    }
    return await show(request, services, "naming.html", context, status=200 if failure is None else failure.status)


async def _likely(services: Services, faces: ChosenFaces) -> PersonTile | None:
    """Return who the first face is likely to be; None if nobody is, or if that is not known.

    None also if they are hidden, or if somebody said that it is not them.
    """
    if not faces.face_ids:
        return None
    try:
        embeddings = await services.results.embeddings_of(faces.face_ids[:1])
        found: Sequence[Identity | None] = await services.lookups.run(services.people.identify, embeddings)
        if found[0] is None or found[0].person.hidden:
            return None
        person_id = found[0].person.id
        places = await services.lookups.run(places_of, services.index, faces.face_ids[:1])
        if person_id in await services.lookups.run(rejected_for, services, [*places.values()]):
            return None
        return person_tile(await services.lookups.run(services.people.get, person_id))
    except OceanoError as failure:
        if failure.status >= 500:
            raise
        return None
