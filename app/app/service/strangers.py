"""Measures the similarities of strangers on a sample of the index.

The model's own numbers come from other photographs. Those of the index count for its people and its cameras.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from statistics import NormalDist
from typing import Final

import numpy as np

from app.core.protocols import FaceIndex
from app.core.types import Floats, ModelPack, Strangers
from app.service.sureness import Bands, bands_of

LEAST_FACES: Final = 2000  # of an index

_LEAST_IMAGES: Final = 1000  # of a sample
_FACES: Final = 2000  # of a sample; 2 million pairs, about 50 MB
_PAGE: Final = 50  # faces that are read from one place of the index
_FEW_PEOPLE: Final = 0.01  # of all pairs reach the threshold: the pairs of few people say little about others
_MAD_TO_DEVIATION: Final = 1.4826  # of a normal distribution
_LEAST_TAIL: Final = 1e-4  # of all pairs; 200 pairs of a sample


def sampled_strangers(index: FaceIndex, pack: ModelPack, *, seed: int = 0) -> Strangers | None:
    """Compare faces of different images with each other; blocking, takes about a second.

    Pairs of one person are few and most of them reach the threshold, so pairs that do are left out. Mean and deviation
    are the median and the scaled median absolute deviation, which the remaining pairs of one person hardly change. The
    upper end decides about false matches, and may be heavier than that of a normal distribution: then the deviation is
    that of the upper end. As many pairs are taken as the upper end as reach the threshold, at least 1 in 10,000: the
    few pairs of one person below the threshold are then a small part of them.

    Args:
        index: holds the faces.
        pack: its model.
        seed: of the random places that are read.

    Returns:
        None if there are too few images, or so few people that more than one pair in a hundred is of one person.

    Raises:
        OceanoError: `index_unavailable`.
    """
    embeddings = _sample(index, seed)
    return None if len(embeddings) < _LEAST_IMAGES else fitted(embeddings, pack.threshold)


def measured_bands(index: FaceIndex, pack: ModelPack) -> Bands:
    """Return what similarities mean, from the strangers of the index if it has enough; blocking.

    Args:
        index: holds the faces.
        pack: its model.

    Raises:
        OceanoError: `index_unavailable`.
    """
    faces = index.info().points
    return bands_of(pack, faces, sampled_strangers(index, pack) if faces >= LEAST_FACES else None)


def fitted(embeddings: Floats, threshold: float) -> Strangers | None:
    """Fit the similarities of different people.

    Args:
        embeddings: faces of different images, float32, (N, D), each with norm 1.
        threshold: lowest similarity of a match.

    Returns:
        None if more than one pair in a hundred reaches the threshold.
    """
    similarities = np.concatenate([row[place + 1 :] for place, row in enumerate(embeddings @ embeddings.T)])
    below = similarities[similarities < threshold]
    matches = 1 - len(below) / len(similarities)
    return None if matches > _FEW_PEOPLE else fit(below, max(matches, _LEAST_TAIL))


def fit(similarities: Floats, tail: float = _FEW_PEOPLE) -> Strangers:
    """Fit the similarities of pairs of different people.

    Args:
        similarities: float32, (N,).
        tail: share of the pairs that counts as the upper end.
    """
    mean, upper = np.quantile(similarities, [0.5, 1 - tail])
    deviation = _MAD_TO_DEVIATION * float(np.median(np.abs(similarities - mean)))
    return Strangers(float(mean), max(deviation, float(upper - mean) / NormalDist().inv_cdf(1 - tail)), measured=True)


def _sample(index: FaceIndex, seed: int) -> Floats:
    """Return the embeddings of faces at random places, one of each image; (N, D)."""
    of_images: dict[str, Floats] = {}
    for place in _places(seed):
        for record in index.scroll(limit=_PAGE, offset=place, with_embedding=True).records:
            if record.embedding is not None:
                of_images.setdefault(record.payload.image_id, record.embedding)
        if len(of_images) >= _FACES:
            break
    return np.stack(list(of_images.values())[:_FACES]) if of_images else np.empty((0, 0), np.float32)


def _places(seed: int) -> Iterator[str]:
    """Yield random ids; those of faces are distributed evenly, because they are hashes."""
    random = np.random.default_rng(seed)
    for _ in range(3 * _FACES // _PAGE):  # some read the same faces in a small index
        yield str(uuid.UUID(bytes=random.bytes(16)))
