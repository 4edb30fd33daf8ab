"""Estimates of the memory, disk space and machines that a number of faces needs, for `oceano plan`.

The constants were measured with 1,000,000 faces of 512 dimensions (`bench/search.py`, m 32 and 48), 60,000 ingested
pictures and a catalog of 100,000 files; all other numbers are computed from them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from app.core.errors import OceanoError

# Bytes per face, measured; `_embedding_bytes` adds the embedding.
_IDS: Final = 75  # in memory: ids, versions, masks
_PAYLOAD: Final = 400
_PAYLOAD_INDEX: Final = 417
_ID_FILES: Final = 29
_THUMBNAIL: Final = 8000  # 5.1 KB on average, in blocks of 4 KB
# Of the catalog, per file with a path of 61 bytes and with all indexes; assumes at least one face per file.
_CATALOG_SQLITE: Final = 450
_CATALOG_POSTGRESQL: Final = 560
# The graph: 136 bytes per face with m=32 and 176 with m=48, at 1,000,000 faces; a link takes log2(faces) bits.
_GRAPH: Final = 57.0
_GRAPH_PER_M: Final = 2.47
_MEASURED_AT: Final = 1_000_000
# Bytes of vectors and payloads on disk that searches had read into memory, when 1.17 GB per million were resident.
_TOUCHED: Final = 400

_PROCESSES: Final = 1_500_000_000  # the service with its model, and an ingest
_MEMORY_SHARE: Final = 0.75  # of a machine's memory, for the index
_BUILDING: Final = 1.5  # free disk space during a build, as a multiple of the index
_MAX_FACES: Final = 10**15
_MAX_REPLICAS: Final = 1000
_MAX_EMBEDDING_SIZE: Final = 4096
_QUORUM: Final = 3  # with two nodes, neither can tell whether the other has failed
EMBEDDED_UP_TO: Final = 10_000_000  # faces in one shard, whose graph one machine builds within hours

_FACES: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmb]?)", re.IGNORECASE)
_MAX_TEXT: Final = 30
_UNITS: Final = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}


@dataclass(frozen=True, slots=True)
class Plan:
    """An estimate; sizes are bytes, in total over all machines and replicas.

    Args:
        faces: number of faces.
        embedding_size: dimensions of an embedding.
        kind: `embedded`, `server` or `cluster`.
        replicas: how often each face is stored.
        memory_least: memory that must be available.
        memory: memory with which searches are fast.
        index_disk: disk space of the index.
        building_disk: additional free disk space during a build of the graph.
        thumbnails_disk: disk space of the thumbnails.
        catalog_sqlite_disk: disk space of the catalog in SQLite.
        catalog_postgresql_disk: disk space of the catalog in PostgreSQL, without its write-ahead log.
        nodes: number of machines that hold the index.
        node_memory: memory of each machine.
    """

    faces: int
    embedding_size: int
    kind: str
    replicas: int
    memory_least: int
    memory: int
    index_disk: int
    building_disk: int
    thumbnails_disk: int
    catalog_sqlite_disk: int
    catalog_postgresql_disk: int
    nodes: int
    node_memory: int


def plan(
    faces: int,
    *,
    embedding_size: int = 512,
    m: int = 48,
    replicas: int = 1,
    node_memory: int = 64_000_000_000,
) -> Plan:
    """Estimate what a number of faces needs.

    Args:
        faces: number of faces.
        embedding_size: dimensions of an embedding.
        m: HNSW_M, links per point of the graph.
        replicas: how often each face is stored.
        node_memory: bytes of memory of each machine.

    Raises:
        OceanoError: `invalid_request` if a number is out of range.
    """
    if not (1 <= faces <= _MAX_FACES and 1 <= replicas <= _MAX_REPLICAS and node_memory >= 1):
        limits = f"{_MAX_FACES:,} faces in {_MAX_REPLICAS} copies"
        raise OceanoError("invalid_request", f"faces, copies and memory must be at least 1, and at most {limits}")
    original, int8 = _embedding_bytes(embedding_size)
    graph = (_GRAPH + _GRAPH_PER_M * m) * max(1.0, math.log2(faces) / math.log2(_MEASURED_AT))
    pinned = (int8 + _IDS) * faces
    hot = int((int8 + _IDS + graph + _TOUCHED) * faces)
    index = int((original + int8 + graph + _PAYLOAD + _PAYLOAD_INDEX + _ID_FILES) * faces)
    embedded = faces <= EMBEDDED_UP_TO and replicas == 1 and hot + _PROCESSES <= _MEMORY_SHARE * node_memory
    nodes = 1 if embedded else math.ceil(hot * replicas / (_MEMORY_SHARE * node_memory))
    if replicas > 1:
        nodes = max(nodes, replicas, _QUORUM)
    return Plan(
        faces=faces,
        embedding_size=embedding_size,
        kind="embedded" if embedded else "server" if nodes == 1 else "cluster",
        replicas=replicas,
        memory_least=pinned * replicas + _PROCESSES,
        memory=hot * replicas + _PROCESSES,
        index_disk=index * replicas,
        building_disk=int(_BUILDING * index * replicas),
        thumbnails_disk=_THUMBNAIL * faces,
        catalog_sqlite_disk=_CATALOG_SQLITE * faces,
        catalog_postgresql_disk=_CATALOG_POSTGRESQL * faces,
        nodes=nodes,
        node_memory=node_memory,
    )


def _embedding_bytes(size: int) -> tuple[int, int]:
    """Return the bytes of an embedding, which is on disk, and of its int8 copy, which is on disk and in memory."""
    if not 1 <= size <= _MAX_EMBEDDING_SIZE:
        raise OceanoError(
            "invalid_request", f"embedding size {size} must be at least 1, and at most {_MAX_EMBEDDING_SIZE}"
        )
    return 4 * size + 4, size


def faces_of(text: str) -> int:
    """Parse a number of faces, such as 6M, 250k, 1.5b or 6000000.

    Raises:
        OceanoError: `invalid_request` if the text is no such number, or the number is 0.
    """
    found = _FACES.fullmatch(text.strip().replace(",", "").replace("_", ""))
    if found is None or len(text) > _MAX_TEXT or not (faces := round(float(found[1]) * _UNITS[found[2].lower()])):
        raise OceanoError("invalid_request", f"--faces {text!r} must be a number of faces, such as 250k, 6M or 1B")
    return faces


def amount(size: float) -> str:
    """Format a number of bytes for people, such as 1.2 KB or 45 GB."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            return f"{size:.{1 if size < 9.95 and unit != 'B' else 0}f} {unit}"
        size /= 1000
    raise AssertionError


def row(estimate: Plan) -> list[str]:
    """Return the cells of a row of the capacity table in INSTALL.md."""
    machines = {"embedded": "1, embedded", "server": "1, server"}.get(estimate.kind, f"{estimate.nodes}, cluster")
    return [
        f"{estimate.faces:,}",
        f"{amount(estimate.memory_least)} / {amount(estimate.memory)}",
        amount(estimate.index_disk),
        amount(estimate.building_disk),
        amount(estimate.thumbnails_disk),
        f"{amount(estimate.catalog_sqlite_disk)} / {amount(estimate.catalog_postgresql_disk)}",
        machines,
    ]


def kilobytes(points: int, embedding_size: int) -> int:
    """Return the size of embeddings in the unit of Edge's and Qdrant's thresholds.

    Args:
        points: number of embeddings.
        embedding_size: dimensions of each.

    Returns:
        Kilobytes of 1024 bytes, 4 bytes per dimension, rounded down so that `points` embeddings reach the threshold;
        at least 1, because 0 disables a threshold.
    """
    return max(1, 4 * embedding_size * points // 1024)
