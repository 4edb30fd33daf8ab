"""graph_optimizations: graphs with quirks run, alone and in batches, and give what they gave before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from app.core.errors import OceanoError
from app.core.onnx_graph import Graph, describe
from app.core.types import Floats
from app.engine.graph_optimizations import rewrite
from app.engine.network import Network
from app.engine.placement import place
from tests.support.packs import embedder, graph, yunet


def _network(tmp_path: Path, content: bytes, *, max_batch: int = 1) -> Network:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    return Network(path, place("cpu", threads=1), max_batch=max_batch)


def _crops(count: int, side: int = 112) -> Floats:
    return np.random.default_rng(3).uniform(0, 255, (count, 3, side, side)).astype(np.float32)


@pytest.mark.parametrize(
    "quirks", [{}, {"unused_input": True}, {"quantized": True}, {"flatten": True}, {"prelu": True}, {"old": True}]
)
@pytest.mark.parametrize("max_batch", [1, 4])
def test_a_graph_with_quirks_gives_what_the_standard_says(
    tmp_path: Path, quirks: dict[str, bool], max_batch: int
) -> None:
    content = embedder(**quirks, operations=("Sub", "Mul"))  # type: ignore[arg-type]
    crops = _crops(max_batch)
    (ours,) = _network(tmp_path, content, max_batch=max_batch).run(crops)
    model = onnx.load_from_string(content)
    if quirks.get("unused_input"):
        del model.graph.input[1]
    theirs = np.concatenate([ReferenceEvaluator(model).run(None, {"data": crop[None]})[0] for crop in crops])
    assert ours.shape == (max_batch, 64)
    assert np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max()


def test_quantized_weights_become_floats_once_and_their_operations_go(tmp_path: Path) -> None:
    model = onnx.load_from_string(embedder(quantized=True))
    seen = describe(model)
    assert isinstance(seen, Graph)
    assert rewrite(model, seen, free_batch=False, for_cpu=True)
    assert {node.op_type for node in model.graph.node} == {"AveragePool", "Flatten", "Gemm"}
    assert {tensor.name for tensor in model.graph.initializer} == {"w"}


@pytest.mark.parametrize("opset", [13, 19])
def test_quantized_weights_of_older_graphs_run_as_they_are_where_they_cannot_be_computed(
    tmp_path: Path, opset: int
) -> None:
    content = embedder(quantized=True, opset=opset)
    (ours,) = _network(tmp_path, content, max_batch=3).run(_crops(3))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    theirs = np.concatenate([session.run(None, {"data": crop[None]})[0] for crop in _crops(3)])
    assert np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max()


def test_a_graph_whose_crops_depend_on_each_other_runs_one_by_one(tmp_path: Path) -> None:
    network = _network(tmp_path, embedder(mixing=True), max_batch=4)
    crops = [np.random.default_rng(seed).integers(0, 255, (112, 112, 3), dtype=np.uint8) for seed in range(4)]
    runs = list(network.batches(crops))
    assert [part for part, _, _ in runs] == [slice(place, place + 1) for place in range(4)]
    (alone,) = _network(tmp_path, embedder(mixing=True)).batches(crops[3:])
    assert np.array_equal(runs[3][2][0], alone[2][0])


def test_a_recogniser_that_leaves_its_sides_free_loads(tmp_path: Path) -> None:
    model = onnx.load_from_string(embedder())
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.Clear()
    assert _network(tmp_path, model.SerializeToString(), max_batch=2).graph.input_size == (112, 112)


def test_prelu_of_another_shape_and_names_that_are_taken_stay_right(tmp_path: Path) -> None:
    content = embedder(prelu=True)
    for name, slope in (("(C,)", [[[0.2]]]), ("taken", None)):
        model = onnx.load_from_string(content)
        slopes = next(tensor for tensor in model.graph.initializer if tensor.name == "slopes")
        if slope is not None:
            slopes.CopyFrom(numpy_helper.from_array(np.array(slope, np.float32)[0, 0], "slopes"))
        else:
            for tensor in model.graph.initializer:
                if tensor.name == "middle":
                    tensor.name = "prelu_0"
            for node in model.graph.node:
                for place, given in enumerate(node.input):
                    if given == "middle":
                        node.input[place] = "prelu_0"
        (ours,) = _network(tmp_path, model.SerializeToString()).run(_crops(1))
        (theirs,) = ReferenceEvaluator(model).run(None, {"data": _crops(1)})
        assert np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max(), name


def test_prelu_goes_on_the_cpu_only() -> None:
    for on_cpu in (True, False):
        model = onnx.load_from_string(embedder(prelu=True))
        seen = describe(model)
        assert isinstance(seen, Graph)
        assert rewrite(model, seen, free_batch=False, for_cpu=on_cpu) == on_cpu
        assert ("PRelu" in {node.op_type for node in model.graph.node}) != on_cpu


def test_a_graph_without_quirks_stays_as_it_is() -> None:
    content = embedder()
    model = onnx.load_from_string(content)
    seen = describe(model)
    assert isinstance(seen, Graph)
    assert not rewrite(model, seen, free_batch=False, for_cpu=True)
    assert model.SerializeToString() == content


def test_a_detector_that_names_a_size_takes_any(tmp_path: Path) -> None:
    network = _network(tmp_path, yunet(64), max_batch=2)
    assert network.graph.input_size is None
    outputs = network.run(_crops(2, 96))
    assert [output.size for output in outputs[:3]] == [2 * 144, 2 * 36, 2 * 9]


def test_what_is_no_face_model_is_refused_with_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(OceanoError) as raised:
        _network(tmp_path, graph([[1, 3, 96, 96]], [[1, 3]]))
    assert raised.value.code == "model_corrupt"
    assert "not a face model: another model, input 96x96" in raised.value.message
