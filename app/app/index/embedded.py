"""The embedded index as its clients see it: checks what goes in, asks the owner, turns answers into our types."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import numpy as np

from app.errors import OceanoError
from app.index.pool import Pool
from app.index.wire import Op, join_ids, pack
from app.types import (
    EMBEDDING_SIZE,
    FaceFilter,
    FacePayload,
    FacePoint,
    FaceRecord,
    Floats,
    IndexInfo,
    Match,
    ScrollPage,
    folders_of,
)

T = TypeVar("T")

# A request holds the worker; these keep one below some 50 ms, so that a search finds its turn between them.
_UPSERT_POINTS: Final = 128
_SEARCH_VECTORS: Final = 16
_READ_POINTS: Final = 1000
_NORM_TOLERANCE: Final = 1e-3
_POLL_SECONDS: Final = 0.1


class EmbeddedIndex:
    """`app.types.FaceIndex` on the embedded index. `alias` is what `backup` writes into the copy's alias file."""

    def __init__(self, pool: Pool, *, collection: str, hnsw_ef: int, alias: tuple[str, str]) -> None:
        self._pool = pool
        self._collection = collection
        self._ef = hnsw_ef
        self._alias = alias

    def upsert(self, points: Sequence[FacePoint]) -> None:
        fresh: dict[uuid.UUID, FacePoint] = {}
        for point in points:
            fresh.setdefault(_face_id(point.face_id), point)  # the first of two with the same id, as with two calls
        for some in _chunks(fresh, _UPSERT_POINTS):
            vectors = _vectors([fresh[one].embedding for one in some])
            payloads = [_to_wire(fresh[one].payload) for one in some]
            self._pool.call(pack(Op.UPSERT, join_ids(some), (vectors, payloads)))

    def flush(self) -> None:
        self._pool.call(pack(Op.FLUSH))

    def search(
        self, embedding: Floats, *, limit: int, threshold: float | None = None, where: FaceFilter | None = None
    ) -> list[Match]:
        return self.search_batch([embedding], limit=limit, threshold=threshold, where=where)[0]

    def search_batch(
        self,
        embeddings: Sequence[Floats],
        *,
        limit: int,
        threshold: float | None = None,
        where: FaceFilter | None = None,
    ) -> list[list[Match]]:
        _require_limit(limit)
        if threshold is not None and not math.isfinite(threshold):
            raise OceanoError("invalid_request", f"threshold={threshold} must be a number.")
        conditions = _conditions(where)
        found: list[list[Match]] = []
        for some in _chunks(embeddings, _SEARCH_VECTORS):
            body = (_vectors(some), limit, threshold, conditions, self._ef)
            for hits in self._pool.call(pack(Op.SEARCH, body=body)):
                found.append([_match(*hit) for hit in hits])
        return found

    def retrieve(self, face_ids: Sequence[str], *, with_embedding: bool = False) -> list[FaceRecord]:
        records: list[FaceRecord] = []
        for some in _chunks(_known_form(face_ids), _READ_POINTS):
            found = self._pool.call(pack(Op.RETRIEVE, join_ids(some), with_embedding))
            records.extend(_record(*record) for record in found)
        return records

    def scroll(
        self,
        *,
        limit: int,
        offset: str | None = None,
        where: FaceFilter | None = None,
        with_embedding: bool = False,
    ) -> ScrollPage:
        _require_limit(limit)
        conditions = _conditions(where)
        following = None if offset is None else _face_id(offset)
        records: list[FaceRecord] = []
        while True:
            body = (min(limit - len(records), _READ_POINTS), following, conditions, with_embedding)
            found, following = self._pool.call(pack(Op.SCROLL, body=body))
            records.extend(_record(*record) for record in found)
            if following is None or len(records) >= limit:
                return ScrollPage(tuple(records), None if following is None else str(following))

    def set_payload(self, face_ids: Sequence[str], *, person: str | None) -> None:
        self._set(face_ids, {"person": person})

    def set_path(self, face_ids: Sequence[str], *, path: str) -> None:
        self._set(face_ids, {"path": path, "folder": list(folders_of(path))})

    def _set(self, face_ids: Sequence[str], fields: dict[str, Any]) -> None:
        for some in _chunks(_known_form(face_ids), _READ_POINTS):
            self._pool.call(pack(Op.SET_PAYLOAD, join_ids(some), fields))

    def delete(self, face_ids: Sequence[str]) -> None:
        for some in _chunks(_known_form(face_ids), _READ_POINTS):
            self._pool.call(pack(Op.DELETE, join_ids(some)))

    def count(self, where: FaceFilter | None = None) -> int:
        if not (conditions := _conditions(where)):
            return self.info().points  # counting one by one takes 80 ms per million
        found: int = self._pool.call(pack(Op.COUNT, body=conditions))
        return found

    def facet(
        self, key: Literal["person", "folder", "image_id"], *, limit: int = 100, where: FaceFilter | None = None
    ) -> dict[str, int]:
        _require_limit(limit)
        return dict(self._pool.call(pack(Op.FACET, body=(key, limit, _conditions(where)))))

    def info(self) -> IndexInfo:
        return self._look()[0]

    def maintain(self, *, wait: bool = False) -> None:
        self._pool.call(pack(Op.MAINTAIN))
        if not wait:
            return
        while (found := self._look())[0].maintaining:
            time.sleep(_POLL_SECONDS)
        if found[1] is not None:
            raise found[1]

    def _look(self) -> tuple[IndexInfo, OceanoError | None]:
        """The state of the index, and why the last build failed, if it did."""
        found = self._pool.call(pack(Op.INFO))
        failure: OceanoError | None = found.pop("failure")
        return IndexInfo(kind="embedded", collection=self._collection, **found), failure

    def backup(self, folder: Path) -> None:
        target = folder.expanduser().absolute()
        if target.exists():
            raise OceanoError("invalid_request", f"{target} is there already; a backup goes into a new folder.")
        body = (str(target), self._collection, self._alias)
        self._pool.call(pack(Op.BACKUP, body=body), seconds=None)

    def close(self) -> None:
        self._pool.close()


