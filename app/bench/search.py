"""How fast and how exact the embedded index searches, and what it does while its graph is built.

    .venv/bin/python app/bench/search.py --n 6000000 --keep FOLDER

N faces (identities of eight, see bench/gallery.py) go into an embedded index through its owner, `--step` at a time;
after each step the graph is built, while searches and small writes go on and are timed. Then new faces of stored people
are searched for one by one, and each result is compared with an exact scan of all N, which is made in blocks and kept
beside the index. `edge_ms` is Qdrant Edge alone: the same searches in this process, by turns with those of the owner,
whose median is then `owner_ms`; `over_edge` is their ratio.

`--keep FOLDER` keeps the index there; a run that was interrupted goes on where it was. `--minutes M` starts no further
step after M minutes. `--ef 512,1024` compares values of HNSW_EF on the same graph.

The last line is one JSON object: milliseconds of a search, `recall_at_10` (of the scan's ten, how many were found),
`mate_recall` (of a person's eight, how many), searches a second of one client and of eight, also without readers, GB of
the index's processes (`rss_gb`; `anonymous_gb` is what the system cannot take back) and of the disk, seconds until a
new owner has answered its first search; `steps`: for each step the seconds of filling and of the build (`build_cpu_s`
is its CPU time), and milliseconds during the build.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
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

from app.core.concurrency import processors
from app.core.config import Settings, load_settings
from app.core.protocols import FaceIndex
from app.core.types import FacePoint
from app.index import open_index
from app.index.embedded.alias import open_embedded
from app.index.embedded.options import OwnerOptions
from app.index.embedded.shard import Shard
from app.index.embedded.storage import copy_folder, current_shard
from bench.exact import DIGEST, LIMIT, compared, filtered, id_of, milliseconds, ms, pack_of, rate
from bench.faces import SIZE, Floats, points
from bench.gallery import BLOCK, Gallery, Truth

CLIENTS = 8
READERS = max(1, min(3, processors() - 1))
SEARCHES_PER_S = 5
SEARCHES_PER_WRITE = 3
FACES_OF_A_WRITE = 16
WRITTEN_BESIDE = 10_000  # at most, during one build
LEAVING_S = 3
WARMING = 100  # searches that are not counted
SLOWEST = 6  # searches during a build, with the second in which they began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000, help="faces, in blocks of 20,000")
    parser.add_argument("--size", type=int, default=SIZE, help="dimensions of an embedding")
    parser.add_argument("--step", type=int, default=1_000_000, help="faces per build of the graph")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--ef", default="512", help="values of HNSW_EF, the first for the figures themselves")
    parser.add_argument("--m", type=int, default=48)
    parser.add_argument("--ef-construct", type=int, default=200)
    parser.add_argument("--keep", type=Path, help="a folder for the index, used again if it is there")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no further step after them")
    asked = parser.parse_args()
    gallery, efs = Gallery(asked.n, asked.size), [int(ef) for ef in asked.ef.split(",")]
    with tempfile.TemporaryDirectory(prefix="oceano-bench-") as name:
        folder = asked.keep or Path(name)
        folder.mkdir(exist_ok=True)
        settings = load_settings(
            None,
            data_dir=folder,
            hnsw_ef=efs[0],
            hnsw_m=asked.m,
            hnsw_ef_construct=asked.ef_construct,
        )
        steps = Steps(settings, gallery, asked.step, folder / "steps.json")
        if not steps.run(until=time.monotonic() + asked.minutes * 60):
            print(json.dumps({"n": asked.n, "interrupted": True, "steps": steps.done}))
            return
        said = measured(settings, gallery, asked.queries, folder)
        if len(efs) > 1:
            said["by_ef"] = {ef: _with_ef(settings, gallery, ef, asked.queries, folder) for ef in efs}
    about = {"n": asked.n, "size": asked.size, "m": asked.m, "ef_construct": asked.ef_construct, "ef": efs[0]}
    print(json.dumps(_rounded(said) | about | {"cores": os.cpu_count(), "steps": steps.done}))


class Steps:
    """Filling and building, step by step; what is done is in a file, so that another run goes on there.

    Args:
        settings: of the index.
        gallery: the faces.
        step: faces of one step.
        file: where the figures of the finished steps are.
    """

    def __init__(self, settings: Settings, gallery: Gallery, step: int, file: Path) -> None:
        self._settings, self._gallery, self._step, self._file = settings, gallery, step, file
        self.done: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []

    def run(self, until: float) -> bool:
        """Do the steps that are missing; return False if the time is up before the last one."""
        while (have := self.done[-1]["faces"] if self.done else 0) < self._gallery.count:
            if time.monotonic() > until:
                return False
            target = min(self._gallery.count, have + self._step)
            with closing(open_index(self._settings, pack_of(self._gallery.size))) as index:
                figures = {"faces": target} | self._fill(index, target) | self._build(index, target)
            self.done.append(figures)
            self._file.write_text(json.dumps(self.done))
            print(json.dumps(figures), file=sys.stderr, flush=True)
            time.sleep(LEAVING_S)  # the owner leaves
        return True

    def _fill(self, index: FaceIndex, target: int) -> dict[str, Any]:
        have = min(index.count(), target) // BLOCK * BLOCK
        start = time.perf_counter()
        for first, block in self._gallery.blocks(have, target):
            index.upsert(list(points(block, DIGEST, first)))
            print(f"{first + len(block)} stored, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        index.flush()
        return {"filled": target - have, "fill_s": round(time.perf_counter() - start, 1)}

    def _build(self, index: FaceIndex, target: int) -> dict[str, Any]:
        """Build the graph, with searches and writes going on beside it."""
        done = threading.Event()
        beside: dict[str, Any] = {}
        user = threading.Thread(target=_use, args=(index, self._gallery, done, beside))
        user.start()
        start, processors = time.perf_counter(), _processor_seconds()
        try:
            index.maintain(wait=True)
        finally:
            figures = {"build_s": round(time.perf_counter() - start, 1)}
            done.set()
            user.join()
        figures["build_cpu_s"] = round(_processor_seconds() - processors, 1)
        index.delete([id_of(self._gallery.count + number) for number in range(beside["written"])])
        index.flush()
        if (count := index.count()) != target:
            sys.exit(f"{count} faces are stored instead of {target}")
        return figures | {"building": beside, "disk_gb": round((index.info().disk_bytes or 0) / 1e9, 2)}


def _use(index: FaceIndex, gallery: Gallery, done: threading.Event, into: dict[str, Any]) -> None:
    """Search and write at a steady rate until `done` is set; what is written is numbered after the gallery's faces."""
    stored, extra = gallery.block(0), gallery.strangers(WRITTEN_BESIDE)
    searches: list[float] = []
    writes: list[float] = []
    when: list[float] = []
    written, began = 0, time.perf_counter()
    while not done.wait(1 / SEARCHES_PER_S):
        when.append(time.perf_counter() - began)
        searches.append(ms(index.search, stored[7919 * len(searches) % len(stored)], limit=LIMIT))
        if len(searches) % SEARCHES_PER_WRITE == 0 and written < len(extra):
            some = list(points(extra[written : written + FACES_OF_A_WRITE], DIGEST, gallery.count + written))
            writes.append(ms(_write, index, some))
            written += len(some)
    into |= milliseconds(searches) | {"max_ms": round(max(searches), 1), "searches": len(searches)}
    into |= {f"write_{key}": value for key, value in milliseconds(writes or [0.0]).items()}
    into |= {"write_max_ms": round(max(writes or [0.0]), 1), "written": written}
    slowest = sorted(zip(searches, when, strict=True), reverse=True)[:SLOWEST]
    into["slowest"] = [[round(second, 1), round(took, 1)] for took, second in slowest]


