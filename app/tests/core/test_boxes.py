from __future__ import annotations

import pytest

from app.core.boxes import overlap


@pytest.mark.parametrize(
    ("first", "second", "share"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),
        ((0, 0, 10, 10), (20, 20, 30, 30), 0.0),
        ((0, 0, 10, 10), (2, 2, 4, 4), 0.04),
    ],
)
def test_overlap_is_intersection_over_union(
    first: tuple[float, float, float, float], second: tuple[float, float, float, float], share: float
) -> None:
    assert overlap(first, second) == pytest.approx(share)
    assert overlap(second, first) == pytest.approx(share)
