"""The demo pack's detector: an ONNX graph that finds drawn faces by their five coloured landmarks.

Its input, outputs and decoding are those of SCRFD (strides 8, 16 and 32, two anchors). Nothing in it is learnt. For
each of nine face sizes, at each position of a grid, the graph computes:

1. three colour masks (irises, nose, dimples), averaged down so that the eyes are 7 or 10 cells apart;
2. in a window for each landmark, by convolution, the mask's mass, mean position and spread;
3. a score: whether there is enough of each colour, each in one spot, and the five spots are arranged as in a face.

The box is computed from the landmarks. All positions that see the same face therefore return the same box, and the
non-maximum suppression after the graph keeps one of them. Lengths are in eye distances unless stated otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from app.demo.faces import TEMPLATE
from app.demo.graph import GraphBuilder

if TYPE_CHECKING:
    import onnx

Matrix = npt.NDArray[np.float64]

STRIDES: Final = (8, 16, 32)
EYE_DISTANCE: Final = 35.24  # units of the template
FACE_CENTRE: Final = (56.0, 62.0)  # units
_HALF_SIZE: Final = (42.0 / EYE_DISTANCE, 56.0 / EYE_DISTANCE)

_EYE, _NOSE, _DIMPLE, _WHITE = range(4)
_COLOUR_OF: Final = (_EYE, _EYE, _NOSE, _DIMPLE, _DIMPLE)  # the mask of each landmark
_WINDOWS: Final = ((0.48, 0.55), (0.48, 0.55), (0.46, 0.46), (0.40, 0.48), (0.40, 0.48))  # half width and height
_WHITES: Final = ((_WHITE, (-0.5, -0.3), (0.45, 0.4)), (_WHITE, (0.5, -0.3), (0.45, 0.4)))
"""Regions that must contain the white of the eyes: mask, centre, half width and height."""
_FORBIDDEN: Final = (
    (_EYE, (0.0, 0.6), (0.70, 0.3)),
    (_NOSE, (0.0, -0.4), (0.75, 0.15)),
    (_NOSE, (0.0, 0.85), (0.60, 0.15)),
    (_DIMPLE, (0.0, -0.15), (0.75, 0.4)),
)
"""Regions that must not contain a colour: mask, centre, half width and height."""
_AREAS: Final = np.array([0.115, 0.115, 0.065, 0.036, 0.036])
_VARIANCES: Final = np.array([0.034, 0.034, 0.024, 0.020, 0.020])  # maximum of a spot
_MAX_AREA_RATIOS: Final = np.array(
    [[1.35, 1.35, 1.5, 1.7, 1.7], [1.7, 1.7, 2.0, 2.4, 2.4]]
)  # in _AREAS: accepted, rejected


@dataclass(frozen=True, slots=True)
class Level:
    """One face size to search for.

    Attributes:
        stride: the stride of its outputs in pixels.
        anchor: the anchor of its outputs, 0 or 1.
        cell: side of a cell of the averaged mask in pixels.
        eyes: distance between the eyes in cells.
        step: distance between positions of the search grid in cells.
    """

    stride: int
    anchor: int
    cell: int
    eyes: int
    step: int

    @property
    def name(self) -> str:
        """The prefix of its tensors' names."""
        return f"eyes{self.cell * self.eyes}"

    @property
    def positions(self) -> int:
        """Number of grid positions along each side of a cell of the stride."""
        return self.stride // (self.cell * self.step)


LEVELS: Final = (
    Level(stride=8, anchor=0, cell=1, eyes=10, step=4),
    Level(stride=8, anchor=1, cell=2, eyes=7, step=2),
    Level(stride=8, anchor=1, cell=2, eyes=10, step=2),
    Level(stride=16, anchor=0, cell=4, eyes=7, step=2),
    Level(stride=16, anchor=1, cell=4, eyes=10, step=2),
    Level(stride=32, anchor=0, cell=8, eyes=7, step=2),
    Level(stride=32, anchor=0, cell=8, eyes=10, step=2),
    Level(stride=32, anchor=1, cell=16, eyes=7, step=2),
    Level(stride=32, anchor=1, cell=16, eyes=10, step=2),
)


def detector_model(version: int) -> onnx.ModelProto:
    """Build the demo pack's detector.

    Its input is float32, (1, 3, H, W), RGB, (x - 127.5) / 128. Its nine outputs are those of SCRFD.

    Args:
        version: the model's version.
    """
    graph = GraphBuilder("oceano_demo_detector", version)
    masks = _colour_masks(graph)
    views = [_level_scores(graph, level, masks[level.cell]) for level in LEVELS]
    outputs: list[tuple[str, list[int | str]]] = []
    for stride in STRIDES:
        anchors = [
            [(level, view) for level, view in zip(LEVELS, views, strict=True) if (level.stride, level.anchor) == key]
            for key in ((stride, 0), (stride, 1))
        ]
        outputs += _stride_outputs(graph, stride, [_best(graph, stride, candidates) for candidates in anchors])
    kinds = [outputs[kind :: len(STRIDES)] for kind in range(3)]
    return graph.model(("input.1", [1, 3, "height", "width"]), [output for kind in kinds for output in kind])


