"""What a device gives: session runs by batch size, cuDNN's search, IO binding and fp16, next to each other.

    REAL_PACK_DIR=... REAL_FACES_DIR=... .venv/bin/python app/bench/device.py [--device cuda] [--resnet100]

For detector and recogniser, and batches from 1 to 32: pictures per second of the engine's own way (fp32, `run`, and on
CUDA cuDNN's search as the engine sets it), and what else does in relation to it, measured by turns in the same run:

- bound: IO binding, inputs and outputs in memory of the device that is taken once;
- fp16: PRECISION=fp16, with the cosine of its embeddings to fp32's;
- search_...: on CUDA, the other settings of `cudnn_conv_algo_search`.

`first_s` are the seconds of the first run of a shape, in which cuDNN searches; `device_mb` is what the whole card has
in use afterwards. On a machine without a GPU it measures the CPU, and says so. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import onnxruntime

from app.core.concurrency import processors
from app.core.config import load_settings
from app.core.onnx_graph import look
from app.core.types import Floats
from app.embeddings import FaceEngine
from app.engine.alignment import align
from app.engine.frames import blob_of
from app.engine.network import Network
from app.engine.placement import Placement, place
from app.images.decoding import decode
from app.packs.store import find_pack
from bench.pictures import folder_of
from bench.resnet100 import write_resnet100

BATCHES = (1, 2, 4, 8, 16, 32)
SEARCHES = ("EXHAUSTIVE", "HEURISTIC", "DEFAULT")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--resnet100", action="store_true", help="a recogniser of ResNet-100's size, random weights")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--most", type=int, default=32, help="pictures of the largest batch")
    asked = parser.parse_args()
    plain = place(asked.device, threads=processors())
    with tempfile.TemporaryDirectory(prefix="oceano-bench-") as name:
        pack = find_pack(str(folder_of("REAL_PACK_DIR")), Path(name))
        recogniser = pack.recogniser
        if asked.resnet100:
            recogniser = Path(name) / "resnet100.onnx"
            write_resnet100(recogniser)
        frames, crops = _inputs(pack)
        said: dict[str, Any] = {}
        for what, path, blob in (("detector", pack.detector, frames), ("recogniser", recogniser, crops)):
            ways = {
                way: Network(path, placement, max_batch=asked.most) for way, placement in _placements(plain).items()
            }
            said[what] = {
                size: _compare(ways, np.ascontiguousarray(blob[:size]), plain, asked.rounds)
                for size in BATCHES
                if size <= asked.most
            }
            provider = ways["run"].provider
            if what == "recogniser":
                said["cosine_fp16"] = _cosine(ways["run"], ways["fp16"], crops)
    said |= {"provider": provider, "why": plain.reason, "onnxruntime": onnxruntime.__version__, **_card()}
    print(json.dumps(said))


def _placements(plain: Placement) -> dict[str, Placement]:
    """The engine's own way first; each of the others differs from it in one thing."""
    ways = {"run": plain, "fp16": replace(plain, precision="fp16")}
    if plain.on_cuda:
        (name, options), *others = plain.providers
        for search in SEARCHES:
            if search != options.get("cudnn_conv_algo_search", SEARCHES[0]):
                other = (name, {**options, "cudnn_conv_algo_search": search})
                ways[f"search_{search.lower()}"] = replace(plain, providers=(other, *others))
    return ways


def _inputs(pack: Any) -> tuple[Floats, Floats]:
    """Blobs of 32 frames of 640 x 640 and of 32 aligned crops, of real photographs."""
    engine = FaceEngine(pack, load_settings(None, device="cpu"))
    pictures = [
        decode(path.read_bytes(), max_pixels=1 << 30) for path in sorted(folder_of("REAL_FACES_DIR").glob("groups/*"))
    ]
    frames = [cv2.resize(picture.pixels, (640, 640)).astype(np.uint8) for picture in pictures]
    crops = [
        align(picture, np.array(face.kps, np.float32))
        for picture, faces in zip(pictures, engine.analyze(pictures), strict=True)
        for face in faces
    ]
    return _blob(frames, pack.detector), _blob(crops, pack.recogniser)


def _blob(pictures: list[Any], model: Path) -> Floats:
    graph = look(model)
    if isinstance(graph, str):
        raise SystemExit(f"{model}: {graph}")
    return blob_of([pictures[position % len(pictures)] for position in range(max(BATCHES))], graph)


def _compare(ways: dict[str, Network], blob: Floats, plain: Placement, rounds: int) -> dict[str, Any]:
    """Pictures per second of "run", and the others' rates in relation to it."""
    runs: dict[str, Callable[[], object]] = {way: partial(network.run, blob) for way, network in ways.items()}
    runs["bound"] = _bound(ways["run"], blob, "cuda" if plain.on_cuda else "cpu")
    first = {way: _seconds(run) for way, run in runs.items()}
    took: dict[str, list[float]] = {way: [] for way in runs}
    for _ in range(rounds):
        for way, run in runs.items():
            took[way].append(_seconds(run))
    rate = {way: len(blob) / statistics.median(seconds) for way, seconds in took.items()}
    found = {way: round(value / rate["run"], 3) for way, value in rate.items() if way != "run"}
    return {"per_s": round(rate["run"], 1), **found, "first_s": {way: round(one, 2) for way, one in first.items()}}


def _bound(network: Network, blob: Floats, device: str) -> Callable[[], object]:
    """A run with IO binding: the copy to the device goes into the same memory each time, and so do the outputs."""
    session = cast("Any", network._session)._session  # what is measured is not in the product
    binding = session.io_binding()
    there = onnxruntime.OrtValue.ortvalue_from_numpy(blob, device, 0)
    binding.bind_ortvalue_input(session.get_inputs()[0].name, there)
    for output in session.get_outputs():
        binding.bind_output(output.name, device)

    def run() -> object:
        there.update_inplace(blob)
        session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()

    return run


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _cosine(full: Network, half: Network, crops: Floats) -> dict[str, float]:
    one, other = (network.run(crops)[0] for network in (full, half))
    cosines = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    return {"mean": round(float(cosines.mean()), 6), "min": round(float(cosines.min()), 6)}


def _card() -> dict[str, Any]:
    """Name, driver and memory in use of the first NVIDIA card, where there is one."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return {"card": None}
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    return {
        "card": pynvml.nvmlDeviceGetName(card),
        "driver": pynvml.nvmlSystemGetDriverVersion(),
        "device_mb": pynvml.nvmlDeviceGetMemoryInfo(card).used // 1_000_000,
    }


if __name__ == "__main__":
    main()
