"""Cursors: where a list of matches continues, as opaque text that holds the query itself."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import struct
import uuid
from dataclasses import asdict, dataclass
from typing import Final, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from app.core.errors import OceanoError
from app.core.types import FaceFilter, Floats

GroupBy = Literal["image_id", "person"]
MAX_CURSOR_CHARS: Final = 200_000

_MAX_SHOWN: Final = 10**9
_ID_BYTES: Final = 16
_CHECK_BYTES: Final = 8
_LENGTH: Final = struct.Struct("<I")
_NORM_TOLERANCE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Cursor:
    """The query of a list of matches, and how far the list has been read.

    Attributes:
        embedding: the query, float32, (D,), with norm 1; exact, so that every page has the same similarities.
        threshold: lowest cosine similarity of a match.
        where: which stored faces count; None: all.
        group_by: only the best match of each.
        shown: number of matches on the pages before.
        position: similarity (rounded) and face_id of the last match of an exact page; None after the first page.
        seen: face_ids of the first page that an exact search ranks after `position`.
        counted: a similarity, and the number of all matches at or above it; None if unknown.
    """

    embedding: Floats
    threshold: float
    where: FaceFilter | None
    group_by: GroupBy | None
    shown: int
    position: tuple[float, str] | None
    seen: tuple[str, ...]
    counted: tuple[float, int] | None = None


@dataclass(frozen=True, slots=True)
class _Header:
    threshold: float
    where: FaceFilter | None
    group_by: GroupBy | None
    shown: int
    position: tuple[float, uuid.UUID] | None
    counted: tuple[float, int] | None
    version: Literal[1] = 1


_HEADERS: Final = TypeAdapter(_Header)


def encode_cursor(cursor: Cursor, model_digest: str) -> str:
    """Return a cursor as URL-safe text.

    Args:
        cursor: the cursor.
        model_digest: of the model pack that made the embedding; other models refuse the cursor.
    """
    header = {
        "version": 1,
        "threshold": cursor.threshold,
        "where": None if cursor.where is None else asdict(cursor.where),
        "group_by": cursor.group_by,
        "shown": cursor.shown,
        "position": cursor.position,
        "counted": cursor.counted,
    }
    encoded = json.dumps(header, separators=(",", ":")).encode("ascii")
    seen = b"".join(uuid.UUID(face_id).bytes for face_id in cursor.seen)
    body = _LENGTH.pack(len(encoded)) + encoded + cursor.embedding.astype("<f4").tobytes() + seen
    return base64.urlsafe_b64encode(_check(body, model_digest) + body).rstrip(b"=").decode("ascii")


def decode_cursor(text: str, model_digest: str, embedding_size: int) -> Cursor:
    """Read a cursor.

    Args:
        text: as `encode_cursor` made it.
        model_digest: of the model pack in use.
        embedding_size: D of the model pack in use.

    Raises:
        OceanoError: `cursor_invalid` if the text is damaged, no cursor, or made with another model.
    """
    try:
        if len(text) > MAX_CURSOR_CHARS:
            raise ValueError("too long")
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        check, body = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        if check != _check(body, model_digest):
            raise ValueError("damaged, or of another model")
        return _read(body, embedding_size)
    except (ValueError, ValidationError, struct.error, RecursionError) as failure:
        raise OceanoError(
            "cursor_invalid",
            "these matches cannot be read: `after` is damaged or was made with another model. Search again, or send "
            "`next` of the page before unchanged",
        ) from failure


def _read(body: bytes, embedding_size: int) -> Cursor:
    (length,) = _LENGTH.unpack_from(body)
    header = _HEADERS.validate_json(body[_LENGTH.size : _LENGTH.size + length])
    rest = body[_LENGTH.size + length :]
    embedding = np.frombuffer(rest[: 4 * embedding_size], dtype="<f4").astype(np.float32)
    ids = rest[4 * embedding_size :]
    norm = float(np.linalg.norm(embedding))
    if len(embedding) != embedding_size or len(ids) % _ID_BYTES or not abs(norm - 1) <= _NORM_TOLERANCE:
        raise ValueError("no embedding of this model")
    if not 0 <= header.shown <= _MAX_SHOWN or not math.isfinite(header.threshold):
        raise ValueError("impossible numbers")
    return Cursor(
        embedding=embedding,
        threshold=header.threshold,
        where=header.where,
        group_by=header.group_by,
        shown=header.shown,
        counted=header.counted,
        position=None if header.position is None else (header.position[0], str(header.position[1])),
        seen=tuple(str(uuid.UUID(bytes=ids[at : at + _ID_BYTES])) for at in range(0, len(ids), _ID_BYTES)),
    )


def _check(body: bytes, model_digest: str) -> bytes:
    """A checksum, no signature: who may search may send any query."""
    return hashlib.sha256(model_digest.encode("utf-8") + b"\0" + body).digest()[:_CHECK_BYTES]
