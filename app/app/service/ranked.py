"""The complete list of the matches of a query, for every order, group and condition that the index does not know.

An exact search ranks the matches. Their payloads are read once and reduced to what the list needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Final

import numpy as np

from app.core.iteration import chunks
from app.core.protocols import FaceIndex
from app.core.types import FacePayload, FaceRecord, Floats, Score
from app.images import ALIKE_DISTANCE
from app.service.paging import rank_all
from app.service.query import Facets, GroupBy, Query, Sort

MAX_LISTED: Final = 50_000  # the most similar matches that a list has
UNDATED: Final = 1e18  # sorts after every date

_READ: Final = 1000  # payloads at a time
_BANDS: Final = 8  # hashes that differ in fewer bits have one of so many parts in common
_BAND_BITS: Final = 8


@dataclass(frozen=True, slots=True)
class Row:
    """A match of a list.

    Attributes:
        face_id: the stored face.
        similarity: to the query, rounded.
        image_id: its image.
        person: its person, or None.
        taken_at: time of the photograph, ISO 8601, or None.
        seconds: the same in seconds since 1970; a time without an offset counts as UTC.
        folder: of the image file.
        phash: perceptual hash of the image, or None.
        together: faces of the further persons in the same image.
        group_size: number of rows in its group.
    """

    face_id: str
    similarity: float
    image_id: str
    person: str | None
    taken_at: str | None
    seconds: float | None
    folder: str
    phash: int | None
    together: tuple[Score, ...] = ()
    group_size: int = 1


@dataclass(frozen=True, slots=True)
class RankedList:
    """Rows in an order.

    Attributes:
        rows: the matches; with groups, the first of each.
        is_cut: there are more matches than `MAX_LISTED`.
        sort: the order.
    """

    rows: tuple[Row, ...]
    is_cut: bool
    sort: Sort = "similarity"

    def rank(self, row: Row) -> tuple[float, str]:
        """Return what the rows are sorted by."""
        return _RANKS[self.sort](row), row.face_id


def all_matches(index: FaceIndex, query: Query) -> RankedList:
    """Return the matches that meet all conditions of a query, by similarity and ungrouped.

    Args:
        index: holds the faces.
        query: its `sort` and `group_by` are not applied, see `arranged`.

    Raises:
        OceanoError: `index_unavailable`.
    """
    ranking = rank_all(index, query.embedding, query.threshold, query.where, MAX_LISTED)
    similarities = {face_id: -value for value, face_id in ranking.ranks}
    for embedding in query.unlike:
        others = rank_all(index, embedding, query.threshold, query.where, MAX_LISTED)
        for value, face_id in others.ranks:
            if similarities.get(face_id, 2.0) <= -value:
                del similarities[face_id]
    rows = [row for part in chunks(list(similarities), _READ) for row in _rows(index, part, similarities, query)]
    for embedding in query.together:
        rows = _with_person(index, rows, embedding, query)
    return RankedList(tuple(rows), ranking.is_cut)


def arranged(found: RankedList, sort: Sort, group_by: GroupBy | None) -> RankedList:
    """Sort rows, and keep the first of each group."""
    rows: Sequence[Row] = found.rows
    if sort != "similarity":
        rows = sorted(rows, key=lambda row: (_RANKS[sort](row), -row.similarity, row.face_id))
    if group_by is not None:
        rows = _grouped(rows, group_by)
    ranked = RankedList((), found.is_cut, sort)
    return replace(ranked, rows=tuple(sorted(rows, key=ranked.rank)))


def facets_of(found: RankedList, folders: int) -> Facets:
    """Count rows by year and folder.

    Args:
        found: ungrouped rows by similarity.
        folders: maximum number of folders.
    """
    years = Counter(row.taken_at[:4] for row in found.rows if row.taken_at)
    by_folder = Counter(row.folder for row in found.rows)
    return Facets(
        total=len(found.rows),
        is_cut=found.is_cut,
        years=dict(sorted(years.items())),
        undated=sum(row.taken_at is None for row in found.rows),
        folders=dict(by_folder.most_common(folders)),
        similarities=np.array([row.similarity for row in found.rows], np.float32),
    )


_RANKS: Final[Mapping[Sort, Callable[[Row], float]]] = {
    "similarity": lambda row: -row.similarity,
    "newest": lambda row: UNDATED if row.seconds is None else -row.seconds,
    "oldest": lambda row: UNDATED if row.seconds is None else row.seconds,
}


def _rows(index: FaceIndex, face_ids: Sequence[str], similarities: Mapping[str, float], query: Query) -> Iterable[Row]:
    for record in index.retrieve(face_ids):
        if _is_large(record.payload, query.min_face):
            yield _row(record, similarities[record.face_id])


def _is_large(payload: FacePayload, min_face: int | None) -> bool:
    x1, y1, x2, y2 = payload.bbox
    return min_face is None or min(x2 - x1, y2 - y1) >= min_face


def _row(record: FaceRecord, similarity: float) -> Row:
    payload = record.payload
    return Row(
        face_id=record.face_id,
        similarity=similarity,
        image_id=payload.image_id,
        person=payload.person,
        taken_at=payload.taken_at,
        seconds=_seconds(payload.taken_at),
        folder=str(PurePosixPath(payload.path).parent),
        phash=None if payload.phash is None else int(payload.phash, 16),
    )


def _seconds(taken_at: str | None) -> float | None:
    if taken_at is None:
        return None
    try:
        moment = datetime.fromisoformat(taken_at)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _with_person(index: FaceIndex, rows: Sequence[Row], embedding: Floats, query: Query) -> list[Row]:
    """Keep the rows whose image also shows this person, with a face that no other person has."""
    ranking = rank_all(index, embedding, query.threshold, query.where, MAX_LISTED)
    similarities = {face_id: -value for value, face_id in ranking.ranks}
    images = {row.image_id for row in rows}
    by_image: dict[str, list[Score]] = {}
    for part in chunks(list(similarities), _READ):
        for record in index.retrieve(part):
            image_id = record.payload.image_id
            if image_id in images and _is_large(record.payload, query.min_face):
                by_image.setdefault(image_id, []).append(Score(record.face_id, similarities[record.face_id]))
    kept = []
    for row in rows:
        used = {row.face_id, *(score.face_id for score in row.together)}
        free = (score for score in by_image.get(row.image_id, ()) if score.face_id not in used)
        if best := max(free, key=lambda score: score.similarity, default=None):
            kept.append(replace(row, together=(*row.together, best)))
    return kept


def _grouped(rows: Sequence[Row], group_by: GroupBy) -> list[Row]:
    """Return the first row of each group, with the group's size."""
    alike = _Alike()
    firsts: dict[Hashable, Row] = {}
    sizes: Counter[Hashable] = Counter()
    for row in rows:
        key = alike.group(row) if group_by == "alike" else _group(row, group_by)
        firsts.setdefault(key, row)
        sizes[key] += 1
    return [replace(row, group_size=sizes[key]) for key, row in firsts.items()]


