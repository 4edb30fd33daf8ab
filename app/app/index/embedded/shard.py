"""One Edge shard: every call into qdrant_edge is here.

Plain values go in and out (raw float32, UUIDs, payloads as dicts), so that a worker starts without NumPy. Not safe
for threads; every call keeps the GIL until it is done. Raises OceanoError `index_unavailable` or `disk_full`.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import qdrant_edge as edge

from app.core.errors import OceanoError
from app.core.files import sync
from app.index.embedded.options import OwnerOptions, kilobytes
from app.index.embedded.protocol import split_ids, unavailable
from app.index.embedded.storage import new_name, sync_tree

# Facets are counted without `exact`, which is 15 us per value; Edge cuts each segment's list at the limit, so it
# is asked for more values than are wanted.
_FACET_VALUES: Final = 10_000
# On disk what has a value for each face: 0.4 KB of memory less per face.
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
# The graph's neighbours that a filter admits can be few: look at theirs, too (ACORN-1, Patel et al. 2024; recall@10
# 1.00 instead of 0.82). It takes 0.3 s where a tenth of a million is admitted, a scan of the tenth 11 ms: it is for
# filters that admit more than is scanned (`OwnerOptions.full_scan_kb`). Of 100,000 faces, 30 % admitted, it takes 27 ms
# with 128 dimensions and 35 ms with 1024, a scan 2 ms and 16 ms.
_FILTERED: Final = edge.AcornSearchParams(enable=True)
_NO_SPACE: Final = ("no space left", "os error 28", "storagefull", "storage full", "disk full", "out of disk")

Record = tuple[uuid.UUID, dict[str, Any], bytes | None]
Hit = tuple[uuid.UUID, float, dict[str, Any]]


@contextlib.contextmanager
def _edge_errors() -> Iterator[None]:
    """Edge raises plain Exception with a sentence; say which of ours it is."""
    try:
        yield
    except OceanoError:
        raise
    except Exception as failure:
        message = str(failure)
        if any(sign in message.lower() for sign in _NO_SPACE):
            raise OceanoError("disk_full", f"The disk of the index is full: {message}") from failure
        raise unavailable(f"The index failed: {message}") from failure


def config_of(options: OwnerOptions) -> edge.EdgeConfig:
    """Originals, payloads and their indexes on disk (mmap), int8 copies in memory, one segment with a graph."""
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
            type=edge.ScalarType.Int8, quantile=0.99, memory=edge.Memory.Pinned
        ),
        optimizers=edge.EdgeOptimizersConfig(
            default_segment_number=1,
            max_segment_size=1 << 40,
            indexing_threshold=kilobytes(options.indexing_points, options.embedding_size),
        ),
    )


class Shard:
    """An open shard. `Shard.open` loads it or, where there is none, makes it."""

    def __init__(self, shard: edge.EdgeShard, folder: Path, size: int) -> None:
        self._shard = shard
        self._folder = folder
        self._size = size
        self._dirty = False
        self.unflushed = 0

    @classmethod
    def open(cls, folder: Path, options: OwnerOptions) -> Shard:
        config = config_of(options)
        with _edge_errors():
            if not folder.exists():
                _create(folder, config)
            if not any((folder / "segments").glob("*/segment.json")):  # Edge would make an empty shard of it
                raise unavailable(f"{folder} is damaged; restore the index from a backup.")
            _require_size(folder, options.embedding_size)
            return cls(edge.EdgeShard.load(str(folder), config), folder, options.embedding_size)

    def upsert(self, ids: bytes, vectors: bytes, payloads: Sequence[dict[str, Any]], *, overwrite: bool) -> None:
        """Insert points; those that are there already stay as they are, unless `overwrite`."""
        mode = edge.UpdateMode.Upsert if overwrite else edge.UpdateMode.InsertOnly
        with _edge_errors():
            points = [
                edge.Point(one, vector, payload)
                for one, vector, payload in zip(split_ids(ids), self._vectors(vectors), payloads, strict=True)
            ]
            self._update(edge.UpdateOperation.upsert_points(points, update_mode=mode), len(points))

    def set_payload(self, ids: bytes, fields: dict[str, Any]) -> None:
        with _edge_errors():
            # Edge stops at the first id it does not know, with the operation half done and in its log.
            found = self._shard.retrieve(list(split_ids(ids)), with_payload=False, with_vector=False)
            if found:
                self._update(edge.UpdateOperation.set_payload([one.id for one in found], fields), len(found))

    def delete(self, ids: bytes) -> None:
        with _edge_errors():
            gone: list[edge.PointId] = list(split_ids(ids))
            self._update(edge.UpdateOperation.delete_points(gone), len(gone))

    def flush(self) -> None:
        """Everything where Edge wants it, its log cut; free when nothing was written since the last one."""
        if self._dirty:
            with _edge_errors():
                self._shard.flush()
            self._dirty = False
            self.unflushed = 0

    def search(
        self, vectors: bytes, limit: int, threshold: float | None, where: Mapping[str, Any], ef: int
    ) -> list[list[Hit]]:
        """One list per vector, best first. Scores are cosines of the original vectors (rescored)."""
        condition = filter_of(where)
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
                with_payload=True,
            )
            for vector in self._vectors(vectors)
        ]
        with _edge_errors():
            if len(queries) == 1:
                found = [self._shard.query(queries[0])]
            else:
                found = self._shard.query_batch(edge.QueryBatchRequest(queries))
        return [[(_uuid(hit.id), hit.score, hit.payload or {}) for hit in hits] for hits in found]

    def retrieve(self, ids: bytes, with_vector: bool) -> list[Record]:
        """Those that exist, in the order asked for."""
        wanted = split_ids(ids)
        with _edge_errors():
            found = self._shard.retrieve(list(wanted), with_payload=True, with_vector=with_vector)
        records = {record[0]: record for record in map(_record, found)}
        return [records[one] for one in wanted if one in records]

    def scroll(
        self, limit: int, offset: uuid.UUID | None, where: Mapping[str, Any], with_vector: bool
    ) -> tuple[list[Record], uuid.UUID | None]:
        """A page in the order of the ids, from `offset` on (included), and where the next one begins."""
        with _edge_errors():
            found, following = self._shard.scroll(
                edge.ScrollRequest(
                    offset=offset, limit=limit, filter=filter_of(where), with_payload=True, with_vector=with_vector
                )
            )
        return [_record(record) for record in found], None if following is None else _uuid(following)

    def count(self, where: Mapping[str, Any]) -> int:
        with _edge_errors():
            return self._shard.count(edge.CountRequest(exact=True, filter=filter_of(where)))

    def facet(self, key: str, limit: int, where: Mapping[str, Any]) -> list[tuple[str, int]]:
        with _edge_errors():
            found = self._shard.facet(
                edge.FacetRequest(key, limit=max(limit, _FACET_VALUES), exact=False, filter=filter_of(where))
            )
        counts = [(str(hit.value), hit.count) for hit in found.hits if hit.count]
        return sorted(counts, key=lambda pair: (-pair[1], pair[0]))[:limit]

    def sizes(self) -> tuple[int, int, int, int]:
        """Points, those of them in the graph, those that left it (as of the last flush), segments.

        A face that is named or deleted leaves the graph, but Edge goes on counting it as indexed; a segment's file
        `id_tracker.deleted` has a bit for each.
        """
        with _edge_errors():
            info = self._shard.info()
        masks = (path.read_bytes() for path in (self._folder / "segments").glob("*/id_tracker.deleted"))
        left = sum(int.from_bytes(mask, "little").bit_count() for mask in masks)
        return info.points_count, max(0, info.indexed_vectors_count - left), left, info.segments_count

    def optimize(self) -> bool:
        """Build what is to be built; False if nothing was. Minutes, in which nothing else runs in this process."""
        with _edge_errors():
            self._dirty = True
            return self._shard.optimize()

    def close(self) -> None:
        self.flush()
        with _edge_errors():
            self._shard.close()

    def _vectors(self, raw: bytes) -> Iterator[list[float]]:
        """The embeddings in `raw`, one after the other."""
        numbers = array("f")
        numbers.frombytes(raw)
        return (numbers[at : at + self._size].tolist() for at in range(0, len(numbers), self._size))

    def _update(self, operation: edge.UpdateOperation, points: int) -> None:
        self._dirty = True
        self.unflushed += points
        self._shard.update(operation)


def _create(folder: Path, config: edge.EdgeConfig) -> None:
    """Made under another name, so that a shard that is there is whole."""
    beside = folder.with_name(new_name("build"))
    beside.mkdir(mode=0o700)
    shard = edge.EdgeShard.create(str(beside), config)
    for key, schema in _INDEXES.items():
        shard.update(edge.UpdateOperation.create_field_index(key, schema))
    shard.flush()
    shard.close()
    sync_tree(beside)
    beside.rename(folder)
    sync(folder.parent)


def _require_size(folder: Path, size: int) -> None:
    """Edge refuses another size, too, but with a sentence that does not say what to do."""
    try:
        there = json.loads((folder / "edge_config.json").read_text(encoding="utf-8"))["vectors"][""]["size"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # Edge says what is wrong with it
    if there != size:
        raise OceanoError(
            "invalid_setting",
            f"The index in {folder.parent} holds embeddings of {there} dimensions; those of the model have {size}. Set "
            "MODEL_NAME back, or choose another QDRANT_COLLECTION.",
            details={"settings": ["MODEL_NAME", "QDRANT_COLLECTION"]},
        )


def filter_of(where: Mapping[str, Any]) -> edge.Filter | None:
    """`where` holds the fields of a FaceFilter that are not None."""
    must: list[Any] = [
        edge.FieldCondition(key, match=edge.MatchValue(where[key]))
        for key in ("person", "folder", "image_id")
        if key in where
    ]
    for key, name in (("taken_at", "taken"), ("ingested_at", "ingested")):
        low, high = where.get(f"{name}_from"), where.get(f"{name}_to")
        if low is not None or high is not None:
            must.append(edge.FieldCondition(key, range=edge.RangeDateTime(gte=low, lte=high)))
    for key in ("det_score", "quality"):
        if f"min_{key}" in where:
            must.append(edge.FieldCondition(key, range=edge.RangeFloat(gte=where[f"min_{key}"])))
    flawed: list[Any] = []
    if "without" in where:
        flawed.append(edge.FieldCondition("flaws", match=edge.MatchAny(list(where["without"]))))
    return edge.Filter(must=must, must_not=flawed) if must or flawed else None


def _record(found: edge.Record) -> Record:
    vector: Any = found.vector
    return _uuid(found.id), found.payload or {}, None if vector is None else array("f", vector).tobytes()


def _uuid(point_id: edge.PointId) -> uuid.UUID:
    return point_id if isinstance(point_id, uuid.UUID) else uuid.UUID(str(point_id))
