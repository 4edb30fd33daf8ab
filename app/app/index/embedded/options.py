"""Options of an owner process, and the exit codes of a builder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

# Exit codes of a builder.
EXIT_BUILT: Final = 0
EXIT_NOTHING_TO_BUILD: Final = 4


@dataclass(frozen=True, slots=True)
class OwnerOptions:
    """Options that a client passes to the owner it starts; clients that connect later do not change them.

    Args:
        folder: the collection's folder.
        embedding_size: dimensions of an embedding.
        hnsw_m: links per point of the graph.
        hnsw_ef_construct: candidates per point while the graph is built.
        build_min: the number of points outside the graphs from which on the owner builds without a request.
        build_share: the share of points beside the largest graph, 0 to 1, from which on a build merges all points into
            one graph, see `build_plan`.
        indexing_points: Edge builds no graph for a segment with fewer points.
        full_scan_kb: kilobytes of vectors; if a filter matches less, a search scans the matches instead of using the
            graph. The time of a scan depends on the bytes, the time of a graph search hardly does.
        full_scan_share: the same limit as a share of the faces in the graph, 0 to 1; the lower limit applies.
        linger_s: seconds between the last client's disconnection and the owner's exit.
        spare_kb: for a builder: segments with at least so many kilobytes of vectors stay as they are; 0: none.
        min_free_mb: writes fail with `disk_full` when the disk has fewer megabytes free.
        readers: the largest number of additional processes that search.
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
    spare_kb: int = 0
    linger_s: float = 1.0
    min_free_mb: int = 256
    readers: int = 0

    def to_json(self) -> str:
        """Return the options as JSON, for a command line."""
        return json.dumps(asdict(self) | {"folder": str(self.folder)})

    @classmethod
    def from_json(cls, text: str) -> OwnerOptions:
        """Return the options that `to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "folder": Path(values["folder"])})
