"""The demo pack's recogniser: a fixed linear map from an aligned 112 x 112 crop to 512 numbers.

The crop is averaged to 28 x 28 cells of three colours. A first matrix, computed when the pack is written, scores for
each drawn person how much the crop resembles them and not the others, regardless of light, background, expression and
small errors of alignment. A second matrix maps these scores to orthonormal directions in 512 dimensions, which keeps
their cosines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from app.core.types import Pixels
from app.demo.canvas import Canvas, Placement, rgb
from app.demo.faces import draw_face
from app.demo.graph import GraphBuilder
from app.demo.people import PEOPLE, look_of

if TYPE_CHECKING:
    import onnx

Matrix = npt.NDArray[np.float64]

_EMBEDDING_SIZE: Final = 512
_CROP: Final = 112
_CELL: Final = 4
_POSES: Final = (
    (0.0, 0.3, "ffffff"),
    (-1.0, 0.9, "404a55"),
    (1.0, 0.1, "c9d9a0"),
    (0.5, 0.7, "f0c060"),
    (-0.5, 0.5, "6a9cc0"),
)  # turn, smile, background
_POSE: Final = 2.0  # weight of the changes by pose and background
_LIGHT: Final = 0.08  # standard deviation of a channel's brightness
_SLOPE: Final = 0.06  # standard deviation of the change of brightness from one side to the other
_OFF: Final = 1.2  # standard deviation of the crop's position, pixels
_BLUR: Final = 0.6  # weight of the changes by a blur over 9 pixels
_NOISE: Final = 0.1  # standard deviation of a cell, of the range -1 to 1
_STEPS: Final = 1024  # the computed matrix is rounded, so that every machine writes the same bytes


def recogniser_model(version: int) -> onnx.ModelProto:
    """Build the demo pack's recogniser.

    Its input is float32, (N, 3, 112, 112), RGB, (x - 127.5) / 127.5. Its output is (N, 512).

    Args:
        version: the model's version.
    """
    weights, bias = _person_weights()
    graph = GraphBuilder("oceano_demo_recogniser", version)
    cells = graph.node("AveragePool", "cells", ["data"], kernel_shape=[_CELL] * 2, strides=[_CELL] * 2)
    flat = graph.node("Flatten", "flat", [cells], axis=1)
    first = [flat, graph.constant("people", weights), graph.constant("offsets", bias)]
    scores = graph.node("Gemm", "answers", first, transB=1)
    product = [scores, graph.constant("directions", _directions())]
    embedding = graph.node("MatMul", "embedding", product)
    return graph.model(("data", ["batch", 3, _CROP, _CROP]), [(embedding, ["batch", _EMBEDDING_SIZE])])


def _person_weights() -> tuple[Matrix, Matrix]:
    """(PEOPLE, 2352) and (PEOPLE,): ridge regression of the people on their crops, against variation within one."""
    drawn = np.array([[_drawn(person, *pose) for pose in _POSES] for person in range(PEOPLE)])
    cells = _cells(drawn)
    means = cells.mean(axis=1)
    average = means.mean(axis=0)
    within = (cells - means[:, None]).reshape(-1, average.size) * (_POSE * len(_POSES) ** -0.5)
    variations = [within, *_light(means), *_shifted(drawn[:, 0]), _blurred(drawn[:, 0])]
    scatter = sum((part.T @ part for part in variations), np.zeros((average.size, average.size)))
    scatter += np.eye(average.size) * PEOPLE * _NOISE**2
    centred = means - average
    targets = np.eye(PEOPLE) - 1 / PEOPLE
    weights = np.linalg.solve(centred.T @ centred + scatter, centred.T @ targets).T
    step = float(np.abs(weights).max()) / _STEPS
    # a power of two makes the rounding exact
    step = 2.0 ** np.floor(np.log2(step))
    rounded = np.rint(weights / step) * step
    return rounded, np.rint(-(rounded @ average) / step) * step


def _drawn(person: int, turn: float, smile: float, background: str) -> Pixels:
    """The aligned crop of a person, drawn without an image around it."""
    canvas = Canvas((_CROP, _CROP), rgb(background), supersampling=2)
    draw_face(canvas, look_of(person), Placement((56.0, 62.0), 1.0, turn=turn, smile=smile))
    return canvas.finish()


def _cells(crops: npt.NDArray[np.uint8] | Matrix) -> Matrix:
    """(..., 112, 112, 3) BGR -> (..., 2352), as the graph computes them."""
    count = _CROP // _CELL
    blocks = crops.astype(np.float64).reshape(*crops.shape[:-3], count, _CELL, count, _CELL, 3)
    means = (blocks.mean(axis=(-4, -2)) - 127.5) / 127.5
    return np.asarray(np.moveaxis(means[..., ::-1], -1, -3).reshape(*crops.shape[:-3], -1))


def _light(means: Matrix) -> list[Matrix]:
    """Changes of the cells by the brightness of each channel, and by light from one side."""
    count = _CROP // _CELL
    brightness = (means + 1).reshape(PEOPLE, 3, count, count)
    channels, slope = np.eye(3)[:, None, :, None, None], np.linspace(-1, 1, count)
    changes = [brightness * channel * _LIGHT for channel in channels]
    changes += [brightness * slope * _SLOPE, brightness * slope[:, None] * _SLOPE]
    return [change.reshape(PEOPLE, -1) for change in changes]


def _shifted(crops: npt.NDArray[np.uint8]) -> list[Matrix]:
    """Changes of the cells by a shift of the crop."""
    return [(_cells(np.roll(crops, 1, axis)) - _cells(np.roll(crops, -1, axis))) / 2 * _OFF for axis in (1, 2)]


def _blurred(crops: npt.NDArray[np.uint8]) -> Matrix:
    """Changes of the cells if the face was small in its image."""
    rows = sum(np.roll(crops, shift, axis=1).astype(np.float64) for shift in range(-4, 5)) / 9
    blurred = sum(np.roll(rows, shift, axis=2) for shift in range(-4, 5)) / 9
    return np.asarray((_cells(np.asarray(blurred)) - _cells(crops)) * _BLUR)


def _directions() -> Matrix:
    """(PEOPLE, 512), orthonormal rows: a selection from a Hadamard matrix."""
    hadamard = np.ones((1, 1))
    while hadamard.shape[0] < _EMBEDDING_SIZE:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    rows = (np.arange(PEOPLE) * 7 + 3) % _EMBEDDING_SIZE
    return np.asarray(hadamard[rows] / np.sqrt(_EMBEDDING_SIZE))
