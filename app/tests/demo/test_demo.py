"""demo: drawn people, and the pack that finds them and tells them apart, through the code that loads real packs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from app.core.config import Settings
from app.core.types import Floats, ModelPack, Pixels
from app.demo import PEOPLE, draw_group, draw_portrait, person_name, write_demo_gallery, write_demo_pack
from app.embeddings import FaceEngine
from tests.support.fakes import picture_of

APART = 50


@pytest.fixture(scope="module")
def engine(demo_pack: ModelPack) -> FaceEngine:
    return FaceEngine(demo_pack, Settings(_env_file=None, device="cpu"))


def _only(engine: FaceEngine, picture: Pixels) -> Floats:
    (face,) = engine.analyze([picture_of(picture)])[0]
    return face.embedding


def test_at_least_fifty_people_have_names_of_their_own() -> None:
    names = [person_name(person) for person in range(PEOPLE)]
    assert len(set(names)) == PEOPLE >= APART
    assert all(name.isascii() and name.isalpha() for name in names)


def test_fifty_drawn_people_are_told_apart_in_other_pictures_than_the_first(engine: FaceEngine) -> None:
    known = np.stack([_only(engine, draw_portrait(person, 0)) for person in range(APART)])
    asked = np.stack([_only(engine, draw_portrait(person, 101)) for person in range(APART)])
    cosines = asked @ known.T
    own = cosines.diagonal()
    strangers = cosines[~np.eye(APART, dtype=bool)]
    assert (cosines.argmax(axis=1) == np.arange(APART)).all()
    assert own.min() > 0.5
    assert strangers.max() < 0.4


@pytest.mark.parametrize("side", [64, 120, 300, 900, 2000])
def test_a_face_is_found_at_any_size(engine: FaceEngine, side: int) -> None:
    (faces,) = engine.analyze([picture_of(draw_portrait(4, 1, (side, side)))])
    assert len(faces) == 1


def test_a_group_has_its_people_from_left_to_right(engine: FaceEngine) -> None:
    people = [7, 0, 12, 30]
    (faces,) = engine.analyze([picture_of(draw_group(people, 3))])
    assert len(faces) == len(people)
    for face, person in zip(faces, people, strict=True):
        cosines = [float(face.embedding @ _only(engine, draw_portrait(one, 0))) for one in people]
        assert people[int(np.argmax(cosines))] == person


def test_what_is_no_drawn_face_has_none(engine: FaceEngine) -> None:
    rng = np.random.default_rng(3)
    across = np.linspace(0, 255, 640, dtype=np.uint8)
    pictures: list[Pixels] = [
        rng.integers(0, 256, (480, 640, 3), dtype=np.uint8),
        np.full((480, 640, 3), 200, np.uint8),
        np.ascontiguousarray(np.broadcast_to(across[None, :, None], (480, 640, 3))),
    ]
    assert engine.analyze([picture_of(pixels) for pixels in pictures]) == [[], [], []]


def test_the_pack_is_the_same_bytes_every_time_and_what_is_there_stays(demo_pack: ModelPack, tmp_path: Path) -> None:
    assert write_demo_pack(tmp_path)
    drawn = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert drawn == {path.name: path.read_bytes() for path in (demo_pack.detector, demo_pack.recogniser)}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert not write_demo_pack(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_damaged_file_of_the_pack_is_drawn_anew(demo_pack: ModelPack, tmp_path: Path) -> None:
    detector, recogniser = (tmp_path / path.name for path in (demo_pack.detector, demo_pack.recogniser))
    detector.write_bytes(demo_pack.detector.read_bytes()[:100])
    shutil.copyfile(demo_pack.recogniser, recogniser)
    before = recogniser.stat().st_mtime_ns
    assert write_demo_pack(tmp_path)
    assert detector.read_bytes() == demo_pack.detector.read_bytes()
    assert recogniser.stat().st_mtime_ns == before


def test_the_pack_has_the_shapes_of_a_published_one(demo_pack: ModelPack) -> None:
    detector = onnx.load(demo_pack.detector).graph
    assert [dim.dim_value for dim in detector.input[0].type.tensor_type.shape.dim][:2] == [1, 3]
    widths = [output.type.tensor_type.shape.dim[-1].dim_value for output in detector.output]
    assert widths == [1, 1, 1, 4, 4, 4, 10, 10, 10]
    recogniser = onnx.load(demo_pack.recogniser).graph
    assert [dim.dim_value for dim in recogniser.input[0].type.tensor_type.shape.dim][1:] == [3, 112, 112]
    assert recogniser.output[0].type.tensor_type.shape.dim[-1].dim_value == 512


def test_the_detector_gives_the_same_for_many_pictures_once_its_batch_is_free(demo_pack: ModelPack) -> None:
    model = onnx.load(demo_pack.detector)
    one = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[0].ClearField("dim_value")
    many = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    pictures = np.stack([draw_portrait(person, 0, (320, 320)) for person in range(3)])
    blob = ((pictures[..., ::-1].transpose(0, 3, 1, 2) - 127.5) / 128).astype(np.float32)
    alone = [one.run(None, {one.get_inputs()[0].name: blob[place : place + 1]}) for place in range(3)]
    together = many.run(None, {many.get_inputs()[0].name: blob})
    for number, output in enumerate(together):
        cells = (320 // (8, 16, 32)[number % 3]) ** 2
        split = output.reshape(cells, 3, 2, -1)
        for place in range(3):
            assert np.abs(split[:, place].reshape(alone[place][number].shape) - alone[place][number]).max() < 1e-4


def test_the_gallery_is_folders_of_people_and_groups_and_is_drawn_once(tmp_path: Path) -> None:
    assert write_demo_gallery(tmp_path, people=3, portraits=2, groups=1) == 7
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jpg"))
    name = person_name(0)
    assert f"{name}/{name}-1.jpg" in files
    assert "groups/group-1.jpg" in files
    assert len(files) == 7
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.jpg")}
    times = {path: path.stat().st_mtime_ns for path in before}
    write_demo_gallery(tmp_path, people=3, portraits=2, groups=1)
    assert {path: path.stat().st_mtime_ns for path in before} == times
