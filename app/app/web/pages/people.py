"""The pages of all people: those with a name, the groups of unnamed faces, those who are hidden; one group."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.catalog import Order
from app.core.errors import OceanoError
from app.people import MAX_NAME
from app.security import hash_of
from app.service import PeoplePage, Services
from app.web.audit import write_audit
from app.web.csrf import REFERRER_POLICY
from app.web.deps import ServicesDep
from app.web.i18n import language_of, translator
from app.web.pages.change_views import toast_of
from app.web.pages.form_fields import last_of, query_fields
from app.web.pages.people_views import GroupTile, PersonTile, face_views, group_tile, person_tile
from app.web.pages.templating import render

TABS: Final = ("named", "groups", "hidden")
PEOPLE: Final = 120  # tiles of a page
GROUPS: Final = 30
FACES: Final = 120
NAMES: Final = 300  # that fields for names complete
FREQUENT: Final = 8  # people on the start page
_MAX_AFTER: Final = 10_000  # characters


@dataclass(frozen=True, slots=True)
class PeopleView:
    """All that the page shows.

    Attributes:
        tab: one of `TABS`.
        text: that names must have; empty: any name.
        order: of the people.
        people: named or hidden ones.
        groups: groups of unnamed faces.
        next: where the next page begins; empty at the end.
        after: where this page begins; empty: it is the first one.
    """

    tab: str
    text: str
    order: Order
    people: tuple[PersonTile, ...]
    groups: tuple[GroupTile, ...]
    next: str
    after: str

    @property
    def is_first(self) -> bool:
        """Whether no page is before it."""
        return not self.after

    def query(self, **changes: str) -> str:
        """Return the query string of the page with changes; blank values are left out."""
        order = "" if self.order == "faces" else self.order
        tab = "" if self.tab == TABS[0] else self.tab
        values = {"tab": tab, "q": self.text, "order": order} | changes
        return urlencode({name: value for name, value in values.items() if value})


def router() -> APIRouter:
    """Return the route of a group, which is not in the schema of the API; the API has `GET /people`."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    routes.add_api_route("/group/{group_id}", _group, methods=["GET"])
    return routes


async def people_page(request: Request, services: Services) -> HTMLResponse:
    """Render `GET /people` for a browser; programs get JSON.

    Raises:
        OceanoError: `cursor_invalid`, `index_unavailable`, `ledger_unavailable`.
    """
    fields = query_fields(request)
    tab = last_of(fields, "tab")
    tab = tab if tab in TABS else TABS[0]
    order: Order = "name" if last_of(fields, "order") == "name" else "faces"
    text, after = last_of(fields, "q")[:MAX_NAME], checked_after(fields)
    view, names = await services.lookups.run(_view, services, tab, text, order, after)
    if tab == "groups":
        await write_audit(request, "people.groups", {"groups": len(view.groups)})
    else:
        asked = {"people": len(view.people), "name": hash_of(text) if text else None}
        await write_audit(request, "people.list", asked)
    context = {"view": view, "names": names, "tabs": TABS, "once": uuid.uuid4().hex}
    response = await show(request, services, "people.html", context)
    response.headers["Vary"] += ", Accept"
    return response


async def show(
    request: Request, services: Services, template: str, context: Mapping[str, Any], *, status: int = 200
) -> HTMLResponse:
    """Render a page of people, with the change that it follows.

    Args:
        request: for the page.
        services: as the one sees them who asks.
        template: of the page.
        context: its values.
        status: the HTTP status.
    """
    shared = {"toast": await toast_of(request, services), "max_name": MAX_NAME}
    response = render(request, template, shared | dict(context), status=status)
    response.headers["Referrer-Policy"] = REFERRER_POLICY
    return response


def names_to_complete(services: Services) -> list[str]:
    """Return the most frequent names, each once; blocking."""
    found = services.people.find(limit=NAMES).people
    return [*dict.fromkeys(one.person.name for one in found if one.person.name)]


def frequent_people(services: Services) -> list[PersonTile]:
    """Return the people with most faces, for the start page; none if they cannot be read. Blocking."""
    try:
        return [person_tile(one) for one in services.people.find(limit=FREQUENT).people]
    except OceanoError:
        return []


def checked_after(fields: Mapping[str, Any]) -> str | None:
    """Return where a page begins; None for the first one.

    Raises:
        OceanoError: `cursor_invalid`.
    """
    after = last_of(fields, "after")
    if len(after) > _MAX_AFTER:
        raise OceanoError("cursor_invalid", "`after` is not of a page of this list")
    return after or None


def group_id_from(text: str) -> str:
    """Return the id of a group; raise `not_found` if the text is none."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise no_group() from None


def no_group() -> OceanoError:
    """Return the error of a group that is not there: groups change as faces are added and named."""
    return OceanoError("not_found", "there is no group at this address now; its faces may have a name")


def _view(services: Services, tab: str, text: str, order: Order, after: str | None) -> tuple[PeopleView, list[str]]:
    people = services.people
    if tab == "groups":
        page = people.groups(after=after, limit=GROUPS)
        view = PeopleView(tab, "", "faces", (), tuple(map(group_tile, page.groups)), page.next or "", after or "")
    else:
        found: PeoplePage = people.find(text, hidden=tab == "hidden", order=order, after=after, limit=PEOPLE)
        view = PeopleView(tab, text, order, tuple(map(person_tile, found.people)), (), found.next or "", after or "")
    return view, names_to_complete(services) if tab == "groups" else []


async def _group(request: Request, group_id: str, services: ServicesDep) -> HTMLResponse:
    fields, group_id = query_fields(request), group_id_from(group_id)
    after = checked_after(fields)
    page = await services.lookups.run(lambda: services.people.group(group_id, after=after, limit=FACES))
    if not page.faces:
        raise no_group()
    t = translator(language_of(request))
    await write_audit(request, "people.groups", {"group_id": group_id, "faces": len(page.faces)})
    context = {
        "group_id": group_id,
        "faces": face_views(page.faces, t),
        "total": page.total,
        "next": page.next or "",
        "is_first": after is None,
        "names": await services.lookups.run(names_to_complete, services),
        "once": uuid.uuid4().hex,
    }
    return await show(request, services, "group.html", context)
