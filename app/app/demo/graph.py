"""A builder of ONNX graphs, with a method for each kind of node that the demo pack needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx

OPSET: Final = 12
IR_VERSION: Final = 7  # supported by every onnxruntime since 1.6


class GraphBuilder:
    """A builder that collects nodes and constants.

    Methods take the name of the tensor that they create and return it. The same calls give the same bytes: nothing
    depends on the time, the machine or the order of a set.

    Args:
        name: the graph's name.
        version: the model's version.
    """

    def __init__(self, name: str, version: int) -> None:
        self._name = name
        self._version = version
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def node(self, operator: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node with one output.

        Args:
            operator: the ONNX operator.
            name: name of the output.
            inputs: names of the inputs.
            attributes: attributes of the node.
        """
        from onnx import helper

        self._nodes.append(helper.make_node(operator, list(inputs), [name], name=f"node_{name}", **attributes))
        return name

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        """Add a constant, stored as int64 if all its numbers are integers, otherwise as float32."""
        from onnx import numpy_helper

        array = np.asarray(value)
        kind = np.int64 if np.issubdtype(array.dtype, np.integer) else np.float32
        self._constants.append(
            numpy_helper.from_array(np.ascontiguousarray(array.astype(kind)).reshape(array.shape), name)
        )
        return name

    def conv(
        self, name: str, source: str, weights: npt.ArrayLike, bias: npt.ArrayLike | None = None, **attributes: Any
    ) -> str:
        """Add a convolution.

        Args:
            name: name of the output.
            source: name of the input, (N, C, H, W).
            weights: (out, C / groups, kernel height, kernel width).
            bias: (out,), none by default.
            attributes: attributes of the node.
        """
        inputs = [source, self.constant(f"{name}_weights", weights)]
        if bias is not None:
            inputs.append(self.constant(f"{name}_bias", bias))
        return self.node("Conv", name, inputs, **attributes)

    def linear(self, name: str, source: str, gain: npt.ArrayLike, offset: npt.ArrayLike) -> str:
        """Add gain * source + offset; gain and offset are one number or one for each channel."""
        scaled = self.node(
            "Mul", f"{name}_scaled", [source, self.constant(f"{name}_gain", np.reshape(gain, (1, -1, 1, 1)))]
        )
        return self.node("Add", name, [scaled, self.constant(f"{name}_offset", np.reshape(offset, (1, -1, 1, 1)))])

    def ramp(self, name: str, source: str, zero: npt.ArrayLike, one: npt.ArrayLike) -> str:
        """Add a linear function that is 0 at `zero` and 1 at `one`, not clipped."""
        low, high = np.asarray(zero, np.float64), np.asarray(one, np.float64)
        return self.linear(name, source, 1 / (high - low), -low / (high - low))

    def slice(self, name: str, source: str, *cuts: tuple[int, int, int | None, int]) -> str:
        """Add a slice; each cut is (axis, start, stop or None, step)."""
        axes, starts, stops, steps = zip(*cuts, strict=True)
        last = np.iinfo(np.int64).max
        numbers = (
            ("starts", starts),
            ("stops", [last if stop is None else stop for stop in stops]),
            ("axes", axes),
            ("steps", steps),
        )
        inputs = [source] + [self.constant(f"{name}_{label}", np.array(values, np.int64)) for label, values in numbers]
        return self.node("Slice", name, inputs)

    def clip(self, name: str, source: str) -> str:
        """Add a node that clips its input to 0 to 1."""
        return self.node(
            "Clip",
            name,
            [source, self.constant(f"{name}_zero", np.array(0.0)), self.constant(f"{name}_one", np.array(1.0))],
        )

    def square_sum(self, name: str, source: str) -> str:
        """Add the sum of squares over the channels."""
        return self.node("ReduceSumSquare", name, [source], axes=[1], keepdims=1)

    def model(
        self, source: tuple[str, list[int | str]], outputs: Sequence[tuple[str, list[int | str]]]
    ) -> onnx.ModelProto:
        """Build and check the model. Shapes hold numbers, and names for dynamic dimensions.

        Args:
            source: name and shape of the input.
            outputs: names and shapes of the outputs.

        Raises:
            onnx.checker.ValidationError: if the model is invalid.
        """
        import onnx
        from onnx import helper

        def value_info(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

        graph = helper.make_graph(
            self._nodes,
            self._name,
            [value_info(*source)],
            [value_info(*output) for output in outputs],
            initializer=self._constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_operatorsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="oceano",
            model_version=self._version,
        )
        onnx.checker.check_model(model)
        return model
