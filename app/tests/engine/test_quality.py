"""quality: a score, and what stands in the way."""

from __future__ import annotations

import cv2
import numpy as np

from app.core.types import Flaw, Floats, Pixels
from app.demo import draw_portrait
from app.engine.alignment import align
from app.engine.quality import rate
from tests.support.fakes import picture_of

BOX = (0.0, 0.0, 120.0, 150.0)
FRONTAL = np.array([[38.3, 51.7], [73.5, 51.5], [56, 71.7], [41.5, 92.4], [70.7, 92.2]], np.float32)


def _sharp() -> Pixels:
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 255, (28, 28, 3), dtype=np.uint8)
    return cv2.resize(noise, (112, 112), interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def _flaws(
    crop: Pixels | None = None, box: tuple[float, ...] = BOX, kps: Floats = FRONTAL, score: float = 0.9
) -> tuple[float, tuple[Flaw, ...]]:
    x1, y1, x2, y2 = box
    return rate(_sharp() if crop is None else crop, (x1, y1, x2, y2), kps, score)


def test_a_good_face_has_no_flaws_and_its_detection_score() -> None:
    assert _flaws() == (0.9, ())


def test_a_small_face_says_so() -> None:
    quality, flaws = _flaws(box=(0, 0, 30, 45))
    assert flaws == ("face_too_small",)
    assert quality < 0.3


def test_a_blurred_face_says_so() -> None:
    quality, flaws = _flaws(crop=cv2.GaussianBlur(_sharp(), (0, 0), 6).astype(np.uint8))
    assert flaws == ("blurred",)
    assert quality < 0.5


def test_noise_on_a_blurred_face_does_not_make_it_sharp() -> None:
    noise = np.random.default_rng(2).normal(0, 6, (112, 112, 3))
    crop = np.clip(cv2.GaussianBlur(_sharp(), (0, 0), 6) + noise, 0, 255).astype(np.uint8)
    assert _flaws(crop=crop)[1] == ("blurred",)


def test_a_face_from_the_side_says_so() -> None:
    profile = np.array([[50, 52], [60, 52], [38, 72], [48, 92], [57, 92]], np.float32)
    assert _flaws(kps=profile)[1] == ("extreme_pose",)


def test_a_face_that_looks_up_says_so() -> None:
    up = FRONTAL.copy()
    up[2, 1] = 53
    assert _flaws(kps=up)[1] == ("extreme_pose",)


def test_a_head_on_its_side_is_no_extreme_pose() -> None:
    turned = np.stack([112 - FRONTAL[:, 1], FRONTAL[:, 0]], axis=1)
    assert _flaws(kps=turned)[1] == ()


def test_a_low_score_says_so() -> None:
    assert _flaws(score=0.55)[1] == ("low_detection_score",)


def test_landmarks_in_one_point_are_no_pose() -> None:
    quality, flaws = _flaws(kps=np.full((5, 2), 30, np.float32))
    assert "extreme_pose" in flaws
    assert 0 <= quality <= 1


def test_a_drawn_portrait_is_sharp() -> None:
    crop = align(picture_of(draw_portrait(1, 0)), FRONTAL * 3)
    assert 0 < rate(crop, BOX, FRONTAL, 0.9)[0] <= 0.9
