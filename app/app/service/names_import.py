"""Names faces as a CSV file from another system says."""

from __future__ import annotations

import csv
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.catalog import Ledger, NewChange
from app.core.errors import OceanoError
from app.core.iteration import chunks
from app.core.paths import readable
from app.core.protocols import FaceIndex
from app.core.types import BBox, FaceRecord
from app.images import FileNames, Layer, Region
from app.people import Given, MetadataNames, checked_name, faces_in, named_faces, place_of

_AT_ONCE: Final = 1000
_MAX_ROWS: Final = 5_000_000
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
# Names of columns, without case, spaces and underscores, by what they have.
_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "path": ("path", "file", "filename", "image", "originalpath", "sourcefile"),
    "sha256": ("sha256", "imageid", "digest"),
    "name": ("name", "person", "personname", "subject"),
    "x1": ("x1", "left", "x", "xmin", "boundingboxx1"),
    "y1": ("y1", "top", "y", "ymin", "boundingboxy1"),
    "x2": ("x2", "right", "xmax", "boundingboxx2"),
    "y2": ("y2", "bottom", "ymax", "boundingboxy2"),
    "width": ("width", "w"),
    "height": ("height", "h"),
    "image_width": ("imagewidth",),
    "image_height": ("imageheight",),
}


@dataclass(frozen=True, slots=True)
class ImportProblem:
    """A row of the file that named no face.

    Attributes:
        line: of the file, from 1.
        path: of the picture, as in the row.
        reason: `image_unknown`, `no_face`, `several_faces`, `region_without_face`, `invalid_row`, or as `NameReason`.
        message: one sentence.
    """

    line: int
    path: str
    reason: str
    message: str


