"""ONNX graphs made ready to run: weights as floats, no unused inputs, a free batch dimension."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import count
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from app.core.onnx_graph import Graph, constant_nodes, real_inputs, reshapes

_log = logging.getLogger(__name__)

_QUANTIZED: Final = "DequantizeLinear"


def rewrite(model: Any, graph: Graph, *, free_batch: bool, for_cpu: bool) -> bool:
    """Change an onnx.ModelProto, that `graph` describes, in place; False if it was ready as it was.

    What each step is worth: bench/rewriting.py.
    """
    changed = _fold(model) | _drop_inputs(model) | _free_size(model.graph, graph)
    if for_cpu:
        changed |= _split_prelu(model.graph)
    if graph.role == "recogniser":
        changed |= _name_size(model.graph, graph)
    if free_batch:
        _free_batch(model.graph, graph)
        changed = True
    if changed:
        model.ir_version = max(model.ir_version, 4)  # before, every weight had to be listed among the inputs
    return changed


def _fold(model: Any) -> bool:
    """Compute once what depends on quantized weights alone: weights as floats are quicker, and ONNX Runtime refuses the
    block-quantized files of OpenCV Zoo as they are.
    """
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    graph = model.graph
    constant = constant_nodes(graph)
    nested = any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute)
    if nested or not any(node.op_type == _QUANTIZED for node in constant):
        return False
    computed = {name for node in constant if node.op_type != "Constant" for name in node.output}
    kept = [node for node in graph.node if node.output[0] not in computed]
    used = {name for node in kept for name in node.input} | {value.name for value in graph.output}
    wanted = sorted(computed & used)
    weights = list(graph.initializer)
    values = [helper.make_empty_tensor_value_info(name) for name in wanted]
    part = helper.make_graph(constant, "constants", [], values, weights)
    folding = helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
    try:
        results = ReferenceEvaluator(folding).run(None, {})
    except Exception as failure:  # noqa: BLE001 - an operator that it does not know; ONNX Runtime may
        _log.info("the quantized weights stay as they are: %s", failure)
        return False
    del graph.node[:]
    graph.node.extend(kept)
    del graph.initializer[:]
    graph.initializer.extend(tensor for tensor in weights if tensor.name in used)
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(result), name)
        for name, result in zip(wanted, results, strict=True)
    )
    return True


def _drop_inputs(model: Any) -> bool:
    """Leave only the real input: weights that are listed as inputs are no constants to ONNX Runtime."""
    inputs = real_inputs(model.graph)
    if len(inputs) == len(model.graph.input):
        return False
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return True


def _split_prelu(graph: Any) -> bool:
    """PRelu(x) as slope x + (1 - slope) Relu(x), to which ONNX Runtime has quick kernels for the CPU.

    PRelu has a slow one, and one in another memory layout than that of the convolutions around it.
    """
    from onnx import helper, numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    taken = {name for node in graph.node for name in (*node.input, *node.output)} | tensors.keys()
    fresh = (name for number in count() if (name := f"prelu_{number}") not in taken)
    nodes = []
    for node in graph.node:
        slope = _slope_of(node, tensors)
        if slope is None:
            nodes.append(node)
            continue
        below, above, relu, low, high = (next(fresh) for _ in range(5))
        graph.initializer.append(numpy_helper.from_array(slope, below))
        graph.initializer.append(numpy_helper.from_array((1 - slope).astype(slope.dtype), above))
        nodes += [
            helper.make_node("Relu", [node.input[0]], [relu]),
            helper.make_node("Mul", [node.input[0], below], [low]),
            helper.make_node("Mul", [relu, above], [high]),
            helper.make_node("Add", [low, high], [node.output[0]]),
        ]
    if len(nodes) == len(graph.node):
        return False
    del graph.node[:]
    graph.node.extend(nodes)
    return True


def _slope_of(node: Any, tensors: Mapping[str, Any]) -> npt.NDArray[Any] | None:
    """(1, C, 1, 1), which becomes part of a convolution; None for what is no PRelu with a slope for each channel."""
    from onnx import numpy_helper

    if node.op_type != "PRelu" or node.input[1] not in tensors:
        return None
    slope = numpy_helper.to_array(tensors[node.input[1]])
    if slope.ndim not in (3, 4) or slope.shape[-2:] != (1, 1):
        return None
    return slope.reshape(1, -1, 1, 1)


def _name_size(onnx_graph: Any, graph: Graph) -> bool:
    """InsightFace tells a recogniser by the sides of its input, which some graphs leave free."""
    dims = _dims(onnx_graph, graph)[2:]
    if graph.input_size is None or all(dim.dim_value for dim in dims):
        return False
    for dim, side in zip(dims, reversed(graph.input_size), strict=True):
        dim.Clear()
        dim.dim_value = side
    return True


def _free_size(onnx_graph: Any, graph: Graph) -> bool:
    """Let a detector whose graph names a size, but does not depend on it, take pictures of any."""
    dims = _dims(onnx_graph, graph)
    if graph.role != "detector" or graph.input_size is not None or not any(dim.dim_value for dim in dims[2:]):
        return False
    for dim, name in zip(dims[2:], ("height", "width"), strict=True):
        dim.Clear()
        dim.dim_param = name
    for value in onnx_graph.output:  # (1, cells, C)
        for cells in value.type.tensor_type.shape.dim[1:2]:
            cells.Clear()
            cells.dim_param = f"cells_{value.name}"
    del onnx_graph.value_info[:]  # shapes in between, for the size that was named
    return True


def _free_batch(onnx_graph: Any, graph: Graph) -> None:
    """The batch dimension, which published detectors fix at 1."""
    _free(_dims(onnx_graph, graph)[0])
    for value in onnx_graph.output:
        dims = value.type.tensor_type.shape.dim
        if len(dims) == 4 or (len(dims) == 3 and dims[0].dim_value == 1):
            _free(dims[0])
        else:
            value.type.tensor_type.ClearField("shape")  # (H*W*anchors, C) no longer, with a batch inside
    if graph.role == "recogniser":
        _free_reshapes(onnx_graph)
    del onnx_graph.value_info[:]  # shapes in between, for a batch of 1


def _free_reshapes(onnx_graph: Any) -> None:
    """A crop's features flattened to (1, n) become (N, n)."""
    from onnx import numpy_helper

    for number, (node, shape) in enumerate(reshapes(onnx_graph)):
        if shape is None or shape.size < 2 or shape[0] != 1:
            continue
        freed = shape.copy()
        freed[0] = 0 if -1 in shape else -1  # 0: as the features have it
        node.input[1] = f"freed_{number}_{node.input[1]}"
        onnx_graph.initializer.append(numpy_helper.from_array(freed, node.input[1]))


def _dims(onnx_graph: Any, graph: Graph) -> Any:
    taken = next(value for value in onnx_graph.input if value.name == graph.input_name)
    return taken.type.tensor_type.shape.dim


def _free(dim: Any) -> None:
    dim.ClearField("dim_value")
    dim.dim_param = "N"
