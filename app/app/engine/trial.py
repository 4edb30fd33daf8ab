"""Runs a model in one runtime and measures it: `python -m app.engine.trial MODEL RUNTIME PRECISION OUTPUT SECONDS`.

A process of its own, because a runtime that does not fit the processor can crash. It writes the outputs for the
reference images and the milliseconds of a run (`Measured`) to the file OUTPUT. If the runtime cannot run the model,
the last line of standard error says why.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, Final, cast

import cv2
import numpy as np

from app.core.onnx_graph import Graph
from app.core.types import Floats, Precision, Runtime
from app.engine import openvino_runtime
from app.engine.frames import blob_of
from app.engine.placement import Placement
from app.engine.references import reference_crop, reference_crops
from app.engine.sessions import Session, open_session

_CPU: Final = (("CPUExecutionProvider", cast("dict[str, str]", {})),)
_FRAMES: Final = ((640, 640), (640, 448))  # of a detector; pictures have different shapes
_WARM_UP: Final = 2  # runs
_LEAST_RUNS: Final = 3


def main(arguments: list[str]) -> int:
    """Measure one runtime.

    Args:
        arguments: the model's file, the runtime, the precision, the file to write, and how long to measure in seconds.

    Returns:
        The exit code; 1 if the runtime cannot run the model.
    """
    path, runtime, precision, output, seconds = arguments
    try:
        measured = _measure(Path(path), cast("Runtime", runtime), cast("Precision", precision), float(seconds))
        np.savez(output, **measured)
    except Exception as failure:  # noqa: BLE001 - the exceptions of the runtimes have no common base but Exception
        print(" ".join(str(failure).split())[-300:], file=sys.stderr)  # noqa: T201 - for the parent process
        return 1
    return 0


def _measure(path: Path, runtime: Runtime, precision: Precision, seconds: float) -> dict[str, Any]:
    if runtime == "openvino" and precision not in openvino_runtime.precisions():
        raise ValueError(f"this processor has no instructions for {precision}")
    placement = Placement(_CPU, "a trial", runtime=runtime, precision=precision)
    session, graph = open_session(path, placement, free_batch=False)
    blobs = _blobs(graph)
    outputs = [output for blob in blobs for output in session.run(blob)]
    return {
        "milliseconds": _milliseconds(session, blobs[:2], seconds),
        **{f"out{i}": out for i, out in enumerate(outputs)},
    }


def _blobs(graph: Graph) -> list[Floats]:
    """Inputs of one image each."""
    if graph.role == "recogniser":
        side = graph.input_size[0] if graph.input_size else reference_crop().shape[0]
        return [blob_of([crop], graph) for crop in reference_crops(side)]
    sizes = [graph.input_size] if graph.input_size else _FRAMES
    crops = reference_crops()
    return [blob_of([cv2.resize(crop, size).astype(np.uint8)], graph) for size in sizes for crop in crops[:2]]


def _milliseconds(session: Session, blobs: list[Floats], seconds: float) -> float:
    """Return the CPU time of the fastest run, which other work on the machine disturbs the least."""
    for blob in blobs * _WARM_UP:
        session.run(blob)
    took: list[float] = []
    end = time.perf_counter() + seconds
    while len(took) < _LEAST_RUNS or time.perf_counter() < end:
        start = time.process_time()
        for blob in blobs:
            session.run(blob)
        took.append((time.process_time() - start) / len(blobs))
    return min(took) * 1000


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
