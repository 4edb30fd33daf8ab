"""sessions: where models run, in batches of which size, and what is done when memory is full."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import onnx
import pytest

from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.types import DeviceInfo, Floats, ModelPack
from app.demo import draw_portrait
from app.embeddings import FaceEngine
from app.engine.network import Network
from app.engine.onnx_runtime import probe
from app.engine.placement import place
from app.packs import in_precision

OFFERED = ["CUDAExecutionProvider", "CPUExecutionProvider"]


def _engine(pack: ModelPack, device: str) -> FaceEngine:
    return FaceEngine(pack, Settings(_env_file=None, device=device))


def test_cuda_that_is_not_there_is_refused_and_auto_says_what_it_took(
    demo_pack: ModelPack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(OceanoError) as raised:
        _engine(demo_pack, "cuda")
    assert raised.value.code == "device_unavailable"
    device = _engine(demo_pack, "auto").device
    assert (device.device, device.provider) == ("cpu", "CPUExecutionProvider")
    assert "does not support CUDA" in device.reason


def test_without_a_driver_cuda_is_refused_before_onnxruntime_is_asked(
    demo_pack: ModelPack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: OFFERED)
    monkeypatch.setattr("app.engine.placement.driver_problem", lambda *_: "no NVIDIA driver is installed")
    with pytest.raises(OceanoError, match="no NVIDIA driver") as raised:
        _engine(demo_pack, "cuda")
    assert raised.value.code == "device_unavailable"
    device = _engine(demo_pack, "auto").device
    assert (device.device, device.reason) == ("cpu", "no NVIDIA driver is installed")


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider'")
def test_cuda_that_is_offered_but_falls_back_to_the_cpu_is_refused(
    demo_pack: ModelPack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: OFFERED)
    monkeypatch.setattr("app.engine.placement.driver_problem", lambda *_: None)
    with pytest.raises(OceanoError) as raised:
        _engine(demo_pack, "cuda")
    assert raised.value.code == "device_unavailable"
    assert _engine(demo_pack, "auto").device.device == "cpu"


@pytest.fixture
def recogniser(demo_pack: ModelPack) -> Network:
    return Network(demo_pack.recogniser, place("cpu", threads=1), max_batch=8)


CROPS = [np.full((112, 112, 3), 20 * number, np.uint8) for number in range(11)]


def test_batches_are_of_at_most_the_size_asked_for(recogniser: Network) -> None:
    parts = [(part.start, part.stop, padded) for part, padded, _ in recogniser.batches(CROPS)]
    assert parts == [(0, 8, 8), (8, 11, 3)]
    assert list(recogniser.batches([])) == []


def test_the_gate_is_entered_for_each_run_and_left_before_the_next(recogniser: Network) -> None:
    gate = MagicMock()
    for number, _ in enumerate(recogniser.batches(CROPS, gate), start=1):
        assert gate.__enter__.call_count == number
        assert gate.__exit__.call_count == number, "between two runs, other images have their turn"
    assert gate.__enter__.call_count == 2


def test_on_cuda_batches_are_padded_to_a_few_sizes(demo_pack: ModelPack) -> None:
    on_cpu = place("cpu", threads=1)
    network = Network(demo_pack.recogniser, on_cpu, max_batch=8)
    network._pad = True  # what a placement on CUDA sets
    whole = [outputs[0][: part.stop - part.start] for part, _, outputs in network.batches(CROPS)]
    assert [padded for _, padded, _ in network.batches(CROPS)] == [8, 4]
    (plain,) = [o for _, _, o in Network(demo_pack.recogniser, on_cpu, max_batch=16).batches(CROPS)]
    assert np.abs(np.concatenate(whole) - plain[0]).max() < 1e-4


@pytest.mark.parametrize(
    "said",
    [
        "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 9",
        "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0",
        "CUDA failure 2: out of memory ; GPU=0",
    ],
)
def test_when_memory_is_full_the_batch_is_halved_and_everything_is_still_run(
    recogniser: Network, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sizes = recogniser.run, []

    def run(blob: Floats) -> list[Floats]:
        sizes.append(len(blob))
        if len(blob) > 2:
            raise RuntimeError(said)
        return real(blob)

    monkeypatch.setattr(recogniser, "run", run)
    parts = [part for part, _, _ in recogniser.batches(CROPS)]
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 1]
    assert [place for part in parts for place in range(part.start, part.stop)] == list(range(11))
    assert [part.stop for part, _, _ in recogniser.batches(CROPS[:3])] == [2, 3]  # it stays so


def test_a_single_picture_for_which_there_is_no_memory_fails(
    recogniser: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_: Floats) -> list[Floats]:
        raise RuntimeError("CUDA failure 2: out of memory")

    monkeypatch.setattr(recogniser, "run", run)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(recogniser.batches(CROPS))


def test_a_detector_whose_batch_is_fixed_at_one_runs_in_batches(demo_pack: ModelPack, tmp_path: Path) -> None:
    model = onnx.load(demo_pack.detector)
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    fixed = tmp_path / "det.onnx"
    onnx.save(model, fixed)
    network = Network(fixed, place("cpu", threads=1), max_batch=4)
    frames = [draw_portrait(person, 0, (160, 160)) for person in range(4)]
    ((_, _, together),) = network.batches(frames)
    alone = [outputs for one in frames for _, _, outputs in network.batches([one])]
    for place_of, output in enumerate(together):
        rows = output.reshape(4, -1) if output.ndim == 3 else output.reshape(-1, 4, 2, output.shape[-1])
        if output.ndim == 2:
            rows = rows.transpose(1, 0, 2, 3).reshape(4, -1)
        for row, single in zip(rows, alone, strict=True):
            assert np.abs(row - single[place_of].ravel()).max() < 1e-4


def test_half_precision_is_another_model(demo_pack: ModelPack, tmp_path: Path) -> None:
    half = in_precision(demo_pack, "fp16", tmp_path)
    assert half.digest != demo_pack.digest
    assert in_precision(demo_pack, "fp32", tmp_path) is demo_pack
    placement = place("cpu", threads=1)
    network = Network(demo_pack.recogniser, replace(placement, precision="fp16"), max_batch=8)
    ((_, _, (rough,)),) = network.batches([draw_portrait(1, 0, (112, 112))])
    ((_, _, (fine,)),) = Network(demo_pack.recogniser, placement, max_batch=8).batches(
        [draw_portrait(1, 0, (112, 112))]
    )
    assert not np.array_equal(rough, fine)
    assert float(rough[0] @ fine[0] / np.linalg.norm(rough) / np.linalg.norm(fine)) > 0.99


def test_a_probe_runs_where_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe("cpu") == DeviceInfo("cpu", "CPUExecutionProvider", "DEVICE=cpu")
    assert probe("auto").device == "cpu"
    with pytest.raises(OceanoError) as raised:
        probe("cuda")
    assert raised.value.code == "device_unavailable"


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider'")
def test_a_probe_finds_that_cuda_is_offered_and_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: OFFERED)
    monkeypatch.setattr("app.engine.placement.driver_problem", lambda *_: None)
    with pytest.raises(OceanoError, match="fell back to the CPU"):
        probe("cuda")
    assert probe("auto").device == "cpu"
