"""Who a face is likely to be: compared with several named faces of each person, not with the nearest one only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from app.core.protocols import FaceIndex
from app.core.types import FLAWS, FaceFilter, Floats, Match
from app.people.examples import LEAST_QUALITY

BEST: Final = 3
"""Faces of a person whose similarities are averaged: one wrong name among them decides nothing."""

MARGIN: Final = 0.05
"""Least distance to the next person of a sure answer."""

_NEAREST: Final = 100
_NEVER: Final = 2.0  # above every cosine


@dataclass(frozen=True, slots=True)
class Likeness:
    """Who a face resembles most.

    Attributes:
        person_id: the person.
        similarity: mean cosine to the `BEST` most similar clear faces of the person.
        margin: how much less the next person resembles it; None if no other does.
        next_id: the next person.
        sure: the similarity reaches the line, the margin is not small, and the face is clear.
    """

    person_id: str
    similarity: float
    margin: float | None
    next_id: str | None
    sure: bool


def score(similarities: Floats) -> float:
    """Return the mean of the `BEST` highest similarities, or of all if there are fewer."""
    return float(np.sort(similarities)[-BEST:].mean())


def identify(
    index: FaceIndex,
    embeddings: Sequence[Floats],
    *,
    least: float,
    line: float,
    clear: Sequence[bool] | None = None,
) -> list[Likeness | None]:
    """Say whom faces resemble most among the people with clear, named faces.

    Args:
        index: the faces.
        embeddings: n embeddings, each float32, (D,), with norm 1.
        least: lowest similarity of a named face that counts.
        line: lowest similarity of a sure answer.
        clear: for each embedding whether its face has no flaw; None: all are clear.

    Returns:
        n answers; None where nobody is similar.

    Raises:
        OceanoError: `index_unavailable`.
    """
    where = FaceFilter(named=True, without=FLAWS, min_quality=LEAST_QUALITY)
    lists = index.search_batch(embeddings, limit=_NEAREST, threshold=least, where=where) if embeddings else []
    found = [_by_person(matches) for matches in lists]
    _add_others(index, found, embeddings, [len(matches) for matches in lists], least, where)
    people = tuple(sorted({person_id for one in found for person_id in one}))
    faces = index.facet("person", limit=len(people), where=replace(where, person=people)) if people else {}
    answers: list[Likeness | None] = []
    for of_person, is_clear in zip(found, [True] * len(found) if clear is None else clear, strict=True):
        scores = []
        for person_id, values in of_person.items():
            others = min(BEST, faces.get(person_id, 0)) - len(values)  # clear faces that are not similar count as well
            scores.append((score(np.array([*values, *[least] * others], np.float32)), person_id))
        answers.append(_likeness(sorted(scores, reverse=True), line if is_clear else _NEVER) if scores else None)
    return answers


def _add_others(
    index: FaceIndex,
    found: Sequence[dict[str, list[float]]],
    embeddings: Sequence[Floats],
    lengths: Sequence[int],
    least: float,
    where: FaceFilter,
) -> None:
    """Look for other people where the nearest faces are all, or nearly all, of one person."""
    crowded: dict[str, list[int]] = defaultdict(list)
    for number, (of_person, length) in enumerate(zip(found, lengths, strict=True)):
        if length == _NEAREST:
            first, *others = sorted(of_person, key=lambda one: -len(of_person[one]))
            if all(len(of_person[one]) < BEST for one in others):
                crowded[first].append(number)
    for person_id, numbers in crowded.items():
        rest = replace(where, not_person=(person_id,))
        asked = [embeddings[number] for number in numbers]
        lists = index.search_batch(asked, limit=_NEAREST, threshold=least, where=rest)
        for number, matches in zip(numbers, lists, strict=True):
            found[number].update(_by_person(matches))


def _by_person(matches: Sequence[Match]) -> dict[str, list[float]]:
    of_person: dict[str, list[float]] = defaultdict(list)
    for match in matches:
        if match.payload.person is not None:
            of_person[match.payload.person].append(match.similarity)
    return of_person


def _likeness(ranked: Sequence[tuple[float, str]], line: float) -> Likeness:
    (best, person_id), *others = ranked
    margin, next_id = (best - others[0][0], others[0][1]) if others else (None, None)
    return Likeness(person_id, best, margin, next_id, best >= line and (margin is None or margin >= MARGIN))
