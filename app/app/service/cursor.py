"""Queries and cursors as opaque, URL-safe text.

A query token holds what a search asks for. A position tells how far a list of matches has been read, and belongs to one
query. A cursor holds both. A mark tells how far another list has been read.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import struct
import uuid
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Final, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from app.core.errors import OceanoError
from app.core.types import FaceFilter
from app.service.query import GroupBy, Query, Range, Sort

MAX_CURSOR_CHARS: Final = 200_000
MAX_PERSONS: Final = 10  # of `Query.unlike` and of `Query.together`

_MAX_SHOWN: Final = 10**9
_MAX_RANK: Final = 2**53
_ID_BYTES: Final = 16
_CHECK_BYTES: Final = 8
_LENGTH: Final = struct.Struct("<I")
_NORM_TOLERANCE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Position:
    """How far a list of matches has been read.

    Attributes:
        shown: number of matches on the pages before.
        rank: sort value and face_id of the last match of an exact page; None after an approximate first page. Lists
            are in ascending order of their ranks; by similarity, the sort value is the negative similarity.
        seen: face_ids of the first page that an exact search ranks after `rank`.
        counted: number of all matches; None if unknown.
    """

    shown: int = 0
    rank: tuple[float, str] | None = None
    seen: tuple[str, ...] = ()
    counted: int | None = None


START: Final = Position()


@dataclass(frozen=True, slots=True, eq=False)
class Cursor:
    """The query of a list of matches, and how far the list has been read."""

    query: Query
    position: Position


@dataclass(frozen=True, slots=True)
class _Header:
    threshold: float
    where: FaceFilter | None
    sort: Sort
    group_by: GroupBy | None
    min_face: int | None
    unlike: int
    together: int
    within: tuple[Range, ...] = ()
    version: Literal[2] = 2


@dataclass(frozen=True, slots=True)
class _Place:
    shown: int
    rank: tuple[float, uuid.UUID] | None
    counted: int | None
    version: Literal[3] = 3


_HEADERS: Final = TypeAdapter(_Header)
_PLACES: Final = TypeAdapter(_Place)
_MARKS: Final = TypeAdapter(tuple[str | int, ...])


def encode_query(query: Query, model_digest: str) -> str:
    """Return a query as URL-safe text, about 3 kB for each embedding.

    Args:
        query: the query; its embeddings are kept exactly, so that every page has the same similarities.
        model_digest: of the model pack that made the embeddings; other models refuse the text.
    """
    return _sealed(_query_bytes(query), model_digest)


def decode_query(text: str, model_digest: str, embedding_size: int) -> Query:
    """Read a query.

    Args:
        text: as `encode_query` made it.
        model_digest: of the model pack in use.
        embedding_size: D of the model pack in use.

    Raises:
        OceanoError: `cursor_invalid` if the text is damaged, no query, or made with another model.
    """
    try:
        query, rest = _read_query(_opened(text, model_digest), embedding_size)
        if rest:
            raise ValueError("too long")
    except _INVALID as failure:
        raise _invalid() from failure
    return query


def encode_position(position: Position, query: Query, model_digest: str) -> str:
    """Return a position in the list of a query as URL-safe text."""
    return _sealed(_position_bytes(position), _query_digest(query, model_digest))


def decode_position(text: str, query: Query, model_digest: str) -> Position:
    """Read a position.

    Args:
        text: as `encode_position` made it.
        query: the query that the position belongs to.
        model_digest: of the model pack in use.

    Raises:
        OceanoError: `cursor_invalid` if the text is damaged, no position, or belongs to another query or model.
    """
    try:
        return _read_position(_opened(text, _query_digest(query, model_digest)))
    except _INVALID as failure:
        raise _invalid() from failure


def encode_cursor(cursor: Cursor, model_digest: str) -> str:
    """Return a cursor as URL-safe text; the arguments are those of `encode_query`."""
    return _sealed(_query_bytes(cursor.query) + _position_bytes(cursor.position), model_digest)


def decode_cursor(text: str, model_digest: str, embedding_size: int) -> Cursor:
    """Read a cursor; arguments and errors are those of `decode_query`."""
    try:
        query, rest = _read_query(_opened(text, model_digest), embedding_size)
        return Cursor(query, _read_position(rest))
    except _INVALID as failure:
        raise _invalid() from failure


def encode_mark(mark: tuple[str | int, ...], list_name: str) -> str:
    """Return what the last entry of a page is sorted by as URL-safe text.

    Args:
        mark: of the entry.
        list_name: of the list, with its order and conditions; others refuse the text.
    """
    return _sealed(json.dumps(mark, separators=(",", ":")).encode("ascii"), list_name)


def decode_mark(text: str, list_name: str, *kinds: type[str] | type[int]) -> tuple[str | int, ...]:
    """Read what `encode_mark` made.

    Args:
        text: the mark.
        list_name: as in `encode_mark`.
        kinds: of the values; numbers are at least 0.

    Raises:
        OceanoError: `cursor_invalid` if the text is damaged, or of another list.
    """
    try:
        mark = _MARKS.validate_json(_opened(text, list_name))
        is_wrong = any("\0" in one if isinstance(one, str) else not 0 <= one <= _MAX_RANK for one in mark)
        if tuple(map(type, mark)) != kinds or is_wrong:
            raise ValueError("no mark of this list")  # anybody can compute the check
        return mark
    except _INVALID as failure:
        raise _invalid() from failure


_INVALID: Final = (ValueError, ValidationError, struct.error, RecursionError)


def _invalid() -> OceanoError:
    return OceanoError(
        "cursor_invalid",
        "these matches cannot be read: `after` is damaged, or was made for another search or model. Search again, or "
        "send `next` of the page before unchanged",
    )


def _sealed(body: bytes, key: str) -> str:
    return base64.urlsafe_b64encode(_check(body, key) + body).rstrip(b"=").decode("ascii")


def _opened(text: str, key: str) -> bytes:
    if len(text) > MAX_CURSOR_CHARS:
        raise ValueError("too long")
    raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    check, body = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
    if check != _check(body, key):
        raise ValueError("damaged, or of another model or query")
    return body


def _check(body: bytes, key: str) -> bytes:
    """A checksum, no signature: who may search may send any query."""
    return hashlib.sha256(key.encode("utf-8") + b"\0" + body).digest()[:_CHECK_BYTES]


def _query_digest(query: Query, model_digest: str) -> str:
    return hashlib.sha256(model_digest.encode("utf-8") + _query_bytes(query)).hexdigest()


def _with_length(header: dict[str, object]) -> bytes:
    encoded = json.dumps(header, separators=(",", ":")).encode("ascii")
    return _LENGTH.pack(len(encoded)) + encoded


def _query_bytes(query: Query) -> bytes:
    header = _with_length(
        {
            "version": 2,
            "threshold": query.threshold,
            "where": None if query.where is None else asdict(query.where),
            "sort": query.sort,
            "group_by": query.group_by,
            "min_face": query.min_face,
            "unlike": len(query.unlike),
            "together": len(query.together),
            "within": query.within,
        }
    )
    embeddings = (query.embedding, *query.unlike, *query.together)
    return header + b"".join(one.astype("<f4").tobytes() for one in embeddings)


def _position_bytes(position: Position) -> bytes:
    header = _with_length({"version": 3, "shown": position.shown, "rank": position.rank, "counted": position.counted})
    return header + b"".join(uuid.UUID(face_id).bytes for face_id in position.seen)


def _read_query(body: bytes, embedding_size: int) -> tuple[Query, bytes]:
    (length,) = _LENGTH.unpack_from(body)
    header = _HEADERS.validate_json(body[_LENGTH.size : _LENGTH.size + length])
    if not (0 <= header.unlike <= MAX_PERSONS and 0 <= header.together <= MAX_PERSONS):
        raise ValueError("impossible numbers")
    if not all(map(math.isfinite, (header.threshold, *chain.from_iterable(header.within)))):
        raise ValueError("impossible numbers")
    count = 1 + header.unlike + header.together
    start = _LENGTH.size + length
    end = start + 4 * embedding_size * count
    rows = np.frombuffer(body[start:end], dtype="<f4").astype(np.float32).reshape(count, embedding_size)
    norms = np.linalg.norm(rows, axis=1)
    if not np.all(np.abs(norms - 1) <= _NORM_TOLERANCE):
        raise ValueError("no embeddings of this model")
    first, *others = rows
    query = Query(
        embedding=first,
        threshold=header.threshold,
        where=header.where,
        sort=header.sort,
        group_by=header.group_by,
        min_face=header.min_face,
        unlike=tuple(others[: header.unlike]),
        together=tuple(others[header.unlike :]),
        within=header.within,
    )
    return query, body[end:]


def _read_position(body: bytes) -> Position:
    (length,) = _LENGTH.unpack_from(body)
    header = _PLACES.validate_json(body[_LENGTH.size : _LENGTH.size + length])
    ids = body[_LENGTH.size + length :]
    if len(ids) % _ID_BYTES or not 0 <= header.shown <= _MAX_SHOWN:
        raise ValueError("impossible numbers")
    if header.rank is not None and not math.isfinite(header.rank[0]):
        raise ValueError("impossible numbers")
    return Position(
        shown=header.shown,
        rank=None if header.rank is None else (header.rank[0], str(header.rank[1])),
        seen=tuple(str(uuid.UUID(bytes=ids[at : at + _ID_BYTES])) for at in range(0, len(ids), _ID_BYTES)),
        counted=header.counted,
    )
