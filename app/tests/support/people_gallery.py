"""Faces of known people for an index in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from app.core.types import FacePoint, Floats, face_id_of
from bench.faces import People, stored_payload

COLLECTION = "faces__tests__ffffffff"
DIGEST = "f" * 64


def gallery(*, people: int, of_each: int, images: Mapping[int, int] | None = None) -> list[FacePoint]:
    """Return faces, numbered in order: `of_each` of the first person, then of the second, and so on.

    Args:
        people: number of people.
        of_each: faces of each.
        images: the number of the image of some faces, by number of the face; others have one of their own number.
    """
    return [
        _point(number, row, (images or {}).get(number, number)) for number, row in enumerate(_rows(people, of_each))
    ]


@cache
def _rows(people: int, of_each: int) -> Floats:
    some = People(512, seed=5)
    return some.faces(some.identities(people), of_each)


def face_ids(*numbers: int) -> list[str]:
    """Return the ids of the faces with these numbers."""
    return [face_id_of(f"{number:064x}", DIGEST, 0) for number in numbers]


def _point(number: int, row: Floats, image: int) -> FacePoint:
    image_id = f"{image:064x}"
    left = 100.0 + 200.0 * (number - image)
    box = (left, 100.0, left + 120.0, 260.0)
    payload = replace(stored_payload(image_id, f"/photos/{image}.jpg"), bbox=box, quality=0.8)
    return FacePoint(face_ids(number)[0], row, payload)
