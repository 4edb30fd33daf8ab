"""Faces of people for tests: which face of which picture, and how much it resembles the others of the person."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from app.core.paths import folders_of
from app.core.types import BBox, FacePoint, Floats, face_id_of
from tests.support.fakes import FAKE_PACK, embedding_of
from tests.support.pictures import payload_of

BOXES: Final[tuple[BBox, ...]] = ((10.0, 10.0, 60.0, 70.0), (110.0, 10.0, 160.0, 70.0), (210.0, 10.0, 260.0, 70.0))
"""Of the first, second and third face of a picture; far apart."""


def likeness(person: int, number: int, spread: float = 0.3) -> Floats:
    """An embedding of a person's face; the similarity of two of them is about 1 / (1 + spread²)."""
    noise = np.random.default_rng(1_000_003 * person + number).normal(size=512)
    mixed = embedding_of(person) + spread * noise / np.linalg.norm(noise)
    return np.asarray(mixed / np.linalg.norm(mixed), np.float32)


def stored_face(picture: str, person: int, number: int = 0, *, place: int = 0, **payload: Any) -> FacePoint:
    """A face of a picture.

    Args:
        picture: path of the picture, such as /photos/a.jpg.
        person: whom it shows; each number is somebody else.
        number: faces of one person with different numbers differ a little.
        place: of the face in the picture, see `BOXES`.
        payload: what differs from a clear face.
    """
    image_id = hashlib.sha256(picture.encode()).hexdigest()
    stored: dict[str, Any] = {"path": picture, "folder": folders_of(picture), "bbox": BOXES[place]}
    return FacePoint(
        face_id_of(image_id, FAKE_PACK.digest, place),
        likeness(person, number),
        payload_of(image_id, **(stored | payload)),
    )


def faces_of(person: int, count: int, folder: str = "/photos", **payload: Any) -> list[FacePoint]:
    """Faces of a person, each in a picture of its own, taken on the days of one year."""
    return [
        stored_face(
            f"{folder}/{person}-{number}.jpg",
            person,
            number,
            **({"taken_at": f"2020-{1 + number // 28 % 12:02d}-{1 + number % 28:02d}T10:00:00"} | payload),
        )
        for number in range(count)
    ]


def ids_of(faces: Sequence[FacePoint]) -> list[str]:
    """The ids of faces."""
    return [one.face_id for one in faces]
