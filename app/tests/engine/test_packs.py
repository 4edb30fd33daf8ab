"""One suite for every kind of pack, on real photographs: SCRFD with an ArcFace-like recogniser, YuNet with SFace, and
YuNet with a recogniser of AuraFace's shape (ResNet-100, 512 dimensions) and random weights.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pytest

from app.core.config import Settings
from app.core.paths import folders_of
from app.core.types import Face, FacePayload, FacePoint, ModelPack, Picture, Pixels, face_id_of
from app.embeddings import FaceEngine
from app.images.decoding import decode
from app.index import open_index
from app.packs.install import combine_packs
from app.packs.store import find_pack
from bench.resnet100 import write_resnet100
from tests.conftest import folder_from


def _given(variable: str) -> Callable[[Path], ModelPack]:
    return lambda models: find_pack(str(folder_from(variable)), models)


def _combined(models: Path) -> ModelPack:
    free = str(folder_from("FREE_PACK_DIR"))
    write_resnet100(models / "resnet100.onnx")
    return combine_packs(free, str(models / "resnet100.onnx"), "free512", models)


PACKS: Final = {"scrfd": _given("REAL_PACK_DIR"), "opencv": _given("FREE_PACK_DIR"), "combined": _combined}
TRAINED: Final = pytest.mark.parametrize("engine", ["scrfd", "opencv"], indirect=True)
SIZES: Final = {"scrfd": 512, "opencv": 128, "combined": 512}

pytestmark = pytest.mark.real


@pytest.fixture(scope="module", params=PACKS)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FaceEngine:
    pack = PACKS[request.param](tmp_path_factory.mktemp("models"))
    assert pack.embedding_size == SIZES[request.param]
    return FaceEngine(pack, Settings(_env_file=None, device="cpu"))


def _read(path: Path) -> Picture:
    return decode(path.read_bytes(), max_pixels=64_000_000)


Analyzed = tuple[list[Picture], list[list[Face]]]


@pytest.fixture(scope="module")
def crops(engine: FaceEngine) -> tuple[list[Path], list[list[Face]]]:
    """The photographs of one person each, and their faces."""
    paths = sorted(folder_from("REAL_FACES_DIR").glob("people/*/*"))
    return paths, engine.analyze([_read(path) for path in paths])


@pytest.fixture(scope="module")
def groups(engine: FaceEngine) -> Analyzed:
    """The photographs of groups, and their faces, analyzed together."""
    pictures = [_read(folder_from("REAL_FACES_DIR") / "groups" / f"bbt{number}.jpg") for number in range(1, 6)]
    return pictures, engine.analyze(pictures)


@TRAINED
def test_every_crop_has_its_face_and_its_nearest_other_face_is_the_same_person(
    crops: tuple[list[Path], list[list[Face]]],
) -> None:
    paths, results = crops
    assert len(paths) == 40
    assert [len(faces) for faces in results] == [1] * 40
    assert {faces[0].found_by for faces in results} == {"border"}
    matrix = np.stack([faces[0].embedding for faces in results])
    cosines = matrix @ matrix.T
    np.fill_diagonal(cosines, -1)
    for place, path in enumerate(paths):
        assert paths[int(cosines[place].argmax())].parent == path.parent


@TRAINED
def test_no_two_strangers_reach_the_packs_threshold_and_most_pairs_of_one_person_do(
    engine: FaceEngine, crops: tuple[list[Path], list[list[Face]]]
) -> None:
    paths, results = crops
    matrix = np.stack([faces[0].embedding for faces in results])
    one, other = np.triu_indices(len(paths), 1)
    cosines = (matrix @ matrix.T)[one, other]
    same = np.array([paths[a].parent == paths[b].parent for a, b in zip(one, other, strict=True)])
    assert same.sum() == 80
    assert cosines[~same].max() < engine.pack.threshold
    assert (cosines[same] >= engine.pack.threshold).mean() > 0.9


def test_groups_have_as_many_faces_as_people_in_canonical_order(engine: FaceEngine, groups: Analyzed) -> None:
    _, results = groups
    assert [len(faces) for faces in results] == [4, 3, 5, 6, 5]
    for faces in results:
        assert [face.bbox for face in faces] == sorted(face.bbox for face in faces)
        for face in faces:
            assert face.embedding.shape == (engine.pack.embedding_size,)
            assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-5)


def test_a_picture_among_others_gives_what_it_gives_alone(engine: FaceEngine, groups: Analyzed) -> None:
    for picture, together in [*zip(*groups, strict=True)][2:4]:
        (alone,) = engine.analyze([picture])
        for one, other in zip(together, alone, strict=True):
            assert one.bbox == pytest.approx(other.bbox, abs=0.1)
            assert float(one.embedding @ other.embedding) > 0.9999


def test_every_hard_picture_has_its_face_but_the_one_without(engine: FaceEngine, real_faces: Path) -> None:
    paths = sorted((real_faces / "hard").iterdir())
    assert len(paths) > 10
    found = {path.name: faces for path, faces in zip(paths, engine.analyze(list(map(_read, paths))), strict=True)}
    assert found.pop("no_face.png") == []
    assert {name: len(faces) for name, faces in found.items()} == dict.fromkeys(found, 1)
    assert found["blur.jpg"][0].flaws == ("blurred",)
    assert {name for name, (face,) in found.items() if "extreme_pose" in face.flaws} == {
        "left_face.jpeg",
        "right_face.png",
    }


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_photograph_on_its_side_or_head_gives_the_embedding_of_the_upright_one(
    engine: FaceEngine, real_faces: Path, turn: int
) -> None:
    upright, turned = (_read(real_faces / "hard" / f"rot_{degrees}.jpg") for degrees in (0, turn))
    (one,), (other,) = engine.analyze([upright, turned])
    assert float(one.embedding @ other.embedding) > 0.95


@TRAINED
@pytest.mark.parametrize("turn", [1, 2, 3])  # quarters
def test_a_group_on_its_side_or_head_has_everybody(engine: FaceEngine, real_faces: Path, turn: int) -> None:
    upright = _read(real_faces / "groups" / "bbt4.jpg")
    pixels = np.ascontiguousarray(np.rot90(upright.pixels, turn))
    turned = Picture("0" * 64, pixels, "JPEG", None, pixels.shape[1], pixels.shape[0])
    ours, theirs = engine.analyze([upright, turned])
    assert len(theirs) == 6
    cosines = np.stack([face.embedding for face in theirs]) @ np.stack([face.embedding for face in ours]).T
    assert (cosines.max(axis=1) > 0.95).all()


@TRAINED
def test_half_precision_gives_nearly_the_same_embeddings(engine: FaceEngine, groups: Analyzed) -> None:
    half = FaceEngine(engine.pack, Settings(_env_file=None, device="cpu", precision="fp16"))
    pictures, results = groups[0][2:], groups[1][2:]
    for faces, others in zip(results, half.analyze(pictures), strict=True):
        assert len(faces) == len(others)
        assert all(float(a.embedding @ b.embedding) > 0.99 for a, b in zip(faces, others, strict=True))


@TRAINED
def test_openvino_gives_the_same_embeddings(engine: FaceEngine, groups: Analyzed) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    other = FaceEngine(engine.pack, Settings(_env_file=None, device="cpu", runtime="openvino", precision="fp32"))
    pictures, results = groups[0][2:], groups[1][2:]
    for faces, theirs in zip(results, other.analyze(pictures), strict=True):
        assert len(faces) == len(theirs)
        assert all(float(a.embedding @ b.embedding) > 0.9999 for a, b in zip(faces, theirs, strict=True))


def test_what_is_stored_is_found_again(engine: FaceEngine, real_faces: Path, tmp_path: Path) -> None:
    picture = _read(real_faces / "groups" / "bbt4.jpg")
    (faces,) = engine.analyze([picture])
    path = "/photos/bbt4.jpg"
    points = [
        FacePoint(
            face_id_of("0" * 64, engine.pack.digest, place),
            face.embedding,
            FacePayload(
                "0" * 64,
                path,
                folders_of(path),
                face.bbox,
                face.kps,
                picture.width,
                picture.height,
                face.det_score,
                face.quality,
                None,
                None,
                "2026-01-01T00:00:00+00:00",
            ),
        )
        for place, face in enumerate(faces)
    ]
    with closing(open_index(Settings(_env_file=None, data_dir=tmp_path), engine.pack)) as index:
        index.upsert(points)
        found = index.search_batch([face.embedding for face in faces], limit=1)
    assert [match.face_id for (match,) in found] == [point.face_id for point in points]
    assert all(match.similarity > 0.9999 for (match,) in found)


def _pasted(parts: list[Pixels], width: int, height: int, places: list[tuple[int, int]]) -> Picture:
    canvas = np.full((height, width, 3), 150, np.uint8)
    for part, (x, y) in zip(parts, places, strict=True):
        canvas[y : y + part.shape[0], x : x + part.shape[1]] = part
    return Picture("0" * 64, canvas, "JPEG", None, width, height)


@TRAINED
def test_forty_people_in_a_large_picture_are_all_found(engine: FaceEngine, real_faces: Path) -> None:
    one, other = (
        cv2.resize(_read(real_faces / "hard" / name).pixels, (350, 433)).astype(np.uint8)
        for name in ("rot_0.jpg", "lower_face.jpeg")
    )
    places = [(300 + index % 10 * 550, 150 + index // 10 * 480) for index in range(40)]
    (faces,) = engine.analyze([_pasted([one, other] * 20, 6000, 4000, places)])
    assert len(faces) == 40


@TRAINED
def test_an_upright_person_beside_one_upside_down_are_both_recognised(engine: FaceEngine, real_faces: Path) -> None:
    one, other = (_read(real_faces / "hard" / name) for name in ("rot_0.jpg", "rise_face.jpeg"))
    ((upright,), (second,)) = engine.analyze([one, other])
    parts = [one.pixels, np.ascontiguousarray(other.pixels[::-1, ::-1])]
    (faces,) = engine.analyze([_pasted(parts, 1400, 700, [(0, 0), (360, 0)])])
    assert len(faces) == 2
    assert float(faces[0].embedding @ upright.embedding) > 0.5
    assert float(faces[1].embedding @ second.embedding) > 0.5
