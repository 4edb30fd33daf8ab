"""Writes the demo gallery: folders of drawn photographs to ingest."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from app.core.types import Pixels
from app.demo import scenes
from app.demo.canvas import seeded
from app.demo.pack import write_whole
from app.demo.people import PEOPLE, person_name

GALLERY_VARIANTS: Final = 100
"""Portraits of the gallery are variants below this."""

_QUALITY: Final = 90


def write_demo_gallery(folder: Path, *, people: int = 24, portraits: int = 4, groups: int = 6) -> int:
    """Write `<name>/<name>-1.jpg` and so on, and `groups/group-1.jpg` and so on; the number of pictures.

    What is there already stays as it is. The same arguments give the same bytes.
    """
    if not 0 <= people <= PEOPLE:
        raise ValueError(f"people={people}: there are {PEOPLE}")
    if not 0 <= portraits <= GALLERY_VARIANTS:
        raise ValueError(f"portraits={portraits}: at most {GALLERY_VARIANTS}")
    for person in range(people):
        name = person_name(person)
        for variant in range(portraits):
            path = folder / name / f"{name}-{variant + 1}.jpg"
            if not path.exists():
                save_jpeg(path, scenes.portrait(person, variant, _SIZES[variant % len(_SIZES)]).pixels)
    for number in range(groups if people else 0):
        path = folder / "groups" / f"group-{number + 1}.jpg"
        if not path.exists():
            chance = seeded("gallery group", number, people)
            together = chance.sample(range(people), min(people, 3 + number % 4))
            save_jpeg(path, scenes.group(together, number, (1280, 720)).pixels)
    return people * portraits + (groups if people else 0)


_SIZES: Final = ((480, 480), (480, 600), (640, 480), (560, 560))


def save_jpeg(path: Path, pixels: Pixels) -> None:
    """Write beside, then rename; the same pixels give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1])).save(buffer, "JPEG", quality=_QUALITY)
    write_whole(path, buffer.getvalue())
