"""A picture with the names in its metadata, and what an ingest did with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.core.types import BBox
from app.images.file_names import FileNames

NameReason = Literal[
    "region_without_face",  # no face was found there
    "names_differ",  # file and sidecar give one face different names
    "named_by_hand",  # with another name
    "name_twice",  # another face of the image is this person already
    "name_rejected",  # somebody said that the face is not this person, or that it is of no interest
    "folder_unsure",  # several faces, so that the folder's name may be of any
]


@dataclass(frozen=True, slots=True)
class PictureNames:
    """A picture with names.

    Attributes:
        path: of the file.
        image_id: the image.
        width: of the upright image in pixels.
        height: of the upright image in pixels.
        faces: bounding boxes of the faces of its first page.
        found: what the file and its sidecars say.
        folder: name of a folder that has photographs of one person; empty if it says nothing.
    """

    path: str
    image_id: str
    width: int
    height: int
    faces: tuple[BBox, ...]
    found: FileNames
    folder: str = ""


@dataclass(frozen=True, slots=True)
class EditedImage:
    """A new image of a file that differs from the one before in what is not seen.

    Attributes:
        before: the earlier image.
        after: the new image.
        faces: page and bounding box of the faces that both have at the same place.
        is_gone: no file has the earlier image any more.
    """

    before: str
    after: str
    faces: tuple[tuple[int, BBox], ...]
    is_gone: bool


@dataclass(frozen=True, slots=True)
class NameProblem:
    """A name in a picture's metadata that no face got.

    Attributes:
        path: of the file.
        reason: why.
        message: one sentence.
    """

    path: str
    reason: NameReason
    message: str


@dataclass(frozen=True, slots=True)
class NamesApplied:
    """What was done with the names of some pictures.

    Attributes:
        named: number of faces that got a name, or another one.
        people: number of people who were added.
        problems: names that no face got.
    """

    named: int = 0
    people: int = 0
    problems: tuple[NameProblem, ...] = ()
