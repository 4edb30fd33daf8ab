"""`FaceIndex` on a Qdrant server or cluster, with qdrant-client.

A write returns when WRITE_CONSISTENCY_FACTOR replicas have applied it (`wait=true`), so `flush` does nothing. Every
request may be sent twice: an insertion does not change existing points.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import numpy as np
from qdrant_client import QdrantClient, models

from app.core.errors import OceanoError
from app.core.iteration import chunks
from app.core.types import FaceFilter, FacePoint, FaceRecord, Floats, IndexInfo, Match, Score
from app.index.base import READ_POINTS, BaseIndex, StoredFace, matches_of, records_of, scores_of, unique_points
from app.index.errors import unavailable
from app.index.payload import conditions_of, require_limit, to_stored, unit_rows, valid_uuids
from app.index.server.retry import retry_server

T = TypeVar("T")

_UPSERT_POINTS: Final = 256
_FACET_VALUES: Final = 10_000  # each shard cuts its list at the limit
_WRITE_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 1.0
_NO_CHANGE: Final = models.OptimizersConfigDiff()


class ServerIndex(BaseIndex):
    """`app.core.protocols.FaceIndex` on a server's collection; the Protocol documents the methods.

    Args:
        client: connected; closed with the index.
        collection: the full name, such as `faces__antelopev2__4ab1d643`.
        embedding_size: dimensions of an embedding.
        hnsw_ef: candidates of a search in the graph.
        streams: requests of one large insertion that run at the same time.
    """

    def __init__(
        self, client: QdrantClient, *, collection: str, embedding_size: int, hnsw_ef: int, streams: int = 4
    ) -> None:
        super().__init__(embedding_size)
        self._client = client
        self._collection = collection
        self._params = _search_params(hnsw_ef)
        self._streams = ThreadPoolExecutor(streams, "qdrant")

    def upsert(self, points: Sequence[FacePoint]) -> None:
        unique = unique_points(points)
        rows = unit_rows([point.embedding for point in unique.values()], self._size) if unique else ()
        structs = [
            models.PointStruct(id=str(face_id), vector=row.tolist(), payload=to_stored(point.payload))
            for (face_id, point), row in zip(unique.items(), rows, strict=True)
        ]
        parts = list(chunks(structs, _UPSERT_POINTS))
        if len(parts) == 1:
            self._insert(parts[0])
        else:
            list(self._streams.map(self._insert, parts))

    def _insert(self, structs: list[models.PointStruct]) -> None:
        self._write(self._client.upsert, structs, update_mode=models.UpdateMode.INSERT_ONLY)

    def flush(self) -> None:
        """Do nothing: every write is durable when it returns."""

    def _nearest(
        self, rows: Floats, limit: int, threshold: float | None, conditions: dict[str, Any]
    ) -> list[list[Match]]:
        condition = filter_of(conditions)
        found = self._query(rows, limit, threshold, condition, self._params, with_payload=True)
        return [matches_of((str(hit.id), hit.score, hit.payload or {}) for hit in hits) for hits in found]

    def _nearest_scores(self, rows: Floats, limit: int, threshold: float | None, candidates: int) -> list[list[Score]]:
        found = self._query(rows, limit, threshold, None, _search_params(candidates), with_payload=False)
        return [scores_of((str(hit.id), hit.score) for hit in hits) for hits in found]

    def _query(
        self,
        rows: Floats,
        limit: int,
        threshold: float | None,
        condition: models.Filter | None,
        params: models.SearchParams,
        *,
        with_payload: bool,
    ) -> list[list[models.ScoredPoint]]:
        requests = [
            models.QueryRequest(
                query=row.tolist(),
                limit=limit,
                filter=condition,
                params=params,
                score_threshold=threshold,
                with_payload=with_payload,
            )
            for row in rows
        ]
        responses = self._request(self._client.query_batch_points, requests)
        return [response.points for response in responses]

    def _exact(self, row: Floats, limit: int, threshold: float | None, conditions: dict[str, Any]) -> list[Score]:
        request = models.QueryRequest(
            query=row[0].tolist(),
            limit=limit,
            filter=filter_of(conditions),
            params=models.SearchParams(exact=True),
            score_threshold=threshold,
            with_payload=False,
        )
        (response,) = self._request(self._client.query_batch_points, [request])
        return scores_of((str(hit.id), hit.score) for hit in response.points)

    def retrieve(self, face_ids: Sequence[str], *, with_embedding: bool = False) -> list[FaceRecord]:
        records: list[FaceRecord] = []
        for ids in chunks(map(str, valid_uuids(face_ids)), READ_POINTS):
            found = self._request(self._client.retrieve, ids, True, with_embedding)
            by_id = {str(point.id): point for point in found}
            records += records_of(_stored_face(by_id[face_id]) for face_id in ids if face_id in by_id)
        return records

    def _page(
        self, limit: int, offset: str | None, conditions: dict[str, Any], with_embedding: bool
    ) -> tuple[list[StoredFace], str | None]:
        found, next_offset = self._request(
            self._client.scroll,
            filter_of(conditions),
            limit,
            offset=offset,
            with_payload=True,
            with_vectors=with_embedding,
        )
        return [*map(_stored_face, found)], None if next_offset is None else str(next_offset)

    def _set_fields(self, face_ids: Sequence[str], fields: dict[str, Any]) -> None:
        for ids in chunks(map(str, valid_uuids(face_ids)), READ_POINTS):
            found = self._request(self._client.retrieve, ids, False, False)
            if known := [point.id for point in found]:  # a server rejects unknown ids
                self._write(self._client.set_payload, fields, known)

    def delete(self, face_ids: Sequence[str]) -> None:
        for ids in chunks(map(str, valid_uuids(face_ids)), READ_POINTS):
            self._write(self._client.delete, ids)

    def count(self, where: FaceFilter | None = None) -> int:
        condition = filter_of(conditions_of(where))
        found = self._request(self._client.count, condition, exact=True)
        return int(found.count)

    def facet(
        self, key: Literal["person", "folder", "image_id"], *, limit: int = 100, where: FaceFilter | None = None
    ) -> dict[str, int]:
        require_limit(limit)
        condition = filter_of(conditions_of(where))
        found = self._request(self._client.facet, key, condition, max(limit, _FACET_VALUES))
        counts = [(str(hit.value), hit.count) for hit in found.hits if hit.count]
        return dict(sorted(counts, key=lambda pair: (-pair[1], pair[0]))[:limit])

    def info(self) -> IndexInfo:
        found = self._request(self._client.get_collection)
        points = found.points_count or 0  # the server's own count, slightly out of date while it optimizes
        return IndexInfo(
            kind="server",
            collection=self._collection,
            points=points,
            indexed=min(points, found.indexed_vectors_count or 0),
            segments=found.segments_count,
            maintaining=found.status in (models.CollectionStatus.YELLOW, models.CollectionStatus.GREY),
            disk_bytes=None,
            copies_missing=self._copies_missing(found.config.params),
        )

    def _copies_missing(self, params: models.CollectionParams) -> int:
        wanted = params.replication_factor or 1
        if wanted == 1:
            return 0
        found: Any = self._request(self._client.collection_cluster_info)
        active = Counter(
            shard.shard_id
            for shard in (*found.local_shards, *found.remote_shards)
            if shard.state is models.ReplicaState.ACTIVE
        )
        return sum(max(0, wanted - active[shard]) for shard in range(params.shard_number or 1))

    def identity(self) -> tuple[object, object]:
        """Return the collection's random id and time of creation, which no other collection has."""
        found = self._request(self._client.get_collection).config.metadata or {}
        return found.get("id"), found.get("since")

    def maintain(self, *, wait: bool = False) -> None:
        """Let the server build; after a start it waits for a write (status grey), so send an empty change."""
        found = self._request(self._client.get_collection)
        if found.status is models.CollectionStatus.GREY:
            retry_server(partial(self._client.update_collection, self._collection, _NO_CHANGE))
        while wait and self.info().maintaining:
            time.sleep(_POLL_SECONDS)
        if wait and (found := self._request(self._client.get_collection)).status is models.CollectionStatus.RED:
            raise unavailable(f"The Qdrant server could not build the graph: {found.optimizer_status}")

    def backup(self, folder: Path) -> None:
        raise OceanoError(
            "invalid_request", f"Copying a server's index into {folder} is not supported; use the server's snapshots."
        )

    def close(self) -> None:
        self._streams.shutdown()
        self._client.close()

    def _request(self, method: Callable[..., T], *values: Any, **named: Any) -> T:
        return retry_server(partial(method, self._collection, *values, **named))

    def _write(self, method: Callable[..., object], *values: Any, **named: Any) -> None:
        retry_server(partial(method, self._collection, *values, wait=True, **named), seconds=_WRITE_SECONDS)


