"""Which runtime and precision a network gets on this machine.

With `auto`, each candidate runs the model on reference images, once for each machine, model and version of a runtime.
The fastest one wins whose outputs agree with those of ONNX Runtime in fp32. The figures are kept in a file.
"""

from __future__ import annotations

import json
import logging
import platform
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnxruntime

from app.core.errors import OceanoError
from app.core.files import write_atomic
from app.core.types import Floats, Precision, Runtime, RuntimeInfo, RuntimeTrial
from app.engine import openvino_runtime
from app.engine.placement import Placement

_log = logging.getLogger(__name__)

Role = Literal["detector", "recogniser"]

LEAST_COSINE: Final = 0.999  # of the outputs to those of fp32
_WORTH: Final = 0.9  # another runtime than ONNX Runtime must need at most this share of its time
_LEAST_INT8_COSINE: Final = 0.99  # of int8 in OpenVINO to int8 in ONNX Runtime: they round at different places
_TRIAL_SECONDS: Final = 180
_MEASURED_SECONDS: Final = 1.5
_KEPT: Final = 50  # results in the file
_VECTOR_FLAGS: Final = r"avx|amx|fma|sse4|asimd|sve|bf16|i8mm"


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """What the settings ask for.

    Attributes:
        runtime: RUNTIME.
        precision: PRECISION.
        file: where results are kept; its folder may be missing.
    """

    runtime: Literal["auto", Runtime]
    precision: Literal["auto", Precision]
    file: Path


def choose(
    model: Path, role: Role, identity: str, placement: Placement, wanted: RuntimeSettings
) -> tuple[Placement, RuntimeInfo]:
    """Choose the runtime and the precision of a network; takes some seconds the first time.

    Args:
        model: the ONNX file.
        role: only the recogniser runs in bf16 or int8: which faces are found must not depend on the machine.
        identity: names the content of the file.
        placement: the device, and the number of threads.
        wanted: the settings.

    Returns:
        The placement with the runtime and precision, and what was chosen and why.

    Raises:
        OceanoError: `invalid_setting` if this machine cannot run what they ask for.
    """
    if placement.on_cuda:
        return _on_cuda(placement, wanted)
    candidates = _candidates(role, wanted)
    if len(candidates) == 1:
        (chosen,) = candidates
        return _placed(placement, chosen, _reason(wanted), ())
    key = _key(identity, role, wanted)
    known = _read(wanted.file)
    if (trials := known.get(key)) is None:
        trials = _try_all(model, candidates)
        if trials[0].milliseconds is not None:  # without a baseline nothing was learned: measure again next time
            _write(wanted.file, {**known, key: trials})
    chosen, reason = _best(candidates, trials)
    return _placed(placement, chosen, reason, tuple(trials))


def _on_cuda(placement: Placement, wanted: RuntimeSettings) -> tuple[Placement, RuntimeInfo]:
    if wanted.runtime == "openvino" or wanted.precision in ("bf16", "int8"):
        setting = "RUNTIME=openvino" if wanted.runtime == "openvino" else f"PRECISION={wanted.precision}"
        raise OceanoError("invalid_setting", f"{setting} is for the CPU, and the model runs on CUDA; set DEVICE=cpu")
    precision: Precision = "fp16" if wanted.precision == "fp16" else "fp32"
    return _placed(placement, ("onnxruntime", precision), "CUDA runs in ONNX Runtime", ())


def _candidates(role: Role, wanted: RuntimeSettings) -> list[tuple[Runtime, Precision]]:
    available = openvino_runtime.installed()
    if wanted.runtime == "openvino" and not available:
        raise OceanoError(
            "invalid_setting", "RUNTIME=openvino, but OpenVINO is not installed: install it, or set RUNTIME=auto"
        )
    precisions: tuple[Precision, ...] = ("fp32", "bf16") if wanted.precision == "auto" else (wanted.precision,)
    if role == "detector" and precisions[0] != "fp16":
        precisions = ("fp32",)
    found: list[tuple[Runtime, Precision]] = []
    if wanted.runtime != "openvino":
        found += [("onnxruntime", precision) for precision in precisions if precision != "bf16"]
    if available and (wanted.runtime == "openvino" or (wanted.runtime == "auto" and "fp16" not in precisions)):
        found += [("openvino", precision) for precision in precisions]
    if not found or (len(found) == 1 and found[0][0] == "openvino"):
        _require_openvino(precisions[0], available=bool(found))
    return found


def _require_openvino(precision: Precision, *, available: bool) -> None:
    """Refuse a precision that only OpenVINO could compute in, and does not on this machine."""
    advice = "set PRECISION=fp32, whose index is the same" if precision == "bf16" else "set PRECISION=fp32"
    if not available:
        raise OceanoError("invalid_setting", f"PRECISION={precision} needs OpenVINO on a CPU: install it, or {advice}")
    if precision not in openvino_runtime.precisions():
        raise OceanoError(
            "invalid_setting", f"PRECISION={precision}: this processor has no instructions for it; {advice}"
        )


def _reason(wanted: RuntimeSettings) -> str:
    if wanted.runtime != "auto":
        return f"RUNTIME={wanted.runtime}"
    return "OpenVINO is not installed" if not openvino_runtime.installed() else f"PRECISION={wanted.precision}"


def _placed(
    placement: Placement, chosen: tuple[Runtime, Precision], reason: str, trials: tuple[RuntimeTrial, ...]
) -> tuple[Placement, RuntimeInfo]:
    runtime, precision = chosen
    version = openvino_runtime.version() if runtime == "openvino" else onnxruntime.__version__
    info = RuntimeInfo(runtime, version, precision, reason, trials)
    return replace(placement, runtime=runtime, precision=precision), info


