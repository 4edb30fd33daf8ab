"""Faces that tiles and rotations find, and what they cost (setting TILES).

    REAL_PACK_DIR=... REAL_FACES_DIR=... .venv/bin/python app/bench/views.py

The pictures: `group` (40 people on 24 megapixels, and the same with a large face in front), `album` (a scanned page
with four photographs at 0, 90, 180 and 270 degrees), `panorama` (groups of 300 and 600 pixels on 12,000), `ordinary`
(1.9 megapixels, one to six faces). With TILES=off and TILES=auto: the faces found in each set, and the milliseconds of
a picture from file to faces; alternating, medians. The last line is one JSON object.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from app.core.config import load_settings
from app.core.types import Pixels
from app.embeddings import FaceEngine
from app.images.decoding import decode
from app.packs.store import find_pack
from bench.pictures import folder_of, read_picture, write_pictures

REPEATS = 5
ORDINARY = 48
POLICIES = ("off", "auto")
PERSON = "hard/rot_0.jpg"
OTHER = "hard/left_wryneck.png"
IN_GROUPS = (4, 3, 5, 6, 5)
TURNS = (None, cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)


def main() -> None:
    faces = folder_of("REAL_FACES_DIR")
    with tempfile.TemporaryDirectory() as folder:
        pack = find_pack(str(folder_of("REAL_PACK_DIR")), Path(folder))
        settings = {tiles: load_settings(None, device="cpu", tiles=tiles) for tiles in POLICIES}
        engines = {tiles: FaceEngine(pack, one, many=True) for tiles, one in settings.items()}
        sets, people = _sets(faces, Path(folder))
        found = {
            tiles: {name: sum(_analyze(engine, path)[0] for path in paths) for name, paths in sets.items()}
            for tiles, engine in engines.items()
        }
        milliseconds: dict[str, dict[str, float]] = {tiles: {} for tiles in POLICIES}
        for name, paths in sets.items():
            took: dict[str, list[float]] = {tiles: [] for tiles in POLICIES}
            for turn in range(REPEATS):
                for path in paths:
                    for tiles in POLICIES[:: 1 if turn % 2 else -1]:
                        took[tiles].append(_analyze(engines[tiles], path)[1])
            for tiles in POLICIES:
                milliseconds[tiles][name] = round(statistics.mean(_medians(took[tiles], len(paths))), 1)
    print(json.dumps({"pack": pack.name, "people": people, "found": found, "ms_per_picture": milliseconds}))


def _medians(took: list[float], pictures: int) -> list[float]:
    """The median of each picture's times."""
    return [statistics.median(took[index::pictures]) for index in range(pictures)]


def _analyze(engine: FaceEngine, path: Path) -> tuple[int, float]:
    """The number of faces and the milliseconds, as an ingest decodes and analyzes a file."""
    data = path.read_bytes()
    start = time.perf_counter()
    picture = decode(data, max_pixels=10**8, min_decoded_side=1280)
    return len(engine.analyze([picture])[0]), (time.perf_counter() - start) * 1000


def _sets(faces: Path, folder: Path) -> tuple[dict[str, list[Path]], dict[str, int | None]]:
    """The files of each set, and how many people they show, if known."""
    one, other = read_picture(faces / PERSON), read_picture(faces / OTHER)
    groups = [read_picture(path) for path in sorted(faces.glob("groups/*"))]
    panoramas = [_panorama(groups, height) for height in (300, 600)]
    made: dict[str, list[Pixels]] = {
        "group": [_group(one, other, in_front=False), _group(one, other, in_front=True)],
        "album": [_album(one, other)],
        "panorama": [pixels for pixels, _ in panoramas],
    }
    sets: dict[str, list[Path]] = {}
    for name, pictures in made.items():
        sets[name] = [folder / f"{name}_{index}.jpg" for index in range(len(pictures))]
        for path, pixels in zip(sets[name], pictures, strict=True):
            cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, 85])
    (folder / "ordinary").mkdir()
    sets["ordinary"] = write_pictures(folder / "ordinary", faces, ORDINARY)
    return sets, {"group": 81, "album": 4, "panorama": sum(people for _, people in panoramas), "ordinary": None}


def _group(one: Pixels, other: Pixels, *, in_front: bool) -> Pixels:
    """Forty people on 6000 x 4000 pixels."""
    canvas = _canvas(6000, 4000)
    for index in range(40):
        _paste(canvas, _wide(other if index % 2 else one, 350), 300 + index % 10 * 550, 150 + index // 10 * 480)
    if in_front:
        _paste(canvas, _wide(one, 1080), 200, 2300)
    return canvas


def _album(one: Pixels, other: Pixels) -> Pixels:
    """Four photographs on 1240 x 1754 pixels."""
    canvas = np.full((1754, 1240, 3), (210, 228, 235), np.uint8)
    places = ((60, 60), (620, 100), (100, 950), (620, 1000))
    for photograph, turn, (x, y) in zip((one, other, one, other), TURNS, places, strict=True):
        small = _wide(photograph, 400)
        _paste(canvas, small if turn is None else cv2.rotate(small, turn).astype(np.uint8, copy=False), x, y)
    return canvas


def _panorama(groups: list[Pixels], height: int) -> tuple[Pixels, int]:
    """Groups of a height in pixels in a row on 12,000 x (5 x height), and how many people they are."""
    canvas, people, x = _canvas(12_000, 5 * height), 0, 100
    for index in range(100):
        group = groups[index % len(groups)]
        small = _wide(group, group.shape[1] * height // group.shape[0])
        if x + small.shape[1] > canvas.shape[1]:
            break
        _paste(canvas, small, x, (1 + index % 3) * height)
        x, people = x + small.shape[1] + 80, people + IN_GROUPS[index % len(groups)]
    return canvas, people


def _canvas(width: int, height: int) -> Pixels:
    noise = np.random.default_rng(2).integers(60, 200, (height // 40, width // 40, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)


def _wide(pixels: Pixels, width: int) -> Pixels:
    height = pixels.shape[0] * width // pixels.shape[1]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _paste(canvas: Pixels, pixels: Pixels, x: int, y: int) -> None:
    part = canvas[y : y + pixels.shape[0], x : x + pixels.shape[1]]
    part[:] = pixels[: part.shape[0], : part.shape[1]]


if __name__ == "__main__":
    main()
