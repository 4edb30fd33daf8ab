"""Boxes (x1, y1, x2, y2): area and overlap."""

from __future__ import annotations

from app.core.types import BBox


def area(box: BBox) -> float:
    """Return the area of a box."""
    return (box[2] - box[0]) * (box[3] - box[1])


def intersection(one: BBox, other: BBox) -> float:
    """Return the area that two boxes share, 0 if they do not overlap."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def overlap(one: BBox, other: BBox) -> float:
    """Return the intersection over union of two boxes, 0 to 1."""
    shared = intersection(one, other)
    return shared / (area(one) + area(other) - shared) if shared else 0.0
