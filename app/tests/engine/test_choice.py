"""choice: the fastest runtime that agrees with fp32, measured once and remembered."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.types import ModelPack, RuntimeTrial
from app.embeddings import FaceEngine
from app.engine import choice, openvino_runtime
from app.engine.choice import Role, RuntimeSettings, choose
from app.engine.placement import Placement, Precision, Runtime, place

ORT: tuple[Runtime, Precision] = ("onnxruntime", "fp32")
OV: tuple[Runtime, Precision] = ("openvino", "fp32")
BF16: tuple[Runtime, Precision] = ("openvino", "bf16")


@pytest.fixture
def cpu() -> Placement:
    return place("cpu", threads=1)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if OpenVINO were installed, on a processor without BF16."""
    monkeypatch.setattr(openvino_runtime, "installed", lambda: True)
    monkeypatch.setattr(openvino_runtime, "version", lambda: "2026.4")
    monkeypatch.setattr(openvino_runtime, "precisions", lambda: ("fp32",))


def settings_in(folder: Path, runtime: Any = "auto", precision: Any = "auto") -> RuntimeSettings:
    return RuntimeSettings(runtime, precision, folder / "state" / "runtimes.json")


def trial(way: tuple[Runtime, Precision], milliseconds: float | None, cosine: float | None) -> RuntimeTrial:
    return RuntimeTrial(*way, milliseconds, cosine, "" if milliseconds else "crashed with SIGILL")


def measured(*trials: RuntimeTrial) -> Callable[..., list[RuntimeTrial]]:
    return lambda *_: list(trials)


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        ([trial(ORT, 100, 1.0), trial(OV, 110, 1.0), trial(BF16, 46, 0.9999)], BF16),
        ([trial(ORT, 100, 1.0), trial(OV, 80, 1.0), trial(BF16, 46, 0.9989)], OV),
        ([trial(ORT, 100, 1.0), trial(OV, 95, 1.0), trial(BF16, None, None)], ORT),
        ([trial(ORT, 100, 1.0), trial(OV, None, None), trial(BF16, None, None)], ORT),
        ([trial(ORT, None, None)], ORT),
    ],
    ids=["bf16 agrees", "bf16 differs", "hardly faster", "OpenVINO crashes", "nothing runs"],
)
def test_the_fastest_runtime_that_agrees_with_fp32_is_chosen(
    trials: list[RuntimeTrial],
    expected: tuple[Runtime, Precision],
    installed: None,
    cpu: Placement,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choice, "_try_all", measured(*trials))
    placed, info = choose(tmp_path / "r.onnx", "recogniser", "digest", cpu, settings_in(tmp_path))
    assert (placed.runtime, placed.precision) == expected == (info.runtime, info.precision)
    assert (placed.providers, placed.threads) == (cpu.providers, cpu.threads)
    assert info.trials == tuple(trials) and info.reason


