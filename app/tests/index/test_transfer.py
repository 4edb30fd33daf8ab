"""migration: nothing lost, nothing twice, names with it, resumable, compared."""

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


def same(one: MemoryIndex, other: MemoryIndex) -> bool:
    return one.points.keys() == other.points.keys() and all(
        one.points[key].payload == other.points[key].payload
        and np.array_equal(one.points[key].embedding, other.points[key].embedding)
        for key in one.points
    )


def test_every_face_arrives_with_its_embedding_payload_and_name(source: MemoryIndex) -> None:
    target = MemoryIndex()
    migration = Migration(source, target)
    assert migration.run() == MigrationCounts(faces=1200, copied=1200)
    assert same(source, target)
    assert target.count(FaceFilter(person="Ana")) == 3
    agreement = migration.compare()
    assert (agreement.faces, agreement.share) == (1200, 1.0)
    assert agreement.searches > 80


def test_what_is_there_is_not_copied_again(source: MemoryIndex) -> None:
    target = MemoryIndex()
    Migration(source, target).run()
    assert Migration(source, target).run() == MigrationCounts(faces=1200)


def test_one_that_was_interrupted_goes_on(source: MemoryIndex) -> None:
    target = MemoryIndex()
    stop = Event()
    first = Migration(source, target, stop=stop, on_progress=lambda _: stop.set()).run()
    assert 0 < first.copied < 1200
    assert Migration(source, target).run().copied == 1200 - first.copied
    assert same(source, target)


def test_faces_and_names_that_come_meanwhile_are_caught_up_with(source: MemoryIndex) -> None:
    target = MemoryIndex()
    more = points(5, seed=9)

    def meanwhile(counts: MigrationCounts) -> None:
        if counts.faces == 1200 and not source.retrieve(ids_of(more)):
            source.upsert(more)
            source.set_payload(ids_of(points(1)), person="Eva")
            source.set_path(ids_of(points(4))[3:], path="/elsewhere/a.jpg")

    counts = Migration(source, target, on_progress=meanwhile).run()
    assert (counts.faces, counts.copied, counts.updated) == (1205, 1205, 2)
    assert same(source, target)


def test_a_copy_that_lacks_a_face_or_has_another_is_not_called_complete(source: MemoryIndex) -> None:
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


def test_a_copy_with_other_embeddings_or_payloads_is_not_called_complete(source: MemoryIndex) -> None:
    target = MemoryIndex()
    migration = Migration(source, target)
    migration.run()
    good = dict(target.points)
    others = dict(zip(good, [good[key].embedding for key in reversed(good)], strict=True))
    target.points = {key: FacePoint(key, others[key], point.payload) for key, point in good.items()}
    with pytest.raises(OceanoError, match="same in both"):
        migration.compare()
    target.points = {
        key: FacePoint(key, point.embedding, dataclasses.replace(point.payload, person="x"))
        for key, point in good.items()
    }
    with pytest.raises(OceanoError, match="what is known"):
        migration.compare()


def test_an_empty_index_is_carried_as_well() -> None:
    migration = Migration(MemoryIndex(), MemoryIndex())
    assert migration.run() == MigrationCounts()
    assert migration.compare().share == 1.0


def test_an_exact_copy_forgets_what_the_index_does_not_have(source: MemoryIndex) -> None:
    target = MemoryIndex()
    Migration(source, target).run()
    source.delete(ids_of(points(700))[600:])
    target.upsert(points(5, seed=9))
    counts = Migration(source, target, exact=True).run()
    assert (counts.copied, counts.forgotten) == (0, 105)
    assert same(source, target)
    assert Migration(source, target).compare().faces == 1100


def test_an_index_that_is_gone_for_a_moment_is_waited_for(source: MemoryIndex) -> None:
    class Shaky(MemoryIndex):
        def retrieve(self, face_ids: Sequence[str], *, with_embedding: bool = False) -> list[FaceRecord]:
            if next(failing, False):
                raise OceanoError("index_unavailable", "not now")
            return super().retrieve(face_ids, with_embedding=with_embedding)

    failing = iter([True, False, True])
    target = Shaky()
    assert Migration(source, target).run().copied == 1200
    assert same(source, target)


def test_what_was_taken_up_again_since_is_brought_over_as_it_is_now(source: MemoryIndex) -> None:
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
