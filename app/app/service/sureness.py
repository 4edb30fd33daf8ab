"""What a similarity means with this model and this many faces, in three words."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Literal, get_args

from app.core.types import ModelPack, Strangers
from app.service.query import Range

Sureness = Literal["very_likely", "likely", "look_closely"]
Source = Literal["default", "model", "index"]

SURENESSES: Final[tuple[Sureness, ...]] = get_args(Sureness)

_VERY_LIKELY: Final = 0.01  # strangers expected to reach a similarity by chance, in the whole index
_LIKELY: Final = 1.0
_HIGHEST: Final = 2.0  # above every cosine
_LEAST_FACES: Final = 10_000  # relatives and look-alikes are in every small index


@dataclass(frozen=True, slots=True)
class Bands:
    """Which similarities are a very likely or likely match; the rest above the threshold needs a close look.

    The similarities of strangers are taken as normally distributed. The more faces the index has, the more strangers
    reach a similarity by chance, so the bands grow stricter with it.

    Attributes:
        threshold: lowest similarity of a match.
        likely: lowest similarity at which less than one stranger is expected in the index; at least `threshold`.
        very_likely: lowest similarity at which less than a hundredth of a stranger is expected; at least `threshold`.
        mean: of the similarities of strangers with this model.
        deviation: standard deviation of the same.
        source: where `mean` and `deviation` come from: a cautious default, the model, or a sample of the index.
        faces: number of faces in the index.
    """

    threshold: float
    likely: float
    very_likely: float
    mean: float
    deviation: float
    source: Source
    faces: int

    @property
    def measured(self) -> bool:
        """Whether strangers were measured with this model."""
        return self.source != "default"

    @property
    def counted_faces(self) -> int:
        """Number of faces that the bands are made for: fewer than 10,000 in the index count as 10,000."""
        return max(self.faces, _LEAST_FACES)

    def of(self, similarity: float) -> Sureness:
        """Return the word for a similarity."""
        if similarity >= self.very_likely:
            return "very_likely"
        return "likely" if similarity >= self.likely else "look_closely"

    def expected_strangers(self, similarity: float, faces: int | None = None) -> float:
        """Return how many strangers are expected to reach a similarity.

        Args:
            similarity: cosine, -1 to 1.
            faces: in the index; None: as many as it has.
        """
        return (self.faces if faces is None else faces) * (1 - NormalDist(self.mean, self.deviation).cdf(similarity))


def bands_of(pack: ModelPack, faces: int, sampled: Strangers | None = None) -> Bands:
    """Return the bands of a model for an index.

    Args:
        pack: the model; its distribution of strangers is published, measured or a cautious default.
        faces: number of faces in the index; fewer than 10,000 count as 10,000.
        sampled: the strangers of the index itself, see `app.service.strangers`; None: not known.
    """
    known = sampled or pack.strangers
    strangers = NormalDist(known.mean, known.deviation)
    counted = max(faces, _LEAST_FACES)

    def least(expected: float) -> float:
        return max(pack.threshold, round(strangers.inv_cdf(1 - expected / counted), 2))

    return Bands(
        threshold=pack.threshold,
        likely=least(_LIKELY),
        very_likely=least(_VERY_LIKELY),
        mean=strangers.mean,
        deviation=strangers.stdev,
        source="index" if sampled else "model" if known.measured else "default",
        faces=faces,
    )


def narrowed(threshold: float, chosen: Collection[Sureness], bands: Bands) -> tuple[float, tuple[Range, ...]]:
    """Return the threshold and the ranges (`Query.within`) with which a query finds only some surenesses.

    If the chosen ones are the highest, a higher threshold is enough, and the index can apply it.

    Args:
        threshold: lowest similarity of a match, whatever is chosen.
        chosen: the surenesses; none means all.
        bands: where each begins.
    """
    if not chosen or len(chosen) == len(SURENESSES):
        return threshold, ()
    starts = (bands.very_likely, bands.likely, -_HIGHEST)
    tops = (_HIGHEST, *starts)
    places = [place for place, sureness in enumerate(SURENESSES) if sureness in chosen]
    if places == [*range(len(places))]:
        return max(threshold, starts[places[-1]]), ()
    return threshold, tuple((starts[place], tops[place]) for place in places)


def two_decimals(similarity: float) -> str:
    """Return a similarity with two decimals, rounded down, so that 0.40 always reaches a threshold of 0.40.

    Similarities have six decimals; without the inner rounding, 0.29 * 100 = 28.999999999999996 would become 0.28.
    """
    return f"{math.floor(round(similarity * 100, 4)) / 100:.2f}"
