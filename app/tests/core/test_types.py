from __future__ import annotations

import dataclasses
import uuid

import numpy as np
import pytest

from app.core import types
from app.core.paths import folders_of
from app.core.protocols import Engine, FaceIndex
from app.core.types import FACE_NAMESPACE, FaceFilter, Picture, collection_name, face_id_of
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex, embedding_of
from tests.support.pictures import point

IMAGE = "a" * 64


def test_a_face_is_a_uuid_of_its_image_its_model_and_its_place() -> None:
    face_id = face_id_of(IMAGE, "d" * 64, 0)
    assert uuid.UUID(face_id).version == 5
    assert face_id == str(uuid.UUID(face_id)) == face_id_of(IMAGE, "d" * 64, 0)
    others = {face_id_of("b" * 64, "d" * 64, 0), face_id_of(IMAGE, "e" * 64, 0), face_id_of(IMAGE, "d" * 64, 1)}
    assert len(others | {face_id}) == 4


def test_face_ids_never_change_from_one_version_to_the_next() -> None:
    assert str(FACE_NAMESPACE) == "a579510d-68e7-51d9-862f-fea30fcc201c"
    assert face_id_of(IMAGE, "d" * 64, 3) == "082d2deb-94e3-543b-b82a-4dafb95bffa0"


def test_no_two_places_of_two_images_share_a_face_id() -> None:
    ids = {face_id_of(f"{image:064x}", "d" * 64, place) for image in range(50) for place in range(50)}
    assert len(ids) == 2500


def test_a_collection_is_named_by_alias_model_and_the_digest_s_beginning() -> None:
    assert collection_name("faces", FAKE_PACK) == "faces__fake__ffffffff"
    assert FAKE_PACK.short_digest == "ffffffff"


def test_a_picture_knows_its_size() -> None:
    picture = Picture(IMAGE, np.zeros((48, 64, 3), np.uint8), "PNG", None, 64, 48)
    assert (picture.width, picture.height) == (64, 48)
    assert type(picture.width) is int


def test_every_value_that_crosses_a_border_is_frozen_and_slotted() -> None:
    values = [kind for kind in vars(types).values() if dataclasses.is_dataclass(kind) and isinstance(kind, type)]
    assert len(values) >= 12
    for kind in values:
        assert kind.__dataclass_params__.frozen, kind  # type: ignore[attr-defined]
        assert "__slots__" in vars(kind), kind
        assert kind.__doc__, kind


def test_a_filter_restricts_nothing_by_itself() -> None:
    assert all(value in (None, (), False) for value in dataclasses.astuple(FaceFilter()))


def test_a_stored_face_cannot_be_changed() -> None:
    stored = point(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        stored.payload.person = "Ada"  # type: ignore[misc]


def test_the_fakes_keep_to_the_protocols() -> None:
    engine: Engine = FakeEngine()
    index: FaceIndex = MemoryIndex()
    for part, protocol in ((engine, Engine), (index, FaceIndex)):
        promised = {name for name in vars(protocol) if not name.startswith("_")}
        assert promised
        assert promised <= set(dir(part)), promised - set(dir(part))


def test_the_fakes_embeddings_are_unit_vectors_of_their_own() -> None:
    one, other = embedding_of(1), embedding_of(2)
    assert (one.shape, one.dtype) == ((512,), np.float32)
    assert float(one @ one) == pytest.approx(1.0, abs=1e-6)
    assert abs(float(one @ other)) < 0.3


@pytest.mark.parametrize(
    ("path", "folders"),
    [
        ("/pictures/2024/one two.jpg", ("/", "/pictures", "/pictures/2024")),
        ("/one.jpg", ("/",)),
        ("/pictures//2024/one.jpg", ("/", "/pictures", "/pictures/2024")),
    ],
)
def test_the_folders_of_a_path_are_all_above_it_outermost_first(path: str, folders: tuple[str, ...]) -> None:
    assert folders_of(path) == folders