def _search_params(ef: int) -> models.SearchParams:
    return models.SearchParams(
        hnsw_ef=ef,
        quantization=models.QuantizationSearchParams(rescore=True, oversampling=2.0),
        acorn=models.AcornSearchParams(enable=True),  # used only with filters that match few points
    )


def filter_of(where: Mapping[str, Any]) -> models.Filter | None:
    """Convert the result of `payload.conditions_of` to Qdrant's filter; None if there are no conditions."""
    must: list[models.Condition] = [
        models.FieldCondition(key=key, match=models.MatchAny(any=list(where[key])))
        for key in ("person", "folder", "image_id")
        if key in where
    ]
    must += [
        models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
        for name, key in (("undated", "taken_at"), ("unnamed", "person"))
        if name in where
    ]
    for key, name in (("taken_at", "taken"), ("ingested_at", "ingested")):
        low, high = where.get(f"{name}_from"), where.get(f"{name}_to")
        if low is not None or high is not None:
            must.append(models.FieldCondition(key=key, range=models.DatetimeRange(gte=low, lte=high)))
    for key in ("det_score", "quality"):
        if f"min_{key}" in where:
            must.append(models.FieldCondition(key=key, range=models.Range(gte=where[f"min_{key}"])))
    must_not: list[models.Condition] = []
    if "named" in where:
        must_not.append(models.IsEmptyCondition(is_empty=models.PayloadField(key="person")))
    for name, key in (("not_person", "person"), ("without", "flaws")):
        if name in where:
            must_not.append(models.FieldCondition(key=key, match=models.MatchAny(any=list(where[name]))))
    return models.Filter(must=must or None, must_not=must_not or None) if must or must_not else None


def _stored_face(found: models.Record) -> StoredFace:
    embedding = None if found.vector is None else np.asarray(found.vector, dtype=np.float32)
    return str(found.id), found.payload or {}, embedding
