"""What a search asks for, and what it returns: the types that the service, the API, the pages and the exports share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypedDict

import numpy as np

from app.core.types import FLAWS, Face, FaceFilter, FacePayload, Floats, Match

Sort = Literal["similarity", "newest", "oldest"]
GroupBy = Literal["image_id", "person", "day", "alike"]
Range = tuple[float, float]
"""Similarities from the first number on and below the second."""


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A search for one person.

    Attributes:
        embedding: of the person, float32, (D,), with norm 1; see `combined` for several photographs.
        threshold: lowest cosine similarity of a match, -1 to 1.
        where: which stored faces count; None: all.
        sort: the order of the matches. By time, images without a date are last.
        group_by: keep the best match of each image, person, day or set of near-identical images only. Faces without a
            person are not grouped; those without a date are one group.
        min_face: least length of the shorter side of a face's bounding box, in pixels; None: any.
        unlike: embeddings of other persons, as `embedding`; a face that resembles one of them at least as much as the
            query is left out.
        together: embeddings of further persons, as `embedding`; only images that show all of them match, each with a
            face of its own that reaches the threshold.
        within: only matches whose similarity is in any of these ranges; empty: all from the threshold on.
    """

    embedding: Floats
    threshold: float
    where: FaceFilter | None = None
    sort: Sort = "similarity"
    group_by: GroupBy | None = None
    min_face: int | None = None
    unlike: tuple[Floats, ...] = ()
    together: tuple[Floats, ...] = ()
    within: tuple[Range, ...] = ()

    @property
    def needs_list(self) -> bool:
        """Whether the query asks for something that the index does not know, so that all matches are listed."""
        is_plain = self.sort == "similarity" and self.group_by is None and self.min_face is None
        return not is_plain or bool(self.unlike or self.together or self.within)


class Conditions(TypedDict, total=False):
    """The optional fields of `Query`, as keyword arguments."""

    where: FaceFilter | None
    sort: Sort
    group_by: GroupBy | None
    min_face: int | None
    unlike: tuple[Floats, ...]
    together: tuple[Floats, ...]
    within: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class ListedMatch:
    """A match in a list of results.

    Attributes:
        match: the stored face.
        group_size: number of matches in its group, with itself; 1 without `group_by`.
        together: the faces of the further persons in the same image, in the order of `Query.together`.
    """

    match: Match
    group_size: int = 1
    together: tuple[Match, ...] = ()


@dataclass(frozen=True, slots=True)
class ResultPage:
    """A page of results.

    Attributes:
        matches: in the order of the query.
        first: position of the first match in the whole list, from 1.
        total: number of all matches (of groups with `group_by`); None if it was not counted.
        threshold: lowest cosine similarity of a match.
        next: where the next page begins, for `after`; None at the end.
        undated_left_out: faces without a date that a filter on `taken_at` leaves out; None without this filter.
        took_ms: milliseconds of each stage, and "total".
    """

    matches: tuple[ListedMatch, ...]
    first: int
    total: int | None
    threshold: float
    next: str | None = None
    undated_left_out: int | None = None
    took_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Facets:
    """Counts of all matches of a query, before grouping; each without the filter that it helps to choose.

    Attributes:
        total: number of matches.
        is_cut: there are more matches than were counted.
        years: matches by year of the photograph, such as {"2021": 17}, earliest first; without the filter by date.
        undated: matches without a date; without the filter by date.
        folders: matches in or below each folder, as a filter by it finds, as many as were asked for, most matches
            first; without the filter by folder. Folders that only lead to the one with all matches are left out.
        similarities: of the matches from a lower threshold on, float32, best first.
    """

    total: int
    is_cut: bool
    years: dict[str, int]
    undated: int
    folders: dict[str, int]
    similarities: Floats


@dataclass(frozen=True, slots=True)
class FaceMatches:
    """A face of the query image with its matches.

    Attributes:
        face_index: position of the face in canonical order (bbox x1, then y1), from 0.
        face: the face.
        matches: the first page, in the order of the query.
        next: cursor of the matches after these; None if there are no more.
    """

    face_index: int
    face: Face
    matches: tuple[ListedMatch, ...]
    next: str | None = None

    @property
    def more(self) -> bool:
        """Whether the index has more matches than these."""
        return self.next is not None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of a search with an image.

    Attributes:
        width: width of the upright query image in pixels.
        height: height of the upright query image in pixels.
        threshold: lowest cosine similarity of a match.
        faces: the faces of the query image with their matches.
        took_ms: milliseconds of each stage, and "total".
        undated_left_out: faces without a date that a filter on `taken_at` leaves out; None without this filter.
    """

    width: int
    height: int
    threshold: float
    faces: tuple[FaceMatches, ...]
    took_ms: dict[str, float]
    undated_left_out: int | None = None


def images_of(matches: Iterable[ListedMatch]) -> Iterator[FacePayload]:
    """Yield the payload of the first match of each image."""
    seen: set[str] = set()
    for listed in matches:
        payload = listed.match.payload
        if payload.image_id not in seen:
            seen.add(payload.image_id)
            yield payload


def face_filter(
    folders: Sequence[str],
    taken_from: str,
    taken_to: str,
    *,
    undated: bool,
    clear: bool,
    people: Sequence[str] = (),
    unnamed: bool = False,
) -> FaceFilter | None:
    """Return the filter of what a person entered; None if that is nothing.

    Args:
        folders: absolute paths.
        taken_from: earliest time; empty: any.
        taken_to: latest time; empty: any.
        undated: only images without a date.
        clear: leave out faces with a flaw.
        people: ids of people, any of whom the face shows.
        unnamed: only faces without a person.
    """
    given = FaceFilter(
        person=people[0] if len(people) == 1 else tuple(people) or None,
        unnamed=unnamed,
        folder=folders[0] if len(folders) == 1 else tuple(folders) or None,
        taken_from=taken_from or None,
        taken_to=taken_to or None,
        undated=undated,
        without=FLAWS if clear else (),
    )
    return None if given == FaceFilter() else given


def is_later(start: str, end: str) -> bool:
    """Return whether a time in ISO 8601 is after another, as far as both are known: 2021-05 is not after 2021."""
    return bool(start and end) and start[: len(end)] > end[: len(start)]


def combined(embeddings: Sequence[Floats]) -> Floats:
    """Return one embedding for several photographs of a person: their mean, scaled to norm 1.

    This is the template pooling of IJB-B and IJB-C (Whitelam et al. 2017). The similarity of strangers to it is
    distributed as to a single embedding, that of the same person is higher, so a threshold keeps its meaning; the mean
    finds more than the best single one (docs/numbers.md).

    Args:
        embeddings: at least one, float32, (D,), each with norm 1.

    Returns:
        float32, (D,), with norm 1; for one embedding, that embedding.
    """
    if len(embeddings) == 1:
        return embeddings[0]
    mean = np.mean(np.stack(embeddings), axis=0, dtype=np.float64)
    norm = float(np.linalg.norm(mean))
    if norm < 1e-6:  # opposite vectors; faces are never that different
        return embeddings[0]
    return np.asarray(mean / norm, dtype=np.float32)
