"""embeddings: the engine on the demo pack, and on real faces where there is a real pack."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.types import Face, Floats, ModelPack, Picture, Pixels
from app.demo import draw_group, draw_portrait
from app.embeddings import FaceEngine
from app.engine.network import Network
from tests.support.fakes import picture_of

Break = Callable[[Floats], Floats]


def _settings(**values: Any) -> Settings:
    return Settings(_env_file=None, device="cpu", **values)


@pytest.fixture(scope="module")
def engine(demo_pack: ModelPack) -> FaceEngine:
    return FaceEngine(demo_pack, _settings())


def _analyze(engine: FaceEngine, pictures: Sequence[Pixels]) -> list[list[Face]]:
    return engine.analyze([picture_of(pixels) for pixels in pictures])


def _one(engine: FaceEngine, pixels: Pixels) -> Face:
    (face,) = _analyze(engine, [pixels])[0]
    return face


def test_a_group_comes_in_canonical_order_with_unit_embeddings(engine: FaceEngine) -> None:
    (faces,) = _analyze(engine, [draw_group([3, 1, 4, 15])])
    assert len(faces) == 4
    assert [face.bbox for face in faces] == sorted(face.bbox for face in faces)
    for face in faces:
        assert face.embedding.shape == (512,)
        assert face.embedding.dtype == np.float32
        assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-5)
        assert face.found_by == "direct"
        assert 0 < face.quality <= face.det_score <= 1
        assert type(face.quality) is float


def test_pictures_analyzed_together_give_what_they_give_alone(engine: FaceEngine) -> None:
    pictures = [draw_group([1, 2]), draw_portrait(5, 0), np.zeros((300, 200, 3), np.uint8), draw_portrait(6, 1)]
    together = _analyze(engine, pictures)
    assert [len(faces) for faces in together] == [2, 1, 0, 1]
    for picture, faces in zip(pictures, together, strict=True):
        (alone,) = _analyze(engine, [picture])
        assert [face.bbox for face in alone] == [face.bbox for face in faces]
        for one, other in zip(alone, faces, strict=True):
            assert float(one.embedding @ other.embedding) > 0.9999


def test_a_picture_decoded_at_half_its_size_gives_the_same_faces_in_its_own_pixels(engine: FaceEngine) -> None:
    pixels = draw_portrait(5, 0, (1400, 1400))
    half = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).astype(np.uint8)
    reduced = Picture("a" * 64, half, "JPEG", None, 1400, 1400, 0.5, lambda: pixels)
    (whole,), (face,) = engine.analyze([picture_of(pixels), reduced])
    assert np.abs(np.array(whole.bbox) - np.array(face.bbox)).max() < 8
    assert float(whole.embedding @ face.embedding) > 0.99


def test_a_small_face_of_a_reduced_picture_is_cut_from_all_its_pixels(engine: FaceEngine) -> None:
    pixels = np.full((1400, 1400, 3), 180, np.uint8)
    pixels[:300, :300] = draw_portrait(5, 0, (300, 300))
    asked: list[int] = []

    def all_pixels() -> Pixels:
        asked.append(1)
        return pixels

    half = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).astype(np.uint8)
    (whole,), (face,) = engine.analyze(
        [picture_of(pixels), Picture("a" * 64, half, "JPEG", None, 1400, 1400, 0.5, all_pixels)]
    )
    assert asked
    assert float(whole.embedding @ face.embedding) > 0.99


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (2, 2), (3, 700)])
def test_a_sliver_has_no_face_and_breaks_nothing(engine: FaceEngine, shape: tuple[int, int]) -> None:
    assert _analyze(engine, [np.full((*shape, 3), 128, np.uint8)]) == [[]]


def test_nothing_is_analyzed_in_nothing(engine: FaceEngine) -> None:
    assert engine.analyze([]) == []


def test_many_threads_get_the_answers_of_one(demo_pack: ModelPack) -> None:
    engine = FaceEngine(demo_pack, _settings(), many=True)
    pictures = [draw_portrait(person, 0) for person in range(8)]
    alone = [_one(engine, picture).embedding for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda picture: _one(engine, picture).embedding, pictures))
    for one, other in zip(alone, together, strict=True):
        assert float(one @ other) > 0.9999


def test_timings_are_per_stage(engine: FaceEngine) -> None:
    timings: dict[str, float] = {}
    engine.analyze([picture_of(draw_portrait(1, 0))], timings)
    assert set(timings) == {"detect", "embed"}
    assert all(milliseconds > 0 for milliseconds in timings.values())


def _breaking(monkeypatch: pytest.MonkeyPatch, network: Network, result: Break) -> None:
    """From now on this one session gives other numbers than it should."""
    real = network.run
    monkeypatch.setattr(network, "run", lambda blob: [result(output) for output in real(blob)])


BREAKS: dict[str, Break] = {
    "NaN": lambda raw: np.full_like(raw, np.nan),
    "zeros": np.zeros_like,
    "constant": np.ones_like,
    "a stranger's": lambda raw: raw[:, ::-1].copy(),
}


@pytest.mark.parametrize("result", BREAKS.values(), ids=BREAKS.keys())
def test_a_broken_recogniser_is_noticed_and_loaded_again(
    demo_pack: ModelPack, monkeypatch: pytest.MonkeyPatch, result: Break
) -> None:
    engine = FaceEngine(demo_pack, _settings())
    before = _one(engine, draw_portrait(1, 0)).embedding
    _breaking(monkeypatch, engine._models.recogniser, result)
    assert engine.check().healthy
    assert float(before @ _one(engine, draw_portrait(1, 0)).embedding) > 0.9999


@pytest.mark.parametrize("result", [BREAKS["NaN"], BREAKS["zeros"], lambda raw: raw[..., ::-1] - 1])
def test_a_broken_detector_is_noticed_and_loaded_again(
    demo_pack: ModelPack, monkeypatch: pytest.MonkeyPatch, result: Break
) -> None:
    engine = FaceEngine(demo_pack, _settings())
    _breaking(monkeypatch, engine._models.detector.network, result)
    assert _analyze(engine, [draw_portrait(1, 0)]) == [[]] or result is not BREAKS["zeros"]
    assert engine.check().healthy
    assert len(_analyze(engine, [draw_portrait(1, 0)])[0]) == 1


def test_nan_in_an_embedding_is_never_an_answer_and_the_same_call_is_answered_by_the_new_session(
    demo_pack: ModelPack, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FaceEngine(demo_pack, _settings())
    before = _one(engine, draw_portrait(1, 0)).embedding
    broken = engine._models
    _breaking(monkeypatch, broken.recogniser, BREAKS["NaN"])
    assert float(before @ _one(engine, draw_portrait(1, 0)).embedding) > 0.9999
    assert engine._models is not broken


def _unhealthy(engine: FaceEngine) -> None:
    assert not engine.check().healthy
    with pytest.raises(OceanoError) as raised:
        _analyze(engine, [draw_portrait(1, 0)])
    assert raised.value.code == "engine_unhealthy"
    assert raised.value.retry_after


def test_while_the_file_is_broken_nothing_is_embedded_and_with_the_file_it_is_well_again(
    demo_pack: ModelPack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recogniser = tmp_path / "rec.onnx"
    whole = demo_pack.recogniser.read_bytes()
    recogniser.write_bytes(whole)
    pack = dataclasses.replace(demo_pack, recogniser=recogniser)

    def verified() -> ModelPack:
        if recogniser.read_bytes() != whole:
            raise OceanoError("model_corrupt", "rec.onnx is not what it was")
        return pack

    engine = FaceEngine(pack, _settings(), verified=verified)
    recogniser.write_bytes(whole[:-2000])
    _breaking(monkeypatch, engine._models.recogniser, BREAKS["a stranger's"])
    _unhealthy(engine)
    assert engine.health.message == "rec.onnx is not what it was"
    recogniser.write_bytes(whole)
    assert engine.check().healthy
    assert len(_analyze(engine, [draw_portrait(1, 0)])[0]) == 1


def test_files_that_have_become_another_model_are_not_loaded(
    demo_pack: ModelPack, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = dataclasses.replace(demo_pack, digest="e" * 64)
    engine = FaceEngine(demo_pack, _settings(), verified=lambda: other)
    _breaking(monkeypatch, engine._models.recogniser, BREAKS["NaN"])
    _unhealthy(engine)
    assert "another model" in engine.health.message


def test_a_picture_that_breaks_a_healthy_engine_is_to_blame_itself(
    demo_pack: ModelPack, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FaceEngine(demo_pack, _settings())
    models = engine._models

    def refuse(_: object) -> object:
        raise ValueError("a bug in some library")

    with monkeypatch.context() as patch:
        patch.setattr(models.detector, "find", refuse)
        with pytest.raises(ValueError, match="a bug"):
            _analyze(engine, [draw_portrait(1, 0)])
    assert engine.health.healthy
    assert engine._models is models


def test_a_model_that_gives_every_picture_the_same_vector_does_not_start(
    demo_pack: ModelPack, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = np.random.default_rng(1).normal(size=512).astype(np.float32)
    real = Network.run

    def run(network: Network, blob: Floats) -> list[Floats]:
        return [np.stack([same] * len(blob))] if network.graph.role == "recogniser" else real(network, blob)

    monkeypatch.setattr(Network, "run", run)
    with pytest.raises(OceanoError) as raised:
        FaceEngine(demo_pack, _settings())
    assert raised.value.code == "engine_unhealthy"


def test_a_damaged_model_file_is_model_corrupt(demo_pack: ModelPack, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(demo_pack.recogniser.read_bytes()[:-2000])
    with pytest.raises(OceanoError) as raised:
        FaceEngine(dataclasses.replace(demo_pack, recogniser=broken), _settings())
    assert raised.value.code == "model_corrupt"


@pytest.mark.parametrize("many", [False, True])
def test_a_check_of_a_service_releases_the_memory_of_large_pictures(
    demo_pack: ModelPack, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    engine = FaceEngine(demo_pack, Settings(_env_file=None, device="cpu"), many=many)
    released: list[str] = []
    release = Network.release_memory
    monkeypatch.setattr(Network, "release_memory", lambda self: (release(self), released.append(self.graph.role)))
    monkeypatch.setattr("app.embeddings.trim", lambda: released.append("C library"))
    assert engine.check().healthy
    assert released == ([] if many else ["detector", "recogniser", "C library"])
