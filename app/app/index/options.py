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
    """`folder` is the collection's folder; the first client to start an owner decides the rest.

    A graph is built when at least `build_min` points and `build_share` of all are not in it; Edge leaves segments
    below `indexing_kb` kilobytes of vectors without a graph. What a filter admits is scanned instead of searched by the
    graph when it is below `full_scan_kb` and `full_scan_share` of the faces in it. The owner ends
    `linger_s` seconds after its last client. Writes are refused when the disk has less than `min_free_mb` free.
    """

    folder: Path
    hnsw_m: int = 48
    hnsw_ef_construct: int = 200
    build_min: int = 20_000
    build_share: float = 0.1
    indexing_kb: int = 10_000
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
