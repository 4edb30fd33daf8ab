"""How well and how fast faces are grouped by person: the product's method beside others.

    .venv/bin/python app/bench/grouping.py --n 100000 --keep FOLDER

N faces of bench/faces.py, eight of each person, go into an embedded index, and their images into a ledger. Then all but
`--added` of them are grouped as `oceano group` does, and the rest afterwards. The other methods get the same graph: the
`--neighbours` most similar faces of each face from the cut on, asked once. They are connected components, Chinese
Whispers (Biemann 2006), approximate rank-order (Otto, Wang and Jain 2018), and HDBSCAN if scikit-learn is installed,
the last two with several values of their main parameter.

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
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import psutil

from app.catalog import CATALOG_FILE, FaceTable, FileRecord, Ledger, PeopleStore, open_ledger
from app.core.config import load_settings
from app.core.iteration import chunks
from app.core.protocols import FaceIndex
from app.core.types import Score, Strangers, collection_name
from app.index import open_index
from app.people import GroupRun, Settings, cut_of, group_cut_of
from bench.exact import DIGEST, id_of, pack_of
from bench.faces import FACES_OF_ONE, IMPOSTOR_SPREAD, SIZE, points
from bench.gallery import Gallery
from bench.grouping_methods import METHODS, Graph, Labels

PART = 256
RECORDED_AT_ONCE = 5000
PACK = pack_of(SIZE)
COLLECTION = collection_name("faces", PACK)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--added", type=int, default=1000)
    parser.add_argument("--neighbours", type=int, default=Settings(0, 0).neighbours)
    parser.add_argument("--candidates", type=int, default=Settings(0, 0).candidates)
    parser.add_argument("--batch", type=int, default=Settings(0, 0).batch)
    parser.add_argument("--cut", type=float, help="None: from the spread of strangers")
    parser.add_argument("--only", action="store_true", help="the product's method only")
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    strangers = Strangers(0.0, IMPOSTOR_SPREAD, True)
    cut = asked.cut or cut_of(strangers, asked.n)
    settings = Settings(
        cut,
        group_cut_of(strangers, asked.n, cut),
        neighbours=asked.neighbours,
        candidates=asked.candidates,
        batch=asked.batch,
    )
    with tempfile.TemporaryDirectory(prefix="oceano-bench-") as name:
        folder = asked.keep or Path(name)
        with closing(open_index(load_settings(None, data_dir=folder), PACK)) as index:
            _fill(index, asked.n)
            with tempfile.TemporaryDirectory(dir=folder) as state:
                product = _Product(index, Path(state), folder, settings)
                said = {"n": asked.n, "cut": round(cut, 3), "batch": asked.batch, "candidates": asked.candidates}
                said |= product.run(asked.n, asked.added)
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


class _Product:
    """The product's grouping, with a catalog of its own."""

    def __init__(self, index: FaceIndex, state: Path, folder: Path, settings: Settings) -> None:
        self._index, self._folder, self._settings = index, folder, settings
        self._ledger = open_ledger(state / CATALOG_FILE, COLLECTION)
        self._table = FaceTable(self._ledger.database, COLLECTION)

    def run(self, count: int, added: int) -> dict[str, Any]:
        new = {int(number) for number in np.random.default_rng(4).choice(count, added, replace=False)}
        _record(self._ledger, (number for number in range(count) if number not in new))
        said = self._timed("")
        _record(self._ledger, new)
        said |= self._timed("added_")
        said["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        labels = self._labels(count)
        self._ledger.close()
        return _rounded(said) | {"product": scores(labels, np.arange(count) // FACES_OF_ONE)}

    def _timed(self, prefix: str) -> dict[str, float]:
        start, cpu, own = time.perf_counter(), _cpu_s(self._folder), time.process_time()
        people = PeopleStore(self._ledger.database)
        run = GroupRun(
            self._index, self._table, people, digest=DIGEST, settings=lambda: self._settings, on_progress=_say
        )
        counts = run.run()
        return {
            f"{prefix}faces": counts.faces,
            f"{prefix}seconds": time.perf_counter() - start,
            f"{prefix}cpu_s": _cpu_s(self._folder) - cpu,
            f"{prefix}own_cpu_s": time.process_time() - own,
        }

    def _labels(self, count: int) -> Labels:
        numbers: dict[str, int] = {}
        labels = np.empty(count, np.int64)
        for some in chunks(range(count), RECORDED_AT_ONCE):
            known = self._table.known(id_of(number) for number in some)
            labels[some] = [numbers.setdefault(str(known[id_of(number)].group_id), len(numbers)) for number in some]
        return labels


def _record(ledger: Ledger, images: Iterable[int]) -> None:
    for some in chunks(images, RECORDED_AT_ONCE):
        ledger.record([FileRecord(f"/photos/{one}.jpg", 1, 1, f"{one:064x}", "done", 1) for one in some])


def _say(faces: int, total: int) -> None:
    print(f"{time.strftime('%H:%M:%S')} {faces} of {total}", file=sys.stderr, flush=True)


def _graph(index: FaceIndex, count: int, settings: Settings) -> Graph:
    """Ask the index for the neighbours of every face."""
    ids = [id_of(number) for number in range(count)]
    numbers = {face_id: number for number, face_id in enumerate(ids)}
    rows: list[tuple[int, int, float]] = []
    for first in range(0, count, PART):
        records = index.retrieve(ids[first : first + PART], with_embedding=True)
        vectors = [record.embedding for record in records if record.embedding is not None]
        limit, candidates = settings.neighbours + 1, settings.candidates
        found = index.search_scores(vectors, limit=limit, threshold=settings.cut, candidates=candidates)
        rows += _rows(first, found, numbers)
    return Graph.of(count, rows)


def _rows(first: int, found: list[list[Score]], numbers: dict[str, int]) -> Iterator[tuple[int, int, float]]:
    for number, scores_of_one in enumerate(found, first):
        for score in scores_of_one:
            if numbers[score.face_id] != number:
                yield number, numbers[score.face_id], score.similarity


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


def _cpu_s(folder: Path) -> float:
    """CPU seconds of this process and of the index's, whose command lines name its folder."""
    total = 0.0
    for process in psutil.process_iter(["pid", "cmdline"]):
        mine = process.pid == os.getpid() or any(str(folder) in word for word in process.info["cmdline"] or ())
        if mine:
            with suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
    return total


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in values.items()}


if __name__ == "__main__":
    main()
