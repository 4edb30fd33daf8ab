from __future__ import annotations

import cv2
import numpy as np
import pytest

from app.core.types import Pixels
from app.images import ALIKE_DISTANCE, distance, phash_of


def _scene(seed: int, size: tuple[int, int] = (480, 640)) -> Pixels:
    """Smooth shapes, as in a photograph."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)


def _jpeg(pixels: Pixels, quality: int) -> Pixels:
    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)


@pytest.mark.parametrize("seed", range(6))
def test_near_identical_images_have_similar_hashes(seed: int) -> None:
    image = _scene(seed)
    for changed in (
        cv2.resize(image, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA),
        cv2.resize(image, None, fx=2.1, fy=2.1, interpolation=cv2.INTER_CUBIC),
        _jpeg(image, 30),
        cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR),
        cv2.convertScaleAbs(image, alpha=0.8, beta=20),
    ):
        assert distance(phash_of(image), phash_of(np.asarray(changed, np.uint8))) <= ALIKE_DISTANCE


def test_different_images_have_different_hashes() -> None:
    hashes = [phash_of(_scene(seed)) for seed in range(40)]
    distances = [distance(one, other) for at, one in enumerate(hashes) for other in hashes[:at]]
    assert min(distances) > ALIKE_DISTANCE


def test_a_hash_is_64_bits_and_the_same_every_time() -> None:
    assert len(phash_of(_scene(1))) == 16
    assert phash_of(_scene(1)) == phash_of(_scene(1))
    for shape in ((1, 1, 3), (1, 900, 3), (7, 5, 3)):
        assert len(phash_of(np.zeros(shape, np.uint8))) == 16


def test_the_distance_counts_bits() -> None:
    assert distance("0" * 16, "f" * 16) == 64
    assert distance("0" * 16, "0" * 15 + "3") == 2
