"""A recogniser of the size of ResNet-100 (ArcFace IR-100: 65 million weights, 12 GMAC), with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_BLOCKS = ((3, 64), (13, 128), (30, 256), (3, 512))


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(100)

    def weight(self, values: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def conv(self, x: str, taken: int, given: int, side: int, stride: int = 1) -> str:
        spread = np.sqrt(2 / (taken * side * side))
        weight = self.weight(spread * self._rng.standard_normal((given, taken, side, side), np.float32))
        return self.node("Conv", [x, weight], kernel_shape=[side] * 2, strides=[stride] * 2, pads=[side // 2] * 4)

    def norm(self, x: str, channels: int, scale: float = 1.0) -> str:
        ones, zeros = np.ones(channels), np.zeros(channels)
        values = [self.weight(one) for one in (scale * ones, zeros, zeros, ones)]
        return self.node("BatchNormalization", [x, *values])

    def prelu(self, x: str, channels: int) -> str:
        return self.node("PRelu", [x, self.weight(np.full((channels, 1, 1), 0.25))])


def write_resnet100(path: Path) -> None:
    onnx.save(resnet100(), path)


def resnet100() -> onnx.ModelProto:
    """The graph: [N, 3, 112, 112] to [N, 512]."""
    graph = _Graph()
    x = graph.prelu(graph.conv("data", 3, 64, 3), 64)
    taken = 64
    for count, given in _BLOCKS:
        for place in range(count):
            stride = 2 if place == 0 else 1
            y = graph.conv(graph.norm(x, taken), taken, given, 3)
            y = graph.conv(graph.prelu(y, given), given, given, 3, stride)
            y = graph.norm(y, given, 0.2)  # small steps, so that 100 layers of noise do not wipe out the picture
            x = graph.node("Add", [y, graph.conv(x, taken, given, 1, stride) if stride == 2 else x])
            taken = given
    x = graph.node("Flatten", [graph.norm(x, taken)])
    graph.nodes[-1].output[0] = "flat"
    graph.nodes.append(helper.make_node("MatMul", ["flat", graph.weight(_projection())], ["embedding"]))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "resnet100",
            [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["N", 3, 112, 112])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 512])],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    model.ir_version = 8
    return model


def _projection() -> np.ndarray:
    values = np.random.default_rng(101).standard_normal((512 * 49, 512), np.float32)
    return np.asarray(values / np.sqrt(512 * 49), np.float32)
