"""Where faces of the index are, and which face of the index a place is, also if another model found its box."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeVar

from app.catalog import Assignment, Dismissal, Place, Rejection, is_same_face
from app.core.boxes import overlap
from app.core.errors import OceanoError
from app.core.iteration import chunks
from app.core.protocols import FaceIndex
from app.core.scrolling import scrolled
from app.core.types import FaceFilter, FacePayload, FaceRecord

MAX_FACES: Final = 10_000
"""Faces of one request."""

_READ: Final = 2_000
_IMAGES: Final = 500  # of one filter

Placed = TypeVar("Placed", Assignment, Dismissal, Rejection)


def place_of(payload: FacePayload) -> Place:
    """Return the place of a face of the index."""
    return Place(payload.image_id, payload.page, payload.bbox)


def places_of(index: FaceIndex, face_ids: Sequence[str]) -> dict[str, Place]:
    """Return the places of faces by face_id; arguments and errors are those of `payloads_of`."""
    return {face_id: place_of(payload) for face_id, payload in payloads_of(index, face_ids).items()}


def payloads_of(index: FaceIndex, face_ids: Sequence[str]) -> dict[str, FacePayload]:
    """Return what the index says about faces by face_id.

    Args:
        index: has the faces.
        face_ids: at most `MAX_FACES`; the same one several times counts once.

    Raises:
        OceanoError: `invalid_request` if there are too many or none, `face_unknown` if the index lacks one.
    """
    wanted = [*dict.fromkeys(face_ids)]
    if not 0 < len(wanted) <= MAX_FACES:
        raise OceanoError(
            "invalid_request",
            f"{len(wanted)} faces were given; 1 to {MAX_FACES} are allowed",
            details={"field": "face_ids", "max": MAX_FACES},
        )
    found: dict[str, FacePayload] = {}
    for some in chunks(wanted, _READ):
        found |= {record.face_id: record.payload for record in index.retrieve(some)}
    if missing := [face_id for face_id in wanted if face_id not in found]:
        raise OceanoError(
            "face_unknown", f"{len(missing)} of the faces are not in the index", details={"face_id": missing[0]}
        )
    return found


def faces_in(index: FaceIndex, image_ids: Sequence[str]) -> dict[str, list[FaceRecord]]:
    """Return the faces of images by image."""
    found: dict[str, list[FaceRecord]] = {}
    for some in chunks(image_ids, _IMAGES):
        for record in scrolled(index, page=_READ, where=FaceFilter(image_id=tuple(some))):
            found.setdefault(record.payload.image_id, []).append(record)
    return found


def all_at(place: Place, placed: Iterable[Placed]) -> list[Placed]:
    """Return all that is about the face at a place, such as the rejections of several people."""
    return [one for one in placed if is_same_face(place, one.place)]


def at(place: Place, placed: Iterable[Placed]) -> Placed | None:
    """Return what is about the face at a place; None if nothing is. A box with exactly these corners comes first."""
    same = all_at(place, placed)
    return max(same, key=lambda one: (one.place == place, overlap(one.place.bbox, place.bbox)), default=None)


def matched(records: Sequence[FaceRecord], placed: Sequence[Placed]) -> Mapping[str, Placed]:
    """Return what is about each face of an image by face_id, each at most once: the largest overlap first.

    Args:
        records: the faces of an image.
        placed: assignments, rejections of one person, or dismissals in the image.
    """
    pairs: list[tuple[bool, float, int, str]] = []
    for record in records:
        place = place_of(record.payload)
        for number, one in enumerate(placed):
            if is_same_face(place, one.place):
                shared = overlap(one.place.bbox, place.bbox)
                pairs.append((one.place != place, -shared, number, record.face_id))
    pairs.sort()
    found: dict[str, Placed] = {}
    taken: set[int] = set()
    for _, _, number, face_id in pairs:
        if face_id not in found and number not in taken:
            found[face_id] = placed[number]
            taken.add(number)
    return found
