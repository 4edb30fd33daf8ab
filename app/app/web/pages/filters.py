"""The filters of a result: read from a query string or a form, turned into a query, written as a query string.

The result pages and the exports use the same names, so an address of one works for the other.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, get_args
from urllib.parse import urlencode

from app.core.errors import OceanoError
from app.core.paths import absolute
from app.core.types import FaceFilter, Floats
from app.service import SURENESSES, GroupBy, Query, Sort, Sureness, face_filter, is_later, two_decimals
from app.web.api.images import IMAGE_ID
from app.web.numbers import whole_number

Size = Literal["s", "m", "l"]
Fields = Mapping[str, "str | Sequence[str]"]

LEAST_MIN: Final = 0.2
LEAST_MAX: Final = 0.9
MAX_EXAMPLES: Final = 10

_GROUPS: Final[Mapping[str, GroupBy]] = MappingProxyType(
    {"image": "image_id", "person": "person", "day": "day", "alike": "alike"}
)
_MAX_FOLDERS: Final = 20
_MAX_PATH: Final = 4096
_MAX_SIDE: Final = 10_000
_MAX_DIGITS: Final = 9
_MAX_AFTER: Final = 10_000
_BANDS: Final = re.compile(r"[01](\.[0-9]{1,6})?,[01](\.[0-9]{1,6})?")
_DATE: Final = re.compile(r"[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?")


@dataclass(frozen=True, slots=True)
class Filters:
    """What a result shows, and in which order.

    Attributes:
        folders: absolute paths; images in or below any of them.
        taken_from: earliest day, as a year, month or day of ISO 8601; empty: any.
        taken_to: latest day, inclusive, as `taken_from`.
        undated: only images without a date.
        min_face: least length of the shorter side of a face's bounding box, in pixels; None: any.
        clear: leave out faces with a flaw.
        least: lowest cosine similarity, LEAST_MIN to LEAST_MAX; None: the model's own.
        sureness: which ones are shown; empty: all.
        sort: the order of the matches.
        group: one card per image, person, day or set of near-identical images; None: one per face.
        examples: face_ids, further examples of the person.
        together: face_ids of persons who must be in the same image.
        unlike: face_ids of other people, whose matches are left out.
        photo: image_id of the only image whose faces are shown; empty: any.
        named: id of the only person whose faces are shown; empty: any.
        unnamed: only faces without a person.
        after: where the page begins, `ResultPage.next` of the page before; empty: at the first match.
        bands: on a page after the first, where likely and very likely began on the first one, such as 0.41,0.52; empty:
            where they begin now, which changes as the index grows.
        size: of the cards: small, medium, large.
    """

    folders: tuple[str, ...] = ()
    taken_from: str = ""
    taken_to: str = ""
    undated: bool = False
    min_face: int | None = None
    clear: bool = False
    least: float | None = None
    sureness: tuple[Sureness, ...] = ()
    sort: Sort = "similarity"
    group: str | None = None
    examples: tuple[str, ...] = ()
    together: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()
    photo: str = ""
    named: str = ""
    unnamed: bool = False
    after: str = ""
    bands: str = ""
    size: Size = "m"

    def plain(self, threshold: float) -> Filters:
        """Return the same filters, without a `least` that is the model's threshold: forms always send one."""
        return replace(self, least=None) if self.least == round(threshold, 2) else self

    def where(self) -> FaceFilter | None:
        """Return the filter of the index; None if there is none."""
        where = face_filter(self.folders, self.taken_from, self.taken_to, undated=self.undated, clear=self.clear)
        if not self.photo and not self.named and not self.unnamed:
            return where
        return replace(
            where or FaceFilter(), image_id=self.photo or None, person=self.named or None, unnamed=self.unnamed
        )

    def query(
        self, embedding: Floats, *, threshold: float, together: Sequence[Floats] = (), unlike: Sequence[Floats] = ()
    ) -> Query:
        """Return the query for a person.

        Args:
            embedding: of the person, all examples combined, float32, (D,).
            threshold: the model's, used unless `least` is set.
            together: embeddings of the faces in `together`.
            unlike: embeddings of the faces in `unlike`.
        """
        return Query(
            embedding,
            threshold if self.least is None else self.least,
            self.where(),
            self.sort,
            None if self.group is None else _GROUPS[self.group],
            self.min_face,
            tuple(unlike),
            tuple(together),
        )

    def pairs(self, **changes: Any) -> list[tuple[str, str]]:
        """Return the names and values of all filters that are not at their default, with `changes` to attributes.

        They begin at the first match unless `changes` name a page.
        """
        changed = replace(self, **{**FIRST_PAGE, **changes})
        pairs: list[tuple[str, str]] = []
        for attribute, name in _NAMES.items():
            value = getattr(changed, attribute)
            if value == _DEFAULTS[attribute]:
                continue
            values = value if isinstance(value, tuple | list) else (value,)
            pairs += [(name, _text(one)) for one in values]
        return pairs

    def query_string(self, **changes: Any) -> str:
        """Return the `pairs` as a query string, without "?"."""
        return urlencode(self.pairs(**changes), encoding="utf-8", errors="surrogatepass")


_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "folders": "folder",
        "taken_from": "from",
        "taken_to": "to",
        "undated": "undated",
        "min_face": "min_face",
        "clear": "clear",
        "least": "least",
        "sureness": "sureness",
        "sort": "sort",
        "group": "group",
        "examples": "example",
        "together": "with",
        "unlike": "not",
        "photo": "photo",
        "named": "named",
        "unnamed": "unnamed",
        "after": "after",
        "bands": "bands",
        "size": "size",
    }
)
FIRST_PAGE: Final[Mapping[str, str]] = MappingProxyType({"after": "", "bands": ""})  # changes to any page's filters
FILTER_NAMES: Final = frozenset(_NAMES.values())
_DEFAULTS: Final[Mapping[str, object]] = MappingProxyType({field.name: field.default for field in fields(Filters)})
_NO_CONDITIONS: Final = frozenset({"least", "sort", "group", "examples", "after", "bands", "size"})
WITHOUT_CONDITIONS: Final[Mapping[str, Any]] = MappingProxyType(
    {name: default for name, default in _DEFAULTS.items() if name not in _NO_CONDITIONS}
)


