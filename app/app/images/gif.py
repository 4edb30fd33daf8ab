"""GIF files: their frames, and the first one without the comments and data of programs beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

_HEADER_BYTES: Final = 13
_IMAGE: Final = 0x2C
_EXTENSION: Final = 0x21
_CONTROL: Final = b"\xf9"  # the extension with the transparent colour of the next frame
_END: Final = b";"
_MAX_PARTS: Final = 20_000  # a long animation has some hundred
_MAX_BLOCKS: Final = 2_500_000  # of 255 bytes: as many as the largest file has


def first_frame(data: bytes) -> bytes:
    """Return a GIF with only the first frame of a file.

    Decoders read the blocks before and behind a frame slowly: megabytes of comments take minutes.

    Args:
        data: the file's bytes.

    Returns:
        The new file; `data` if it has no frame.

    Raises:
        ValueError: it has more parts than an animation has.
    """
    control = b""
    for kind, start, end in _parts(data):
        if kind == _IMAGE:
            return data[: _tables_end(data)] + control + data[start:end] + _END
        if data[start + 1 : start + 2] == _CONTROL:
            control = data[start:end]
    return data


def frames(data: bytes) -> int:
    """Count the frames by the parts of a file; a damaged part ends the count.

    Args:
        data: the file's bytes.

    Raises:
        ValueError: it has more parts than an animation has.
    """
    return sum(kind == _IMAGE for kind, _, _ in _parts(data))


def is_cut_off(data: bytes) -> bool:
    """Return whether a file ends within a part, or where one begins.

    Args:
        data: the file's bytes.
    """
    last = _tables_end(data)
    with contextlib.suppress(ValueError):
        for _, _, end in _parts(data):
            last = end
    return last >= len(data)


def _parts(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield kind, start and end of each image and extension; another part ends the iteration."""
    position, blocks = _tables_end(data), 0
    for _ in range(_MAX_PARTS):
        start = position
        if data[start : start + 1] == bytes((_IMAGE,)):
            position += 11 + _table_bytes(data[start + 9 : start + 10])
        elif data[start : start + 1] == bytes((_EXTENSION,)):
            position += 2
        else:
            return
        while position < len(data) and data[position]:  # blocks of up to 255 bytes; an empty one ends them
            position += 1 + data[position]
            blocks += 1
            if blocks > _MAX_BLOCKS:
                raise ValueError(f"it has more than {_MAX_BLOCKS:,} blocks")
        position += 1
        yield data[start], start, position
    raise ValueError(f"it has more than {_MAX_PARTS:,} frames and extensions")


def _tables_end(data: bytes) -> int:
    return _HEADER_BYTES + _table_bytes(data[10:11])


def _table_bytes(flags: bytes) -> int:
    """Bytes of a colour table."""
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0
