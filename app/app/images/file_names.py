"""The people that a picture file and its sidecars name.

A sidecar is an XMP file beside the picture: `photo.jpg.xmp` (digiKam, darktable, Immich) or `photo.xmp` (Adobe).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from app.images.decoding import orientation_of
from app.images.regions import PacketNames, Region, names_in
from app.images.xmp import MAX_PACKET_BYTES, xmp_packets

SIDECAR: Final = ".xmp"
_SPELLINGS: Final = (SIDECAR, ".XMP")
_OTHER_FILE: Final = b"photoshop:SidecarForExtension"
_IN_THE_FILE: Final = "the file"


@dataclass(frozen=True, slots=True)
class Layer:
    """Regions that one program wrote to one place, so that all apply to the same version of the image.

    Attributes:
        source: where: name of the sidecar, or "the file".
        regions: the regions.
    """

    source: str
    regions: tuple[Region, ...]


@dataclass(frozen=True, slots=True)
class FileNames:
    """The people that a picture file and its sidecars name.

    Attributes:
        layers: their regions; what an earlier one says of a face counts.
        shown: the names without a place of the first source that has some.
        orientation: that of Exif, 1 to 8: how the image as stored in the file becomes upright.
    """

    layers: tuple[Layer, ...] = ()
    shown: tuple[str, ...] = ()
    orientation: int = 1

    def __bool__(self) -> bool:
        return bool(self.layers or self.shown)


def names_of_file(path: str, data: bytes) -> FileNames:
    """Return the people that a picture names: first those of its sidecars, the newest one first, then the file's own.

    Sidecars come first because programs write them where they must not change the picture. What only the file says is
    kept: a sidecar need not have everything that the file has.

    Args:
        path: absolute path of the file.
        data: its bytes.
    """
    layers: list[Layer] = []
    shown: tuple[str, ...] = ()
    for source, found in _sources(path, data):
        layers += [Layer(source, regions) for regions in found.layers]
        shown = shown or found.shown
    return FileNames(tuple(layers), shown, orientation_of(data) if layers else 1)


def sidecars(path: str) -> list[tuple[str, os.stat_result]]:
    """Return paths and states of the sidecars of a picture, the newest first.

    Args:
        path: absolute path of the picture; the sidecars need not be readable.
    """
    stem = os.path.splitext(path)[0]  # noqa: PTH122 - for millions of files
    found: dict[tuple[int, int], tuple[str, os.stat_result]] = {}
    for candidate in (base + suffix for base in (path, stem) for suffix in _SPELLINGS):
        try:
            status = os.stat(candidate)  # noqa: PTH116
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            found.setdefault((status.st_dev, status.st_ino), (candidate, status))  # one, where case does not matter
    return sorted(found.values(), key=lambda one: -one[1].st_mtime_ns)


def _sources(path: str, data: bytes) -> Iterator[tuple[str, PacketNames]]:
    for sidecar, status in sidecars(path):
        if 0 < status.st_size <= MAX_PACKET_BYTES and (packet := _read(sidecar)) and not _is_of_other(packet, path):
            yield os.path.basename(sidecar), names_in(packet)  # noqa: PTH119
    for packet in xmp_packets(data):
        yield _IN_THE_FILE, names_in(packet)


def _read(path: str) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # it may have become a pipe
    except OSError:
        return b""
    try:
        with os.fdopen(handle, "rb") as file:
            return file.read(MAX_PACKET_BYTES)
    except OSError:
        return b""


def _is_of_other(packet: bytes, path: str) -> bool:
    """Return whether a sidecar says that it belongs to another picture of the same name, such as photo.png.

    Of a raw file beside its JPEG, the sidecar is that of both.
    """
    at = packet.find(_OTHER_FILE)
    if at < 0:
        return False
    rest = packet[at + len(_OTHER_FILE) : at + len(_OTHER_FILE) + 20].lstrip(b" =\"'>\t\r\n")
    extension = rest.split(b'"')[0].split(b"'")[0].split(b"<")[0].strip().lower()
    own = os.path.splitext(path)[1][1:].lower().encode("utf-8", "surrogateescape")  # noqa: PTH122
    return extension in _RENDERED and extension != own and {extension, own} not in _SAME


_RENDERED: Final = frozenset({b"jpg", b"jpeg", b"png", b"tif", b"tiff", b"webp", b"heic", b"heif", b"avif", b"psd"})
_SAME: Final = ({b"jpg", b"jpeg"}, {b"tif", b"tiff"}, {b"heic", b"heif"})
