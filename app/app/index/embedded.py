"""The embedded index as its clients see it: asks the owner, turns answers into our types."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from app.errors import OceanoError
from app.index.pool import Pool
from app.index.stored import (
    chunks,
    conditions_of,
    from_stored,
    known_uuids,
    require_limit,
    require_threshold,
    to_stored,
    unit_rows,
    uuid_of,
)
from app.index.wire import Op, join_ids, pack
from app.types import (
    FaceFilter,
    FacePoint,
    FaceRecord,
    Floats,
    IndexInfo,
    Match,
    ScrollPage,
    folders_of,
)

# A request holds the worker; these keep one below some 50 ms, so that a search finds its turn between them.
_UPSERT_POINTS: Final = 128
_SEARCH_VECTORS: Final = 16
_READ_POINTS: Final = 1000
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
            fresh.setdefault(uuid_of(point.face_id), point)  # the first of two with the same id, as with two calls
        for some in chunks(fresh, _UPSERT_POINTS):
            vectors = unit_rows([fresh[one].embedding for one in some]).tobytes()
            payloads = [to_stored(fresh[one].payload) for one in some]
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
        require_limit(limit)
        require_threshold(threshold)
        conditions = conditions_of(where)
        found: list[list[Match]] = []
        for some in chunks(embeddings, _SEARCH_VECTORS):
            body = (unit_rows(some).tobytes(), limit, threshold, conditions, self._ef)
            for hits in self._pool.call(pack(Op.SEARCH, body=body)):
                found.append([_match(*hit) for hit in hits])
        return found

    def retrieve(self, face_ids: Sequence[str], *, with_embedding: bool = False) -> list[FaceRecord]:
        records: list[FaceRecord] = []
        for some in chunks(known_uuids(face_ids), _READ_POINTS):
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
        require_limit(limit)
        conditions = conditions_of(where)
        following = None if offset is None else uuid_of(offset)
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
        for some in chunks(known_uuids(face_ids), _READ_POINTS):
            self._pool.call(pack(Op.SET_PAYLOAD, join_ids(some), fields))

    def delete(self, face_ids: Sequence[str]) -> None:
        for some in chunks(known_uuids(face_ids), _READ_POINTS):
            self._pool.call(pack(Op.DELETE, join_ids(some)))

    def count(self, where: FaceFilter | None = None) -> int:
        if not (conditions := conditions_of(where)):
            return self.info().points  # counting one by one takes 80 ms per million
        found: int = self._pool.call(pack(Op.COUNT, body=conditions))
        return found

    def facet(
        self, key: Literal["person", "folder", "image_id"], *, limit: int = 100, where: FaceFilter | None = None
    ) -> dict[str, int]:
        require_limit(limit)
        return dict(self._pool.call(pack(Op.FACET, body=(key, limit, conditions_of(where)))))

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


def _match(face_id: uuid.UUID, score: float, stored: Mapping[str, Any]) -> Match:
    return Match(str(face_id), min(1.0, max(-1.0, score)), from_stored(stored))


def _record(face_id: uuid.UUID, stored: Mapping[str, Any], vector: bytes | None) -> FaceRecord:
    embedding = None if vector is None else np.frombuffer(vector, dtype=np.float32).copy()
    return FaceRecord(str(face_id), from_stored(stored), embedding)
