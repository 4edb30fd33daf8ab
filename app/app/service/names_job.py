"""Reads the names in pictures that were ingested before: after an upgrade, or when their files were changed since."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event
from typing import Final

from app.catalog import Ledger
from app.core.iteration import chunks
from app.core.protocols import FaceIndex
from app.images import NameProblem
from app.library import KnownNames, NameReader
from app.people import MetadataNames
from app.service.names import records_in

_AT_ONCE: Final = 200  # pictures of one change


@dataclass(slots=True)
class ReadNames:
    """What was read.

    Attributes:
        pictures: number of pictures with faces that were looked at.
        with_names: number of those that name somebody.
        named: faces that got a name, or another one.
        people: people who were added.
        problems: names that no face got.
    """

    pictures: int = 0
    with_names: int = 0
    named: int = 0
    people: int = 0
    problems: list[NameProblem] = field(default_factory=list)


def read_names(
    ledger: Ledger, index: FaceIndex, digest: str, folder: str, who: str, stop: Event, *, from_folders: bool = False
) -> ReadNames:
    """Name the faces of all ingested pictures in a folder as their metadata says.

    Args:
        ledger: of the catalog and the index's collection.
        index: the faces.
        digest: of the model pack.
        folder: absolute path of a folder or a file.
        who: asks for it.
        stop: once set, it ends after the current pictures.
        from_folders: also take the names of the pictures' folders.

    Raises:
        OceanoError: `index_unavailable`, `ledger_unavailable`, `disk_full`.
    """
    known = KnownNames(NameReader(metadata=True, from_folders=from_folders), index, digest)
    names = MetadataNames(ledger.database, index, ledger.collection, who)
    done = ReadNames()
    for some in chunks(records_in(ledger, folder), _AT_ONCE):
        if stop.is_set():
            break
        copies = [str(record.image_id) for record in some if record.status == "duplicate"]
        pictures = [*known.read(some, ledger.originals(copies).values())]
        applied = names.apply(pictures, [])
        done.pictures += len(some)
        done.with_names += len(pictures)
        done.named += applied.named
        done.people += applied.people
        done.problems += applied.problems
    return done