def _colour_masks(graph: GraphBuilder) -> dict[int, str]:
    """Cell size -> [N, 4, H / cell, W / cell]: the amount of each colour and of white, 0 to 1."""
    # a pixel has a colour if two differences of channels are both large enough (in values of 255)
    red, green, blue = np.eye(3)
    differences = (
        np.stack([green - red, red - blue, blue - red]),
        np.stack([blue - red, blue - green, blue - 2 * green + red]),
    )
    start, full = np.array([22.0, 11.0, 15.0]), np.array([62.0, 36.0, 48.0])
    gain = (128 / (full - start))[:, None]
    sides = [
        graph.conv(f"difference{index}", "input.1", (weights * gain)[:, :, None, None], -start / (full - start))
        for index, weights in enumerate(differences)
    ]
    colours = graph.node("Min", "least_difference", sides)
    darkest = graph.node("ReduceMin", "darkest", ["input.1"], axes=[1], keepdims=1)
    white = graph.ramp("white", darkest, (135 - 127.5) / 128, (175 - 127.5) / 128)
    masks = {1: graph.clip("mask1", graph.node("Concat", "colours_white", [colours, white], axis=1))}
    for cell in (2, 4, 8, 16):
        masks[cell] = graph.node("AveragePool", f"mask{cell}", [masks[cell // 2]], kernel_shape=[2, 2], strides=[2, 2])
    return masks


def _level_scores(graph: GraphBuilder, level: Level, masks: str) -> str:
    """[N, 11, h, w] on the level's grid: the score, x of the five spots, y of the five spots.

    x and y are eye distances from the landmark's position in an upright face at this grid position.
    """
    name = level.name
    rows, columns = _window_kernels(level)
    reach = rows.shape[-1] // 2
    across = graph.conv(f"{name}_across", masks, rows, pads=[0, reach, 0, reach], strides=[1, level.step])
    sums = graph.conv(f"{name}_sums", across, columns, pads=[reach, 0, reach, 0], strides=[level.step, 1], group=5)
    mass, *moments = (
        graph.slice(f"{name}_{part}", sums, (1, index, None, 4))
        for index, part in enumerate(("mass", "mx", "my", "mq"))
    )
    nonzero_mass = graph.linear(f"{name}_some", mass, 1.0, 1e-6)
    x, y, square = (graph.node("Div", f"{moment}_mean", [moment, nonzero_mass]) for moment in moments)
    off = graph.node("Add", f"{name}_off", [graph.node("Mul", f"{name}_{part}2", [part, part]) for part in (x, y)])
    variance = graph.node("Sub", f"{name}_variance", [square, off])
    spots = graph.node("Concat", f"{name}_spots", [x, y], axis=1)
    size, aim, shape_terms = _shape_terms(graph, name, spots)
    terms = [_spot_terms(graph, name, mass, variance, size), _region_terms(graph, level, masks, size), *shape_terms]
    confidence = graph.clip(f"{name}_sure", graph.node("Min", f"{name}_least", terms))
    score = graph.node("Mul", f"{name}_score", [confidence, aim])
    return graph.node("Concat", f"{name}_seen", [score, spots], axis=1)


def _window_kernels(level: Level) -> tuple[Matrix, Matrix]:
    """Kernels for the sums over a window by two convolutions, one along the rows and one along the columns.

    (15, 4, 1, k): for each landmark the row sums of its mask m, of m x and of m x^2. (20, 3, k, 1), five groups:
    from those the sums of m, m x, m y and m (x^2 + y^2). x and y are relative to the window's centre.
    """
    reach = round(1.35 * level.eyes)
    cells = np.arange(-reach, reach + 1) / level.eyes
    rows = np.zeros((5, 3, 4, cells.size))
    columns = np.zeros((5, 4, 3, cells.size))
    for mark, ((centre_x, centre_y), (half_x, half_y)) in enumerate(zip(_expected(), _WINDOWS, strict=True)):
        dx, dy = cells - centre_x, cells - centre_y
        inside_x, inside_y = np.abs(dx) <= half_x, np.abs(dy) <= half_y
        rows[mark, :, _COLOUR_OF[mark]] = inside_x * np.stack([dx**0, dx, dx**2]) / level.eyes
        mass, first, second = inside_y * np.stack([dy**0, dy, dy**2]) / level.eyes
        columns[mark, 0, 0] = columns[mark, 1, 1] = columns[mark, 3, 2] = mass
        columns[mark, 2, 0], columns[mark, 3, 0] = first, second
    return rows.reshape(15, 4, 1, -1), columns.reshape(20, 3, -1, 1)


def _expected() -> Matrix:
    """(5, 2): the landmarks of an upright face, relative to its centre."""
    return np.asarray((np.array(TEMPLATE) - FACE_CENTRE) / EYE_DISTANCE)


def _spot_terms(graph: GraphBuilder, name: str, mass: str, variance: str, size: str) -> str:
    """[N, 1, h, w]: whether the worst landmark has enough of its colour, not too much, and all in one spot.

    Areas and variances are in squares of the eye distance found, `size`.
    """
    area = graph.node("Div", f"{name}_area", [mass, size])
    spread = graph.node("Div", f"{name}_spread", [variance, size])
    terms = [
        graph.ramp(f"{name}_enough", area, _AREAS * 0.06, _AREAS * 0.25),
        graph.ramp(f"{name}_not_much", area, _AREAS * _MAX_AREA_RATIOS[1], _AREAS * _MAX_AREA_RATIOS[0]),
        graph.ramp(f"{name}_one_spot", spread, _VARIANCES * 2, _VARIANCES),
    ]
    least = graph.node("Min", f"{name}_least_mark", terms)
    return graph.node("ReduceMin", f"{name}_worst_mark", [least], axes=[1], keepdims=1)


def _region_terms(graph: GraphBuilder, level: Level, masks: str, size: str) -> str:
    """[N, 1, h, w]: whether there is white around both irises, and no colour in a region that must not have it."""
    name, regions = level.name, (*_WHITES, *_FORBIDDEN)
    reach = round(1.35 * level.eyes)
    cells = np.arange(-reach, reach + 1) / level.eyes
    rows = np.zeros((len(regions), 4, 1, cells.size))
    columns = np.zeros((len(regions), 1, cells.size, 1))
    for index, (colour, (x, y), (half_x, half_y)) in enumerate(regions):
        rows[index, colour, 0] = (np.abs(cells - x) <= half_x) / level.eyes
        columns[index, 0, :, 0] = (np.abs(cells - y) <= half_y) / level.eyes
    across = graph.conv(f"{name}_places_across", masks, rows, pads=[0, reach, 0, reach], strides=[1, level.step])
    sums = graph.conv(
        f"{name}_places", across, columns, pads=[reach, 0, reach, 0], strides=[level.step, 1], group=len(regions)
    )
    area = graph.node("Div", f"{name}_places_area", [sums, size])
    zero, one = (
        np.r_[[0.005] * len(_WHITES), [0.10] * len(_FORBIDDEN)],
        np.r_[[0.03] * len(_WHITES), [0.04] * len(_FORBIDDEN)],
    )
    terms = graph.ramp(f"{name}_places_right", area, zero, one)
    return graph.node("ReduceMin", f"{name}_places_worst", [terms], axes=[1], keepdims=1)


def _shape_terms(graph: GraphBuilder, name: str, spots: str) -> tuple[str, str, list[str]]:
    """The square of the eye distance found, how well position and level fit it, and the terms; [N, 1, h, w] each.

    The terms say whether the spots are arranged as in a roughly upright face of about this size at this position. Of
    several positions that see the same face, the one that fits best must win, because its windows cut nothing off.
    """
    similarity, residual = _shape_matrices()
    upright = _expected().T.reshape(10)
    fit = graph.conv(f"{name}_fit", spots, similarity[:, :, None, None], similarity @ upright)
    rest = graph.conv(f"{name}_rest", spots, residual[:, :, None, None], residual @ upright)
    cos, sin, turn, shift = (
        graph.slice(f"{name}_{part}", fit, (1, start, stop, 1))
        for part, start, stop in (("cos", 0, 1), ("sin", 1, 2), ("turn", 0, 2), ("shift", 2, 4))
    )
    size = graph.linear(f"{name}_size", graph.square_sum(f"{name}_turn2", turn), 1.0, 1e-6)
    misfit = graph.node("Div", f"{name}_misfit", [graph.square_sum(f"{name}_rest2", rest), size])
    off = graph.node("Concat", f"{name}_off_all", [shift, graph.linear(f"{name}_off_size", cos, 1.0, -1.0)], axis=1)
    aim = graph.clip(
        f"{name}_aim", graph.linear(f"{name}_aim_line", graph.square_sum(f"{name}_off_sum", off), -0.7, 0.97)
    )
    return (
        size,
        aim,
        [
            graph.ramp(f"{name}_alike", misfit, 0.06, 0.02),
            graph.ramp(f"{name}_near", graph.square_sum(f"{name}_distance", shift), 0.5**2, 0.25**2),
            graph.ramp(f"{name}_large", cos, 0.6, 0.8),
            graph.ramp(f"{name}_small", cos, 1.5, 1.28),
            graph.ramp(f"{name}_left", sin, -0.6, -0.4),
            graph.ramp(f"{name}_right", sin, 0.6, 0.4),
        ],
    )


def _shape_matrices() -> tuple[Matrix, Matrix]:
    """(4, 10): scale cos, scale sin, shift x and y of the nearest similarity; (10, 10): the residual."""
    x, y = _expected().T
    one, zero = np.ones(5), np.zeros(5)
    basis = np.stack([np.r_[x, y], np.r_[-y, x], np.r_[one, zero], np.r_[zero, one]], axis=1)
    similarity = np.linalg.inv(basis.T @ basis) @ basis.T
    return similarity, np.eye(10) - basis @ similarity


def _best(graph: GraphBuilder, stride: int, views: list[tuple[Level, str]]) -> str:
    """[N, 11, h, w] on the stride's grid: of all positions and levels, the one with the highest score.

    x and y are converted to strides from the anchor's point.
    """
    best = ""
    for level, view in views:
        for row in range(level.positions):
            for column in range(level.positions):
                name = f"{level.name}_at{row}{column}"
                step = level.positions
                part = graph.slice(f"{name}_part", view, (2, row, None, step), (3, column, None, step))
                candidate = graph.linear(name, part, *_to_strides(level, row, column))
                best = _better(graph, f"{name}_best", best, candidate) if best else candidate
    return best


def _to_strides(level: Level, row: int, column: int) -> tuple[Matrix, Matrix]:
    """Gains and offsets (11 each) from eye distances at a grid position to strides from the anchor's point."""
    centre = (level.cell - 1) / 2  # of a cell, from its first pixel
    corner = level.cell * level.step * np.array([[column], [row]]) + centre
    pixels = corner + _expected().T * level.cell * level.eyes
    gain = np.full(10, level.cell * level.eyes / level.stride)
    return np.r_[1.0, gain], np.r_[0.0, pixels.reshape(10) / level.stride]


def _better(graph: GraphBuilder, name: str, one: str, other: str) -> str:
    scores = [graph.slice(f"{name}_score{index}", view, (1, 0, 1, 1)) for index, view in enumerate((one, other))]
    return graph.node("Where", name, [graph.node("Greater", f"{name}_other", scores[::-1]), other, one])


def _stride_outputs(graph: GraphBuilder, stride: int, anchors: list[str]) -> list[tuple[str, list[int | str]]]:
    """Scores, boxes (distances to the sides) and landmarks (x, y) of both anchors in the order of SCRFD."""
    similarity, _ = _shape_matrices()
    order = np.arange(10).reshape(2, 5).T.reshape(10)  # xxxxxyyyyy -> xyxyxyxyxy
    parts: list[list[str]] = [[], [], []]
    for number, best in enumerate(anchors):
        name = f"stride{stride}_{number}"
        spots = graph.slice(f"{name}_spots", best, (1, 1, None, 1))
        fit = graph.conv(f"{name}_fit", spots, similarity[:, :, None, None])
        turn = graph.slice(f"{name}_turn", fit, (1, 0, 2, 1))
        centre = graph.slice(f"{name}_centre", fit, (1, 2, 4, 1))
        scale = graph.node("Sqrt", f"{name}_scale", [graph.square_sum(f"{name}_scale2", turn)])
        both = graph.node("Concat", f"{name}_centre_scale", [centre, scale], axis=1)
        half_width, half_height = _HALF_SIZE
        sides = np.array([[-1, 0, half_width], [0, -1, half_height], [1, 0, half_width], [0, 1, half_height]])
        parts[0].append(graph.slice(f"{name}_score", best, (1, 0, 1, 1)))
        parts[1].append(graph.conv(f"{name}_box", both, sides[:, :, None, None]))
        parts[2].append(graph.conv(f"{name}_kps", spots, np.eye(10)[order][:, :, None, None]))
    outputs: list[tuple[str, list[int | str]]] = []
    for label, width, channels in zip(("score", "bbox", "kps"), (1, 4, 10), parts, strict=True):
        both = graph.node("Concat", f"{label}_{stride}_anchors", channels, axis=1)
        channels_last = graph.node("Transpose", f"{label}_{stride}_last", [both], perm=[2, 3, 0, 1])
        shape = graph.constant(f"{label}_{stride}_shape", np.array([-1, width]))
        outputs.append(
            (graph.node("Reshape", f"{label}_{stride}", [channels_last, shape]), [f"anchors_{stride}", width])
        )
    return outputs
