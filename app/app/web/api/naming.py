"""Changes of people: who they are, whose face each face is, and which faces nobody should be asked about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response

from app.core.errors import OceanoError
from app.people import Author, Done, Profile
from app.security import Action
from app.service import Services
from app.web.api.etags import etag_of
from app.web.api.people import person_id_from
from app.web.api.people_forms import (
    AssignedFaces,
    DismissedFaces,
    EditedPerson,
    MergedPeople,
    NewPerson,
    RejectedFaces,
    SplitFaces,
    Version,
)
from app.web.api.people_responses import ChangeBody, ChangedResponse, PersonBody
from app.web.api.requests import JsonBody, Sent
from app.web.api.responses import Model
from app.web.audit import listed, write_audit
from app.web.deps import AccessDep, ServicesDep
from app.web.root_path import root_path_of

_MOST_IDS: Final = 50  # in an entry of the audit log

_CREATE: Final = JsonBody(NewPerson, versioned=False)
_EDIT: Final = JsonBody(EditedPerson)
_DELETE: Final = JsonBody(Version, optional=True)
_ASSIGN: Final = JsonBody(AssignedFaces)
_REJECT: Final = JsonBody(RejectedFaces)
_MERGE: Final = JsonBody(MergedPeople)
_SPLIT: Final = JsonBody(SplitFaces)
_DISMISS: Final = JsonBody(DismissedFaces, versioned=False)

router = APIRouter()


@router.post("/people", openapi_extra=_CREATE.openapi)
async def create_person(
    request: Request,
    services: ServicesDep,
    access: AccessDep,
    sent: Annotated[Sent[NewPerson], Depends(_CREATE.read)],
    response: Response,
) -> ChangedResponse:
    """Add a person, with faces or without. Several people may have the same name."""
    body, by = sent.body, Author(access.who, sent.key)
    profile = Profile(body.name, body.hidden, body.birth_date, body.notes)
    done = await services.lookups.run(
        lambda: services.people.naming.create(
            profile, body.face_ids, by, replace=body.replace, same_image=body.same_image
        )
    )
    return await changed(request, services, response, done, "person.create")


@router.patch("/people/{person_id}", openapi_extra=_EDIT.openapi)
async def edit_person(
    request: Request,
    person_id: str,
    services: ServicesDep,
    access: AccessDep,
    sent: Annotated[Sent[EditedPerson], Depends(_EDIT.read)],
    response: Response,
) -> ChangedResponse:
    """Change name, visibility, cover, birth date or notes. A name that others have, too, merges nobody."""
    known, version, body = person_id_from(person_id), sent.version(), sent.body
    by = Author(access.who, sent.key)
    profile = Profile(body.name, body.hidden, body.birth_date, body.notes, body.cover)
    done = await services.lookups.run(lambda: services.people.naming.edit(known, version, profile, by))
    return await changed(request, services, response, done, "person.edit", {"person_id": known})


@router.delete("/people/{person_id}", openapi_extra=_DELETE.openapi)
async def delete_person(
    request: Request,
    person_id: str,
    services: ServicesDep,
    access: AccessDep,
    sent: Annotated[Sent[Version], Depends(_DELETE.read)],
    response: Response,
) -> ChangedResponse:
    """Delete a person. The faces stay and lose their name; the images are not touched."""
    known, version, by = person_id_from(person_id), sent.version(), Author(access.who, sent.key)
    done = await services.lookups.run(lambda: services.people.naming.delete(known, version, by))
    return await changed(request, services, response, done, "person.delete", {"person_id": known})


@router.post("/people/{person_id}/faces", openapi_extra=_ASSIGN.openapi)
async def assign_faces(
    request: Request,
    person_id: str,
    services: ServicesDep,
    access: AccessDep,
    sent: Annotated[Sent[AssignedFaces], Depends(_ASSIGN.read)],
    response: Response,
) -> ChangedResponse:
    """Say that faces show a person, up to 10,000 in one change. Faces with another name need `replace`."""
    known, version, body = person_id_from(person_id), sent.version(), sent.body
    by = Author(access.who, sent.key)
    done = await services.lookups.run(
        lambda: services.people.naming.assign(
            known,
            version,
            body.face_ids,
            by,
            source=body.source,
            replace=body.replace,
            same_image=body.same_image,
        )
    )
    return await changed(request, services, response, done, "person.assign", {"person_id": known})


@router.post("/people/{person_id}/reject", openapi_extra=_REJECT.openapi)
async def reject_faces(
    request: Request,
    person_id: str,
    services: ServicesDep,
    access: AccessDep,
    sent: Annotated[Sent[RejectedFaces], Depends(_REJECT.read)],
    response: Response,
) -> ChangedResponse:
    """Say that faces do not show a person. It is remembered, and those that have the name lose it."""
    known, version, body = person_id_from(person_id), sent.version(), sent.body
    by = Author(access.who, sent.key)
    done = await services.lookups.run(lambda: services.people.naming.reject(known, version, body.face_ids, by))
    return await changed(request, services, response, done, "person.reject", {"person_id": known})


@router.post("/people/{person_id}/merge", openapi_extra=_MERGE.openapi)
async def merge_people(
    request: Request,
    person_id: str,
    services: ServicesDep,
    access: AccessDep,
    sent: Annotated[Sent[MergedPeople], Depends(_MERGE.read)],
    response: Response,
) -> ChangedResponse:
    """Give a person all faces of others, who are deleted then. The versions of all of them are needed."""
    known, version, by = person_id_from(person_id), sent.version(), Author(access.who, sent.key)
    others = {one.id: one.version for one in sent.body.others}
    if len(others) < len(sent.body.others):
        raise OceanoError("invalid_request", "`others` names somebody twice", details={"field": "others"})
    done = await services.lookups.run(lambda: services.people.naming.merge(known, version, others, by))
    told = {"person_id": known, "people": len(others), "other_ids": listed([*others][:_MOST_IDS])}
    return await changed(request, services, response, done, "person.merge", told)


@router.post("/people/{person_id}/split", openapi_extra=_SPLIT.openapi)
async def split_person(
    request: Request,
    person_id: str,
    services: ServicesDep,
    access: AccessDep,
    sent: Annotated[Sent[SplitFaces], Depends(_SPLIT.read)],
    response: Response,
) -> ChangedResponse:
    """Move some faces of a person, and only these, to a new one, who is the `person` of the answer."""
    known, version, body = person_id_from(person_id), sent.version(), sent.body
    by = Author(access.who, sent.key)
    done = await services.lookups.run(
        lambda: services.people.naming.split(known, version, body.face_ids, body.name, by)
    )
    new = None if done.person is None else done.person.id
    return await changed(request, services, response, done, "person.split", {"person_id": known, "new_id": new})


@router.post("/faces/dismiss", openapi_extra=_DISMISS.openapi)
async def dismiss_faces(
    request: Request,
    services: ServicesDep,
    access: AccessDep,
    sent: Annotated[Sent[DismissedFaces], Depends(_DISMISS.read)],
    response: Response,
) -> ChangedResponse:
    """Set faces aside, say that they are no faces, or with null take that back.

    Faces that are set aside are in no group and are not suggested, but they are found. A face with a name can only be
    set aside after it has lost the name.
    """
    body, by = sent.body, Author(access.who, sent.key)
    done = await services.lookups.run(lambda: services.people.naming.dismiss(body.face_ids, body.kind, by))
    return await changed(request, services, response, done, "face.dismiss", {"kind": body.kind or "none"})


async def changed(
    request: Request,
    services: Services,
    response: Response,
    done: Done,
    action: Action,
    told: Mapping[str, object] | None = None,
) -> ChangedResponse:
    """Record a change, and return the answer to the request.

    Args:
        request: that asked for it.
        services: as its sender sees them.
        response: gets the ETag of the person.
        done: what was done.
        action: for the audit log.
        told: details for the audit log.
    """
    person_id = None if done.person is None else done.person.id
    details = {
        "person_id": person_id,
        "change": None if done.change is None else done.change.number,
        "faces": None if done.change is None else done.change.faces,
        **(told or {}),
    }
    await write_audit(request, action, details)
    root = root_path_of(request)
    shown = None if person_id is None else await services.lookups.run(_seen, services, person_id, root)
    if shown is not None:
        response.headers["ETag"] = etag_of(shown.version, shown)
    response.headers["Cache-Control"] = "no-store"
    return ChangedResponse(
        model=Model.of(services.engine.pack),
        person=shown,
        change=None if done.change is None else ChangeBody.of(done.change),
    )


def _seen(services: Services, person_id: str, root_path: str) -> PersonBody | None:
    try:
        return PersonBody.of(services.people.get(person_id), root_path)
    except OceanoError as failure:
        if failure.code != "person_unknown":  # deleted meanwhile, or without a face in the folders of the sender
            raise
        return None