def read_filters(sent: Fields) -> Filters:
    """Read the filters of a query string or a form; blank and other fields are skipped.

    Args:
        sent: a field that was sent several times has a list; of one with a single value, the last counts.

    Raises:
        OceanoError: `invalid_request` with the field and its value.
    """
    start, end = (_date(_last(sent, name), name) for name in ("from", "to"))
    if is_later(start, end):
        raise _wrong("from", start, f"not later than to={end}", cause="order")
    return Filters(
        folders=_folders(_all(sent, "folder")),
        taken_from=start,
        taken_to=end,
        undated=bool(_last(sent, "undated")),
        min_face=_side(_last(sent, "min_face")),
        clear=bool(_last(sent, "clear")),
        least=_least(_last(sent, "least")),
        sureness=_surenesses(_all(sent, "sureness")),
        sort=_one_of(_last(sent, "sort"), "sort", get_args(Sort)) or "similarity",
        group=_one_of(_last(sent, "group"), "group", tuple(_GROUPS)) or None,
        examples=_face_ids(sent, "example", MAX_EXAMPLES - 1),
        together=_face_ids(sent, "with", MAX_EXAMPLES),
        unlike=_face_ids(sent, "not", MAX_EXAMPLES),
        photo=_image_id(_last(sent, "photo")),
        named=_person_id(_last(sent, "named")),
        unnamed=bool(_last(sent, "unnamed")),
        after=_after(_last(sent, "after")),
        bands=_bands(_last(sent, "bands")),
        size=_one_of(_last(sent, "size"), "size", get_args(Size)) or "m",
    )


def _all(sent: Fields, name: str) -> list[str]:
    value = sent.get(name, ())
    values = [value] if isinstance(value, str) else value
    return [one.strip() for one in values if one.strip()]


def _last(sent: Fields, name: str) -> str:
    values = _all(sent, name)
    return values[-1] if values else ""


def _text(value: object) -> str:
    if value is True:
        return "1"
    return two_decimals(value) if isinstance(value, float) else str(value)


def _folders(paths: Sequence[str]) -> tuple[str, ...]:
    for path in paths:
        if not path.startswith("/") or len(path) > _MAX_PATH:
            raise _wrong("folder", path, f"an absolute path of at most {_MAX_PATH} characters, such as /photos/2021")
    folders = tuple(dict.fromkeys(absolute(Path(path)) for path in paths))
    if len(folders) > _MAX_FOLDERS:
        raise _wrong("folder", folders[-1], f"one of at most {_MAX_FOLDERS} folders")
    return folders


def _date(text: str, name: str) -> str:
    try:
        if text and _DATE.fullmatch(text):
            date.fromisoformat((text + "-01-01")[:10])
            return text
    except ValueError:
        pass
    if text:
        raise _wrong(name, text, "a year, month or day, such as 2021, 2021-06 or 2021-06-30")
    return ""


def _side(text: str) -> int | None:
    if not text:
        return None
    if not 1 <= (side := whole_number(text, _MAX_DIGITS) or 0) <= _MAX_SIDE:
        raise _wrong("min_face", text, f"a number of pixels from 1 to {_MAX_SIDE}")
    return side


def _least(text: str) -> float | None:
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not LEAST_MIN <= number <= LEAST_MAX:
        raise _wrong("least", text, f"a number from {LEAST_MIN:g} to {LEAST_MAX:g}")
    return round(number, 2)


def _one_of(text: str, name: str, values: Sequence[str]) -> Any:
    if text and text not in values:
        raise _wrong(name, text, f"one of {', '.join(values)}")
    return text


def _surenesses(given: Sequence[str]) -> tuple[Sureness, ...]:
    for one in given:
        _one_of(one, "sureness", SURENESSES)
    chosen = tuple(one for one in SURENESSES if one in given)
    return () if chosen == SURENESSES else chosen


def _bands(text: str) -> str:
    if text and not _BANDS.fullmatch(text):
        raise _wrong("bands", text, "two similarities, such as 0.41,0.52")
    return text


def _face_ids(sent: Fields, name: str, most: int) -> tuple[str, ...]:
    given = _all(sent, name)
    try:
        face_ids = tuple(dict.fromkeys(str(uuid.UUID(one)) for one in given))
    except ValueError:
        raise _wrong(name, ", ".join(given), "the id of an indexed face") from None
    if len(face_ids) > most:
        raise _wrong(name, face_ids[-1], f"one of at most {most} faces")
    return face_ids


def _image_id(text: str) -> str:
    if text and not IMAGE_ID.fullmatch(text):
        raise _wrong("photo", text, "the id of an indexed image")
    return text


def _person_id(text: str) -> str:
    try:
        return str(uuid.UUID(text)) if text else ""
    except ValueError:
        raise _wrong("named", text, "the id of a person") from None


def _after(text: str) -> str:
    if len(text) > _MAX_AFTER:
        raise OceanoError("cursor_invalid", "`after` is not of a page of these matches")
    return text


def _wrong(name: str, value: str, valid: str, **details: str) -> OceanoError:
    return OceanoError(
        "invalid_request",
        f"{name} must be {valid}",
        details={"field": name, "value": value[:64].encode("utf-8", "replace").decode(), **details},
    )
