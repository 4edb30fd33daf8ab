"""Hair, in units of a face (see `canvas.Placement`). Only at the sides does it reach below the brows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from app.demo.canvas import DARK, WHITE, Pen, Points, curve, joined, mix, oval, path, rgb
from app.demo.people import Look


def draw_back(pen: Pen, look: Look) -> None:
    """Draw the hair behind the head."""
    shade = mix(look.hair, DARK, 0.18)
    if look.style == "scarf":
        hood = joined(oval(56, 60, 58, 72, start=180, end=360), curve((114, 60), (120, 140), (84, 168)))
        pen.fill(joined(hood, curve((28, 168), (-8, 140), (-2, 60))), mix(look.hat_colour, DARK, 0.2))
        return
    if look.style == "afro":
        for x, y, radius in (
            (56, 16, 46),
            (22, 30, 34),
            (90, 30, 34),
            (8, 56, 24),
            (104, 56, 24),
            (32, 2, 30),
            (80, 2, 30),
        ):
            pen.dot(x, y, radius, look.hair)
    elif look.style == "bun":
        pen.dot(56, -14, 19, look.hair)
        pen.dot(51, -18, 7, mix(look.hair, WHITE, 0.18))
    if look.style not in {"bald", "buzz", "mohawk"}:
        pen.fill(oval(56, 52, 45.5 * look.width, 55, start=165, end=375), shade)
    crown = oval(56, 50, 55, 56, start=180, end=360)
    if look.length == "bob":
        pen.fill(joined(crown, curve((111, 50), (116, 112), (100, 120)), curve((12, 120), (-4, 112), (1, 50))), shade)
    elif look.length == "long":
        pen.fill(joined(crown, curve((111, 50), (122, 130), (114, 190)), curve((-2, 190), (-10, 130), (1, 50))), shade)
    elif look.length in {"braids", "pigtails"}:
        for side in (-1, 1):
            _tail(pen, look, side)


def _tail(pen: Pen, look: Look, side: int) -> None:
    shade = mix(look.hair, DARK, 0.18)
    if look.length == "pigtails":
        pen.oval(56 + side * 62, 40, 19, 25, shade)
        pen.dot(56 + side * 48, 26, 6, rgb("edae49"))
        return
    for knot in range(7):
        x, y = 56 + side * (50 + knot * 1.2), 82 + knot * 15
        pen.oval(x, y, 10 - knot * 0.5, 9.5, shade if knot % 2 else look.hair)


def draw_front(pen: Pen, look: Look) -> None:
    """Draw the hair on the head and over the forehead."""
    _FRONTS[look.style](pen, look)


def _cap(look: Look, lower: Points) -> Points:
    """The outline of the head's top, down to the line `lower`, which runs from left to right."""
    return joined(lower, oval(56, 50, 46.5 * look.width, 55, start=0, end=-180))


def _shine(look: Look) -> tuple[int, int, int]:
    return mix(look.hair, WHITE, 0.16)


def _bald(pen: Pen, look: Look) -> None:
    pen.fill(oval(44, 14, 10, 5, rotation=-25), mix(look.skin, WHITE, 0.5), 0.7)


def _buzz(pen: Pen, look: Look) -> None:
    pen.fill(_cap(look, curve((12, 40), (24, 14), (56, 16), (88, 14), (100, 40))), look.hair, 0.85)


def _fringe(pen: Pen, look: Look) -> None:
    pen.fill(_cap(look, path("10,58 15,29 56,32 97,29 102,58")), look.hair)
    for x in (30, 46, 64, 82):
        pen.stroke([(x, 31), (x - (x - 56) * 0.06, 16)], mix(look.hair, DARK, 0.25), 1.6)


def _side(pen: Pen, look: Look) -> None:
    lower = joined(curve((10, 56), (12, 30), (30, 14)), curve((30, 14), (50, 36), (86, 34), (102, 54)))
    pen.fill(_cap(look, lower), look.hair)
    pen.stroke(curve((30, 13), (32, 5), (42, 0)), mix(look.hair, DARK, 0.3), 1.8)


