"""View models of a result, ready for the templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from app.core.texts import Translator
from app.core.types import BBox
from app.service import Sureness
from app.web.pages.counted import BandView, FacetsView
from app.web.pages.filters import WITHOUT_CONDITIONS, Filters
from app.web.pages.given import WrongField


@dataclass(frozen=True, slots=True)
class Place:
    """The address of a result, and of the same result with other filters.

    Attributes:
        address: path below the root, such as `/face/ID`; empty for photographs sent without JavaScript, whose result
            has no address: each link is then a button of the form.
        filters: of the result.
        face: number of the chosen face of a photograph, from 1; 0 if there is nothing to choose.
        beside: numbers of the faces that must be in the same image.
        wrong: fields that were left out of the filters, by name.
    """

    address: str
    filters: Filters
    face: int = 0
    beside: tuple[int, ...] = ()
    wrong: Mapping[str, WrongField] = field(default_factory=dict)

    def to(self, *, face: int | None = None, beside: Sequence[int] | None = None, **changes: Any) -> str:
        """Return the query string with changes; it begins at the first match unless `after` is one of them."""
        pairs = self.filters.pairs(**changes)
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

    @property
    def has_conditions(self) -> bool:
        """Whether filters other than the lowest similarity may leave matches out."""
        return bool(self.beside) or replace(self.filters, **WITHOUT_CONDITIONS) != self.filters

    def to_all(self) -> str:
        """Return the query string without these filters."""
        return self.to(beside=(), **WITHOUT_CONDITIONS)

    def whole_with(self, **changes: Any) -> str:
        """Return the address with changes to the filters."""
        query = self.to(**changes)
        return f"{self.address}?{query}" if query else self.address


@dataclass(frozen=True, slots=True)
class HeadingView:
    """A heading above cards.

    Attributes:
        text: a day, month or year; the name of a photograph or person.
        image_id: of the photograph; empty if the text names none.
        person_id: of the person; empty if the text names none.
        count: matches of the group; None for cards in the order of time, which are all shown.
        matches: query string of the result with all matches of the group; empty if they are shown.
    """

    text: str
    image_id: str = ""
    count: int | None = None
    matches: str = ""
    person_id: str = ""


@dataclass(frozen=True, slots=True)
class CardView:
    """A match.

    Attributes:
        face_id: the stored face.
        image_id: its image.
        event: name of the folder, which names the event in most archives; with parents where names clash.
        name: name of the file.
        path: the path of the file, for display.
        copied: the same, for programs.
        when: the day of the photograph in words; empty if unknown.
        similarity: two decimals, rounded down, so that what shows as 0.40 reaches a threshold of 0.40.
        sureness: what the similarity means.
        person: the name of whom it shows; empty if that is unknown.
        person_id: of the person; empty if that is unknown.
        more: further matches of its group, if it has no heading.
        flaw: why the face may be hard to recognise; empty if it is clear.
        page: number of the page of the file, from 1; 0 for a first page.
        is_same: the query is a face of this very image.
        is_other: the face may show someone else, whom a filter can require in the same image.
        others: face_ids of the further persons who must be in the same image.
        heading: of its group, or of the day that begins here in a list by time; else None.
    """

    face_id: str
    image_id: str
    event: str
    name: str
    path: str
    copied: str
    when: str
    similarity: str
    sureness: Sureness
    person: str
    person_id: str
    more: int
    flaw: str
    page: int
    is_same: bool
    is_other: bool
    others: tuple[str, ...]
    heading: HeadingView | None


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
class PersonView:
    """One of several people whom the examples seem to show, to be searched alone.

    Attributes:
        examples: of the person.
        places: positions of the examples with a token among all with one, from 0, separated by spaces.
        address: of the result for this person alone; empty if tokens must be sent.
    """

    examples: tuple[CropView, ...]
    places: str
    address: str


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
        people: several that the examples seem to show, see `app.service.people_of`; empty for one.
        choices: faces of the photograph to choose from.
        photograph: the photograph, if this request brought it.
        cards: the matches of this page.
        first: position of the first one, from 1.
        last: position of the last one.
        total: number of all matches; None if unknown.
        next: where the next page begins; None at the end.
        bands_from: `Filters.bands` of the next page; empty if they do not matter.
        closest: the highest similarity of any face, if no match was found; empty if no face resembles the person, or if
            a lower similarity would not help.
        least: the lowest similarity that is shown, two decimals.
        bands: ticks of the rail.
        facets: counts; None if they are loaded later.
        took_ms: milliseconds of the search.
        token: holds the whole query, for exports; empty if the result starts from an indexed face.
        has_names: some faces have names, so that matches can be grouped by person.
        names: of people, by id: those of the filters, and of the face that the result starts from.
        asked_for: id of the person of that face; empty if that is unknown.
        sure_from: lowest similarity of a very likely match, two decimals; empty if no match can have it.
        likely_from: the same of a likely match.
        folder_names: of the folders in the filters.
        kept: the kept search whose result it is; None for others.
    """

    place: Place
    examples: tuple[CropView, ...]
    people: tuple[PersonView, ...]
    choices: tuple[CropView, ...]
    photograph: PhotographView | None
    cards: tuple[CardView, ...]
    first: int
    last: int
    total: int | None
    next: str | None
    bands_from: str
    closest: str
    least: str
    bands: tuple[BandView, ...]
    facets: FacetsView | None
    took_ms: int
    token: str
    has_names: bool
    folder_names: Mapping[str, str]
    kept: KeptView | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    asked_for: str = ""
    sure_from: str = ""
    likely_from: str = ""

    def count(self, t: Translator) -> str:
        """Return the number of matches: exact if it is known, else "100+"."""
        unit = self.place.filters.group or "face"
        if self.total is not None:
            return t.count(f"result.count.{unit}", self.total)
        if self.next is None:
            return t.count(f"result.count.{unit}", self.last)
        return t(f"result.count.{unit}.other", n=f"{t.number(self.last)}+")


def day_text(taken_at: str | None, t: Translator) -> str:
    """Return the day of a time in ISO 8601 in words of the language, such as "30 Jun 2021"; empty for None.

    Of a month or year, such as 2021-06, only these are returned.
    """
    year, month, day = [*(taken_at or "")[: len("2021-06-30")].split("-"), "", ""][:3]
    if not (month.isdecimal() and 1 <= int(month) <= len(t("date.months").split())):
        return year
    name = t("date.months").split()[int(month) - 1]
    return t("date.day", day=int(day), month=name, year=year) if day.isdecimal() else f"{name} {year}"
