"""Several photographs of one person as one query: which face is meant in each, and their combined embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.core.boxes import area
from app.core.types import Face, Floats
from app.service.paging import DECIMALS
from app.service.query import combined


@dataclass(frozen=True, slots=True)
class Example:
    """The face of one photograph that is meant.

    Attributes:
        picture: position of the photograph, from 0.
        face_index: position of the face in the photograph, in canonical order.
        similarity: of the face to the other examples combined, -1 to 1; 1 if there are none.
        doubtful: the similarity is below the threshold: it may be another person.
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
    embeddings = [*(pictures[at][picked[at]].embedding for at in range(len(pictures))), *known]
    similarities = [round(similarity, DECIMALS) for similarity in similarities_to_others(embeddings)]
    examples = [Example(at, picked[at], similarities[at], similarities[at] < threshold) for at in range(len(pictures))]
    return examples, combined(embeddings)


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
