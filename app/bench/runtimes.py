"""What the runtimes need for a face: ONNX Runtime and OpenVINO, in the precisions of this processor, by turns.

    REAL_PACK_DIR=... .venv/bin/python app/bench/runtimes.py [--resnet100] [--model FILE] [--int8 FILE]

Each round runs one crop in each of the runtimes on one thread; int8 is for time only, unless `--int8` names a file. The
last line is one JSON object: for each runtime and precision the median milliseconds of CPU time, `vs` ONNX
Runtime in fp32 how many times faster, the lowest `cosine` of eight embeddings to those of ONNX Runtime in fp32, the
seconds to load the model, and why one is missing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from app.core.types import Floats, Pixels, Precision, Runtime
from app.engine import openvino_runtime
from app.engine.frames import blob_of
from app.engine.network import Network
from app.engine.placement import place
from app.engine.quantization import quantize
from app.engine.references import reference_crops
from app.packs.store import find_pack
from bench.pictures import folder_of
from bench.resnet100 import write_resnet100

WAYS: tuple[tuple[Runtime, Precision], ...] = (
    ("onnxruntime", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("onnxruntime", "int8"),
    ("openvino", "int8"),
)
NOISY = 24  # crops for the calibration of int8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resnet100", action="store_true", help="a recogniser of ResNet-100's size, random weights")
    parser.add_argument("--model", type=Path, help="the ONNX file of a recogniser")
    parser.add_argument(
        "--int8", type=Path, help="the file that `oceano models quantize` made of it; else one for time"
    )
    parser.add_argument("--rounds", type=int, default=25)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="oceano-bench-") as name:
        model = asked.model
        if asked.resnet100:
            model = Path(name) / "resnet100.onnx"
            write_resnet100(model)
        elif model is None:
            model = find_pack(str(folder_of("REAL_PACK_DIR")), Path(name)).recogniser
        print(
            json.dumps(
                {
                    "model": model.name,
                    "processor": openvino_runtime.precisions(),
                    **_compared(model, Path(name), asked.int8, asked.rounds),
                }
            )
        )


def _compared(model: Path, folder: Path, quantized: Path | None, rounds: int) -> dict[str, Any]:
    plain = place("cpu", threads=1)
    networks: dict[str, Network] = {}
    said: dict[str, Any] = {}
    in_int8 = quantized or folder / "int8.onnx"
    if quantized is None:
        quantize(model, _noisy_crops(), in_int8, calibrated={"MinMax": NOISY}, least=0)
    for runtime, precision in WAYS:
        name = f"{runtime}_{precision}"
        if runtime == "openvino" and precision not in openvino_runtime.precisions():
            said[name] = {"missing": "this processor has no instructions for it"}
            continue
        start = time.perf_counter()
        file = in_int8 if precision == "int8" else model
        networks[name] = Network(file, replace(plain, runtime=runtime, precision=precision), max_batch=1)
        said[name] = {"load_s": round(time.perf_counter() - start, 2)}
    graph = next(iter(networks.values())).graph
    blobs = [blob_of([crop], graph) for crop in reference_crops(graph.input_size[0] if graph.input_size else 112)]
    expected = _embeddings(next(iter(networks.values())), blobs)
    took: dict[str, list[float]] = {name: [] for name in networks}
    for turn in range(rounds):
        for name, network in networks.items():
            start = time.process_time()
            network.run(blobs[turn % len(blobs)])
            took[name].append((time.process_time() - start) * 1000)
    medians = {name: statistics.median(values[2:]) for name, values in took.items()}
    for name, network in networks.items():
        cosine = float((_embeddings(network, blobs) * expected).sum(axis=1).min())
        ratio = medians["onnxruntime_fp32"] / medians[name]
        said[name] |= {"ms": round(medians[name], 2), "vs": round(ratio, 3), "cosine": round(cosine, 6)}
    return said


def _noisy_crops() -> list[Pixels]:
    """Enough different crops to quantize a model for its speed; the accuracy needs faces."""
    random = np.random.default_rng(1)
    crops = reference_crops()
    noise = [random.integers(-40, 40, crops[0].shape) for _ in range(2 * NOISY)]
    return [(crops[at % len(crops)] + one).clip(0, 255).astype(np.uint8) for at, one in enumerate(noise)]


def _embeddings(network: Network, blobs: list[Floats]) -> Floats:
    raw = np.concatenate([network.run(blob)[0] for blob in blobs])
    return np.asarray(raw / np.linalg.norm(raw, axis=1, keepdims=True), np.float32)


if __name__ == "__main__":
    main()
