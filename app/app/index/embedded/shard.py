"""One Qdrant Edge shard; the only module that calls qdrant_edge.

Arguments and results are plain values (raw float32, UUIDs, payloads as dicts), so a worker starts without NumPy. Not
safe for threads: every call holds the GIL until it returns. Edge's errors become `index_unavailable` or `disk_full`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import uuid
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import qdrant_edge as edge

from app.core.errors import OceanoError
from app.core.files import sync
from app.index.capacity import kilobytes
from app.index.embedded.integrity import record_closed, require_undamaged
from app.index.embedded.options import OwnerOptions
from app.index.embedded.protocol import ShardSizes, join_ids, split_ids
from app.index.embedded.storage import built_segments, new_name, sync_tree
from app.index.errors import unavailable

_log = logging.getLogger("app.index.embedded.worker")

# Facets are not `exact`, which takes 15 us per value. Edge cuts each segment's list at the limit, so a request asks
# for more values than it returns.
_FACET_VALUES: Final = 10_000
# Indexes of fields that every face has are on disk, which saves 0.4 KB of memory per face.
_KEYWORD_ON_DISK: Final = edge.KeywordIndexParams(memory=edge.Memory.Cold)
_TIME_ON_DISK: Final = edge.DatetimeIndexParams(memory=edge.Memory.Cold)
_NUMBER_ON_DISK: Final = edge.FloatIndexParams(memory=edge.Memory.Cold)
_INDEXES: Final[dict[str, Any]] = {
    "image_id": _KEYWORD_ON_DISK,
    "folder": _KEYWORD_ON_DISK,
    "person": edge.PayloadSchemaType.Keyword,
    "flaws": edge.PayloadSchemaType.Keyword,
    "taken_at": _TIME_ON_DISK,
    "ingested_at": _TIME_ON_DISK,
    "det_score": _NUMBER_ON_DISK,
    "quality": _NUMBER_ON_DISK,
}
# With a filter, few neighbours of a point may match, so the search visits their neighbours, too (ACORN-1, Patel et al.
# 2024): recall@10 is 1.00 instead of 0.82. If a tenth of 1,000,000 faces match, it takes 0.3 s and a scan of the
# matches 11 ms; so it serves filters that match more than is scanned (`OwnerOptions.full_scan_kb`). If 30 % of 100,000
# faces match, it takes 27 ms with 128 dimensions and 35 ms with 1024, a scan 2 ms and 16 ms.
_FILTERED: Final = edge.AcornSearchParams(enable=True)
_NO_SPACE: Final = ("no space left", "os error 28", "storagefull", "storage full", "disk full", "out of disk")

Record = tuple[uuid.UUID, dict[str, Any], bytes | None]
Hit = tuple[uuid.UUID, float, dict[str, Any]]


@contextlib.contextmanager
def _edge_errors() -> Iterator[None]:
    """Convert Edge's errors, which are plain Exceptions with a message, to OceanoErrors."""
    try:
        yield
    except OceanoError:
        raise
    except Exception as failure:
        message = str(failure)
        if any(sign in message.lower() for sign in _NO_SPACE):
            raise OceanoError("disk_full", f"The disk of the index is full: {message}") from failure
        raise unavailable(f"The index failed: {message}") from failure


def config_of(options: OwnerOptions, *, shared: bool = False) -> edge.EdgeConfig:
    """Return Edge's configuration.

    Vectors, payloads and most payload indexes are on disk (mmap), int8 copies of the vectors in memory. With `shared`,
    the int8 copies are in the system's cache, which other processes can use, too. With `options.spare_kb`, a build
    makes one graph of the smaller segments, else one of all.
    """
    return edge.EdgeConfig(
        vectors=edge.EdgeVectorParams(
            size=options.embedding_size, distance=edge.Distance.Cosine, memory=edge.Memory.Cold
        ),
        payload_memory=edge.Memory.Cold,
        hnsw_config=edge.HnswIndexConfig(
            m=options.hnsw_m,
            ef_construct=options.hnsw_ef_construct,
            full_scan_threshold=options.full_scan_kb,
        ),
        quantization_config=edge.ScalarQuantizationConfig(
            type=edge.ScalarType.Int8, quantile=0.99, memory=edge.Memory.Cached if shared else edge.Memory.Pinned
        ),
        optimizers=edge.EdgeOptimizersConfig(
            default_segment_number=2 if options.spare_kb else 1,
            max_segment_size=options.spare_kb or 1 << 40,
            indexing_threshold=kilobytes(options.indexing_points, options.embedding_size),
        ),
    )


