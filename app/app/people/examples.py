"""The clear faces of a person, from which others are recognised; a smear resembles everybody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from app.catalog import PeopleStore
from app.core.protocols import FaceIndex
from app.core.types import FLAWS, FaceFilter, FacePayload, FaceRecord
from app.people.places import at, place_of

LEAST_QUALITY: Final = 0.3
_READ: Final = 1_000


def is_clear(record: FaceRecord) -> bool:
    """Return whether a face is good enough to recognise others by."""
    return not record.payload.flaws and record.payload.quality >= LEAST_QUALITY


def rating(payload: FacePayload) -> float:
    """Return how well a face stands for a person, in [-1, 1]: its quality, and less than any clear one with a flaw."""
    return payload.quality - bool(payload.flaws)


def clear_faces(index: FaceIndex, store: PeopleStore, person_id: str, limit: int) -> list[FaceRecord]:
    """Return clear faces of a person with their embeddings, of those that somebody named or confirmed by hand.

    If there are none, those that were named by the metadata of their pictures.

    Args:
        index: the faces.
        store: says who named them.
        person_id: the person.
        limit: the largest number; a random choice if there are more.
    """
    where = FaceFilter(person=person_id, without=FLAWS, min_quality=LEAST_QUALITY)
    found = index.scroll(limit=_READ, where=where, with_embedding=True).records  # ids are random
    with_embedding = [record for record in found if record.embedding is not None]
    by_hand = _by_hand(store, with_embedding)
    return (by_hand or with_embedding)[:limit]


def _by_hand(store: PeopleStore, records: Sequence[FaceRecord]) -> list[FaceRecord]:
    assigned = store.assignments_in([record.payload.image_id for record in records])
    found = []
    for record in records:
        one = at(place_of(record.payload), assigned.get(record.payload.image_id, ()))
        if one is not None and one.source != "metadata":
            found.append(record)
    return found
