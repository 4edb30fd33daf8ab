"""alignment: crops as ArcFace was trained on them."""

from __future__ import annotations

import numpy as np
import pytest
from insightface.utils import face_align

from app.core.types import Picture, Pixels
from app.engine.alignment import CROP_SIDE, align, aligned_kps
from tests.support.fakes import picture_of

TEMPLATE = np.array([[120, 130], [180, 128], [152, 160], [128, 195], [176, 197]], np.float32)


def _noise() -> Pixels:
    return np.random.default_rng(7).integers(0, 255, (300, 300, 3), dtype=np.uint8)


def test_it_is_that_of_insightface() -> None:
    rng = np.random.default_rng(7)
    picture = _noise()
    for turn in (1, 1j, -1, -1j):
        points = TEMPLATE + rng.normal(0, 6, (5, 2)).astype(np.float32)
        z = ((points[:, 0] + 1j * points[:, 1]) - (150 + 150j)) * turn + (150 + 150j)
        kps = np.stack([z.real, z.imag], axis=1).astype(np.float32)
        with pytest.warns(FutureWarning):
            theirs = face_align.norm_crop(picture, kps)
        assert np.abs(align(picture_of(picture), kps).astype(int) - theirs.astype(int)).mean() < 0.5


def test_landmarks_come_to_lie_where_the_template_has_them() -> None:
    kps = aligned_kps(TEMPLATE)
    assert np.abs(kps - np.array([38.3 + 51.7j, 73.5 + 51.5j, 56 + 71.7j, 41.5 + 92.4j, 70.7 + 92.2j])).max() < 4


def test_landmarks_in_one_point_give_some_crop() -> None:
    assert align(picture_of(_noise()), np.full((5, 2), 20, np.float32)).shape == (CROP_SIDE, CROP_SIDE, 3)


def test_a_reduced_picture_is_decoded_in_full_only_where_the_crop_would_be_an_enlargement() -> None:
    whole, asked = _noise(), []

    def full() -> Pixels:
        asked.append(1)
        return whole

    half = np.ascontiguousarray(whole[::2, ::2])
    picture = Picture("a" * 64, half, "JPEG", None, 300, 300, 0.5, full)
    align(picture, TEMPLATE * 2.5)
    assert not asked
    crop = align(picture, TEMPLATE)
    assert asked
    assert np.array_equal(crop, align(picture_of(whole), TEMPLATE))
