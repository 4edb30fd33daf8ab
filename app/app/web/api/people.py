"""Reads of people: `GET /people` and what is below it."""

from __future__ import annotations

import uuid
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response

from app.catalog import unknown_person
from app.core.errors import OceanoError
from app.security import hash_of
from app.service import FacePage, Services
from app.web.api.etags import etag_of, is_known
from app.web.api.people_forms import (
    DismissedOptions,
    Paged,
    PeopleOptions,
    PersonFacesOptions,
    SuggestionOptions,
    TogetherOptions,
)
from app.web.api.people_responses import (
    GroupBody,
    GroupsResponse,
    PeopleResponse,
    PersonBody,
    PersonFaceBody,
    PersonFacesResponse,
    PersonResponse,
    SuggestedFace,
    SuggestionsResponse,
    TogetherBody,
    TogetherResponse,
)
from app.web.api.requests import QueryOptions
from app.web.api.responses import Model
from app.web.audit import require_purpose, write_audit
from app.web.deps import ServicesDep
from app.web.errors import accepts_html
from app.web.root_path import root_path_of

_HIDDEN: Final = {"false": False, "true": True, "all": None}
_PEOPLE: Final = QueryOptions(PeopleOptions)
_PAGED: Final = QueryOptions(Paged)
_DISMISSED: Final = QueryOptions(DismissedOptions)
_FACES: Final = QueryOptions(PersonFacesOptions)
_SUGGESTIONS: Final = QueryOptions(SuggestionOptions)
_TOGETHER: Final = QueryOptions(TogetherOptions)

router = APIRouter(dependencies=[Depends(require_purpose)])


@router.get("/people", openapi_extra=_PEOPLE.openapi, response_model=PeopleResponse)
async def people(request: Request, services: ServicesDep, response: Response) -> PeopleResponse | Response:
    """Return people, those with the most faces first, or by name. They may be searched by a part of the name."""
    if accepts_html(request):
        page_of_browsers: Response = await request.app.state.people_page(request, services)
        return page_of_browsers
    options = _PEOPLE.read(request)
    page = await services.lookups.run(
        lambda: services.people.find(
            options.name, hidden=_HIDDEN[options.hidden], order=options.order, after=options.after, limit=options.limit
        )
    )
    asked = {"people": len(page.people), "name": hash_of(options.name) if options.name else None}
    await write_audit(request, "people.list", asked)
    root = root_path_of(request)
    found = [PersonBody.of(one, root) for one in page.people]
    response.headers["Vary"] = "Accept"
    return PeopleResponse(model=_model(services), people=found, next=page.next)


@router.get("/people/groups", openapi_extra=_PAGED.openapi)
async def groups(
    request: Request, services: ServicesDep, options: Annotated[Paged, Depends(_PAGED.read)]
) -> GroupsResponse:
    """Return the groups of faces without a name that are likely to show one person, largest first."""
    page = await services.lookups.run(lambda: services.people.unnamed.groups(after=options.after, limit=options.limit))
    await write_audit(request, "people.groups", {"groups": len(page.groups)})
    root = root_path_of(request)
    found = [GroupBody.of(one, root) for one in page.groups]
    return GroupsResponse(model=_model(services), groups=found, next=page.next)


@router.get("/people/groups/{group_id}", openapi_extra=_PAGED.openapi)
async def group(
    request: Request, group_id: str, services: ServicesDep, options: Annotated[Paged, Depends(_PAGED.read)]
) -> PersonFacesResponse:
    """Return the faces of a group. Groups change as faces are ingested and named: an id may be gone (`not_found`)."""
    known = _canonical(group_id)
    if known is None:
        raise _no_group(group_id)
    page = await services.lookups.run(
        lambda: services.people.unnamed.group(known, after=options.after, limit=options.limit)
    )
    if not page.faces and options.after is None:
        raise _no_group(group_id)
    await write_audit(request, "people.groups", {"group_id": known, "faces": len(page.faces)})
    return _faces(request, services, page)


@router.get("/people/unnamed", openapi_extra=_PAGED.openapi)
async def unnamed(
    request: Request, services: ServicesDep, options: Annotated[Paged, Depends(_PAGED.read)]
) -> PersonFacesResponse:
    """Return the faces without a name that are in no group with another one, clear ones first; not dismissed ones.

    Faces that were not grouped yet are not listed. In a part of the folders, a page may have few faces, or none, and
    not be the last one.
    """
    page = await services.lookups.run(lambda: services.people.unnamed.single(after=options.after, limit=options.limit))
    await write_audit(request, "people.unnamed", {"faces": len(page.faces)})
    return _faces(request, services, page)


