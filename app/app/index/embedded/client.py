"""`FaceIndex` on the embedded index: sends requests to the owner and converts replies."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from app.core.errors import OceanoError
from app.core.iteration import chunks
from app.core.types import FaceFilter, FacePoint, FaceRecord, Floats, IndexInfo, Match, Score
from app.index.base import READ_POINTS, BaseIndex, StoredFace, matches_of, records_of, scores_of, unique_points
from app.index.embedded.connections import ConnectionPool
from app.index.embedded.protocol import Op, join_ids, pack, split_ids
from app.index.payload import conditions_of, require_limit, to_stored, unit_rows, valid_uuids

_UPSERT_POINTS: Final = 128
_POLL_SECONDS: Final = 0.1


class EmbeddedIndex(BaseIndex):
    """`app.core.protocols.FaceIndex` on the embedded index; the Protocol documents the methods.

    Args:
        pool: connections to the owner; closed with the index.
        collection: the full name, such as `faces__antelopev2__4ab1d643`.
        embedding_size: dimensions of an embedding.
        hnsw_ef: candidates of a search in the graph.
        alias: name and text of the alias file that `backup` writes.
    """

    def __init__(
        self, pool: ConnectionPool, *, collection: str, embedding_size: int, hnsw_ef: int, alias: tuple[str, str]
    ) -> None:
        super().__init__(embedding_size)
        self._pool = pool
        self._collection = collection
        self._ef = hnsw_ef
        self._alias = alias

    def upsert(self, points: Sequence[FacePoint]) -> None:
        unique = unique_points(points)
        for ids in chunks(unique, _UPSERT_POINTS):
            vectors = unit_rows([unique[face_id].embedding for face_id in ids], self._size).tobytes()
            payloads = [to_stored(unique[face_id].payload) for face_id in ids]
            self._pool.call(pack(Op.UPSERT, join_ids(ids), (vectors, payloads)))

    def flush(self) -> None:
        self._pool.call(pack(Op.FLUSH))

    def _nearest(
        self, rows: Floats, limit: int, threshold: float | None, conditions: dict[str, Any]
    ) -> list[list[Match]]:
        body = (rows.tobytes(), limit, threshold, conditions, self._ef)
        found = self._pool.call(pack(Op.SEARCH, body=body))
        return [matches_of((str(face_id), score, stored) for face_id, score, stored in hits) for hits in found]

    def _nearest_scores(self, rows: Floats, limit: int, threshold: float | None, candidates: int) -> list[list[Score]]:
        body = (rows.tobytes(), limit, threshold, candidates)
        found = self._pool.call(pack(Op.SEARCH_SCORES, body=body))
        return [_scores(ids, scores) for ids, scores in found]

    def _exact(self, row: Floats, limit: int, threshold: float | None, conditions: dict[str, Any]) -> list[Score]:
        body = (row.tobytes(), limit, threshold, conditions)
        return _scores(*self._pool.call(pack(Op.SEARCH_EXACT, body=body)))

    def retrieve(self, face_ids: Sequence[str], *, with_embedding: bool = False) -> list[FaceRecord]:
        records: list[FaceRecord] = []
        for ids in chunks(valid_uuids(face_ids), READ_POINTS):
            found = self._pool.call(pack(Op.RETRIEVE, join_ids(ids), with_embedding))
            records += records_of(map(_stored_face, found))
        return records

    def _page(
        self, limit: int, offset: str | None, conditions: dict[str, Any], with_embedding: bool
    ) -> tuple[list[StoredFace], str | None]:
        body = (limit, offset and uuid.UUID(offset), conditions, with_embedding)
        found, next_offset = self._pool.call(pack(Op.SCROLL, body=body))
        return [*map(_stored_face, found)], None if next_offset is None else str(next_offset)

    def _set_fields(self, face_ids: Sequence[str], fields: dict[str, Any]) -> None:
        for ids in chunks(valid_uuids(face_ids), READ_POINTS):
            self._pool.call(pack(Op.SET_PAYLOAD, join_ids(ids), fields))

    def delete(self, face_ids: Sequence[str]) -> None:
        for ids in chunks(valid_uuids(face_ids), READ_POINTS):
            self._pool.call(pack(Op.DELETE, join_ids(ids)))

    def count(self, where: FaceFilter | None = None) -> int:
        if not (conditions := conditions_of(where)):
            return self.info().points  # an exact count takes 80 ms per million faces
        found: int = self._pool.call(pack(Op.COUNT, body=conditions))
        return found

    def facet(
        self, key: Literal["person", "folder", "image_id"], *, limit: int = 100, where: FaceFilter | None = None
    ) -> dict[str, int]:
        require_limit(limit)
        return dict(self._pool.call(pack(Op.FACET, body=(key, limit, conditions_of(where)))))

    def info(self) -> IndexInfo:
        return self._state()[0]

    def maintain(self, *, wait: bool = False) -> None:
        self._pool.call(pack(Op.MAINTAIN))
        if not wait:
            return
        while (state := self._state())[0].maintaining:
            time.sleep(_POLL_SECONDS)
        if state[1] is not None:
            raise state[1]

    def _state(self) -> tuple[IndexInfo, OceanoError | None]:
        """Return the sizes of the index, and the error of the last build if it failed."""
        found = self._pool.call(pack(Op.INFO))
        failure: OceanoError | None = found.pop("failure")
        return IndexInfo(kind="embedded", collection=self._collection, **found), failure

    def backup(self, folder: Path) -> None:
        target = folder.expanduser().absolute()
        if target.exists():
            raise OceanoError("invalid_request", f"{target} exists already; a backup needs a new folder.")
        body = (str(target), self._collection, self._alias)
        self._pool.call(pack(Op.BACKUP, body=body), seconds=None)

    def close(self) -> None:
        self._pool.close()


def _scores(ids: bytes, scores: bytes) -> list[Score]:
    return scores_of(zip(map(str, split_ids(ids)), np.frombuffer(scores, dtype=np.float32).tolist(), strict=True))


def _stored_face(found: tuple[uuid.UUID, Mapping[str, Any], bytes | None]) -> StoredFace:
    face_id, stored, vector = found
    return str(face_id), stored, None if vector is None else np.frombuffer(vector, dtype=np.float32).copy()
