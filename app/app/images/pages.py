"""Further pages of an image file: photographs after the first one, in a TIFF or an MPO file (a JPEG with others).

The pages of a HEIF file are read by its decoder. Frames of an animation are not pages, nor are reduced copies, masks,
depth maps and gain maps.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, TypeVar

from app.core.errors import OceanoError
from app.images.formats import SNIFF_BYTES, sniff
from app.images.jpeg import JpegHeader, read_header
from app.images.tiff import at_directory, directories, further_pages

T = TypeVar("T")

# CIPA DC-007, Multi-Picture Format
_MP_ENTRIES: Final = 0xB002
_MP_ENTRY_BYTES: Final = 16
_MP_PHOTOGRAPHS: Final = 0x02  # highest byte of an image's type: panorama, disparity or multiple angles
_MAX_MP_IMAGES: Final = 1000


def with_first_page(data: bytes, page: int) -> tuple[bytes, int]:
    """Return a file that begins with a page of another file.

    Args:
        data: the file's bytes.
        page: number of the page, from 0.

    Returns:
        The new file, and the number of the page in it: 0, except for formats whose decoder selects the page.

    Raises:
        OceanoError: `invalid_request` if there is no such page.
    """
    if page == 0:
        return data, 0
    match sniff(data[:SNIFF_BYTES]):
        case "TIFF":
            return at_directory(data, page_of(further_pages(directories(data)), page).offset), 0
        case "JPEG":
            start, length = page_of(mp_pages(data, read_header(data)), page)
            return data[start : start + length], 0
        case "HEIF":
            return data, page
        case _:
            raise _missing(1)


def page_of(further: Sequence[T], page: int) -> T:
    """Return a further page by its number, from 1.

    Raises:
        OceanoError: `invalid_request` if there is no such page.
    """
    if not 1 <= page <= len(further):
        raise _missing(1 + len(further))
    return further[page - 1]


def _missing(pages: int) -> OceanoError:
    counted = "1 page" if pages == 1 else f"{pages} pages"
    return OceanoError("invalid_request", f"the image has {counted}; the first is page 0", details={"pages": pages})


def mp_pages(data: bytes, header: JpegHeader) -> list[tuple[int, int]]:
    """Return offsets and lengths of the further photographs of an MPO file; an empty list for any other JPEG.

    Args:
        data: the file's bytes.
        header: its header.
    """
    start = header.multi_picture
    if not start:
        return []
    order = "<" if data[start : start + 2] == b"II" else ">"
    try:
        (directory,) = struct.unpack_from(order + "I", data, start + 4)
        (entries,) = struct.unpack_from(order + "H", data, start + directory)
        for number in range(min(entries, 16)):
            at = start + directory + 2 + 12 * number
            tag, _, count, offset = struct.unpack_from(order + "HHII", data, at)
            if tag == _MP_ENTRIES:
                images = min(count // _MP_ENTRY_BYTES, _MAX_MP_IMAGES)
                return _photographs(data, start, offset, images, order)
    except struct.error:
        pass
    return []


def _photographs(data: bytes, start: int, offset: int, images: int, order: str) -> list[tuple[int, int]]:
    found = []
    for number in range(1, images):  # the first one is the file's own image
        attribute, size, place = struct.unpack_from(order + "III", data, start + offset + _MP_ENTRY_BYTES * number)
        if attribute >> 16 & 0xFF == _MP_PHOTOGRAPHS and data.startswith(b"\xff\xd8\xff", start + place):
            found.append((start + place, size))
    return found
