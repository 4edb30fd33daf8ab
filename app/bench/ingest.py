"""How fast an ingest is: end to end, next to InsightFace's own loop, and next to what the machine could do.

    REAL_PACK_DIR=... REAL_FACES_DIR=... .venv/bin/python app/bench/ingest.py

- oceano: `oceano ingest` from the files to the ledger: hash, decode, detect, align, embed, thumbnails, index, ledger.
- stock: `cv2.imread` and InsightFace's `FaceAnalysis.get` (detection and recognition), one picture after the other,
  with the threads that ONNX Runtime and OpenCV take by themselves.
- limit: oceano's decodes and session runs alone, on inputs made before, one single-threaded session a core.

The three take turns, round after round, on the same pictures; medians of the rounds' pictures per second. The last
line is one JSON object: `vs_stock` = oceano / stock, `of_limit` = oceano / limit.
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
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2

from app.config import Settings
from app.embeddings import FaceEngine
from app.images import decode
from app.index import open_index
from app.ingest import Ingest, IngestOptions
from app.ledger import Ledger
from app.sessions import Network, place
from app.threads import processors
from app.thumbs import ThumbStore
from app.weights import find_pack
from bench.pictures import folder_of, write_pictures
from bench.resnet100 import write_resnet100

CORES = processors()


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
        contenders: dict[str, Callable[[], float]] = {
            "oceano": _oceano(folder, pack, pictures, notes),
            "stock": _stock(pack, pictures),
            "limit": _limit(pack, pictures),
        }
        rates: dict[str, list[float]] = {key: [] for key in contenders}
        for number in range(asked.rounds or (3 if asked.resnet100 else 5)):
            for key, run in contenders.items():
                rates[key].append(count / run())
            print(number, {key: round(values[-1], 2) for key, values in rates.items()}, file=sys.stderr)
        notes |= {"megapixels": round(_megapixels(pictures), 2), "pictures": count}
    rate = {key: statistics.median(values) for key, values in rates.items()}
    compared = {"vs_stock": rate["oceano"] / rate["stock"], "of_limit": rate["oceano"] / rate["limit"]}
    said = compared | {f"{key}_per_s": value for key, value in rate.items()}
    notes |= {
        "recogniser": "resnet100" if asked.resnet100 else "of the pack",
        "cores": CORES,
        "load": os.getloadavg()[0],
    }
    print(json.dumps({key: round(value, 3) for key, value in said.items()} | notes))


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


def _oceano(folder: Path, pack: Path, pictures: list[Path], notes: dict[str, Any]) -> Callable[[], float]:
    """A whole ingest into a new index, the model loaded before."""
    engine = FaceEngine(find_pack(str(pack), folder / "models"), _settings(folder), many=True)
    rounds = itertools.count()

    def run() -> float:
        cv2.setNumThreads(1)
        settings = _settings(folder / f"round-{next(rounds)}")
        with (
            closing(open_index(settings, engine.pack)) as index,
            closing(Ledger(settings.state_dir / "ledger.sqlite3", "bench")) as ledger,
        ):
            index.count()
            thumbs = ThumbStore(settings.thumbs_dir)
            options = IngestOptions(settings.max_image_pixels, enough=2 * max(settings.det_size))
            start = time.perf_counter()
            counts = Ingest(engine, index, ledger, thumbs, options).run(pictures[0].parent)
            seconds = time.perf_counter() - start
            if counts.done != len(pictures):
                sys.exit(f"not every picture was taken up: {counts}")
            notes["faces_per_picture"] = round(counts.faces / counts.done, 2)
        return seconds

    return run


def _stock(pack: Path, pictures: list[Path]) -> Callable[[], float]:
    from insightface.app import FaceAnalysis

    modules = ["detection", "recognition"]
    analysis = FaceAnalysis(name=str(pack), allowed_modules=modules, providers=["CPUExecutionProvider"])
    analysis.prepare(ctx_id=0, det_size=(640, 640))

    def run() -> float:
        cv2.setNumThreads(-1)
        start = time.perf_counter()
        for path in pictures:
            analysis.get(cv2.imread(str(path)))
        return time.perf_counter() - start

    return run


def _limit(pack: Path, pictures: list[Path]) -> Callable[[], float]:
    """The work that cannot be left out, each thread with sessions of its own and every input made before."""
    found = find_pack(str(pack), pack.parent)
    settings = Settings(_env_file=None, device="cpu")
    engine = FaceEngine(found, settings, many=True)
    enough = 2 * max(settings.det_size)
    work = [(data, _runs_of(engine, data, enough)) for data in (path.read_bytes() for path in pictures)]
    del engine
    placement = place("cpu", threads=1)
    files = (found.detector, found.recogniser)
    sessions = [{path.name: Network(path, placement, most=8) for path in files} for _ in range(CORES)]

    def do(mine: dict[str, Network], share: Any) -> None:
        for data, runs in share:
            decode(data, max_pixels=settings.max_image_pixels, image_id="", enough=enough)
            for name, blob in runs:
                mine[name].run(blob)

    def run() -> float:
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
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - start

    return run


def _runs_of(engine: FaceEngine, data: bytes, enough: int) -> list[tuple[str, Any]]:
    """Which network an engine runs on what for a picture; a few are looked at turned, too."""
    runs = []
    run = Network.run

    def noted(network: Network, blob: Any) -> Any:
        runs.append((network.name, blob))
        return run(network, blob)

    with patch.object(Network, "run", noted):
        engine.analyze([decode(data, max_pixels=1 << 30, enough=enough)])
    return runs


def _settings(folder: Path) -> Settings:
    return Settings(_env_file=None, device="cpu", data_dir=folder)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _megapixels(pictures: list[Path]) -> float:
    return statistics.mean(cv2.imread(str(path)).size / 3e6 for path in pictures)


if __name__ == "__main__":
    main()
