"""What every detector needs: pictures become frames, frames a blob, and of boxes that overlap the best one stays.

How a network's outputs become boxes is in `scrfd` and `yunet`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from app.core.onnx_graph import Graph
from app.core.types import Floats, Pixels

_CANDIDATES: Final = 5000  # of one frame, the best of which go on, as in OpenCV: what follows is quadratic


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture fitted into the detector's input: `pixels` (H, W, 3) BGR; black where the picture ends.

    `scale_x` and `scale_y` are frame pixels per pixel of the picture.
    """

    pixels: Pixels
    scale_x: float
    scale_y: float


@dataclass(frozen=True, slots=True)
class Detections:
    """`boxes` (n, 4) as x1, y1, x2, y2 and `kps` (n, 5, 2) in pixels of the picture, `scores` (n,); best first."""

    boxes: Floats
    kps: Floats
    scores: Floats


@dataclass(frozen=True, slots=True)
class Hits:
    """Candidates of one stride, in pixels of the frames: `places` (n,) says of which frame of the batch."""

    places: npt.NDArray[np.intp]
    scores: Floats
    boxes: Floats
    kps: Floats


NOTHING: Final = Detections(np.empty((0, 4), np.float32), np.empty((0, 5, 2), np.float32), np.empty(0, np.float32))


def fit(pixels: Pixels, size: tuple[int, int], *, trim: bool, stride: int = 32) -> Frame | None:
    """The picture scaled into the top left corner of a frame of `size` (width, height), its proportions kept.

    With `trim`, the frame ends at the next multiple of `stride` pixels after the picture: a network without a fixed
    input need not look at what is black. None for a sliver of which less than a pixel would be left.
    """
    height, width = pixels.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    inner = (int(width * scale + 1e-6), int(height * scale + 1e-6))
    if min(inner) < 1:
        return None
    shrunk = pixels if inner == (width, height) else _resized(pixels, inner)
    outer = tuple(-(-side // stride) * stride for side in (inner if trim else size))
    if outer == inner:
        frame = shrunk
    else:
        frame = np.zeros((outer[1], outer[0], 3), np.uint8)
        frame[: inner[1], : inner[0]] = shrunk
    return Frame(frame, inner[0] / width, inner[1] / height)


def _resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """By OpenCV itself: the same pixels as by Intel's IPP, in 0.75 ms, not 1.2 (1.9 megapixels, an AMD EPYC)."""
    before = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)  # of this thread, in which another interpolation would come out otherwise
    try:
        return cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    finally:
        cv2.ipp.setUseIPP(before)


def blob_of(frames: Sequence[Pixels], graph: Graph) -> Floats:
    """(N, 3, H, W) float32 from frames of one size, in the channel order and scale that `graph` takes.

    What cv2.dnn.blobFromImages gives, to the bit, in half of its time.
    """
    blob = np.empty((len(frames), 3, *frames[0].shape[:2]), np.float32)
    order = (2, 1, 0) if graph.swap else (0, 1, 2)
    for place, frame in enumerate(frames):
        for channel, plane in zip(order, cv2.split(frame), strict=True):
            blob[place, channel] = plane
    if graph.mean:
        blob -= np.float32(graph.mean)
    if graph.std != 1:
        blob *= np.float32(1 / graph.std)
    return blob


def by_frame(found: Sequence[Hits], frames: Sequence[Frame], iou: float) -> list[Detections]:
    """What was found in the frames of a batch: of boxes that overlap by more than `iou` only the best, in pixels of
    each frame's picture. What is not finite is no face.
    """
    if not found:
        return [NOTHING] * len(frames)
    places = np.concatenate([hits.places for hits in found])
    scores, boxes, kps = (
        np.concatenate([getattr(hits, name) for hits in found]) for name in ("scores", "boxes", "kps")
    )
    finite = np.isfinite(scores) & np.isfinite(boxes).all(axis=1) & np.isfinite(kps).all(axis=(1, 2))
    mine = [finite & (places == place) for place in range(len(frames))]
    return [_best(boxes[one], kps[one], scores[one], frame, iou) for one, frame in zip(mine, frames, strict=True)]


def _best(boxes: Floats, kps: Floats, scores: Floats, frame: Frame, iou: float) -> Detections:
    if not scores.size:
        return NOTHING
    order = np.argsort(-scores, kind="stable")[:_CANDIDATES]
    scores, boxes, kps = scores[order], boxes[order], kps[order]
    keep = _thin_out(boxes, iou)
    to_picture = np.array([1 / frame.scale_x, 1 / frame.scale_y], np.float32)
    return Detections(boxes[keep] * np.tile(to_picture, 2), kps[keep] * to_picture, scores[keep])


def _thin_out(boxes: Floats, iou: float) -> list[int]:
    """Greedy non-maximum suppression of boxes (n, 4) that come best first."""
    x1, y1, x2, y2 = boxes.T
    areas = (x2 - x1 + 1) * (y2 - y1 + 1)
    left = np.arange(len(boxes))
    keep: list[int] = []
    while left.size:
        best, left = left[0], left[1:]
        keep.append(int(best))
        width = np.minimum(x2[best], x2[left]) - np.maximum(x1[best], x1[left]) + 1
        height = np.minimum(y2[best], y2[left]) - np.maximum(y1[best], y1[left]) + 1
        overlap = np.maximum(0, width) * np.maximum(0, height)
        left = left[overlap / (areas[best] + areas[left] - overlap) <= iou]
    return keep
