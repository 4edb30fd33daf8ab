"""How fast an ingest is: end to end, next to InsightFace's own loop, and next to what the machine could do.

    REAL_PACK_DIR=... REAL_FACES_DIR=... .venv/bin/python app/bench/ingest.py

- oceano: `oceano ingest` from the files to the ledger: hash, decode, detect, align, embed, thumbnails, index, ledger.
- stock: `cv2.imread` and InsightFace's `FaceAnalysis.get` (detection and recognition), one picture after the other,
  with the threads that ONNX Runtime and OpenCV take by themselves. For a pack with YuNet (REAL_PACK_DIR=models/opencv):
  `cv2.imread`, shrunk to 640, OpenCV's `FaceDetectorYN`, InsightFace's `norm_crop`, and the same recogniser's graph
  (weights as floats: ONNX Runtime refuses the file as it is).
- stock_full, for YuNet: the same, but each picture in its full size for the detector.
- limit: oceano's decodes and session runs alone, on inputs made before, one single-threaded session a core.

They take turns, round after round, on the same pictures; medians of the rounds' pictures per second. The last
line is one JSON object: `vs_stock` = oceano / stock, `of_limit` = oceano / limit, and so on; `..._cpu` compares the
time of the CPU instead, of all processes, which other load on the machine changes less.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import psutil

from app.catalog import open_ledger
from app.core.concurrency import processors
from app.core.config import Settings, load_settings
from app.core.onnx_graph import Graph, describe
from app.core.types import ModelPack
from app.embeddings import FaceEngine
from app.engine.graph_optimizations import rewrite
from app.engine.network import Network
from app.engine.placement import place
from app.images.decoding import decode
from app.images.thumbnails import ThumbStore
from app.index import open_index
from app.ingest import Ingest, IngestOptions
from app.packs.store import find_pack
from bench.pictures import folder_of, read_picture, write_pictures
from bench.resnet100 import write_resnet100

CORES = processors()


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of the clock, and of the CPU in this process and those that it started."""

    clock: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, help="pictures of a round (300; 24 with --resnet100)")
    parser.add_argument("--rounds", type=int, help="rounds (5; 3 with --resnet100)")
    parser.add_argument("--scale", type=float, default=1.0, help="sides of the pictures, times 1.9 megapixels'")
    parser.add_argument("--resnet100", action="store_true", help="a recogniser of ResNet-100's size, random weights")
    asked = parser.parse_args()
    count = asked.pictures or (24 if asked.resnet100 else 300)
    with tempfile.TemporaryDirectory(prefix="oceano-bench-") as name:
        folder = Path(name)
        pictures = write_pictures(_made(folder / "pictures"), folder_of("REAL_FACES_DIR"), count, scale=asked.scale)
        pack = _pack(folder, resnet100=asked.resnet100)
        notes: dict[str, Any] = {}
        contenders: dict[str, Callable[[], Spent]] = {
            "oceano": _oceano(folder, pack, pictures, notes),
            **_stock(pack, pictures),
            "limit": _limit(pack, pictures),
        }
        spent: dict[str, list[Spent]] = {key: [] for key in contenders}
        for number in range(asked.rounds or (3 if asked.resnet100 else 5)):
            for key, run in contenders.items():
                spent[key].append(run())
            print(number, {key: round(count / values[-1].clock, 2) for key, values in spent.items()}, file=sys.stderr)
        notes |= {"megapixels": round(_megapixels(pictures), 2), "pictures": count}
    said = _compared({key: count / statistics.median(one.clock for one in values) for key, values in spent.items()})
    by_cpu = _compared({key: count / statistics.median(one.cpu for one in values) for key, values in spent.items()})
    said |= {f"{key}_cpu": value for key, value in by_cpu.items()}
    notes |= {
        "recogniser": "resnet100" if asked.resnet100 else "of the pack",
        "cores": CORES,
        "load": os.getloadavg()[0],
    }
    print(json.dumps({key: round(value, 3) for key, value in said.items()} | notes))


def _compared(rate: dict[str, float]) -> dict[str, float]:
    """Pictures per second of each, and those of oceano over those of the others."""
    compared = {f"vs_{key}": rate["oceano"] / value for key, value in rate.items() if key.startswith("stock")}
    compared["of_limit"] = rate["oceano"] / rate["limit"]
    return compared | {f"{key}_per_s": value for key, value in rate.items()}


def _spent(work: Callable[[], object]) -> Spent:
    before, start = _cpu_seconds(), time.perf_counter()
    work()
    return Spent(time.perf_counter() - start, _cpu_seconds() - before)


