"""The demo pack's detector: an ONNX graph that finds drawn faces by their five coloured landmarks.

It has the inputs, outputs and decoding of SCRFD (strides 8, 16 and 32, two anchors), and nothing in it is
learnt. For each of nine sizes of face, at each place of a grid:

1. three colour masks (irises, nose, dimples), averaged down so that the eyes are 7 or 10 cells apart;
2. in a window for each landmark, by convolution, the mask's mass, mean position and spread;
3. a score: is there enough of each colour, all in one spot, and do the five spots lie as in a face?

The box follows from the landmarks, so all places that see the same face give the same box, and the
non-maximum suppression behind the graph leaves one of them. Lengths are in eye distances unless said.
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
_COLOUR_OF: Final = (_EYE, _EYE, _NOSE, _DIMPLE, _DIMPLE)  # which mask each landmark shows in
_WINDOWS: Final = ((0.48, 0.55), (0.48, 0.55), (0.46, 0.46), (0.40, 0.48), (0.40, 0.48))  # half width and height
_WHITES: Final = ((_WHITE, (-0.5, -0.3), (0.45, 0.4)), (_WHITE, (0.5, -0.3), (0.45, 0.4)))
"""Colour, middle, half width and height of where the white of the eyes must be."""
_FORBIDDEN: Final = (
    (_EYE, (0.0, 0.6), (0.70, 0.3)),
    (_NOSE, (0.0, -0.4), (0.75, 0.15)),
    (_NOSE, (0.0, 0.85), (0.60, 0.15)),
    (_DIMPLE, (0.0, -0.15), (0.75, 0.4)),
)
"""The same, for where a colour must not be."""
_AREAS: Final = np.array([0.115, 0.115, 0.065, 0.036, 0.036])
_VARIANCES: Final = np.array([0.034, 0.034, 0.024, 0.020, 0.020])  # the most a spot may have
_MOST: Final = np.array([[1.35, 1.35, 1.5, 1.7, 1.7], [1.7, 1.7, 2.0, 2.4, 2.4]])  # times its area, good and bad


@dataclass(frozen=True, slots=True)
class Level:
    """One size of face: `eyes` cells between the eyes on a map of `cell` pixels, looked for every `step` cells."""

    stride: int
    anchor: int
    cell: int
    eyes: int
    step: int

    @property
    def name(self) -> str:
        return f"eyes{self.cell * self.eyes}"

    @property
    def places(self) -> int:
        """Places of the grid along a side of the stride's cell."""
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
    """Input [1, 3, H, W] float, (x - 127.5) / 128, RGB; nine outputs as SCRFD's."""
    graph = GraphBuilder("oceano_demo_detector", version)
    masks = _colour_masks(graph)
    seen = [_look(graph, level, masks[level.cell]) for level in LEVELS]
    outputs: list[tuple[str, list[int | str]]] = []
    for stride in STRIDES:
        anchors = [
            [(level, view) for level, view in zip(LEVELS, seen, strict=True) if (level.stride, level.anchor) == place]
            for place in ((stride, 0), (stride, 1))
        ]
        outputs += _stride_outputs(graph, stride, [_best(graph, stride, candidates) for candidates in anchors])
    kinds = [outputs[kind :: len(STRIDES)] for kind in range(3)]
    return graph.model(("input.1", [1, 3, "height", "width"]), [output for kind in kinds for output in kind])


