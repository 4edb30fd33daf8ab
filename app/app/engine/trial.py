"""Measures a network in several runtimes: `python -m app.engine.trial JOB PARENT`, for `engine/measuring`.

A process of its own, because a runtime that does not fit the processor can crash. JOB is a `Job` as JSON, PARENT the id
of the process that waits for the result. After each runtime it prints all results so far: a list of `RuntimeTrial` as
JSON on one line.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import cv2
import numpy as np

from app.core.onnx_graph import Graph
from app.core.types import Floats, RuntimeTrial
from app.engine import openvino_runtime
from app.engine.frames import blob_of
from app.engine.measuring import Way
from app.engine.placement import Placement
from app.engine.prepared import Cache
from app.engine.references import reference_crop, reference_crops
from app.engine.sessions import Session, open_session

_CPU: Final = (("CPUExecutionProvider", cast("dict[str, str]", {})),)
_FRAMES: Final = ((640, 640), (640, 448))  # of a detector; pictures have different shapes
_LEAST_RUNS: Final = 5
_PR_SET_PDEATHSIG: Final = 1


def main(arguments: Sequence[str]) -> int:
    """Measure, and print the results.

    Args:
        arguments: the job, and the id of the parent process.

    Returns:
        The exit code; 1 if the parent process has ended.
    """
    job: dict[str, Any] = json.loads(arguments[0])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(arguments[1]):
        return 1
    if job["niceness"]:
        os.nice(job["niceness"])
        with contextlib.suppress(OSError):  # if memory runs out, kill this process first
            Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    cache = Cache(Path(job["cache"]["folder"]), job["cache"]["identity"]) if job["cache"] else None
    placement = Placement(_CPU, "a trial", cache=cache)
    ways: list[Way] = [(runtime, precision) for runtime, precision in job["ways"]]
    for results in _results(Path(job["model"]), ways, placement, job["free_batch"], job["seconds"]):
        print(json.dumps([asdict(one) for one in results]), flush=True)  # noqa: T201 - for the parent process
    return 0


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model in a runtime, an input of one image, the outputs for all inputs, and the CPU seconds of a run."""

    session: Session
    blob: Floats
    outputs: list[Floats]
    seconds: float


def _results(
    model: Path, ways: Sequence[Way], placement: Placement, free_batch: bool, seconds: float
) -> Iterator[list[RuntimeTrial]]:
    """Yield the results so far; only the first one, if it does not run."""
    first, *others = ways
    try:
        baseline = _load(model, first, placement, free_batch)
    except Exception as failure:  # noqa: BLE001 - the exceptions of the runtimes have no common base but Exception
        yield [RuntimeTrial(*first, None, None, _brief(failure))]
        return
    best = baseline.seconds
    ratios: list[tuple[Way, float | None, float | None, str]] = [(first, 1.0, 1.0, "")]
    yield _trials(ratios, best)
    for way in others:
        try:
            other = _load(model, way, placement, free_batch)
            ours, theirs = _by_turns(baseline, other, seconds)
            best = min(best, ours)
            ratios.append((way, theirs / ours, _cosine(baseline.outputs, other.outputs), ""))
        except Exception as failure:  # noqa: BLE001 - as above
            ratios.append((way, None, None, _brief(failure)))
        yield _trials(ratios, best)


def _trials(ratios: Sequence[tuple[Way, float | None, float | None, str]], best: float) -> list[RuntimeTrial]:
    return [
        RuntimeTrial(*way, None if ratio is None else round(1000 * ratio * best, 3), cosine, problem)
        for way, ratio, cosine, problem in ratios
    ]


def _brief(failure: Exception) -> str:
    return " ".join(str(failure).split())[-300:] or repr(failure)


def _load(path: Path, way: Way, placement: Placement, free_batch: bool) -> _Loaded:
    runtime, precision = way
    if runtime == "openvino" and precision not in openvino_runtime.precisions():
        raise ValueError(f"this processor has no instructions for {precision}")
    session, graph = open_session(path, replace(placement, runtime=runtime, precision=precision), free_batch=free_batch)
    blobs = _blobs(graph)
    outputs: list[Floats] = []
    took: list[float] = []
    for blob in blobs:
        start = time.process_time()
        outputs += session.run(blob)
        took.append(time.process_time() - start)
    return _Loaded(session, blobs[0], outputs, min(took[:2]))


def _blobs(graph: Graph) -> list[Floats]:
    """Inputs of one image each; the first two have the same size."""
    if graph.role == "recogniser":
        side = graph.input_size[0] if graph.input_size else reference_crop().shape[0]
        return [blob_of([crop], graph) for crop in reference_crops(side)]
    sizes = [graph.input_size] if graph.input_size else _FRAMES
    crops = reference_crops()[:2]
    return [blob_of([cv2.resize(crop, size).astype(np.uint8)], graph) for size in sizes for crop in crops]


def _by_turns(one: _Loaded, other: _Loaded, seconds: float) -> tuple[float, float]:
    """Return the CPU seconds of the fastest run of each.

    They run by turns: other work on the machine makes runs up to twice as slow, and both equally.
    """
    took: tuple[list[float], list[float]] = [], []
    while len(took[0]) < _LEAST_RUNS or sum(map(sum, took)) < seconds:
        for loaded, times in zip((one, other), took, strict=True):
            start = time.process_time()
            loaded.session.run(loaded.blob)
            times.append(time.process_time() - start)
    return min(took[0]), min(took[1])


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
