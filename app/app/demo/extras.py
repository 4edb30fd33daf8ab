"""Beards, glasses, face paint and clothes, in units of a face (see `canvas.Placement`)."""

from __future__ import annotations

import numpy as np

from app.demo.canvas import DARK, WHITE, Colour, Pen, Points, curve, joined, mix, moved, oval, path, rgb
from app.demo.people import Look

LEFT_EYE, RIGHT_EYE = (38.3, 51.7), (73.5, 51.5)


def draw_body(pen: Pen, look: Look) -> None:
    """Draw the neck, the shoulders and the clothes."""
    shadow = mix(look.skin, DARK, 0.22)
    pen.fill(path("36,95 76,95 78,150 34,150"), shadow)
    left = curve((-34, 250), (-34, 150), (10, 146), (34, 136))
    pen.fill(joined(left, curve((78, 136), (102, 146), (146, 150), (146, 250)), [(146, 520), (-34, 520)]), look.clothes)
    dark, light = mix(look.clothes, DARK, 0.25), mix(look.clothes, WHITE, 0.55)
    if look.collar == "stripes":
        for y in range(158, 520, 18):
            reach = float(np.interp(y, left[::-1, 1], 56 - left[::-1, 0])) - 4
            pen.stroke([(56 - reach, y), (56 + reach, y)], light, 6)
    if look.collar in {"round", "stripes"}:
        pen.fill(oval(56, 135, 23, 15, start=0, end=180), shadow)
        pen.stroke(oval(56, 135, 23, 15, start=5, end=175), dark, 3)
    elif look.collar == "vee":
        pen.fill(path("33,134 79,134 56,168"), shadow)
        pen.stroke(path("33,136 56,168 79,136"), light, 4)
    elif look.collar == "shirt":
        pen.fill(path("36,134 76,134 56,156"), shadow)
        pen.fill(path("34,130 56,156 38,168 24,144"), light)
        pen.fill(path("78,130 56,156 74,168 88,144"), light)
    else:
        pen.fill(path("33,126 79,126 82,152 30,152"), dark)
        pen.fill(oval(56, 127, 23, 5), mix(dark, DARK, 0.25))


def draw_paint(pen: Pen, look: Look) -> None:
    """Draw freckles, face paint or a plaster on the cheeks."""
    for side in (-1, 1):
        x = 56 + side * 29
        if look.paint == "freckles":
            for dx, dy in path("-8,-3 -1,-5 6,-2 -5,3 2,2 8,4"):
                pen.dot(x + dx, 76 + dy, 1.5, mix(look.skin, rgb("7a3b1c"), 0.6))
        elif look.paint == "stripes":
            for y in (72, 78.5, 85):
                pen.stroke([(x - 8, y), (x + 8, y)], look.paint_colour, 3.4)
        elif look.paint == "hearts":
            _heart(pen, x, 75)
        elif look.paint == "dots":
            for dx, dy in path("-7,0 0,-5 7,0 0,5"):
                pen.dot(x + dx, 77 + dy, 2.8, look.paint_colour)
        elif look.paint == "whiskers":
            for row in (-1, 0, 1):
                pen.stroke([(x - side * 9, 77 + row * 3), (x + side * 13, 77 + row * 7)], DARK, 1.8)
        elif look.paint == "stars" and side == 1:
            pen.fill(_star(x, 77, 10), look.paint_colour)
        elif look.paint == "plaster" and side == -1:
            pen.fill(moved(path("-10,-7 8,2 6,8 -12,-1"), x, 77), rgb("f4e2b8"))
            pen.fill(moved(path("-4.5,-3.4 2,-.2 .2,4.4 -6.3,1.2"), x, 77), rgb("dcc08a"))


def _heart(pen: Pen, x: float, y: float) -> None:
    for dx in (-3, 3):
        pen.dot(x + dx, y, 4, rgb("d8402f"))
    pen.fill([(x - 6.8, y + 1.6), (x + 6.8, y + 1.6), (x, y + 9)], rgb("d8402f"))


def _star(x: float, y: float, radius: float) -> Points:
    angles = np.radians(np.arange(10) * 36 - 90)
    reach = np.where(np.arange(10) % 2 == 0, radius, radius * 0.45)
    return np.stack([x + reach * np.cos(angles), y + reach * np.sin(angles)], axis=1)


def draw_beard(pen: Pen, head: Pen, look: Look, jaw: Points) -> None:
    """Draw the beard and moustache.

    Args:
        pen: draws the parts at the mouth.
        head: draws the parts along the jaw, which shift with the head's outline.
        look: the person's look.
        jaw: the head's outline in units, (n, 2).
    """
    colour = mix(look.hair, DARK, 0.12)
    low = jaw[jaw[:, 1] > 68]
    if look.beard == "full":
        head.fill(joined(low, curve((20, 76), (32, 80), (56, 74), (80, 80), (92, 76))), colour)
        pen.oval(56, 93, 18.5, 9, look.skin)
    elif look.beard == "stubble":
        head.fill(joined(low, curve((18, 80), (36, 82), (56, 78), (76, 82), (94, 80))), colour, 0.28)
    elif look.beard == "goatee":
        pen.fill(
            joined(
                curve((42, 106), (50, 101), (62, 101), (70, 106)), curve((70, 112), (64, 127), (48, 127), (42, 112))
            ),
            colour,
        )
    elif look.beard == "handlebar":
        for side in (-1, 1):
            reach = curve((56, 81), (56 + side * 14, 80), (56 + side * 26, 88), (56 + side * 30, 76))
            pen.stroke(reach, colour, 4.5)
    if look.beard in {"full", "moustache"}:
        upper = joined(curve((33, 87), (42, 75), (55, 79.5)), curve((57, 79.5), (70, 75), (79, 87)))
        pen.fill(joined(upper, curve((79, 87), (66, 88), (56, 82.5)), curve((56, 82.5), (46, 88), (33, 87))), colour)


def draw_glasses(pen: Pen, look: Look) -> None:
    """Draw the glasses, or a monocle on its cord."""
    if look.glasses == "none":
        return
    if look.glasses == "monocle":
        x, y = RIGHT_EYE
        pen.stroke(oval(x, y, 15, 15), rgb("d9a441"), 2.4, closed=True)
        pen.stroke(curve((x + 12, y + 9), (x + 20, y + 30), (x + 10, y + 50)), rgb("d9a441"), 1.4)
        return
    colour: Colour = look.frame
    for side, (x, y) in ((-1, LEFT_EYE), (1, RIGHT_EYE)):
        pen.stroke(moved(_rim(look.glasses, side), x, y), colour, 3.2, closed=look.glasses != "half")
        pen.stroke([(x + side * 16, y - 3), (56 + side * 44 * look.width, y - 1)], colour, 2.4)
    (left, y), (right, _) = LEFT_EYE, RIGHT_EYE
    pen.stroke(curve((left + 15.5, y), (56, y - 6), (right - 15.5, y)), colour, 2.8)


def _rim(kind: str, side: int) -> Points:
    """The rim around an eye at the origin; `side` is -1 for the left eye, 1 for the right."""
    if kind == "round":
        return oval(0, 0, 15.6, 15.6)
    if kind == "half":
        return oval(0, 1, 15.5, 13.5, start=0, end=180)
    if kind == "square":
        return path("-16,-12 16,-12 15,13 -15,13")
    return path("-15,-8 20,-15 14,11 0,14 -12,9") * (side, 1)
