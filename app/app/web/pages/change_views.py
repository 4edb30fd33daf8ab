"""Changes of people in words, and what a page says after one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from fastapi import Request
from fastapi.responses import RedirectResponse

from app.catalog import Change
from app.security import Access
from app.service import Services
from app.web.deps import current_access
from app.web.i18n import Translator, language_of, translator
from app.web.pages.names import printable
from app.web.pages.result_views import day_text
from app.web.redirects import see_other

DONE: Final = "done"
"""Query parameter of a page that follows a change: its number."""

_MAX_DIGITS: Final = 15
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


def change_view(change: Change, t: Translator, access: Access) -> ChangeView:
    """Make the view of a change for somebody."""
    may_undo = change.undone_by is None and access.may("curate") and access.sees_all
    return ChangeView(
        change.number,
        change.at,
        day_text(change.at[:10], t),
        change.at[11:16],
        printable(change.who),
        change_words(change.kind, change.details, change.faces, t),
        str(change.details.get("person_id") or ""),
        change.undone_by is not None,
        may_undo,
    )


def change_words(kind: str, details: Mapping[str, Any], faces: int, t: Translator) -> str:
    """Say in a sentence what a change did."""
    name, new = _name(details.get("name"), t), _name(details.get("new"), t)
    key = f"change.{kind}"
    if kind == "undo":
        return _undone(str(details.get("undone")), details, faces, t)
    if kind == "edit":
        hidden = details.get("hidden")
        what = "edit" if hidden is None else "hide" if hidden else "show"
        return t("change.rename", name=name, new=new) if "new" in details else t(f"change.{what}", name=name)
    if kind == "dismiss":
        key = f"change.dismiss_{details.get('to') or 'back'}"
    if kind == "merge":
        others = ", ".join(_name(one, t) for one in details.get("merged") or [])
        return t("change.merge", name=name, others=others)
    if f"{key}.one" in t.texts:
        return t.count(key, faces, name=name, new=new)
    return t(key, name=name) if key in t.texts else t.count("change.other", faces, kind=printable(kind), name=name)


def _undone(kind: str, details: Mapping[str, Any], faces: int, t: Translator) -> str:
    """Say what was undone; of a change that undid another one, only that it is done again."""
    return t("change.undo_undo") if kind == "undo" else t("change.undo", what=change_words(kind, details, faces, t))


async def toast_of(request: Request, services: Services) -> ChangeView | None:
    """Return the change that the page follows, to be told and undone; None if it follows none.

    Somebody who sees some folders only is not told of changes, which may be about others.
    """
    text = request.query_params.get(DONE, "")
    access = current_access(request)
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS and access.may("curate")):
        return None
    if not access.sees_all:
        return None
    change = await services.lookups.run(services.people.change, int(text))
    return None if change is None else change_view(change, translator(language_of(request)), access)


def with_done(address: str, change: Change | None) -> str:
    """Return the address of a page that tells of a change; without one, the address as it would be without telling."""
    rest, hash_sign, fragment = address.partition("#")
    path, _, query = rest.partition("?")
    pairs = [
        (name, value)
        for name, value in parse_qsl(query, keep_blank_values=True, errors="surrogatepass")
        if name != DONE
    ]
    if change is not None:
        pairs.append((DONE, str(change.number)))
    return f"{path}{'?' if pairs else ''}{urlencode(pairs, errors='surrogatepass')}{hash_sign}{fragment}"


def back_to(request: Request, address: str, change: Change | None) -> RedirectResponse:
    """Send the browser to the page that follows a change.

    The number of a change says how many there are: it is not told to somebody who sees some folders only.
    """
    return see_other(request, with_done(address, change if current_access(request).sees_all else None))


def _name(value: object, t: Translator) -> str:
    return f"{_FIRST}{printable(str(value)) if value else t('person.no_name')}{_LAST}"
