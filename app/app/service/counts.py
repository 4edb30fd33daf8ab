"""Counts of lists of matches: by year, folder and similarity."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.core.times import full_time, seconds_of
from app.core.types import FaceFilter
from app.service.paging import DECIMALS
from app.service.query import Facets
from app.service.ranked import RankedList, Row


@dataclass(frozen=True, slots=True)
class Counted:
    """Lists of ungrouped rows by similarity, which `facets_of` counts.

    Attributes:
        matches: all matches.
        any_date: the same without the filter by date.
        any_folder: the same without the filter by folder.
        lower: matches from a lower threshold on.
    """

    matches: RankedList
    any_date: RankedList
    any_folder: RankedList
    lower: RankedList


def facets_of(counted: Counted, folders: int) -> Facets:
    """Count rows by year and folder.

    Args:
        counted: the rows.
        folders: maximum number of folders.
    """
    years = Counter(row.taken_at[:4] for row in counted.any_date.rows if row.taken_at)
    return Facets(
        total=len(counted.matches.rows),
        is_cut=counted.matches.is_cut,
        years=dict(sorted(years.items())),
        undated=sum(row.taken_at is None for row in counted.any_date.rows),
        folders=_folders(counted.any_folder.rows, folders),
        similarities=np.array([row.similarity for row in counted.lower.rows], np.float32),
    )


def _folders(rows: Sequence[Row], most: int) -> dict[str, int]:
    counts: Counter[str] = Counter()
    holding: set[str] = set()  # folders that have images of their own, not only in folders below
    for folders, n in Counter(row.folders for row in rows).items():
        counts.update(dict.fromkeys(folders, n))
        holding.update(folders and (max(folders, key=len),))
    telling = {folder: n for folder, n in counts.items() if n < len(rows) or folder in holding}
    return dict(sorted(telling.items(), key=lambda counted: (-counted[1], counted[0]))[:most])


def part_of(found: RankedList, *, threshold: float, where: FaceFilter | None) -> RankedList | None:
    """Keep the rows from a threshold on that meet a filter by date; None if the list may lack such rows.

    Args:
        found: ungrouped rows by similarity.
        threshold: not below that of the list.
        where: its times and `undated` are applied; the list meets all other conditions.

    Raises:
        OceanoError: `invalid_request` if a time is not ISO 8601.
    """
    end = bisect_right(found.rows, -round(threshold, DECIMALS), key=lambda row: -row.similarity)
    if found.is_cut and end == len(found.rows):
        return None
    rows = found.rows[:end]
    if where is not None:
        since = seconds_of(full_time(where.taken_from, last=False))
        until = seconds_of(full_time(where.taken_to, last=True))
        rows = tuple(row for row in rows if _is_taken(row, since, until, undated=where.undated))
    return RankedList(rows, is_cut=False)


def _is_taken(row: Row, since: float | None, until: float | None, *, undated: bool) -> bool:
    if undated and row.taken_at is not None:
        return False
    if since is None and until is None:
        return True
    if row.seconds is None:
        return False
    return (since is None or since <= row.seconds) and (until is None or row.seconds <= until)
