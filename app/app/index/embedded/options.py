"""What an owner is told when it is started."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

# How a builder ends.
EXIT_BUILT: Final = 0
EXIT_NOTHING_TO_BUILD: Final = 4


@dataclass(frozen=True, slots=True)
class OwnerOptions:
    """`folder` is the collection's folder, `embedding_size` the dimensions of its embeddings; the first client to start
    an owner decides the rest.

    A graph is built when at least `build_min` points and `build_share` of all are not in it; Edge leaves segments below
    `indexing_points` without a graph. What a filter admits is scanned instead of searched by the graph when it is below
    `full_scan_kb` kilobytes of vectors and `full_scan_share` of the faces in it: a scan's time goes by bytes, the
    graph's hardly. The owner ends `linger_s` seconds after its last client. Writes are refused when the disk has less
    than `min_free_mb` free.
    """

    folder: Path
    embedding_size: int
    hnsw_m: int = 48
    hnsw_ef_construct: int = 200
    build_min: int = 20_000
    build_share: float = 0.1
    indexing_points: int = 5_000
    full_scan_kb: int = 600_000
    full_scan_share: float = 1 / 3
    linger_s: float = 1.0
    min_free_mb: int = 256

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"folder": str(self.folder)})

    @classmethod
    def from_json(cls, text: str) -> OwnerOptions:
        values = json.loads(text)
        return cls(**{**values, "folder": Path(values["folder"])})


def kilobytes(points: int, embedding_size: int) -> int:
    """The size of so many embeddings as Edge and Qdrant count it: 4 bytes a dimension, 1024 a kilobyte.

    Rounded down, so that a threshold of `points` is reached with `points`; at least 1, for 0 switches a threshold off.
    """
    return max(1, 4 * embedding_size * points // 1024)
