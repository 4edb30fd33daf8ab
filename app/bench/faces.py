"""Embeddings for benchmarks, with the spread of a face model's, and points that hold them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from app.core.paths import folders_of
from app.core.types import FacePayload, FacePoint, face_id_of

Floats = npt.NDArray[np.float32]

FACES_OF_ONE = 8
SHELVES = 10  # folders that hold a tenth of all faces each
OWN_COSINE = 0.67
SIZE = 512  # dimensions, where none are asked for
IMPOSTOR_SPREAD = 0.058  # standard deviation of the cosine of two strangers: the hard end of real models of this size


class People:
    """Identities of `FACES_OF_ONE` faces, drawn from one normal distribution with a decaying spectrum.

    The variances of the directions fall as a power law whose exponent gives the cosine of two strangers the wanted
    spread (its variance is the sum of squares of variances that sum to 1); a rotation mixes the directions. A face is
    its identity plus a deviation, weighted so that two faces of one identity have a cosine of `OWN_COSINE`.

    Embeddings have `size` dimensions. With fewer than 512 the spread is wider, by sqrt(512 / size), as of a model that
    uses the same share of them.
    """

    def __init__(self, size: int = SIZE, *, seed: int = 1) -> None:
        self.size = size
        self._rng = np.random.default_rng(seed)
        rotation, _ = np.linalg.qr(self._rng.normal(size=(size, size)))
        spread = IMPOSTOR_SPREAD * max(1.0, np.sqrt(SIZE / size))
        self._mix = (np.sqrt(_spectrum(size, spread))[:, None] * rotation).astype(np.float32)

    def identities(self, count: int, rng: np.random.Generator | None = None) -> Floats:
        """(count, D), norm about 1; drawn from `rng` instead of the own generator, if given."""
        return self._draw(count, rng)

    def faces(self, identities: Floats, of_each: int, rng: np.random.Generator | None = None) -> Floats:
        """(count * of_each, D), norm 1: the faces of the first identity, of the second, ..."""
        own = np.repeat(identities, of_each, axis=0)
        faces = np.sqrt(OWN_COSINE) * own + np.sqrt(1 - OWN_COSINE) * self._draw(len(own), rng)
        return np.asarray(faces / np.linalg.norm(faces, axis=1, keepdims=True), dtype=np.float32)

    def _draw(self, count: int, rng: np.random.Generator | None) -> Floats:
        values = (rng or self._rng).standard_normal((count, self.size), dtype=np.float32) @ self._mix
        return np.asarray(values, np.float32)


def _spectrum(size: int, spread: float) -> npt.NDArray[np.float64]:
    """Variances, sum 1, sum of squares spread squared: i ** -a with a found by bisection."""
    places = np.arange(1, size + 1, dtype=np.float64)
    low, high = 0.0, 4.0
    for _ in range(60):
        middle = (low + high) / 2
        variances = places**-middle / (places**-middle).sum()
        low, high = (middle, high) if np.sqrt((variances**2).sum()) < spread else (low, middle)
    return np.asarray(variances)


def points(embeddings: Floats, digest: str, first: int = 0) -> Iterator[FacePoint]:
    """A stored face for each embedding, a picture each, a hundred a folder."""
    for number, embedding in enumerate(embeddings, first):
        image_id, folder = f"{number:064x}", f"/photos/{number % SHELVES}/{number // 1000}"
        payload = stored_payload(image_id, f"{folder}/{number}.jpg")
        yield FacePoint(face_id_of(image_id, digest, 0), embedding, payload)


def stored_payload(image_id: str, path: str) -> FacePayload:
    """What is stored with a face of an image of 1600 x 1200 pixels."""
    return FacePayload(
        image_id=image_id,
        path=path,
        folder=folders_of(path),
        bbox=(100.0, 100.0, 220.0, 260.0),
        kps=((130.0, 150.0), (190.0, 150.0), (160.0, 190.0), (135.0, 220.0), (185.0, 220.0)),
        width=1600,
        height=1200,
        det_score=0.9,
        quality=0.8,
        person=None,
        taken_at=None,
        ingested_at="2026-01-01T00:00:00+00:00",
    )