def _write(index: FaceIndex, some: list[FacePoint]) -> None:
    index.upsert(some)
    index.flush()


def measured(settings: Settings, gallery: Gallery, count: int, folder: Path) -> dict[str, Any]:
    """Search the finished index."""
    queries, owners = gallery.queries(count)
    truth = Truth.of(gallery, queries, kept=folder / f"truth-{count}.npz")
    start = time.perf_counter()
    with closing(open_index(settings, pack_of(gallery.size))) as index:
        index.search(queries[0], limit=LIMIT)
        said: dict[str, Any] = {"ready_s": time.perf_counter() - start}
        said["cold"] = compared(index, queries, owners, truth)
        said |= compared(index, queries, owners, truth)  # the pages that these searches need are in memory now
        said |= filtered(index, queries, truth)
        said |= _memory() | {"disk_gb": (index.info().disk_bytes or 0) / 1e9}
        said |= _edge_alone(settings, index, queries)
    said |= _rates(settings, gallery.size, queries)
    return said | {"scan_ms": truth.scan_ms, "vs_scan": truth.scan_ms / said["p50_ms"]}


def _rates(settings: Settings, size: int, queries: Floats) -> dict[str, float]:
    """Searches a second of one client and of several, by turns without readers and with as many as there may be."""
    rates: dict[str, list[float]] = {}
    for most in (0, READERS) * 2:
        time.sleep(LEAVING_S)  # the owner leaves
        with closing(open_embedded(settings, pack_of(size), readers=most)) as index:
            rate(index, queries, CLIENTS)  # readers start, and what these searches need is in memory
            time.sleep(LEAVING_S)
            for clients in (1, CLIENTS):
                name = f"per_s_{clients}" + ("" if most else "_without_readers")
                rates.setdefault(name, []).append(rate(index, queries, clients))
    said = {name: statistics.median(values) for name, values in rates.items()}
    said["clients_gain"] = said[f"per_s_{CLIENTS}"] / said["per_s_1"]
    said["readers_gain"] = said[f"per_s_{CLIENTS}"] / said[f"per_s_{CLIENTS}_without_readers"]
    return said


