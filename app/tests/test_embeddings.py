"""embeddings: the engine on the demo pack, and on real faces where there is a real pack."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from insightface.utils import face_align

from app.config import Settings
from app.demo import draw_group, draw_portrait
from app.embeddings import FaceEngine, _align
from app.errors import OceanoError
from app.images import decode
from app.types import ModelPack, Pixels
from app.weights import find_pack


@pytest.fixture(scope="module")
def engine(demo_pack: ModelPack) -> FaceEngine:
    return FaceEngine(demo_pack, Settings(_env_file=None, device="cpu"))


def _read(path: Path) -> Pixels:
    return decode(path.read_bytes(), max_pixels=64_000_000).pixels


def test_a_group_comes_in_canonical_order_with_unit_embeddings(engine: FaceEngine) -> None:
    (faces,) = engine.analyze([draw_group([3, 1, 4, 15])])
    assert len(faces) == 4
    assert [face.bbox for face in faces] == sorted(face.bbox for face in faces)
    for face in faces:
        assert face.embedding.shape == (512,)
        assert face.embedding.dtype == np.float32
        assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-5)
        assert face.found_by == "direct"
        assert 0 < face.quality <= face.det_score <= 1


def test_pictures_analyzed_together_give_what_they_give_alone(engine: FaceEngine) -> None:
    pictures = [draw_group([1, 2]), draw_portrait(5, 0), np.zeros((300, 200, 3), np.uint8), draw_portrait(6, 1)]
    together = engine.analyze(pictures)
    assert [len(faces) for faces in together] == [2, 1, 0, 1]
    for picture, faces in zip(pictures, together, strict=True):
        (alone,) = engine.analyze([picture])
        assert [face.bbox for face in alone] == [face.bbox for face in faces]
        for one, other in zip(alone, faces, strict=True):
            assert float(one.embedding @ other.embedding) > 0.9999


def test_a_face_that_fills_the_frame_is_found_within_a_border(engine: FaceEngine) -> None:
    portrait = draw_portrait(7, 0)
    (direct,) = engine.analyze([portrait])[0]
    x1, y1, x2, y2 = direct.bbox
    left, top = int(x1 + 0.1 * (x2 - x1)), int(y1 + 0.1 * (y2 - y1))
    right, bottom = int(x2 - 0.1 * (x2 - x1)), int(y2 - 0.1 * (y2 - y1))
    scale = 4
    close_up = cv2.resize(portrait[top:bottom, left:right], None, fx=scale, fy=scale)
    (found,) = engine.analyze([close_up])[0]
    height, width = close_up.shape[:2]
    assert found.found_by == "border"
    assert 0 <= found.bbox[0] < found.bbox[2] <= width
    assert 0 <= found.bbox[1] < found.bbox[3] <= height
    back = np.array(found.kps) / scale + (left, top)
    assert np.abs(back - np.array(direct.kps)).max() < 0.05 * (x2 - x1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (2, 2), (3, 700)])
def test_a_sliver_has_no_face_and_breaks_nothing(engine: FaceEngine, shape: tuple[int, int]) -> None:
    assert engine.analyze([np.full((*shape, 3), 128, np.uint8)]) == [[]]


def test_many_threads_get_the_answers_of_one(engine: FaceEngine) -> None:
    pictures = [draw_portrait(person, 0) for person in range(8)]
    alone = [engine.analyze([picture])[0][0].embedding for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda picture: engine.analyze([picture])[0][0].embedding, pictures))
    for one, other in zip(alone, together, strict=True):
        assert float(one @ other) > 0.9999


def test_our_alignment_is_that_of_insightface() -> None:
    rng = np.random.default_rng(7)
    picture = rng.integers(0, 255, (300, 300, 3), dtype=np.uint8)
    template = np.array([[120, 130], [180, 128], [152, 160], [128, 195], [176, 197]], np.float32)
    kps = template + rng.normal(0, 6, (5, 2)).astype(np.float32)
    with pytest.warns(FutureWarning):
        theirs = face_align.norm_crop(picture, kps)
    assert np.abs(_align(picture, kps).astype(int) - theirs.astype(int)).mean() < 0.5


def test_timings_are_per_stage(engine: FaceEngine) -> None:
    timings: dict[str, float] = {}
    engine.analyze([draw_portrait(1, 0)], timings)
    assert set(timings) == {"detect", "embed"}
    assert all(milliseconds > 0 for milliseconds in timings.values())


def _breaking(engine: FaceEngine, result: Callable[[Any], Any]) -> Callable[[Any], Any]:
    real = engine._recogniser.get_feat
    return lambda crops: result(real(crops))


@pytest.mark.parametrize(
    "result",
    [
        lambda raw: np.full_like(raw, np.nan),
        np.zeros_like,
        np.ones_like,
        lambda raw: raw[:, ::-1].copy(),
    ],
    ids=["NaN", "zeros", "constant", "a stranger's"],
)
def test_a_broken_recogniser_is_noticed_and_nothing_is_embedded_until_it_is_well(
    demo_pack: ModelPack, monkeypatch: pytest.MonkeyPatch, result: Callable[[Any], Any]
) -> None:
    engine = FaceEngine(demo_pack, Settings(_env_file=None, device="cpu"))
    with monkeypatch.context() as patch:
        patch.setattr(engine._recogniser, "get_feat", _breaking(engine, result))
        assert not engine.check().healthy
        with pytest.raises(OceanoError) as raised:
            engine.analyze([draw_portrait(1, 0)])
        assert raised.value.code == "engine_unhealthy"
    assert engine.check().healthy
    assert len(engine.analyze([draw_portrait(1, 0)])[0]) == 1


def test_a_model_that_gives_every_picture_the_same_vector_does_not_start(
    demo_pack: ModelPack, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = np.random.default_rng(1).normal(size=512).astype(np.float32)
    monkeypatch.setattr(
        "insightface.model_zoo.arcface_onnx.ArcFaceONNX.get_feat", lambda _, crops: np.stack([same] * len(crops))
    )
    with pytest.raises(OceanoError) as raised:
        FaceEngine(demo_pack, Settings(_env_file=None, device="cpu"))
    assert raised.value.code == "engine_unhealthy"


def test_a_damaged_model_file_is_model_corrupt(demo_pack: ModelPack, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(demo_pack.recogniser.read_bytes()[:-2000])
    with pytest.raises(OceanoError) as raised:
        FaceEngine(dataclasses.replace(demo_pack, recogniser=broken), Settings(_env_file=None, device="cpu"))
    assert raised.value.code == "model_corrupt"


def test_cuda_that_is_not_there_is_refused_and_auto_says_what_it_took(
    demo_pack: ModelPack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(OceanoError) as raised:
        FaceEngine(demo_pack, Settings(_env_file=None, device="cuda"))
    assert raised.value.code == "device_unavailable"
    device = FaceEngine(demo_pack, Settings(_env_file=None, device="auto")).device
    assert (device.device, device.provider) == ("cpu", "CPUExecutionProvider")
    assert "no CUDA" in device.reason


def test_without_a_driver_cuda_is_refused_before_onnxruntime_is_asked(
    demo_pack: ModelPack, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("app.embeddings.onnxruntime.get_available_providers", lambda: offered)
    monkeypatch.setattr("app.embeddings.driver_problem", lambda: "no NVIDIA driver is installed")
    with pytest.raises(OceanoError, match="no NVIDIA driver") as raised:
        FaceEngine(demo_pack, Settings(_env_file=None, device="cuda"))
    assert raised.value.code == "device_unavailable"
    device = FaceEngine(demo_pack, Settings(_env_file=None, device="auto")).device
    assert (device.device, device.reason) == ("cpu", "no NVIDIA driver is installed")


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider'")
def test_cuda_that_is_offered_but_falls_back_to_the_cpu_is_refused(
    demo_pack: ModelPack, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("app.embeddings.onnxruntime.get_available_providers", lambda: offered)
    monkeypatch.setattr("app.embeddings.driver_problem", lambda: None)
    with pytest.raises(OceanoError) as raised:
        FaceEngine(demo_pack, Settings(_env_file=None, device="cuda"))
    assert raised.value.code == "device_unavailable"
    assert FaceEngine(demo_pack, Settings(_env_file=None, device="auto")).device.device == "cpu"


@pytest.mark.real
def test_every_real_crop_has_its_face_and_its_nearest_other_face_is_the_same_person(
    real_pack: Path, real_faces: Path, tmp_path: Path
) -> None:
    engine = FaceEngine(find_pack(str(real_pack), tmp_path), Settings(_env_file=None, device="cpu"))
    paths = sorted(real_faces.glob("people/*/*"))
    assert len(paths) == 40
    results = engine.analyze([_read(path) for path in paths])
    assert [len(faces) for faces in results] == [1] * 40
    assert {faces[0].found_by for faces in results} == {"border"}
    matrix = np.stack([faces[0].embedding for faces in results])
    cosines = matrix @ matrix.T
    np.fill_diagonal(cosines, -1)
    for place, path in enumerate(paths):
        assert paths[int(cosines[place].argmax())].parent == path.parent


@pytest.mark.real
def test_real_groups_have_as_many_faces_as_people_and_no_face_has_none(
    real_pack: Path, real_faces: Path, tmp_path: Path
) -> None:
    engine = FaceEngine(find_pack(str(real_pack), tmp_path), Settings(_env_file=None, device="cpu"))
    groups = [_read(real_faces / "groups" / f"bbt{number}.jpg") for number in range(1, 6)]
    assert [len(faces) for faces in engine.analyze(groups)] == [4, 3, 5, 6, 5]
    assert engine.analyze([_read(real_faces / "hard" / "no_face.png")]) == [[]]
