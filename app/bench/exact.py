"""Searches of an index, timed and compared with the exact answers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from app.core.protocols import FaceIndex
from app.core.types import FaceFilter, ModelPack, face_id_of
from bench.faces import FACES_OF_ONE, Floats
from bench.gallery import NEAREST, SHELF, Numbers, Truth

DIGEST = "b" * 64
LIMIT = NEAREST


def pack_of(size: int) -> ModelPack:
    """A model whose embeddings have `size` dimensions."""
    return ModelPack("bench", Path("/nowhere"), Path("/nowhere/d.onnx"), Path("/nowhere/r.onnx"), DIGEST, size)


def id_of(number: int) -> str:
    return face_id_of(f"{number:064x}", DIGEST, 0)


def compared(index: FaceIndex, queries: Floats, owners: list[int], truth: Truth) -> dict[str, float]:
    """One search after the other: milliseconds, and which of the ten and of the person's faces were found."""
    took: list[float] = []
    of_ten: list[float] = []
    of_mates: list[float] = []
    for query, owner, exact in zip(queries, owners, truth.nearest, strict=True):
        start = time.perf_counter()
        found = {match.face_id for match in index.search(query, limit=LIMIT)}
        took.append((time.perf_counter() - start) * 1000)
        of_ten.append(_share(found, exact))
        of_mates.append(_share(found, owner * FACES_OF_ONE + np.arange(FACES_OF_ONE)))
    return milliseconds(took) | {"recall_at_10": statistics.mean(of_ten), "mate_recall": statistics.mean(of_mates)}


def filtered(index: FaceIndex, queries: Floats, truth: Truth) -> dict[str, float]:
    """The same within one folder, which holds a tenth of all faces."""
    took: list[float] = []
    of_ten: list[float] = []
    folder = FaceFilter(folder=f"/photos/{SHELF}")
    for query, exact in zip(queries, truth.on_shelf, strict=False):
        start = time.perf_counter()
        found = {match.face_id for match in index.search(query, limit=LIMIT, where=folder)}
        took.append((time.perf_counter() - start) * 1000)
        of_ten.append(_share(found, exact))
    return {
        "filtered_p50_ms": round(statistics.median(took), 2),
        "filtered_recall_at_10": statistics.mean(of_ten),
    }


def rate(index: FaceIndex, queries: Floats, clients: int) -> float:
    """Searches a second, with so many threads at once."""
    with ThreadPoolExecutor(clients) as pool:
        start = time.perf_counter()
        list(pool.map(lambda query: index.search(query, limit=LIMIT), queries))
        return len(queries) / (time.perf_counter() - start)


def ms(work: Callable[..., object], *args: Any, **kwargs: Any) -> float:
    start = time.perf_counter()
    work(*args, **kwargs)
    return (time.perf_counter() - start) * 1000


def milliseconds(took: list[float]) -> dict[str, float]:
    return {
        "p50_ms": round(statistics.median(took), 2),
        "p95_ms": round(float(np.percentile(took, 95)), 2),
        "p99_ms": round(float(np.percentile(took, 99)), 2),
    }


def _share(found: set[str], numbers: Numbers) -> float:
    return sum(id_of(number) in found for number in numbers.tolist()) / len(numbers)
