"""What every index is given and keeps, in plain values: checked ids, embeddings, limits and filters; payloads."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from itertools import islice
from typing import Any, Final, TypeVar

import numpy as np

from app.core.errors import OceanoError
from app.core.types import FaceFilter, FacePayload, Floats

T = TypeVar("T")

_NORM_TOLERANCE: Final = 1e-3


def chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` values; the last may be shorter."""
    rest = iter(values)
    while some := list(islice(rest, size)):
        yield some


def require_limit(limit: int) -> None:
    """Raises OceanoError `invalid_request` for less than 1."""
    if limit < 1:
        raise OceanoError("invalid_request", f"limit={limit} must be at least 1.")


def require_threshold(threshold: float | None) -> None:
    """Raises OceanoError `invalid_request` for one that is no number."""
    if threshold is not None and not math.isfinite(threshold):
        raise OceanoError("invalid_request", f"threshold={threshold} must be a number.")


def uuid_of(text: str) -> uuid.UUID:
    """Raises OceanoError `invalid_request` if it is no UUID."""
    try:
        return uuid.UUID(text)
    except ValueError:
        raise OceanoError("invalid_request", f"face_id={text!r} must be a UUID.") from None


def known_uuids(face_ids: Sequence[str]) -> Iterator[uuid.UUID]:
    """Those that are UUIDs; anything else cannot be in the index."""
    for text in face_ids:
        try:
            yield uuid.UUID(text)
        except ValueError:
            continue


def unit_rows(embeddings: Sequence[Floats], size: int) -> Floats:
    """(n, size) float32, once they are known to be unit vectors of that size. Raises OceanoError `invalid_request`."""
    for embedding in embeddings:
        if np.shape(embedding) != (size,):
            raise OceanoError(
                "invalid_request", f"an embedding has shape {np.shape(embedding)}; those of this index have ({size},)."
            )
    rows = np.asarray(embeddings, dtype=np.float32)
    norms = np.linalg.norm(rows, axis=1)
    if not np.all(np.abs(norms - 1) <= _NORM_TOLERANCE):  # false for NaN, too
        raise OceanoError("invalid_request", "an embedding has a norm that is not 1, or holds NaN or infinity.")
    return rows


def to_stored(payload: FacePayload) -> dict[str, Any]:
    """As JSON would have it."""
    return {
        "image_id": payload.image_id,
        "path": payload.path,
        "folder": list(payload.folder),
        "bbox": list(payload.bbox),
        "kps": [list(point) for point in payload.kps],
        "width": payload.width,
        "height": payload.height,
        "det_score": payload.det_score,
        "quality": payload.quality,
        "person": payload.person,
        "taken_at": payload.taken_at,
        "ingested_at": payload.ingested_at,
        "flaws": list(payload.flaws),
    }


def from_stored(stored: Mapping[str, Any]) -> FacePayload:
    """What `to_stored` made."""
    x1, y1, x2, y2 = stored["bbox"]
    return FacePayload(
        image_id=stored["image_id"],
        path=stored["path"],
        folder=tuple(stored["folder"]),
        bbox=(x1, y1, x2, y2),
        kps=tuple((x, y) for x, y in stored["kps"]),
        width=stored["width"],
        height=stored["height"],
        det_score=stored["det_score"],
        quality=stored["quality"],
        person=stored.get("person"),  # Qdrant Edge drops a key that is set to null
        taken_at=stored.get("taken_at"),
        ingested_at=stored["ingested_at"],
        flaws=tuple(stored.get("flaws", ())),
    )


def conditions_of(where: FaceFilter | None) -> dict[str, Any]:
    """The fields that restrict, with times in the one form that the index reads."""
    if where is None:
        return {}
    conditions: dict[str, Any] = {
        "person": where.person,
        "folder": where.folder,
        "image_id": where.image_id,
        "taken_from": _time(where.taken_from, last=False),
        "taken_to": _time(where.taken_to, last=True),
        "ingested_from": _time(where.ingested_from, last=False),
        "ingested_to": _time(where.ingested_to, last=True),
        "min_det_score": where.min_det_score,
        "min_quality": where.min_quality,
        "without": where.without or None,
    }
    return {key: value for key, value in conditions.items() if value is not None}


def _time(text: str | None, *, last: bool) -> str | None:
    """ISO 8601; a day without a time of day counts from its first moment to its `last`."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if last and len(text) <= len("2024-01-31"):
            day = date.fromisoformat(text)
            moment = datetime(day.year, day.month, day.day, 23, 59, 59, 999_999)
    except ValueError:
        raise OceanoError("invalid_request", f"{text!r} is not a date or time in ISO 8601.") from None
    return moment.isoformat()
