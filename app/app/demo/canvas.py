"""An anti-aliased canvas, and a pen that draws on it in units of a face."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from app.core.types import Pixels

Points = npt.NDArray[np.float64]
Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

_FIXED_POINT: Final = 4  # fractional bits of cv2's coordinates
_CURVE_POINTS: Final = 25


def seeded(*parts: object) -> random.Random:
    """Create a random generator that gives the same numbers on every machine.

    Args:
        parts: values whose text is the seed.
    """
    return random.Random(" ".join(map(str, parts)))  # noqa: S311 - for drawings, not for secrets


def rgb(text: str) -> Colour:
    """Parse a hexadecimal colour: `"ff8000"` -> (255, 128, 0)."""
    return int(text[0:2], 16), int(text[2:4], 16), int(text[4:6], 16)


DARK: Final = rgb("33262b")
WHITE: Final = rgb("fffdf8")


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Blend two colours.

    Args:
        first: the colour for a share of 0.
        second: the colour for a share of 1.
        share: 0 to 1.
    """
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def path(text: str) -> Points:
    """Parse points: `"0,1 2.5,3"` -> [[0, 1], [2.5, 3]]."""
    return np.array([[float(number) for number in point.split(",")] for point in text.split()])


def joined(*parts: Points | Sequence[tuple[float, float]]) -> Points:
    """Concatenate lines of points (n, 2)."""
    return np.concatenate([np.asarray(part, np.float64) for part in parts])


def moved(points: Points, x: float, y: float) -> Points:
    """Shift points (n, 2) by (x, y)."""
    return np.asarray(points + np.array([x, y]))


def oval(
    x: float, y: float, rx: float, ry: float, *, rotation: float = 0.0, start: float = 0, end: float = 360
) -> Points:
    """Approximate an ellipse, or an arc of one, by a polygon.

    Angles are in degrees, clockwise from the right.

    Args:
        x: x of the centre.
        y: y of the centre.
        rx: horizontal radius, before the rotation.
        ry: vertical radius, before the rotation.
        rotation: angle by which the ellipse is rotated.
        start: angle of the first point.
        end: angle of the last point.

    Returns:
        The corners, (n, 2).
    """
    unit_x, unit_y = _arc(start, end)
    across, down = rx * unit_x, ry * unit_y
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    return _paired(x + across * cos - down * sin, y + across * sin + down * cos)


@lru_cache(maxsize=64)
def _arc(start: float, end: float) -> tuple[Points, Points]:
    """x and y of points on the unit circle."""
    angles = np.radians(np.linspace(start, end, max(8, round(abs(end - start) / 6)) + 1))
    return np.cos(angles), np.sin(angles)


def _paired(x: Points, y: Points) -> Points:
    """np.stack([x, y], axis=1), in a third of the time."""
    points = np.empty((len(x), 2))
    points[:, 0], points[:, 1] = x, y
    return points


def curve(*controls: tuple[float, float]) -> Points:
    """Approximate a Bezier curve by 25 points.

    Args:
        controls: its control points; the curve starts at the first and ends at the last.

    Returns:
        The points, (25, 2).
    """
    points = np.zeros((_CURVE_POINTS, 2))
    for weight, control in zip(_bernstein(len(controls) - 1), controls, strict=True):
        points += weight * np.asarray(control, np.float64)
    return points


@lru_cache(maxsize=8)
def _bernstein(degree: int) -> list[Points]:
    """The weight of each control point along a Bezier curve, (points, 1)."""
    t = np.linspace(0.0, 1.0, _CURVE_POINTS)[:, None]
    return [math.comb(degree, index) * t**index * (1 - t) ** (degree - index) for index in range(degree + 1)]


