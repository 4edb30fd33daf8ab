"""Carrying an index to another place: every face with its embedding, payload and name; then both are compared."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from typing import Final

from app.core.errors import OceanoError
from app.core.protocols import FaceIndex
from app.core.retry import retry_index
from app.core.types import FaceFilter, FacePayload, FacePoint, FaceRecord

_PAGE: Final = 500
_MOST_ROUNDS: Final = 5
_SAMPLE: Final = 100
_SAME_COSINE: Final = 1e-4  # both score with the original vectors
_LIMIT: Final = 10
_LEAST_SHARE: Final = 0.9  # two graphs of the same faces agree in 98 of 100


@dataclass(slots=True)
class MigrationCounts:
    """Faces that were looked at; of them, those that were copied, and those whose name or path was brought over.

    `forgotten` faces were in the target alone.
    """

    faces: int = 0
    copied: int = 0
    updated: int = 0
    forgotten: int = 0

    @property
    def changes(self) -> int:
        return self.copied + self.updated + self.forgotten


@dataclass(frozen=True, slots=True)
class Agreement:
    """`same` of `compared` neighbours, in searches for `searches` stored faces, are the same in both indexes."""

    faces: int
    searches: int
    compared: int
    same: int

    @property
    def share(self) -> float:
        """1 if all are the same; a graph is searched approximately, so it may be a little less."""
        return self.same / self.compared if self.compared else 1.0


class Migration:
    """From one index to another of the same model. The source goes on serving, and is not changed.

    Faces that the target has already are not copied again, so that after a kill the same call goes on. Faces that come
    to the source meanwhile are caught up with. With `exact` the target forgets what the source does not have. A place
    that is gone for a while is waited for.
    """

    def __init__(
        self,
        source: FaceIndex,
        target: FaceIndex,
        *,
        stop: Event | None = None,
        exact: bool = False,
        on_progress: Callable[[MigrationCounts], None] = lambda _: None,
    ) -> None:
        self._source = source
        self._target = target
        self._stop = stop or Event()
        self._exact = exact
        self._on_progress = on_progress
        self.counts = MigrationCounts()

    def run(self) -> MigrationCounts:
        """Copy until a round finds nothing to do, or `stop` is set."""
        for _ in range(_MOST_ROUNDS):
            before = self.counts.changes
            self.counts.faces = 0
            for page in pages(self._source, stop=self._stop):
                if self._stop.is_set():
                    return self.counts
                retry_index(partial(self._bring, page), self._stop)
                self.counts.faces += len(page)
                self._on_progress(self.counts)
            if self._exact:
                self._forget()
            retry_index(self._target.flush, self._stop)
            if self.counts.changes == before:
                break
        return self.counts

    def compare(self) -> Agreement:
        """Do both hold the same faces, and find the same? Raises OceanoError `migration_incomplete` if not."""
        faces, there = self._source.count(), self._target.count()
        if faces != there:
            raise OceanoError(
                "migration_incomplete",
                f"the index holds {faces} faces and its copy {there}. If faces came meanwhile, run it again; if the "
                "copy has more, faces were forgotten here or came there since: --exact forgets them there, too",
                details={"faces": faces, "copied": there},
            )
        sample = self._sample()
        compared = same = 0
        for record in sample:
            assert record.embedding is not None  # noqa: S101 - asked for
            ours = {one.face_id: one for one in self._source.search(record.embedding, limit=_LIMIT)}
            theirs = {one.face_id: one for one in self._target.search(record.embedding, limit=_LIMIT)}
            for face_id in ours.keys() & theirs.keys():
                if abs(ours[face_id].similarity - theirs[face_id].similarity) > _SAME_COSINE:
                    raise _differs(face_id, "its similarity to a face is another")
                if ours[face_id].payload != theirs[face_id].payload:
                    raise _differs(face_id, "what is known of it is different")
            compared += len(ours)
            same += len(ours.keys() & theirs.keys())
        agreement = Agreement(faces, len(sample), compared, same)
        if agreement.share < _LEAST_SHARE:
            raise OceanoError(
                "migration_incomplete",
                f"only {100 * agreement.share:.0f} % of what searches find is the same in both indexes",
                details={"compared": compared, "same": same},
            )
        return agreement

    def _forget(self) -> None:
        for page in pages(self._target, stop=self._stop):
            ids = [record.face_id for record in page]
            here = {one.face_id for one in retry_index(partial(self._source.retrieve, ids), self._stop)}
            if extra := [face_id for face_id in ids if face_id not in here]:
                retry_index(partial(self._target.delete, extra), self._stop)
                self.counts.forgotten += len(extra)

    def _bring(self, page: Sequence[FaceRecord]) -> None:
        known = {one.face_id: one.payload for one in self._target.retrieve([record.face_id for record in page])}
        missing = [record.face_id for record in page if record.face_id not in known]
        changed = [one for one in page if known.get(one.face_id, one.payload) != one.payload]
        anew = [one.face_id for one in changed if not _only_renamed(known[one.face_id], one.payload)]
        if anew:  # taken up again since
            self._target.delete(anew)
        points = [
            FacePoint(record.face_id, record.embedding, record.payload)
            for record in self._source.retrieve([*missing, *anew], with_embedding=True)
            if record.embedding is not None
        ]
        if points:
            self._target.upsert(points)
        for record in changed:
            if record.face_id not in anew:
                self._target.set_payload([record.face_id], person=record.payload.person)
                self._target.set_path([record.face_id], path=record.payload.path)
        self.counts.copied += len(points) - len(anew)
        self.counts.updated += len(changed)

    def _sample(self) -> list[FaceRecord]:
        """Faces from all over: ids are hashes, so what follows a random one is random."""
        picked = random.Random(0)  # noqa: S311 - the same in every run, so that a failure can be looked into
        found: dict[str, FaceRecord] = {}
        for _ in range(min(_SAMPLE, self._source.count())):
            start = f"{picked.getrandbits(128):032x}"
            offset = "-".join((start[:8], start[8:12], start[12:16], start[16:20], start[20:]))
            page = self._source.scroll(limit=1, offset=offset, with_embedding=True)
            found |= {record.face_id: record for record in page.records}
        return list(found.values())


def _only_renamed(there: FacePayload, here: FacePayload) -> bool:
    return replace(there, person=here.person, path=here.path, folder=here.folder) == here


def pages(index: FaceIndex, *, where: FaceFilter | None = None, stop: Event) -> Iterator[tuple[FaceRecord, ...]]:
    """All faces that `where` admits, some at a time, in the order of their ids. An index that is gone is waited for."""
    offset: str | None = None
    while True:
        page = retry_index(partial(index.scroll, limit=_PAGE, offset=offset, where=where), stop)
        if page.records:
            yield page.records
        if page.next_offset is None:
            return
        offset = page.next_offset


def _differs(face_id: str, what: str) -> OceanoError:
    return OceanoError(
        "migration_incomplete", f"face {face_id} is not the same in both indexes: {what}", details={"face_id": face_id}
    )
