"""Which points a build puts into one graph: all of them, or only those beside the largest graph.

A build that merges all points rewrites all of them, which takes about 0.3 ms of processor time per point. Without a
merge, each build would add a graph, and a search takes longer with each graph. So there are at most two: new points go
to a second, smaller graph, until it has `build_share` of all points; then both are merged.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from app.index.capacity import kilobytes
from app.index.embedded.options import OwnerOptions
from app.index.embedded.protocol import ShardSizes

# Edge rewrites a segment from this share of deleted points on.
_VACUUM_SHARE: Final = 0.2


@dataclasses.dataclass(frozen=True, slots=True)
class BuildPlan:
    """What a build does.

    Args:
        points: that the new graph will have.
        share: of all points, 0 to 1.
        spare_kb: kilobytes of vectors from which on a segment stays as it is; 0: none does.
    """

    points: int
    share: float = 1.0
    spare_kb: int = 0

    def options(self, options: OwnerOptions) -> OwnerOptions:
        """Return the options of the builder."""
        share = kilobytes(int(self.points * options.full_scan_share), options.embedding_size)
        return dataclasses.replace(options, full_scan_kb=min(options.full_scan_kb, share), spare_kb=self.spare_kb)


def is_due(sizes: ShardSizes, options: OwnerOptions) -> bool:
    """Return whether so many points are outside the graphs that a build starts without a request."""
    return sizes.points - sizes.indexed >= options.build_min


def plan_build(sizes: ShardSizes, options: OwnerOptions) -> BuildPlan | None:
    """Return what a build would do, or None if Edge would build nothing; Edge applies the same limits."""
    many_removed = sizes.removed > _VACUUM_SHARE * (sizes.indexed + sizes.removed)
    if sizes.points - sizes.indexed < options.indexing_points and not many_removed:
        return None
    beside = sizes.points - sizes.largest
    if many_removed or beside >= options.build_share * sizes.points or beside >= sizes.largest:
        return BuildPlan(sizes.points)
    return BuildPlan(beside, beside / sizes.points, kilobytes(sizes.largest, options.embedding_size))
