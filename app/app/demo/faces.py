"""Drawing of one person: head, features and clothes, in units of a face (see `canvas.Placement`).

The five landmarks are at the positions of ArcFace's template. Each has a colour that nothing else near it has: the
irises are turquoise, the nose is raspberry, the smile ends in two indigo dimples. The demo pack's detector finds faces
by these colours (`detector`).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from app.core.types import Point
from app.demo import extras, hair, hats
from app.demo.canvas import DARK, WHITE, Canvas, Pen, Placement, Points, curve, joined, mix, oval, rgb
from app.demo.people import Look

TEMPLATE: Final = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
"""Left eye, right eye, nose, left and right mouth corner in a 112 x 112 crop, as ArcFace aligns them."""

IRIS: Final = rgb("00aeae")
NOSE: Final = rgb("ea3681")
DIMPLE: Final = rgb("4742dc")

_NOSE_SHIFT: Final = 2.0  # units by which the nose moves when the head turns
_HEAD_SHIFT: Final = 2.5  # units by which the head's outline moves in the opposite direction


def landmarks(placement: Placement) -> tuple[Point, ...]:
    """Return the five landmarks as `draw_face` draws them, in pixels."""
    points = np.array(TEMPLATE)
    points[2, 0] += _NOSE_SHIFT * placement.turn
    return tuple((float(x), float(y)) for x, y in placement.apply(points))


def draw_face(canvas: Canvas, look: Look, placement: Placement) -> None:
    """Draw a person from the chest up.

    Args:
        canvas: the canvas.
        look: the person's look.
        placement: position, size and pose of the face.
    """
    head = Pen(canvas, placement, shift=-_HEAD_SHIFT * placement.turn)
    features = Pen(canvas, placement)
    body = Pen(canvas, Placement(placement.centre, placement.scale, placement.roll * 0.35))
    hair.draw_back(head, look)
    extras.draw_body(body, look)
    _ears(head, look)
    head.fill(outline(look), look.skin)
    if look.cheeks:
        for x in (26.0, 86.0):
            features.oval(x, 77, 9, 7, rgb("f0674a"), look.cheeks)
    extras.draw_paint(features, look)
    extras.draw_beard(features, head, look, outline(look, 2.5 if look.beard == "full" else 0.0))
    for side, (x, y) in zip((-1, 1), TEMPLATE[:2], strict=True):
        _eye(features, look, x, y, side)
    _nose(features, look, placement.turn)
    _mouth(features, look, placement.smile)
    hair.draw_front(head, look)
    _brows(features, look)
    extras.draw_glasses(features, look)
    hats.draw_hat(head, look)


def outline(look: Look, grown: float = 0.0) -> Points:
    """Compute the outline of a head.

    Args:
        look: the person's look.
        grown: how much larger the outline is than the head, in units.

    Returns:
        The corners in units, (72, 2).
    """
    angles = np.radians(np.arange(0, 360, 5))
    down = np.sin(angles)
    across = np.cos(angles) * (1 - look.jaw * np.clip(down, 0, 1) ** 2)
    height = np.where(down < 0, 57.0, 63.0) + grown
    return np.stack([56 + across * (43.5 * look.width + grown), 57 + down * height], axis=1)


def _ears(pen: Pen, look: Look) -> None:
    if look.style == "scarf":
        return
    for side in (-1, 1):
        x = 56 + side * 44.5 * look.width
        pen.oval(x, 60, 8, 11, look.skin)
        pen.oval(x + side, 60, 4.5, 7, mix(look.skin, rgb("b5503c"), 0.35))
        if look.earrings:
            pen.dot(x + side * 2, 76, 4, rgb("f2c14e"))


def _eye(pen: Pen, look: Look, x: float, y: float, side: int) -> None:
    pen.oval(x, y, 11.5, 10.0, WHITE)
    pen.dot(x, y - 0.8, 7.4, IRIS)  # higher, because the lid and the highlight hide part of its upper half
    pen.dot(x, y, 3.0, DARK)
    pen.dot(x + 2.5, y - 2.8, 1.9, WHITE)
    lid = curve((x - 11.2, y - 3.6), (x - 5, y - 8.4), (x + 5, y - 8.4), (x + 11.2, y - 3.6))
    pen.fill(joined(lid, oval(x, y, 12.2, 10.9, start=-20, end=-160)), mix(look.skin, DARK, 0.1))
    pen.stroke(lid, DARK, 2.0)
    if look.lashes:
        for back in (0.0, 4.0):
            root = (x + side * (10.5 - back), y - 5 - back * 0.7)
            pen.stroke([root, (x + side * (15 - back), y - 8.5 - back)], DARK, 1.8)


def _brows(pen: Pen, look: Look) -> None:
    colour = mix(look.hair if look.style != "scarf" else rgb("50342a"), DARK, 0.35)
    for side in (-1, 1):
        x = 56 + side * 18
        pen.stroke(curve((x - side * 9, 37.5), (x, 32), (x + side * 11, 37)), colour, look.brow)


def _nose(pen: Pen, look: Look, turn: float) -> None:
    x, y = TEMPLATE[2][0] + _NOSE_SHIFT * turn, TEMPLATE[2][1]
    pen.oval(x, y + 1.2, 6.8, 5.6, mix(look.skin, DARK, 0.14))
    pen.oval(x, y, 5.8, 5.0, NOSE)
    pen.oval(x - 1.6, y - 1.8, 1.5, 1.1, rgb("ffc2da"))


def _mouth(pen: Pen, look: Look, smile: float) -> None:
    left, right = TEMPLATE[3:]
    lip = mix(look.skin, rgb("8c2f22"), 0.72)
    depth = 4 + 12 * smile
    lower = curve(left, (48, left[1] + depth), (64, right[1] + depth), right)
    if smile > 0.55:
        upper = curve(right, (64, 95), (48, 95), left)
        pen.fill(joined(lower, upper), rgb("6b1f24"))
        pen.fill(oval(56, 93 + depth * 0.62, 7, depth * 0.16), rgb("d8694f"))
        pen.stroke(upper, lip, 1.8)
    pen.stroke(lower, lip, 2.4)
    for x, y in (left, right):
        pen.dot(x, y, 3.9, DIMPLE)
