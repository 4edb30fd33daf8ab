"""Naming faces: asks for the name, and for the person where a name is known already; sets groups aside."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from app.catalog import DismissalKind, name_key
from app.core.errors import OceanoError
from app.people import Author, Done, Profile, checked_name
from app.security import Access
from app.service import Identity, Services, ShownPerson
from app.web.api.people import person_id_from
from app.web.deps import AccessDep, ServicesDep
from app.web.i18n import language_of, translator
from app.web.pages.change_views import back_to
from app.web.pages.filters import Fields
from app.web.pages.form_fields import all_of, last_of, query_fields
from app.web.pages.naming_faces import ChosenFaces, chosen_faces
from app.web.pages.people import names_to_complete, show
from app.web.pages.people_views import PersonTile, person_tile
from app.web.pages.person_edits import MAX_FIELDS, record
from app.web.pages.views import error_view
from app.web.uploads import read_fields

_SAME_NAME: Final = 200
_KINDS: Final[dict[str, DismissalKind]] = {"set_aside": "set_aside", "not_a_face": "not_a_face"}
_MAX_ONCE: Final = 64
_MAX_VERSION: Final = 15  # digits


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a form of naming has besides its faces.

    Attributes:
        name: that was typed.
        person_id: whom the faces show; empty: not said.
        version: of this person.
        is_new: the name is of somebody new, whoever else has it.
        replace: also take faces that have another name.
        next: address to go back to; empty: the person's page.
        once: of the page with the form, so that the same form makes one change only.
    """

    name: str
    person_id: str
    version: int
    is_new: bool
    replace: bool
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
        return await _page(request, services, faces, asked)
    if not asked.person_id and not asked.is_new:
        same = await services.lookups.run(people_named, services, asked.name)
        if same:
            return await _page(request, services, faces, asked, same=same)
    try:
        done = await services.lookups.run(_made, services, access, faces, asked)
    except OceanoError as failure:
        if failure.code not in ("face_named", "person_changed", "person_unknown"):
            raise
        same = await services.lookups.run(people_named, services, asked.name) if asked.name else []
        return await _page(request, services, faces, asked, same=same, failure=failure)
    await record(request, "person.assign" if asked.person_id else "person.create", done)
    back = asked.next or ("" if done.person is None else f"/person/{done.person.id}")
    return back_to(request, back, done.change)


async def _dismiss(request: Request, services: ServicesDep, access: AccessDep) -> Response:
    """Set faces aside, or say that they are none."""
    fields = await read_fields(request, most=MAX_FIELDS)
    kind = last_of(fields, "kind")
    if kind not in _KINDS:
        raise OceanoError("invalid_request", f"kind must be one of {', '.join(_KINDS)}", details={"field": "kind"})
    faces = await chosen_faces(services, fields)
    naming, by = services.people.naming, Author(access.who)
    done = await services.lookups.run(naming.dismiss, faces.face_ids, _KINDS[kind], by)
    await record(request, "face.dismiss", done, kind=kind)
    return back_to(request, last_of(fields, "next") or "/people?tab=groups", done.change)


def people_named(services: Services, name: str) -> list[ShownPerson]:
    """Return the people with a name, whatever its case and accents, most faces first; blocking."""
    wanted, people = name_key(checked_name(name)), services.people
    found = people.find(name, hidden=None, limit=_SAME_NAME).people
    same = {one.person.id: one for one in found if name_key(one.person.name) == wanted}
    for person in people.store.named(checked_name(name))[:_SAME_NAME]:  # `find` has parts of names, too
        if person.id not in same:
            same |= _visible(services, person.id)
    return [*same.values()]


def _visible(services: Services, person_id: str) -> dict[str, ShownPerson]:
    try:
        return {person_id: services.people.get(person_id)}
    except OceanoError as failure:
        if failure.code != "person_unknown":
            raise
        return {}


def _made(services: Services, access: Access, faces: ChosenFaces, asked: _Asked) -> Done:
    naming = services.people.naming

    def make(by: Author) -> Done:
        if asked.person_id:
            return naming.assign(asked.person_id, asked.version, faces.face_ids, by, replace=asked.replace)
        return naming.create(Profile(name=asked.name), faces.face_ids, by, replace=asked.replace)

    done = make(Author(access.who, _key(faces, asked)))
    if done.change is not None and done.change.undone_by is not None:  # the same form, sent again after it was undone
        return make(Author(access.who))
    return done


def _key(faces: ChosenFaces, asked: _Asked) -> str | None:
    if not asked.once:
        return None
    said = [asked.once, asked.name, asked.person_id, str(asked.replace), *sorted(faces.face_ids)]
    return hashlib.sha256("\0".join(said).encode("utf-8", "surrogatepass")).hexdigest()


def _asked(fields: Fields) -> _Asked:
    person, _, version = last_of(fields, "person").partition(":")
    is_number = version.isascii() and version.isdecimal() and len(version) <= _MAX_VERSION
    typed = all_of(fields, "name")
    return _Asked(
        checked_name(typed[-1]) if typed else "",
        person_id_from(person) if person else "",
        int(version) if is_number else 0,
        bool(last_of(fields, "new")),
        bool(last_of(fields, "replace")),
        last_of(fields, "next"),
        last_of(fields, "once")[:_MAX_ONCE],
    )


async def _page(
    request: Request,
    services: Services,
    faces: ChosenFaces,
    asked: _Asked,
    *,
    same: Sequence[ShownPerson] = (),
    failure: OceanoError | None = None,
) -> HTMLResponse:
    t = translator(language_of(request))
    likely = None if same or failure else await _likely(services, faces)
    chosen = await _chosen(services, asked) if failure is not None and failure.code == "face_named" else None
    context = {
        "faces": faces,
        "asked": asked,
        "same": [person_tile(one) for one in same],
        "likely": likely,
        "chosen": chosen,
        "is_named": failure is not None and failure.code == "face_named",
        "failure": "" if failure is None else error_view(failure, t, "").message,
        "names": await services.lookups.run(names_to_complete, services),
        "once": asked.once or uuid4().hex,
    }
    return await show(request, services, "naming.html", context, status=200 if failure is None else failure.status)


async def _chosen(services: Services, asked: _Asked) -> PersonTile | None:
    """Return the person whom the faces are to show, with the version of now."""
    if not asked.person_id:
        return None
    return person_tile(await services.lookups.run(services.people.get, asked.person_id))


async def _likely(services: Services, faces: ChosenFaces) -> PersonTile | None:
    """Return who the first face is likely to be; None if nobody is, or if that is not known."""
    if not faces.face_ids:
        return None
    try:
        embeddings = await services.results.embeddings_of(faces.face_ids[:1])
        found: Sequence[Identity | None] = await services.lookups.run(services.people.identify, embeddings)
        if found[0] is None:
            return None
        return person_tile(await services.lookups.run(services.people.get, found[0].person.id))
    except OceanoError as failure:
        if failure.status >= 500:
            raise
        return None
