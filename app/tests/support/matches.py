"""Stored faces of a wanted similarity to a query."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from app.core.types import FacePoint, Floats, face_id_of
from tests.support.fakes import FAKE_PACK, embedding_of
from tests.support.pictures import point

ADA, BOB, EVE = embedding_of(101), embedding_of(102), embedding_of(103)


def like(person: Floats, similarity: float, seed: int) -> Floats:
    """An embedding, float32, (512,), with norm 1 and this cosine to the person's."""
    other = np.random.default_rng(seed).normal(size=person.shape)
    other -= (other @ person) * person
    other /= np.linalg.norm(other)
    mixed = similarity * person + (1 - similarity**2) ** 0.5 * other
    return np.asarray(mixed / np.linalg.norm(mixed), np.float32)


def stored(image: int, who: Floats, similarity: float, *, place: int = 0, **payload: Any) -> FacePoint:
    """The face number `place` of an image."""
    image_id = f"{image:064x}"
    one = point(image, image_id=image_id, **payload)
    embedding = like(who, similarity, 1000 * image + place)
    return dataclasses.replace(one, face_id=face_id_of(image_id, FAKE_PACK.digest, place), embedding=embedding)
