"""A gallery of any number of faces, made in blocks that are the same in every run, and its exact nearest neighbours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.faces import FACES_OF_ONE, SHELVES, SIZE, Floats, People

BLOCK = 20_000  # faces
SHELF = 3  # of the searches within one folder
NEAREST = 10
_IDENTITIES = BLOCK // FACES_OF_ONE

Numbers = npt.NDArray[np.int64]


class Gallery:
    """Identity i has the faces 8i to 8i + 7; a block is made when it is asked for.

    Args:
        count: number of faces.
        size: dimensions of an embedding.
    """

    def __init__(self, count: int, size: int = SIZE) -> None:
        self.count = count
        self.size = size
        self._people = People(size)

    def block(self, number: int) -> Floats:
        """The faces from `number * BLOCK` on, at most BLOCK of them, (n, D), norm 1."""
        rng = np.random.default_rng((3, number))
        faces = self._people.faces(self._people.identities(_IDENTITIES, rng), FACES_OF_ONE, rng)
        return faces[: self.count - number * BLOCK]

    def blocks(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, Floats]]:
        """The blocks of the faces `start` to `end`, each with the number of its first face; `start` is a block's."""
        end = self.count if end is None else end
        for first in range(start, end, BLOCK):
            yield first, self.block(first // BLOCK)[: end - first]

    def queries(self, count: int) -> tuple[Floats, list[int]]:
        """New faces of some of the identities, (n, D), and the numbers of the identities."""
        rng = np.random.default_rng(2)
        known = self.count // FACES_OF_ONE
        owners = np.sort(rng.choice(known, min(count, known), replace=False))
        identities = np.empty((len(owners), self.size), np.float32)
        for block in np.unique(owners // _IDENTITIES):
            here = owners // _IDENTITIES == block
            drawn = self._people.identities(_IDENTITIES, np.random.default_rng((3, int(block))))
            identities[here] = drawn[owners[here] % _IDENTITIES]
        order = rng.permutation(len(owners))  # neighbouring searches are of faces that lie far apart
        return self._people.faces(identities[order], 1, rng), owners[order].tolist()

    def strangers(self, count: int) -> Floats:
        """Faces of people who are not in the gallery, four of each, (count, D)."""
        rng = np.random.default_rng(5)
        return self._people.faces(self._people.identities(-(-count // 4), rng), 4, rng)[:count]


@dataclass(frozen=True, slots=True)
class Truth:
    """The exact answers to queries.

    Attributes:
        nearest: numbers of the ten most similar faces of each query, (Q, 10).
        on_shelf: the same among the faces of one folder, for the first of the queries.
        scan_ms: milliseconds of the exact comparison of one query with all faces.
    """

    nearest: Numbers
    on_shelf: Numbers
    scan_ms: float

    @classmethod
    def of(cls, gallery: Gallery, queries: Floats, *, on_shelf: int = 100, kept: Path | None = None) -> Truth:
        """Compare the queries with every face, block by block.

        Args:
            gallery: the faces.
            queries: (Q, D).
            on_shelf: how many of the queries are also compared with the faces of one folder.
            kept: a file to read the answers from, or to write them to.
        """
        if kept is not None and kept.exists():
            with np.load(kept) as file:
                return cls(file["nearest"], file["on_shelf"], float(file["scan_ms"]))
        everywhere, shelf, seconds = _Best(len(queries)), _Best(min(on_shelf, len(queries))), 0.0
        for first, block in gallery.blocks():
            everywhere.add(queries @ block.T, np.arange(first, first + len(block)))
            here = np.arange(first, first + len(block)) % SHELVES == SHELF
            shelf.add(queries[:on_shelf] @ block[here].T, np.flatnonzero(here) + first)
            start = time.perf_counter()
            np.argpartition(-(block @ queries[0]), min(NEAREST, len(block)) - 1)
            seconds += time.perf_counter() - start
        truth = cls(everywhere.numbers, shelf.numbers, seconds * 1000)
        if kept is not None:
            np.savez(kept, nearest=truth.nearest, on_shelf=truth.on_shelf, scan_ms=truth.scan_ms)
        return truth


class _Best:
    """The most similar faces so far, of each query."""

    def __init__(self, queries: int) -> None:
        self.numbers = np.full((queries, NEAREST), -1, np.int64)
        self._cosines = np.full((queries, NEAREST), -2, np.float32)

    def add(self, cosines: Floats, numbers: Numbers) -> None:
        """Take in the similarities to more faces, (Q, n), and the numbers of these faces, (n,)."""
        together = np.concatenate([self._cosines, cosines], axis=1)
        names = np.concatenate([self.numbers, np.broadcast_to(numbers, cosines.shape)], axis=1)
        best = np.argpartition(-together, NEAREST - 1, axis=1)[:, :NEAREST]
        self._cosines = np.take_along_axis(together, best, axis=1)
        self.numbers = np.take_along_axis(names, best, axis=1)
