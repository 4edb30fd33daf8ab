"""How much memory and disk, and how many machines, a number of faces needs: `oceano plan`.

Measured at 1,000,000 faces of 512 dimensions (`bench/search.py`, m 32 and 48) and 60,000 ingested pictures; all else
follows from that.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from app.core.errors import OceanoError

# Bytes a face, measured; beside these the embedding, see `_embedding_bytes`.
_IDS: Final = 75  # what else is in memory: ids, versions, masks
_PAYLOAD: Final = 400
_PAYLOAD_INDEX: Final = 417
_ID_FILES: Final = 29
_THUMBNAIL: Final = 8000  # 5.1 KB, in blocks of 4 KB
_LEDGER: Final = 150  # a file; at least one face a file is assumed
# The graph: 136 bytes a face with m=32 and 176 with m=48, at 1,000,000; its links take log2(faces) bits each.
_GRAPH: Final = 57.0
_GRAPH_PER_M: Final = 2.47
_MEASURED_AT: Final = 1_000_000
# Of the originals and payloads, what searches had brought into memory when 1.17 GB a million were resident.
_TOUCHED: Final = 400

_PROCESSES: Final = 1_500_000_000  # the service with its model, and an ingest
_MEMORY_SHARE: Final = 0.75  # of a machine's, for the index
_BUILDING: Final = 1.5  # times the index: free disk while the graph is built on a copy
_MOST_FACES: Final = 10**15
_MOST_COPIES: Final = 1000
_LARGEST_EMBEDDING: Final = 4096
_QUORUM: Final = 3  # of two nodes that know copies, none can tell whether the other is gone
EMBEDDED_UP_TO: Final = 10_000_000  # one shard whose graph one machine rebuilds within hours

_FACES: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmb]?)", re.IGNORECASE)
_LONGEST: Final = 30
_UNITS: Final = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}


@dataclass(frozen=True, slots=True)
class Plan:
    """Bytes in all, over every machine and copy; `nodes` is the number of machines that hold the index."""

    faces: int
    embedding_size: int
    kind: str
    replicas: int
    memory_least: int
    memory: int
    index_disk: int
    building_disk: int
    thumbnails_disk: int
    ledger_disk: int
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
    """What `faces` need, each stored `replicas` times, on machines with `node_memory` bytes.

    `memory_least` cannot be given back, `memory` is what makes searches quick. Raises OceanoError `invalid_request`.
    """
    if not (1 <= faces <= _MOST_FACES and 1 <= replicas <= _MOST_COPIES and node_memory >= 1):
        most = f"{_MOST_FACES:,} faces in {_MOST_COPIES} copies"
        raise OceanoError("invalid_request", f"faces, copies and memory must be at least 1, and at most {most}")
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
        ledger_disk=_LEDGER * faces,
        nodes=nodes,
        node_memory=node_memory,
    )


def _embedding_bytes(size: int) -> tuple[int, int]:
    """Bytes of an embedding of `size` dimensions on disk, and of its int8 copy, in memory and on disk."""
    if not 1 <= size <= _LARGEST_EMBEDDING:
        raise OceanoError(
            "invalid_request", f"embedding size {size} must be at least 1, and at most {_LARGEST_EMBEDDING}"
        )
    return 4 * size + 4, size


def faces_of(text: str) -> int:
    """6M, 250k, 1.5b or 6000000. Raises OceanoError `invalid_request`."""
    found = _FACES.fullmatch(text.strip().replace(",", "").replace("_", ""))
    if found is None or len(text) > _LONGEST or not (faces := round(float(found[1]) * _UNITS[found[2].lower()])):
        raise OceanoError("invalid_request", f"--faces {text!r} is no number of faces, such as 250k, 6M or 1B")
    return faces


def amount(size: float) -> str:
    """Bytes for people: three digits at most."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            return f"{size:.{1 if size < 9.95 and unit != 'B' else 0}f} {unit}"
        size /= 1000
    raise AssertionError


def row(one: Plan) -> list[str]:
    """A line of the table in INSTALL.md."""
    machines = {"embedded": "1, embedded", "server": "1, server"}.get(one.kind, f"{one.nodes}, cluster")
    return [
        f"{one.faces:,}",
        f"{amount(one.memory_least)} / {amount(one.memory)}",
        amount(one.index_disk),
        amount(one.building_disk),
        amount(one.thumbnails_disk),
        machines,
    ]
