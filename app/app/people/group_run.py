"""Groups the faces of an index that were not looked at yet, in batches; a run that was cut off goes on.

What is new is what the ledger has and the table of faces has not, so the index is asked only for new faces and their
neighbours. The memory does not grow with the index: a batch is in memory, with the groups near its faces.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from threading import Event
from typing import Final

import numpy as np

from app.catalog import FaceTable, GroupedFace, PeopleStore, Rejection, is_same_face
from app.core.iteration import chunks
from app.core.protocols import FaceIndex
from app.core.types import FacePayload, FaceRecord, face_ids_of
from app.people.grouping import BatchGrouping, GroupingStopped
from app.people.groups import FaceBatch, Settings
from app.people.places import faces_in, place_of

_log = logging.getLogger(__name__)

_READ_AT_ONCE: Final = 2_000
_IMAGES: Final = 50_000  # of one read, which takes seconds for a million faces
_REJECTIONS: Final = 10_000  # of one read
_WRITTEN_AT_ONCE: Final = 5_000  # SQLite lets nobody else write meanwhile
_NORM_TOLERANCE: Final = 1e-3

Rejected = dict[str, frozenset[str]]
"""Who faces are not, by face_id."""


@dataclass(slots=True)
class GroupCounts:
    """What a run did.

    Attributes:
        faces: faces that were looked at.
        removed: faces that the index does not have any more.
        left: faces that are left if the run was stopped.
    """

    faces: int = 0
    removed: int = 0
    left: int = 0


class GroupRun:
    """Groups faces until none is new. One run at a time works on a table, see `only_grouping`.

    Args:
        index: the faces.
        table: the groups.
        people: who faces are not.
        digest: of the model, which face_ids are made of.
        settings: returns how faces are grouped; called once, if there is a face to group.
        stop: once set, the current batch is given up.
        require: called before each write; raises an error if another run may have begun.
        on_progress: called after each batch with the faces so far, and about how many there are.
    """

    def __init__(
        self,
        index: FaceIndex,
        table: FaceTable,
        people: PeopleStore,
        *,
        digest: str,
        settings: Callable[[], Settings],
        stop: Event | None = None,
        require: Callable[[], None] = lambda: None,
        on_progress: Callable[[int, int], None] = lambda faces, total: None,
    ) -> None:
        self._index, self._table, self._people, self._digest = index, table, people, digest
        self._make_settings = settings
        self._stop = stop or Event()
        self._require, self._on_progress = require, on_progress
        self.counts = GroupCounts()

    def run(self) -> GroupCounts:
        """Bring the groups in line with the names, and group what is new, also what comes meanwhile.

        Raises:
            OceanoError: `index_unavailable`, `ledger_unavailable`, `disk_full`. What was recorded before stays.
        """
        self._table.follow_names()
        self._remove_gone()
        rejected = self._rejected()
        self._leave_rejected(rejected)
        total = self._table.count_new()
        self._on_progress(0, total)
        looked_at = -1
        while looked_at < self.counts.faces and not self._stop.is_set():
            looked_at = self.counts.faces
            for faces in self._batches(rejected):
                try:
                    rows, merged = BatchGrouping(self._index, self._table, self._settings, faces, self._stop).run()
                except GroupingStopped:
                    break
                for part, of_part in _whole_groups(rows, merged):
                    self._require()
                    self._table.write(part, of_part)
                self.counts.faces += len(rows)
                self._on_progress(self.counts.faces, max(total, self.counts.faces))
        if self._stop.is_set():
            self.counts.left = self._table.count_new()
        return self.counts

    @cached_property
    def _settings(self) -> Settings:
        return self._make_settings()

    def _remove_gone(self) -> None:
        """Remove faces whose image was deleted from the ledger and the index."""
        if not self._table.has_more_than_ledger():
            return
        for face_ids in self._table.without_image():
            there = {
                record.face_id for some in chunks(face_ids, _READ_AT_ONCE) for record in self._index.retrieve(some)
            }
            gone = [face_id for face_id in face_ids if face_id not in there]
            self._require()
            self._table.remove(gone)
            self.counts.removed += len(gone)

    def _rejected(self) -> Rejected:
        """Return who faces are not: rejections are about places, and the index knows the faces there."""
        found: dict[str, set[str]] = defaultdict(set)
        after = ""
        while page := self._people.all_rejections(after=after, limit=_REJECTIONS):
            after = page[-1].id
            by_image: dict[str, list[Rejection]] = defaultdict(list)
            for one in page:
                by_image[one.place.image_id].append(one)
            for image_id, records in faces_in(self._index, [*by_image]).items():
                for record in records:
                    place = place_of(record.payload)
                    same = [one.person_id for one in by_image[image_id] if is_same_face(place, one.place)]
                    if same:
                        found[record.face_id].update(same)
        return {face_id: frozenset(persons) for face_id, persons in found.items()}

    def _leave_rejected(self, rejected: Rejected) -> None:
        """Let faces be looked at again that are in the group of somebody who they are not."""
        known = self._table.known(rejected)
        wrong = [
            face_id
            for face_id, one in known.items()
            if one.group_id in rejected[face_id] and one.person_id != one.group_id
        ]
        self._require()
        self._table.forget_groups(sorted(wrong))

    def _batches(self, rejected: Rejected) -> Iterator[FaceBatch]:
        after = ""
        is_last = False
        while not self._stop.is_set() and not is_last:
            images = self._table.images_to_group(after, limit=_IMAGES)
            face_ids: list[str] = []
            used = 0
            for image_id, faces in images:
                if face_ids and len(face_ids) + faces > self._settings.batch:
                    break
                face_ids += face_ids_of(image_id, self._digest, faces)
                after, used = image_id, used + 1
            is_last = used == len(images) < _IMAGES
            batch = self._read(sorted(set(face_ids)), rejected)
            if batch.face_ids:
                yield batch

    def _read(self, face_ids: Sequence[str], rejected: Rejected) -> FaceBatch:
        """Read those of some faces that have no group yet and can be read."""
        known = self._table.known(face_ids)
        skipped = {face_id for face_id, one in known.items() if one.group_id is not None or not one.is_face}
        names: list[str] = []
        images: list[str] = []
        clear: list[bool] = []
        parts: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = []
        for some in chunks((face_id for face_id in face_ids if face_id not in skipped), _READ_AT_ONCE):
            records = [one for one in self._index.retrieve(some, with_embedding=True) if _is_intact(one)]
            parts += [np.stack([one.embedding for one in records if one.embedding is not None])] if records else []
            names += [one.face_id for one in records]
            images += [one.payload.image_id for one in records]
            clear += [self._is_clear(one.payload) for one in records]
        return FaceBatch(
            names,
            images,
            np.concatenate(parts) if parts else np.empty((0, 0), np.float32),
            np.array(clear, np.bool_),
            {face_id: one.person_id for face_id, one in known.items() if one.person_id is not None},
            rejected,
        )

    def _is_clear(self, payload: FacePayload) -> bool:
        return not payload.flaws and payload.quality >= self._settings.least_quality


def _whole_groups(
    rows: Sequence[GroupedFace], merged: Sequence[tuple[str, str]]
) -> Iterator[tuple[list[GroupedFace], list[tuple[str, str]]]]:
    """Yield what is to be written in parts that leave no group half written, so that others can write between them."""
    into: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for pair in merged:
        into[pair[1]].append(pair)
    part: list[GroupedFace] = []
    of_part: list[tuple[str, str]] = []
    for group_id, faces in groupby(sorted(rows, key=lambda face: face.group_id), lambda face: face.group_id):
        part += faces
        of_part += into.pop(group_id, ())
        if len(part) >= _WRITTEN_AT_ONCE:
            yield part, of_part
            part, of_part = [], []
    of_part += [pair for pairs in into.values() for pair in pairs]
    if part or of_part:
        yield part, of_part


def _is_intact(record: FaceRecord) -> bool:
    """Return whether a face has an embedding that can be compared; `oceano doctor` repairs others."""
    if record.embedding is None or not abs(float(np.linalg.norm(record.embedding)) - 1) <= _NORM_TOLERANCE:
        _log.warning("face %s is damaged, and was not grouped", record.face_id)
        return False
    return True
