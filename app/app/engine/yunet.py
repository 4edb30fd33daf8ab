"""Decoding of the outputs of YuNet detectors.

YuNet has three grids without anchors. Each cell has a class score and an object score, a box as the offset of its
centre and the logarithm of its sides, and five landmarks as offsets, all in cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from app.core.types import Floats
from app.engine.frames import Candidates, Detections, Frame, suppress_overlaps

_STRIDES: Final = (8, 16, 32)
_NMS_IOU: Final = 0.3


def read_outputs(outputs: Sequence[Floats], frames: Sequence[Frame], threshold: float) -> list[Detections]:
    """Decode the network's outputs for a batch.

    A score is the geometric mean of a cell's class and object scores.

    Args:
        outputs: class scores of all strides, then object scores, boxes and landmarks, 12 arrays, each (N, H*W, C) or
            (1, N*H*W, C).
        frames: the frames of the batch, all of one size.
        threshold: the lowest score of a detection.

    Returns:
        Detections of each frame, in pixels of its image.

    Source: Wu et al. 2023, https://doi.org/10.1007/s11633-023-1423-y; thresholds of OpenCV's FaceDetectorYN.
    """
    batch_size = len(frames)
    height, width = frames[0].pixels.shape[:2]
    candidates: list[Candidates] = []
    for level, stride in enumerate(_STRIDES):
        columns = width // stride
        cells = height // stride * columns
        classes, objects, boxes, kps = (
            outputs[level + kind * len(_STRIDES)].reshape(batch_size, cells, -1) for kind in range(4)
        )
        products = classes[:, :, 0].clip(0, 1) * objects[:, :, 0].clip(0, 1)
        frame_indices, hits = np.nonzero(products >= threshold * threshold)
        if not hits.size:
            continue
        cell = np.stack([hits % columns, hits // columns], axis=1).astype(np.float32)
        box = boxes[frame_indices, hits]
        centres = (cell + box[:, :2]) * stride
        with np.errstate(over="ignore"):  # boxes with infinite sides are dropped later
            half = np.exp(box[:, 2:]) * (stride / 2)
        points = (cell[:, None] + kps[frame_indices, hits].reshape(-1, 5, 2)) * stride
        scores = np.sqrt(products[frame_indices, hits])
        candidates.append(Candidates(frame_indices, scores, np.hstack([centres - half, centres + half]), points))
    return suppress_overlaps(candidates, frames, _NMS_IOU)
