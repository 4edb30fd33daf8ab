"""Hats, in units of a face (see `canvas.Placement`). They do not reach below the brows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from app.demo.canvas import DARK, WHITE, Pen, curve, joined, mix, oval, path, rgb
from app.demo.people import Look


def draw_hat(pen: Pen, look: Look) -> None:
    """Draw the hat, if there is one."""
    if look.hat != "none":
        _HATS[look.hat](pen, look)


def _beanie(pen: Pen, look: Look) -> None:
    light = mix(look.hat_colour, WHITE, 0.45)
    pen.fill(oval(56, 22, 50, 50, start=180, end=360), look.hat_colour)
    pen.fill(path("3,12 109,12 110,28 2,28"), light)
    pen.dot(56, -30, 9, light)


def _cap(pen: Pen, look: Look) -> None:
    pen.fill(oval(56, 18, 48, 44, start=180, end=360), look.hat_colour)
    brim = joined(curve((6, 18), (56, 6), (106, 18)), curve((122, 30), (56, 18), (-10, 30)))
    pen.fill(brim, mix(look.hat_colour, DARK, 0.25))
    pen.dot(56, -4, 9, mix(look.hat_colour, WHITE, 0.45))


def _straw(pen: Pen, look: Look) -> None:
    pen.fill(oval(56, 14, 84, 15), rgb("e2bd6e"))
    pen.fill(
        joined(curve((14, 10), (18, -36), (94, -36), (98, 10)), curve((98, 10), (56, 20), (14, 10))), rgb("edcd86")
    )
    ribbon = joined(curve((13.5, 0), (56, 8), (98.5, 0)), curve((98.5, 11), (56, 20), (13.5, 11)))
    pen.fill(ribbon, look.hat_colour)


def _beret(pen: Pen, look: Look) -> None:
    dark = mix(look.hat_colour, DARK, 0.25)
    pen.fill(oval(66, 2, 60, 24, rotation=10), look.hat_colour)
    pen.fill(joined(curve((10, 22), (56, 8), (102, 22)), curve((102, 28), (56, 16), (10, 28))), dark)
    pen.stroke([(70, -20), (72, -28)], dark, 3)


def _sailor(pen: Pen, look: Look) -> None:
    pen.fill(oval(56, -4, 50, 20), WHITE)
    pen.fill(joined(curve((10, 4), (56, -4), (102, 4)), curve((104, 26), (56, 14), (8, 26))), WHITE)
    pen.stroke(curve((9, 18), (56, 7), (103, 18)), rgb("2c4a6e"), 4)


def _party(pen: Pen, look: Look) -> None:
    pen.fill(path("28,16 84,16 60,-58"), look.hat_colour)
    for x, y in path("44,4 66,6 56,-14 60,-34"):
        pen.dot(x, y, 4, mix(look.hat_colour, WHITE, 0.45))
    pen.dot(60, -58, 8, rgb("ffd23f"))


def _crown(pen: Pen, look: Look) -> None:
    pen.fill(path("14,20 8,-24 30,-4 56,-32 82,-4 104,-24 98,20"), rgb("f2b632"))
    pen.fill(path("14,20 13,10 99,10 98,20"), rgb("d9931e"))
    for x, y in path("8,-26 56,-34 104,-26"):
        pen.dot(x, y, 5, look.hat_colour)


def _headband(pen: Pen, look: Look) -> None:
    band = joined(curve((10, 30), (56, 6), (102, 30)), curve((100, 16), (56, -8), (12, 16)))
    pen.fill(band, look.hat_colour)
    for x in (30, 56, 82):
        pen.dot(x, 11 + abs(x - 56) * 0.12, 4, mix(look.hat_colour, WHITE, 0.45))


def _flowers(pen: Pen, look: Look) -> None:
    petals = (rgb("f4f1de"), rgb("f2b632"), rgb("e4572e"))
    for index, x in enumerate((14, 31, 48, 65, 82, 98)):
        y = 13 - 14 * (1 - ((x - 56) / 46) ** 2)
        for angle in np.radians(np.arange(0, 360, 72)):
            pen.dot(x + 6 * float(np.cos(angle)), y + 6 * float(np.sin(angle)), 5, petals[index % 3])
        pen.dot(x, y, 4, rgb("c97b1a"))


_HATS: Final[Mapping[str, Callable[[Pen, Look], None]]] = MappingProxyType(
    {
        "beanie": _beanie,
        "cap": _cap,
        "straw": _straw,
        "beret": _beret,
        "sailor": _sailor,
        "party": _party,
        "crown": _crown,
        "headband": _headband,
        "flowers": _flowers,
    }
)
