"""Stored faces and searches for them: timed, and compared with an exact scan of all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from app.core.protocols import FaceIndex
from app.core.types import FaceFilter, ModelPack, face_id_of
from bench.faces import FACES_OF_ONE, SHELVES, Floats, People

DIGEST = "b" * 64
LIMIT = 10
SOME = 20_000


def pack_of(size: int) -> ModelPack:
    """A model whose embeddings have `size` dimensions."""
    return ModelPack("bench", Path("/nowhere"), Path("/nowhere/d.onnx"), Path("/nowhere/r.onnx"), DIGEST, size)


def made(people: People, count: int, queries: int) -> tuple[Floats, Floats, list[int]]:
    """Stored faces, new faces of some of their people, and which: identity i has the stored faces 8i to 8i + 7."""
    stored = np.empty((count, people.size), np.float32)
    identities: list[Floats] = []
    for first in range(0, count, SOME):
        some = people.identities(-(-min(SOME, count - first) // FACES_OF_ONE))
        stored[first : first + SOME] = people.faces(some, FACES_OF_ONE)[: count - first]
        identities.append(some)
    known = np.concatenate(identities)[: count // FACES_OF_ONE]
    owners = np.random.default_rng(2).choice(len(known), min(queries, len(known)), replace=False)
    return stored, people.faces(known[owners], 1), owners.tolist()


def scan(stored: Floats, queries: Floats) -> tuple[list[set[str]], float]:
    """The ids of the nearest ten of each query, exactly; milliseconds of one query's scan."""
    truth = []
    took = []
    for first in range(0, len(queries), 100):
        start = time.perf_counter()
        cosines = queries[first : first + 100] @ stored.T
        best = np.argpartition(-cosines, LIMIT - 1, axis=1)[:, :LIMIT]
        took.append((time.perf_counter() - start) * 10)
        truth += [{id_of(number) for number in row} for row in best.tolist()]
    alone = [ms(nearest, stored, queries[number]) for number in range(15)]
    return truth, statistics.median(alone)


def compared(index: FaceIndex, queries: Floats, owners: list[int], truth: list[set[str]]) -> dict[str, float]:
    took: list[float] = []
    found_of_ten: list[float] = []
    found_of_mates: list[float] = []
    for query, owner, exact in zip(queries, owners, truth, strict=True):
        start = time.perf_counter()
        found = {match.face_id for match in index.search(query, limit=LIMIT)}
        took.append((time.perf_counter() - start) * 1000)
        found_of_ten.append(len(found & exact) / LIMIT)
        mates = {id_of(owner * FACES_OF_ONE + place) for place in range(FACES_OF_ONE)}
        found_of_mates.append(len(found & mates) / FACES_OF_ONE)
    recall = {"recall_at_10": statistics.mean(found_of_ten), "mate_recall": statistics.mean(found_of_mates)}
    return milliseconds(took) | recall


def filtered(index: FaceIndex, stored: Floats, queries: Floats) -> dict[str, float]:
    """The same within one folder, which holds a tenth of all faces."""
    shelf = np.arange(3, len(stored), SHELVES)
    took: list[float] = []
    found_of_ten: list[float] = []
    for query in queries:
        exact = {id_of(number) for number in shelf[nearest(stored[shelf], query)].tolist()}
        start = time.perf_counter()
        found = {match.face_id for match in index.search(query, limit=LIMIT, where=FaceFilter(folder="/photos/3"))}
        took.append((time.perf_counter() - start) * 1000)
        found_of_ten.append(len(found & exact) / LIMIT)
    return {
        "filtered_p50_ms": round(statistics.median(took), 2),
        "filtered_recall_at_10": statistics.mean(found_of_ten),
    }


def id_of(number: int) -> str:
    return face_id_of(f"{number:064x}", DIGEST, 0)


def nearest(stored: Floats, query: Floats) -> Any:
    return np.argpartition(-(stored @ query), LIMIT - 1)[:LIMIT]


def ms(work: Callable[..., object], *args: Any, **kwargs: Any) -> float:
    start = time.perf_counter()
    work(*args, **kwargs)
    return (time.perf_counter() - start) * 1000


def milliseconds(took: list[float]) -> dict[str, float]:
    return {"p50_ms": round(statistics.median(took), 2), "p99_ms": round(float(np.percentile(took, 99)), 2)}
