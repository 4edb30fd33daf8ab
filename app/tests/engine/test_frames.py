"""detection: frames and blobs in; of boxes that overlap, the best."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from app.core.onnx_graph import Graph
from app.core.types import Pixels
from app.engine.frames import NO_DETECTIONS, Candidates, blob_of, fit, suppress_overlaps


def _noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(1).integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("shape", "inner"), [((480, 640), (640, 480)), ((1200, 800), (426, 640)), ((50, 40), (512, 640))]
)
def test_a_frame_keeps_the_proportions_and_ends_with_the_picture(
    shape: tuple[int, int], inner: tuple[int, int]
) -> None:
    trimmed = fit(_noise(*shape), (640, 640), trim=True)
    whole = fit(_noise(*shape), (640, 640), trim=False)
    assert trimmed is not None
    assert whole is not None
    assert whole.pixels.shape == (640, 640, 3)
    assert all(
        side % 32 == 0 and side - 32 < part <= side
        for side, part in zip(trimmed.pixels.shape[1::-1], inner, strict=False)
    )
    height, width = trimmed.pixels.shape[:2]
    assert np.array_equal(trimmed.pixels, whole.pixels[:height, :width])
    assert not whole.pixels[inner[1] :].any()
    assert not whole.pixels[:, inner[0] :].any()
    assert (trimmed.scale_x, trimmed.scale_y) == (inner[0] / shape[1], inner[1] / shape[0])


def test_a_sliver_has_no_frame() -> None:
    assert fit(_noise(1, 5000), (640, 640), trim=True) is None


def test_a_frame_is_resized_as_opencv_does_it_and_leaves_its_settings() -> None:
    picture = np.random.default_rng(4).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    before = cv2.ipp.useIPP()
    frame = fit(picture, (160, 160), trim=False)
    assert frame is not None
    assert np.array_equal(frame.pixels[:120], cv2.resize(picture, (160, 120)))
    assert cv2.ipp.useIPP() == before


@pytest.mark.parametrize("swap", [True, False])
def test_a_blob_has_the_channels_and_the_scale_that_its_graph_takes(swap: bool) -> None:
    frames = [_noise(32, 64), _noise(32, 64)[::-1].copy()]
    blob = blob_of(frames, Graph("scrfd", "data", None, 127.5, 128.0, swap))
    assert (blob.shape, blob.dtype) == ((2, 3, 32, 64), np.float32)
    theirs = cv2.dnn.blobFromImages(frames, 1 / 128, (64, 32), (127.5, 127.5, 127.5), swapRB=swap)
    assert np.abs(blob - theirs).max() < 1e-5


def test_a_graph_that_scales_by_itself_gets_the_pixels_as_they_are() -> None:
    frame = _noise(32, 32)
    blob = blob_of([frame], Graph("yunet", "input", None, 0.0, 1.0, swap=False))
    assert np.array_equal(blob[0].transpose(1, 2, 0), frame)


def test_of_boxes_that_overlap_the_best_stays_in_each_frame_in_pixels_of_its_picture() -> None:
    frame = fit(_noise(128, 128), (64, 64), trim=False)
    assert frame is not None
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [30, 30, 40, 40], [0, 0, 10, 10]], np.float32)
    hits = Candidates(
        np.array([0, 0, 0, 1]), np.array([0.6, 0.9, 0.7, 0.5], np.float32), boxes, np.zeros((4, 5, 2), np.float32)
    )
    first, second, third = suppress_overlaps([hits], [frame] * 3, 0.4)
    assert first.boxes.tolist() == [[2, 2, 22, 22], [60, 60, 80, 80]]  # the picture is twice the frame
    assert first.scores.tolist() == pytest.approx([0.9, 0.7])
    assert second.boxes.tolist() == [[0, 0, 20, 20]]
    assert third == NO_DETECTIONS
    assert suppress_overlaps([], [frame], 0.4) == [NO_DETECTIONS]


def test_a_box_goes_exactly_if_it_overlaps_one_that_stays_and_is_better() -> None:
    frame = fit(_noise(64, 64), (64, 64), trim=False)
    assert frame is not None
    rng = np.random.default_rng(5)
    corners, sides = rng.uniform(0, 60, (200, 2)), rng.uniform(5, 40, (200, 2))
    boxes = np.hstack([corners, corners + sides]).astype(np.float32)
    scores = rng.uniform(0.3, 1, 200).astype(np.float32)
    hits = Candidates(np.zeros(200, np.intp), scores, boxes, np.zeros((200, 5, 2), np.float32))
    (found,) = suppress_overlaps([hits], [frame], 0.4)
    stays = np.isin(scores, found.scores)
    assert 5 < stays.sum() < 100
    for box, score, stayed in zip(boxes, scores, stays, strict=True):
        better = boxes[stays & (scores > score)]
        low, high = np.maximum(better[:, :2], box[:2]), np.minimum(better[:, 2:], box[2:])
        common = np.maximum(high - low + 1, 0).prod(axis=1)  # a box includes its last pixels
        areas = (better[:, 2:] - better[:, :2] + 1).prod(axis=1) + (box[2:] - box[:2] + 1).prod()
        assert bool((common / (areas - common) <= 0.4).all()) == stayed


def test_what_is_not_finite_is_no_face_and_takes_none_with_it() -> None:
    frame = fit(_noise(64, 64), (64, 64), trim=False)
    assert frame is not None
    boxes = np.array([[0, 0, 10, 10], [0, 0, np.inf, 10], [0, 0, 10, np.nan], [1, 1, 9, 9]], np.float32)
    kps = np.zeros((4, 5, 2), np.float32)
    kps[3] = np.nan
    hits = Candidates(np.zeros(4, np.intp), np.array([0.6, 0.9, 0.8, 0.7], np.float32), boxes, kps)
    (found,) = suppress_overlaps([hits], [frame], 0.4)
    assert found.boxes.tolist() == [[0, 0, 10, 10]]


def test_of_very_many_boxes_only_the_best_are_compared() -> None:
    frame = fit(_noise(64, 64), (64, 64), trim=False)
    assert frame is not None
    corner = np.arange(20_000, dtype=np.float32)[:, None] * 20
    boxes = np.hstack([corner, corner, corner + 10, corner + 10])
    scores = np.linspace(1, 0.5, 20_000, dtype=np.float32)
    (found,) = suppress_overlaps(
        [Candidates(np.zeros(20_000, np.intp), scores, boxes, np.zeros((20_000, 5, 2), np.float32))], [frame], 0.4
    )
    assert np.array_equal(found.scores, scores[:5000])


@pytest.mark.parametrize(("size", "trim"), [((640, 480), True), ((416, 640), True), ((96, 96), False)])
def test_a_frame_fits_a_coarser_stride(size: tuple[int, int], trim: bool) -> None:
    frame = fit(_noise(size[1], size[0]), size, trim=trim, stride=128)
    assert frame is not None
    assert all(side % 128 == 0 for side in frame.pixels.shape[:2])
