"""Several photographs of one person as one query: which face is meant in each, and their combined embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.core.boxes import area
from app.core.types import Face, Floats
from app.service.paging import DECIMALS, reaches
from app.service.query import combined


@dataclass(frozen=True, slots=True)
class Example:
    """The face of one photograph that is meant.

    Attributes:
        picture: position of the photograph, from 0.
        face_index: position of the face in the photograph, in canonical order.
        similarity: of the face to the other examples combined, -1 to 1; 1 if there are none.
        doubtful: it may be another person, see `doubtful_examples`.
    """

    picture: int
    face_index: int
    similarity: float
    doubtful: bool


def combine_pictures(
    pictures: Sequence[Sequence[Face]],
    threshold: float,
    *,
    chosen: Mapping[int, int] | None = None,
    known: Sequence[Floats] = (),
) -> tuple[list[Example], Floats]:
    """Pick the face of one person in each photograph, and combine their embeddings.

    A photograph with one face or a chosen one tells who is meant; if there is none, the largest face of the first
    photograph does. In every other photograph, the face that resembles these most is picked.

    Args:
        pictures: the faces of each photograph, at least one face in each.
        threshold: lowest similarity of faces of one person.
        chosen: position of the face by position of the photograph.
        known: further embeddings of the person, float32, (D,), with norm 1.

    Returns:
        An example for each photograph, and the embedding of all examples and `known`, float32, (D,), with norm 1.
    """
    picked = {
        at: (chosen or {}).get(at, 0) for at, faces in enumerate(pictures) if at in (chosen or {}) or len(faces) == 1
    }
    if not picked and not known:
        picked[0] = max(range(len(pictures[0])), key=lambda place: area(pictures[0][place].bbox))
    meant = combined([*known, *(pictures[at][place].embedding for at, place in picked.items())])
    for at, faces in enumerate(pictures):
        if at not in picked:
            picked[at] = max(range(len(faces)), key=lambda place: float(faces[place].embedding @ meant))
    found = [pictures[at][picked[at]].embedding for at in range(len(pictures))]
    similarities = similarities_to_others([*found, *known])
    doubtful = doubtful_examples([*known, *found], threshold)[len(known) :]
    examples = [Example(at, picked[at], round(similarities[at], DECIMALS), doubtful[at]) for at in range(len(pictures))]
    return examples, combined([*found, *known])


def similarities_to_others(embeddings: Sequence[Floats]) -> list[float]:
    """Return the similarity of each embedding of a person to the others combined; 1 for a single one.

    Args:
        embeddings: float32, (D,), each with norm 1.
    """
    if len(embeddings) == 1:
        return [1.0]
    return [
        float(embedding @ combined([*embeddings[:at], *embeddings[at + 1 :]]))
        for at, embedding in enumerate(embeddings)
    ]


def people_of(embeddings: Sequence[Floats], threshold: float) -> list[list[int]]:
    """Return the people whom the examples of one person seem to show.

    The groups of examples that resemble each other most are joined, until no two combined embeddings reach the
    threshold. A group of one example is no person of its own: it is a bad photograph, or doubtful.

    Args:
        embeddings: float32, (D,), each with norm 1.
        threshold: lowest similarity of faces of one person.

    Returns:
        Positions of the examples of each person, the largest group first; one group with all if they are one person.
    """
    groups = [[at] for at in range(len(embeddings))]
    while len(groups) > 1:
        centres = [combined([embeddings[at] for at in group]) for group in groups]
        pairs = [
            (float(centres[one] @ centres[other]), one, other) for other in range(len(groups)) for one in range(other)
        ]
        similarity, one, other = max(pairs)
        if not reaches(round(similarity, DECIMALS), threshold):
            break
        groups[one] = sorted(groups[one] + groups.pop(other))
    people = sorted((group for group in groups if len(group) > 1), key=lambda group: -len(group))
    return people if len(people) > 1 else [list(range(len(embeddings)))]


def doubtful_examples(embeddings: Sequence[Floats], threshold: float) -> list[bool]:
    """Return which examples of a person may show someone else.

    An example is doubtful if it resembles neither all others combined, of which some may be strangers, too, nor the
    first one. The first one is doubtful if it resembles neither the others combined nor any of them; of two examples,
    the first shows the person who is meant.

    Args:
        embeddings: float32, (D,), each with norm 1.
        threshold: lowest similarity of faces of one person.
    """
    if len(embeddings) == 1:
        return [False]
    to_first = [float(one @ embeddings[0]) for one in embeddings]
    to_first[0] = max(to_first[1:]) if len(embeddings) > 2 else 1.0
    pairs = zip(to_first, similarities_to_others(embeddings), strict=True)
    return [not reaches(round(max(pair), DECIMALS), threshold) for pair in pairs]
