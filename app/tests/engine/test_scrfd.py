"""scrfd: a detector's outputs become boxes and landmarks; the same as InsightFace's, batch or not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from insightface.model_zoo import get_model

from app.core.config import Settings
from app.core.types import Floats, Pixels
from app.engine.frames import NO_DETECTIONS, fit
from app.engine.network import Network
from app.engine.placement import place
from app.engine.scrfd import read_outputs


def _noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(1).integers(0, 255, (height, width, 3), dtype=np.uint8)


def _outputs(count: int) -> list[Floats]:
    """What a detector says of frames of 64 x 64 in which number n has a face of 16 pixels around (8n, 8)."""
    cells = [64, 16, 4]
    scores = [np.zeros((count, cell * 2, 1), np.float32) for cell in cells]
    boxes = [np.ones((count, cell * 2, 4), np.float32) for cell in cells]
    kps = [np.zeros((count, cell * 2, 10), np.float32) for cell in cells]
    for number in range(count):
        scores[0][number, 2 * (8 + number)] = 0.9  # row 1, column n, first anchor
        scores[0][number, 2 * (8 + number) + 1] = 0.8  # second anchor, same box: to be thinned out
    return [*scores, *boxes, *kps]


def _interleaved(outputs: list[Floats]) -> list[Floats]:
    """As the published graphs put a batch: (H*W, N, anchors, C), flattened."""
    many = [output.reshape(len(output), -1, 2, output.shape[2]).transpose(1, 0, 2, 3) for output in outputs]
    return [np.ascontiguousarray(one).reshape(-1, one.shape[3]) for one in many]


@pytest.mark.parametrize("interleaved", [False, True])
def test_each_frame_of_a_batch_has_its_own_faces(interleaved: bool) -> None:
    outputs = _outputs(3)
    frames = [fit(_noise(128, 128), (64, 64), trim=False)] * 3
    found = read_outputs(_interleaved(outputs) if interleaved else outputs, [f for f in frames if f], 0.5)
    assert [len(one.scores) for one in found] == [1, 1, 1]
    for number, one in enumerate(found):
        x, y = 16.0 * number, 16.0  # the picture is twice the frame
        assert one.boxes[0].tolist() == [x - 16, y - 16, x + 16, y + 16]
        assert one.kps[0].tolist() == [[x, y]] * 5
    assert read_outputs(outputs, [f for f in frames if f], 0.95) == [NO_DETECTIONS] * 3


@pytest.mark.real
def test_a_batch_through_the_freed_graph_gives_what_insightface_gives_one_by_one(
    real_pack: Path, real_faces: Path
) -> None:
    theirs = get_model(str(real_pack / "det_500m.onnx"), providers=["CPUExecutionProvider"])
    theirs.prepare(-1, input_size=(640, 640), det_thresh=0.5)
    network = Network(real_pack / "det_500m.onnx", place("cpu", threads=1), max_batch=4)
    pictures = [cv2.imread(str(real_faces / "groups" / f"bbt{number}.jpg")) for number in range(1, 6)]
    frames = [frame for one in pictures if (frame := fit(one, Settings(_env_file=None).det_size, trim=False))]
    seen = []
    for part, padded, outputs in network.batches([frame.pixels for frame in frames]):
        assert padded == part.stop - part.start
        seen += read_outputs(outputs, frames[part], 0.5)
    assert len(seen) == 5
    for frame, found in zip(frames, seen, strict=True):
        boxes, kps = theirs.detect(frame.pixels)  # of whole pictures it scales x by the height's factor
        assert len(boxes) == len(found.boxes) > 2
        to_frame = np.array([frame.scale_x, frame.scale_y])
        assert np.abs(boxes[:, :4] - found.boxes * np.tile(to_frame, 2)).max() < 0.01
        assert np.abs(boxes[:, 4] - found.scores).max() < 1e-4
        assert np.abs(kps - found.kps * to_frame).max() < 0.01