class Canvas:
    """An image that is drawn at `supersampling` times its size and scaled down at the end.

    Coordinates are pixels of the finished image, with pixel centres at whole numbers.

    Args:
        size: (width, height) in pixels.
        background: the colour of the empty canvas.
        supersampling: how many times larger the image is drawn.
    """

    def __init__(self, size: tuple[int, int], background: Colour, supersampling: int = 3) -> None:
        self.width, self.height = size
        self.supersampling = supersampling
        row = np.full((self.width * supersampling, 3), background[::-1], np.uint8)
        self._pixels: Pixels = np.tile(row, (self.height * supersampling, 1, 1))

    def fill(self, points: Points, colour: Colour, alpha: float = 1.0) -> None:
        """Fill a polygon.

        Args:
            points: its corners in pixels, (n, 2).
            colour: the fill colour.
            alpha: opacity, 0 to 1.
        """
        corners = self._fixed(points)
        if alpha >= 1:
            cv2.fillPoly(self._pixels, [corners], colour[::-1], lineType=cv2.LINE_AA, shift=_FIXED_POINT)
            return
        height, width = self._pixels.shape[:2]
        (x1, y1), (x2, y2) = (corners.min(0) >> _FIXED_POINT) - 2, (corners.max(0) >> _FIXED_POINT) + 3
        x1, y1, x2, y2 = max(int(x1), 0), max(int(y1), 0), min(int(x2), width), min(int(y2), height)
        if x1 >= x2 or y1 >= y2:
            return
        part = self._pixels[y1:y2, x1:x2]
        painted = part.copy()
        shifted = corners - (np.array([x1, y1]) << _FIXED_POINT)
        cv2.fillPoly(painted, [shifted.astype(np.int32)], colour[::-1], lineType=cv2.LINE_AA, shift=_FIXED_POINT)
        cv2.addWeighted(painted, alpha, part, 1 - alpha, 0, dst=part)

    def stroke(self, points: Points, colour: Colour, width: float, *, closed: bool = False) -> None:
        """Draw a line with round ends.

        Args:
            points: its points in pixels, (n, 2).
            colour: the line's colour.
            width: the line's width in pixels.
            closed: connect the last point with the first.
        """
        thickness = max(1, round(width * self.supersampling))
        cv2.polylines(
            self._pixels, [self._fixed(points)], closed, colour[::-1], thickness, cv2.LINE_AA, shift=_FIXED_POINT
        )

    def fade(self, top: Colour, bottom: Colour, *, upto: float = 1.0) -> None:
        """Paint a vertical gradient.

        Args:
            top: the colour at the top.
            bottom: the colour at the lower end.
            upto: the painted share of the height, from the top.
        """
        rows = max(2, round(self._pixels.shape[0] * upto))
        share = np.linspace(0, 1, rows)[:, None]
        colours = np.rint(np.array(top[::-1]) * (1 - share) + np.array(bottom[::-1]) * share)
        upper = self._pixels[:rows]
        cv2.resize(colours.astype(np.uint8)[:, None], upper.shape[1::-1], dst=upper, interpolation=cv2.INTER_NEAREST)

    def finish(self) -> Pixels:
        """Return the image: BGR, uint8, (height, width, 3)."""
        finished = cv2.resize(self._pixels, (self.width, self.height), interpolation=cv2.INTER_AREA)
        return np.asarray(finished, np.uint8)

    def _fixed(self, points: Points) -> npt.NDArray[np.int32]:
        enlarged = (points + 0.5) * self.supersampling - 0.5
        return np.rint(enlarged * (1 << _FIXED_POINT)).astype(np.int32)


@dataclass(frozen=True, slots=True)
class Placement:
    """Position, size and pose of a face. A unit of a face is 1/112 of an aligned crop's side.

    Attributes:
        centre: pixel position of the face's point (56, 62).
        scale: pixels per unit.
        roll: rotation in degrees, clockwise.
        turn: yaw of the head, -1 (to the left) to 1 (to the right).
        smile: 0 to 1.
    """

    centre: tuple[float, float]
    scale: float
    roll: float = 0.0
    turn: float = 0.0
    smile: float = 0.5

    def apply(self, points: Points) -> Points:
        """Convert points (n, 2) from units of the face to pixels."""
        cos, sin = math.cos(math.radians(self.roll)) * self.scale, math.sin(math.radians(self.roll)) * self.scale
        x, y = (points - np.array([56.0, 62.0])).T
        return moved(_paired(x * cos - y * sin, x * sin + y * cos), *self.centre)


class Pen:
    """A pen that draws on a canvas in units of a face.

    Args:
        canvas: the canvas.
        placement: where the face is.
        shift: horizontal shift of everything drawn, in units.
    """

    def __init__(self, canvas: Canvas, placement: Placement, shift: float = 0.0) -> None:
        self._canvas = canvas
        self._placement = placement
        self._shift = np.array([shift, 0.0])

    def fill(self, points: Points | Sequence[tuple[float, float]], colour: Colour, alpha: float = 1.0) -> None:
        """Fill a polygon, see `Canvas.fill`."""
        self._canvas.fill(self._to_pixels(points), colour, alpha)

    def oval(self, x: float, y: float, rx: float, ry: float, colour: Colour, alpha: float = 1.0) -> None:
        """Fill an ellipse with the centre (x, y) and the radii rx and ry."""
        self.fill(oval(x, y, rx, ry), colour, alpha)

    def dot(self, x: float, y: float, radius: float, colour: Colour, alpha: float = 1.0) -> None:
        """Fill a circle with the centre (x, y)."""
        self.oval(x, y, radius, radius, colour, alpha)

    def stroke(
        self,
        points: Points | Sequence[tuple[float, float]],
        colour: Colour,
        width: float,
        *,
        closed: bool = False,
    ) -> None:
        """Draw a line, see `Canvas.stroke`."""
        self._canvas.stroke(self._to_pixels(points), colour, width * self._placement.scale, closed=closed)

    def _to_pixels(self, points: Points | Sequence[tuple[float, float]]) -> Points:
        return self._placement.apply(np.asarray(points, np.float64) + self._shift)
