"""people.regions: which face a region of the metadata is about, however the picture was turned."""

from __future__ import annotations

import numpy as np
import pytest

from app.core.types import BBox
from app.images import FileNames, Layer, Region
from app.images.decoding import _upright
from app.people.regions import named_faces, stored, turned

WIDTH, HEIGHT = 600, 800  # of the upright image
ANA: BBox = (60, 80, 180, 240)
BOB: BBox = (360, 480, 480, 640)
FACES = [ANA, BOB]


def _relative(box: BBox, width: int = WIDTH, height: int = HEIGHT) -> BBox:
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height


def _found(*layers: list[Region], orientation: int = 1, shown: tuple[str, ...] = ()) -> FileNames:
    return FileNames(tuple(Layer(f"source {n}", tuple(one)) for n, one in enumerate(layers)), shown, orientation)


def _regions(orientation: int, size: tuple[float, float] | None = None) -> list[Region]:
    """Regions of both faces on the image stored with an orientation."""
    return [Region(name, stored(_relative(box), orientation), size) for name, box in (("Ana", ANA), ("Bob", BOB))]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_region_is_turned_as_the_pixels_are(orientation: int) -> None:
    image = np.zeros((80, 60, 3), np.uint8)
    image[10:30, 40:55] = 255
    upright = _upright(image, orientation)
    rows, columns = np.nonzero(upright[..., 0])
    height, width = upright.shape[:2]
    box = turned((40 / 60, 10 / 80, 55 / 60, 30 / 80), orientation)
    assert np.round(np.multiply(box, (width, height, width, height))).tolist() == [
        columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    ]  # fmt: skip
    assert stored(box, orientation) == pytest.approx((40 / 60, 10 / 80, 55 / 60, 30 / 80))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("with_size", [True, False], ids=["with its size", "without a size"])
def test_regions_of_the_stored_image_name_the_faces(orientation: int, with_size: bool) -> None:
    size = (HEIGHT, WIDTH) if orientation > 4 else (WIDTH, HEIGHT)
    found = named_faces(
        _found(_regions(orientation, size if with_size else None), orientation=orientation), FACES, WIDTH, HEIGHT
    )
    assert found.names == {0: "Ana", 1: "Bob"}
    assert not found.without_face


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("with_size", [True, False], ids=["with its size", "without a size"])
def test_regions_of_the_upright_image_name_the_faces(orientation: int, with_size: bool) -> None:
    size = (WIDTH, HEIGHT) if with_size else None
    found = named_faces(_found(_regions(1, size), orientation=orientation), FACES, WIDTH, HEIGHT)
    assert found.names == {0: "Ana", 1: "Bob"}


@pytest.mark.parametrize("scale", [0.1, 0.25, 3])
def test_regions_of_a_smaller_or_larger_version_name_the_faces(scale: float) -> None:
    found = named_faces(_found(_regions(1, (WIDTH * scale, HEIGHT * scale))), FACES, WIDTH, HEIGHT)
    assert found.names == {0: "Ana", 1: "Bob"}


@pytest.mark.parametrize("turn", [6, 8], ids=["clockwise", "counter-clockwise"])
def test_pixels_that_were_turned_after_the_regions_were_written_are_recognised(turn: int) -> None:
    found = named_faces(_found(_regions(turn, (HEIGHT, WIDTH))), FACES, WIDTH, HEIGHT)
    assert found.names == {0: "Ana", 1: "Bob"}


def test_nobody_is_named_if_pixels_were_turned_and_nothing_says_which_way() -> None:
    faces: list[BBox] = [(60, 80, 180, 240), (420, 560, 540, 720)]  # half a turn swaps them
    regions = [
        Region(name, stored(_relative(box), 6), (HEIGHT, WIDTH)) for name, box in zip(("A", "B"), faces, strict=True)
    ]
    found = named_faces(_found(regions), faces, WIDTH, HEIGHT)
    assert (found.names, found.without_face) == ({}, ("A", "B"))


