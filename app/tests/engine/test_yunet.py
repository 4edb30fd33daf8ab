"""yunet: a detector's outputs become boxes and landmarks; the same as OpenCV's FaceDetectorYN, batch or not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from app.core.types import Pixels
from app.engine.frames import Detections, Frame, fit
from app.engine.network import Network
from app.engine.placement import place
from app.engine.yunet import read_outputs
from tests.support.packs import yunet


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "yunet.onnx"
    path.write_bytes(yunet())
    return path


def _scene(seed: int, size: tuple[int, int]) -> Pixels:
    """Noise, in which a few spots of several sizes are bright."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 60, (size[1], size[0], 3), dtype=np.uint8)
    for side in (9, 17, 33, min(size) - 1):
        x, y = (int(rng.integers(0, length - side)) for length in size)
        picture[y : y + side, x : x + side] = rng.integers(170, 255, 3, dtype=np.uint8)
    return picture


def _seen(network: Network, frames: list[Frame], threshold: float) -> list[Detections]:
    found: list[Detections] = []
    for part, _, outputs in network.batches([frame.pixels for frame in frames]):
        found += read_outputs(outputs, frames[part], threshold)
    return found


def _compare(found: Detections, theirs: np.ndarray | None) -> None:
    """Each box and landmark within a pixel, each score within a thousandth."""
    assert theirs is not None
    assert len(theirs) == len(found.scores) > 0
    ours = found.boxes[np.lexsort(found.boxes.T)]
    boxes = np.hstack([theirs[:, :2], theirs[:, :2] + theirs[:, 2:4]])
    order = np.lexsort(boxes.T)
    assert np.abs(boxes[order] - ours).max() < 1
    kps = found.kps[np.lexsort(found.boxes.T)]
    assert np.abs(theirs[order, 4:14].reshape(-1, 5, 2) - kps).max() < 1
    assert np.abs(theirs[order, 14] - found.scores[np.lexsort(found.boxes.T)]).max() < 1e-3


@pytest.mark.parametrize("size", [(64, 64), (320, 256), (200, 120)])  # the last is padded by both
def test_its_candidates_are_those_of_opencv(file: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them: which one of two stays that overlap by just the limit, OpenCV decides on whole pixels."""
    monkeypatch.setattr("app.engine.yunet._NMS_IOU", 1.0)
    network = Network(file, place("cpu", threads=1), max_batch=1)
    theirs = cv2.FaceDetectorYN.create(str(file), "", size, 0.5, 1.0, 5000)
    some = 0
    for seed in range(8):
        picture = _scene(seed, size)
        frame = fit(picture, size, trim=True)
        assert frame is not None
        (found,) = _seen(network, [frame], 0.5)
        _, faces = theirs.detect(picture)
        if faces is None:
            assert found.scores.size == 0
            continue
        _compare(found, faces)
        some += 1
    assert some > 3


def test_each_frame_of_a_batch_has_its_own_faces(file: Path) -> None:
    frames = [frame for seed in range(3) if (frame := fit(_scene(seed, (320, 256)), (320, 256), trim=True))]
    alone = Network(file, place("cpu", threads=1), max_batch=1)
    together = Network(file, place("cpu", threads=1), max_batch=3)
    for one, other in zip(
        _seen(together, frames, 0.5), (_seen(alone, [frame], 0.5)[0] for frame in frames), strict=True
    ):
        assert len(one.scores) == len(other.scores) > 0
        assert np.abs(one.boxes - other.boxes).max() < 1e-3
        assert np.abs(one.kps - other.kps).max() < 1e-3


@pytest.mark.real
def test_the_published_detector_finds_what_opencv_finds(free_pack: Path, real_faces: Path) -> None:
    published = free_pack / "face_detection_yunet_2023mar_int8bq.onnx"
    network = Network(published, place("cpu", threads=1), max_batch=4)
    theirs = cv2.FaceDetectorYN.create(str(published), "", (640, 640), 0.5, 0.3, 5000)
    pictures = [cv2.imread(str(real_faces / "groups" / f"bbt{number}.jpg")) for number in range(1, 6)]
    frames = [frame for one in pictures if (frame := fit(one, (640, 640), trim=False))]
    assert len(frames) == 5
    for frame, found in zip(frames, _seen(network, frames, 0.5), strict=True):
        to_frame = np.array([frame.scale_x, frame.scale_y], np.float32)
        scaled = Detections(found.boxes * np.tile(to_frame, 2), found.kps * to_frame, found.scores)
        _compare(scaled, theirs.detect(frame.pixels)[1])