@router.get("/people/dismissed", openapi_extra=_DISMISSED.openapi)
async def dismissed(
    request: Request, services: ServicesDep, options: Annotated[DismissedOptions, Depends(_DISMISSED.read)]
) -> PersonFacesResponse:
    """Return the faces that were set aside or marked as not a face, last first; `POST /faces/dismiss` takes that back.

    A page may have few faces, or none, and not be the last one: images may be deleted, or not in your folders.
    """
    page = await services.lookups.run(
        lambda: services.people.unnamed.dismissed(options.kind, after=options.after, limit=options.limit)
    )
    await write_audit(request, "people.dismissed", {"kind": options.kind, "faces": len(page.faces)})
    return _faces(request, services, page)


@router.get("/people/{person_id}", response_model=PersonResponse)
async def person(
    request: Request, person_id: str, services: ServicesDep, response: Response
) -> PersonResponse | Response:
    """Return a person. The `ETag` has the version, for `If-Match` of a change; answers `If-None-Match`."""
    shown = await services.lookups.run(services.people.get, person_id_from(person_id))
    answer = PersonResponse(model=_model(services), person=PersonBody.of(shown, root_path_of(request)))
    headers = {"ETag": etag_of(shown.person.version, answer.person), "Cache-Control": "private, no-cache"}
    await write_audit(request, "person.view", {"person_id": shown.person.id, "faces": shown.faces})
    if is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return answer


@router.get("/people/{person_id}/faces", openapi_extra=_FACES.openapi)
async def faces(
    request: Request,
    person_id: str,
    services: ServicesDep,
    options: Annotated[PersonFacesOptions, Depends(_FACES.read)],
) -> PersonFacesResponse:
    """Return the faces of a person, by time or by similarity, and how each got its name."""
    known = person_id_from(person_id)
    page = await services.lookups.run(
        lambda: services.people.faces(known, order=options.order, after=options.after, limit=options.limit)
    )
    await write_audit(request, "person.faces", {"person_id": known, "faces": len(page.faces)})
    return _faces(request, services, page)


@router.get("/people/{person_id}/suggestions", openapi_extra=_SUGGESTIONS.openapi)
async def suggestions(
    request: Request,
    person_id: str,
    services: ServicesDep,
    options: Annotated[SuggestionOptions, Depends(_SUGGESTIONS.read)],
) -> SuggestionsResponse:
    """Return faces without a name that are likely to show a person, best first, each with the reason.

    At most one face of an image, none beside a face of the person, and none that was rejected or dismissed. They are
    compared with clear faces that somebody named or confirmed.
    """
    known = person_id_from(person_id)
    found = await services.lookups.run(lambda: services.people.suggestions(known, limit=options.limit))
    await write_audit(request, "person.suggestions", {"person_id": known, "faces": len(found)})
    root = root_path_of(request)
    suggested = [SuggestedFace.of_suggestion(one, root) for one in found]
    return SuggestionsResponse(model=_model(services), suggestions=suggested)


@router.get("/people/{person_id}/together", openapi_extra=_TOGETHER.openapi)
async def together(
    request: Request,
    person_id: str,
    services: ServicesDep,
    options: Annotated[TogetherOptions, Depends(_TOGETHER.read)],
) -> TogetherResponse:
    """Return who is in images with a person, and in how many, most first."""
    known = person_id_from(person_id)
    found = await services.lookups.run(
        lambda: services.people.together(known, hidden=_HIDDEN[options.hidden], limit=options.limit)
    )
    await write_audit(request, "person.together", {"person_id": known, "people": len(found)})
    root = root_path_of(request)
    return TogetherResponse(model=_model(services), together=[TogetherBody.of(one, root) for one in found])


def person_id_from(text: str) -> str:
    """Return the id of a person in its canonical spelling.

    Raises:
        OceanoError: `person_unknown` if the text is no UUID.
    """
    if (found := _canonical(text)) is None:
        raise unknown_person(text[:64])
    return found


def _canonical(text: str) -> str | None:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


def _no_group(text: str) -> OceanoError:
    return OceanoError("not_found", "there is no group with this id now", details={"group_id": text[:64]})


def _faces(request: Request, services: Services, page: FacePage) -> PersonFacesResponse:
    root = root_path_of(request)
    found = [PersonFaceBody.of_person(one, root) for one in page.faces]
    return PersonFacesResponse(model=_model(services), faces=found, total=page.total, next=page.next)


def _model(services: Services) -> Model:
    return Model.of(services.engine.pack)
