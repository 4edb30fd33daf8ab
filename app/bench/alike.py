"""How far apart the perceptual hashes of copies of a photograph are, and those of different photographs.

    REAL_FACES_DIR=... .venv/bin/python app/bench/alike.py

Each photograph of at least 150 pixels is copied as an editor or a messenger would: smaller, compressed, brighter, with
more contrast, in grey, sharpened, with a border cut off. Next frames of a burst are made of each, too: the camera is
moved, turned or zoomed, or what is in the middle moves, and each frame has noise of its own. The last line is one JSON
object: for each kind of copy and of frame the distances of nine of ten, and how many are within `ALIKE_DISTANCE`; the
same for pairs of different photographs, for those of one folder (such as of one person), and how many are within each
distance; milliseconds of a hash of 24 megapixels.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from app.core.types import Pixels
from app.images import ALIKE_DISTANCE, distance, phash_of
from bench.pictures import folder_of, read_picture

REPEATS = 15


def main() -> None:
    paths = sorted(folder_of("REAL_FACES_DIR").glob("*/**/*.*"))
    read = {
        path: pixels for path in paths if path.suffix != ".md" and min((pixels := read_picture(path)).shape[:2]) >= 150
    }
    photographs = [*read.values()]
    hashes = [phash_of(pixels) for pixels in photographs]
    copies = {
        name: sorted(distance(own, phash_of(copy(pixels))) for own, pixels in zip(hashes, photographs, strict=True))
        for name, copy in COPIES.items()
    }
    frames = {name: sorted(_apart(pixels, frame) for pixels in photographs) for name, frame in FRAMES.items()}
    others = sorted(distance(one, other) for one, other in combinations(hashes, 2))
    folders = [path.parent for path in read]
    same_folder = sorted(
        distance(one, other)
        for (one, folder), (other, its_folder) in combinations(zip(hashes, folders, strict=True), 2)
        if folder == its_folder
    )
    large = cv2.resize(photographs[0], (6000, 4000)).astype(np.uint8, copy=False)
    said = {
        "alike_distance": ALIKE_DISTANCE,
        "photographs": len(photographs),
        "copies": {
            name: {"nine_of_ten": found[len(found) * 9 // 10], "alike": _share(found)} for name, found in copies.items()
        },
        "frames": {name: _counted(found) for name, found in frames.items()},
        "different": {"pairs": len(others), "alike": _share(others), "nearest": others[:10]},
        "same_folder": {"pairs": len(same_folder), **_counted(same_folder), "nearest": same_folder[:10]},
        "within": {f"{most}": sum(one <= most for one in others) for most in range(2, 17, 2)},
        "ms": round(statistics.median(_milliseconds(large) for _ in range(REPEATS)), 1),
    }
    print(json.dumps(said))


def _share(distances: list[int]) -> float:
    return round(sum(one <= ALIKE_DISTANCE for one in distances) / len(distances), 4)


def _counted(distances: list[int]) -> dict[str, int | float]:
    """How many are called alike, and the lowest, middle and highest of the middle eight of ten."""
    low, middle, high = (distances[len(distances) * tenths // 10] for tenths in (1, 5, 9))
    alike = sum(one <= ALIKE_DISTANCE for one in distances)
    return {"one_of_ten": low, "median": middle, "nine_of_ten": high, "alike": alike, "share": _share(distances)}


def _apart(pixels: Pixels, frame: Callable[[Pixels], Pixels]) -> int:
    return distance(phash_of(_noisy(_framed(pixels), 1)), phash_of(_noisy(frame(pixels), 2)))


def _milliseconds(pixels: Pixels) -> float:
    start = time.perf_counter()
    phash_of(pixels)
    return (time.perf_counter() - start) * 1000


def _scaled(pixels: Pixels, share: float) -> Pixels:
    small = cv2.resize(pixels, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def _compressed(pixels: Pixels, quality: int) -> Pixels:
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def _toned(pixels: Pixels, contrast: float, brightness: float) -> Pixels:
    return (pixels.astype(np.float32) * contrast + brightness).clip(0, 255).astype(np.uint8)


def _grey(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), np.uint8)


def _sharpened(pixels: Pixels) -> Pixels:
    blurred = cv2.GaussianBlur(pixels, (0, 0), 2)
    return np.asarray(cv2.addWeighted(pixels, 1.8, blurred, -0.8, 0), np.uint8)


def _cut(pixels: Pixels, share: float) -> Pixels:
    height, width = (int(side * share) for side in pixels.shape[:2])
    return pixels[height : pixels.shape[0] - height, width : pixels.shape[1] - width]


def _framed(
    pixels: Pixels, *, right: float = 0.0, down: float = 0.0, zoom: float = 1.0, degrees: float = 0.0
) -> Pixels:
    """What a camera sees that shows the middle 80 % of a photograph: moved by shares of its frame, zoomed or turned."""
    height, width = pixels.shape[:2]
    size = (round(width * FRAME), round(height * FRAME))
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, zoom)
    matrix[:, 2] += (size[0] * (0.5 - right) - width / 2, size[1] * (0.5 - down) - height / 2)
    frame = cv2.warpAffine(pixels, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(frame, np.uint8)


def _subject_moved(pixels: Pixels, share: float) -> Pixels:
    """The frame, in which an ellipse of half its width and height has moved to the right by a share of its width."""
    frame, moved = _framed(pixels), _framed(pixels, right=-share)
    height, width = frame.shape[:2]
    mask = np.zeros((height, width), np.float32)
    cv2.ellipse(mask, (round(width * (0.5 + share)), height // 2), (width // 4, height // 4), 0, 0, 360, 1.0, -1)
    weight = cv2.GaussianBlur(mask, (0, 0), width / 60)[..., None]
    return (frame * (1 - weight) + moved * weight).astype(np.uint8)


def _noisy(pixels: Pixels, seed: int) -> Pixels:
    noise = np.random.default_rng(seed).normal(0, 4, pixels.shape)
    return (pixels + noise).clip(0, 255).astype(np.uint8)


FRAME = 0.8  # of the photograph, so that a camera that moves sees more of it
FRAMES: dict[str, Callable[[Pixels], Pixels]] = {
    "nothing moved": _framed,
    "moved 1 %": lambda pixels: _framed(pixels, right=0.01, down=0.005),
    "moved 2 %": lambda pixels: _framed(pixels, right=0.02, down=0.01),
    "moved 5 %": lambda pixels: _framed(pixels, right=0.05, down=0.025),
    "turned 1 degree": lambda pixels: _framed(pixels, degrees=1),
    "turned 2 degrees": lambda pixels: _framed(pixels, degrees=2),
    "turned 4 degrees": lambda pixels: _framed(pixels, degrees=4),
    "turned 6 degrees": lambda pixels: _framed(pixels, degrees=6),
    "zoomed 2 %": lambda pixels: _framed(pixels, zoom=1.02),
    "zoomed 5 %": lambda pixels: _framed(pixels, zoom=1.05),
    "the middle moved 3 %": lambda pixels: _subject_moved(pixels, 0.03),
    "the middle moved 6 %": lambda pixels: _subject_moved(pixels, 0.06),
}
COPIES: dict[str, Callable[[Pixels], Pixels]] = {
    "half size": lambda pixels: _scaled(pixels, 0.5),
    "quarter size": lambda pixels: _scaled(pixels, 0.25),
    "JPEG 75": lambda pixels: _compressed(pixels, 75),
    "JPEG 30": lambda pixels: _compressed(pixels, 30),
    "half size, JPEG 50": lambda pixels: _compressed(_scaled(pixels, 0.5), 50),
    "brighter": lambda pixels: _toned(pixels, 1.0, 30),
    "more contrast": lambda pixels: _toned(pixels, 1.3, -30),
    "grey": _grey,
    "sharpened": _sharpened,
    "1 % cut off each side": lambda pixels: _cut(pixels, 0.01),
    "3 % cut off each side": lambda pixels: _cut(pixels, 0.03),
    "8 % cut off each side": lambda pixels: _cut(pixels, 0.08),
    "mirrored": lambda pixels: pixels[:, ::-1],
}


if __name__ == "__main__":
    main()
