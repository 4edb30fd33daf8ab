"""The embedded index as its clients see it: asks the owner, turns answers into our types."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from app.core.errors import OceanoError
from app.core.types import FaceFilter, FacePoint, FaceRecord, Floats, IndexInfo, Match
from app.index.base import READ_POINTS, BaseIndex, first_of_each
from app.index.embedded.connections import Pool
from app.index.embedded.protocol import Op, join_ids, pack
from app.index.payload import chunks, conditions_of, from_stored, known_uuids, require_limit, to_stored, unit_rows

_UPSERT_POINTS: Final = 128
_POLL_SECONDS: Final = 0.1


class EmbeddedIndex(BaseIndex):
    """`app.core.protocols.FaceIndex` on the embedded index.

    `alias` is what `backup` writes into the copy's alias file.
    """

    def __init__(
        self, pool: Pool, *, collection: str, embedding_size: int, hnsw_ef: int, alias: tuple[str, str]
    ) -> None:
        super().__init__(embedding_size)
        self._pool = pool
        self._collection = collection
        self._ef = hnsw_ef
        self._alias = alias

    def upsert(self, points: Sequence[FacePoint]) -> None:
        fresh = first_of_each(points)
        for some in chunks(fresh, _UPSERT_POINTS):
            vectors = unit_rows([fresh[one].embedding for one in some], self._size).tobytes()
            payloads = [to_stored(fresh[one].payload) for one in some]
            self._pool.call(pack(Op.UPSERT, join_ids(some), (vectors, payloads)))

    def flush(self) -> None:
        self._pool.call(pack(Op.FLUSH))

    def _nearest(
        self, rows: Floats, limit: int, threshold: float | None, conditions: dict[str, Any]
    ) -> list[list[Match]]:
        body = (rows.tobytes(), limit, threshold, conditions, self._ef)
        return [[_match(*hit) for hit in hits] for hits in self._pool.call(pack(Op.SEARCH, body=body))]

    def retrieve(self, face_ids: Sequence[str], *, with_embedding: bool = False) -> list[FaceRecord]:
        records: list[FaceRecord] = []
        for some in chunks(known_uuids(face_ids), READ_POINTS):
            found = self._pool.call(pack(Op.RETRIEVE, join_ids(some), with_embedding))
            records.extend(_record(*record) for record in found)
        return records

    def _page(
        self, count: int, following: str | None, conditions: dict[str, Any], with_embedding: bool
    ) -> tuple[list[FaceRecord], str | None]:
        body = (count, following and uuid.UUID(following), conditions, with_embedding)
        found, after = self._pool.call(pack(Op.SCROLL, body=body))
        return [_record(*one) for one in found], None if after is None else str(after)

    def _set(self, face_ids: Sequence[str], fields: dict[str, Any]) -> None:
        for some in chunks(known_uuids(face_ids), READ_POINTS):
            self._pool.call(pack(Op.SET_PAYLOAD, join_ids(some), fields))

    def delete(self, face_ids: Sequence[str]) -> None:
        for some in chunks(known_uuids(face_ids), READ_POINTS):
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
