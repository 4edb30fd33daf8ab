"""Writes the names of faces into sidecars beside the pictures, into a mirror folder, or into JPEG files."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Final

from app.catalog import FileRecord, Ledger, PeopleStore
from app.core.errors import OceanoError, is_full
from app.core.files import for_user, write_atomic
from app.core.iteration import chunks
from app.core.paths import readable
from app.core.protocols import FaceIndex
from app.core.types import BBox
from app.images import SIDECAR, Region, image_id_of, orientation_of, packet_of, with_packet, with_regions
from app.library import contents, file_at
from app.people import faces_in, regions_of
from app.service.names import records_in

_AT_ONCE: Final = 500
_JPEG: Final = b"\xff\xd8\xff"


@dataclass(slots=True)
class ExportedNames:
    """What was written.

    Attributes:
        written: number of files that were written.
        unchanged: pictures whose names were written already.
        in_place: pictures that were changed themselves.
        failures: a line for each picture whose names could not be written.
    """

    written: int = 0
    unchanged: int = 0
    in_place: int = 0
    failures: list[str] = field(default_factory=list)


class NamesExport:
    """Writes names of faces as regions of the Metadata Working Group.

    Args:
        ledger: of the catalog and the index's collection.
        index: the faces.
        path: absolute, of a folder, whose pictures and those below it count, or of a picture.
        into: absolute path of a folder that gets the sidecars, in the same subfolders; None: they are beside the
            pictures.
        in_place: change JPEG files themselves.
        hidden: write the names of hidden people, too.
    """

    def __init__(
        self,
        ledger: Ledger,
        index: FaceIndex,
        path: str,
        *,
        into: str | None = None,
        in_place: bool = False,
        hidden: bool = False,
    ) -> None:
        self._ledger = ledger
        self._index = index
        self._store = PeopleStore(ledger.database)
        self._path = path
        self._folder = path if os.path.isdir(path) else os.path.dirname(path)  # noqa: PTH112, PTH120
        self._into = into
        self._in_place = in_place
        self._hidden = hidden
        self.done = ExportedNames()

    def run(self, stop: Event) -> ExportedNames:
        """Write the names of all pictures that have some.

        Args:
            stop: once set, it ends after the current picture.

        Raises:
            OceanoError: `index_unavailable`, `ledger_unavailable`, `disk_full`.
        """
        for records in chunks(records_in(self._ledger, self._path), _AT_ONCE):
            for record, names, size in self._with_names(records):
                if stop.is_set():
                    return self.done
                try:
                    self._write(record, names, size)
                except (OSError, OceanoError, ValueError) as failure:
                    if isinstance(failure, OSError) and is_full(failure):
                        raise OceanoError("disk_full", f"{record.path}: {failure.strerror}") from failure
                    reason = failure.strerror if isinstance(failure, OSError) else failure
                    self.done.failures.append(f"{readable(record.path)}: {reason}")
        return self.done

    def _with_names(self, records: Sequence[FileRecord]) -> list[tuple[FileRecord, dict[BBox, str], tuple[int, int]]]:
        """Return the files with named faces on their first page: names by box, and size of the upright image."""
        assigned = self._store.assignments_in([str(one.image_id) for one in records])
        known = self._store.persons([one.person_id for some in assigned.values() for one in some])
        people = {one.id: one for one in known.values() if self._hidden or not one.hidden}
        sizes = {
            image_id: (face.payload.width, face.payload.height)
            for image_id, faces in faces_in(self._index, [*assigned]).items()
            for face in faces
            if face.payload.page == 0
        }
        found = []
        for record in records:
            image_id = str(record.image_id)
            names = {
                one.place.bbox: people[one.person_id].name
                for one in assigned.get(image_id, ())
                if one.place.page == 0 and one.person_id in people and people[one.person_id].name
            }
            if names and image_id in sizes:
                found.append((record, names, sizes[image_id]))
        return found

    def _write(self, record: FileRecord, names: dict[BBox, str], size: tuple[int, int]) -> None:
        file = file_at(record.path)
        data = None if file is None else contents(file)
        if data is None or image_id_of(data) != record.image_id:
            raise ValueError("the file is missing or has changed; ingest it first")
        orientation = orientation_of(data)
        regions = regions_of(names, orientation, *size)
        stored = (size[1], size[0]) if orientation > 4 else size
        sidecar = self._sidecar(record.path)
        changed = False
        in_place = self._in_place and data.startswith(_JPEG)
        if in_place:
            old = packet_of(data)
            if (new := with_regions(old, regions, stored)) != old:
                self._replace(record.path, data, with_packet(data, new))
                changed = True
        if not in_place or os.path.exists(sidecar):  # noqa: PTH110 - it would count before the file
            changed |= self._write_sidecar(sidecar, regions, stored)
        self.done.unchanged += not changed

    def _sidecar(self, path: str) -> str:
        if self._into is None:
            return path + SIDECAR
        return os.path.join(self._into, os.path.relpath(path, self._folder)) + SIDECAR  # noqa: PTH118

    def _write_sidecar(self, path: str, regions: Sequence[Region], size: tuple[int, int]) -> bool:
        old = _content_of(path)
        try:
            new = with_regions(old, regions, size)
        except ValueError as failure:
            raise ValueError(f"its sidecar was left as it is: {failure}") from failure
        if new == old:
            return False
        if self._into is not None:
            os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        is_new = not old
        write_atomic(os.path.realpath(path), new)
        if is_new:
            for_user(Path(path))
        self.done.written += 1
        return True

    def _replace(self, path: str, old: bytes, new: bytes) -> None:
        """Replace a picture by one with the same pixels, permissions and time of change."""
        real = os.path.realpath(path)
        before = os.stat(real)  # noqa: PTH116
        if before.st_size != len(old):
            raise ValueError("the file has changed; ingest it first")
        write_atomic(real, new, mode=before.st_mode & 0o777)
        os.chmod(real, before.st_mode & 0o7777)  # noqa: PTH101 - whatever the umask
        os.utime(real, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.done.written += 1
        self.done.in_place += 1


def _content_of(sidecar: str) -> bytes:
    """Return what a sidecar says so far; empty if there is none. ValueError if it cannot be a sidecar."""
    try:
        status = os.stat(sidecar)  # noqa: PTH116
    except FileNotFoundError:
        if os.path.islink(sidecar):  # noqa: PTH114
            raise ValueError("its sidecar is a link to a file that is not there") from None
        return b""
    if not stat.S_ISREG(status.st_mode):  # a pipe would be read forever
        raise ValueError("its sidecar is not a file")
    return Path(sidecar).read_bytes()
