"""The lists of people: with a name, hidden; of faces without one: in groups, single, dismissed. And one group."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.catalog import DismissalKind, Order
from app.core.errors import OceanoError
from app.core.texts import Translator, translator
from app.people import MAX_NAME
from app.security import hash_of
from app.service import PeoplePage, Services, ShownPerson
from app.web.audit import write_audit
from app.web.csrf import REFERRER_POLICY
from app.web.deps import ServicesDep
from app.web.i18n import language_of
from app.web.pages.change_views import toast_of
from app.web.pages.form_fields import last_of, query_fields
from app.web.pages.people_views import FaceView, GroupTile, PersonTile, face_views, group_tile, person_tile
from app.web.pages.templating import render

TABS: Final = ("named", "groups", "single", "aside", "hidden")
KINDS: Final[tuple[DismissalKind, ...]] = ("set_aside", "not_a_face")
PEOPLE: Final = 120  # tiles of a page
GROUPS: Final = 30
FACES: Final = 120
NAMES: Final = 300  # that fields for names complete
WAITING: Final = 8  # people with faces to be confirmed
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
        waiting: those with most faces to be confirmed.
        groups: groups of unnamed faces.
        faces: single or dismissed ones.
        kind: how these faces were dismissed; empty in other lists.
        next: where the next page begins; empty at the end.
        after: where this page begins; empty: it is the first one.
    """

    tab: str
    text: str
    order: Order
    people: tuple[PersonTile, ...]
    waiting: tuple[PersonTile, ...]
    groups: tuple[GroupTile, ...]
    faces: tuple[FaceView, ...]
    kind: str
    next: str
    after: str

    @property
    def is_of_people(self) -> bool:
        """Whether the list has people, who can be searched and ordered."""
        return self.tab in ("named", "hidden")

    @property
    def is_first(self) -> bool:
        """Whether no page is before it."""
        return not self.after

    def query(self, **changes: str) -> str:
        """Return the query string of the page with changes; blank values are left out."""
        order = "" if self.order == "faces" else self.order
        tab = "" if self.tab == TABS[0] else self.tab
        kind = "" if self.kind in ("", KINDS[0]) else self.kind
        values = {"tab": tab, "kind": kind, "q": self.text, "order": order} | changes
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
    if tab in ("named", "hidden"):
        view = await services.lookups.run(_of_people, services, tab, text, order, after)
    else:
        kind = KINDS[1] if last_of(fields, "kind") == KINDS[1] else KINDS[0]
        t = translator(language_of(request))
        view = await services.lookups.run(_of_faces, services, tab, kind, after, t)
    await _write(request, view)
    names = [] if view.is_of_people else await services.lookups.run(names_to_complete, services)
    context = {"view": view, "names": names, "tabs": TABS, "kinds": KINDS, "once": uuid.uuid4().hex}
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
        context: its values; `toast`, if that change is known already.
        status: the HTTP status.
    """
    values = {"max_name": MAX_NAME, **context}
    if "toast" not in values:
        values["toast"] = await toast_of(request, services)
    response = render(request, template, values, status=status)
    response.headers["Referrer-Policy"] = REFERRER_POLICY
    return response


def names_to_complete(services: Services) -> list[str]:
    """Return the most frequent names, each once; blocking."""
    return services.people.frequent_names(NAMES)


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


def _of_people(services: Services, tab: str, text: str, order: Order, after: str | None) -> PeopleView:
    found: PeoplePage = services.people.find(text, hidden=tab == "hidden", order=order, after=after, limit=PEOPLE)
    waiting = services.people.unnamed.waiting()
    is_start = tab == "named" and not text and after is None
    most = services.people.with_waiting(waiting, limit=WAITING) if is_start else ()

    def tiles(people: Iterable[ShownPerson]) -> tuple[PersonTile, ...]:
        return tuple(person_tile(one, waiting.get(one.person.id, 0)) for one in people)

    return PeopleView(tab, text, order, tiles(found.people), tiles(most), (), (), "", found.next or "", after or "")


def _of_faces(services: Services, tab: str, kind: DismissalKind, after: str | None, t: Translator) -> PeopleView:
    """Return the list of groups, of single faces, or of those that were dismissed in a way."""
    unnamed = services.people.unnamed
    if tab == "groups":
        page = unnamed.groups(after=after, limit=GROUPS)
        tiles = tuple(map(group_tile, page.groups))
        return PeopleView(tab, "", "faces", (), (), tiles, (), "", page.next or "", after or "")
    if tab == "single":
        found, said = unnamed.single(after=after, limit=FACES), ""
    else:
        found, said = unnamed.dismissed(kind, after=after, limit=FACES), kind
    faces = face_views(found.faces, t)
    return PeopleView(tab, "", "faces", (), (), (), faces, said, found.next or "", after or "")


async def _write(request: Request, view: PeopleView) -> None:
    if view.is_of_people:
        asked = {"people": len(view.people), "name": hash_of(view.text) if view.text else None}
        await write_audit(request, "people.list", asked)
    elif view.tab == "groups":
        await write_audit(request, "people.groups", {"groups": len(view.groups)})
    elif view.tab == "single":
        await write_audit(request, "people.unnamed", {"faces": len(view.faces)})
    else:
        await write_audit(request, "people.dismissed", {"kind": view.kind, "faces": len(view.faces)})


async def _group(request: Request, group_id: str, services: ServicesDep) -> HTMLResponse:
    fields, group_id = query_fields(request), group_id_from(group_id)
    after = checked_after(fields)
    page = await services.lookups.run(lambda: services.people.unnamed.group(group_id, after=after, limit=FACES))
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