def _best(
    candidates: Sequence[tuple[Runtime, Precision]], trials: Sequence[RuntimeTrial]
) -> tuple[tuple[Runtime, Precision], str]:
    """Return the fastest candidate that agrees, and why; the first one, if none ran."""
    good = [
        one
        for one in trials
        if one.milliseconds is not None and one.cosine is not None and one.cosine >= _least(one)
        if (one.runtime, one.precision) in candidates
    ]
    if not good:
        return candidates[0], "no runtime ran the model on the reference images; see the log"
    best = min(good, key=lambda one: one.milliseconds or 0)
    baseline = next((one for one in good if (one.runtime, one.precision) == _baseline(candidates)), None)
    if baseline and best is not baseline and (best.milliseconds or 0) > _WORTH * (baseline.milliseconds or 0):
        best = baseline
    others = ", ".join(_described(one) for one in trials if one is not best)
    return (best.runtime, best.precision), f"measured on this machine: {_described(best)}; {others}"


def _baseline(candidates: Sequence[tuple[Runtime, Precision]]) -> tuple[Runtime, Precision]:
    """What the candidates are compared with: a quantized file only runs in int8."""
    return "onnxruntime", "int8" if candidates[0][1] == "int8" else "fp32"


def _least(trial: RuntimeTrial) -> float:
    return _LEAST_INT8_COSINE if trial.precision == "int8" else LEAST_COSINE


def _described(trial: RuntimeTrial) -> str:
    name = f"{trial.runtime} {trial.precision}"
    return f"{name} {trial.milliseconds:.1f} ms" if trial.milliseconds is not None else f"{name}: {trial.problem}"


def _try_all(model: Path, candidates: Sequence[tuple[Runtime, Precision]]) -> list[RuntimeTrial]:
    """Run every candidate, and the one that they are compared with, one after the other."""
    _log.info("measuring which runtime is the fastest for %s", model.name)
    baseline = _baseline(candidates)
    milliseconds, expected, problem = _try(model, *baseline)
    trials = [RuntimeTrial(*baseline, milliseconds, None if expected is None else 1.0, problem)]
    for runtime, precision in candidates:
        if (runtime, precision) == baseline or expected is None:
            continue
        milliseconds, outputs, problem = _try(model, runtime, precision)
        cosine = None if outputs is None else _cosine(expected, outputs)
        trials.append(RuntimeTrial(runtime, precision, milliseconds, cosine, problem))
    for one in trials:
        _log.info("%s, cosine %s", _described(one), one.cosine)
    return trials


def _try(model: Path, runtime: Runtime, precision: Precision) -> tuple[float | None, list[Floats] | None, str]:
    """Return the milliseconds of a run, the outputs, and what went wrong."""
    with tempfile.TemporaryDirectory(prefix="oceano-") as folder:
        output = Path(folder) / "outputs.npz"
        arguments = [str(model), runtime, precision, str(output), str(_MEASURED_SECONDS)]
        command = [sys.executable, "-P", "-m", "app.engine.trial", *arguments]
        try:
            ended = subprocess.run(command, capture_output=True, timeout=_TRIAL_SECONDS, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            return None, None, f"not finished after {_TRIAL_SECONDS} s"
        if ended.returncode < 0:
            return None, None, f"crashed with {signal.Signals(-ended.returncode).name}"
        if ended.returncode:
            lines = ended.stderr.decode(errors="replace").strip().splitlines()
            return None, None, lines[-1] if lines else f"exit code {ended.returncode}"
        with np.load(output) as file:
            outputs = [file[f"out{number}"] for number in range(len(file.files) - 1)]
            return round(float(file["milliseconds"]), 3), outputs, ""


def _cosine(expected: Sequence[Floats], found: Sequence[Floats]) -> float:
    """Return the lowest cosine similarity of two outputs for one image; 0 if they cannot be compared."""
    cosines = []
    for a, b in zip(expected, found, strict=True):
        norms = float(np.linalg.norm(a) * np.linalg.norm(b))
        if a.shape != b.shape or not norms:  # such as scores that are all zero
            cosines.append(float(np.array_equal(a, b)))
        else:
            cosines.append(float(a.ravel() @ b.ravel()) / norms)
    lowest = min(cosines)
    return round(lowest, 6) if np.isfinite(lowest) else 0.0


def _key(identity: str, role: Role, wanted: RuntimeSettings) -> str:
    """Name what a result is valid for: the model, the machine, the versions and the candidates."""
    about = [identity, role, processor_name(), onnxruntime.__version__, wanted.runtime, wanted.precision]
    return " | ".join([*about, openvino_runtime.version()])


def processor_name() -> str:
    """Name the processor and the vector instructions that decide which runtime is fast."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    names = re.findall(r"^model name\s*: (.*)", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*: (.*)", text, re.MULTILINE)
    vectors = sorted(flag for flag in flags[1].split() if re.match(_VECTOR_FLAGS, flag)) if flags else []
    return " ".join([names[0] if names else platform.machine(), *vectors])


def _read(file: Path) -> dict[str, list[RuntimeTrial]]:
    """Read the results; an unreadable file has none, since they can be measured again."""
    try:
        stored: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {key: [RuntimeTrial(**one) for one in trials] for key, trials in stored.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as failure:
        _log.warning("%s is not readable, so the runtimes are measured again: %s", file, failure)
        return {}


def _write(file: Path, results: dict[str, list[RuntimeTrial]]) -> None:
    newest = dict(list(results.items())[-_KEPT:])
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({key: [asdict(one) for one in trials] for key, trials in newest.items()}, indent=1)
        write_atomic(file, text + "\n")
    except OSError as failure:
        _log.warning("%s cannot be written, so the runtimes are measured again next time: %s", file, failure)