def test_a_result_is_measured_once_for_each_model_and_version(
    installed: None, cpu: Placement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def count(*_: object) -> list[RuntimeTrial]:
        calls.append(1)
        return [trial(ORT, 100, 1.0), trial(OV, 50, 1.0)]

    monkeypatch.setattr(choice, "_try_all", count)

    def chosen(role: Role = "recogniser", identity: str = "digest") -> str:
        return choose(tmp_path / "r.onnx", role, identity, cpu, settings_in(tmp_path))[0].runtime

    assert [chosen(), chosen(), chosen()] == ["openvino"] * 3
    assert len(calls) == 1
    chosen("detector")
    chosen(identity="another model")
    monkeypatch.setattr(openvino_runtime, "version", lambda: "2026.5")
    chosen()
    assert len(calls) == 4


def test_nothing_is_kept_of_a_measurement_whose_baseline_failed(
    installed: None, cpu: Placement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = settings_in(tmp_path)
    monkeypatch.setattr(choice, "_try_all", measured(trial(ORT, None, None)))
    assert choose(tmp_path / "r.onnx", "recogniser", "digest", cpu, asked)[0].runtime == "onnxruntime"
    monkeypatch.setattr(choice, "_try_all", measured(trial(ORT, 100, 1.0), trial(OV, 50, 1.0)))
    assert choose(tmp_path / "r.onnx", "recogniser", "digest", cpu, asked)[0].runtime == "openvino"


@pytest.mark.parametrize("content", ["", "[]", '{"key": [{"no": "trial"}]}', "\0"])
def test_a_damaged_file_of_results_is_replaced(
    content: str, installed: None, cpu: Placement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "_try_all", measured(trial(ORT, 100, 1.0), trial(OV, 50, 1.0)))
    asked = settings_in(tmp_path)
    asked.file.parent.mkdir()
    asked.file.write_text(content)
    assert choose(tmp_path / "r.onnx", "recogniser", "digest", cpu, asked)[0].runtime == "openvino"
    assert len(json.loads(asked.file.read_text())) == 1


def test_results_that_cannot_be_kept_are_used_all_the_same(
    installed: None, cpu: Placement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "_try_all", measured(trial(ORT, 100, 1.0), trial(OV, 50, 1.0)))
    (tmp_path / "state").write_text("a file in place of the folder")
    assert choose(tmp_path / "r.onnx", "recogniser", "digest", cpu, settings_in(tmp_path))[0].runtime == "openvino"


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed with SIGSEGV"),
        ("import sys; sys.exit('no such instruction')", "no such instruction"),
        ("import time; time.sleep(60)", "not finished after 0.5 s"),
    ],
)
def test_a_runtime_that_crashes_is_skipped_with_a_reason(
    program: str,
    problem: str,
    installed: None,
    cpu: Placement,
    demo_pack: ModelPack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda _, **options: real([sys.executable, "-c", program], **options))
    monkeypatch.setattr(choice, "_TRIAL_SECONDS", 0.5 if "sleep" in program else 60)
    monkeypatch.setattr(choice, "_try", _only_openvino(choice._try))
    placed, info = choose(demo_pack.detector, "detector", "digest", cpu, settings_in(tmp_path))
    assert placed.runtime == "onnxruntime"
    assert [one.problem for one in info.trials] == ["", problem]
    assert problem in info.reason


def _only_openvino(real: Callable[..., Any]) -> Callable[..., Any]:
    def attempt(model: Path, runtime: Runtime, precision: Precision) -> Any:
        return (1.0, [], "") if runtime == "onnxruntime" else real(model, runtime, precision)

    return attempt


@pytest.mark.parametrize(
    ("runtime", "precision", "message"),
    [
        ("onnxruntime", "bf16", "needs OpenVINO on a CPU"),
        ("openvino", "bf16", "no instructions for it; set PRECISION=fp32, whose index is the same"),
        ("auto", "bf16", "no instructions for it"),
        ("openvino", "fp16", "no instructions for it; set PRECISION=fp32"),
    ],
)
def test_a_precision_that_is_not_available_is_refused(
    runtime: str, precision: str, message: str, installed: None, cpu: Placement, tmp_path: Path
) -> None:
    with pytest.raises(OceanoError, match=message) as raised:
        choose(tmp_path / "r.onnx", "recogniser", "digest", cpu, settings_in(tmp_path, runtime, precision))
    assert raised.value.code == "invalid_setting"


def test_openvino_that_is_not_installed_is_refused_only_where_it_is_asked_for(
    cpu: Placement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_runtime, "installed", lambda: False)
    placed, info = choose(tmp_path / "r.onnx", "recogniser", "digest", cpu, settings_in(tmp_path))
    assert (placed.runtime, info.reason) == ("onnxruntime", "OpenVINO is not installed")
    with pytest.raises(OceanoError, match="OpenVINO is not installed") as raised:
        choose(tmp_path / "r.onnx", "recogniser", "digest", cpu, settings_in(tmp_path, "openvino"))
    assert raised.value.code == "invalid_setting"


