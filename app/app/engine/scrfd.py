"""Decoding of the outputs of SCRFD and RetinaFace detectors.

The same as insightface/model_zoo/scrfd.py does for one image, for batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np

from app.core.types import Floats
from app.engine.frames import Candidates, Detections, Frame, suppress_overlaps

_ANCHORS: Final = 2
_STRIDES: Final = {9: (8, 16, 32), 15: (8, 16, 32, 64, 128)}  # by the number of outputs
_NMS_IOU: Final = 0.4


def read_outputs(outputs: Sequence[Floats], frames: Sequence[Frame], threshold: float) -> list[Detections]:
    """Decode the network's outputs for a batch.

    Args:
        outputs: scores of all strides, then box distances, then landmark offsets, 9 or 15 arrays. Each is
            (N, H*W*anchors, C), or (H*W*N*anchors, C) where a published graph's batch dimension was made dynamic.
        frames: the frames of the batch, all of one size.
        threshold: the lowest score of a detection.

    Returns:
        Detections of each frame, in pixels of its image.

    Source: insightface/model_zoo/scrfd.py.
    """
    strides = _STRIDES[len(outputs)]
    batch_size, levels = len(frames), len(strides)
    anchors = _ANCHORS if levels == 3 else 1
    height, width = frames[0].pixels.shape[:2]
    candidates: list[Candidates] = []
    for level, stride in enumerate(strides):
        grid = (height // stride, width // stride)
        scores, boxes, kps = (
            _split_frames(outputs[level + kind * levels], batch_size, grid[0] * grid[1], anchors) for kind in range(3)
        )
        frame_indices, hits = np.nonzero(scores[:, :, 0] >= threshold)
        if not hits.size:
            continue
        centres = _anchor_centres(*grid, stride, anchors)[hits]
        distances = boxes[frame_indices, hits] * stride
        corners = np.hstack([centres - distances[:, :2], centres + distances[:, 2:]])
        points = centres[:, None] + kps[frame_indices, hits].reshape(-1, 5, 2) * stride
        candidates.append(Candidates(frame_indices, scores[frame_indices, hits, 0], corners, points))
    return suppress_overlaps(candidates, frames, _NMS_IOU)


def _split_frames(output: Floats, batch_size: int, cells: int, anchors: int) -> Floats:
    """Reshape an output to (N, H*W*anchors, C)."""
    if output.ndim == 3 or batch_size == 1:
        return output.reshape(batch_size, cells * anchors, -1)
    by_cell = output.reshape(cells, batch_size, anchors, -1)
    return by_cell.transpose(1, 0, 2, 3).reshape(batch_size, cells * anchors, -1)


@lru_cache(maxsize=64)
def _anchor_centres(rows: int, columns: int, stride: int, anchors: int) -> Floats:
    """(rows * columns * anchors, 2): x, y of each anchor, in pixels of the frame."""
    y, x = np.mgrid[:rows, :columns]
    points = np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32) * stride
    return np.repeat(points, anchors, axis=0)
