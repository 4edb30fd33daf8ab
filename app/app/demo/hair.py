"""Hair and hats, in units of a face (see `canvas.Placement`)."""

from __future__ import annotations

import numpy as np

from app.demo.canvas import Pen, Points, curve, mix, oval, rgb
from app.demo.people import Look

_DARK = rgb("33262b")
_WHITE = rgb("fffdf8")


def draw_back(pen: Pen, look: Look) -> None:
    """What hangs behind the head."""
    shade = mix(look.hair, _DARK, 0.18)
    if look.style == "scarf":
        pen.fill(np.concatenate([oval(56, 60, 58, 72, start=180, end=360), curve((114, 60), (120, 140), (84, 168)), curve((28, 168), (-8, 140), (-2, 60))]), mix(look.hat_colour, _DARK, 0.2))
        return
    if look.style == "afro":
        for x, y, r in ((56, 16, 46), (22, 30, 34), (90, 30, 34), (8, 56, 24), (104, 56, 24), (32, 2, 30), (80, 2, 30)):
            pen.dot(x, y, r, look.hair)
    if look.style == "bun":
        pen.dot(56, -14, 19, look.hair)
        pen.dot(51, -18, 7, mix(look.hair, _WHITE, 0.18))
    if look.length == "bob":
        pen.fill(np.concatenate([oval(56, 50, 55, 56, start=180, end=360), curve((111, 50), (116, 112), (100, 120)), curve((12, 120), (-4, 112), (1, 50))]), shade)
    elif look.length == "long":
        pen.fill(np.concatenate([oval(56, 50, 55, 56, start=180, end=360), curve((111, 50), (122, 130), (114, 190)), curve((-2, 190), (-10, 130), (1, 50))]), shade)
    elif look.length == "braids":
        for side in (-1, 1):
            for knot in range(7):
                pen.oval(56 + side * (50 + knot * 1.2), 82 + knot * 15, 10 - knot * 0.5, 9.5, shade if knot % 2 else look.hair)
    elif look.length == "pigtails":
        for side in (-1, 1):
            pen.oval(56 + side * 62, 40, 19, 25, shade)
            pen.dot(56 + side * 48, 26, 6, rgb("edae49"))


def draw_front(pen: Pen, look: Look) -> None:
    """What falls over the forehead; nothing comes below y = 34, where the brows are."""
    colour, shine = look.hair, mix(look.hair, _WHITE, 0.16)
    if look.style == "bald":
        pen.fill(oval(44, 14, 10, 5, turned=-25), mix(look.skin, _WHITE, 0.5), 0.7)
    elif look.style == "scarf":
        _scarf(pen, look)
    elif look.style == "buzz":
        pen.fill(_cap(look, curve((12, 40), (24, 14), (56, 16), (88, 14), (100, 40))), colour, 0.85)
    elif look.style == "fringe":
        pen.fill(_cap(look, np.array([(10, 58), (15, 29), (56, 32), (97, 29), (102, 58)])), colour)
        for x in (30, 46, 64, 82):
            pen.stroke([(x, 31), (x + (x - 56) * -0.06, 16)], mix(colour, _DARK, 0.25), 1.6)
    elif look.style == "side":
        pen.fill(_cap(look, np.concatenate([curve((10, 56), (12, 30), (30, 14)), curve((30, 14), (50, 36), (86, 34), (102, 54))])), colour)
        pen.stroke(curve((30, 13), (32, 4), (42, -4)), mix(colour, _DARK, 0.3), 1.8)
    elif look.style == "curtains":
        pen.fill(_cap(look, np.concatenate([curve((9, 66), (14, 32), (34, 30), (56, 4)), curve((56, 4), (78, 30), (98, 32), (103, 66))])), colour)
    elif look.style == "curls":
        pen.fill(_cap(look, curve((12, 44), (30, 12), (82, 12), (100, 44))), colour)
        for x, y, r in ((14, 40, 9), (17, 24, 11), (31, 13, 12), (47, 8, 12), (65, 8, 12), (81, 13, 12), (95, 24, 11), (98, 40, 9), (24, 0, 12), (42, -7, 12), (62, -8, 13), (84, -1, 13)):
            pen.dot(x, y + 8, r, colour)
        for x, y in ((31, 18), (63, 12), (92, 30), (44, -2)):
            pen.stroke(oval(x, y, 6, 6, start=160, end=340), shine, 1.8)
    elif look.style == "spikes":
        top = [(10, 46), (2, 20), (15, 22), (10, -4), (28, 4), (32, -20), (48, -6), (60, -26), (68, -6), (86, -18), (88, 4), (104, -2), (99, 22), (112, 22), (102, 46)]
        pen.fill([*top, (92, 20), (82, 30), (72, 18), (60, 30), (48, 17), (36, 29), (26, 17), (18, 28)], colour)
    elif look.style == "afro":
        pen.fill(_cap(look, curve((10, 52), (16, 18), (56, 20), (96, 18), (102, 52))), colour)
    elif look.style == "bun":
        pen.fill(_cap(look, curve((10, 52), (14, 12), (56, 10), (98, 12), (102, 52))), colour)
    elif look.style == "mohawk":
        pen.fill(_cap(look, curve((12, 40), (24, 14), (56, 16), (88, 14), (100, 40))), mix(look.skin, colour, 0.35))
        pen.fill([(42, 30), (38, -14), (46, -8), (48, -28), (56, -14), (64, -28), (66, -8), (74, -14), (70, 30), (56, 24)], colour)
    elif look.style == "swoop":
        pen.fill(_cap(look, curve((11, 50), (18, 16), (56, 18), (94, 16), (101, 50))), colour)
        pen.fill(np.concatenate([curve((16, 24), (20, -26), (70, -34), (100, -8)), curve((100, -8), (98, 14), (56, 34), (16, 24))]), colour)
        pen.stroke(curve((28, 10), (38, -12), (70, -18), (88, -6)), shine, 3)
    elif look.style == "waves":
        lower = [(9, 66), (16, 44), (14, 30), (26, 26), (34, 12), (48, 22), (58, 10), (70, 24), (82, 16), (90, 30), (98, 34), (96, 46), (103, 66)]
        pen.fill(_cap(look, np.array(lower, np.float64)), colour)
        pen.stroke(curve((24, 4), (40, -8), (60, -2), (78, -6)), shine, 2.6)


