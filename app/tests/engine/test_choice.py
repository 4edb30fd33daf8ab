"""choice: the fastest runtime that agrees with fp32, measured once and remembered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.types import ModelPack, RuntimeTrial
from app.embeddings import FaceEngine
from app.engine import measuring, openvino_runtime
from app.engine.choice import Measure, Role, RuntimeSettings, choose
from app.engine.measuring import Job, Way
from app.engine.placement import Placement, place

ORT: Way = ("onnxruntime", "fp32")
OV: Way = ("openvino", "fp32")
BF16: Way = ("openvino", "bf16")


@pytest.fixture
def cpu() -> Placement:
    return place("cpu", threads=1)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if OpenVINO were installed, on a processor without BF16."""
    monkeypatch.setattr(openvino_runtime, "installed", lambda: True)
    monkeypatch.setattr(openvino_runtime, "version", lambda: "2026.4")
    monkeypatch.setattr(openvino_runtime, "precisions", lambda: ("fp32",))


def settings_in(
    folder: Path, runtime: Any = "auto", precision: Any = "auto", measure: Measure = "now"
) -> RuntimeSettings:
    return RuntimeSettings(runtime, precision, folder / "state" / "runtimes.json", measure)


def trial(way: Way, milliseconds: float | None, cosine: float | None) -> RuntimeTrial:
    return RuntimeTrial(*way, milliseconds, cosine, "" if milliseconds else "crashed with SIGILL")


def measured(*trials: RuntimeTrial) -> Callable[[Job], tuple[RuntimeTrial, ...]]:
    return lambda _: trials


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
    expected: Way,
    installed: None,
    cpu: Placement,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measuring, "_measured", measured(*trials))
    placed, info = choose(tmp_path / "r.onnx", "recogniser", "digest", cpu, settings_in(tmp_path))
    assert (placed.runtime, placed.precision) == expected == (info.runtime, info.precision)
    assert (placed.providers, placed.threads) == (cpu.providers, cpu.threads)
    assert info.trials == tuple(trials) and info.reason