def _colour_masks(graph: GraphBuilder) -> dict[int, str]:
    """Cell size -> [N, 4, H / cell, W / cell]: how much of each colour and of white there is, 0 to 1."""
    # a colour is where two differences of channels are both large enough; in values of 255:
    red, green, blue = np.eye(3)
    differences = (
        np.stack([green - red, red - blue, blue - red]),
        np.stack([blue - red, blue - green, blue - 2 * green + red]),
    )
    begins, full = np.array([22.0, 11.0, 15.0]), np.array([62.0, 36.0, 48.0])
    gain = (128 / (full - begins))[:, None]
    sides = [
        graph.conv(f"difference{place}", "input.1", (weights * gain)[:, :, None, None], -begins / (full - begins))
        for place, weights in enumerate(differences)
    ]
    colours = graph.node("Min", "least_difference", sides)
    darkest = graph.node("ReduceMin", "darkest", ["input.1"], axes=[1], keepdims=1)
    white = graph.ramp("white", darkest, (135 - 127.5) / 128, (175 - 127.5) / 128)
    masks = {1: graph.clip("mask1", graph.node("Concat", "colours_white", [colours, white], axis=1))}
    for cell in (2, 4, 8, 16):
        masks[cell] = graph.node("AveragePool", f"mask{cell}", [masks[cell // 2]], kernel_shape=[2, 2], strides=[2, 2])
    return masks


def _look(graph: GraphBuilder, level: Level, masks: str) -> str:
    """[N, 11, h, w] on the level's grid: the score, x of the five spots, y of the five spots.

    x and y are eye distances from where the landmark would be if an upright face stood at the place.
    """
    name = level.name
    rows, columns = _window_kernels(level)
    reach = rows.shape[-1] // 2
    across = graph.conv(f"{name}_across", masks, rows, pads=[0, reach, 0, reach], strides=[1, level.step])
    sums = graph.conv(f"{name}_sums", across, columns, pads=[reach, 0, reach, 0], strides=[level.step, 1], group=5)
    mass, *moments = (
        graph.slice(f"{name}_{part}", sums, (1, place, None, 4))
        for place, part in enumerate(("mass", "mx", "my", "mq"))
    )
    some = graph.linear(f"{name}_some", mass, 1.0, 1e-6)
    x, y, square = (graph.node("Div", f"{moment}_mean", [moment, some]) for moment in moments)
    off = graph.node("Add", f"{name}_off", [graph.node("Mul", f"{name}_{part}2", [part, part]) for part in (x, y)])
    variance = graph.node("Sub", f"{name}_variance", [square, off])
    spots = graph.node("Concat", f"{name}_spots", [x, y], axis=1)
    size, aim, shape_terms = _shape_terms(graph, name, spots)
    terms = [_spot_terms(graph, name, mass, variance, size), _place_terms(graph, level, masks, size), *shape_terms]
    sure = graph.clip(f"{name}_sure", graph.node("Min", f"{name}_least", terms))
    score = graph.node("Mul", f"{name}_score", [sure, aim])
    return graph.node("Concat", f"{name}_seen", [score, spots], axis=1)


def _window_kernels(level: Level) -> tuple[Matrix, Matrix]:
    """A window's sums as two convolutions, one along the rows and one along the columns.

    (15, 4, 1, k): for each landmark the row sums of its mask m, of m x and of m x^2. (20, 3, k, 1), five groups:
    from those the sums of m, m x, m y and m (x^2 + y^2). x and y count from the window's middle.
    """
    reach = round(1.35 * level.eyes)
    cells = np.arange(-reach, reach + 1) / level.eyes
    rows = np.zeros((5, 3, 4, cells.size))
    columns = np.zeros((5, 4, 3, cells.size))
    for mark, ((middle_x, middle_y), (half_x, half_y)) in enumerate(zip(_expected(), _WINDOWS, strict=True)):
        dx, dy = cells - middle_x, cells - middle_y
        inside_x, inside_y = np.abs(dx) <= half_x, np.abs(dy) <= half_y
        rows[mark, :, _COLOUR_OF[mark]] = inside_x * np.stack([dx**0, dx, dx**2]) / level.eyes
        one, first, second = inside_y * np.stack([dy**0, dy, dy**2]) / level.eyes
        columns[mark, 0, 0] = columns[mark, 1, 1] = columns[mark, 3, 2] = one
        columns[mark, 2, 0], columns[mark, 3, 0] = first, second
    return rows.reshape(15, 4, 1, -1), columns.reshape(20, 3, -1, 1)


def _expected() -> Matrix:
    """(5, 2): the landmarks of an upright face, from its centre."""
    return np.asarray((np.array(TEMPLATE) - FACE_CENTRE) / EYE_DISTANCE)


def _spot_terms(graph: GraphBuilder, name: str, mass: str, variance: str, size: str) -> str:
    """[N, 1, h, w]: for the worst landmark, is there enough of its colour, not too much, and all in one spot?

    Areas and variances are taken in squares of the eye distance found, `size`.
    """
    area = graph.node("Div", f"{name}_area", [mass, size])
    spread = graph.node("Div", f"{name}_spread", [variance, size])
    terms = [
        graph.ramp(f"{name}_enough", area, _AREAS * 0.06, _AREAS * 0.25),
        graph.ramp(f"{name}_not_much", area, _AREAS * _MOST[1], _AREAS * _MOST[0]),
        graph.ramp(f"{name}_one_spot", spread, _VARIANCES * 2, _VARIANCES),
    ]
    least = graph.node("Min", f"{name}_least_mark", terms)
    return graph.node("ReduceMin", f"{name}_worst_mark", [least], axes=[1], keepdims=1)


def _place_terms(graph: GraphBuilder, level: Level, masks: str, size: str) -> str:
    """[N, 1, h, w]: is there white around both irises, and no colour where it does not belong?"""
    name, places = level.name, (*_WHITES, *_FORBIDDEN)
    reach = round(1.35 * level.eyes)
    cells = np.arange(-reach, reach + 1) / level.eyes
    rows = np.zeros((len(places), 4, 1, cells.size))
    columns = np.zeros((len(places), 1, cells.size, 1))
    for place, (colour, (x, y), (half_x, half_y)) in enumerate(places):
        rows[place, colour, 0] = (np.abs(cells - x) <= half_x) / level.eyes
        columns[place, 0, :, 0] = (np.abs(cells - y) <= half_y) / level.eyes
    across = graph.conv(f"{name}_places_across", masks, rows, pads=[0, reach, 0, reach], strides=[1, level.step])
    sums = graph.conv(
        f"{name}_places", across, columns, pads=[reach, 0, reach, 0], strides=[level.step, 1], group=len(places)
    )
    area = graph.node("Div", f"{name}_places_area", [sums, size])
    none, some = (
        np.r_[[0.005] * len(_WHITES), [0.10] * len(_FORBIDDEN)],
        np.r_[[0.03] * len(_WHITES), [0.04] * len(_FORBIDDEN)],
    )
    terms = graph.ramp(f"{name}_places_right", area, none, some)
    return graph.node("ReduceMin", f"{name}_places_worst", [terms], axes=[1], keepdims=1)


def _shape_terms(graph: GraphBuilder, name: str, spots: str) -> tuple[str, str, list[str]]:
    """The square of the eye distance found; how well place and level fit it; and the terms. [N, 1, h, w] each.

    The terms: do the spots lie as in a face of about this size, here, and about upright? Of several places that
    see the same face the one that fits best must win, because its windows cut nothing off.
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
    """(4, 10): scale cos, scale sin, shift x and y of the nearest similarity; (10, 10): what it leaves over."""
    x, y = _expected().T
    one, zero = np.ones(5), np.zeros(5)
    basis = np.stack([np.r_[x, y], np.r_[-y, x], np.r_[one, zero], np.r_[zero, one]], axis=1)
    similarity = np.linalg.inv(basis.T @ basis) @ basis.T
    return similarity, np.eye(10) - basis @ similarity


def _best(graph: GraphBuilder, stride: int, seen: list[tuple[Level, str]]) -> str:
    """[N, 11, h, w] on the stride's grid: of all places and levels, the one with the highest score.

    x and y become strides from the anchor's point.
    """
    best = ""
    for level, view in seen:
        for row in range(level.places):
            for column in range(level.places):
                name = f"{level.name}_at{row}{column}"
                every = level.places
                part = graph.slice(f"{name}_part", view, (2, row, None, every), (3, column, None, every))
                candidate = graph.linear(name, part, *_to_strides(level, row, column))
                best = _better(graph, f"{name}_best", best, candidate) if best else candidate
    return best


def _to_strides(level: Level, row: int, column: int) -> tuple[Matrix, Matrix]:
    """Gains and offsets (11 each) from eye distances at a place of the grid to strides from the anchor's point."""
    middle = (level.cell - 1) / 2  # of a cell, from its first pixel
    corner = level.cell * level.step * np.array([[column], [row]]) + middle
    pixels = corner + _expected().T * level.cell * level.eyes
    gain = np.full(10, level.cell * level.eyes / level.stride)
    return np.r_[1.0, gain], np.r_[0.0, pixels.reshape(10) / level.stride]


def _better(graph: GraphBuilder, name: str, one: str, other: str) -> str:
    scores = [graph.slice(f"{name}_score{place}", view, (1, 0, 1, 1)) for place, view in enumerate((one, other))]
    return graph.node("Where", name, [graph.node("Greater", f"{name}_other", scores[::-1]), other, one])


def _stride_outputs(graph: GraphBuilder, stride: int, anchors: list[str]) -> list[tuple[str, list[int | str]]]:
    """Scores, boxes (distances to the sides) and landmarks (x, y) of both anchors as SCRFD hands them out."""
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
        wide, high = _HALF_SIZE
        sides = np.array([[-1, 0, wide], [0, -1, high], [1, 0, wide], [0, 1, high]])
        parts[0].append(graph.slice(f"{name}_score", best, (1, 0, 1, 1)))
        parts[1].append(graph.conv(f"{name}_box", both, sides[:, :, None, None]))
        parts[2].append(graph.conv(f"{name}_kps", spots, np.eye(10)[order][:, :, None, None]))
    outputs: list[tuple[str, list[int | str]]] = []
    for label, width, channels in zip(("score", "bbox", "kps"), (1, 4, 10), parts, strict=True):
        both = graph.node("Concat", f"{label}_{stride}_anchors", channels, axis=1)
        turned = graph.node("Transpose", f"{label}_{stride}_last", [both], perm=[2, 3, 0, 1])
        shape = graph.constant(f"{label}_{stride}_shape", np.array([-1, width]))
        outputs.append((graph.node("Reshape", f"{label}_{stride}", [turned, shape]), [f"anchors_{stride}", width]))
    return outputs
