"""When builds start, and what they merge."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.index.embedded.build_plan import BuildPlan, is_due, plan_build
from app.index.embedded.options import OwnerOptions
from app.index.embedded.protocol import ShardSizes

OPTIONS = OwnerOptions(Path("/index"), 512)


def test_a_build_is_due_from_build_min_points_outside_the_graphs_on() -> None:
    assert not is_due(ShardSizes(6_000_000, 5_980_001, 0, 5_980_001, 2), OPTIONS)
    assert is_due(ShardSizes(6_000_000, 5_980_000, 0, 5_980_000, 2), OPTIONS)
    assert is_due(ShardSizes(20_000, 0, 0, 0, 1), OPTIONS)


@pytest.mark.parametrize(
    ("sizes", "plan"),
    [
        (ShardSizes(4_999, 0, 0, 0, 1), None),
        (ShardSizes(5_000, 0, 0, 0, 1), BuildPlan(5_000)),
        (ShardSizes(1_000_000, 995_001, 0, 995_001, 2), None),
        (ShardSizes(1_000_000, 980_000, 0, 980_000, 2), BuildPlan(20_000, 0.02, 1_960_000)),
        (ShardSizes(1_000_000, 980_000, 0, 910_000, 3), BuildPlan(90_000, 0.09, 1_820_000)),
        (ShardSizes(1_000_000, 980_000, 0, 900_000, 3), BuildPlan(1_000_000)),
        (ShardSizes(1_000_000, 1_000_000, 250_001, 1_000_000, 2), BuildPlan(1_000_000)),  # to remove what is deleted
        (ShardSizes(1_000_000, 1_000_000, 249_000, 1_000_000, 2), None),
    ],
)
def test_only_a_small_part_gets_a_graph_of_its_own(sizes: ShardSizes, plan: BuildPlan | None) -> None:
    found = plan_build(sizes, OPTIONS)
    assert found == plan


def test_the_limit_of_a_scan_follows_the_points_of_the_new_graph() -> None:
    assert BuildPlan(6_000_000).options(OPTIONS).full_scan_kb == OPTIONS.full_scan_kb
    small = BuildPlan(30_000, 0.01, 5_940_000).options(OPTIONS)
    assert (small.full_scan_kb, small.spare_kb) == (20_000, 5_940_000)