@dataclass(slots=True)
class ImportedNames:
    """What an import did, or would do.

    Attributes:
        rows: number of rows of the file.
        found: rows that are about a face of the index.
        named: faces that got a name, or another one; on a dry run, those that would.
        people: people who were added, or would be.
        change: number of the change, for undoing; None if nothing changed.
        problems: rows that named no face.
    """

    rows: int = 0
    found: int = 0
    named: int = 0
    people: int = 0
    change: int | None = None
    problems: list[ImportProblem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Row:
    """A row: its line, the picture, the name, and the box with the size of the image that it is of."""

    line: int
    path: str
    sha256: str
    name: str
    box: BBox | None
    size: tuple[float, float] | None


class NamesImport:
    """Names faces as a CSV file says, in one change that can be undone.

    Args:
        ledger: of the catalog and the index's collection.
        index: the faces.
        root: relative paths are relative to this folder.
        who: asks for it.
    """

    def __init__(self, ledger: Ledger, index: FaceIndex, root: str, who: str) -> None:
        self._ledger = ledger
        self._index = index
        self._root = root
        self._who = who
        self._lines: dict[str, int] = {}  # the first one of each picture
        self.done = ImportedNames()

    def run(self, file: Path, *, dry_run: bool) -> ImportedNames:
        """Read a CSV file and name the faces.

        Args:
            file: UTF-8, with a line of column names; separated by commas, semicolons or tabs.
            dry_run: change nothing.

        Raises:
            OceanoError: `not_found` or `invalid_request` for the file, and as `MetadataNames.give` does.
        """
        given: list[Given] = []
        for rows in chunks(_rows(file, self.done), _AT_ONCE):
            for image_id, some in self._by_image(rows).items():
                given += self._given(image_id, some)
        self.done.found = len(given)
        if given:
            names = MetadataNames(self._ledger.database, self._index, self._ledger.collection, self._who)
            result = names.give(given, NewChange(self._who, "import", {"file": file.name}), dry_run=dry_run)
            self.done.named, self.done.people = result.applied.named, result.applied.people
            self.done.change = None if result.change is None else result.change.number
            for one in result.applied.problems:
                self._problem(self._lines[one.path], one.path, one.reason, one.message)
        return self.done

    def _by_image(self, rows: Sequence[_Row]) -> dict[str, list[_Row]]:
        """Return rows by image; those of pictures that were not ingested are problems."""
        paths = {row.line: os.path.abspath(os.path.join(self._root, row.path)) for row in rows if row.path}  # noqa: PTH100, PTH118
        records = self._ledger.files_at([*dict.fromkeys(paths.values())])
        found: dict[str, list[_Row]] = defaultdict(list)
        for row in rows:
            record = records.get(paths.get(row.line, ""))
            image_id = row.sha256 or (record.image_id if record is not None else None)
            if image_id is None:
                path = readable(paths.get(row.line, row.path))
                message = f"no ingested picture is at {path}; relative paths start at the folder of --root"
                self._problem(row.line, row.path, "image_unknown", message)
            else:
                found[image_id].append(row)
        return found

    def _given(self, image_id: str, rows: Sequence[_Row]) -> Iterator[Given]:
        faces = [one for one in faces_in(self._index, [image_id]).get(image_id, ()) if one.payload.page == 0]
        if not faces:
            for row in rows:
                self._problem(row.line, row.path, "no_face", "the index has no face of this picture")
            return
        matched = _matched([row for row in rows if row.box is not None], faces)
        for row in rows:
            face = matched.get(row)
            if face is None and row.box is None and len(faces) == 1:
                face = faces[0]
            if face is not None:
                path = row.path or row.sha256
                self._lines.setdefault(path, row.line)
                yield Given(path, place_of(face.payload), row.name)
            elif row.box is None:
                message = f"the picture has {len(faces)} faces, and the row has no box"
                self._problem(row.line, row.path, "several_faces", message)
            else:
                message = f"no face was found in the box of {row.name}"
                self._problem(row.line, row.path, "region_without_face", message)

    def _problem(self, line: int, path: str, reason: str, message: str) -> None:
        self.done.problems.append(ImportProblem(line, path, reason, message))


def _matched(rows: Sequence[_Row], faces: Sequence[FaceRecord]) -> dict[_Row, FaceRecord]:
    """Return the faces that rows are about, each once."""
    width, height = faces[0].payload.width, faces[0].payload.height
    regions = []
    for row in rows:
        assert row.box is not None  # noqa: S101 - these have one
        is_fraction = row.size is None and max(row.box) <= 1
        across, down = (1.0, 1.0) if is_fraction else row.size or (width, height)
        x1, y1, x2, y2 = row.box
        # The line in place of the name, so that two rows of one name stay two.
        regions.append(Region(str(row.line), (x1 / across, y1 / down, x2 / across, y2 / down)))
    found = FileNames((Layer("the file", tuple(regions)),))
    names = named_faces(found, [face.payload.bbox for face in faces], width, height).names
    by_line = {str(row.line): row for row in rows}
    return {by_line[line]: faces[at] for at, line in names.items()}


def _rows(file: Path, done: ImportedNames) -> Iterator[_Row]:
    """Yield the rows of a file; those without a name or a picture are problems."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            head = opened.read(10_000)
            opened.seek(0)
            reader = csv.reader(opened, _dialect(head))
            columns = _columns(next(reader, []), file)
            for line, cells in enumerate(reader, 2):
                if not any(cells):
                    continue
                done.rows += 1
                if done.rows > _MAX_ROWS:
                    raise OceanoError("invalid_request", f"{file} has more than {_MAX_ROWS:,} rows; split it")
                values = {key: cells[at].strip() if at < len(cells) else "" for key, at in columns.items()}
                try:
                    yield _row(line, values)
                except (ValueError, OceanoError) as failure:
                    done.problems.append(ImportProblem(line, values.get("path", ""), "invalid_row", str(failure)))
    except FileNotFoundError as failure:
        raise OceanoError("not_found", f"{file} does not exist", details={"file": str(file)}) from failure
    except (OSError, csv.Error, UnicodeDecodeError) as failure:
        raise OceanoError("invalid_request", f"{file} cannot be read as CSV in UTF-8: {failure}") from failure


def _dialect(head: str) -> type[csv.Dialect]:
    first = head.partition("\n")[0]

    class _Found(csv.excel):
        delimiter = max(",;\t", key=first.count)

    return _Found


def _columns(header: Sequence[str], file: Path) -> dict[str, int]:
    plain = [re.sub(r"[\s_]", "", cell).lower() for cell in header]
    found = {
        key: next(plain.index(name) for name in names if name in plain)
        for key, names in _COLUMNS.items()
        if any(name in plain for name in names)
    }
    if "name" not in found or not {"path", "sha256"} & found.keys():
        raise OceanoError(
            "invalid_request",
            f"{file}: the first line must name the columns; it needs `name`, and `path` or `sha256`",
            details={"columns": [*header[:50]]},
        )
    return found


def _row(line: int, values: Mapping[str, str]) -> _Row:
    name, sha256, path = checked_name(values["name"]), values.get("sha256", "").lower(), values.get("path", "")
    if not name:
        raise ValueError("it has no name")
    if sha256 and not _SHA256.fullmatch(sha256):
        raise ValueError("its sha256 is not one")
    if not (path or sha256):
        raise ValueError("it has no path and no sha256")
    return _Row(line, path, sha256, name, _box(values), _size(values))


def _box(values: Mapping[str, str]) -> BBox | None:
    if not values.get("x1"):
        return None
    x1, y1 = float(values["x1"]), float(values.get("y1", ""))
    if values.get("x2"):
        x2, y2 = float(values["x2"]), float(values.get("y2", ""))
    else:
        x2, y2 = x1 + float(values.get("width", "")), y1 + float(values.get("height", ""))
    if not (x1 < x2 < float("inf") and y1 < y2 < float("inf")):
        raise ValueError("its box has no area")
    return x1, y1, x2, y2


def _size(values: Mapping[str, str]) -> tuple[float, float] | None:
    if not (values.get("image_width") and values.get("image_height")):
        return None
    width, height = float(values["image_width"]), float(values["image_height"])
    if not (0 < width < float("inf") and 0 < height < float("inf")):
        raise ValueError("its image has no size")
    return width, height
