"""Draws one person: head, features and clothes, in units of a face (see `canvas.Placement`).

The five landmarks stand where ArcFace's template has them. Each carries a colour that nothing else near
it has: the irises are turquoise, the nose is raspberry, the smile ends in two indigo dimples. By these
the demo pack's detector finds a face (`detector`).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from app.demo import hair
from app.demo.canvas import Canvas, Colour, Pen, Placement, Points, curve, mix, oval, rgb
from app.demo.people import Look
from app.types import Point

TEMPLATE: Final = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
"""Left eye, right eye, nose, left and right mouth corner in a 112x112 crop, as ArcFace aligns them."""

IRIS: Final = rgb("00aeae")
NOSE: Final = rgb("ea3681")
DIMPLE: Final = rgb("4742dc")
DARK: Final = rgb("33262b")
WHITE: Final = rgb("fffdf8")

_NOSE_PLAY: Final = 2.0  # units the nose moves when the head turns
_HEAD_PLAY: Final = 2.5  # units the head's outline moves the other way


def landmarks(placement: Placement) -> tuple[Point, ...]:
    """Where `draw_face` puts the five landmarks, in pixels."""
    points = np.array(TEMPLATE)
    points[2, 0] += _NOSE_PLAY * placement.turn
    return tuple((float(x), float(y)) for x, y in placement.apply(points))


def draw_face(canvas: Canvas, look: Look, placement: Placement) -> None:
    """Draw a person from the chest up."""
    head = Pen(canvas, placement, shift=-_HEAD_PLAY * placement.turn)
    features = Pen(canvas, placement)
    still = Pen(canvas, Placement(placement.centre, placement.scale, placement.roll * 0.35))
    hair.draw_back(head, look)
    _body(still, look)
    _ears(head, look)
    head.fill(outline(look), look.skin)
    _cheeks(features, look)
    _paint(features, look)
    _beard(features, head, look)
    for side, (x, y) in zip((-1, 1), TEMPLATE[:2], strict=True):
        _eye(features, look, x, y, side)
    _nose(features, look, placement.turn)
    _mouth(features, look, placement.smile)
    hair.draw_front(head, look)
    _brows(features, look)
    _glasses(features, look)
    hair.draw_hat(head, look)


def outline(look: Look, grown: float = 0.0) -> Points:
    """The head's outline, `grown` units larger."""
    angles = np.radians(np.arange(0, 360, 5))
    down = np.sin(angles)
    across = np.cos(angles) * (1 - look.jaw * np.clip(down, 0, 1) ** 2)
    height = np.where(down < 0, 57.0, 63.0) + grown
    return np.stack([56 + across * (43.5 * look.width + grown), 57 + down * height], axis=1)


def _body(pen: Pen, look: Look) -> None:
    shadow = mix(look.skin, DARK, 0.22)
    pen.fill([(36, 95), (76, 95), (78, 150), (34, 150)], shadow)
    shoulders = np.concatenate(
        [curve((-34, 250), (-34, 150), (10, 146), (34, 136)), curve((78, 136), (102, 146), (146, 150), (146, 250))]
    )
    pen.fill(np.concatenate([shoulders, [(146, 520), (-34, 520)]]), look.clothes)
    dark, light = mix(look.clothes, DARK, 0.25), mix(look.clothes, WHITE, 0.55)
    if look.collar == "round":
        pen.fill(oval(56, 136, 23, 15, start=0, end=180), shadow)
        pen.stroke(oval(56, 136, 23, 15, start=5, end=175), dark, 3)
    elif look.collar == "vee":
        pen.fill([(33, 137), (79, 137), (56, 168)], shadow)
        pen.stroke([(33, 137), (56, 168), (79, 137)], light, 4)
    elif look.collar == "shirt":
        pen.fill([(40, 137), (72, 137), (56, 156)], shadow)
        pen.fill([(34, 132), (56, 156), (38, 168), (24, 144)], light)
        pen.fill([(78, 132), (56, 156), (74, 168), (88, 144)], light)
    elif look.collar == "stripes":
        for y in range(158, 520, 18):
            reach = float(np.interp(y, shoulders[24::-1, 1], 56 - shoulders[24::-1, 0])) - 4
            pen.stroke([(56 - reach, y), (56 + reach, y)], light, 6)
        pen.fill(oval(56, 136, 23, 13, start=0, end=180), shadow)
    else:
        pen.fill([(33, 126), (79, 126), (82, 152), (30, 152)], dark)
        pen.fill(oval(56, 127, 23, 5), mix(dark, DARK, 0.25))


