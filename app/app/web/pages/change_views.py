"""Changes of people in words, and what a page says after one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from fastapi import Request
from fastapi.responses import RedirectResponse

from app.catalog import Change
from app.core.texts import Translator, translator
from app.security import LOCAL, Access
from app.service import Services
from app.service import change_words as words_of_change
from app.web.deps import current_access
from app.web.i18n import language_of
from app.web.numbers import whole_number
from app.web.pages.names import printable
from app.web.pages.people_views import shown_name
from app.web.pages.result_views import day_text
from app.web.redirects import see_other

DONE: Final = "done"
"""Query parameter of a page that follows a change: its number."""

REFUSED: Final = "refused"
"""Query parameter of a page that follows a change that could not be undone: its number."""

_MOST: Final = 1_000  # changes of a page, which has one line for all of an ingest
_LINKS: Final = 3  # people of a line
_FIRST, _LAST = "\N{FIRST STRONG ISOLATE}", "\N{POP DIRECTIONAL ISOLATE}"  # a name of another script stays in place


@dataclass(frozen=True, slots=True)
class ChangeView:
    """A change.

    Attributes:
        number: of the change.
        at: UTC, ISO 8601.
        day: in words.
        time: such as 10:42.
        who: who made it.
        text: what was done, in words.
        person_id: whom it was about; empty if it was about none.
        undone: it was undone.
        may_undo: it is not undone, and whoever sees it may do that.
        is_undo: it undid another one, which is done again if this one is undone.
        refused: why it could not be undone just now; empty if nobody tried.
        goes_to: name of the person, as a page that follows the change links to them; empty without a link.
        parts: the changes that this line stands for, newest first; empty if it is a single one.
        people: id and name of each person to link to, as a list of all changes has them.
        has_more_people: it was about others, too.
    """

    number: int
    at: str
    day: str
    time: str
    who: str
    text: str
    person_id: str
    undone: bool
    may_undo: bool
    is_undo: bool = False
    refused: str = ""
    goes_to: str = ""
    parts: tuple[ChangeView, ...] = ()
    people: tuple[tuple[str, str], ...] = ()
    has_more_people: bool = False


def change_view(change: Change, t: Translator, access: Access) -> ChangeView:
    """Make the view of a change for somebody."""
    may_undo = change.undone_by is None and access.may("curate") and access.sees_all
    return ChangeView(
        change.number,
        change.at,
        day_text(change.at[:10], t),
        change.at[11:16],
        _who(change.who, t),
        change_words(change.kind, change.details, change.faces, t),
        str(change.details.get("person_id") or ""),
        change.undone_by is not None,
        may_undo,
        change.kind == "undo" and not change.details.get("again"),
    )


def change_lines(changes: Sequence[Change], t: Translator, access: Access) -> list[ChangeView]:
    """Make the views of changes, newest first; what one ingest read from metadata is one line."""
    return [_line([*some], t, access) for _, some in groupby(changes, key=_run)]


def read_lines(
    services: Services, t: Translator, access: Access, *, person_id: str | None, before: int | None = None, limit: int
) -> tuple[list[ChangeView], bool]:
    """Read changes, newest first, until they fill some lines; blocking.

    Returns:
        At most `limit` lines, and whether older changes follow.
    """
    found: list[Change] = []
    while True:
        some = services.people.changes(person_id=person_id, before=before, limit=limit + 1)
        found += some[:limit]
        lines, is_more = sum(1 for _ in groupby(found, key=_run)), len(some) > limit
        if not is_more or lines > limit or len(found) >= _MOST:
            return change_lines(found, t, access)[:limit], is_more or lines > limit
        before = found[-1].number


def with_people(lines: Sequence[ChangeView], services: Services, t: Translator) -> list[ChangeView]:
    """Return lines with the people whom they were about and who are there still; blocking."""
    found = {one.number: _about(one, services) for one in lines}
    there = services.people.names([*dict.fromkeys(id_ for ids in found.values() for id_ in ids)])
    shown = {id_: shown_name(person, t) for id_, person in there.items()}
    return [
        replace(
            one,
            people=tuple((id_, shown[id_]) for id_ in found[one.number][:_LINKS] if id_ in shown),
            has_more_people=len(found[one.number]) > _LINKS,
        )
        for one in lines
    ]


def _about(line: ChangeView, services: Services) -> list[str]:
    """Return ids of the people whom a line was about, one more than are shown."""
    if line.person_id:
        return [line.person_id]
    return services.people.people_of_changes([one.number for one in line.parts or [line]], _LINKS + 1)


def _run(change: Change) -> object:
    """Return what the changes of one line have in common."""
    is_batch = change.kind == "metadata" and change.undone_by is None
    return (change.kind, change.who) if is_batch else change.number


def _line(changes: Sequence[Change], t: Translator, access: Access) -> ChangeView:
    views = [change_view(one, t, access) for one in changes]
    newest, oldest = views[0], views[-1]
    if len(views) == 1:
        return newest
    time = newest.time
    if newest.day != oldest.day:
        time = f"{oldest.day}, {oldest.time} – {newest.day}, {newest.time}"
    elif newest.time != oldest.time:
        time = f"{oldest.time} – {newest.time}"
    people = {one.person_id for one in views}
    return replace(
        newest,
        day=newest.day if newest.day == oldest.day else "",
        time=time,
        text=change_words(changes[0].kind, {}, sum(one.faces for one in changes), t),
        person_id=newest.person_id if len(people) == 1 else "",
        may_undo=False,
        parts=tuple(views),
    )


def change_words(kind: str, details: Mapping[str, Any], faces: int, t: Translator) -> str:
    """Say in a sentence what a change did."""
    return words_of_change(kind, details, faces, t, lambda name: _name(name, t))


def _who(who: str, t: Translator) -> str:
    """Say who made a change: `local` is everybody while no key is needed."""
    kind, _, name = who.partition(" ")
    if who == LOCAL.who:
        return t("change.who_local")
    return t("change.who_key", name=printable(name)) if kind == "key" else printable(name or who)


async def toast_of(request: Request, services: Services) -> ChangeView | None:
    """Return the change that the page follows, to be told and undone; None if it follows none.

    Somebody who sees some folders only is not told of changes, which may be about others.
    """
    access, t = current_access(request), translator(language_of(request))
    if not (access.may("curate") and access.sees_all):
        return None
    if number := refused_in(request):
        return await services.lookups.run(_refused, services, number, t, access)
    number = _number(request.query_params.get(DONE, ""))
    return await services.lookups.run(_done, services, number, t, access, request.scope["path"]) if number else None


def refused_in(request: Request) -> int:
    """Return the number of the change that could not be undone before this page; 0 if there is none."""
    return _number(request.query_params.get(REFUSED, ""))


def _number(text: str) -> int:
    return whole_number(text) or 0


def _done(services: Services, number: int, t: Translator, access: Access, path: str) -> ChangeView | None:
    """Return a change with a link to its person, if they are still there and this is not their page."""
    change = services.people.change(number)
    if change is None:
        return None
    view = change_view(change, t, access)
    person = services.people.names([view.person_id]).get(view.person_id) if view.person_id else None
    if person is None or path == f"/person/{person.id}":
        return view
    return replace(view, goes_to=_name(person.name, t))


def _refused(services: Services, number: int, t: Translator, access: Access) -> ChangeView | None:
    """Return a change with why it cannot be undone."""
    change = services.people.change(number)
    if change is None:
        return None
    view = change_view(change, t, access)
    if change.undone_by is not None:
        return replace(view, refused=t("change.refused_undone"))
    later = services.people.later_change(number)
    if later is None:
        return replace(view, refused=t("change.refused"), may_undo=False)
    what = change_words(later.kind, later.details, later.faces, t)
    return replace(view, refused=t("change.refused_later", what=what), may_undo=False)


def with_done(address: str, change: Change | None) -> str:
    """Return the address of a page that tells of a change; without one, the address as it would be without telling."""
    return _telling(address, [] if change is None else [(DONE, str(change.number))])


def with_refused(address: str, number: int) -> str:
    """Return the address of a page that says why a change could not be undone; of the history, at its line."""
    told = _telling(address, [(REFUSED, str(number))])
    return f"{told.partition('#')[0]}#change-{number}" if told.startswith("/changes?") else told


def _telling(address: str, told: Sequence[tuple[str, str]]) -> str:
    """Return an address that tells this, and nothing that it told before."""
    rest, hash_sign, fragment = address.partition("#")
    path, _, query = rest.partition("?")
    pairs = [
        (name, value)
        for name, value in parse_qsl(query, keep_blank_values=True, errors="replace")
        if name not in (DONE, REFUSED)
    ]
    pairs += told
    return f"{path}{'?' if pairs else ''}{urlencode(pairs)}{hash_sign}{fragment}"


def back_to(request: Request, address: str, change: Change | None) -> RedirectResponse:
    """Send the browser to the page that follows a change.

    The number of a change says how many there are: it is not told to somebody who sees some folders only.
    """
    return see_other(request, with_done(address, change if current_access(request).sees_all else None))


def _name(value: object, t: Translator) -> str:
    return f"{_FIRST}{printable(str(value)) if value else t('person.no_name')}{_LAST}"
