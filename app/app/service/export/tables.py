"""Results as CSV, JSON and lists of paths, made row by row."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

from app.catalog import Person
from app.core.paths import readable
from app.core.types import FacePayload
from app.library import Pictures
from app.service.query import ListedMatch, images_of
from app.service.sureness import Bands

_COLUMNS: Final = (
    "path", "folder", "taken_at", "similarity", "sureness", "person", "face_id", "image_id",
    "x1", "y1", "x2", "y2", "width", "height", "page", "group_size", "person_id",
)  # fmt: skip
_BOM: Final = b"\xef\xbb\xbf"  # without it, Excel reads UTF-8 as Latin-1
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")
_ESCAPED: Final = re.compile(rb"[\x00-\x1f\x7f\"\\]")
_ESCAPES: Final = {b"\n": rb"\n", b"\r": rb"\r", b"\t": rb"\t", b'"': rb"\"", b"\\": rb"\\"}
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins so is run by spreadsheets


PeopleById = Callable[[Sequence[str]], Mapping[str, Person]]
"""Looks up people by their ids; unknown ones are left out."""


def csv_rows(matches: Iterable[ListedMatch], bands: Bands, people: PeopleById) -> Iterator[bytes]:
    """Yield a CSV file (RFC 4180, UTF-8 with a byte order mark), a line for each match."""
    names = _Names(people)
    yield _BOM + _line(_COLUMNS)
    for listed in matches:
        row = _row(listed, bands, names)
        yield _line([_harmless(row[name]) for name in _COLUMNS])


def json_rows(matches: Iterable[ListedMatch], bands: Bands, people: PeopleById) -> Iterator[bytes]:
    """Yield a JSON array with an object for each match; its keys are the columns of the CSV file."""
    names = _Names(people)
    separator = b"["
    for listed in matches:
        yield separator + b"\n" + json.dumps(_row(listed, bands, names), ensure_ascii=False).encode("utf-8")
        separator = b","
    yield b"\n]\n" if separator == b"," else b"[]\n"


def path_lines(matches: Iterable[ListedMatch], pictures: Pictures, *, end: bytes = b"\n") -> Iterator[bytes]:
    """Yield the path of each image once, as the bytes of the file system.

    Args:
        matches: the matches.
        pictures: knows the bytes of paths that are not UTF-8, which the index has with escapes.
        end: of a line. After a line break, a path with control characters is quoted as Git does; with b"\\0", none is.
    """
    for payload in images_of(matches):
        path = os.fsencode(_real(payload, pictures))
        yield (path if end == b"\0" else _quoted(path)) + end


def _quoted(path: bytes) -> bytes:
    """Return a path on one line: one with control characters in double quotes, with the escapes of C.

    The others are as they are. Absolute paths begin with a slash, so that a line tells which kind it is.
    """
    if not _CONTROL.search(path):
        return path
    return b'"' + _ESCAPED.sub(lambda sign: _ESCAPES.get(sign[0]) or b"\\%03o" % sign[0][0], path) + b'"'


def _real(payload: FacePayload, pictures: Pictures) -> str:
    """Return the path of an image's file; only one with a backslash may differ from that in the index."""
    if "\\x" not in payload.path:
        return payload.path
    files = pictures.files(payload.image_id)
    return next((file.path for file in files if readable(file.path) == payload.path), payload.path)


class _Names:
    """The people of an export, each looked up once: the first row is sent before the last one is known."""

    def __init__(self, people: PeopleById) -> None:
        self._people = people
        self._known: dict[str, Person | None] = {}

    def of(self, person_id: str | None) -> Person | None:
        """Return a person; None if a face has no name, or the person was deleted meanwhile."""
        if person_id is None:
            return None
        if person_id not in self._known:
            self._known[person_id] = self._people([person_id]).get(person_id)
        return self._known[person_id]


def _row(listed: ListedMatch, bands: Bands, names: _Names) -> dict[str, str | int | float | None]:
    match, stored = listed.match, listed.match.payload
    person = names.of(stored.person)
    x1, y1, x2, y2 = (round(value, 1) for value in stored.bbox)
    path = readable(stored.path)
    return {
        "path": path,
        "folder": str(PurePosixPath(path).parent),
        "taken_at": stored.taken_at,
        "similarity": round(match.similarity, 6),
        "sureness": bands.of(match.similarity),
        "person": None if person is None or person.hidden else person.name,
        "face_id": match.face_id,
        "image_id": stored.image_id,
        "x1": x1,
        "y1": y1,
        "x2": x2,
        "y2": y2,
        "width": stored.width,
        "height": stored.height,
        "page": stored.page,
        "group_size": listed.group_size,
        "person_id": None if person is None else person.id,
    }


def _harmless(value: str | float | None) -> str:
    """Return the text of a cell; one that spreadsheets would run begins with an apostrophe."""
    text = "" if value is None else str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


def _line(cells: Iterable[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue().encode("utf-8", "replace")
