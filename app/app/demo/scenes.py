"""Images of drawn people: portraits and groups with a background and light."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from app.core.types import Pixels, Point
from app.demo import faces
from app.demo.canvas import Canvas, Placement, curve, mix, oval, rgb, seeded
from app.demo.people import look_of

_SKIES: Final = (
    ("cfe8ef", "f7ede2"), ("fde2c4", "f7b59a"), ("dfe7fd", "f0efeb"), ("e9edc9", "fefae0"), ("ffd9a0", "ffefd5"),
    ("d8e2dc", "ffe5d9"), ("bcd4e6", "e8f1f2"), ("f3d9e0", "faf0ee"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Drawing:
    """A drawn image.

    Attributes:
        pixels: BGR, uint8, (H, W, 3).
        landmarks: the five landmarks of each person in pixels.
    """

    pixels: Pixels
    landmarks: tuple[tuple[Point, ...], ...]


def portrait(person: int, variant: int, size: tuple[int, int]) -> Drawing:
    """Draw one person.

    Args:
        person: 0 to PEOPLE - 1.
        variant: changes pose, light, background, scale and position.
        size: (width, height) in pixels.
    """
    rng = seeded("portrait", person, variant)
    width, height = size
    side = min(width, height)
    scale = side / 112 * rng.uniform(0.4, 0.62)
    placement = Placement(
        centre=(width * rng.uniform(0.42, 0.58), height * 0.5 + side * rng.uniform(-0.02, 0.06)),
        scale=scale,
        roll=rng.uniform(-13, 13),
        turn=rng.uniform(-1, 1),
        smile=rng.random(),
    )
    canvas = Canvas(size, rgb("ffffff"))
    _background(canvas, rng)
    faces.draw_face(canvas, look_of(person), placement)
    return Drawing(_lit(canvas.finish(), rng), (faces.landmarks(placement),))


def group(people: Sequence[int], variant: int, size: tuple[int, int]) -> Drawing:
    """Draw several people side by side.

    Args:
        people: each 0 to PEOPLE - 1, from left to right.
        variant: changes poses, light, background, scales and positions.
        size: (width, height) in pixels.
    """
    rng = seeded("group", variant, *people)
    width, height = size
    spacing = width / max(len(people), 1)
    canvas = Canvas(size, rgb("ffffff"), supersampling=2 if width > 1000 else 3)
    _background(canvas, rng)
    scale = min(spacing / 150, height / 230)
    placements = [
        Placement(
            centre=(spacing * (index + 0.5 + rng.uniform(-0.05, 0.05)), height * rng.uniform(0.46, 0.6)),
            scale=scale * rng.uniform(0.85, 1.0),
            roll=rng.uniform(-10, 10),
            turn=rng.uniform(-1, 1),
            smile=rng.random(),
        )
        for index in range(len(people))
    ]
    for person, placement in sorted(zip(people, placements, strict=True), key=lambda pair: pair[1].centre[1]):
        faces.draw_face(canvas, look_of(person), placement)
    return Drawing(_lit(canvas.finish(), rng), tuple(faces.landmarks(placement) for placement in placements))


def _background(canvas: Canvas, rng: random.Random) -> None:
    top, bottom = (rgb(text) for text in rng.choice(_SKIES))
    canvas.fade(top, bottom)
    rng.choice((_sun, _hills, _sea, _dots, _town, _room))(canvas, rng)


def _sun(canvas: Canvas, rng: random.Random) -> None:
    x, y = canvas.width * rng.uniform(0.2, 0.8), canvas.height * rng.uniform(0.25, 0.6)
    radius = min(canvas.width, canvas.height) * rng.uniform(0.3, 0.5)
    canvas.fill(oval(x, y, radius * 1.25, radius * 1.25), rgb("fff3c4"), 0.5)
    canvas.fill(oval(x, y, radius, radius), rgb("ffd97d"), 0.8)


def _hills(canvas: Canvas, rng: random.Random) -> None:
    width, height = canvas.width, canvas.height
    for row, colour in enumerate(("b7d3b0", "8fb98b", "6a9a72")):
        y = height * (0.55 + 0.14 * row)
        bumps = [(width * step / 4, y - height * rng.uniform(0.0, 0.2)) for step in range(5)]
        ridge = curve((0, y), *bumps, (width, y))
        canvas.fill(np.concatenate([ridge, [(width, height), (0, height)]]), rgb(colour))


def _sea(canvas: Canvas, rng: random.Random) -> None:
    width, height = canvas.width, canvas.height
    canvas.fill(oval(width * rng.uniform(0.15, 0.85), height * 0.3, height * 0.13, height * 0.13), rgb("ffd166"))
    for row, colour in enumerate(("9cc5d3", "7fb2c6", "5f9cb5", "4a86a3")):
        y = height * (0.5 + 0.13 * row)
        across = np.linspace(0, width, 80)
        wave = y + height * 0.018 * np.sin(across / width * 6.283 * (3 + row) + rng.uniform(0, 6.283))
        canvas.fill(np.concatenate([np.stack([across, wave], 1), [(width, height), (0, height)]]), rgb(colour))


def _dots(canvas: Canvas, rng: random.Random) -> None:
    colour = rgb(rng.choice(("ffffff", "f6bd60", "84a59d", "f28482", "b5c99a")))
    step = max(24.0, canvas.height / 7)
    for row in range(int(canvas.height / step) + 2):
        for column in range(int(canvas.width / step) + 2):
            x, y = (column + (row % 2) / 2) * step, row * step
            canvas.fill(oval(x, y, step * 0.16, step * 0.16), colour, 0.6)


def _town(canvas: Canvas, rng: random.Random) -> None:
    width, height = canvas.width, canvas.height
    x = 0.0
    while x < width:
        wide, tall = height * rng.uniform(0.12, 0.22), height * rng.uniform(0.35, 0.75)
        wall = rgb(rng.choice(("d9b8a3", "c8a98f", "e3cbb0", "b8a89a", "cfa08c")))
        canvas.fill(np.array([(x, height), (x, height - tall), (x + wide, height - tall), (x + wide, height)]), wall)
        for row in range(int(tall / (height * 0.09))):
            for column in (0.2, 0.6):
                left, upper = x + wide * column, height - tall + height * (0.03 + 0.09 * row)
                pane = [(left, upper), (left + wide * 0.2, upper), (left + wide * 0.2, upper + height * 0.05)]
                canvas.fill(np.array([*pane, (left, upper + height * 0.05)]), rgb("fbeec1"))
        x += wide


def _room(canvas: Canvas, rng: random.Random) -> None:
    width, height = canvas.width, canvas.height
    wall = rgb(rng.choice(("e8d5c4", "d5e0d0", "f0dfc0", "ddd5e0", "cfdbe2")))
    canvas.fill(np.array([(0, 0), (width, 0), (width, height), (0, height)]), wall)
    stripes = max(6, int(width / height * 9))
    for stripe in range(stripes):
        left = width * stripe / stripes
        edge = np.array(
            [(left, 0), (left + width / stripes / 2, 0), (left + width / stripes / 2, height), (left, height)]
        )
        canvas.fill(edge, mix(wall, rgb("ffffff"), 0.35))
    x, y, side = width * rng.uniform(0.08, 0.7), height * 0.1, height * 0.26
    frame = np.array([(x, y), (x + side * 0.8, y), (x + side * 0.8, y + side), (x, y + side)])
    canvas.fill(frame, rgb("8a6a4f"))
    canvas.fill(frame + (np.array([x + side * 0.4, y + side * 0.5]) - frame) * 0.16, rgb("f7f1e1"))


def _lit(pixels: Pixels, rng: random.Random) -> Pixels:
    """Change brightness and colour temperature, and light the image from one side."""
    height, width = pixels.shape[:2]
    gain, warmth = rng.uniform(0.85, 1.03), rng.uniform(-0.05, 0.05)
    tint = np.array([1 - warmth, 1.0, 1 + warmth], np.float32)
    across, down = rng.uniform(-0.08, 0.08), rng.uniform(-0.08, 0.08)
    light = (
        1
        + across * np.linspace(-1, 1, width, dtype=np.float32)[None, :]
        + down * np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    )
    lit = pixels * (np.float32(gain) * light)[:, :, None] * tint
    return np.asarray(np.clip(np.rint(lit), 0, 255), np.uint8)
