"""What an ingest did, in files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.catalog import FileRecord
from app.library.batches import Batch
from app.library.reader import has_unread_pages


@dataclass(slots=True)
class IngestCounts:
    """What one run did, in files.

    Attributes:
        files: files looked at.
        done: images with faces.
        no_face: images without a face.
        failed: files that failed.
        duplicate: copies of an image.
        moved: files that replace a deleted file of the same image, such as renamed ones.
        skipped: files unchanged since an earlier run.
        failed_before: skipped files that failed then.
        ignored: files that are not pictures, neither by content nor by name.
        system_files: files left out because a system made them or has not finished them.
        system_folders: folders left out because a system made them, such as thumbnails and recycle bins.
        linked_folders: links to folders, which are not followed.
        raw_pairs: raw files left out because a JPEG or HEIC of the same name is beside them.
        faces: faces of the `done` images.
        first_page_only: images with further pages, which were not read.
        pages: pages that were read after the first ones of their files.
        failed_pages: further pages that failed.
        missing: known files of the folder that are missing and have no copy; only a prune removes them.
        named: faces that got a name from the metadata of their picture.
        unmatched_names: names in the metadata that no face got.
    """

    files: int = 0
    done: int = 0
    no_face: int = 0
    failed: int = 0
    duplicate: int = 0
    moved: int = 0
    skipped: int = 0
    failed_before: int = 0
    ignored: int = 0
    system_files: int = 0
    system_folders: int = 0
    linked_folders: int = 0
    raw_pairs: int = 0
    faces: int = 0
    first_page_only: int = 0
    pages: int = 0
    failed_pages: int = 0
    missing: int = 0
    named: int = 0
    unmatched_names: int = 0

    def add(self, change: Mapping[str, int]) -> None:
        """Add numbers by name."""
        for name, number in change.items():
            setattr(self, name, getattr(self, name) + number)

    @property
    def images(self) -> int:
        """Images processed in this run."""
        return self.done + self.no_face + self.failed + self.duplicate + self.moved

    @property
    def finished(self) -> int:
        """Files that this run is done with."""
        return self.images + self.skipped + self.ignored


def counts_of(batch: Batch, records: Sequence[FileRecord]) -> Counter[str]:
    """Return the counts of a batch, by the names of `IngestCounts`.

    Args:
        batch: the batch.
        records: the results of its files that are not unchanged.
    """
    counts = Counter[str](record.status for record in records)
    counts["skipped"] = len(batch.unchanged)
    counts["pages"] = batch.pages
    counts["failed_pages"] = batch.failed_pages
    counts["faces"] = sum(record.faces for record in records)
    counts["first_page_only"] = sum(map(has_unread_pages, records))
    return counts