def _cpu_seconds() -> float:
    """Of this process and those that it started, also of those that have ended."""
    own, total = psutil.Process(), 0.0
    for process in (own, *own.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            used = process.cpu_times()
            total += used.user + used.system + used.children_user + used.children_system
    return total


def _pack(folder: Path, *, resnet100: bool) -> Path:
    """A folder with the detector and the recogniser, and nothing else."""
    real = find_pack(str(folder_of("REAL_PACK_DIR")), folder / "models")
    pack = _made(folder / "pack")
    (pack / real.detector.name).symlink_to(real.detector.resolve())
    if resnet100:
        write_resnet100(pack / "resnet100.onnx")
    else:
        (pack / real.recogniser.name).symlink_to(real.recogniser.resolve())
    return pack


def _oceano(folder: Path, pack: Path, pictures: list[Path], notes: dict[str, Any]) -> Callable[[], Spent]:
    """A whole ingest into a new index, the model loaded before."""
    engine = FaceEngine(find_pack(str(pack), folder / "models"), _settings(folder), many=True)
    rounds = itertools.count()

    def run() -> Spent:
        cv2.setNumThreads(1)
        settings = _settings(folder / f"round-{next(rounds)}")
        with (
            closing(open_index(settings, engine.pack)) as index,
            closing(open_ledger(settings.state_dir / "catalog.sqlite3", "bench")) as ledger,
        ):
            index.count()
            thumbs = ThumbStore(settings.thumbs_dir)
            options = IngestOptions(settings.max_image_pixels, min_decoded_side=settings.min_decoded_side)
            ingest = Ingest(engine, index, ledger, thumbs, options)
            spent = _spent(lambda: ingest.run(pictures[0].parent))
            counts = ingest.counts
            if counts.done != len(pictures):
                sys.exit(f"not every picture was taken up: {counts}")
            notes["faces_per_picture"] = round(counts.faces / counts.done, 2)
        return spent

    return run


def _stock(pack: Path, pictures: list[Path]) -> dict[str, Callable[[], Spent]]:
    found = find_pack(str(pack), pack.parent / "models")
    if Network(found.detector, place("cpu", threads=1), max_batch=1).graph.family == "yunet":
        loop = _opencv_loop(found)
        return {
            "stock": lambda: _timed(lambda path: loop(_shrunk(cv2.imread(str(path)), 640)), pictures),
            "stock_full": lambda: _timed(lambda path: loop(cv2.imread(str(path))), pictures),
        }
    from insightface.app import FaceAnalysis

    modules = ["detection", "recognition"]
    analysis = FaceAnalysis(name=str(pack), allowed_modules=modules, providers=["CPUExecutionProvider"])
    analysis.prepare(ctx_id=0, det_size=(640, 640))
    return {"stock": lambda: _timed(lambda path: analysis.get(cv2.imread(str(path))), pictures)}


def _timed(do: Callable[[Path], object], pictures: list[Path]) -> Spent:
    cv2.setNumThreads(-1)
    return _spent(lambda: [do(path) for path in pictures])


def _opencv_loop(pack: ModelPack) -> Callable[[Any], list[Any]]:
    """What a script does with OpenCV's detector and a session of ONNX Runtime."""
    import onnx
    import onnxruntime
    from insightface.utils.face_align import norm_crop

    model = onnx.load(pack.recogniser)
    graph = describe(model)
    assert isinstance(graph, Graph)
    rewrite(model, graph, free_batch=False, for_cpu=False)  # or ONNX Runtime refuses it
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    detector = cv2.FaceDetectorYN.create(str(pack.detector), "", (640, 640), 0.5, 0.3, 5000)

    def run(picture: Any) -> list[Any]:
        detector.setInputSize(picture.shape[1::-1])
        _, faces = detector.detect(picture)
        crops = [norm_crop(picture, face[4:14].reshape(5, 2)) for face in ([] if faces is None else faces)]
        blobs = [
            cv2.dnn.blobFromImage(crop, 1 / graph.std, (112, 112), (graph.mean,) * 3, swapRB=graph.swap)
            for crop in crops
        ]
        return [session.run(None, {graph.input_name: blob}) for blob in blobs]

    return run


def _shrunk(picture: Any, side: int) -> Any:
    scale = side / max(picture.shape[:2])
    return cv2.resize(picture, None, fx=scale, fy=scale) if scale < 1 else picture


def _limit(pack: Path, pictures: list[Path]) -> Callable[[], Spent]:
    """The work that cannot be left out, each thread with sessions of its own and every input made before."""
    found = find_pack(str(pack), pack.parent)
    settings = load_settings(None, device="cpu")
    engine = FaceEngine(found, settings, many=True)
    min_decoded_side = settings.min_decoded_side
    work = [(data, _runs_of(engine, data, min_decoded_side)) for data in (path.read_bytes() for path in pictures)]
    del engine
    placement = place("cpu", threads=1)
    files = (found.detector, found.recogniser)
    sessions = [{path.name: Network(path, placement, max_batch=8) for path in files} for _ in range(CORES)]

    def do(mine: dict[str, Network], share: Any) -> None:
        for data, runs in share:
            decode(data, max_pixels=settings.max_image_pixels, image_id="", min_decoded_side=min_decoded_side)
            for name, blob in runs:
                mine[name].run(blob)

    def run() -> None:
        cv2.setNumThreads(1)
        shared = iter(work)
        lock = threading.Lock()

        def taken() -> Any:
            while True:
                with lock:
                    one = next(shared, None)
                if one is None:
                    return
                yield one

        threads = [threading.Thread(target=do, args=(mine, taken())) for mine in sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return lambda: _spent(run)


def _runs_of(engine: FaceEngine, data: bytes, min_decoded_side: int) -> list[tuple[str, Any]]:
    """Which network an engine runs on what for a picture; a few are looked at turned, too."""
    runs = []
    run = Network.run

    def noted(network: Network, blob: Any) -> Any:
        runs.append((network.name, blob))
        return run(network, blob)

    with patch.object(Network, "run", noted):
        engine.analyze([decode(data, max_pixels=1 << 30, min_decoded_side=min_decoded_side)])
    return runs


def _settings(folder: Path) -> Settings:
    return load_settings(None, device="cpu", data_dir=folder)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _megapixels(pictures: list[Path]) -> float:
    return statistics.mean(read_picture(path).size / 3e6 for path in pictures)


if __name__ == "__main__":
    main()
