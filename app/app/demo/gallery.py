"""The demo gallery: folders of drawn images to ingest."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from app.core.files import write_atomic
from app.core.types import Pixels
from app.demo import scenes
from app.demo.canvas import seeded
from app.demo.people import PEOPLE, person_name

GALLERY_VARIANTS: Final = 100
"""The portraits of the gallery use variants below this number."""

_QUALITY: Final = 90


def write_demo_gallery(folder: Path, *, people: int = 24, portraits: int = 4, groups: int = 6) -> int:
    """Write portraits to `<name>/<name>-1.jpg` and groups to `groups/group-1.jpg`, and so on.

    Existing files are kept. The same arguments give the same bytes.

    Args:
        folder: the gallery's folder.
        people: number of people, at most PEOPLE.
        portraits: number of portraits per person, at most GALLERY_VARIANTS.
        groups: number of group images; none are drawn without people.

    Returns:
        The number of images in the gallery.

    Raises:
        ValueError: if `people` or `portraits` is out of range.
    """
    if not 0 <= people <= PEOPLE:
        raise ValueError(f"people={people}: must be 0 to {PEOPLE}")
    if not 0 <= portraits <= GALLERY_VARIANTS:
        raise ValueError(f"portraits={portraits}: must be 0 to {GALLERY_VARIANTS}")
    for person in range(people):
        name = person_name(person)
        for variant in range(portraits):
            path = folder / name / f"{name}-{variant + 1}.jpg"
            if not path.exists():
                save_jpeg(path, scenes.portrait(person, variant, _SIZES[variant % len(_SIZES)]).pixels)
    for number in range(groups if people else 0):
        path = folder / "groups" / f"group-{number + 1}.jpg"
        if not path.exists():
            rng = seeded("gallery group", number, people)
            members = rng.sample(range(people), min(people, 3 + number % 4))
            save_jpeg(path, scenes.group(members, number, (1280, 720)).pixels)
    return people * portraits + (groups if people else 0)


_SIZES: Final = ((480, 480), (480, 600), (640, 480), (560, 560))


def save_jpeg(path: Path, pixels: Pixels) -> None:
    """Write a JPEG file atomically, and create its folder; the same pixels give the same bytes.

    Args:
        path: the file.
        pixels: the image, BGR, uint8, (H, W, 3).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1])).save(buffer, "JPEG", quality=_QUALITY)
    write_atomic(path, buffer.getvalue(), durable=False)