class Shard:
    """An open shard; `Shard.open` opens it.

    `ids` are raw UUIDs, 16 bytes each, concatenated; `vectors` are raw float32, D numbers each, concatenated. `where`
    holds the fields of a FaceFilter that are not None. `unflushed` counts the points written since the last flush.

    Args:
        shard: the loaded shard.
        folder: its folder.
        size: the D of its embeddings.
    """

    def __init__(self, shard: edge.EdgeShard, folder: Path, size: int) -> None:
        self._shard = shard
        self._folder = folder
        self._size = size
        self._dirty = False
        self.unflushed = 0

    @classmethod
    def open(cls, folder: Path, options: OwnerOptions, *, checked: bool = True, copy: bool = False) -> Shard:
        """Load a shard; create an empty one if the folder does not exist.

        Args:
            folder: the shard's folder.
            options: the owner's options.
            checked: compare the files with their checksums.
            copy: the shard is a copy of one that is open and was checked.

        Raises:
            OceanoError: `index_unavailable` if the shard is damaged or open elsewhere, `disk_full`, `invalid_setting`
                if it holds embeddings of another size.
        """
        config = config_of(options, shared=copy)
        with _edge_errors():
            if not folder.exists():
                _create(folder, config)
            if not any((folder / "segments").glob("*/segment.json")):  # Edge would create an empty shard
                raise unavailable(f"{folder} is damaged; restore the index from a backup.")
            _require_size(folder, options.embedding_size)
            if checked and not copy:
                require_undamaged(folder)
            return cls(edge.EdgeShard.load(str(folder), config), folder, options.embedding_size)

    def upsert(self, ids: bytes, vectors: bytes, payloads: Sequence[dict[str, Any]], *, overwrite: bool) -> None:
        """Insert points; existing points stay unchanged, unless `overwrite`.

        Args:
            ids: of n points.
            vectors: of the n points.
            payloads: of the n points.
            overwrite: replace existing points.
        """
        mode = edge.UpdateMode.Upsert if overwrite else edge.UpdateMode.InsertOnly
        with _edge_errors():
            points = [
                edge.Point(point_id, vector, payload)
                for point_id, vector, payload in zip(split_ids(ids), self._vectors(vectors), payloads, strict=True)
            ]
            self._update(edge.UpdateOperation.upsert_points(points, update_mode=mode), len(points))

    def set_payload(self, ids: bytes, fields: dict[str, Any]) -> None:
        """Set payload fields of points; ids without a point are ignored."""
        with _edge_errors():
            # Edge stops at the first unknown id; the operation is then half done and in its log.
            found = self._shard.retrieve(list(split_ids(ids)), with_payload=False, with_vector=False)
            if found:
                self._update(edge.UpdateOperation.set_payload([point.id for point in found], fields), len(found))

    def delete(self, ids: bytes) -> None:
        """Delete points; ids without a point are ignored."""
        with _edge_errors():
            points: list[edge.PointId] = list(split_ids(ids))
            self._update(edge.UpdateOperation.delete_points(points), len(points))

    def flush(self) -> None:
        """Run Edge's flush, which writes everything to disk and truncates the log, unless nothing has been written."""
        if self._dirty:
            with _edge_errors():
                self._shard.flush()
            self._dirty = False
            self.unflushed = 0

    def search(
        self, vectors: bytes, limit: int, threshold: float | None, where: Mapping[str, Any], ef: int
    ) -> list[list[Hit]]:
        """Search for the nearest points of each vector.

        Args:
            vectors: n embeddings.
            limit: the most points per vector.
            threshold: the least cosine similarity, or None.
            where: restricts the points.
            ef: candidates of a search in the graph.

        Returns:
            For each of the n vectors the points, best first. Scores are cosines of the original vectors (rescored).
        """
        found = self._nearest(vectors, limit, threshold, filter_of(where), ef, with_payload=True)
        return [[(_uuid(hit.id), hit.score, hit.payload or {}) for hit in hits] for hits in found]

    def search_scores(self, vectors: bytes, limit: int, threshold: float | None, ef: int) -> list[tuple[bytes, bytes]]:
        """Search as `search` does; return the ids of each vector's points, best first, and scores as raw float32."""
        found = self._nearest(vectors, limit, threshold, None, ef, with_payload=False)
        return [_joined(hits) for hits in found]

    def _nearest(
        self,
        vectors: bytes,
        limit: int,
        threshold: float | None,
        condition: edge.Filter | None,
        ef: int,
        *,
        with_payload: bool,
    ) -> list[list[Any]]:
        params = edge.SearchParams(
            hnsw_ef=ef,
            quantization=edge.QuantizationSearchParams(rescore=True, oversampling=2.0),
            acorn=_FILTERED if condition else None,
        )
        queries = [
            edge.QueryRequest(
                limit=limit,
                query=edge.Query.Nearest(vector),
                filter=condition,
                params=params,
                score_threshold=threshold,
                with_payload=with_payload,
            )
            for vector in self._vectors(vectors)
        ]
        with _edge_errors():
            if len(queries) == 1:
                return [self._shard.query(queries[0])]
            return self._shard.query_batch(edge.QueryBatchRequest(queries))

    def search_exact(
        self, vector: bytes, limit: int, threshold: float | None, where: Mapping[str, Any]
    ) -> tuple[bytes, bytes]:
        """Compare one vector with every point.

        Args:
            vector: one embedding.
            limit: the most points.
            threshold: the least cosine similarity, or None.
            where: restricts the points.

        Returns:
            The ids of the nearest points, best first, and their scores as raw float32.
        """
        (query,) = self._vectors(vector)
        request = edge.QueryRequest(
            limit=limit,
            query=edge.Query.Nearest(query),
            filter=filter_of(where),
            params=edge.SearchParams(exact=True),
            score_threshold=threshold,
            with_payload=False,
        )
        with _edge_errors():
            return _joined(self._shard.query(request))

    def retrieve(self, ids: bytes, with_vector: bool) -> list[Record]:
        """Return the points that exist, in the order of `ids`."""
        requested = split_ids(ids)
        with _edge_errors():
            found = self._shard.retrieve(list(requested), with_payload=True, with_vector=with_vector)
        records = {record[0]: record for record in map(_record, found)}
        return [records[point_id] for point_id in requested if point_id in records]

    def scroll(
        self, limit: int, offset: uuid.UUID | None, where: Mapping[str, Any], with_vector: bool
    ) -> tuple[list[Record], uuid.UUID | None]:
        """Return a page of points in the order of their ids.

        Args:
            limit: the most points.
            offset: the first id, or None for the beginning.
            where: restricts the points.
            with_vector: return the vectors, too.

        Returns:
            The points, and the offset of the next page, None at the end.
        """
        with _edge_errors():
            found, next_offset = self._shard.scroll(
                edge.ScrollRequest(
                    offset=offset, limit=limit, filter=filter_of(where), with_payload=True, with_vector=with_vector
                )
            )
        return [_record(record) for record in found], None if next_offset is None else _uuid(next_offset)

    def count(self, where: Mapping[str, Any]) -> int:
        """Return the exact number of points."""
        with _edge_errors():
            return self._shard.count(edge.CountRequest(exact=True, filter=filter_of(where)))

    def facet(self, key: str, limit: int, where: Mapping[str, Any]) -> list[tuple[str, int]]:
        """Return the most frequent values of a payload field with their number of points, most frequent first."""
        with _edge_errors():
            found = self._shard.facet(
                edge.FacetRequest(key, limit=max(limit, _FACET_VALUES), exact=False, filter=filter_of(where))
            )
        counts = [(str(hit.value), hit.count) for hit in found.hits if hit.count]
        return sorted(counts, key=lambda pair: (-pair[1], pair[0]))[:limit]

    def sizes(self) -> ShardSizes:
        """Return the numbers of points.

        Naming or deleting a face removes it from the graph, but Edge still counts it as indexed. A segment's file
        `id_tracker.deleted` has a bit for each such face, as of the last flush.
        """
        with _edge_errors():
            info = self._shard.info()
        removed = largest = 0
        for segment, vector_bytes in built_segments(self._folder):
            mask = (segment / "id_tracker.deleted").read_bytes()
            removed += (without := int.from_bytes(mask, "little").bit_count())
            largest = max(largest, vector_bytes // (4 * self._size) - without)
        indexed = max(0, info.indexed_vectors_count - removed)
        return ShardSizes(info.points_count, indexed, removed, min(largest, indexed), info.segments_count)

    def optimize(self) -> bool:
        """Build the graph, if Edge's limits require it; takes minutes and blocks the process.

        Returns:
            False if there was nothing to build.
        """
        with _edge_errors():
            self._dirty = True
            return self._shard.optimize()

    def close(self) -> None:
        """Flush and close, and record the checksums of the files."""
        self.flush()
        with _edge_errors():
            self._shard.close()
        try:
            record_closed(self._folder)
        except OSError as failure:  # such as a full disk: the next opening then compares less
            _log.warning("checksums of %s were not recorded: %s", self._folder, failure)

    def _vectors(self, raw: bytes) -> Iterator[list[float]]:
        numbers = array("f")
        numbers.frombytes(raw)
        return (numbers[start : start + self._size].tolist() for start in range(0, len(numbers), self._size))

    def _update(self, operation: edge.UpdateOperation, points: int) -> None:
        self._dirty = True
        self.unflushed += points
        self._shard.update(operation)


def _create(folder: Path, config: edge.EdgeConfig) -> None:
    """Create an empty shard in a temporary folder and rename it, so that a `shard-…` folder is always complete."""
    partial = folder.with_name(new_name("build"))
    partial.mkdir(mode=0o700)
    shard = edge.EdgeShard.create(str(partial), config)
    for key, schema in _INDEXES.items():
        shard.update(edge.UpdateOperation.create_field_index(key, schema))
    shard.flush()
    shard.close()
    sync_tree(partial)
    partial.rename(folder)
    sync(folder.parent)


def _require_size(folder: Path, size: int) -> None:
    """Refuse embeddings of another size; Edge does so, too, but its message does not say what to do."""
    try:
        found = json.loads((folder / "edge_config.json").read_text(encoding="utf-8"))["vectors"][""]["size"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # Edge raises the error
    if found != size:
        raise OceanoError(
            "invalid_setting",
            f"The index in {folder.parent} holds embeddings of {found} dimensions; the model's have {size}. Set "
            "MODEL_NAME to the previous model, or choose another QDRANT_COLLECTION.",
            details={"settings": ["MODEL_NAME", "QDRANT_COLLECTION"]},
        )


def filter_of(where: Mapping[str, Any]) -> edge.Filter | None:
    """Convert the fields of a FaceFilter that are not None to Edge's filter; None if there are none."""
    must: list[Any] = [
        edge.FieldCondition(key, match=edge.MatchAny(list(where[key])))
        for key in ("person", "folder", "image_id")
        if key in where
    ]
    empty = {"undated": "taken_at", "unnamed": "person"}
    must += [edge.IsEmptyCondition(key) for name, key in empty.items() if name in where]
    for key, name in (("taken_at", "taken"), ("ingested_at", "ingested")):
        low, high = where.get(f"{name}_from"), where.get(f"{name}_to")
        if low is not None or high is not None:
            must.append(edge.FieldCondition(key, range=edge.RangeDateTime(gte=low, lte=high)))
    for key in ("det_score", "quality"):
        if f"min_{key}" in where:
            must.append(edge.FieldCondition(key, range=edge.RangeFloat(gte=where[f"min_{key}"])))
    must_not: list[Any] = []
    if "named" in where:
        must_not.append(edge.IsEmptyCondition("person"))
    for name, key in (("not_person", "person"), ("without", "flaws")):
        if name in where:
            must_not.append(edge.FieldCondition(key, match=edge.MatchAny(list(where[name]))))
    return edge.Filter(must=must, must_not=must_not) if must or must_not else None


def _record(found: edge.Record) -> Record:
    vector: Any = found.vector
    return _uuid(found.id), found.payload or {}, None if vector is None else array("f", vector).tobytes()


def _joined(hits: Sequence[Any]) -> tuple[bytes, bytes]:
    return join_ids(_uuid(hit.id) for hit in hits), array("f", (hit.score for hit in hits)).tobytes()


def _uuid(point_id: edge.PointId) -> uuid.UUID:
    return point_id if isinstance(point_id, uuid.UUID) else uuid.UUID(str(point_id))
