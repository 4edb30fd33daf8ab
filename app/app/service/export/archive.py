"""ZIP archives of photographs, made while they are sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import Final

from zipstream import ZIP_STORED, ZipStream

from app.core.errors import OceanoError
from app.core.paths import readable
from app.core.types import FacePayload
from app.library import OpenedFile, Pictures
from app.service.query import ListedMatch, images_of

_MAX_NAME_BYTES: Final = 200
_MAX_SUFFIX: Final = 10
_LEFT_OUT: Final = "not-included.txt"
_FORBIDDEN: Final = '<>:"/\\|?*'


def zip_archive(
    matches: Iterable[ListedMatch], pictures: Pictures, *, draw: Callable[[FacePayload], bytes] | None = None
) -> Iterator[bytes]:
    """Yield a ZIP archive of the photographs of the matches, each once; blocks while it reads.

    Photographs are stored as they are, because they are compressed already. Those that cannot be read are named in
    `not-included.txt`.

    Args:
        matches: the matches.
        pictures: opens the originals.
        draw: returns a JPEG in place of an original; None: the originals.

    Raises:
        OceanoError: `ledger_unavailable`.
    """
    stream = ZipStream(compress_type=ZIP_STORED)
    names = _Names()
    left_out: list[str] = []
    for payload in images_of(matches):
        try:
            if draw is None:
                opened = pictures.open_original(payload.image_id, pictures.files(payload.image_id, payload.path))
                yield from _original(stream, opened, names.of(opened.path))
            else:
                stream.add(draw(payload), names.of(str(PurePosixPath(payload.path).with_suffix(".jpg"))))
                yield from stream.file()
        except OceanoError as failure:
            if failure.code == "ledger_unavailable":  # nothing can be read: no archive that lacks everything
                raise
            left_out.append(f"{readable(payload.path)}: {failure.message}")
    if left_out:
        stream.add("\n".join([*left_out, ""]).encode("utf-8", "replace"), names.of(_LEFT_OUT))
        yield from stream.file()
    yield from stream.finalize()


def zip_size(matches: Iterable[ListedMatch], pictures: Pictures) -> tuple[int, int]:
    """Return how many photographs an archive of the originals has, and how many bytes they need.

    Args:
        matches: the matches.
        pictures: knows the files.

    Raises:
        OceanoError: `ledger_unavailable`.
    """
    count = total = 0
    for payload in images_of(matches):
        shown = next((file for file in pictures.files(payload.image_id, payload.path) if file.may_show), None)
        if shown is not None:
            count, total = count + 1, total + shown.size
    return count, total


def _original(stream: ZipStream, opened: OpenedFile, name: str) -> Iterator[bytes]:
    try:
        stream.add_path(f"/proc/self/fd/{opened.handle}", name)  # what was opened, whatever the path is now
        yield from stream.file()
    finally:
        opened.close()


class _Names:
    """Names within an archive: safe on every system, and each only once."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._numbers: dict[str, int] = {}  # the last one of a name: cameras give thousands of files the same one

    def of(self, path: str) -> str:
        """Return a name for a file."""
        name = "".join(
            "_" if sign in _FORBIDDEN or not sign.isprintable() else sign for sign in readable(path.rpartition("/")[2])
        )
        stem, dot, suffix = name.strip(" .").rpartition(".")
        if not stem:
            stem, dot, suffix = suffix or "photograph", "", ""
        if len(suffix) > _MAX_SUFFIX:  # a name with a dot, not a suffix
            stem, dot, suffix = f"{stem}{dot}{suffix}", "", ""
        stem = stem.encode("utf-8", "replace")[:_MAX_NAME_BYTES].decode("utf-8", "ignore")
        unique = plain = f"{stem}{dot}{suffix}"
        number = self._numbers.get(plain.casefold(), 1)
        while unique.casefold() in self._used:
            number += 1
            unique = f"{stem} ({number}){dot}{suffix}"
        self._numbers[plain.casefold()] = number
        self._used.add(unique.casefold())
        return unique
