"""The complete list of the matches of a query, for every order, group and condition that the index does not know.

An exact search ranks the matches. Their payloads are read once and reduced to what the list needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from app.core.iteration import chunks
from app.core.protocols import FaceIndex
from app.core.times import seconds_of
from app.core.types import FacePayload, FaceRecord, Floats, Score
from app.images import ALIKE_DISTANCE
from app.service.paging import DECIMALS, rank_all
from app.service.query import GroupBy, Query, Range, Sort

MAX_LISTED: Final = 50_000  # the most similar matches that a list has
UNDATED: Final = 1e12  # sorts after every date

_READ: Final = 1000  # payloads at a time
_PARTS: Final = 4  # of a perceptual hash
_PART_BITS: Final = 16
_Shared = dict[tuple[str, ...], tuple[str, ...]]  # one tuple for all rows of a folder

_FLIPS: Final = (0, *(1 << bit for bit in range(_PART_BITS)))


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
        folders: the image is in or below them, sorted.
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
    folders: tuple[str, ...]
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
        query: its `sort`, `group_by` and `within` are not applied, see `arranged` and `only_within`.

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
    shared: _Shared = {}
    parts = chunks(list(similarities), _READ)
    rows = [row for part in parts for row in _rows(index, part, similarities, query, shared)]
    if query.together:
        rows = _together(index, rows, query)
    return RankedList(tuple(rows), ranking.is_cut)


def only_within(found: RankedList, ranges: Sequence[Range]) -> RankedList:
    """Keep the rows whose similarity is in any range.

    Args:
        found: ungrouped rows by similarity.
        ranges: see `Query.within`; without one, all rows are kept.
    """
    if not ranges:
        return found
    rows = tuple(row for row in found.rows if any(low <= row.similarity < top for low, top in ranges))
    lowest = min(low for low, _ in ranges)
    return RankedList(rows, found.is_cut and (not found.rows or found.rows[-1].similarity >= lowest))


def arranged(found: RankedList, sort: Sort, group_by: GroupBy | None) -> RankedList:
    """Keep the most similar row of each group, and sort what is left.

    Args:
        found: ungrouped rows by similarity.
        sort: the order.
        group_by: what makes a group; None: every row is kept.
    """
    rows = found.rows if group_by is None else _grouped(found.rows, group_by)
    ranked = RankedList((), found.is_cut, sort)
    return replace(ranked, rows=tuple(sorted(rows, key=ranked.rank)))


_RANKS: Final[Mapping[Sort, Callable[[Row], float]]] = {
    "similarity": lambda row: -row.similarity,
    "newest": lambda row: _undated(row) if row.seconds is None else -row.seconds,
    "oldest": lambda row: _undated(row) if row.seconds is None else row.seconds,
}


def _undated(row: Row) -> float:
    """Undated rows are in the order of similarity."""
    return UNDATED + round((1 - row.similarity) * 10**DECIMALS)


def _rows(
    index: FaceIndex, face_ids: Sequence[str], similarities: Mapping[str, float], query: Query, shared: _Shared
) -> Iterable[Row]:
    for record in index.retrieve(face_ids):
        if _is_large(record.payload, query.min_face):
            yield _row(record, similarities[record.face_id], shared)


def _is_large(payload: FacePayload, min_face: int | None) -> bool:
    x1, y1, x2, y2 = payload.bbox
    return min_face is None or min(x2 - x1, y2 - y1) >= min_face


def _row(record: FaceRecord, similarity: float, shared: _Shared) -> Row:
    payload = record.payload
    return Row(
        face_id=record.face_id,
        similarity=similarity,
        image_id=payload.image_id,
        person=payload.person,
        taken_at=payload.taken_at,
        seconds=seconds_of(payload.taken_at),
        folders=shared.setdefault(payload.folder, payload.folder),
        phash=None if payload.phash is None else int(payload.phash, 16),
    )


def _together(index: FaceIndex, rows: Sequence[Row], query: Query) -> list[Row]:
    """Keep the rows whose image also shows all further persons, each with a face that no other person has."""
    images = {row.image_id for row in rows}
    persons = [_by_image(index, embedding, images, query) for embedding in query.together]
    kept = []
    for row in rows:
        candidates = [
            [score for score in person.get(row.image_id, ()) if score.face_id != row.face_id] for person in persons
        ]
        if (faces := _assigned(candidates)) is not None:
            kept.append(replace(row, together=faces))
    return kept


def _by_image(index: FaceIndex, embedding: Floats, images: Container[str], query: Query) -> dict[str, list[Score]]:
    """Return the matches of a person on some images, best first."""
    where = query.where  # whom the name or its lack is asked of is the first person
    if where is not None:
        where = replace(where, person=None, named=False, unnamed=False)
    ranking = rank_all(index, embedding, query.threshold, where, MAX_LISTED)
    similarities = {face_id: -value for value, face_id in ranking.ranks}
    found: dict[str, list[Score]] = {}
    for part in chunks(list(similarities), _READ):
        for record in index.retrieve(part):
            if record.payload.image_id in images and _is_large(record.payload, query.min_face):
                score = Score(record.face_id, similarities[record.face_id])
                found.setdefault(record.payload.image_id, []).append(score)
    return found


def _assigned(candidates: Sequence[Sequence[Score]]) -> tuple[Score, ...] | None:
    """Give each person a face of its own, if all can have one (augmenting paths).

    Args:
        candidates: the faces that each person could be, best first.
    """
    owners: dict[str, tuple[int, Score]] = {}

    def give(person: int, tried: set[str]) -> bool:
        for score in candidates[person]:
            if score.face_id in tried:
                continue
            tried.add(score.face_id)
            owner = owners.get(score.face_id)
            if owner is None or give(owner[0], tried):
                owners[score.face_id] = (person, score)
                return True
        return False

    if not all(give(person, set()) for person in range(len(candidates))):
        return None
    return tuple(score for _, score in sorted(owners.values(), key=lambda owned: owned[0]))


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
    if group_by == "day":
        return row.taken_at and row.taken_at[:10]  # those without a date are a group
    return row.person or ("", row.face_id)


class _Alike:
    """Groups near-identical images: a row joins the group of its image.

    A new image joins the group whose first image looks most like it. Of two hashes that differ in at most seven bits,
    one of the four parts differs in at most one bit, so only images with such a part are compared.
    """

    def __init__(self) -> None:
        self._by_image: dict[str, int] = {}
        self._hashes: list[int] = []  # of the first image of each group
        self._by_part: list[dict[int, list[int]]] = [{} for _ in range(_PARTS)]

    def group(self, row: Row) -> int:
        """Return the number of the row's group."""
        known = self._by_image.get(row.image_id)
        if known is None:
            known = self._most_similar(row.phash)
            known = self._add(row.phash) if known is None else known
            self._by_image[row.image_id] = known
        return known

    def _most_similar(self, phash: int | None) -> int | None:
        if phash is None:
            return None
        found = {
            number
            for part, numbers in zip(_parts(phash), self._by_part, strict=True)
            for flip in _FLIPS
            for number in numbers.get(part ^ flip, ())
        }
        apart, nearest = min(
            (((self._hashes[one] ^ phash).bit_count(), one) for one in found), default=(_PART_BITS, -1)
        )
        return nearest if apart <= ALIKE_DISTANCE else None

    def _add(self, phash: int | None) -> int:
        number = len(self._hashes)
        self._hashes.append(phash or 0)
        if phash is not None:
            for part, numbers in zip(_parts(phash), self._by_part, strict=True):
                numbers.setdefault(part, []).append(number)
        return number


def _parts(phash: int) -> list[int]:
    return [phash >> (_PART_BITS * part) & (2**_PART_BITS - 1) for part in range(_PARTS)]
