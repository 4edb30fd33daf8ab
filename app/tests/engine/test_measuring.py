"""measuring: runtimes run in a process of their own, whose end, however it comes, harms nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from app.core.locks import try_lock
from app.core.types import ModelPack, RuntimeTrial
from app.engine import measuring, trial
from app.engine.measuring import Job, Way, kept_trials, measured_trials
from app.engine.placement import place
from tests.index.conftest import children_of, is_gone, wait_until

ORT: Way = ("onnxruntime", "fp32")
OV: Way = ("openvino", "fp32")
BF16: Way = ("openvino", "bf16")
BASELINE = RuntimeTrial(*ORT, 100.0, 1.0)
SAID = json.dumps([asdict(BASELINE)])


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path / "r.onnx", (ORT, OV, BF16), True, None)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Run a program in place of `engine/trial`."""
    real = subprocess.run

    def replaced(program: str) -> None:
        monkeypatch.setattr(subprocess, "run", lambda _, **options: real([sys.executable, "-c", program], **options))

    return replaced


@pytest.mark.parametrize(
    ("end", "problem"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed with SIGSEGV"),
        ("import sys; sys.exit('no such instruction')", "no such instruction"),
    ],
)
def test_a_runtime_that_crashes_is_skipped_with_a_reason_and_is_not_tried_again(
    end: str, problem: str, job: Job, runs: Callable[[str], None], tmp_path: Path
) -> None:
    file = tmp_path / "state" / "runtimes.json"
    runs(f"print({SAID!r}, flush=True); print('a half', end='', flush=True); {end}")
    trials = measured_trials(file, "key", job)
    assert trials == (
        BASELINE,
        RuntimeTrial(*OV, None, None, problem),
        RuntimeTrial(*BF16, None, None, "not tried after openvino fp32"),
    )
    runs("raise SystemExit('it is remembered')")
    assert measured_trials(file, "key", job) == trials


@pytest.mark.parametrize(
    "end",
    ["import time; time.sleep(60)", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"],
    ids=["too slow", "killed"],
)
def test_a_measurement_that_does_not_end_says_nothing_and_is_repeated(
    end: str, job: Job, runs: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "state" / "runtimes.json"
    monkeypatch.setattr(measuring, "_SECONDS", 1.0)
    runs(f"print({SAID!r}, flush=True); {end}")
    assert measured_trials(file, "key", job) == ()
    assert not file.exists()
    whole = [BASELINE, RuntimeTrial(*OV, 90.0, 1.0), RuntimeTrial(*BF16, 50.0, 1.0)]
    runs(f"print({json.dumps([asdict(one) for one in whole])!r})")
    assert measured_trials(file, "key", job) == tuple(whole)
    assert kept_trials(file) == {"key": tuple(whole)}


def test_a_process_waits_for_another_that_measures_and_uses_its_result(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "runtimes.json"
    monkeypatch.setattr(measuring, "_measured", lambda _: pytest.fail("another process does"))
    handle = try_lock(file.with_suffix(".lock"))
    assert handle is not None
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(measured_trials, file, "key", job)
        time.sleep(0.3)
        assert not waiting.done()
        file.write_text(json.dumps({"key": [asdict(BASELINE)]}))
        os.close(handle)
        assert waiting.result(10) == (BASELINE,)


def test_a_process_does_not_wait_for_ever(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "runtimes.json"
    monkeypatch.setattr(measuring, "_SECONDS", 0.3)
    monkeypatch.setattr(measuring, "_measured", lambda _: pytest.fail("another process does"))
    handle = try_lock(file.with_suffix(".lock"))
    assert handle is not None
    assert measured_trials(file, "key", job) == ()
    os.close(handle)


def test_a_kill_ends_the_measurement_too_and_leaves_the_file_whole(demo_pack: ModelPack, tmp_path: Path) -> None:
    file = tmp_path / "runtimes.json"
    file.write_text(json.dumps({"another key": [asdict(BASELINE)]}))
    program = (
        "import sys; from pathlib import Path; from app.engine import measuring as m;"
        "m._MEASURED_SECONDS = 600;"
        "m.measured_trials(Path(sys.argv[1]), 'key',"
        " m.Job(Path(sys.argv[2]), (('onnxruntime', 'fp32'), ('onnxruntime', 'fp32')), True, None, 1))"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(file), str(demo_pack.recogniser)])
    try:
        wait_until(lambda: children_of(parent.pid), 60)
        (child,) = children_of(parent.pid)
        wait_until(lambda: b"engine.trial" in Path(f"/proc/{child}/cmdline").read_bytes(), 60)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_until(lambda: is_gone(child), 60)
    assert kept_trials(file) == {"another key": (BASELINE,)}
    handle = try_lock(file.with_suffix(".lock"))
    assert handle is not None, "the next process can measure"
    os.close(handle)


def test_every_runtime_is_compared_with_the_first(demo_pack: ModelPack, tmp_path: Path) -> None:
    noisy = onnx.load(demo_pack.recogniser)
    for weight in noisy.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.ndim > 1 and values.dtype == np.float32:
            noise = np.random.default_rng(5).normal(0, values.std(), values.shape).astype(np.float32)
            weight.CopyFrom(numpy_helper.from_array(values + noise, weight.name))
    onnx.save(noisy, tmp_path / "noisy.onnx")
    placement = place("cpu", threads=1)
    same, other = (trial._load(path, ORT, placement, True) for path in (demo_pack.recogniser, tmp_path / "noisy.onnx"))
    assert trial._cosine(same.outputs, same.outputs) == 1.0
    assert trial._cosine(same.outputs, other.outputs) < 0.999
    steps = list(trial._results(demo_pack.recogniser, [ORT, ("onnxruntime", "fp16")], placement, True, 0))
    assert [len(results) for results in steps] == [1, 2]
    assert all(one.milliseconds and (one.cosine or 0) > 0.999 for one in steps[-1])


def test_a_model_that_does_not_run_has_one_result(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"no model")
    (results,) = trial._results(tmp_path / "no.onnx", [ORT, OV], place("cpu", threads=1), True, 0)
    (only,) = results
    assert only.milliseconds is None and "no.onnx" in only.problem
