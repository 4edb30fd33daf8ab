"""Which runtime and precision a network gets on this machine.

With `auto`, each candidate runs the model on reference images, once for each machine, model and version of a runtime
(`engine/measuring`). The fastest one wins whose outputs agree with those of ONNX Runtime in fp32. Until it is known,
ONNX Runtime computes in fp32.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import onnxruntime

from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.onnx_graph import Role
from app.core.types import RUNTIME_NAMES, ModelPack, Precision, Runtime, RuntimeInfo, RuntimeTrial
from app.engine import openvino_runtime
from app.engine.measuring import Job, Way, described, kept_trials, measured_trials
from app.engine.placement import Placement
from app.engine.prepared import Cache

Measure = Literal["no", "now", "in_background"]

LEAST_COSINE: Final = 0.999  # of the outputs to those of fp32
_WORTH: Final = 0.9  # another runtime than ONNX Runtime must need at most this share of its time
_LEAST_INT8_COSINE: Final = 0.99  # of int8 in OpenVINO to int8 in ONNX Runtime: they round at different places
_BACKGROUND_NICENESS: Final = 10
_VECTOR_FLAGS: Final = r"avx|amx|fma|sse4|asimd|sve|bf16|i8mm"


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """What the settings ask for.

    Attributes:
        runtime: RUNTIME.
        precision: PRECISION.
        file: where results are kept; its folder may be missing.
        measure: whether to measure what is not in the file: `no`; `now`, which takes seconds; or `in_background`, with
            less priority than other processes.
    """

    runtime: Literal["auto", Runtime]
    precision: Literal["auto", Precision]
    file: Path
    measure: Measure


def choose_all(
    pack: ModelPack, settings: Settings, placement: Placement, measure: Measure
) -> tuple[dict[Role, Placement], dict[str, RuntimeInfo]]:
    """Choose the runtimes of both networks of a pack.

    Args:
        pack: the model pack.
        settings: for RUNTIME, PRECISION and DATA_DIR.
        placement: the device, and the number of threads.
        measure: see `RuntimeSettings`.

    Returns:
        For each network its placement, and what was chosen and why.

    Raises:
        OceanoError: `invalid_setting` if this machine cannot run what the settings ask for.
    """
    wanted = RuntimeSettings(settings.runtime, settings.precision, settings.state_dir / "runtimes.json", measure)
    cached = replace(placement, cache=Cache(settings.models_dir / ".prepared", f"{pack.digest}\n{processor_name()}"))
    models: dict[Role, Path] = {"detector": pack.detector, "recogniser": pack.recogniser}
    chosen = {role: choose(path, role, pack.digest, cached, wanted) for role, path in models.items()}
    return {role: one for role, (one, _) in chosen.items()}, {role: info for role, (_, info) in chosen.items()}


def until_restart(running: RuntimeInfo, measured: RuntimeInfo) -> RuntimeInfo:
    """Describe the runtime in use, where a later measurement may have chosen another."""
    if (running.runtime, running.precision) == (measured.runtime, measured.precision):
        return measured
    reason = f"until the next start, which uses {measured.runtime} {measured.precision}: {measured.reason}"
    return replace(running, reason=reason, trials=measured.trials)


def choose(
    model: Path, role: Role, identity: str, placement: Placement, wanted: RuntimeSettings
) -> tuple[Placement, RuntimeInfo]:
    """Choose the runtime and the precision of a network.

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
    if placement.on_gpu:
        return _on_gpu(placement, wanted)
    candidates = _candidates(role, wanted)
    if len(candidates) == 1:
        (chosen,) = candidates
        return _placed(placement, chosen, _reason(wanted), ())
    trials = _trials(model, role, _key(identity, role, wanted), placement, wanted, candidates)
    if not trials:
        return _placed(placement, candidates[0], "not measured on this machine yet", ())
    chosen, reason = _best(candidates, trials)
    return _placed(placement, chosen, reason, trials)


def _trials(
    model: Path, role: Role, key: str, placement: Placement, wanted: RuntimeSettings, candidates: Sequence[Way]
) -> tuple[RuntimeTrial, ...]:
    """Return how the candidates ran the model, the one that they are compared with first; empty if it is not known."""
    if wanted.measure == "no":
        return kept_trials(wanted.file).get(key, ())
    baseline = _baseline(candidates)
    ways = (baseline, *(way for way in candidates if way != baseline))
    niceness = _BACKGROUND_NICENESS if wanted.measure == "in_background" else 0
    return measured_trials(wanted.file, key, Job(model, ways, role == "recogniser", placement.cache, niceness))


def _on_gpu(placement: Placement, wanted: RuntimeSettings) -> tuple[Placement, RuntimeInfo]:
    """A GPU has one runtime, and fp32 unless fp16 is asked for."""
    runtime: Runtime = "openvino" if placement.on_intel_gpu else "onnxruntime"
    where = "an Intel GPU" if placement.on_intel_gpu else "CUDA"
    refused = [f"RUNTIME={wanted.runtime}"] if wanted.runtime not in ("auto", runtime) else []
    refused += [f"PRECISION={wanted.precision}"] if wanted.precision in ("bf16", "int8") else []
    if refused:
        message = f"{refused[0]} is for the CPU, and the model runs on {where}; set DEVICE=cpu"
        raise OceanoError("invalid_setting", message)
    precision: Precision = "fp16" if wanted.precision == "fp16" else "fp32"
    return _placed(placement, (runtime, precision), f"{where} runs in {RUNTIME_NAMES[runtime]}", ())


def _candidates(role: Role, wanted: RuntimeSettings) -> list[Way]:
    available = openvino_runtime.installed()
    if wanted.runtime == "openvino" and not available:
        raise OceanoError(
            "invalid_setting", "RUNTIME=openvino, but OpenVINO is not installed: install it, or set RUNTIME=auto"
        )
    precisions: tuple[Precision, ...] = ("fp32", "bf16") if wanted.precision == "auto" else (wanted.precision,)
    if role == "detector" and precisions[0] != "fp16":
        precisions = ("fp32",)
    found: list[Way] = []
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
    placement: Placement, chosen: Way, reason: str, trials: tuple[RuntimeTrial, ...]
) -> tuple[Placement, RuntimeInfo]:
    runtime, precision = chosen
    version = openvino_runtime.version() if runtime == "openvino" else onnxruntime.__version__
    info = RuntimeInfo(runtime, version, precision, reason, trials)
    return replace(placement, runtime=runtime, precision=precision), info


def _best(candidates: Sequence[Way], trials: Sequence[RuntimeTrial]) -> tuple[Way, str]:
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
    others = ", ".join(described(one) for one in trials if one is not best)
    return (best.runtime, best.precision), f"measured on this machine: {described(best)}; {others}"


def _baseline(candidates: Sequence[Way]) -> Way:
    """What the candidates are compared with: a quantized file only runs in int8."""
    return "onnxruntime", "int8" if candidates[0][1] == "int8" else "fp32"


def _least(trial: RuntimeTrial) -> float:
    return _LEAST_INT8_COSINE if trial.precision == "int8" else LEAST_COSINE


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
