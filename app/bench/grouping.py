"""How well and how fast faces are grouped by person: the product's method beside others.

    .venv/bin/python app/bench/grouping.py --n 100000 --keep FOLDER

N faces of bench/faces.py, eight of each person, go into an embedded index. Then all but `--added` of them are grouped
by `app.people`, and the rest afterwards. The other methods get the same graph: the `--neighbours` most similar faces of
each face from the cut on, asked once. They are connected components, Chinese Whispers (Biemann 2006), approximate
rank-order (Otto, Wang and Jain 2018), and HDBSCAN if scikit-learn is installed.

`--keep FOLDER` keeps the index there for another run. The last line is one JSON object: for each method precision and
recall of pairs, precision, recall and F of B-cubed, seconds and CPU seconds; the peak memory of this process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import psutil

from app.core.config import load_settings
from app.core.protocols import FaceIndex
from app.core.types import Strangers
from app.index import open_index
from app.people import Groups, Rules, Settings, cut_of, group_faces
from bench.exact import DIGEST, id_of, pack_of
from bench.faces import FACES_OF_ONE, IMPOSTOR_SPREAD, SIZE, points
from bench.gallery import Gallery
from bench.grouping_methods import METHODS, Graph, Labels

PART = 256
FOLDER: list[Path] = []  # of the index


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--added", type=int, default=1000)
    parser.add_argument("--neighbours", type=int, default=24)
    parser.add_argument("--batch", type=int, default=100_000)
    parser.add_argument("--cut", type=float, help="None: from the spread of strangers")
    parser.add_argument("--only", action="store_true", help="the product's method only")
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    cut = asked.cut or cut_of(Strangers(0.0, IMPOSTOR_SPREAD, True), asked.n)
    with tempfile.TemporaryDirectory(prefix="oceano-bench-") as name:
        folder = asked.keep or Path(name)
        FOLDER.append(folder)
        with closing(open_index(load_settings(None, data_dir=folder), pack_of(SIZE))) as index:
            _fill(index, asked.n)
            settings = Settings(cut, neighbours=asked.neighbours, batch=asked.batch)
            said = {"n": asked.n, "cut": round(cut, 3)} | _product(index, asked.n, asked.added, settings)
            if not asked.only:
                graph = _graph(index, asked.n, settings)
                said["methods"] = {name: _timed(method, graph, asked.n) for name, method in METHODS.items()}
    print(json.dumps(said))


def _fill(index: FaceIndex, count: int) -> None:
    if index.count() < count:
        for first, block in Gallery(count).blocks():
            index.upsert(list(points(block, DIGEST, first)))
        index.flush()
        index.maintain(wait=True)


def _product(index: FaceIndex, count: int, added: int, settings: Settings) -> dict[str, Any]:
    ids = [id_of(number) for number in range(count)]
    new = {ids[number] for number in np.random.default_rng(4).choice(count, added, replace=False)}
    groups = Groups()
    start, cpu = time.perf_counter(), _cpu_s()
    group_faces(index, groups, settings, new=[face_id for face_id in ids if face_id not in new])
    first = {"seconds": time.perf_counter() - start, "cpu_s": _cpu_s() - cpu}
    start, cpu = time.perf_counter(), _cpu_s()
    group_faces(index, groups, settings, Rules(), new=new)
    second = {"added": added, "added_s": time.perf_counter() - start, "added_cpu_s": _cpu_s() - cpu}
    numbers: dict[str, int] = {}
    placed = dict(groups.rows())
    labels = np.array([numbers.setdefault(placed[face_id].group, len(numbers)) for face_id in ids])
    peak = {"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    return _rounded(first | second | peak) | {"product": scores(labels, np.arange(count) // FACES_OF_ONE)}


def _graph(index: FaceIndex, count: int, settings: Settings) -> Graph:
    """Ask the index for the neighbours of every face."""
    ids = [id_of(number) for number in range(count)]
    numbers = {face_id: number for number, face_id in enumerate(ids)}
    rows: list[tuple[int, int, float]] = []
    for first in range(0, count, PART):
        records = index.retrieve(ids[first : first + PART], with_embedding=True)
        vectors = [record.embedding for record in records if record.embedding is not None]
        found = index.search_batch(vectors, limit=settings.neighbours + 1, threshold=settings.cut)
        rows += _rows(first, found, numbers)
    return Graph.of(count, rows)


def _rows(first: int, found: list[Any], numbers: dict[str, int]) -> Iterator[tuple[int, int, float]]:
    for number, matches in enumerate(found, first):
        for match in matches:
            if numbers[match.face_id] != number:
                yield number, numbers[match.face_id], match.similarity


def _timed(method: Callable[[Graph], Labels], graph: Graph, count: int) -> dict[str, float]:
    cpu = time.process_time()
    labels = method(graph)
    spent = time.process_time() - cpu
    return scores(labels, np.arange(count) // FACES_OF_ONE) | {"cpu_s": round(spent, 1)}


def scores(labels: Labels, truth: Labels) -> dict[str, float]:
    """Precision and recall of pairs, and of B-cubed, of groups that are numbers from 0 on."""
    both = labels.astype(np.int64) * (int(truth.max()) + 1) + truth
    _, cell, size = np.unique(both, return_inverse=True, return_counts=True)
    found, real = np.bincount(labels), np.bincount(truth)
    hits = _pairs(size)
    precision = float((size[cell] / found[labels]).mean())
    recall = float((size[cell] / real[truth]).mean())
    said = {
        "pair_precision": hits / max(_pairs(found), 1),
        "pair_recall": hits / max(_pairs(real), 1),
        "b3_precision": precision,
        "b3_recall": recall,
        "b3_f": 2 * precision * recall / (precision + recall),
        "groups": float((found > 1).sum()),
    }
    return {name: round(value, 4) for name, value in said.items()}


def _pairs(sizes: Labels) -> float:
    return float((sizes.astype(np.float64) * (sizes - 1) / 2).sum())


def _cpu_s() -> float:
    """CPU seconds of this process and of the index's, whose command lines name its folder."""
    total = 0.0
    for process in psutil.process_iter(["pid", "cmdline"]):
        mine = process.pid == os.getpid() or any(str(FOLDER[0]) in word for word in process.info["cmdline"] or ())
        if mine:
            with suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
    return total


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in values.items()}


if __name__ == "__main__":
    main()
