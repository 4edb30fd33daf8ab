"""How faces are grouped, and the faces of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from app.core.types import Floats

WORKERS: Final = 2


@dataclass(frozen=True, slots=True)
class Settings:
    """How faces are grouped.

    Attributes:
        cut: lowest cosine similarity of neighbours, and lowest mean similarity between two small groups that merge, see
            `cut_of`.
        group_cut: the same if one of the two has three clear faces or more, see `group_cut_of`.
        neighbours: number of neighbours that the index is asked for, per face.
        candidates: of a search in the graph of the index.
        least_quality: a face of lower quality is not clear, nor is one with a flaw.
        batch: faces that are grouped at once; the embeddings of a batch are in memory.
        sample: faces of a group from an earlier batch that its mean is estimated from.
        workers: concurrent searches.
    """

    cut: float
    group_cut: float
    neighbours: int = 24
    candidates: int = 128
    least_quality: float = 0.3
    batch: int = 50_000
    sample: int = 32
    workers: int = WORKERS


@dataclass(frozen=True, slots=True, eq=False)
class FaceBatch:
    """Faces that are looked at together, in the order of their ids.

    Attributes:
        face_ids: n ids.
        image_ids: of the n faces.
        embeddings: float32, (n, D), with norm 1.
        clear: bool, (n,): whether each may found groups and make them merge.
        persons: who the named ones of them are, by face_id.
        rejected: who some of all faces are not, by face_id.
    """

    face_ids: list[str]
    image_ids: list[str]
    embeddings: Floats
    clear: npt.NDArray[np.bool_]
    persons: Mapping[str, str]
    rejected: Mapping[str, frozenset[str]]
