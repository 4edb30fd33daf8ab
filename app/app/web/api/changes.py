"""The journal of people: `GET /changes`, `POST /changes/{number}/undo`."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response

from app.core.errors import OceanoError
from app.people import Author
from app.service import decode_mark, encode_mark
from app.web.api.naming import changed
from app.web.api.people_forms import ChangesOptions, Nothing
from app.web.api.people_responses import ChangeBody, ChangedResponse, ChangesResponse
from app.web.api.requests import JsonBody, QueryOptions, Sent
from app.web.api.responses import Model
from app.web.audit import write_audit
from app.web.deps import AccessDep, ServicesDep
from app.web.errors import accepts_html
from app.web.numbers import whole_number

_CHANGES: Final = QueryOptions(ChangesOptions)
_UNDO: Final = JsonBody(Nothing, optional=True, versioned=False)

router = APIRouter()


@router.get("/changes", openapi_extra=_CHANGES.openapi, response_model=ChangesResponse)
async def changes(request: Request, services: ServicesDep, response: Response) -> ChangesResponse | Response:
    """Return the changes of people, newest first. They are about all folders: who sees some only gets 403."""
    if accepts_html(request):
        page_of_browsers: Response = await request.app.state.changes_page(request, services)
        return page_of_browsers
    services.require_all_folders()
    options = _CHANGES.read(request)
    name = f"changes\0{options.person_id or ''}"
    before = None if options.after is None else int(decode_mark(options.after, name, int)[0])
    found = await services.lookups.run(
        lambda: services.people.changes(person_id=options.person_id, before=before, limit=options.limit + 1)
    )
    shown = found[: options.limit]
    following = encode_mark((shown[-1].number,), name) if len(found) > len(shown) else None
    await write_audit(request, "changes.list", {"person_id": options.person_id, "changes": len(shown)})
    response.headers["Vary"] = "Accept"
    return ChangesResponse(
        model=Model.of(services.engine.pack), changes=[ChangeBody.of(one) for one in shown], next=following
    )


@router.post("/changes/{number}/undo", openapi_extra=_UNDO.openapi)
async def undo_change(
    request: Request,
    number: str,
    services: ServicesDep,
    access: AccessDep,
    sent: Annotated[Sent[Nothing], Depends(_UNDO.read)],
    response: Response,
) -> ChangedResponse:
    """Undo a change, also one that undid another. 409 `change_conflict` if what it did was changed again since."""
    services.require_all_folders()
    undone, by = _number(number), Author(access.who, sent.key)
    done = await services.lookups.run(lambda: services.people.naming.undo(undone, by))
    return await changed(request, services, response, done, "change.undo", {"undone": undone})


def _number(text: str) -> int:
    if (number := whole_number(text)) is None:
        raise OceanoError("change_unknown", "there is no change with this number", details={"change": text[:64]})
    return number
