"""A search of the embedded index next to the same search with other libraries, by turns.

    .venv/bin/python app/bench/peers.py --n 200000 --keep FOLDER

Needs faiss-cpu, hnswlib or usearch beside the packages of Oceano (`pip install faiss-cpu hnswlib usearch`); those that
are missing are left out. Each library holds the same faces (bench/gallery.py) in its process, on one thread:

- oceano: the embedded index through its owner, with payloads in the result (HNSW_M 48);
- faiss: HNSW with M=24 on 8-bit codes (IndexHNSWSQ), ef 448, the best 30 compared again with the original vectors;
- hnswlib: HNSW with M=24 on floats, ef 448;
- usearch: HNSW with connectivity 24 on 8-bit integers, expansion 448, the best 30 compared again.

Every round searches for one new face with each of them. The last line is one JSON object: for each the median and 95th
percentile in milliseconds, `recall_at_10` against an exact scan, seconds of the build; in Oceano's, one for each value
of `--ef`, `vs_...`: its median in relation to theirs. Compare those whose recall is equal.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from app.core.concurrency import processors
from app.core.config import load_settings
from app.core.protocols import FaceIndex
from app.index import open_index
from bench.exact import DIGEST, LIMIT, id_of, milliseconds, ms, pack_of
from bench.faces import Floats, points
from bench.gallery import Gallery, Truth

M, EF, EF_CONSTRUCT, RESCORED = 24, 448, 200, 30
SIZE = 512

Search = Callable[[Floats], set[int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000, help="faces, in blocks of 20,000")
    parser.add_argument("--ef", default="448,256,192", help="values of HNSW_EF, to compare at the same recall")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--keep", type=Path, help="a folder for Oceano's index, used again if it is there")
    asked = parser.parse_args()
    gallery = Gallery(asked.n, SIZE)
    stored = np.concatenate([block for _, block in gallery.blocks()])
    queries, _ = gallery.queries(asked.queries)
    truth = Truth.of(gallery, queries).nearest.tolist()
    said: dict[str, Any] = {"n": asked.n, "cores": os.cpu_count()}
    searches: dict[str, Search] = {}
    for name, build in (("faiss", _faiss), ("hnswlib", _hnswlib), ("usearch", _usearch)):
        try:
            library = importlib.import_module(name)
        except ImportError:
            said[name] = "not installed"
            continue
        start = time.perf_counter()
        searches[name] = build(library, stored)
        said[name] = {"build_s": round(time.perf_counter() - start)}
        print(name, said[name], file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="oceano-bench-") as folder:
        numbers = {id_of(number): number for number in range(asked.n)}
        with ExitStack() as opened:
            for ef in asked.ef.split(","):
                settings = load_settings(None, data_dir=asked.keep or Path(folder), hnsw_ef=int(ef))
                index = opened.enter_context(closing(open_index(settings, pack_of(SIZE))))
                said[f"oceano_{ef}"] = {"build_s": round(ms(_fill, index, stored) / 1000)}
                searches[f"oceano_{ef}"] = _oceano(index, numbers)
            _compare(searches, queries, truth, said)
    print(json.dumps(said))


def _compare(searches: dict[str, Search], queries: Floats, truth: list[list[int]], said: dict[str, Any]) -> None:
    took: dict[str, list[float]] = {name: [] for name in searches}
    found: dict[str, list[float]] = {name: [] for name in searches}
    for query in queries[:100]:  # what every search needs is in memory then
        for search in searches.values():
            search(query)
    for query, exact in zip(queries, truth, strict=True):
        for name, search in searches.items():
            start = time.perf_counter()
            result = search(query)
            took[name].append((time.perf_counter() - start) * 1000)
            found[name].append(len(result & set(exact)) / LIMIT)
    for name in searches:
        said[name] |= milliseconds(took[name]) | {"recall_at_10": round(statistics.mean(found[name]), 4)}
    ours = [name for name in searches if name.startswith("oceano")]
    for name in ours:
        for peer in searches.keys() - ours:
            ratio = statistics.median(took[name]) / statistics.median(took[peer])
            said[name][f"vs_{peer}"] = round(ratio, 3)


def _fill(index: FaceIndex, stored: Floats) -> None:
    if index.count() < len(stored):
        for first in range(0, len(stored), 20_000):
            index.upsert(list(points(stored[first : first + 20_000], DIGEST, first)))
    index.maintain(wait=True)


def _oceano(index: FaceIndex, numbers: dict[str, int]) -> Search:
    return lambda query: {numbers[match.face_id] for match in index.search(query, limit=LIMIT)}


def _rescored(stored: Floats, query: Floats, candidates: Any) -> set[int]:
    best = np.argsort(-(stored[candidates] @ query))[:LIMIT]
    return set(candidates[best].tolist())


def _faiss(faiss: Any, stored: Floats) -> Search:
    index = faiss.IndexHNSWSQ(SIZE, faiss.ScalarQuantizer.QT_8bit, M, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = EF_CONSTRUCT
    faiss.omp_set_num_threads(processors())
    index.train(stored[:50_000])
    index.add(stored)
    faiss.omp_set_num_threads(1)
    index.hnsw.efSearch = EF
    return lambda query: _rescored(stored, query, index.search(query[None], RESCORED)[1][0])


def _hnswlib(hnswlib: Any, stored: Floats) -> Search:
    index = hnswlib.Index(space="ip", dim=SIZE)
    index.init_index(len(stored), ef_construction=EF_CONSTRUCT, M=M)
    index.add_items(stored, num_threads=processors())
    index.set_ef(EF)
    return lambda query: set(index.knn_query(query, LIMIT, num_threads=1)[0][0].tolist())


def _usearch(usearch: Any, stored: Floats) -> Search:
    index = importlib.import_module("usearch.index").Index(
        ndim=SIZE, metric="ip", dtype="i8", connectivity=M, expansion_add=EF_CONSTRUCT, expansion_search=EF
    )
    index.add(np.arange(len(stored)), stored, threads=processors())
    return lambda query: _rescored(stored, query, index.search(query, RESCORED, threads=1).keys.astype(np.int64))


if __name__ == "__main__":
    main()