def _ears(pen: Pen, look: Look) -> None:
    if look.style == "scarf":
        return
    for side in (-1, 1):
        x = 56 + side * 44.5 * look.width
        pen.oval(x, 60, 8, 11, look.skin)
        pen.oval(x + side, 60, 4.5, 7, mix(look.skin, rgb("b5503c"), 0.35))
        if look.earrings:
            pen.dot(x + side * 2, 76, 4, rgb("f2c14e"))


def _cheeks(pen: Pen, look: Look) -> None:
    if look.cheeks:
        for x in (26, 86):
            pen.oval(x, 77, 9, 7, rgb("f0674a"), look.cheeks)


def _paint(pen: Pen, look: Look) -> None:
    colour = look.paint_colour
    for side in (-1, 1):
        x = 56 + side * 30
        if look.paint == "freckles":
            for dx, dy in ((-8, -3), (-1, -5), (6, -2), (-5, 3), (2, 2), (8, 4)):
                pen.dot(x + dx, 76 + dy, 1.5, mix(look.skin, rgb("7a3b1c"), 0.6))
        elif look.paint == "stripes":
            for row in range(3):
                y = 72 + row * 6.5
                pen.stroke([(x - 9, y), (x + 9, y)], colour, 3.4)
        elif look.paint == "hearts":
            for dx in (-3, 3):
                pen.dot(x + dx, 75, 4, rgb("d8402f"))
            pen.fill([(x - 6.8, 76.6), (x + 6.8, 76.6), (x, 84)], rgb("d8402f"))
        elif look.paint == "stars" and side == 1:
            pen.fill(_star(x, 77, 10), colour)
        elif look.paint == "dots":
            for dx, dy in ((-7, 0), (0, -5), (7, 0), (0, 5)):
                pen.dot(x + dx, 77 + dy, 2.8, colour)
        elif look.paint == "whiskers":
            for row in (-1, 0, 1):
                pen.stroke([(x - side * 9, 77 + row * 3), (x + side * 13, 77 + row * 7)], DARK, 1.8)
        elif look.paint == "plaster" and side == -1:
            pen.fill([(x - 10, 70), (x + 8, 79), (x + 6, 85), (x - 12, 76)], rgb("f4e2b8"))
            pen.fill([(x - 4.5, 73.6), (x + 2, 76.8), (x + 0.2, 81.4), (x - 6.3, 78.2)], rgb("dcc08a"))


def _star(x: float, y: float, radius: float) -> Points:
    angles = np.radians(np.arange(10) * 36 - 90)
    reach = np.where(np.arange(10) % 2 == 0, radius, radius * 0.45)
    return np.stack([x + reach * np.cos(angles), y + reach * np.sin(angles)], axis=1)


def _beard(pen: Pen, head: Pen, look: Look) -> None:
    colour = mix(look.hair, DARK, 0.12)
    if look.beard == "full":
        jaw = outline(look, 2.5)
        low = jaw[jaw[:, 1] > 66]
        head.fill(np.concatenate([low, curve((20, 76), (32, 80), (56, 74), (80, 80), (92, 76))]), colour)
        pen.oval(56, 93, 18.5, 9, look.skin)
    elif look.beard == "stubble":
        jaw = outline(look, 0)
        low = jaw[jaw[:, 1] > 72]
        head.fill(np.concatenate([low, curve((18, 80), (36, 82), (56, 78), (76, 82), (94, 80))]), colour, 0.28)
    elif look.beard == "goatee":
        pen.fill(np.concatenate([curve((42, 106), (50, 101), (62, 101), (70, 106)), curve((70, 112), (64, 127), (48, 127), (42, 112))]), colour)
    if look.beard in {"full", "moustache"}:
        pen.fill(np.concatenate([curve((34, 87), (46, 77), (56, 80)), curve((56, 80), (66, 77), (78, 87), (56, 84))]), colour)
    elif look.beard == "handlebar":
        for side in (-1, 1):
            pen.stroke(curve((56, 81), (56 + side * 14, 80), (56 + side * 26, 88), (56 + side * 30, 76)), colour, 4.5)


