"""Records of the catalog: the result of a file, numbers of results, drives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["done", "no_face", "failed", "duplicate"]


@dataclass(frozen=True, slots=True)
class FileRecord:
    """The result of one file.

    Attributes:
        path: absolute (os.fsdecode).
        size: in bytes.
        mtime_ns: time of the last change in nanoseconds.
        image_id: SHA-256 of the contents; None if they could not be read.
        status: the result.
        faces: number of the image's faces in the index.
        reason: an error code, or a temporary reason such as "unreadable"; None if all went well.
        message: one sentence about the reason.
        ctime_ns: time of the last change of content, name or permissions in nanoseconds; None if unknown.
    """

    path: str
    size: int
    mtime_ns: int
    image_id: str | None
    status: Status
    faces: int = 0
    reason: str | None = None
    message: str | None = None
    ctime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """Numbers of files by result, and of the faces of all images."""

    done: int = 0
    no_face: int = 0
    failed: int = 0
    duplicate: int = 0
    faces: int = 0


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder whose files are on the drive mounted at `point`; the two paths differ if the folder is behind a link."""

    folder: str
    point: str
