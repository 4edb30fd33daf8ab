"""bench: the data of the benchmarks is what they say it is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from bench.faces import FACES_OF_ONE, IMPOSTOR_SPREAD, OWN_COSINE, SIZE, People, points
from bench.pictures import SIZES, write_pictures
from bench.resnet100 import resnet100


@pytest.mark.parametrize("size", [128, SIZE, 1024])
def test_stored_people_are_as_alike_and_as_strange_as_real_ones(size: int) -> None:
    people = People(size)
    faces = people.faces(people.identities(150), FACES_OF_ONE)
    assert faces.shape == (150 * FACES_OF_ONE, size)
    assert np.allclose(np.linalg.norm(faces, axis=1), 1, atol=1e-5)
    cosines = faces @ faces.T
    owner = np.arange(len(faces)) // FACES_OF_ONE
    same = (owner[:, None] == owner) & ~np.eye(len(faces), dtype=bool)
    assert cosines[same].mean() == pytest.approx(OWN_COSINE, abs=0.02)
    strangers = cosines[owner[:, None] != owner]
    assert strangers.std() == pytest.approx(IMPOSTOR_SPREAD * max(1, (SIZE / size) ** 0.5), rel=0.06)
    assert strangers.mean() == pytest.approx(0, abs=0.01)


def test_every_stored_face_has_an_id_of_its_own() -> None:
    faces = People().faces(People().identities(10), 2)
    assert len({point.face_id for point in [*points(faces, "d"), *points(faces, "d", first=20)]}) == 40


@pytest.mark.real
def test_the_pictures_have_1_9_megapixels_on_average(real_faces: Path, tmp_path: Path) -> None:
    paths = write_pictures(tmp_path, real_faces, len(SIZES))
    shapes = [cv2.imread(str(path)).shape for path in paths]
    assert [(width, height) for height, width, _ in shapes] == list(SIZES)
    assert np.mean([height * width for height, width, _ in shapes]) == pytest.approx(1.9e6, rel=0.02)


def test_the_large_recogniser_has_the_weights_of_a_resnet_100() -> None:
    weights = sum(int(np.prod(one.dims)) for one in resnet100().graph.initializer)
    assert weights == pytest.approx(65e6, rel=0.02)
