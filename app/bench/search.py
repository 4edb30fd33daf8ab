"""How fast and how exact the index searches, and what it does while its graph is built.

    .venv/bin/python app/bench/search.py --n 200000

N faces (identities of eight, see bench/faces.py) go into an embedded index through its owner; while the graph is
built, searches and small writes go on and are timed. Then new faces of stored people are searched for one by one, and
each answer is compared with an exact scan of all N in the same run. `--ef 512,1024` compares values of HNSW_EF on the
same graph; `--keep FOLDER` keeps the index there and takes up one that is there.
With `--queries` more than some thousand, ever more of the original vectors are in memory, mapped: the system takes
those pages back when it needs them, and `anonymous_gb` is what it cannot take back.

The last line is one JSON object: milliseconds of a search, `recall_at_10` (of the scan's ten, how many were found),
`mate_recall` (of a face's eight, how many), resident GB of the index's processes, seconds until a new owner has
answered its first search, seconds of the build; `building`: the same milliseconds during the build.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import psutil

from app.core.config import Settings, load_settings
from app.core.protocols import FaceIndex
from app.core.types import FacePoint, ModelPack
from app.index import open_index
from bench.exact import DIGEST, LIMIT, SOME, compared, filtered, made, milliseconds, ms, pack_of, scan
from bench.faces import FACES_OF_ONE, SIZE, Floats, People, points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000, help="faces, up to 1,000,000 and more")
    parser.add_argument("--size", type=int, default=SIZE, help="dimensions of an embedding")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--ef", default="512", help="values of HNSW_EF, the first for the figures themselves")
    parser.add_argument("--m", type=int, default=48)
    parser.add_argument("--ef-construct", type=int, default=200)
    parser.add_argument("--keep", type=Path, help="a folder for the index, used again if it is there")
    asked = parser.parse_args()
    efs = [int(ef) for ef in asked.ef.split(",")]
    people, pack = People(asked.size), pack_of(asked.size)
    stored, queries, owners = made(people, asked.n, asked.queries)
    with tempfile.TemporaryDirectory(prefix="oceano-bench-") as name:
        settings = load_settings(
            None,
            data_dir=asked.keep or Path(name),
            hnsw_ef=efs[0],
            hnsw_m=asked.m,
            hnsw_ef_construct=asked.ef_construct,
        )
        said = _build(settings, pack, stored, people)
        time.sleep(3)  # the owner leaves
        truth, scan_ms = scan(stored, queries)
        start = time.perf_counter()
        with closing(open_index(settings, pack)) as index:
            index.search(queries[0], limit=LIMIT)
            said["ready_s"] = time.perf_counter() - start
            for query in stored[:200]:  # what every search needs is in memory then
                index.search(query, limit=LIMIT)
            said |= compared(index, queries, owners, truth) | {"scan_ms": scan_ms}
            said |= filtered(index, stored, queries[:100])
            said |= _memory() | {"disk_gb": (index.info().disk_bytes or 0) / 1e9}
        table = {ef: _with_ef(settings, pack, ef, queries, owners, truth) for ef in efs} if len(efs) > 1 else None
    said |= {"vs_scan": scan_ms / said["p50_ms"], "impostor_sd": _impostor_spread(stored)}
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in said.items()}
    about = {
        "n": asked.n,
        "size": asked.size,
        "m": asked.m,
        "ef_construct": asked.ef_construct,
        "ef": efs[0],
        "cores": os.cpu_count(),
    }
    print(json.dumps(rounded | about | ({"by_ef": table} if table else {})))


def _build(settings: Settings, pack: ModelPack, stored: Floats, people: People) -> dict[str, Any]:
    """Fill the index and build its graph, with searches and writes going on beside it."""
    with closing(open_index(settings, pack)) as index:
        if index.count() == len(stored):
            return {"build_s": None}
        start = time.perf_counter()
        for first in range(0, len(stored), SOME):
            index.upsert(list(points(stored[first : first + SOME], DIGEST, first)))
            print(f"{first} stored, {time.perf_counter() - start:.0f} s", file=sys.stderr)
        fill_s = time.perf_counter() - start
        extra = people.faces(people.identities(1000), 4)
        done = threading.Event()
        beside: dict[str, Any] = {}
        watcher = threading.Thread(target=_use, args=(index, stored, extra, done, beside))
        watcher.start()
        start = time.perf_counter()
        index.maintain(wait=True)
        build_s = time.perf_counter() - start
        done.set()
        watcher.join()
        index.delete([one.face_id for one in points(extra, DIGEST, len(stored))])
        index.maintain(wait=True)
        if index.count() != len(stored):
            sys.exit(f"{index.count()} faces are stored instead of {len(stored)}")
        return {"fill_per_s": len(stored) / fill_s, "build_s": build_s, "building": beside}


def _use(index: FaceIndex, stored: Floats, extra: Floats, done: threading.Event, into: dict[str, Any]) -> None:
    """Search five times a second, write four faces every second."""
    searches: list[float] = []
    writes: list[float] = []
    while not done.wait(0.2):
        searches.append(ms(index.search, stored[len(searches) % len(stored)], limit=LIMIT))
        if len(searches) % 5 == 0 and 4 * len(writes) < len(extra):
            first = 4 * len(writes)
            writes.append(ms(_write, index, list(points(extra[first : first + 4], DIGEST, len(stored) + first))))
    into |= milliseconds(searches) | {"max_ms": round(max(searches), 1), "searches": len(searches)}
    into |= {"write_p50_ms": round(statistics.median(writes or [0]), 1), "write_max_ms": round(max(writes or [0]), 1)}


def _with_ef(
    settings: Settings, pack: ModelPack, ef: int, queries: Floats, owners: list[int], truth: list[set[str]]
) -> dict[str, float]:
    with closing(open_index(settings.model_copy(update={"hnsw_ef": ef}), pack)) as index:
        return {key: round(value, 4) for key, value in compared(index, queries, owners, truth).items()}


def _memory() -> dict[str, float]:
    """Resident memory of the owner and its worker; `anonymous` is what cannot be dropped and read again."""
    resident = anonymous = 0
    for process in psutil.Process().children(recursive=True):
        if "app.index" in " ".join(process.cmdline()):
            info = process.memory_full_info()
            resident += info.rss
            anonymous += info.rss - info.shared
    return {"rss_gb": resident / 1e9, "anonymous_gb": anonymous / 1e9}


def _impostor_spread(stored: Floats) -> float:
    """Of the cosines of faces that are of different identities."""
    some = stored[:: max(1, len(stored) // 2000)][:2000]
    owner = (np.arange(len(stored))[:: max(1, len(stored) // 2000)][:2000]) // FACES_OF_ONE
    cosines = some @ some.T
    return float(cosines[owner[:, None] != owner[None, :]].std())


def _write(index: FaceIndex, some: list[FacePoint]) -> None:
    index.upsert(some)
    index.flush()


if __name__ == "__main__":
    main()
