"""Migration: all faces and names are copied once, interrupted runs continue, and both indexes are compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from threading import Event

import numpy as np
import pytest

from app.core.errors import OceanoError
from app.core.types import FaceFilter, FacePoint, FaceRecord
from app.index.transfer import Migration, MigrationCounts
from tests.index.conftest import ids_of, points
from tests.support.fakes import MemoryIndex


@pytest.fixture
def source() -> MemoryIndex:
    index = MemoryIndex()
    index.upsert(points(1200))
    index.set_payload(ids_of(points(3)), person="Ana")
    return index


def same(first: MemoryIndex, second: MemoryIndex) -> bool:
    return first.points.keys() == second.points.keys() and all(
        first.points[key].payload == second.points[key].payload
        and np.array_equal(first.points[key].embedding, second.points[key].embedding)
        for key in first.points
    )


def test_every_face_is_copied_with_embedding_payload_and_name(source: MemoryIndex) -> None:
    target = MemoryIndex()
    migration = Migration(source, target)
    assert migration.run() == MigrationCounts(faces=1200, copied=1200)
    assert same(source, target)
    assert target.count(FaceFilter(person="Ana")) == 3
    agreement = migration.compare()
    assert (agreement.faces, agreement.share) == (1200, 1.0)
    assert agreement.searches > 80


def test_faces_in_the_target_are_not_copied_again(source: MemoryIndex) -> None:
    target = MemoryIndex()
    Migration(source, target).run()
    assert Migration(source, target).run() == MigrationCounts(faces=1200)


def test_an_interrupted_migration_continues(source: MemoryIndex) -> None:
    target = MemoryIndex()
    stop = Event()
    first = Migration(source, target, stop=stop, on_progress=lambda _: stop.set()).run()
    assert 0 < first.copied < 1200
    assert Migration(source, target).run().copied == 1200 - first.copied
    assert same(source, target)


def test_faces_and_names_added_meanwhile_are_copied(source: MemoryIndex) -> None:
    target = MemoryIndex()
    more = points(5, seed=9)

    def meanwhile(counts: MigrationCounts) -> None:
        if counts.faces == 1200 and not source.retrieve(ids_of(more)):
            source.upsert(more)
            source.set_payload(ids_of(points(1)), person="Eva")
            source.set_paths(ids_of(points(4))[3:], paths=["/elsewhere/a.jpg", "/and/here/b.jpg"])

    counts = Migration(source, target, on_progress=meanwhile).run()
    assert (counts.faces, counts.copied, counts.updated) == (1205, 1205, 2)
    assert same(source, target)


def test_a_copy_that_lacks_a_face_is_incomplete(source: MemoryIndex) -> None:
    target = MemoryIndex()
    migration = Migration(source, target)
    migration.run()
    lost = target.points.popitem()
    with pytest.raises(OceanoError) as caught:
        migration.compare()
    assert caught.value.code == "migration_incomplete"
    assert caught.value.details == {"faces": 1200, "copied": 1199}
    target.points[lost[0]] = lost[1]
    migration.compare()


def test_a_copy_with_other_embeddings_or_payloads_is_incomplete(source: MemoryIndex) -> None:
    target = MemoryIndex()
    migration = Migration(source, target)
    migration.run()
    copied = dict(target.points)
    embeddings = dict(zip(copied, [copied[key].embedding for key in reversed(copied)], strict=True))
    target.points = {key: FacePoint(key, embeddings[key], point.payload) for key, point in copied.items()}
    with pytest.raises(OceanoError, match="same in both"):
        migration.compare()
    target.points = {
        key: FacePoint(key, point.embedding, dataclasses.replace(point.payload, person="x"))
        for key, point in copied.items()
    }
    with pytest.raises(OceanoError, match="their payloads"):
        migration.compare()


def test_an_empty_index_is_migrated() -> None:
    migration = Migration(MemoryIndex(), MemoryIndex())
    assert migration.run() == MigrationCounts()
    assert migration.compare().share == 1.0


def test_an_exact_copy_deletes_faces_that_the_index_does_not_have(source: MemoryIndex) -> None:
    target = MemoryIndex()
    Migration(source, target).run()
    source.delete(ids_of(points(700))[600:])
    target.upsert(points(5, seed=9))
    counts = Migration(source, target, exact=True).run()
    assert (counts.copied, counts.deleted) == (0, 105)
    assert same(source, target)
    assert Migration(source, target).compare().faces == 1100


def test_requests_are_retried_while_the_index_is_unavailable(source: MemoryIndex) -> None:
    class Unreliable(MemoryIndex):
        def retrieve(self, face_ids: Sequence[str], *, with_embedding: bool = False) -> list[FaceRecord]:
            if next(failing, False):
                raise OceanoError("index_unavailable", "not now")
            return super().retrieve(face_ids, with_embedding=with_embedding)

    failing = iter([True, False, True])
    target = Unreliable()
    assert Migration(source, target).run().copied == 1200
    assert same(source, target)


def test_a_face_that_was_ingested_again_is_replaced(source: MemoryIndex) -> None:
    target = MemoryIndex()
    Migration(source, target).run()
    face = points(1)[0]
    source.delete([face.face_id])
    source.upsert(
        [dataclasses.replace(face, payload=dataclasses.replace(face.payload, ingested_at="2026-02-02T00:00:00+00:00"))]
    )
    counts = Migration(source, target).run()
    assert (counts.copied, counts.updated) == (0, 1)
    assert same(source, target)