def _curtains(pen: Pen, look: Look) -> None:
    lower = joined(curve((9, 66), (14, 32), (34, 30), (56, 4)), curve((56, 4), (78, 30), (98, 32), (103, 66)))
    pen.fill(_cap(look, lower), look.hair)


def _curls(pen: Pen, look: Look) -> None:
    pen.fill(_cap(look, curve((12, 44), (30, 12), (82, 12), (100, 44))), look.hair)
    front = path("14,48 17,32 31,21 47,16 65,16 81,21 95,32 98,48")
    for (x, y), radius in zip(front, (9, 11, 12, 12, 12, 12, 11, 9), strict=True):
        pen.dot(x, y, radius, look.hair)
    for x, y in path("24,8 42,1 62,0 84,7"):
        pen.dot(x, y, 12.5, look.hair)
    for x, y in path("31,18 63,12 92,30 44,-2"):
        pen.stroke(oval(x, y, 6, 6, start=160, end=340), _shine(look), 1.8)


def _spikes(pen: Pen, look: Look) -> None:
    top = path("10,46 2,20 15,22 10,-4 28,4 32,-20 48,-6 60,-26 68,-6 86,-18 88,4 104,-2 99,22 112,22 102,46")
    pen.fill(joined(top, path("92,20 82,30 72,18 60,30 48,17 36,29 26,17 18,28")), look.hair)


def _afro(pen: Pen, look: Look) -> None:
    pen.fill(_cap(look, curve((10, 52), (16, 18), (56, 20), (96, 18), (102, 52))), look.hair)


def _bun(pen: Pen, look: Look) -> None:
    pen.fill(_cap(look, curve((10, 52), (14, 12), (56, 10), (98, 12), (102, 52))), look.hair)


def _mohawk(pen: Pen, look: Look) -> None:
    pen.fill(_cap(look, curve((12, 40), (24, 14), (56, 16), (88, 14), (100, 40))), mix(look.skin, look.hair, 0.35))
    pen.fill(path("42,30 38,-14 46,-8 48,-28 56,-14 64,-28 66,-8 74,-14 70,30 56,24"), look.hair)


def _swoop(pen: Pen, look: Look) -> None:
    pen.fill(_cap(look, curve((11, 50), (18, 16), (56, 18), (94, 16), (101, 50))), look.hair)
    wave = joined(curve((16, 24), (20, -26), (70, -34), (100, -8)), curve((100, -8), (98, 14), (56, 34), (16, 24)))
    pen.fill(wave, look.hair)
    pen.stroke(curve((28, 10), (38, -10), (70, -16), (88, -5)), _shine(look), 3)


def _waves(pen: Pen, look: Look) -> None:
    lower = path("9,66 16,44 14,30 26,26 34,12 48,22 58,10 70,24 82,16 90,30 98,34 96,46 103,66")
    pen.fill(_cap(look, lower), look.hair)
    pen.stroke(curve((30, 8), (44, -2), (60, 6), (76, 2)), _shine(look), 2.6)


def _scarf(pen: Pen, look: Look) -> None:
    dark = mix(look.hat_colour, DARK, 0.2)
    pen.fill(joined(oval(56, 58, 54, 68), np.flip(oval(56, 66, 39.5, 53), axis=0)), look.hat_colour)
    pen.stroke(oval(56, 66, 39.5, 53, start=200, end=340), dark, 2.4)
    wrap = joined(curve((20, 108), (56, 140), (92, 108)), curve((112, 170), (56, 190), (0, 170)))
    pen.fill(wrap, look.hat_colour)
    pen.stroke(curve((30, 124), (60, 146), (96, 138)), dark, 2)


_FRONTS: Final[Mapping[str, Callable[[Pen, Look], None]]] = MappingProxyType(
    {
        "fringe": _fringe,
        "side": _side,
        "curls": _curls,
        "spikes": _spikes,
        "curtains": _curtains,
        "buzz": _buzz,
        "afro": _afro,
        "bun": _bun,
        "mohawk": _mohawk,
        "swoop": _swoop,
        "bald": _bald,
        "scarf": _scarf,
        "waves": _waves,
    }
)
