"""View models of a result: cards, crops, tabs, chips and counts, ready for the templates."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import urlencode

import numpy as np

from app.core.types import BBox, Floats, Picture
from app.images import preview_webp
from app.service import Bands, Facets, ListedMatch, ResultPage, Sureness
from app.web.i18n import Translator
from app.web.pages.asked import Asked, Example
from app.web.pages.filters import Filters

SURENESSES: Final[tuple[Sureness, ...]] = ("very_likely", "likely", "look_closely")

_PREVIEW_SIDE: Final = 1024
_SHOWN_FLAWS: Final = ("blurred", "extreme_pose", "face_too_small", "low_detection_score")  # the first is shown


@dataclass(frozen=True, slots=True)
class Place:
    """The address of a result, and of the same result with other filters.

    Attributes:
        address: path below the root, such as `/face/ID`; empty for photographs sent without JavaScript, whose result
            has no address: each link is then a button of the form.
        filters: of the result.
        face: number of the chosen face of a photograph, from 1; 0 if there is nothing to choose.
        beside: numbers of the faces that must be in the same image.
    """

    address: str
    filters: Filters
    face: int = 0
    beside: tuple[int, ...] = ()

    def to(self, *, face: int | None = None, beside: Sequence[int] | None = None, **changes: Any) -> str:
        """Return the query string with changes; it begins at the first match unless `after` is one of them."""
        pairs = self.filters.pairs(**({"after": ""} | changes))
        chosen = self.face if face is None else face
        pairs += [("face", str(chosen))] if chosen else []
        pairs += [("beside", str(number)) for number in (self.beside if beside is None else beside)]
        if not pairs and self.address.startswith("/kept/"):
            pairs = [("all", "1")]  # without a query string, a kept search has the filters that it was kept with
        return urlencode(pairs, encoding="utf-8", errors="surrogatepass")

    @property
    def whole(self) -> str:
        """The address with its query string."""
        return self.whole_with()

    def whole_with(self, **changes: Any) -> str:
        """Return the address with changes to the filters."""
        query = self.to(**changes)
        return f"{self.address}?{query}" if query else self.address


@dataclass(frozen=True, slots=True)
class CardView:
    """A match.

    Attributes:
        face_id: the stored face.
        image_id: its image.
        event: name of the folder, which names the event in most archives.
        name: name of the file.
        path: the path of the file.
        when: the day of the photograph in words; empty if unknown.
        day: the same in ISO 8601.
        similarity: two decimals, rounded down, so that what shows as 0.40 reaches a threshold of 0.40.
        sureness: what the similarity means.
        person: a name, if known.
        more: further matches of its group.
        flaw: why the face may be hard to recognise; empty if it is clear.
        page: number of the page of the file, from 1; 0 for a first page.
        is_same: the query is a face of this very image.
        heading: text above the card in a list by time, where another day begins; else empty.
    """

    face_id: str
    image_id: str
    event: str
    name: str
    path: str
    when: str
    day: str
    similarity: str
    sureness: Sureness
    person: str
    more: int
    flaw: str
    page: int
    is_same: bool
    heading: str


@dataclass(frozen=True, slots=True)
class CropView:
    """An example of the person, or a face to choose.

    Attributes:
        number: from 1.
        source: address of the crop below the root, or a data: URL; empty if there is none.
        is_doubtful: it may be someone else.
        token: see `Example`.
        crop: see `Example`.
        face_id: see `Example`.
        remove: address of the result without this example; empty if there is none.
        without: query string without this example; empty if there is none.
        drop: number among the examples with a token, for the form's button that removes it; 0 if there is none.
    """

    number: int
    source: str
    is_doubtful: bool
    token: str
    crop: str
    face_id: str
    remove: str = ""
    without: str = ""
    drop: int = 0


@dataclass(frozen=True, slots=True)
class OutlineView:
    """A face in the photograph that was sent. Shapes are SVG attributes in pixels of the upright photograph.

    Attributes:
        number: from 1.
        box: x, y, width and height.
        corners: a path that marks the corners of the box, as in a viewfinder.
        badge: centre x, centre y and radius of the circle with the number.
    """

    number: int
    box: BBox
    corners: str
    badge: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class PhotographView:
    """The photograph that was sent, reduced for the page.

    Attributes:
        uri: a data: URL.
        width: of the upright original in pixels.
        height: the same.
        outlines: of its faces.
    """

    uri: str
    width: int
    height: int
    outlines: tuple[OutlineView, ...]


@dataclass(frozen=True, slots=True)
class BandView:
    """A tick of the rail: whether matches of a sureness are shown.

    Attributes:
        sureness: which.
        is_on: they are shown.
        least: the lowest similarity after a click on it.
        count: number of matches; None if not counted.
    """

    sureness: Sureness
    is_on: bool
    least: float
    count: int | None


@dataclass(frozen=True, slots=True)
class BarView:
    """A year of the histogram.

    Attributes:
        year: such as 2021.
        count: number of matches.
        height: of its bar, 0 to 100.
        is_chosen: the date filter is this year.
    """

    year: str
    count: int
    height: int
    is_chosen: bool


@dataclass(frozen=True, slots=True)
class FacetsView:
    """Counts of all matches.

    Attributes:
        total: number of matches.
        is_cut: there are more than were counted.
        bars: by year, earliest first.
        undated: matches without a date.
        folders: path, name and number of matches, most first.
    """

    total: int
    is_cut: bool
    bars: tuple[BarView, ...]
    undated: int
    folders: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, slots=True)
class KeptView:
    """A kept search.

    Attributes:
        kept_id: in its address.
        name: given by the user.
        crop: a data: URL; empty if there is none.
        ends: the day on which it is deleted.
        examples: number of its examples.
    """

    kept_id: str
    name: str
    crop: str
    ends: str
    examples: int


@dataclass(frozen=True, slots=True)
class ResultView:
    """All that the result page shows.

    Attributes:
        place: its address and filters.
        examples: of the person.
        choices: faces of the photograph to choose from.
        photograph: the photograph, if this request brought it.
        cards: the matches of this page.
        first: position of the first one, from 1.
        last: position of the last one.
        total: number of all matches; None if unknown.
        next: where the next page begins; None at the end.
        undated_left_out: matches without a date that the date filter leaves out; None without this filter.
        closest: the highest similarity of any face, if no match was found; empty if no face resembles the person.
        least: the lowest similarity that is shown, two decimals.
        bands: ticks of the rail.
        facets: counts; None if they are loaded later.
        took_ms: milliseconds of the search.
        token: holds the whole query, for exports; empty if the result starts from an indexed face.
        kept: the kept search whose result it is; None for others.
    """

    place: Place
    examples: tuple[CropView, ...]
    choices: tuple[CropView, ...]
    photograph: PhotographView | None
    cards: tuple[CardView, ...]
    first: int
    last: int
    total: int | None
    next: str | None
    undated_left_out: int | None
    closest: str
    least: str
    bands: tuple[BandView, ...]
    facets: FacetsView | None
    took_ms: int
    token: str
    kept: KeptView | None = None

    def count(self, t: Translator) -> str:
        """Return the number of matches: exact if it is known, else "100+"."""
        unit = self.place.filters.group or "face"
        if self.total is not None:
            return t.count(f"result.count.{unit}", self.total)
        if self.next is None:
            return t.count(f"result.count.{unit}", self.last)
        return t(f"result.count.{unit}.other", n=f"{t.number(self.last)}+")


def cards(found: Sequence[ListedMatch], bands: Bands, filters: Filters, t: Translator, same: str) -> list[CardView]:
    """Make the cards of a page.

    Args:
        found: the matches.
        bands: say what a similarity means.
        filters: a list by time gets a heading for each day.
        t: the language.
        same: image_id of the face that the result starts from; empty for none.
    """
    views = []
    day = None
    for listed in found:
        match, payload = listed.match, listed.match.payload
        path = PurePosixPath(printable(payload.path))
        when = day_text(payload.taken_at, t)
        heading = (when or t("result.undated")) if filters.sort != "similarity" and when != day else ""
        day = when
        views.append(
            CardView(
                face_id=match.face_id,
                image_id=payload.image_id,
                event=path.parent.name or str(path.parent),
                name=path.name,
                path=str(path),
                when=when,
                day=(payload.taken_at or "")[:10],
                similarity=two_decimals(match.similarity),
                sureness=bands.of(match.similarity),
                person=printable(payload.person or ""),
                more=listed.group_size - 1,
                flaw=next((flaw for flaw in _SHOWN_FLAWS if flaw in payload.flaws), ""),
                page=payload.page + 1 if payload.page else 0,
                is_same=payload.image_id == same,
                heading=heading,
            )
        )
    return views


def crop_view(example: Example, number: int) -> CropView:
    """Make the view of an example; `number` counts from 1."""
    source = f"/thumbs/{example.face_id}" if example.face_id else ""
    if example.crop:
        source = f"data:image/jpeg;base64,{example.crop}"
    return CropView(number, source, example.is_doubtful, example.token, example.crop, example.face_id)


def example_views(examples: Sequence[Example], place: Place) -> tuple[CropView, ...]:
    """Make the views of the examples of a person, with the way to remove each if there are several."""
    views = [crop_view(example, number) for number, example in enumerate(examples, 1)]
    if len(views) == 1:
        return tuple(views)
    tokens = 0
    removable = []
    for number, view in enumerate(views, 1):
        tokens += bool(view.token)
        others = tuple(one.face_id for other, one in enumerate(examples, 1) if one.face_id and other != number)
        if not view.face_id:  # those of a kept search stay
            removable.append(replace(view, drop=0 if place.address.startswith("/kept/") else tokens))
        elif place.address.startswith("/face/"):
            elsewhere = replace(place, address=f"/face/{others[0]}")
            removable.append(replace(view, remove=elsewhere.whole_with(examples=others[1:])))
        else:
            removable.append(replace(view, without=place.to(examples=others) or "size=m"))
    return tuple(removable)


def photograph_view(asked: Asked) -> PhotographView | None:
    """Reduce the photograph and outline its faces; slow. None if the request brought none, or several."""
    if asked.picture is None:
        return None
    picture, faces = asked.picture, asked.choices or asked.examples
    outlines = [
        outline(one.bbox, number, picture.width, picture.height) for number, one in enumerate(faces, 1) if one.bbox
    ]
    return reduced(picture, outlines)


def reduced(picture: Picture, outlines: Sequence[OutlineView] = ()) -> PhotographView:
    """Reduce a photograph for the page; slow."""
    webp, _ = preview_webp(picture.pixels, _PREVIEW_SIDE)
    uri = f"data:image/webp;base64,{base64.b64encode(webp).decode('ascii')}"
    return PhotographView(uri, picture.width, picture.height, tuple(outlines))


def outline(box: BBox, number: int, width: int, height: int) -> OutlineView:
    """Make the outline of a face in a photograph of `width` x `height` pixels."""
    x1, y1, x2, y2 = box
    longest, shorter = max(width, height), min(x2 - x1, y2 - y1)
    radius = max(0.016 * longest, min(0.04 * longest, 0.35 * shorter))  # readable, but does not cover a small face
    leg = 0.24 * shorter
    ends = ((x1, y1, leg, leg), (x2, y1, -leg, leg), (x2, y2, -leg, -leg), (x1, y2, leg, -leg))
    return OutlineView(
        number,
        (round(x1, 1), round(y1, 1), round(x2 - x1, 1), round(y2 - y1, 1)),
        "".join(f"M{x + dx:.1f} {y:.1f}H{x:.1f}V{y + dy:.1f}" for x, y, dx, dy in ends),
        (
            round(min(max(x1, radius), width - radius), 1),
            round(min(max(y1, radius), height - radius), 1),
            round(radius, 1),
        ),
    )


def band_views(bands: Bands, threshold: float, filters: Filters, similarities: Floats | None) -> tuple[BandView, ...]:
    """Make the ticks of the rail; a tick that is on leads to the next higher band, one that is off down to its own.

    Args:
        bands: where each sureness begins.
        threshold: the model's; the lowest similarity of the last band.
        filters: its `least` is the lowest similarity shown.
        similarities: of all matches from the threshold on; None if they were not counted.
    """
    starts = (round(bands.very_likely, 2), round(bands.likely, 2), round(threshold, 2))
    least = threshold if filters.least is None else filters.least
    tops = (math.inf, starts[0], starts[1])
    views = []
    for place, sureness in enumerate(SURENESSES):
        is_on = least < tops[place]
        if starts[place] >= tops[place] and not is_on:
            continue  # in a small index, all that reaches the threshold is likely
        count = None
        if similarities is not None:
            low = min(starts[place], least) if place == len(SURENESSES) - 1 else starts[place]
            count = int(np.count_nonzero((similarities >= low - 1e-6) & (similarities < tops[place] - 1e-6)))
        views.append(BandView(sureness, is_on, starts[max(0, place - 1)] if is_on else starts[place], count))
    return tuple(views)


def facets_view(counted: Facets, years: Facets, folders: Facets, filters: Filters) -> FacetsView:
    """Make the view of counts.

    Args:
        counted: of the result.
        years: of the result without its filter by date.
        folders: of the result without its filter by folder.
        filters: which year is chosen.
    """
    known = {int(year): count for year, count in years.years.items()}
    most = max(known.values(), default=1)
    span = range(min(known), max(known) + 1) if known and max(known) - min(known) < 200 else sorted(known)
    chosen = filters.taken_from if filters.taken_from == filters.taken_to else ""
    bars = [
        BarView(f"{year:04d}", count, max(6, round(100 * count / most)) if count else 0, chosen == f"{year:04d}")
        for year in span
        for count in (known.get(year, 0),)
    ]
    return FacetsView(
        counted.total,
        counted.is_cut,
        tuple(bars),
        years.undated,
        tuple((path, PurePosixPath(printable(path)).name or path, n) for path, n in folders.folders.items()),
    )


def spans(page: ResultPage) -> tuple[int, int]:
    """Return the positions of the first and the last match of a page, from 1."""
    return page.first, page.first + len(page.matches) - 1


def two_decimals(similarity: float) -> str:
    """Round a similarity down to two decimals.

    Similarities have six decimals; without the inner rounding, 0.29 * 100 = 28.999999999999996 would become 0.28.
    """
    return f"{math.floor(round(similarity * 100, 4)) / 100:.2f}"


def day_text(taken_at: str | None, t: Translator) -> str:
    """Return the day of a time in ISO 8601 in words of the language, such as "30 Jun 2021"; empty for None."""
    if not taken_at:
        return ""
    year, month, day = taken_at[:4], taken_at[5:7], taken_at[8:10]
    if not (month.isdecimal() and day.isdecimal()):
        return taken_at[:10]
    names = t("date.months").split()
    return t("date.day", day=int(day), month=names[(int(month) - 1) % 12], year=year)


def printable(text: str) -> str:
    """Replace lone surrogates, which stand for bytes of a file name that are not UTF-8 and cannot be encoded."""
    return text.encode("utf-8", "replace").decode()