def _eye(pen: Pen, look: Look, x: float, y: float, side: int) -> None:
    pen.oval(x, y, 11.5, 10.0, WHITE)
    pen.dot(x, y - 0.8, 7.4, IRIS)  # the lid and the light hide some of its upper half
    pen.dot(x, y, 3.0, DARK)
    pen.dot(x + 2.5, y - 2.8, 1.9, WHITE)
    lid = curve((x - 11.2, y - 3.6), (x - 5, y - 8.4), (x + 5, y - 8.4), (x + 11.2, y - 3.6))
    pen.fill(np.concatenate([lid, oval(x, y, 12.2, 10.9, start=-20, end=-160)]), mix(look.skin, DARK, 0.1))
    pen.stroke(lid, DARK, 2.0)
    if look.lashes:
        for reach in (0.0, 4.0):
            pen.stroke([(x + side * (10.5 - reach), y - 5 - reach * 0.7), (x + side * (15 - reach), y - 8.5 - reach)], DARK, 1.8)


def _brows(pen: Pen, look: Look) -> None:
    colour = mix(look.hair if look.style != "scarf" else rgb("50342a"), DARK, 0.35)
    for side in (-1, 1):
        x = 56 + side * 18
        pen.stroke(curve((x - side * 9, 37.5), (x, 32), (x + side * 11, 37)), colour, look.brow)


def _nose(pen: Pen, look: Look, turn: float) -> None:
    x, y = TEMPLATE[2]
    x += _NOSE_PLAY * turn
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
        pen.fill(np.concatenate([lower, upper]), rgb("6b1f24"))
        pen.fill(oval(56, 93 + depth * 0.62, 7, depth * 0.16), rgb("d8694f"))
        pen.stroke(upper, lip, 1.8)
    pen.stroke(lower, lip, 2.4)
    for x, y in (left, right):
        pen.dot(x, y, 3.9, DIMPLE)


def _glasses(pen: Pen, look: Look) -> None:
    if look.glasses == "none":
        return
    colour: Colour = look.frame
    (lx, ly), (rx, ry) = TEMPLATE[:2]
    if look.glasses == "monocle":
        pen.stroke(oval(rx, ry, 15, 15), rgb("d9a441"), 2.4, closed=True)
        pen.stroke(curve((rx + 12, ry + 9), (rx + 20, ry + 30), (rx + 10, ry + 50)), rgb("d9a441"), 1.4)
        return
    for side, (x, y) in zip((-1, 1), TEMPLATE[:2], strict=True):
        if look.glasses == "round":
            rim = oval(x, y, 15.6, 15.6)
        elif look.glasses == "square":
            rim = np.array([(x - 16, y - 12), (x + 16, y - 12), (x + 15, y + 13), (x - 15, y + 13)])
        elif look.glasses == "half":
            rim = oval(x, y + 1, 15.5, 13.5, start=0, end=180)
        else:
            rim = np.array(
                [(x - side * 15, y - 8), (x + side * 20, y - 15), (x + side * 14, y + 11), (x, y + 14), (x - side * 12, y + 9)]
            )
        pen.stroke(rim, colour, 3.2, closed=look.glasses != "half")
        pen.stroke([(x + side * 16, y - 3), (56 + side * 44 * look.width, y - 1)], colour, 2.4)
    pen.stroke(curve((lx + 15.5, ly), (56, ly - 6), (rx - 15.5, ry)), colour, 2.8)
