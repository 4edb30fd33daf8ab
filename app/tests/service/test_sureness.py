from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from app.catalog import open_ledger
from app.core.errors import OceanoError
from app.core.types import FacePoint, Floats, ScrollPage, Strangers
from app.metrics import Metrics
from app.service.monitor import Monitor
from app.service.strangers import fit, fitted, measured_bands, sampled_strangers
from app.service.sureness import Sureness, bands_of, narrowed, two_decimals
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex
from tests.support.pictures import point

PACK = replace(FAKE_PACK, threshold=0.37, strangers=Strangers(0.05, 0.09, measured=True))


def _drawn(people: int, of_each: int, *, seed: int = 1) -> Floats:
    """Faces of people in 128 dimensions; two of one person have a cosine of about 0.6."""
    random = np.random.default_rng(seed)
    own = np.repeat(random.normal(size=(people, 128)), of_each, axis=0)
    faces = np.sqrt(0.6) * own + np.sqrt(0.4) * random.normal(size=own.shape)
    return np.asarray(faces / np.linalg.norm(faces, axis=1, keepdims=True), np.float32)


def _stored(embeddings: Floats, of_image: int = 1) -> list[FacePoint]:
    template = point(0)
    random = np.random.default_rng(5)
    ids = [str(uuid.UUID(bytes=random.bytes(16))) for _ in embeddings]
    return [
        FacePoint(face_id, one, replace(template.payload, image_id=f"{number // of_image:064x}"))
        for number, (face_id, one) in enumerate(zip(ids, embeddings, strict=True))
    ]


def _index(embeddings: Floats, of_image: int = 1) -> MemoryIndex:
    index = MemoryIndex()
    index.upsert(_stored(embeddings, of_image))
    return index


# the words


@pytest.mark.parametrize(
    ("chosen", "threshold", "within"),
    [
        ((), 0.37, ()),
        (("look_closely", "likely", "very_likely"), 0.37, ()),
        (("very_likely",), 0.6, ()),
        (("very_likely", "likely"), 0.5, ()),
        (("likely",), 0.37, ((0.5, 0.6),)),
        (("look_closely",), 0.37, ((-2.0, 0.5),)),
        (("very_likely", "look_closely"), 0.37, ((0.6, 2.0), (-2.0, 0.5))),
    ],
)
def test_chosen_words_are_a_threshold_if_there_is_no_gap_else_ranges(
    chosen: tuple[Sureness, ...], threshold: float, within: tuple[tuple[float, float], ...]
) -> None:
    bands = replace(bands_of(PACK, 100), likely=0.5, very_likely=0.6)
    assert narrowed(0.37, chosen, bands) == (threshold, within)
    assert narrowed(0.7, chosen, bands) == (0.7, within), "a higher threshold stays"


def test_a_band_begins_where_its_number_of_strangers_is_expected() -> None:
    bands = bands_of(PACK, 1_000_000)
    normal = NormalDist(0.05, 0.09)
    assert bands.likely == pytest.approx(normal.inv_cdf(1 - 1e-6), abs=0.006)
    assert bands.very_likely == pytest.approx(normal.inv_cdf(1 - 1e-8), abs=0.006)
    assert bands.expected_strangers(bands.likely) == pytest.approx(1, rel=0.4)
    assert bands.expected_strangers(bands.likely, faces=2_000_000) == 2 * bands.expected_strangers(bands.likely)
    assert [bands.of(one) for one in (bands.very_likely, bands.likely, bands.likely - 0.001, -1.0)] == [
        "very_likely", "likely", "look_closely", "look_closely",
    ]  # fmt: skip


def test_bands_grow_stricter_with_the_index_and_never_fall_below_the_threshold() -> None:
    sizes = [bands_of(PACK, faces) for faces in (0, 10_000, 100_000, 10_000_000)]
    assert sizes[0].likely == sizes[1].likely < sizes[2].likely < sizes[3].likely
    assert sizes[1].very_likely < sizes[2].very_likely < sizes[3].very_likely
    sharp = bands_of(replace(PACK, strangers=Strangers(0.0, 0.01, measured=True)), 10_000)
    assert (sharp.likely, sharp.very_likely) == (0.37, 0.37)


def test_the_index_says_more_than_the_model_and_the_model_more_than_the_default() -> None:
    assert bands_of(FAKE_PACK, 1).source == "default"
    assert not bands_of(FAKE_PACK, 1).measured
    assert bands_of(PACK, 1).source == "model"
    sampled = bands_of(PACK, 1, Strangers(0.1, 0.12, measured=True))
    assert (sampled.source, sampled.mean, sampled.measured) == ("index", 0.1, True)
    assert sampled.likely > bands_of(PACK, 1).likely


