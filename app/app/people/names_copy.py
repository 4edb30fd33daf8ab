"""Copies the names of the catalog to an index and to its table of faces, where filters and groups need them.

The catalog is the truth. It says up to which change an index has its names; a copy that was cut off goes on from there.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from threading import Lock
from typing import Final

from app.catalog import ChangeLog, CopiedNames, Database, FaceNames, PeopleStore
from app.core.iteration import chunks
from app.core.protocols import FaceIndex
from app.core.scrolling import scrolled
from app.core.types import FaceFilter, FaceRecord
from app.people.places import all_at, faces_in, matched, place_of

_IMAGES: Final = 2_000  # at once


@dataclass(slots=True)
class NameCounts:
    """Faces with a name in the catalog: those that the index has, and those that it lacks."""

    kept: int = 0
    lost: int = 0


class NamesCopy:
    """Keeps the names in an index as the catalog has them. Safe for threads.

    Args:
        database: the catalog.
        index: the faces.
        collection: full name of the index's collection.
        copied: called after names have been copied.
    """

    def __init__(
        self, database: Database, index: FaceIndex, collection: str, copied: Callable[[], None] = lambda: None
    ) -> None:
        self._changed = copied
        self._store = PeopleStore(database)
        self._log = ChangeLog(database)
        self._copied = CopiedNames(database, collection)
        self._index = index
        self._lock = Lock()

    def is_current(self) -> bool:
        """Return whether the index has all names."""
        return self._copied.number() == self._log.newest_number()

    def catch_up(self) -> int:
        """Copy what changed since the last copy; return the number of images that were looked at.

        Raises:
            OceanoError: `index_unavailable`, `ledger_unavailable`, `disk_full`. A later call goes on.
        """
        with self._lock:
            newest, copied = self._log.newest_number(), self._copied.number()
            if copied == newest:
                return 0
            done = self._copy(self._all_images() if copied is None else self._log.images_after(copied))
            newest = self._copy_later(newest)
            self._copied.set_number(newest)
        return done

    def copy_all(self) -> NameCounts:
        """Copy the names of all images that have any, here or there. Errors are those of `catch_up`."""
        counts = NameCounts()
        with self._lock:
            newest = self._log.newest_number()
            self._copy(self._all_images(), counts)
            self._copy(self._images_in_index())
            newest = self._copy_later(newest)
            self._copied.set_number(newest)
        return counts

    def copy_images(self, image_ids: Iterable[str]) -> int:
        """Copy the names of some images; return their number. Errors are those of `catch_up`."""
        with self._lock:
            newest = self._log.newest_number()
            done = self._copy(image_ids)
            self._copy_later(newest)
        return done

    def wrong_images(self) -> Iterator[str]:
        """Yield the images with a face whose name in the index is not the catalog's, some of them twice.

        Raises:
            OceanoError: `index_unavailable`, `ledger_unavailable`.
        """
        for some in chunks(chain(self._all_images(), self._images_in_index()), _IMAGES):
            yield from self._wrong(self._wrong(some))  # twice, because names may change between the two reads

    def _wrong(self, image_ids: Sequence[str]) -> list[str]:
        found = self._names(faces_in(self._index, image_ids)) if image_ids else ()
        return [one.payload.image_id for one, names in found if one.payload.person != names.person_id]

    def _names(self, by_image: Mapping[str, Sequence[FaceRecord]]) -> Iterator[tuple[FaceRecord, FaceNames]]:
        """Yield each face of whole images with what the catalog says about it."""
        assigned = self._store.assignments_in([*by_image])
        dismissed = self._store.dismissals_in([*by_image])
        rejected = self._store.rejections_in([*by_image])
        for image_id, records in by_image.items():
            named = matched(records, assigned.get(image_id, ()))
            gone = matched(records, dismissed.get(image_id, ()))
            for record in records:
                one, other = named.get(record.face_id), gone.get(record.face_id)
                against = all_at(place_of(record.payload), rejected.get(image_id, ()))
                yield (
                    record,
                    FaceNames(
                        record.face_id,
                        image_id,
                        None if one is None else one.person_id,
                        None if one is None else one.id,
                        None if other is None else other.kind,
                        frozenset(rejection.person_id for rejection in against),
                    ),
                )

    def _all_images(self) -> Iterator[str]:
        after = ""
        while page := self._store.named_images(after=after):
            yield from page
            after = page[-1]

    def _images_in_index(self) -> Iterator[str]:
        """Yield the images whose faces have people in the index; other texts are of earlier versions, and stay."""
        for some in chunks(scrolled(self._index, page=_IMAGES, where=FaceFilter(named=True)), _IMAGES):
            yield from {record.payload.image_id for record in some if _is_id(record.payload.person)}

    def _copy_later(self, newest: int) -> int:
        """Copy changes after one that other processes made during a copy; return the number of the newest one.

        They have copied them, too, but then this copy may have written what it had read before.
        """
        while (later := self._log.newest_number()) != newest:
            self._copy(self._log.images_after(newest))
            newest = later
        return newest

    def _copy(self, image_ids: Iterable[str], counts: NameCounts | None = None) -> int:
        done = 0
        for some in chunks(image_ids, _IMAGES):
            done += len(some)
            wrong: dict[str | None, list[str]] = defaultdict(list)
            rows: list[FaceNames] = []
            for record, names in self._names(faces_in(self._index, some)):
                rows.append(names)
                if record.payload.person != names.person_id:
                    wrong[names.person_id].append(record.face_id)
            for person_id, face_ids in wrong.items():
                self._index.set_payload(face_ids, person=person_id)
            self._copied.write(rows)
            if counts is not None:
                assigned = sum(map(len, self._store.assignments_in(some).values()))
                named = sum(one.person_id is not None for one in rows)
                counts.kept, counts.lost = counts.kept + named, counts.lost + assigned - named
            self._changed()
        return done


def _is_id(person: str | None) -> bool:
    try:
        return person is not None and str(uuid.UUID(person)) == person
    except ValueError:
        return False
