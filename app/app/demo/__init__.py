"""Demo data: drawn people with a small model pack that recognises them, and sample images for real models.

The demo works where no real model is available. Its pack is built without training and runs through the same code as
antelopev2, but finds only these drawn faces.
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
    """Draw a portrait of one person.

    Args:
        person: 0 to PEOPLE - 1.
        variant: changes pose, light and background. The gallery uses variants below 100; an image with 100 or above is
            not in it.
        size: (width, height) in pixels.

    Returns:
        The image, BGR, uint8, (height, width, 3).
    """
    return scenes.portrait(person, variant, size).pixels


def draw_group(people: Sequence[int], variant: int = 0, size: tuple[int, int] = (1280, 720)) -> Pixels:
    """Draw several people.

    Args:
        people: each 0 to PEOPLE - 1, from left to right.
        variant: changes poses, light and background.
        size: (width, height) in pixels.

    Returns:
        The image, BGR, uint8, (height, width, 3).
    """
    return scenes.group(people, variant, size).pixels