def test_the_region_fits_the_face_best_whose_size_it_has() -> None:
    faces = [(100.0, 100.0, 200.0, 200.0), (150.0, 150.0, 250.0, 250.0)]
    regions = [Region(name, _relative(box)) for name, box in zip(("Second", "First"), reversed(faces), strict=True)]
    assert named_faces(_found(regions), faces, WIDTH, HEIGHT).names == {0: "First", 1: "Second"}


@pytest.mark.parametrize("grow", [0.35, 0.6, 1.9], ids=["eyes and mouth", "smaller", "head and shoulders"])
def test_regions_that_are_smaller_or_larger_than_the_face_name_it(grow: float) -> None:
    x, y = (ANA[0] + ANA[2]) / 2, (ANA[1] + ANA[3]) / 2
    w, h = (ANA[2] - ANA[0]) * grow / 2, (ANA[3] - ANA[1]) * grow / 2
    region = Region("Ana", _relative((x - w, y - h, x + w, y + h)))
    assert named_faces(_found([region]), FACES, WIDTH, HEIGHT).names == {0: "Ana"}


def test_a_point_names_the_face_that_it_is_in() -> None:
    point = Region("Bob", _relative((420, 500, 420, 500)))
    assert named_faces(_found([point]), FACES, WIDTH, HEIGHT).names == {1: "Bob"}


def test_a_region_beside_all_faces_names_none() -> None:
    found = named_faces(_found([Region("Eve", (0.7, 0.0, 0.9, 0.2))]), FACES, WIDTH, HEIGHT)
    assert (found.names, found.without_face) == ({}, ("Eve",))


def test_a_region_of_everything_names_none() -> None:
    assert named_faces(_found([Region("All", (0, 0, 1, 1))]), FACES, WIDTH, HEIGHT).names == {}


def test_two_regions_on_one_face_name_it_once() -> None:
    near = Region("Eve", _relative((70, 90, 200, 260)))
    found = named_faces(_found([near, Region("Ana", _relative(ANA))]), [ANA], WIDTH, HEIGHT)
    assert (found.names, found.without_face) == ({0: "Ana"}, ("Eve",))


def test_one_name_is_never_given_to_two_faces() -> None:
    regions = [Region("Ana", _relative(ANA)), Region("Ana", _relative(BOB))]
    assert [*named_faces(_found(regions), FACES, WIDTH, HEIGHT).names.values()] == ["Ana"]


def test_sources_that_differ_are_joined_and_the_first_counts() -> None:
    sidecar = [Region("Anna", _relative(ANA))]
    embedded = [Region("Ana", _relative(ANA)), Region("Bob", _relative(BOB))]
    found = named_faces(_found(sidecar, embedded), FACES, WIDTH, HEIGHT)
    assert found.names == {0: "Anna", 1: "Bob"}
    assert found.differences == (("Anna", "Ana"),)
    assert not found.without_face


def test_sources_that_agree_are_no_difference() -> None:
    found = named_faces(_found(_regions(1), _regions(1)), FACES, WIDTH, HEIGHT)
    assert (found.names, found.differences, found.without_face) == ({0: "Ana", 1: "Bob"}, (), ())


def test_sources_that_swap_two_names_do_not_give_one_name_twice() -> None:
    other = [Region("Bob", _relative(ANA)), Region("Ana", _relative(BOB))]
    assert named_faces(_found(_regions(1), other), FACES, WIDTH, HEIGHT).names == {0: "Ana", 1: "Bob"}


@pytest.mark.parametrize(
    ("faces", "shown", "names"),
    [([ANA], ("Ana",), {0: "Ana"}), (FACES, ("Ana",), {}), ([ANA], ("Ana", "Bob"), {}), ([], ("Ana",), {})],
)
def test_a_name_without_a_place_is_that_of_the_only_face(
    faces: list[BBox], shown: tuple[str, ...], names: dict[int, str]
) -> None:
    assert named_faces(_found(shown=shown), faces, WIDTH, HEIGHT).names == names


def test_a_name_without_a_place_does_not_count_if_its_region_is_elsewhere() -> None:
    regions = [Region("Bob", (0.7, 0.0, 0.9, 0.2))]
    assert named_faces(_found(regions, shown=("Bob",)), [ANA], WIDTH, HEIGHT).names == {}
