"""What YuNet detectors answer, as boxes and landmarks.

From the description of YuNet (Wu et al. 2023, https://doi.org/10.1007/s11633-023-1423-y), with the thresholds of
OpenCV's FaceDetectorYN: three grids without anchors; a cell has a class and an object score, a box as the offset of
its centre and the logarithm of its sides, and five landmarks as offsets, all in cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from app.core.types import Floats
from app.engine.frames import Detections, Frame, Hits, by_frame

_STRIDES: Final = (8, 16, 32)
_NMS_IOU: Final = 0.3


def read_outputs(outputs: Sequence[Floats], frames: Sequence[Frame], threshold: float) -> list[Detections]:
    """Detections of each frame of a batch.

    `outputs` are class scores, object scores, boxes and landmarks for each stride, 12 in all, each (N, H*W, C) or
    (1, N*H*W, C). A score is the geometric mean of a cell's two scores.
    """
    count = len(frames)
    height, width = frames[0].pixels.shape[:2]
    found: list[Hits] = []
    for level, stride in enumerate(_STRIDES):
        columns = width // stride
        cells = height // stride * columns
        classes, objects, boxes, kps = (
            outputs[level + part * len(_STRIDES)].reshape(count, cells, -1) for part in range(4)
        )
        products = classes[:, :, 0].clip(0, 1) * objects[:, :, 0].clip(0, 1)
        places, hits = np.nonzero(products >= threshold * threshold)
        if not hits.size:
            continue
        cell = np.stack([hits % columns, hits // columns], axis=1).astype(np.float32)
        box = boxes[places, hits]
        centres = (cell + box[:, :2]) * stride
        with np.errstate(over="ignore"):  # infinite sides are no face
            half = np.exp(box[:, 2:]) * (stride / 2)
        points = (cell[:, None] + kps[places, hits].reshape(-1, 5, 2)) * stride
        found.append(Hits(places, np.sqrt(products[places, hits]), np.hstack([centres - half, centres + half]), points))
    return by_frame(found, frames, _NMS_IOU)
