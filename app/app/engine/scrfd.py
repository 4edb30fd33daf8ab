"""What SCRFD and RetinaFace detectors answer, as boxes and landmarks.

What InsightFace does picture by picture (insightface/model_zoo/scrfd.py), for batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np

from app.core.types import Floats
from app.engine.frames import Detections, Frame, Hits, by_frame

_ANCHORS: Final = 2
_STRIDES: Final = {9: (8, 16, 32), 15: (8, 16, 32, 64, 128)}  # by the number of outputs
_NMS_IOU: Final = 0.4


def read_outputs(outputs: Sequence[Floats], frames: Sequence[Frame], threshold: float) -> list[Detections]:
    """Detections of each frame of a batch.

    `outputs` are scores, box distances and landmark offsets for each stride, each either (N, H*W*anchors, C) or, as
    the published graphs end when their batch dimension is freed, (H*W*N*anchors, C) with the batch inside.
    """
    strides = _STRIDES[len(outputs)]
    count, levels = len(frames), len(strides)
    anchors = _ANCHORS if levels == 3 else 1
    height, width = frames[0].pixels.shape[:2]
    found: list[Hits] = []
    for level, stride in enumerate(strides):
        grid = (height // stride, width // stride)
        scores, boxes, kps = (
            _by_frame(outputs[level + part * levels], count, grid[0] * grid[1], anchors) for part in range(3)
        )
        places, hits = np.nonzero(scores[:, :, 0] >= threshold)
        if not hits.size:
            continue
        at = _centres(*grid, stride, anchors)[hits]
        reach = boxes[places, hits] * stride
        corners = np.hstack([at - reach[:, :2], at + reach[:, 2:]])
        points = at[:, None] + kps[places, hits].reshape(-1, 5, 2) * stride
        found.append(Hits(places, scores[places, hits, 0], corners, points))
    return by_frame(found, frames, _NMS_IOU)


def _by_frame(output: Floats, count: int, cells: int, anchors: int) -> Floats:
    """As (N, H*W*anchors, C)."""
    if output.ndim == 3 or count == 1:
        return output.reshape(count, cells * anchors, -1)
    return output.reshape(cells, count, anchors, -1).transpose(1, 0, 2, 3).reshape(count, cells * anchors, -1)


@lru_cache(maxsize=64)
def _centres(rows: int, columns: int, stride: int, anchors: int) -> Floats:
    """(rows * columns * anchors, 2): x, y of each anchor, in pixels of the frame."""
    y, x = np.mgrid[:rows, :columns]
    points = np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32) * stride
    return np.repeat(points, anchors, axis=0)