@pytest.mark.parametrize(("runtime", "precision"), [("openvino", "auto"), ("auto", "bf16"), ("auto", "int8")])
def test_on_cuda_only_onnxruntime_runs(runtime: str, precision: str, tmp_path: Path) -> None:
    cuda = Placement((("CUDAExecutionProvider", {}),), "CUDA is available")
    with pytest.raises(OceanoError, match="set DEVICE=cpu") as raised:
        choose(tmp_path / "r.onnx", "recogniser", "digest", cuda, settings_in(tmp_path, runtime, precision))
    assert raised.value.code == "invalid_setting"
    placed, info = choose(tmp_path / "r.onnx", "recogniser", "digest", cuda, settings_in(tmp_path))
    assert (placed.runtime, placed.precision, info.trials) == ("onnxruntime", "fp32", ())


def test_the_detector_stays_in_fp32_where_the_recogniser_runs_in_bf16(
    installed: None, cpu: Placement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_runtime, "precisions", lambda: ("fp32", "bf16"))
    monkeypatch.setattr(choice, "_try_all", measured(trial(ORT, 100, 1.0), trial(OV, 50, 1.0)))
    asked = settings_in(tmp_path, "auto", "bf16")
    assert choose(tmp_path / "d.onnx", "detector", "digest", cpu, asked)[0].precision == "fp32"
    assert choose(tmp_path / "r.onnx", "recogniser", "digest", cpu, asked)[0].precision == "bf16"


def test_int8_runs_only_where_it_is_asked_for_in_the_faster_runtime_that_agrees(
    installed: None, cpu: Placement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_runtime, "precisions", lambda: ("fp32", "bf16", "int8"))
    tried: list[tuple[Runtime, Precision]] = []

    def attempt(_: Path, runtime: Runtime, precision: Precision) -> Any:
        tried.append((runtime, precision))
        output = np.array([1.0, 0.1 if runtime == "openvino" else 0.0], np.float32)
        return (50.0 if runtime == "openvino" else 100.0), [output], ""

    monkeypatch.setattr(choice, "_try", attempt)
    placed, _ = choose(tmp_path / "r.onnx", "recogniser", "a", cpu, settings_in(tmp_path, "auto", "int8"))
    assert (placed.runtime, placed.precision) == ("openvino", "int8")
    assert tried == [("onnxruntime", "int8"), ("openvino", "int8")], "a quantized file is compared with itself"
    placed, _ = choose(tmp_path / "d.onnx", "detector", "a", cpu, settings_in(tmp_path, "auto", "int8"))
    assert placed.precision == "fp32"
    tried.clear()
    choose(tmp_path / "r.onnx", "recogniser", "a", cpu, settings_in(tmp_path))
    assert tried and "int8" not in {precision for _, precision in tried}


def test_an_engine_measures_the_runtimes_and_says_what_it_chose(
    demo_pack: ModelPack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    monkeypatch.delenv("RUNTIME")
    monkeypatch.setattr(choice, "_MEASURED_SECONDS", 0)
    settings = Settings(_env_file=None, device="cpu", data_dir=tmp_path)
    runtimes = FaceEngine(demo_pack, settings).device.runtimes
    assert runtimes.keys() == {"detector", "recogniser"}
    for info in runtimes.values():
        fp32 = [one for one in info.trials if one.precision == "fp32"]
        assert [one.runtime for one in fp32] == ["onnxruntime", "openvino"]
        assert all(one.milliseconds and (one.cosine or 0) > 0.9999 for one in fp32), fp32
        assert info.reason.startswith("measured on this machine")
    monkeypatch.setattr(choice, "_try_all", lambda *_: pytest.fail("it is remembered"))
    assert FaceEngine(demo_pack, settings).device.runtimes == runtimes
