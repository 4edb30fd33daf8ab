"""Faces in an index in memory and a catalog, and the groups that they get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any

import numpy as np

from app.catalog import Database, FaceTable, FileRecord, Ledger, PeopleStore, Person
from app.core.types import FacePoint, Floats, face_id_of
from app.people import Author, GroupCounts, GroupRun, NamesCopy, Naming, Profile, Settings
from bench.faces import stored_payload
from tests.support.fakes import MemoryIndex

COLLECTION = "faces__tests__ffffffff"
DIGEST = "f" * 64
BY = Author("user ana")


def unit(*values: float) -> Floats:
    """A unit vector with these first directions."""
    row = np.zeros(512, np.float32)
    row[: len(values)] = values
    return np.asarray(row / np.linalg.norm(row), np.float32)


@dataclass
class World:
    """An index, its ledger and its groups. Faces are named by the order in which they were added."""

    database: Database
    index: MemoryIndex = field(default_factory=MemoryIndex)
    ids: list[str] = field(default_factory=list)
    collection: str = COLLECTION

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.database, self.collection)
        self.table = FaceTable(self.database, self.collection)
        self.naming = Naming(self.database, self.index, NamesCopy(self.database, self.index, self.collection))
        self._faces: dict[int, int] = {}  # of each image

    def add(self, rows: Sequence[Floats], images: Sequence[int] | None = None, *, quality: float = 0.8) -> list[str]:
        """Add faces, each in an image of its own unless images are given; return their ids."""
        points = [
            self._point(row, len(self.ids) + place if images is None else images[place], quality)
            for place, row in enumerate(rows)
        ]
        self.index.upsert(points)
        changed = {int(point.payload.image_id, 16) for point in points}
        self.ledger.record([self._record(image) for image in sorted(changed)])
        new = [point.face_id for point in points]
        self.ids += new
        return new

    def remove(self, face_ids: Sequence[str]) -> None:
        """Delete faces that are alone in their images, as a prune does."""
        images = [self.index.points[face_id].payload.image_id for face_id in face_ids]
        self.ledger.delete_images(images)
        self.index.delete(face_ids)

    def group(
        self,
        *,
        cut: float = 0.4,
        group_cut: float | None = None,
        stop: Event | None = None,
        on_progress: Any = None,
        **how: Any,
    ) -> GroupCounts:
        """Run a grouping."""
        run = GroupRun(
            self.index,
            self.table,
            PeopleStore(self.database),
            digest=DIGEST,
            settings=lambda: Settings(cut, group_cut or 0.75 * cut, **how),
            stop=stop,
            on_progress=on_progress or (lambda faces, total: None),
        )
        return run.run()

    def name(self, name: str, *face_ids: str) -> Person:
        """Name faces."""
        done = self.naming.create(Profile(name=name), list(face_ids), BY, same_image=True)
        assert done.person is not None
        return done.person

    def group_of(self, face_id: str) -> str | None:
        """The group of a face."""
        known = self.table.known([face_id]).get(face_id)
        return known.group_id if known else None

    def places(self) -> dict[str, str]:
        """The groups of all faces that have one, by face_id."""
        return {name: one.group_id for name, one in self.table.known(self.ids).items() if one.group_id is not None}

    def partition(self) -> set[frozenset[str]]:
        """The groups as sets of face_ids."""
        found: dict[str, set[str]] = {}
        for face_id, group in self.places().items():
            found.setdefault(group, set()).add(face_id)
        return {frozenset(members) for members in found.values()}

    def are_together(self, *face_ids: str) -> bool:
        """Whether faces are in one group."""
        groups = {self.group_of(face_id) for face_id in face_ids}
        return len(groups) == 1 and None not in groups

    def members(self, group: str) -> set[str]:
        """The faces of a group."""
        return {face_id for face_id, place in self.places().items() if place == group}

    def _point(self, row: Floats, image: int, quality: float) -> FacePoint:
        number = self._faces.get(image, 0)
        self._faces[image] = number + 1
        image_id = f"{image:064x}"
        left = 100.0 + 200.0 * number
        payload = replace(
            stored_payload(image_id, f"/photos/{image}.jpg"), quality=quality, bbox=(left, 100.0, left + 120.0, 260.0)
        )
        return FacePoint(face_id_of(image_id, DIGEST, number), row, payload)

    def _record(self, image: int) -> FileRecord:
        return FileRecord(f"/photos/{image}.jpg", 1, 1, f"{image:064x}", "done", self._faces[image])