def _cap(look: Look, lower: Points) -> Points:
    """The top of the head down to the line `lower`, which runs from left to right."""
    top = oval(56, 50, 46.5 * look.width, 55, start=0, end=-180)
    return np.concatenate([lower, top])


def _scarf(pen: Pen, look: Look) -> None:
    colour, dark = look.hat_colour, mix(look.hat_colour, _DARK, 0.2)
    ring = [oval(56, 58, 54, 68, start=0, end=360), oval(56, 66, 39.5, 53, start=0, end=-360)]
    pen.fill(np.concatenate(ring), colour)
    pen.stroke(oval(56, 66, 39.5, 53, start=200, end=340), dark, 2.4)
    pen.fill(np.concatenate([curve((20, 108), (56, 140), (92, 108)), curve((112, 170), (56, 190), (0, 170))]), colour)
    pen.stroke(curve((30, 124), (60, 146), (96, 138)), dark, 2)


def draw_hat(pen: Pen, look: Look) -> None:
    """What is worn on the head; nothing comes below y = 30."""
    colour, dark, light = look.hat_colour, mix(look.hat_colour, _DARK, 0.25), mix(look.hat_colour, _WHITE, 0.45)
    if look.hat == "beanie":
        pen.fill(oval(56, 22, 50, 50, start=180, end=360), colour)
        pen.fill([(3, 12), (109, 12), (110, 28), (2, 28)], light)
        pen.dot(56, -30, 9, light)
    elif look.hat == "cap":
        pen.fill(oval(56, 18, 48, 44, start=180, end=360), colour)
        pen.fill(np.concatenate([curve((6, 18), (56, 6), (106, 18)), curve((122, 30), (56, 18), (-10, 30))]), dark)
        pen.dot(56, -4, 9, light)
    elif look.hat == "straw":
        pen.fill(oval(56, 14, 84, 15), rgb("e2bd6e"))
        pen.fill(np.concatenate([curve((14, 10), (18, -36), (94, -36), (98, 10)), curve((98, 10), (56, 20), (14, 10))]), rgb("edcd86"))
        pen.fill(np.concatenate([curve((13.5, 0), (56, 8), (98.5, 0)), curve((98.5, 11), (56, 20), (13.5, 11))]), colour)
    elif look.hat == "beret":
        pen.fill(oval(66, 2, 60, 24, turned=10), colour)
        pen.fill(np.concatenate([curve((10, 22), (56, 8), (102, 22)), curve((102, 28), (56, 16), (10, 28))]), dark)
        pen.stroke([(70, -20), (72, -28)], dark, 3)
    elif look.hat == "sailor":
        pen.fill(oval(56, -4, 50, 20), _WHITE)
        pen.fill(np.concatenate([curve((10, 4), (56, -4), (102, 4)), curve((104, 26), (56, 14), (8, 26))]), _WHITE)
        pen.stroke(curve((9, 18), (56, 7), (103, 18)), rgb("2c4a6e"), 4)
    elif look.hat == "party":
        pen.fill([(28, 16), (84, 16), (60, -58)], colour)
        for x, y in ((44, 4), (66, 6), (56, -14), (60, -34)):
            pen.dot(x, y, 4, light)
        pen.dot(60, -58, 8, rgb("ffd23f"))
    elif look.hat == "crown":
        pen.fill([(14, 20), (8, -24), (30, -4), (56, -32), (82, -4), (104, -24), (98, 20)], rgb("f2b632"))
        pen.fill([(14, 20), (13, 10), (99, 10), (98, 20)], rgb("d9931e"))
        for x, y in ((8, -26), (56, -34), (104, -26)):
            pen.dot(x, y, 5, colour)
    elif look.hat == "headband":
        pen.fill(np.concatenate([curve((10, 30), (56, 6), (102, 30)), curve((100, 16), (56, -8), (12, 16))]), colour)
        for x in (30, 56, 82):
            pen.dot(x, 11 + abs(x - 56) * 0.12, 4, light)
    elif look.hat == "flowers":
        for place, x in enumerate((14, 31, 48, 65, 82, 98)):
            y = 13 - 14 * (1 - ((x - 56) / 46) ** 2)
            petal = (rgb("f4f1de"), rgb("f2b632"), rgb("e4572e"))[place % 3]
            for angle in np.radians(np.arange(0, 360, 72)):
                pen.dot(x + 6 * float(np.cos(angle)), y + 6 * float(np.sin(angle)), 5, petal)
            pen.dot(x, y, 4, rgb("c97b1a"))
