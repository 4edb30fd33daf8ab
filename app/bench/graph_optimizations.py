"""Gain of the graph optimizations on the CPU, for a recogniser and a detector (`app/engine/graph_optimizations`).

    FREE_PACK_DIR=models/opencv .venv/bin/python app/bench/graph_optimizations.py

Milliseconds of one run with one thread: `published` (block-quantized files without their per-tensor block sizes, which
ONNX Runtime refuses), `floats` (weights as floats, no unused inputs) and `rewritten` (PRelu split, too). The three run
in turn; medians. --resnet100 measures a recogniser of that size with random weights instead. The output is one JSON
object with the times, the ratios and the lowest cosine to the output of the published graph.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from app.core.onnx_graph import Graph, describe
from app.engine.graph_optimizations import rewrite
from app.packs.store import find_pack
from bench.pictures import folder_of
from bench.resnet100 import write_resnet100

SIDE = 640  # of the detector's input


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--resnet100", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="oceano-bench-") as name:
        if asked.resnet100:
            files = {"resnet100": Path(name) / "resnet100.onnx"}
            write_resnet100(files["resnet100"])
        else:
            pack = find_pack(str(folder_of("FREE_PACK_DIR")), Path(name))
            files = {"detector": pack.detector, "recogniser": pack.recogniser}
        said: dict[str, Any] = {}
        for key, path in files.items():
            said |= {f"{key}_{what}": value for what, value in measured(path, asked.rounds).items()}
    print(json.dumps(said | {"load": os.getloadavg()[0]}))


def measured(path: Path, rounds: int) -> dict[str, float]:
    graph = describe(onnx.load(path))
    assert isinstance(graph, Graph), graph
    width, height = graph.input_size or (SIDE, SIDE)
    blob = np.random.default_rng(1).uniform(0, 255, (1, 3, height, width)).astype(np.float32)
    sessions = {name: session(model) for name, model in variants(path, graph).items()}
    took: dict[str, list[float]] = {name: [] for name in sessions}
    outputs: dict[str, Any] = {}
    for _ in range(rounds):
        for name, one in sessions.items():
            start = time.perf_counter()
            outputs[name] = one.run(None, {graph.input_name: blob})
            took[name].append((time.perf_counter() - start) * 1000)
    ms = {name: statistics.median(values) for name, values in took.items()}
    said = {f"{name}_ms": round(value, 2) for name, value in ms.items()}
    said |= {f"{name}_vs_published": round(ms["published"] / ms[name], 2) for name in ("floats", "rewritten")}
    return said | {"cosine": round(min(map(cosine, outputs["published"], outputs["rewritten"])), 6)}


def variants(path: Path, graph: Graph) -> dict[str, Any]:
    published, floats, rewritten = (onnx.load(path) for _ in range(3))
    weights = {tensor.name: tensor for tensor in published.graph.initializer}
    for node in published.graph.node:
        if node.op_type == "DequantizeLinear" and numpy_helper.to_array(weights[node.input[1]]).shape in ((), (1,)):
            del node.attribute[:]
    used = {name for node in published.graph.node for name in node.input}
    inputs = [value for value in published.graph.input if value.name in used]
    del published.graph.input[:]
    published.graph.input.extend(inputs)
    rewrite(floats, graph, free_batch=False, for_cpu=False)
    rewrite(rewritten, graph, free_batch=False, for_cpu=True)
    return {"published": published, "floats": floats, "rewritten": rewritten}


def session(model: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def cosine(one: Any, other: Any) -> float:
    a, b = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


if __name__ == "__main__":
    main()
