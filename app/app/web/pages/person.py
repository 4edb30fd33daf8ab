"""`GET /person/{person_id}`: one person, with faces, suggestions, company and history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.core.errors import OceanoError
from app.core.texts import Translator, translator
from app.core.types import FaceFilter
from app.security import Access
from app.service import FaceOrder, Query, Services, ShownPerson
from app.web.api.people import person_id_from
from app.web.audit import write_audit
from app.web.deps import AccessDep, ServicesDep
from app.web.i18n import language_of
from app.web.pages.change_views import ChangeView, change_lines, read_lines
from app.web.pages.counted import BarView, facets_view
from app.web.pages.filters import Filters
from app.web.pages.form_fields import last_of, query_fields
from app.web.pages.names import printable
from app.web.pages.people import FACES, checked_after, names_to_complete, show
from app.web.pages.people_views import (
    FaceView,
    PersonTile,
    PersonView,
    face_views,
    person_tile,
    person_view,
    suggestion_views,
    together_tiles,
)
from app.web.pages.views import error_view

SUGGESTIONS: Final = 60
ORDERS: Final[tuple[FaceOrder, ...]] = ("newest", "oldest", "similarity")
_WITHOUT_DATES: Final[FaceOrder] = "similarity"
_MOST_COUNTED: Final = 20_000  # faces; to count more by year takes too long
_ANY: Final = -1.0  # lowest cosine similarity
_FIELDS: Final = ("name", "birth_date", "notes")  # that a message may be about
_TOGETHER: Final = 12
_NAMESAKES: Final = 4
_HISTORY: Final = 20


@dataclass(frozen=True, slots=True)
class Entered:
    """What a form of the page had, to be shown again when it was not accepted.

    Attributes:
        form: `edit` or `faces`, whose fields these are; empty: none.
        name: as typed.
        birth_date: as typed.
        notes: as typed.
        face_ids: that were selected.
        version: of the person that the form saw; None: none was sent.
    """

    form: str = ""
    name: str = ""
    birth_date: str = ""
    notes: str = ""
    face_ids: tuple[str, ...] = ()
    version: int | None = None


@dataclass(frozen=True, slots=True)
class _Page:
    """What the page shows, besides what every page has."""

    person: PersonView
    faces: tuple[FaceView, ...]
    order: FaceOrder
    has_dates: bool
    next: str
    is_first: bool
    suggestions: tuple[FaceView, ...]
    together: tuple[PersonTile, ...]
    history: tuple[ChangeView, ...]
    missed: tuple[ChangeView, ...]
    namesakes: tuple[PersonTile, ...]

    @property
    def sure(self) -> tuple[FaceView, ...]:
        """The suggestions above the line."""
        return tuple(one for one in self.suggestions if one.sure)

    @property
    def doubtful(self) -> tuple[FaceView, ...]:
        """The suggestions below the line."""
        return tuple(one for one in self.suggestions if not one.sure)

    def address(self, **changes: str) -> str:
        """Return the address of the first page of the faces, or of another one."""
        values = {"order": "" if self.order == "newest" else self.order} | changes
        query = urlencode({name: value for name, value in values.items() if value})
        return f"/person/{self.person.id}{'?' if query else ''}{query}"


def router() -> APIRouter:
    """Return the route, which is not in the schema of the API."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    routes.add_api_route("/person/{person_id}", _show, methods=["GET"])
    return routes


async def person_page(
    request: Request,
    services: Services,
    access: Access,
    person_id: str,
    *,
    entered: Entered | None = None,
    failure: OceanoError | None = None,
) -> HTMLResponse:
    """Render the page of a person, also after a form that was not accepted.

    Args:
        request: says which faces are shown.
        services: as the one sees them who asks.
        access: who asks.
        person_id: the person.
        entered: what the form had.
        failure: why it was not accepted.

    Raises:
        OceanoError: `person_unknown`, `cursor_invalid`, `index_unavailable`, `ledger_unavailable`.
    """
    fields, t = query_fields(request), translator(language_of(request))
    asked = last_of(fields, "order")
    order = next((one for one in ORDERS if one == asked), None)
    after = checked_after(fields) if failure is None else None
    entered = entered or Entered()
    if entered.face_ids:
        entered = await services.lookups.run(_with_own_faces, services, person_id, entered)
    page = await services.lookups.run(lambda: _page(services, access, person_id, order, after, entered, failure, t))
    await write_audit(request, "person.view", {"person_id": person_id}, again=f"person {person_id}")
    message = "" if failure is None else error_view(failure, t, "").message
    wrong_field = str(failure.details.get("field", "")) if failure is not None and entered.form == "edit" else ""
    if failure is not None and wrong_field == "birth_date" and "cause" not in failure.details:
        message = t("person.wrong_date", value=printable(entered.birth_date))
    context: dict[str, Any] = {
        "page": page,
        "bars": await _years(services, page) if page.is_first else (),
        "entered": entered,
        "orders": ORDERS,
        "names": await services.lookups.run(names_to_complete, services) if access.may("curate") else [],
        "once": uuid4().hex,
        "is_stale": failure is not None and failure.code == "person_changed",
        "failure": message,
        "wrong_field": wrong_field if wrong_field in _FIELDS else "",
    }
    return await show(request, services, "person.html", context, status=200 if failure is None else failure.status)


