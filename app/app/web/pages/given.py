"""Filters as a person typed them: a wrong one is left out and explained beside its field, and the result stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.core.errors import OceanoError
from app.core.paths import absolute
from app.core.types import FaceFilter
from app.service import Services, find_folders
from app.web.pages.filters import Fields, Filters, read_filters
from app.web.pages.form_fields import all_of, last_of
from app.web.pages.names import encodable

# fields that people type into, besides the folder, with the causes of errors
_TYPED: Final = {"from": "date", "to": "date", "min_face": "min_face", "least": "least"}
_MAX_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class WrongField:
    """A field of the filters that was left out.

    Attributes:
        value: what was typed, for the field.
        cause: end of the key of its text, `wrong.CAUSE`; empty if the text is beside another field.
        folders: known folders to choose from.
    """

    value: str
    cause: str
    folders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Given:
    """The filters of a request, without its wrong fields, which are by name."""

    filters: Filters
    wrong: Mapping[str, WrongField]


async def read_given(services: Services, sent: Fields) -> Given:
    """Read the filters of a page, and find the folders that a text names.

    Args:
        services: has the index, which knows the folders, and the model's threshold.
        sent: as for `read_filters`.

    Raises:
        OceanoError: `invalid_request` for a field that nobody types; `cursor_invalid`, `index_unavailable`.
    """
    fields, wrong = dict(sent), dict[str, WrongField]()
    if typed := all_of(sent, "folder"):
        fields["folder"], unknown = await services.lookups.run(_known_folders, services, typed)
        wrong |= {} if unknown is None else {"folder": unknown}
    while True:
        try:
            filters = read_filters(fields)
        except OceanoError as failure:
            field = str(failure.details.get("field"))
            if field not in _TYPED or failure.code != "invalid_request":
                raise
            is_order = failure.details.get("cause") == "order"
            cause = "order" if is_order else _TYPED[field]
            for name in ("from", "to") if is_order else (field,):
                wrong[name] = WrongField(_shown(last_of(fields, name)), cause if name == field else "")
                del fields[name]
        else:
            return Given(filters.plain(services.engine.pack.threshold), wrong)


def _known_folders(services: Services, typed: Sequence[str]) -> tuple[list[str], WrongField | None]:
    """Return the paths of known folders, and what is wrong with the last text that names none."""
    known, wrong = [], None
    for text in map(str.strip, typed):
        path = absolute(Path(text)) if text.startswith("/") else ""
        if path and services.index.scroll(limit=1, where=FaceFilter(folder=path)).records:
            known.append(path)
            continue
        found = find_folders(services.index, text)
        if found.is_sure and not path:
            known.append(found.paths[0])
            continue
        cause = "folders" if found.is_named else "folder_like" if found.paths else "folder"
        wrong = WrongField(_shown(text), cause, found.paths)
    return known, wrong


def _shown(text: str) -> str:
    return encodable(text.strip())[:_MAX_SHOWN]
