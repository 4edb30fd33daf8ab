"""quantization: a recogniser that runs in int8, close to fp32, on crops that it was not calibrated with."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.core.errors import OceanoError
from app.core.types import Floats, ModelPack, Pixels
from app.demo import draw_portrait
from app.engine import openvino_runtime
from app.engine.network import Network
from app.engine.placement import Runtime, place
from app.engine.quantization import LEAST_FACES, quantize

PLAIN = place("cpu", threads=1)
QUICK = {"MinMax": 24}


def convolutions(path: Path, *, opset: int = 17, swing: float = 1.0) -> Path:
    """A recogniser of four convolutions, one of them depthwise, with a PRelu, a Clip and a normalization.

    `swing`: how much one channel exceeds the others; if it does, the embedding does not depend on it.
    """
    rng = np.random.default_rng(4)
    weights = []

    def weight(name: str, values: Floats) -> str:
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def conv(name: str, source: str, taken: int, given: int, side: int, stride: int, group: int = 1) -> onnx.NodeProto:
        shape = (given, taken // group, side, side)
        values = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        if name == "d" and swing > 1:
            values[:, 0] = 0
        inputs = [source, weight(f"{name}_w", values)]
        pads = [side // 2] * 4
        return helper.make_node("Conv", inputs, [name], strides=[stride] * 2, group=group, pads=pads)

    ones = np.ones(16)
    normal = [weight(f"bn{n}", values) for n, values in enumerate((0.5 * ones, 0.1 * ones, 0 * ones, ones))]
    scale = np.where(np.arange(16) == 0, swing, 1.0)
    nodes = [
        conv("a", "data", 3, 16, 3, 4),
        helper.make_node("BatchNormalization", ["a", *normal], ["a1"]),
        helper.make_node("PRelu", ["a1", weight("slope", np.full((16, 1, 1), 0.2))], ["a2"]),
        conv("b", "a2", 16, 16, 3, 2, group=16),
        helper.make_node("Clip", ["b", weight("zero", np.array(0)), weight("six", np.array(6))], ["b1"]),
        conv("c", "b1", 16, 16, 1, 1),
        helper.make_node("Mul", ["c", weight("scale", scale.reshape(1, 16, 1, 1))], ["c1"]),
        conv("d", "c1", 16, 32, 3, 2),
        helper.make_node("Flatten", ["d"], ["flat"]),
        helper.make_node("MatMul", ["flat", weight("last", rng.normal(size=(32 * 49, 64)) / 40)], ["embedding"]),
    ]
    taken = [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["N", 3, 112, 112])]
    given = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 64])]
    made = helper.make_graph(nodes, "small", taken, given, weights)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def crops() -> list[Pixels]:
    return [draw_portrait(person, person % 3, (112, 112)) for person in range(32)]


def unit(network: Network, crops: list[Pixels]) -> Floats:
    raw = np.concatenate([outputs[0] for _, _, outputs in network.batches(crops)])
    return np.asarray(raw / np.linalg.norm(raw, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("opset", [12, 17])
def test_a_quantized_recogniser_is_close_to_fp32_on_other_crops(
    opset: int, crops: list[Pixels], tmp_path: Path
) -> None:
    model, target = convolutions(tmp_path / "r.onnx", opset=opset), tmp_path / "int8.onnx"
    result = quantize(model, crops, target, calibrated=QUICK)
    assert (result.calibrated, result.checked) == (24, 8)
    assert 0.97 <= result.lowest <= result.median < 1
    others = [draw_portrait(person, 1, (112, 112)) for person in range(40, 50)]
    in_int8 = Network(target, replace(PLAIN, precision="int8"), max_batch=8)
    cosines = (unit(in_int8, others) * unit(Network(model, PLAIN, max_batch=8), others)).sum(axis=1)
    assert cosines.min() > 0.97 and cosines.max() < 0.999999, "in fp32 they would be the same"
    assert not list(tmp_path.glob(".quantize-*"))


def test_convolutions_run_in_int8_kernels_and_the_first_one_in_floats(crops: list[Pixels], tmp_path: Path) -> None:
    target = tmp_path / "int8.onnx"
    result = quantize(convolutions(tmp_path / "r.onnx"), crops, target, calibrated=QUICK)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(target), options, ["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    in_int8 = sum(number for kind, number in kinds.items() if kind.startswith("QLinearConv"))
    in_floats = sum(number for kind, number in kinds.items() if kind in ("Conv", "FusedConv"))
    assert (in_int8, in_floats) == ((3, 1) if result.depthwise else (2, 2)), kinds


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_engine_keeps_the_quantized_weights_only_in_int8(
    runtime: Runtime, crops: list[Pixels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if runtime == "openvino" and not openvino_runtime.installed():
        pytest.skip("OpenVINO is not installed")
    model, target = convolutions(tmp_path / "r.onnx"), tmp_path / "int8.onnx"
    quantize(model, crops, target, calibrated=QUICK)
    saved: list[Counter[str]] = []
    real = onnx.save

    def save(loaded: onnx.ModelProto, file: Path) -> None:
        saved.append(Counter(node.op_type for node in loaded.graph.node))
        real(loaded, file)

    monkeypatch.setattr(onnx, "save", save)
    network = Network(target, replace(PLAIN, runtime=runtime, precision="int8"), max_batch=8)
    assert saved[-1]["QuantizeLinear"] and saved[-1]["DequantizeLinear"] > saved[-1]["QuantizeLinear"]
    cosines = (unit(network, crops) * unit(Network(model, PLAIN, max_batch=8), crops)).sum(axis=1)
    assert cosines.min() > 0.97


def test_a_graph_without_convolutions_has_its_matrix_products_quantized(
    crops: list[Pixels], demo_pack: ModelPack, tmp_path: Path
) -> None:
    target = tmp_path / "int8.onnx"
    quantize(demo_pack.recogniser, crops, target, calibrated=QUICK, least=0.5)
    assert "DequantizeLinear" in {node.op_type for node in onnx.load(target).graph.node}


def test_a_result_that_differs_too_much_is_refused_and_leaves_no_file(crops: list[Pixels], tmp_path: Path) -> None:
    model = convolutions(tmp_path / "r.onnx", swing=3000)
    with pytest.raises(OceanoError, match="median cosine to fp32") as raised:
        quantize(model, crops, tmp_path / "int8.onnx", calibrated=QUICK)
    assert raised.value.code == "quantization_failed"
    assert {path.name for path in tmp_path.iterdir()} == {"r.onnx"}


def test_too_few_crops_are_refused(crops: list[Pixels], tmp_path: Path) -> None:
    with pytest.raises(OceanoError, match=f"{LEAST_FACES - 1} faces were found") as raised:
        quantize(convolutions(tmp_path / "r.onnx"), crops[: LEAST_FACES - 1], tmp_path / "int8.onnx")
    assert raised.value.code == "face_not_found"


def test_a_graph_that_the_quantizer_cannot_read_is_refused_with_a_reason(
    crops: list[Pixels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("an operator without a conversion")

    monkeypatch.setattr(onnx.version_converter, "convert_version", fails)
    with pytest.raises(OceanoError, match="without a conversion") as raised:
        quantize(convolutions(tmp_path / "r.onnx", opset=12), crops, tmp_path / "int8.onnx", calibrated=QUICK)
    assert raised.value.code == "quantization_failed"


def test_quantizing_prints_nothing(crops: list[Pixels], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    quantize(convolutions(tmp_path / "r.onnx"), crops, tmp_path / "int8.onnx", calibrated={"Percentile": 8})
    assert capfd.readouterr() == ("", "")