def _with_own_faces(services: Services, person_id: str, entered: Entered) -> Entered:
    """Leave out selected faces that are not the person's any more: the form would not be accepted again."""
    found = services.index.retrieve(entered.face_ids)
    return replace(entered, face_ids=tuple(one.face_id for one in found if one.payload.person == person_id))


async def _show(request: Request, person_id: str, services: ServicesDep, access: AccessDep) -> HTMLResponse:
    return await person_page(request, services, access, person_id_from(person_id))


async def _years(services: Services, page: _Page) -> Sequence[BarView]:
    """Return the number of faces of each year; none for a person of one year, or with too many faces."""
    person = page.person
    if not person.cover or person.faces > _MOST_COUNTED:
        return ()
    try:
        (embedding,) = await services.results.embeddings_of([person.cover])
    except OceanoError as failure:
        if failure.code != "face_unknown":  # it was deleted meanwhile
            raise
        return ()
    counted = await services.results.facets(Query(embedding, _ANY, FaceFilter(person=person.id)), folders=0)
    bars = facets_view(counted, Filters()).bars
    return bars if len(bars) > 1 else ()


def _page(
    services: Services,
    access: Access,
    person_id: str,
    asked: FaceOrder | None,
    after: str | None,
    entered: Entered,
    failure: OceanoError | None,
    t: Translator,
) -> _Page:
    people = services.people
    shown = people.get(person_id)
    order = asked or ORDERS[0]
    found = people.faces(person_id, order=order, after=after, limit=FACES)
    has_dates = any(one.record.payload.taken_at for one in found.faces) or people.has_dates(person_id)
    is_first, may_edit = after is None, access.may("curate")
    if not has_dates and is_first and order != _WITHOUT_DATES:
        order = _WITHOUT_DATES
        found = people.faces(person_id, order=order, limit=FACES)
    suggested = people.suggestions(person_id, limit=SUGGESTIONS) if is_first and may_edit else []
    company = people.together(person_id, limit=_TOGETHER) if is_first else []
    return _Page(
        person_view(shown, t),
        face_views(found.faces, t),
        order,
        has_dates,
        found.next or "",
        is_first,
        suggestion_views(suggested, services.bands, t),
        together_tiles(company, shown.cover),
        tuple(_history(services, access, person_id, _HISTORY if is_first else 0, t)),
        tuple(_missed(services, access, person_id, shown.person.version, entered, failure, t)),
        tuple(_namesakes(services, shown)) if is_first and may_edit and access.sees_all else (),
    )


def _namesakes(services: Services, shown: ShownPerson) -> Iterator[PersonTile]:
    """Yield other people with the same name, who may be the same person."""
    name = shown.person.name
    for one in services.people.named(name, limit=_NAMESAKES + 1) if name else ():
        if one.person.id != shown.person.id:
            yield person_tile(one)


def _history(services: Services, access: Access, person_id: str, limit: int, t: Translator) -> Sequence[ChangeView]:
    """Return the newest changes of a person; none for somebody who sees some folders only."""
    if limit == 0 or not access.sees_all:
        return ()
    return read_lines(services, t, access, person_id=person_id, limit=limit)[0]


def _missed(
    services: Services,
    access: Access,
    person_id: str,
    version: int,
    entered: Entered,
    failure: OceanoError | None,
    t: Translator,
) -> Sequence[ChangeView]:
    """Return what changed since the version that a form saw: each change raises it by one."""
    if failure is None or failure.code != "person_changed" or entered.version is None:
        return ()
    limit = min(max(0, version - entered.version), _HISTORY) if access.sees_all else 0
    return change_lines(services.people.changes(person_id=person_id, limit=limit), t, access)
