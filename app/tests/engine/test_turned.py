"""Turned faces beside upright ones, with a network that scores a face by the rotation in which it sees it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.core.config import Settings
from app.core.onnx_graph import Graph
from app.core.types import Pixels
from app.engine.detector import FaceDetector
from app.engine.found import Found
from app.engine.frames import NO_DETECTIONS, Detections, Frame
from tests.support.fakes import picture_of

# A face is a square in four colours, clockwise from the top left corner.
COLOURS = np.array([[[250, 0, 0], [0, 250, 0]], [[250, 250, 0], [0, 0, 250]]], np.uint8)
ORDER = (0, 1, 3, 2)  # of the corners of COLOURS, clockwise
LANDMARKS = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.55], [0.35, 0.8], [0.65, 0.8]], np.float32)
# Landmarks of a face on its head: one is misplaced. Of a face on its side: SCRFD rotates them half way.
SKEWED = LANDMARKS + np.array([[0, 0], [0, 0], [0.15, 0], [0, 0], [0, 0]], np.float32)
HALF_WAY = (LANDMARKS - 0.5) @ (np.array([[1, 1], [-1, 1]], np.float32) / np.sqrt(np.float32(2))) + 0.5
SEEN = (LANDMARKS, HALF_WAY, SKEWED, HALF_WAY)


def _face(quarters: int, side: int = 160) -> Pixels:
    return np.rot90(np.kron(COLOURS, np.ones((side // 2, side // 2, 1), np.uint8)), -quarters)


def _see(frame: Frame, scores: Sequence[float], threshold: float, *, contradicting: bool) -> Detections:
    """The squares in a frame; `scores` by their rotation, clockwise in quarters."""
    colours = frame.pixels.astype(int)
    masks = [np.abs(colours - colour).max(axis=2) < 60 for colour in COLOURS.reshape(4, 3).astype(int)]
    boxes, kps, found = [], [], []
    bright = colours.max(axis=2) > 100
    for x in _runs(bright):
        part = [mask[:, x] for mask in masks]
        ys = np.flatnonzero(bright[:, x].any(axis=1))
        if len(ys) < 20:
            continue
        top, bottom, left, right = ys[0], ys[-1] + 1, x.start, x.stop
        at = (top + (bottom - top) // 4, (right - left) // 4)
        corner = next((index for index, mask in enumerate(part) if mask[at]), 0)
        quarters = -ORDER.index(corner) % 4  # the colour that came to the top left corner
        marks = LANDMARKS[[3, 4, 2, 0, 1]] if contradicting and quarters else SEEN[quarters]
        boxes.append([left, top, right, bottom])
        kps.append(marks * (right - left, bottom - top) + (left, top))
        found.append(scores[quarters])
    if not boxes:
        return NO_DETECTIONS
    scale = 1 / frame.scale_x
    result = Detections(
        np.array(boxes, np.float32) * scale, np.array(kps, np.float32) * scale, np.array(found, np.float32)
    )
    return result.only(result.scores >= threshold)


def _runs(mask: Any) -> Iterator[slice]:
    columns = np.flatnonzero(np.diff(np.concatenate([[0], mask.any(axis=0).astype(int), [0]])))
    return (slice(int(start), int(end)) for start, end in zip(columns[::2], columns[1::2], strict=True))


class _Detector(FaceDetector):
    """Runs no network."""

    def __init__(self, scores: Sequence[float], *, contradicting: bool = False, **settings: Any) -> None:
        network: Any = SimpleNamespace(graph=Graph("scrfd", "data", None, 127.5, 128.0, swap=True))
        super().__init__(network, Settings(_env_file=None, **settings), threading.BoundedSemaphore(), trim=True)
        self._scores, self._contradicting, self.frames = scores, contradicting, 0

    def _run(self, frames: Sequence[Frame], threshold: float) -> list[Detections]:
        self.frames += len(frames)
        return [_see(frame, self._scores, threshold, contradicting=self._contradicting) for frame in frames]


def _page(*quarters: int) -> Pixels:
    page = np.zeros((600, 600 * len(quarters), 3), np.uint8)
    for index, turn in enumerate(quarters):
        page[200:360, 600 * index + 200 : 600 * index + 360] = _face(turn)
    return page


def _find(detector: FaceDetector, pixels: Pixels) -> list[Found]:
    (faces,) = detector.find([picture_of(pixels)])
    return faces


def _eyes_to_mouth(face: Found) -> tuple[float, float]:
    x, y = face.kps[3:].mean(axis=0) - face.kps[:2].mean(axis=0)
    return round(float(x) / 72), round(float(y) / 72)


@pytest.mark.parametrize("side", [0.6, 0.4])  # an uncertain face, and no more than a hint of one
def test_each_face_of_a_page_is_found_once_with_the_landmarks_of_its_own_rotation(side: float) -> None:
    faces = _find(_Detector((0.9, side, side, side)), _page(0, 1, 2, 3))
    assert [_eyes_to_mouth(face) for face in faces] == [(0, 1), (-1, 0), (0, -1), (1, 0)]
    assert [face.found_by for face in faces] == ["direct", "rotated", "rotated", "rotated"]
    for index, face in enumerate(faces):
        assert face.bbox == pytest.approx((600 * index + 200, 200, 600 * index + 360, 360), abs=8)


def test_a_face_that_no_view_of_itself_gives_is_found_once_another_is_known_to_be_turned() -> None:
    faces = _find(_Detector((0.9, 0.6, 0.1, 0.1)), _page(0, 1, 2))
    assert [_eyes_to_mouth(face) for face in faces] == [(0, 1), (-1, 0), (0, -1)]


def test_landmarks_that_contradict_each_other_make_no_face_but_a_turned_one() -> None:
    page, scores = _page(0, 2), (0.9, 0.8, 0.8, 0.8)
    faces = _find(_Detector(scores, contradicting=True), page)
    assert [_eyes_to_mouth(face) for face in faces] == [(0, 1), (0, -1)]
    (alone,) = _find(_Detector(scores, contradicting=True, fallbacks="none"), page)
    assert _eyes_to_mouth(alone) == (0, 1)


def test_an_uncertain_face_that_is_upright_stays_as_it_was_found() -> None:
    (face,) = _find(_Detector((0.6, 0.5, 0.5, 0.5)), _page(0))
    assert (face.found_by, _eyes_to_mouth(face)) == ("direct", (0, 1))


def test_a_picture_of_certain_faces_is_searched_once() -> None:
    detector = _Detector((0.9, 0.6, 0.6, 0.6))
    assert len(_find(detector, _page(0, 0))) == 2
    assert detector.frames == 1
