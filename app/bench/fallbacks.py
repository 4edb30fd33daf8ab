"""What each fallback finds and costs (setting FALLBACKS).

    REAL_PACK_DIR=... REAL_FACES_DIR=... .venv/bin/python app/bench/fallbacks.py

The pictures: `hard` (the folder of that name), `crops` (faces that fill the frame), and groups made difficult: `tiny`
(on a canvas of 4000 pixels), `turned` (on their sides and heads), `dark` (a fiftieth of the light). With no fallback,
then with one more at a time: in how many pictures of each set a face is found, and the milliseconds of a picture of 1.9
megapixels without a face, which needs them all. The last line is one JSON object.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from app.core.config import load_settings
from app.core.types import Picture, Pixels
from app.embeddings import FaceEngine
from app.engine.fallbacks import FALLBACKS
from app.images.decoding import decode
from app.packs.store import find_pack
from bench.pictures import folder_of, read_picture

REPEATS = 5


def main() -> None:
    sets = _sets(folder_of("REAL_FACES_DIR"))
    empty = _picture(np.random.default_rng(1).integers(100, 140, (1200, 1600, 3), dtype=np.uint8))
    with tempfile.TemporaryDirectory() as folder:
        pack = find_pack(str(folder_of("REAL_PACK_DIR")), Path(folder))
        engines = {
            ",".join(FALLBACKS[:most]) or "none": FaceEngine(
                pack, load_settings(None, device="cpu", fallbacks=FALLBACKS[:most])
            )
            for most in range(len(FALLBACKS) + 1)
        }
    table: dict[str, dict[str, float]] = {
        fallbacks: {name: _found(engine, pictures) for name, pictures in sets.items()}
        for fallbacks, engine in engines.items()
    }
    took: dict[str, list[float]] = {fallbacks: [] for fallbacks in engines}
    for _ in range(REPEATS):
        for fallbacks, engine in engines.items():
            start = time.perf_counter()
            engine.analyze([empty])
            took[fallbacks].append((time.perf_counter() - start) * 1000)
    for fallbacks, milliseconds in took.items():
        table[fallbacks]["ms_without_a_face"] = round(statistics.median(milliseconds), 1)
    print(json.dumps({"of": {name: len(pictures) for name, pictures in sets.items()}, "found": table}))


def _sets(faces: Path) -> dict[str, list[Picture]]:
    groups = [read_picture(path) for path in sorted(faces.glob("groups/*"))]
    crops = [decode(path.read_bytes(), max_pixels=10**8) for path in sorted(faces.glob("people/*/*"))]
    hard = [decode(path.read_bytes(), max_pixels=10**8) for path in sorted(faces.glob("hard/*"))]
    turns = (cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE)
    return {
        "hard": hard,
        "crops": crops,
        "tiny": [_tiny(group) for group in groups],
        "turned": [
            _picture(cv2.rotate(group, turn).astype(np.uint8, copy=False)) for group in groups for turn in turns
        ],
        "dark": [_picture((group * 0.02 + 0.5).astype(np.uint8)) for group in groups],
    }


def _tiny(group: Pixels) -> Picture:
    """The group's longer side an eighth of the canvas'."""
    scale = 500 / max(group.shape[:2])
    small = cv2.resize(group, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas = np.full((3000, 4000, 3), 120, np.uint8)
    canvas[1100 : 1100 + small.shape[0], 1500 : 1500 + small.shape[1]] = small
    return _picture(canvas)


def _picture(pixels: Pixels) -> Picture:
    height, width = pixels.shape[:2]
    return Picture("0" * 64, pixels, "PNG", None, width, height)


def _found(engine: FaceEngine, pictures: Sequence[Picture]) -> int:
    return sum(bool(engine.analyze([picture])[0]) for picture in pictures)


if __name__ == "__main__":
    main()
