"""The names that an ingest reads and gives."""

from __future__ import annotations

from collections.abc import Iterator

from app.catalog import FileRecord, Ledger
from app.core.protocols import FaceIndex
from app.people import MetadataNames


def records_in(ledger: Ledger, path: str) -> Iterator[FileRecord]:
    """Yield the records of ingested images: of a file, or of those in a folder and below it.

    Args:
        ledger: of the index's collection.
        path: absolute.
    """
    one = ledger.file(path)
    for record in ledger.files(path) if one is None else [one]:
        if record.status in ("done", "duplicate"):
            yield record


def people_names(ledger: Ledger, index: FaceIndex, who: str) -> MetadataNames:
    """Return the people of a catalog for an ingest.

    Args:
        ledger: of the catalog and the index's collection.
        index: the faces.
        who: started the ingest.
    """
    return MetadataNames(ledger.database, index, ledger.collection, who)
