"""Migration: copying all faces of an index to another one, with embedding, payload and name, and comparing both."""

from __future__ import annotations

import random
import uuid
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
_MAX_ROUNDS: Final = 5
_SAMPLE: Final = 100
_COSINE_TOLERANCE: Final = 1e-4  # both indexes compute scores from the original vectors
_LIMIT: Final = 10
_MIN_SHARE: Final = 0.9  # two graphs of the same faces agree in 98 of 100 neighbours


@dataclass(slots=True)
class MigrationCounts:
    """Progress of a migration.

    Args:
        faces: faces read from the source in the current round.
        copied: faces that were missing in the target.
        updated: faces whose payload differed in the target.
        deleted: faces deleted from the target because the source does not have them.
    """

    faces: int = 0
    copied: int = 0
    updated: int = 0
    deleted: int = 0

    @property
    def changes(self) -> int:
        """Number of changes to the target."""
        return self.copied + self.updated + self.deleted


@dataclass(frozen=True, slots=True)
class Agreement:
    """Result of a comparison of two indexes.

    Args:
        faces: faces in each index.
        searches: stored faces that were searched for in both.
        compared: neighbours that the source found.
        same: those of them that the target found, too.
    """

    faces: int
    searches: int
    compared: int
    same: int

    @property
    def share(self) -> float:
        """Share of the neighbours that are the same; may be below 1, because searches in a graph are approximate."""
        return self.same / self.compared if self.compared else 1.0


class Migration:
    """Copies an index to another one of the same model. The source is not changed and stays in use.

    Faces that the target has already are skipped, so a migration that was killed can be run again. Faces that the
    source gets meanwhile are copied in further rounds. While an index is unavailable, requests are retried.
    `counts` is the progress.

    Args:
        source: the index to copy.
        target: the index to write to.
        stop: once set, the migration ends after the current page.
        exact: delete faces from the target that the source does not have.
        on_progress: called after each page.
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
        """Copy in rounds until a round changes nothing, at most five, or until `stop` is set.

        Raises:
            OceanoError: `index_unavailable` after the last retry, `disk_full`.
        """
        for _ in range(_MAX_ROUNDS):
            before = self.counts.changes
            self.counts.faces = 0
            for page in pages(self._source, stop=self._stop):
                if self._stop.is_set():
                    return self.counts
                retry_index(partial(self._copy_page, page), self._stop)
                self.counts.faces += len(page)
                self._on_progress(self.counts)
            if self._exact:
                self._delete_extra()
            retry_index(self._target.flush, self._stop)
            if self.counts.changes == before:
                break
        return self.counts

    def compare(self) -> Agreement:
        """Compare the numbers of faces, and the results of searches for a sample of faces.

        Raises:
            OceanoError: `migration_incomplete` if the indexes differ, `index_unavailable`.
        """
        faces, copied = self._source.count(), self._target.count()
        if faces != copied:
            raise OceanoError(
                "migration_incomplete",
                f"the index holds {faces} faces and its copy {copied}. If faces were added meanwhile, run it again; if "
                "the copy has extra faces, --exact deletes them from it",
                details={"faces": faces, "copied": copied},
            )
        sample = self._sample()
        compared = same = 0
        for record in sample:
            assert record.embedding is not None  # noqa: S101 - requested
            expected = {match.face_id: match for match in self._source.search(record.embedding, limit=_LIMIT)}
            found = {match.face_id: match for match in self._target.search(record.embedding, limit=_LIMIT)}
            common = expected.keys() & found.keys()
            for face_id in common:
                if abs(expected[face_id].similarity - found[face_id].similarity) > _COSINE_TOLERANCE:
                    raise _difference(face_id, "their similarities to another face are different")
                if expected[face_id].payload != found[face_id].payload:
                    raise _difference(face_id, "their payloads are different")
            compared += len(expected)
            same += len(common)
        agreement = Agreement(faces, len(sample), compared, same)
        if agreement.share < _MIN_SHARE:
            raise OceanoError(
                "migration_incomplete",
                f"searches find only {100 * agreement.share:.0f} % of the same faces in both indexes",
                details={"compared": compared, "same": same},
            )
        return agreement

    def _delete_extra(self) -> None:
        for page in pages(self._target, stop=self._stop):
            ids = [record.face_id for record in page]
            found = retry_index(partial(self._source.retrieve, ids), self._stop)
            known = {record.face_id for record in found}
            if extra := [face_id for face_id in ids if face_id not in known]:
                retry_index(partial(self._target.delete, extra), self._stop)
                self.counts.deleted += len(extra)

    def _copy_page(self, page: Sequence[FaceRecord]) -> None:
        ids = [record.face_id for record in page]
        known = {record.face_id: record.payload for record in self._target.retrieve(ids)}
        missing = [face_id for face_id in ids if face_id not in known]
        changed = [record for record in page if known.get(record.face_id, record.payload) != record.payload]
        replaced = [record.face_id for record in changed if not _only_renamed(known[record.face_id], record.payload)]
        if replaced:  # deleted from the source and ingested again
            self._target.delete(replaced)
        points = [
            FacePoint(record.face_id, record.embedding, record.payload)
            for record in self._source.retrieve([*missing, *replaced], with_embedding=True)
            if record.embedding is not None
        ]
        if points:
            self._target.upsert(points)
        for record in changed:
            if record.face_id not in replaced:
                self._target.set_payload([record.face_id], person=record.payload.person)
                self._target.set_paths([record.face_id], paths=_paths_with_folders(record.payload))
        self.counts.copied += len(points) - len(replaced)
        self.counts.updated += len(changed)

    def _sample(self) -> list[FaceRecord]:
        """Return random faces: ids are hashes, so the face after a random id is random, too."""
        generator = random.Random(0)  # noqa: S311 - the same sample in every run, so that a failure can be repeated
        found: dict[str, FaceRecord] = {}
        for _ in range(min(_SAMPLE, self._source.count())):
            offset = str(uuid.UUID(int=generator.getrandbits(128)))
            page = self._source.scroll(limit=1, offset=offset, with_embedding=True)
            found |= {record.face_id: record for record in page.records}
        return list(found.values())


def _only_renamed(before: FacePayload, after: FacePayload) -> bool:
    """Return whether only the name, the path and the folders differ."""
    return replace(before, person=after.person, path=after.path, folder=after.folder) == after


def _paths_with_folders(payload: FacePayload) -> list[str]:
    """Return the path of a face, and a path in each of its folders, whose other files are unknown here."""
    return [payload.path, *(f"{folder.rstrip('/')}/file" for folder in payload.folder)]


def pages(index: FaceIndex, *, where: FaceFilter | None = None, stop: Event) -> Iterator[tuple[FaceRecord, ...]]:
    """Yield all faces of an index without embeddings, in pages, in the order of their ids.

    Requests are retried while the index is unavailable.

    Args:
        index: the index.
        where: restricts the faces.
        stop: once set, ends the retries.

    Raises:
        OceanoError: `index_unavailable` after the last retry.
    """
    offset: str | None = None
    while True:
        page = retry_index(partial(index.scroll, limit=_PAGE, offset=offset, where=where), stop)
        if page.records:
            yield page.records
        if page.next_offset is None:
            return
        offset = page.next_offset


def _difference(face_id: str, reason: str) -> OceanoError:
    return OceanoError(
        "migration_incomplete",
        f"face {face_id} is not the same in both indexes: {reason}",
        details={"face_id": face_id},
    )