def _edge_alone(settings: Settings, index: FaceIndex, queries: Floats) -> dict[str, float]:
    """Search through the owner and, by turns, in a linked copy of its shard that is open in this process."""
    (collection,) = (path for path in settings.embedded_dir.iterdir() if path.is_dir())
    copy = collection.with_name("edge-alone")
    shutil.rmtree(copy, ignore_errors=True)
    source = current_shard(collection)
    assert source is not None
    copy_folder(source, copy, link_frozen=True)
    options = OwnerOptions(copy, queries.shape[1], hnsw_m=settings.hnsw_m, hnsw_ef_construct=settings.hnsw_ef_construct)
    shard = Shard.open(copy, options, copy=True)
    times: dict[str, list[float]] = {"owner_ms": [], "edge_ms": []}
    for query in np.concatenate([queries[:WARMING], queries]):
        times["owner_ms"].append(ms(index.search, query, limit=LIMIT))
        times["edge_ms"].append(ms(shard.search, query.tobytes(), LIMIT, None, {}, settings.hnsw_ef))
    shard.close()
    shutil.rmtree(copy)
    said = {name: statistics.median(values[WARMING:]) for name, values in times.items()}
    return said | {"over_edge": said["owner_ms"] / said["edge_ms"]}


def _with_ef(settings: Settings, gallery: Gallery, ef: int, count: int, folder: Path) -> dict[str, float]:
    queries, owners = gallery.queries(count)
    truth = Truth.of(gallery, queries, kept=folder / f"truth-{count}.npz")
    with closing(open_index(settings.model_copy(update={"hnsw_ef": ef}), pack_of(gallery.size))) as index:
        return _rounded(compared(index, queries, owners, truth))


def _processor_seconds() -> float:
    """Of the owner's processes that have ended: builders, and a worker that was replaced."""
    times = [process.cpu_times() for process in _processes() if "owner" in " ".join(process.cmdline())]
    return sum(float(one.children_user + one.children_system) for one in times)


def _processes() -> list[psutil.Process]:
    found = psutil.Process().children(recursive=True)
    return [process for process in found if "app.index" in " ".join(process.cmdline())]


def _memory() -> dict[str, float]:
    """Memory of the owner and its workers; pages that two of them share are counted once."""
    proportional = unique = 0
    for process in _processes():
        info = process.memory_full_info()
        proportional += info.pss
        unique += info.rss - info.shared
    return {"rss_gb": proportional / 1e9, "anonymous_gb": unique / 1e9}


def _rounded(said: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in said.items()}


if __name__ == "__main__":
    main()
