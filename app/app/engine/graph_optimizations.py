"""Optimizations of ONNX graphs before ONNX Runtime loads them, and changes that let them run in batches.

`bench/graph_optimizations.py` measures what they gain.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import count
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from app.core.onnx_graph import Graph, constant_nodes, real_inputs, reshapes

_log = logging.getLogger(__name__)

_DEQUANTIZE: Final = "DequantizeLinear"


def rewrite(model: Any, graph: Graph, *, free_batch: bool, for_cpu: bool, keep_quantized: bool = False) -> bool:
    """Optimize a model in place.

    Args:
        model: an onnx.ModelProto.
        graph: its description.
        free_batch: make the batch dimension dynamic.
        for_cpu: also replace operators that are slow on the CPU.
        keep_quantized: keep quantized weights, for runs in int8.

    Returns:
        Whether anything changed.
    """
    changed = not keep_quantized and _fold_quantized_weights(model)
    changed |= _drop_unused_inputs(model) | _free_input_size(model.graph, graph)
    if for_cpu:
        changed |= _split_prelu(model.graph)
    if graph.role == "recogniser":
        changed |= _fix_input_size(model.graph, graph)
    if free_batch:
        _free_batch(model.graph, graph)
        changed = True
    if changed:
        model.ir_version = max(model.ir_version, 4)  # older versions require every weight among the inputs
    return changed


def _fold_quantized_weights(model: Any) -> bool:
    """Replace quantized weights by floats, and the nodes that depend on weights alone by their results.

    Floats run faster, and ONNX Runtime cannot load the block-quantized files of OpenCV Zoo.
    """
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    graph = model.graph
    constant = constant_nodes(graph)
    nested = any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute)
    if nested or not any(node.op_type == _DEQUANTIZE for node in constant):
        return False
    computed = {name for node in constant if node.op_type != "Constant" for name in node.output}
    kept = [node for node in graph.node if node.output[0] not in computed]
    used = {name for node in kept for name in node.input} | {value.name for value in graph.output}
    needed = sorted(computed & used)
    weights = list(graph.initializer)
    values = [helper.make_empty_tensor_value_info(name) for name in needed]
    constant_graph = helper.make_graph(constant, "constants", [], values, weights)
    constant_model = helper.make_model(constant_graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    try:
        results = ReferenceEvaluator(constant_model).run(None, {})
    except Exception as failure:  # noqa: BLE001 - an operator it does not support, which ONNX Runtime may
        _log.info("the quantized weights are kept: %s", failure)
        return False
    del graph.node[:]
    graph.node.extend(kept)
    del graph.initializer[:]
    graph.initializer.extend(tensor for tensor in weights if tensor.name in used)
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(result), name)
        for name, result in zip(needed, results, strict=True)
    )
    return True


def _drop_unused_inputs(model: Any) -> bool:
    """Keep only the real input: ONNX Runtime does not treat weights listed as inputs as constants."""
    inputs = real_inputs(model.graph)
    if len(inputs) == len(model.graph.input):
        return False
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return True


def _split_prelu(graph: Any) -> bool:
    """Replace PRelu(x) by slope x + (1 - slope) Relu(x), for which ONNX Runtime has fast CPU kernels.

    The kernel of PRelu is slow and uses another memory layout than the convolutions around it.
    """
    from onnx import helper, numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    taken = {name for node in graph.node for name in (*node.input, *node.output)} | tensors.keys()
    new_names = (name for number in count() if (name := f"prelu_{number}") not in taken)
    nodes = []
    for node in graph.node:
        slope = _slope_of(node, tensors)
        if slope is None:
            nodes.append(node)
            continue
        slope_name, rest_name, relu, scaled_input, scaled_relu = (next(new_names) for _ in range(5))
        graph.initializer.append(numpy_helper.from_array(slope, slope_name))
        graph.initializer.append(numpy_helper.from_array((1 - slope).astype(slope.dtype), rest_name))
        nodes += [
            helper.make_node("Relu", [node.input[0]], [relu]),
            helper.make_node("Mul", [node.input[0], slope_name], [scaled_input]),
            helper.make_node("Mul", [relu, rest_name], [scaled_relu]),
            helper.make_node("Add", [scaled_input, scaled_relu], [node.output[0]]),
        ]
    if len(nodes) == len(graph.node):
        return False
    del graph.node[:]
    graph.node.extend(nodes)
    return True


def _slope_of(node: Any, tensors: Mapping[str, Any]) -> npt.NDArray[Any] | None:
    """The slope as (1, C, 1, 1), which can be fused into a convolution; None if not a PRelu with one per channel."""
    from onnx import numpy_helper

    if node.op_type != "PRelu" or node.input[1] not in tensors:
        return None
    slope = numpy_helper.to_array(tensors[node.input[1]])
    if slope.ndim not in (3, 4) or slope.shape[-2:] != (1, 1):
        return None
    return slope.reshape(1, -1, 1, 1)


def _fix_input_size(onnx_graph: Any, graph: Graph) -> bool:
    """Replace dynamic sides of a recogniser's input by fixed ones, by which InsightFace recognises it."""
    dims = _dims(onnx_graph, graph)[2:]
    if graph.input_size is None or all(dim.dim_value for dim in dims):
        return False
    for dim, side in zip(dims, reversed(graph.input_size), strict=True):
        dim.Clear()
        dim.dim_value = side
    return True


def _free_input_size(onnx_graph: Any, graph: Graph) -> bool:
    """Make the sides of a detector's input dynamic if the graph names a size but does not depend on it."""
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
    del onnx_graph.value_info[:]  # intermediate shapes, for the named size
    return True


def _free_batch(onnx_graph: Any, graph: Graph) -> None:
    """Make the batch dimension dynamic; published detectors fix it at 1."""
    _make_dynamic(_dims(onnx_graph, graph)[0])
    for value in onnx_graph.output:
        dims = value.type.tensor_type.shape.dim
        if len(dims) == 4 or (len(dims) == 3 and dims[0].dim_value == 1):
            _make_dynamic(dims[0])
        else:
            value.type.tensor_type.ClearField("shape")  # not (H*W*anchors, C) with a batch inside
    if graph.role == "recogniser":
        _free_reshapes(onnx_graph)
    del onnx_graph.value_info[:]  # intermediate shapes, for a batch of 1


def _free_reshapes(onnx_graph: Any) -> None:
    """Let Reshape nodes that flatten a crop's features to (1, n) return (N, n)."""
    from onnx import numpy_helper

    for number, (node, shape) in enumerate(reshapes(onnx_graph)):
        if shape is None or shape.size < 2 or shape[0] != 1:
            continue
        freed = shape.copy()
        freed[0] = 0 if -1 in shape else -1  # 0: as in the input of the node
        node.input[1] = f"freed_{number}_{node.input[1]}"
        onnx_graph.initializer.append(numpy_helper.from_array(freed, node.input[1]))


def _dims(onnx_graph: Any, graph: Graph) -> Any:
    source = next(value for value in onnx_graph.input if value.name == graph.input_name)
    return source.type.tensor_type.shape.dim


def _make_dynamic(dim: Any) -> None:
    dim.ClearField("dim_value")
    dim.dim_param = "N"
