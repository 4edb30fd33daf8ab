"""Memory and rate of a ZIP of originals, streamed over HTTP by a real service.

    .venv/bin/python app/bench/export.py [--n 1000]

The library has N JPEG files of 1 to 2 MB: a small picture of a drawn person with random bytes after it. The service has
the demo model and the embedded index. The archive is streamed once and checked, once more for the numbers; files and
archive are in the page cache then. The last line is one JSON object: `memory_growth_mb` is the growth of the memory of
the service (PSS without its index process, highest value while it sends) over that before the export, `mb_per_second`
the rate of the archive, `read_mb_per_second` that of reading the files in turn, `first_byte_ms` the time to the first
byte. `files` and `intact` are those found in the archive.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import httpx
import numpy as np
import psutil

from app.catalog import FileRecord
from app.core.config import load_settings
from app.core.types import FacePoint, face_id_of
from app.images import image_id_of
from app.index import open_index
from app.packs.store import find_pack
from app.service import open_ledger
from bench.faces import stored_payload
from tests.support.pictures import encoded
from tests.support.running import environment, oceano, service

PART = 1 << 20


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1000)
    count = parser.parse_args().n
    with tempfile.TemporaryDirectory() as folder:
        data, library = Path(folder, "data"), Path(folder, "photos")
        library.mkdir()
        env = environment(data, MODEL_NAME="demo", QDRANT_COLLECTION="demo-1", LIBRARY_ROOTS=library)
        made = oceano("demo", env=env)
        assert made.returncode == 0, made.stderr
        face_id, sizes = _fill(data, library, count)
        with service(env) as client:
            address = f"/face/{face_id}/export?format=zip"
            with _highest_memory() as memory:
                intact, files = _check(client, address, Path(folder, "found.zip"), library)
                start = time.perf_counter()
                first, received = _stream(client, address, start)
                seconds = time.perf_counter() - start
        print(
            json.dumps(
                {
                    "files": files,
                    "intact": intact,
                    "megabytes": round(received / 1e6),
                    "memory_growth_mb": round(memory[0] / 1e6, 1),
                    "mb_per_second": round(received / 1e6 / seconds),
                    "read_mb_per_second": round(sizes / 1e6 / _read(library)),
                    "first_byte_ms": round(1000 * first, 1),
                }
            )
        )


def _fill(data: Path, library: Path, count: int) -> tuple[str, int]:
    """Write the files, and record them in index and ledger; the id of a face, and the bytes of all files."""
    settings = load_settings(None, data_dir=data, model_name="demo", qdrant_collection="demo-1")
    pack = find_pack("demo", settings.models_dir)
    rng = np.random.default_rng(5)
    embedding = rng.normal(size=pack.embedding_size).astype(np.float32)
    embedding /= np.linalg.norm(embedding)
    points, records, total = [], [], 0
    for number in range(count):
        path = library / f"{number:04d}.jpg"
        content = encoded(kind="JPEG") + rng.bytes(int(rng.integers(1_000_000, 2_000_000)))
        path.write_bytes(content)
        status, image_id = path.stat(), image_id_of(content)
        records.append(FileRecord(str(path), status.st_size, status.st_mtime_ns, image_id, "done", 1))
        points.append(FacePoint(face_id_of(image_id, pack.digest, 0), embedding, stored_payload(image_id, str(path))))
        total += len(content)
    with closing(open_index(settings, pack)) as index, closing(open_ledger(settings, pack)) as ledger:
        index.upsert(points)
        index.flush()
        ledger.record(records)
    return points[0].face_id, total


def _check(client: httpx.Client, address: str, target: Path, library: Path) -> tuple[bool, int]:
    """Whether every file is in the archive as it is, and the number of files."""
    with client.stream("GET", address) as response, target.open("wb") as file:
        response.raise_for_status()
        for part in response.iter_bytes(PART):
            file.write(part)
    with zipfile.ZipFile(target) as archive:
        found = {hashlib.sha256(archive.read(name)).digest() for name in archive.namelist()}
        count = len(archive.namelist())
    return found == {hashlib.sha256(path.read_bytes()).digest() for path in library.iterdir()}, count


def _stream(client: httpx.Client, address: str, start: float) -> tuple[float, int]:
    """Seconds to the first byte, and the number of bytes."""
    first, received = 0.0, 0
    with client.stream("GET", address) as response:
        response.raise_for_status()
        for part in response.iter_raw(PART):
            first = first or time.perf_counter() - start
            received += len(part)
    return first, received


def _read(library: Path) -> float:
    """Seconds to read all files in turn."""
    start = time.perf_counter()
    for path in sorted(library.iterdir()):
        with path.open("rb", buffering=0) as file:
            while file.read(PART):
                pass
    return time.perf_counter() - start


@contextmanager
def _highest_memory() -> Iterator[list[float]]:
    """Measure the growth of the memory of the service, in bytes: the only item of the list, at the end."""
    (process,) = psutil.Process().children()
    before, highest, done = process.memory_full_info().pss, [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            highest[0] = max(highest[0], process.memory_full_info().pss - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield highest
    finally:
        done.set()
        watcher.join()


if __name__ == "__main__":
    main()