def _group(row: Row, group_by: GroupBy) -> Hashable:
    if group_by == "image_id":
        return row.image_id
    value = row.person if group_by == "person" else row.taken_at and row.taken_at[:10]
    return value or ("", row.face_id)


class _Alike:
    """Groups near-identical images: a row joins the first group whose first image is the same or looks the same."""

    def __init__(self) -> None:
        self._by_image: dict[str, int] = {}
        self._hashes: list[int] = []
        self._by_band: dict[tuple[int, int], list[int]] = {}

    def group(self, row: Row) -> int:
        """Return the number of the row's group."""
        known = self._by_image.get(row.image_id)
        if known is None:
            known = self._similar(row.phash)
            if known is None:
                known = self._add(row.phash)
            self._by_image[row.image_id] = known
        return known

    def _similar(self, phash: int | None) -> int | None:
        if phash is None:
            return None
        candidates = sorted({one for band in _bands(phash) for one in self._by_band.get(band, ())})
        return next((one for one in candidates if (self._hashes[one] ^ phash).bit_count() <= ALIKE_DISTANCE), None)

    def _add(self, phash: int | None) -> int:
        number = len(self._hashes)
        self._hashes.append(phash or 0)
        for band in _bands(phash) if phash is not None else ():
            self._by_band.setdefault(band, []).append(number)
        return number


def _bands(phash: int) -> Iterable[tuple[int, int]]:
    return ((band, phash >> (band * _BAND_BITS) & 0xFF) for band in range(_BANDS))
