"""An Intel GPU: what OpenVINO is asked for, with a fake of it, and what is said where there is none."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.types import ModelPack
from app.embeddings import FaceEngine
from app.engine import intel, openvino_runtime
from app.engine.choice import RuntimeSettings, choose
from app.engine.network import Network
from app.engine.onnx_runtime import probe
from app.engine.placement import place
from app.engine.prepared import Cache


class FakeCompiled:
    outputs = ("embedding",)

    def __call__(self, inputs: dict[str, Any]) -> list[Any]:
        return [np.full((1, 8, 30, 30), 27, np.float32)]


class FakeCore:
    """Lists devices, and notes what is compiled for which one."""

    def __init__(self, *devices: str) -> None:
        self.available_devices = list(devices)
        self.shapes: list[dict[str, list[int]]] = []
        self.compiled: list[tuple[str, dict[str, Any]]] = []

    def read_model(self, _: object) -> Any:
        return SimpleNamespace(reshape=self.shapes.append)

    def compile_model(self, _: object, device: str, options: dict[str, Any]) -> FakeCompiled:
        if device not in {name.partition(".")[0] for name in self.available_devices}:
            raise RuntimeError(f"no device {device}")
        self.compiled.append((device, options))
        return FakeCompiled()


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> FakeCore:
    """OpenVINO with two Intel GPUs."""
    fake = FakeCore("CPU", "GPU.0", "GPU.1")
    monkeypatch.setattr(intel.util, "find_spec", lambda _: object())
    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(Core=lambda: fake))
    monkeypatch.setattr(openvino_runtime, "_core", lambda: fake)
    monkeypatch.setattr(openvino_runtime, "version", lambda: "2026.4")
    return fake


@pytest.mark.parametrize(("precision", "hint"), [("auto", "f32"), ("fp32", "f32"), ("fp16", "f16")])
def test_a_network_is_compiled_for_the_gpu_in_its_precision_for_one_image(
    precision: Any, hint: str, core: FakeCore, demo_pack: ModelPack, tmp_path: Path
) -> None:
    placement = replace(place("intel_gpu", threads=1), streams=2, cache=Cache(tmp_path / "kept", "a model"))
    wanted = RuntimeSettings("auto", precision, tmp_path / "runtimes.json", "now")
    placed, info = choose(demo_pack.recogniser, "recogniser", "digest", placement, wanted)
    assert (info.runtime, info.reason) == ("openvino", "an Intel GPU runs in OpenVINO")
    network = Network(demo_pack.recogniser, placed, max_batch=1)
    assert network.provider == "OpenVINO GPU"
    folder = tmp_path / "kept" / "openvino"
    assert core.compiled == [
        ("GPU", {"INFERENCE_PRECISION_HINT": hint, "NUM_STREAMS": 2, "CACHE_DIR": str(folder)}),
    ]
    assert folder.is_dir() and not (tmp_path / "runtimes.json").exists()
    assert [list(shape.values()) for shape in core.shapes] == [[[1, 3, 112, 112]]]


def test_a_folder_that_cannot_be_made_is_done_without(core: FakeCore, demo_pack: ModelPack, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file in place of the folder")
    placement = replace(place("intel_gpu", threads=1), cache=Cache(tmp_path / "kept", "a model"))
    Network(demo_pack.recogniser, placement, max_batch=1)
    assert "CACHE_DIR" not in core.compiled[0][1]


@pytest.mark.parametrize(
    ("runtime", "precision", "named"),
    [("onnxruntime", "auto", "RUNTIME=onnxruntime"), ("auto", "bf16", "PRECISION=bf16"), ("auto", "int8", "=int8")],
)
def test_what_the_gpu_cannot_run_is_refused(
    runtime: Any, precision: Any, named: str, core: FakeCore, tmp_path: Path
) -> None:
    wanted = RuntimeSettings(runtime, precision, tmp_path / "runtimes.json", "now")
    with pytest.raises(OceanoError, match=f"{named} is for the CPU, and the model runs on an Intel GPU") as raised:
        choose(tmp_path / "r.onnx", "recogniser", "digest", place("intel_gpu", threads=1), wanted)
    assert raised.value.code == "invalid_setting"


def test_a_driver_that_cannot_compile_is_reported_and_the_cpu_is_not_used_instead(
    core: FakeCore, demo_pack: ModelPack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNTIME")
    placement = place("intel_gpu", threads=1)
    core.available_devices = ["CPU"]
    with pytest.raises(OceanoError, match=r"DEVICE=intel_gpu, but .*no device GPU") as raised:
        Network(demo_pack.recogniser, placement, max_batch=1)
    assert raised.value.code == "device_unavailable"
    with pytest.raises(OceanoError, match="finds no Intel GPU") as raised:
        FaceEngine(demo_pack, Settings(_env_file=None, device="intel_gpu"))
    assert raised.value.code == "device_unavailable"


def test_a_probe_computes_on_the_gpu(core: FakeCore) -> None:
    found = probe("intel_gpu")
    assert (found.device, found.provider) == ("intel_gpu", "OpenVINO GPU")
    assert core.compiled == [("GPU", {"INFERENCE_PRECISION_HINT": "f32"})]


def test_without_openvino_or_without_a_gpu_it_is_said_what_is_missing(
    core: FakeCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    core.available_devices = ["CPU"]
    with pytest.raises(OceanoError, match=r"finds no Intel GPU \(only: CPU\): install OpenVINO and Intel's OpenCL"):
        place("intel_gpu", threads=1)
    monkeypatch.setattr(intel.util, "find_spec", lambda _: None)
    with pytest.raises(OceanoError, match="OpenVINO is not installed") as raised:
        place("intel_gpu", threads=1)
    assert raised.value.code == "device_unavailable"


@pytest.mark.parametrize("wanted", ["auto", "cpu"])
def test_a_gpu_that_nobody_asked_for_is_not_used(wanted: str, core: FakeCore) -> None:
    assert not place(wanted, threads=1).on_gpu