# the strangers of an index


def test_the_strangers_of_an_index_are_measured_in_spite_of_the_faces_of_one_person() -> None:
    embeddings = _drawn(400, 5)
    cosines = (embeddings @ embeddings.T)[np.triu_indices(len(embeddings), 1)]
    people = np.repeat(np.arange(400), 5)
    strangers = cosines[(people[:, None] != people)[np.triu_indices(len(embeddings), 1)]]
    found = sampled_strangers(_index(embeddings), PACK)
    assert found is not None
    assert found.mean == pytest.approx(float(strangers.mean()), abs=0.004)
    assert found.deviation == pytest.approx(float(strangers.std()), rel=0.06)
    assert cosines.std() > 1.03 * strangers.std(), "the pairs of one person would distort it"


def test_what_is_measured_predicts_how_many_strangers_reach_a_similarity() -> None:
    found = sampled_strangers(_index(_drawn(2000, 1)), PACK)
    others = _drawn(3000, 1, seed=2)
    cosines = (others @ others.T)[np.triu_indices(len(others), 1)]
    assert found is not None
    for similarity in (0.2, 0.3, 0.35):
        actual = int((cosines >= similarity).sum())
        expected = len(cosines) * (1 - NormalDist(found.mean, found.deviation).cdf(similarity))
        assert actual > 10
        assert 0.7 * actual <= expected <= 3 * actual


def test_an_upper_end_that_is_heavier_than_a_normal_one_counts() -> None:
    random = np.random.default_rng(1)
    normal = random.normal(0.02, 0.06, 200_000).astype(np.float32)
    heavy = np.concatenate([normal, random.normal(0.02, 0.12, 10_000)]).astype(np.float32)
    assert fit(normal).deviation == pytest.approx(0.06, rel=0.02)
    assert fit(heavy, 1e-3).deviation > 0.07
    assert fit(-heavy + 0.04).deviation < 0.07


def test_few_faces_few_images_and_few_people_say_nothing() -> None:
    assert sampled_strangers(MemoryIndex(), PACK) is None
    assert sampled_strangers(_index(_drawn(900, 1)), PACK) is None
    assert sampled_strangers(_index(_drawn(2100, 1), of_image=3), PACK) is None
    assert fitted(_drawn(20, 60), 0.37) is None
    assert fitted(_drawn(1200, 1), 0.37) is not None


class Watched(MemoryIndex):
    """Counts the pages that are read; may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = 0
        self.failure: OceanoError | None = None

    def scroll(self, **how: Any) -> ScrollPage:
        if self.failure is not None:
            raise self.failure
        self.pages += 1
        return super().scroll(**how)


def test_the_monitor_measures_again_only_when_the_index_has_grown(tmp_path: Any) -> None:
    index = Watched()
    ledger = open_ledger(tmp_path / "catalog.sqlite3", "faces")
    monitor = Monitor(FakeEngine(), index, ledger, Metrics())

    async def check() -> int:
        await monitor.check_index()
        before = index.pages
        await monitor.check_strangers()
        return index.pages - before

    async def run() -> None:
        stored = _stored(_drawn(3000, 1))
        index.upsert(stored[:1900])
        assert await check() == 0
        index.upsert(stored[:2100])
        index.failure = OceanoError("index_unavailable", "gone")
        assert await check() == 0
        assert monitor.strangers is None
        index.failure = None
        assert await check() > 0
        assert monitor.strangers is not None
        index.upsert(stored[:2200])
        assert await check() == 0
        index.upsert(stored)
        assert await check() > 0

    try:
        asyncio.run(run())
    finally:
        monitor.close()
        ledger.close()


def test_the_bands_of_a_small_index_are_those_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    index = MemoryIndex()
    index.upsert([point(1)])
    assert measured_bands(index, FAKE_PACK) == bands_of(FAKE_PACK, 1)
    monkeypatch.setattr("app.service.strangers.LEAST_FACES", 1)
    monkeypatch.setattr("app.service.strangers.sampled_strangers", lambda *_: Strangers(0.1, 0.05, measured=True))
    assert measured_bands(index, FAKE_PACK).source == "index"


@pytest.mark.parametrize(
    ("similarity", "shown"),
    [(0.477325, "0.47"), (0.589407, "0.58"), (0.29, "0.29"), (0.4, "0.40"), (0.999999, "0.99"), (1.0, "1.00"),
     (-0.001, "-0.01")],
)  # fmt: skip
def test_a_similarity_is_rounded_down_so_that_it_reaches_the_threshold_of_that_number(
    similarity: float, shown: str
) -> None:
    assert two_decimals(similarity) == shown
    assert similarity >= float(shown)
