"""The names of faces, as one ingest run reads and gives them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from app.catalog import FileRecord, Ledger
from app.core.iteration import chunks
from app.core.protocols import FaceIndex
from app.core.types import FacePoint, File
from app.images import NameProblem, NamesApplied, PictureNames
from app.library.edited import edited_images
from app.library.names import KnownNames, NameReader, PeopleNames
from app.library.sidecars import ChangedSidecars

KEPT_PROBLEMS: Final = 100_000  # for the report
_READ_AT_ONCE: Final = 16  # pictures with a newer sidecar


class IngestedNames:
    """Names the faces of a run: by what the catalog knows, by metadata, and by names of folders.

    Its methods raise OceanoError: `ledger_unavailable`, `disk_full`, `index_unavailable`. What they did before stays,
    and doing it again changes nothing.

    Args:
        people: the people of the catalog; None: no face gets a name.
        index: has the faces.
        ledger: has the images.
        digest: of the model pack.
        metadata: read names in the metadata of pictures and their sidecars.
        from_folders: take the name of a picture's folder for that of the person in it.
        retry: calls a function again while the index is unavailable.

    Attributes:
        reader: reads the names of a picture; None if none are read.
        problems: the first `KEPT_PROBLEMS` names in metadata that no face got.
    """

    def __init__(
        self,
        people: PeopleNames | None,
        index: FaceIndex,
        ledger: Ledger,
        digest: str,
        *,
        metadata: bool,
        from_folders: bool,
        retry: Callable[[Callable[[], Any]], Any],
    ) -> None:
        self._people = people
        self._index = index
        self._ledger = ledger
        self._digest = digest
        self._retry = retry
        is_reading = people is not None and (metadata or from_folders)
        self.reader = NameReader(metadata=metadata, from_folders=from_folders) if is_reading else None
        self._known = KnownNames(self.reader, index, digest) if self.reader else None
        self._sidecars = ChangedSidecars(ledger) if self._known and metadata else None
        self.problems: list[NameProblem] = []

    def stamped(self, points: Sequence[FacePoint], records: Iterable[FileRecord]) -> list[FacePoint]:
        """Return faces to store with their people, also those of files whose metadata was edited since.

        Args:
            points: the faces.
            records: of their files.
        """
        if (people := self._people) is None:
            return [*points]
        some = [*records]

        def carry() -> None:
            if edited := edited_images(some, points, self._ledger, self._index, self._digest):
                people.carry(edited)

        self._retry(carry)
        return people.stamped(points)

    def apply(self, pictures: Sequence[PictureNames], stored: Sequence[FacePoint] = ()) -> Counter[str]:
        """Name faces that are in the index; return how many were named, and names that no face got.

        Args:
            pictures: names in metadata.
            stored: the faces that were just stored.
        """
        if (people := self._people) is None:
            return Counter()
        applied: NamesApplied = self._retry(lambda: people.apply(pictures, stored))
        self.problems += applied.problems[: KEPT_PROBLEMS - len(self.problems)]
        return Counter(named=applied.named, unmatched_names=len(applied.problems))

    def watch(self, files: Iterable[File], read_sidecars: Callable[[], None]) -> Iterator[File]:
        """Yield files, and note the sidecars among them; call `read_sidecars` when there are many."""
        if self._sidecars is None:
            yield from files
            return
        for file in self._sidecars.watch(files):
            yield file
            if self._sidecars.is_full:
                read_sidecars()

    def apply_sidecars(self) -> Iterator[Counter[str]]:
        """Name the faces of known pictures whose noted sidecars are new; yield counts as `apply` returns them."""
        if self._sidecars is None or self._known is None:
            return
        records = self._sidecars.take()
        originals = self._ledger.originals([str(one.image_id) for one in records if one.status == "duplicate"])
        for some in chunks(records, _READ_AT_ONCE):
            yield self.apply([*self._known.read(some, originals.values())])
            self._ledger.touch([record.path for record in some])
