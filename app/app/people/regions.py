"""Which face of a picture each named region of its metadata is about.

A region is a part of the image as stored in the file, before the Exif orientation (Guidelines for Handling Image
Metadata 2.0, Metadata Working Group, 2010, section 5.4: "Region metadata is applied to the stored image"). Some
programs write regions of the upright image, and others rotate the pixels and leave the regions as they were. What a
program did is seen in the size that it wrote, and in where the faces are: of the ways to turn the regions, the one
counts that puts the most regions on faces; of several, the likeliest one unless another one fits clearly better.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.core.boxes import area, overlap
from app.core.types import BBox
from app.images import FileNames, Region

_OVERLAP: Final = 0.25  # of a region and a face that are about the same, if one's centre is not within the other
_POINT: Final = 0.01  # the rank of a region without width and height, below that of every box
_ALIKE: Final = 0.03  # largest difference of two aspect ratios that are the same
_SWAPPED: Final = range(5, 9)  # orientations that swap width and height
_FLIPPED_X: Final = frozenset({2, 3, 6, 7})  # orientations that swap left and right, after width and height
_FLIPPED_Y: Final = frozenset({3, 4, 7, 8})
_TURNS: Final = (6, 8)  # a quarter clockwise, counter-clockwise
_CLEARLY: Final = 1.5  # times better: a less likely way to turn regions fits as many faces, but clearly better


@dataclass(frozen=True, slots=True)
class NamedFaces:
    """The names of a picture's faces, as its metadata says.

    Attributes:
        names: by position of the face.
        without_face: names of regions where no face was found, or whose face or name another region has.
        differences: pairs of names that two sources gave one face: the one that counts, and the other.
    """

    names: Mapping[int, str]
    without_face: tuple[str, ...] = ()
    differences: tuple[tuple[str, str], ...] = ()


def named_faces(found: FileNames, faces: Sequence[BBox], width: int, height: int) -> NamedFaces:
    """Match the regions of a picture to its faces.

    Each region has at most one face, each face one name, and each name one face. A name without a region counts if the
    picture has one face, one such name and no region.

    Args:
        found: what file and sidecars say.
        faces: bounding boxes on the upright image.
        width: of the upright image in pixels.
        height: of the upright image in pixels.
    """
    names: dict[int, str] = {}
    without: list[str] = []
    differences: list[tuple[str, str]] = []
    for layer in found.layers:
        matched = _placed(layer.regions, found.orientation, faces, width, height)
        for number, region in enumerate(layer.regions):
            face = matched.get(number)
            if face is None or (region.name in names.values() and names.get(face) != region.name):
                without.append(region.name)
            elif names.setdefault(face, region.name) != region.name:
                differences.append((names[face], region.name))
    if not found.layers and len(found.shown) == len(faces) == 1:
        names[0] = found.shown[0]
    left = [name for name in dict.fromkeys(without) if name not in names.values()]
    return NamedFaces(names, tuple(left), tuple(dict.fromkeys(differences)))


def turned(box: BBox, orientation: int) -> BBox:
    """Return where a part of the image stored in a file is on the upright image.

    Args:
        box: fractions of width and height.
        orientation: that of Exif, 1 to 8.
    """
    x1, y1, x2, y2 = box
    if orientation in _SWAPPED:
        x1, y1, x2, y2 = y1, x1, y2, x2
    if orientation in _FLIPPED_X:
        x1, x2 = 1 - x2, 1 - x1
    if orientation in _FLIPPED_Y:
        y1, y2 = 1 - y2, 1 - y1
    return x1, y1, x2, y2


def stored(box: BBox, orientation: int) -> BBox:
    """Return where a part of the upright image is on the image stored in a file; the inverse of `turned`."""
    return turned(box, {6: 8, 8: 6}.get(orientation, orientation))


def regions_of(names: Mapping[BBox, str], orientation: int, width: int, height: int) -> list[Region]:
    """Return the regions to write into a picture.

    Args:
        names: by bounding box on the upright image.
        orientation: that of Exif, 1 to 8.
        width: of the upright image in pixels.
        height: of the upright image in pixels.

    Returns:
        Regions of the image as stored in the file, from left to right.
    """
    size = (height, width) if orientation in _SWAPPED else (width, height)
    return [
        Region(name, stored((x1 / width, y1 / height, x2 / width, y2 / height), orientation), size)
        for (x1, y1, x2, y2), name in sorted(names.items())
    ]


def _placed(
    regions: Sequence[Region], orientation: int, faces: Sequence[BBox], width: int, height: int
) -> dict[int, int]:
    """Return the faces of regions, both by position, for the way to turn the regions that fits the faces best."""
    best, most, unsure = dict[int, int](), 0.0, False
    size = next((region.size for region in regions if region.size is not None), None)
    for way in _ways(orientation, size, width, height):
        boxes = [_in_pixels(turned(region.box, way), width, height) for region in regions]
        ranks = _ranks(boxes, faces)
        matched = _matched(ranks)
        fit = sum(ranks[pair] for pair in matched.items())
        if (len(matched), fit) > (len(best), most * (_CLEARLY if len(matched) == len(best) else 1)):
            best, most, unsure = matched, fit, False
        elif len(matched) == len(best) and way not in (orientation, 1):  # nothing says which way they were turned
            unsure = unsure or (matched != best and fit * _CLEARLY >= most)
    return {} if unsure else best


def _ways(orientation: int, size: tuple[float, float] | None, width: int, height: int) -> Iterator[int]:
    """Yield the orientations from the regions to the upright image, the likeliest first."""
    usual = dict.fromkeys((orientation, 1))  # of the stored image, of the upright one
    if size is None:
        yield from usual
        return
    ratio, upright = size[0] / size[1], width / height
    ratios = {way: 1 / upright if way in _SWAPPED else upright for way in usual}
    fitting = [way for way in usual if _is_alike(ratio, ratios[way])]
    if not fitting and _is_alike(ratio, 1 / upright):  # the pixels were turned since
        yield from _TURNS
    yield from fitting
    yield from (way for way in usual if way not in fitting)


def _is_alike(one: float, other: float) -> bool:
    return abs(one - other) <= _ALIKE * max(one, other)


def _in_pixels(box: BBox, width: int, height: int) -> BBox:
    return box[0] * width, box[1] * height, box[2] * width, box[3] * height


def _ranks(boxes: Sequence[BBox], faces: Sequence[BBox]) -> dict[tuple[int, int], float]:
    """Return how well boxes fit faces, by their positions; only of those that fit at all."""
    return {
        (number, at): rank
        for number, box in enumerate(boxes)
        for at, face in enumerate(faces)
        if (rank := _rank(box, face)) > 0
    }


def _matched(ranks: Mapping[tuple[int, int], float]) -> dict[int, int]:
    """Match boxes to faces one to one, the best pair first."""
    found: dict[int, int] = {}
    taken: set[int] = set()
    for number, at in sorted(ranks, key=lambda pair: (-ranks[pair], pair)):
        if number not in found and at not in taken:
            found[number] = at
            taken.add(at)
    return found


def _rank(box: BBox, face: BBox) -> float:
    """Return how well a region fits a face, 0 if it is not about it.

    Programs draw regions around the head or only around eyes and mouth, so the overlap alone says little; but the
    centre of each is within the other.
    """
    if area(box) <= 0:
        return _POINT if _contains(face, box) else 0.0
    shared = overlap(box, face)
    return shared if shared >= _OVERLAP or (_contains(face, box) and _contains(box, face)) else 0.0


def _contains(outer: BBox, inner: BBox) -> bool:
    """Return whether the centre of a box is within another one."""
    x, y = (inner[0] + inner[2]) / 2, (inner[1] + inner[3]) / 2
    return outer[0] <= x <= outer[2] and outer[1] <= y <= outer[3]