def _chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(values)
    while some := list(islice(rest, size)):
        yield some


def _require_limit(limit: int) -> None:
    if limit < 1:
        raise OceanoError("invalid_request", f"limit={limit} must be at least 1.")


def _face_id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise OceanoError("invalid_request", f"face_id={text!r} must be a UUID.") from None


def _known_form(face_ids: Sequence[str]) -> Iterator[uuid.UUID]:
    """Those that are UUIDs; anything else cannot be in the index."""
    for text in face_ids:
        try:
            yield uuid.UUID(text)
        except ValueError:
            continue


def _vectors(embeddings: Sequence[Floats]) -> bytes:
    """Raw float32, one after the other, once they are known to be unit vectors."""
    for embedding in embeddings:
        if np.shape(embedding) != (EMBEDDING_SIZE,):
            raise OceanoError(
                "invalid_request", f"an embedding has shape {np.shape(embedding)}; it must be ({EMBEDDING_SIZE},)."
            )
    rows = np.asarray(embeddings, dtype=np.float32)
    norms = np.linalg.norm(rows, axis=1)
    if not np.all(np.abs(norms - 1) <= _NORM_TOLERANCE):  # false for NaN, too
        raise OceanoError("invalid_request", "an embedding has a norm that is not 1, or holds NaN or infinity.")
    return rows.tobytes()


def _to_wire(payload: FacePayload) -> dict[str, Any]:
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


def _from_wire(stored: Mapping[str, Any]) -> FacePayload:
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
        person=stored.get("person"),  # Edge drops a key that is set to null
        taken_at=stored.get("taken_at"),
        ingested_at=stored["ingested_at"],
        flaws=tuple(stored.get("flaws", ())),
    )


def _match(face_id: uuid.UUID, score: float, stored: Mapping[str, Any]) -> Match:
    return Match(str(face_id), min(1.0, max(-1.0, score)), _from_wire(stored))


def _record(face_id: uuid.UUID, stored: Mapping[str, Any], vector: bytes | None) -> FaceRecord:
    embedding = None if vector is None else np.frombuffer(vector, dtype=np.float32).copy()
    return FaceRecord(str(face_id), _from_wire(stored), embedding)


def _conditions(where: FaceFilter | None) -> dict[str, Any]:
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
