"""found: which landmarks can be a face's; one face for the detections of several views."""

from __future__ import annotations

import numpy as np
import pytest

from app.core.types import BBox, Floats
from app.engine.found import Found, consistent, merged
from app.engine.frames import NO_DETECTIONS, Detections

UPRIGHT = np.array([[35, 40], [65, 40], [50, 60], [38, 75], [62, 75]], np.float32)
BOX = np.array([[10, 5, 90, 95]], np.float32)


def _consistent(kps: Floats) -> bool:
    return bool(consistent(Detections(BOX, kps[None], np.ones(1, np.float32)))[0])


def _found(bbox: BBox, score: float) -> Found:
    return Found(bbox, UPRIGHT, score, "direct")


def test_an_upright_face_a_tilted_one_and_a_profile_are_consistent() -> None:
    assert _consistent(UPRIGHT)
    angle = np.deg2rad(40)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    assert _consistent((UPRIGHT - 50) @ turn.T + 50)
    assert _consistent(np.array([[30, 40], [33, 40], [15, 60], [28, 75], [30, 75]], np.float32))


@pytest.mark.parametrize(
    "kps",
    [
        UPRIGHT * (1, -1) + (0, 100),  # the mouth above the eyes
        UPRIGHT * (-1, 1) + (100, 0),  # left and right exchanged
        UPRIGHT + 60,  # outside the box
        UPRIGHT * 0.05 + 50,  # almost one point
    ],
)
def test_landmarks_that_contradict_each_other_are_no_face(kps: Floats) -> None:
    assert not _consistent(np.asarray(kps, np.float32))


def test_nothing_is_consistent_in_nothing() -> None:
    assert consistent(NO_DETECTIONS).shape == (0,)


def test_of_one_face_in_two_views_the_better_detection_stays() -> None:
    weak, strong = _found((0, 0, 100, 100), 0.6), _found((10, 5, 105, 100), 0.9)
    assert merged([weak], [strong]) == [strong]
    assert merged([strong], [weak]) == [strong]
    assert merged([weak], [strong], gain=0.4) == [weak]


def test_a_part_of_a_face_is_not_a_second_face_but_one_behind_its_corner_is() -> None:
    face, nostril, behind = _found((0, 0, 200, 200), 0.9), _found((80, 90, 120, 130), 0.8), _found((0, 0, 20, 20), 0.7)
    assert merged([face], [nostril, behind]) == [face, behind]


def test_a_view_that_shows_a_face_twice_adds_it_once_and_nothing_below_the_least_score() -> None:
    one, again, other = _found((0, 0, 50, 50), 0.9), _found((2, 2, 52, 52), 0.8), _found((200, 0, 250, 50), 0.6)
    assert merged([], [again, other, one], least=0.7) == [one]