def test_a_result_is_measured_once_for_each_model_and_version(
    installed: None, cpu: Placement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def count(_: Job) -> tuple[RuntimeTrial, ...]:
        calls.append(1)
        return trial(ORT, 100, 1.0), trial(OV, 50, 1.0)

    monkeypatch.setattr(measuring, "_measured", count)

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
    monkeypatch.setattr(measuring, "_measured", measured(trial(ORT, None, None)))
    assert choose(tmp_path / "r.onnx", "recogniser", "digest", cpu, asked)[0].runtime == "onnxruntime"
    monkeypatch.setattr(measuring, "_measured", measured(trial(ORT, 100, 1.0), trial(OV, 50, 1.0)))
    assert choose(tmp_path / "r.onnx", "recogniser", "digest", cpu, asked)[0].runtime == "openvino"


@pytest.mark.parametrize("content", ["", "[]", '{"key": [{"no": "trial"}]}', "\0"])
def test_a_damaged_file_of_results_is_replaced(
    content: str, installed: None, cpu: Placement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "_measured", measured(trial(ORT, 100, 1.0), trial(OV, 50, 1.0)))
    asked = settings_in(tmp_path)
    asked.file.parent.mkdir()
    asked.file.write_text(content)
    assert choose(tmp_path / "r.onnx", "recogniser", "digest", cpu, asked)[0].runtime == "openvino"
    assert len(json.loads(asked.file.read_text())) == 1


def test_results_that_cannot_be_kept_are_used_all_the_same(
    installed: None, cpu: Placement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "_measured", measured(trial(ORT, 100, 1.0), trial(OV, 50, 1.0)))
    (tmp_path / "state").write_text("a file in place of the folder")
    assert choose(tmp_path / "r.onnx", "recogniser", "digest", cpu, settings_in(tmp_path))[0].runtime == "openvino"


def test_what_is_not_measured_runs_in_onnxruntime_until_it_is(
    installed: None, cpu: Placement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Job] = []

    def measure(job: Job) -> tuple[RuntimeTrial, ...]:
        jobs.append(job)
        return trial(ORT, 100, 1.0), trial(OV, 50, 1.0), trial(BF16, None, None)

    monkeypatch.setattr(measuring, "_measured", measure)

    def chosen(measure: Measure) -> tuple[str, str]:
        placed, info = choose(tmp_path / "r.onnx", "recogniser", "a", cpu, settings_in(tmp_path, measure=measure))
        return placed.runtime, info.reason.partition(":")[0]

    assert chosen("no") == ("onnxruntime", "not measured on this machine yet")
    assert not jobs and not list(tmp_path.iterdir())
    assert chosen("in_background") == ("openvino", "measured on this machine")
    assert jobs[0].ways == (ORT, OV, BF16) and jobs[0].niceness > 0
    assert chosen("no") == ("openvino", "measured on this machine")
    assert len(jobs) == 1


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
    monkeypatch.setattr(measuring, "_measured", measured(trial(ORT, 100, 1.0), trial(OV, 50, 1.0)))
    asked = settings_in(tmp_path, "auto", "bf16")
    assert choose(tmp_path / "d.onnx", "detector", "digest", cpu, asked)[0].precision == "fp32"
    assert choose(tmp_path / "r.onnx", "recogniser", "digest", cpu, asked)[0].precision == "bf16"


def test_int8_runs_only_where_it_is_asked_for_in_the_faster_runtime_that_agrees(
    installed: None, cpu: Placement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_runtime, "precisions", lambda: ("fp32", "bf16", "int8"))
    tried: list[Way] = []

    def attempt(job: Job) -> tuple[RuntimeTrial, ...]:
        tried.extend(job.ways)
        return tuple(trial(way, 50 if way[0] == "openvino" else 100, 0.995) for way in job.ways)

    monkeypatch.setattr(measuring, "_measured", attempt)
    placed, _ = choose(tmp_path / "r.onnx", "recogniser", "a", cpu, settings_in(tmp_path, "auto", "int8"))
    assert (placed.runtime, placed.precision) == ("openvino", "int8")
    assert tried == [("onnxruntime", "int8"), ("openvino", "int8")], "a quantized file is compared with itself"
    placed, _ = choose(tmp_path / "d.onnx", "detector", "a", cpu, settings_in(tmp_path, "auto", "int8"))
    assert placed.precision == "fp32"
    tried.clear()
    choose(tmp_path / "r.onnx", "recogniser", "a", cpu, settings_in(tmp_path))
    assert tried and "int8" not in {precision for _, precision in tried}


def test_an_engine_for_an_ingest_measures_first_and_says_what_it_chose(
    demo_pack: ModelPack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    monkeypatch.delenv("RUNTIME")
    monkeypatch.setattr(measuring, "_MEASURED_SECONDS", 0)
    settings = Settings(_env_file=None, device="cpu", data_dir=tmp_path)
    runtimes = FaceEngine(demo_pack, settings, many=True).device.runtimes
    assert runtimes.keys() == {"detector", "recogniser"}
    for info in runtimes.values():
        fp32 = [one for one in info.trials if one.precision == "fp32"]
        assert [one.runtime for one in fp32] == ["onnxruntime", "openvino"]
        assert all(one.milliseconds and (one.cosine or 0) > 0.9999 for one in fp32), fp32
        assert info.reason.startswith("measured on this machine")
    monkeypatch.setattr(measuring, "_measured", lambda _: pytest.fail("it is remembered"))
    assert FaceEngine(demo_pack, settings).device.runtimes == runtimes


def test_an_engine_of_a_service_stays_as_it_is_when_it_is_measured_and_the_next_one_uses_the_result(
    demo_pack: ModelPack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    monkeypatch.delenv("RUNTIME")
    monkeypatch.setattr(measuring, "_measured", measured(trial(ORT, 100, 1.0), trial(OV, 50, 1.0)))
    settings = Settings(_env_file=None, device="cpu", data_dir=tmp_path)
    engine = FaceEngine(demo_pack, settings)
    assert engine.device.runtimes["recogniser"].reason == "not measured on this machine yet"
    engine.measure_runtimes()
    info = engine.device.runtimes["recogniser"]
    assert (info.runtime, len(info.trials)) == ("onnxruntime", 2)
    assert info.reason.startswith("until the next start, which uses openvino fp32: measured on this machine")
    following = FaceEngine(demo_pack, settings).device
    assert following.runtimes["recogniser"].runtime == "openvino"
    assert following.provider == "OpenVINO CPU"
