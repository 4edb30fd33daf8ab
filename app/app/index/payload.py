"""Checks of ids, embeddings, limits and filters, and conversion of payloads, for every kind of index."""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from app.core.errors import OceanoError
from app.core.paths import absolute
from app.core.times import full_time
from app.core.types import FaceFilter, FacePayload, Floats

T = TypeVar("T")

_NORM_TOLERANCE: Final = 1e-3
_STORED_NORM_TOLERANCE: Final = 1e-2
_SCORE_TOLERANCE: Final = 1e-2
_MAX_SPELLINGS: Final = 256  # of one folder
_HASH: Final = re.compile(r"[0-9a-f]{16}")


def require_limit(limit: int) -> None:
    """Raise OceanoError `invalid_request` if a limit is less than 1."""
    if limit < 1:
        raise OceanoError("invalid_request", f"limit={limit} must be at least 1.")


def require_threshold(threshold: float | None) -> None:
    """Raise OceanoError `invalid_request` if a threshold is NaN or infinite."""
    if threshold is not None and not math.isfinite(threshold):
        raise OceanoError("invalid_request", f"threshold={threshold} must be a number.")


def require_hash(phash: str) -> str:
    """Return a perceptual hash; raise OceanoError `invalid_request` if it is not 16 hexadecimal digits."""
    if not _HASH.fullmatch(phash):  # stored, it would make the face unreadable
        raise OceanoError("invalid_request", f"phash={phash!r} must be 16 hexadecimal digits.")
    return phash


def uuid_of(text: str) -> uuid.UUID:
    """Parse a face_id.

    Raises:
        OceanoError: `invalid_request` if it is not a UUID.
    """
    try:
        return uuid.UUID(text)
    except ValueError:
        raise OceanoError("invalid_request", f"face_id={text!r} must be a UUID.") from None


def valid_uuids(face_ids: Sequence[str]) -> Iterator[uuid.UUID]:
    """Yield the face_ids that are UUIDs, in order; no other text can be in the index."""
    for text in face_ids:
        try:
            yield uuid.UUID(text)
        except ValueError:
            continue


def unit_rows(embeddings: Sequence[Floats], size: int) -> Floats:
    """Check embeddings and stack them.

    Args:
        embeddings: n unit vectors, (size,) each.
        size: the dimensions of the index's embeddings.

    Returns:
        float32, (n, size).

    Raises:
        OceanoError: `invalid_request` if a shape is not (size,), or a norm not 1.
    """
    for embedding in embeddings:
        if np.shape(embedding) != (size,):
            raise OceanoError(
                "invalid_request", f"an embedding has shape {np.shape(embedding)}; this index needs ({size},)."
            )
    rows = np.asarray(embeddings, dtype=np.float32)
    norms = np.linalg.norm(rows, axis=1)
    if not np.all(np.abs(norms - 1) <= _NORM_TOLERANCE):  # NaN fails, too
        raise OceanoError("invalid_request", "the norm of an embedding is not 1, or it holds NaN or infinity.")
    return rows


def to_stored(payload: FacePayload) -> dict[str, Any]:
    """Convert a payload to the values that an index stores: those of JSON."""
    optional = {"page": payload.page or None, "phash": payload.phash}
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
    } | {name: value for name, value in optional.items() if value is not None}


def from_stored(stored: Mapping[str, Any]) -> FacePayload:
    """Convert stored values back to a payload."""
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
        person=stored.get("person"),  # Qdrant Edge removes a key that is set to null
        taken_at=stored.get("taken_at"),
        ingested_at=stored["ingested_at"],
        flaws=tuple(stored.get("flaws", ())),
        page=int(stored.get("page") or 0),
        phash=_hash(stored.get("phash")),
    )


def _hash(stored: Any) -> str | None:
    if stored is None:
        return None
    if not _HASH.fullmatch(stored):
        raise ValueError("no perceptual hash")
    return str(stored)


def payload_of(stored: Mapping[str, Any]) -> FacePayload | None:
    """Convert stored values to a payload as `from_stored` does; None if they are damaged."""
    try:
        return from_stored(stored)
    except (KeyError, TypeError, ValueError):
        return None


def similarity_of(score: float) -> float | None:
    """Return the cosine of a score, between -1 and 1; None if a damaged vector gave another number, or NaN."""
    return min(1.0, max(-1.0, score)) if abs(score) <= 1 + _SCORE_TOLERANCE else None


def is_unit(embedding: Floats) -> bool:
    """Return whether a stored embedding has norm 1; a damaged one has another, or NaN."""
    return bool(abs(float(np.linalg.norm(embedding)) - 1) <= _STORED_NORM_TOLERANCE)


def is_intact(stored: Mapping[str, Any], embedding: Floats | None) -> bool:
    """Return whether a stored face can be read: its values are those of a payload, and its embedding has norm 1."""
    return embedding is not None and is_unit(embedding) and payload_of(stored) is not None


def conditions_of(where: FaceFilter | None) -> dict[str, Any]:
    """Convert a filter to plain values.

    Args:
        where: the filter; None for all faces.

    Returns:
        The fields that restrict, by name; times in full ISO 8601.

    Raises:
        OceanoError: `invalid_request` if a time is not ISO 8601.
    """
    if where is None:
        return {}
    conditions: dict[str, Any] = {
        "person": _any_of(where.person),
        "not_person": where.not_person or None,
        "named": where.named or None,
        "unnamed": where.unnamed or None,
        "folder": folder_spellings(where.folder),
        "image_id": _any_of(where.image_id),
        "taken_from": full_time(where.taken_from, last=False),
        "taken_to": full_time(where.taken_to, last=True),
        "undated": where.undated or None,
        "ingested_from": full_time(where.ingested_from, last=False),
        "ingested_to": full_time(where.ingested_to, last=True),
        "min_det_score": where.min_det_score,
        "min_quality": where.min_quality,
        "without": where.without or None,
    }
    return {key: value for key, value in conditions.items() if value is not None}


def _any_of(values: str | tuple[str, ...] | None) -> list[str] | None:
    return [values] if isinstance(values, str) else None if values is None else list(values)


def folder_spellings(folders: str | Sequence[str] | None) -> list[str] | None:
    """Return the spellings under which folders may be stored.

    Paths are normalized. Systems store an accented letter as one character (NFC) or as a letter and an accent (NFD),
    and one path may have folders of both kinds.

    Args:
        folders: absolute paths; None for no condition.
    """
    if folders is None:
        return None
    given = [folders] if isinstance(folders, str) else folders
    return [*dict.fromkeys(spelling for folder in given for spelling in _spellings(absolute(Path(folder))))]


def _spellings(folder: str) -> Iterator[str]:
    kinds = [dict.fromkeys((part, *_both_forms(part))) for part in folder.split("/")]
    if math.prod(map(len, kinds)) <= _MAX_SPELLINGS:
        yield from map("/".join, itertools.product(*kinds))
    else:
        yield from (folder, *_both_forms(folder))


def _both_forms(text: str) -> tuple[str, str]:
    return unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)
