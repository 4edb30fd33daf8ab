"""Pictures to try Oceano with, and a demo for where no real model can be had.

The demo is drawn people, and a small model pack, built by hand, that finds them and tells them apart: everything runs
through the same code as with antelopev2, but only these drawn faces are found. For real models there are samples.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.core.types import Pixels
from app.demo import scenes
from app.demo.gallery import write_demo_gallery
from app.demo.pack import PACK_VERSION, write_demo_pack
from app.demo.people import PEOPLE, person_name
from app.demo.samples import SAMPLES_VERSION, write_samples

__all__ = [
    "PACK_VERSION",
    "PEOPLE",
    "SAMPLES_VERSION",
    "draw_group",
    "draw_portrait",
    "person_name",
    "write_demo_gallery",
    "write_demo_pack",
    "write_samples",
]


def draw_portrait(person: int, variant: int, size: tuple[int, int] = (480, 480)) -> Pixels:
    """A picture, (width, height) pixels, of person 0 to PEOPLE - 1; `variant` changes pose, light and background.

    The gallery holds variants 0 to 99: take 100 and above for a picture that is not in it.
    """
    return scenes.portrait(person, variant, size).pixels


def draw_group(people: Sequence[int], variant: int = 0, size: tuple[int, int] = (1280, 720)) -> Pixels:
    """A picture of several people, left to right in that order."""
    return scenes.group(people, variant, size).pixels
