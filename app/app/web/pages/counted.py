"""Views of counts: ticks of sureness, bars of years, folders with names that tell them apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np

from app.core.paths import is_in
from app.core.types import Floats
from app.service import SURENESSES, Bands, Facets, Sureness
from app.web.pages.filters import Filters
from app.web.pages.names import short_names

_FOLDERS: Final = 6  # links; all are suggestions


@dataclass(frozen=True, slots=True)
class BandView:
    """A tick of the rail: whether matches of a sureness are shown.

    Attributes:
        sureness: which.
        is_on: they are shown.
        chosen: what is shown after a click on it, as `Filters.sureness`; None for the only one that is on.
        least: the lowest similarity after a click on it, as `Filters.least`.
        count: number of matches; None if not counted.
    """

    sureness: Sureness
    is_on: bool
    chosen: tuple[Sureness, ...] | None
    least: float | None
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
        folders: path, name and number of matches in or below each folder, most first; suggestions.
        links: the same of a few folders, without those whose matches are all in one folder below.
        left_out: matches that the filter by other people leaves out; None without it, or if unknown.
    """

    total: int
    is_cut: bool
    bars: tuple[BarView, ...]
    undated: int
    folders: tuple[tuple[str, str, int], ...]
    links: tuple[tuple[str, str, int], ...]
    left_out: int | None = None


def band_views(bands: Bands, threshold: float, filters: Filters, similarities: Floats | None) -> tuple[BandView, ...]:
    """Make the ticks of the rail: each shows or hides the matches of one sureness.

    Args:
        bands: where each sureness begins.
        threshold: the model's; the lowest similarity of the last band.
        filters: its `sureness` and `least` say what is shown.
        similarities: of all matches from the threshold on, or from `least` if it is lower; None if not counted.
    """
    least = threshold if filters.least is None else filters.least
    starts = (round(bands.very_likely, 2), round(bands.likely, 2), min(round(threshold, 2), least))
    tops = (math.inf, starts[0], starts[1])
    # in a small index, all that reaches the threshold is likely
    places = [place for place in range(len(SURENESSES)) if starts[place] < tops[place]]
    known = [SURENESSES[place] for place in places]
    shown = filters.sureness or SURENESSES
    on = [SURENESSES[place] for place in places if SURENESSES[place] in shown and least < tops[place]]
    views = []
    for place in places:
        sureness, is_hidden = SURENESSES[place], least >= tops[place]
        low = starts[place] if is_hidden else max(starts[place], least)
        count = None
        if similarities is not None:
            count = int(np.count_nonzero((similarities >= low - 1e-6) & (similarities < tops[place] - 1e-6)))
        after = _toggled(on, sureness, known)
        views.append(BandView(sureness, sureness in on, after, None if is_hidden else filters.least, count))
    return tuple(views)


def _toggled(on: list[Sureness], sureness: Sureness, known: list[Sureness]) -> tuple[Sureness, ...] | None:
    """Return what is shown after a click on a tick, none for all; None if nothing would be shown."""
    after = [one for one in known if (one in on) != (one == sureness)]
    if not after:
        return None
    return () if after == known else tuple(after)


def facets_view(counted: Facets, filters: Filters) -> FacetsView:
    """Make the view of counts; the filters say which year is chosen."""
    known = {int(year): count for year, count in counted.years.items()}
    most = max(known.values(), default=1)
    span = range(min(known), max(known) + 1) if known and max(known) - min(known) < 200 else sorted(known)
    chosen = filters.taken_from if filters.taken_from == filters.taken_to else ""
    bars = [
        BarView(f"{year:04d}", count, max(6, round(100 * count / most)) if count else 0, chosen == f"{year:04d}")
        for year in span
        for count in (known.get(year, 0),)
    ]
    names = short_names(counted.folders)
    folders = tuple((path, names[path], n) for path, n in counted.folders.items())
    links = tuple(
        (path, names[path], counted.folders[path]) for path in islice(_most_specific(counted.folders), _FOLDERS)
    )
    return FacetsView(counted.total, counted.is_cut, tuple(bars), counted.undated, folders, links)


def _most_specific(folders: Mapping[str, int]) -> Iterator[str]:
    """Yield the folders, except those whose matches are all in one folder below them."""
    for path, n in folders.items():
        if not any(n == others and path != other and is_in(other, path) for other, others in folders.items()):
            yield path
