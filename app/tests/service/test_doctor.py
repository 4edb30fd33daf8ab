"""The doctor: what it finds where index, ledger and thumbnails disagree, and what it repairs."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from PIL import Image

from app.core.config import Settings
from app.images import ThumbStore
from app.ingest import Ingest, IngestOptions
from app.library.consistency import Inconsistencies
from app.people import Author, NamesCopy, Naming, Profile
from app.service.doctor import Doctor
from tests.library.test_ingest import Bench
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex


class Case(Bench):
    """An ingested folder of eight pictures with a face each, and a doctor."""

    def __init__(self, settings: Settings, engine: FakeEngine, index: MemoryIndex, pictures: Path) -> None:
        super().__init__(settings, engine, index)
        self.pictures = pictures
        self.stop = Event()
        self.doctor = Doctor(settings, index, self.ledger, FAKE_PACK.digest, engine, self.stop)
        self.run(pictures)
        self.faces = sorted(index.points)

    def name(self, name: str, *face_ids: str) -> str:
        """Add a person with faces; return the id."""
        names = NamesCopy(self.ledger.database, self.index, self.ledger.collection)
        done = Naming(self.ledger.database, self.index, names).create(Profile(name=name), face_ids, Author("test"))
        assert done.person is not None
        return done.person.id

    def repaired(self) -> Inconsistencies:
        """What is left after a repair."""
        self.doctor.repair(self.doctor.check())
        return self.doctor.check()


@pytest.fixture
def case(settings: Settings, engine: FakeEngine, index: MemoryIndex, colour_pictures: Path) -> Case:
    return Case(settings, engine, index, colour_pictures)


def test_after_an_ingest_all_agree(case: Case) -> None:
    found = case.doctor.check()
    assert found.is_empty
    assert (found.faces, found.images) == (8, 8)


def test_lost_faces_are_embedded_again(case: Case) -> None:
    before = dict(case.index.points)
    case.index.delete(case.faces[:3])
    found = case.doctor.check()
    assert len(found.incomplete_images) == len(found.unused_thumbnails) == 3
    repairs = case.doctor.repair(found)
    assert (repairs.images, repairs.images_without_file, repairs.deleted_thumbnails) == (3, 0, 0)
    assert case.doctor.check().is_empty
    assert case.index.points.keys() == before.keys()


def test_faces_of_a_deleted_file_cannot_be_embedded_again(case: Case) -> None:
    face_id = case.faces[0]
    Path(case.index.points[face_id].payload.path).unlink()
    case.index.delete([face_id])
    repairs = case.doctor.repair(case.doctor.check())
    assert (repairs.images, repairs.images_without_file) == (0, 1)
    assert len(case.doctor.check().incomplete_images) == 1
    assert case.ledger.totals().faces == 8, "the drive may be connected again"


def test_a_face_that_the_ledger_does_not_know_is_recorded(case: Case) -> None:
    payload = case.index.points[case.faces[0]].payload
    case.ledger.delete_images([payload.image_id])
    found = case.doctor.check()
    assert found.unknown_faces == {case.faces[0]}
    assert case.doctor.repair(found).recorded_images == 1
    assert case.doctor.check().is_empty


def test_a_face_whose_file_is_gone_and_unknown_stays_in_the_index(case: Case) -> None:
    payload = case.index.points[case.faces[0]].payload
    Path(payload.path).unlink()
    case.ledger.delete_images([payload.image_id])
    assert case.repaired().unknown_faces == {case.faces[0]}
    assert case.faces[0] in case.index.points


def test_more_faces_than_the_ledger_counts_are_unknown(case: Case) -> None:
    point = case.index.points[case.faces[0]]
    other = str(uuid.uuid4())
    case.index.points[other] = replace(point, face_id=other)
    assert case.doctor.check().unknown_faces == {other}


def test_faces_of_a_file_that_became_unreadable_are_kept_and_no_fault(case: Case) -> None:
    Path(case.index.points[case.faces[0]].payload.path).write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    assert case.run(case.pictures).failed == 1
    assert case.doctor.check().is_empty
    assert case.faces[0] in case.index.points


def test_outdated_paths_are_corrected(case: Case) -> None:
    path = case.index.points[case.faces[0]].payload.path
    case.index.set_paths([case.faces[0]], paths=["/elsewhere/0.png"])
    assert len(case.doctor.check().misplaced_images) == 1
    assert case.repaired().is_empty
    assert case.index.points[case.faces[0]].payload.path == path


def test_missing_and_empty_thumbnails_are_drawn_and_unused_ones_deleted(case: Case) -> None:
    case.thumbs.delete([case.faces[0]])
    case.thumbs.path(case.faces[1]).write_bytes(b"")
    other = str(uuid.uuid4())
    case.thumbs.write(other, b"x")
    (case.thumbs.path(other).parent / "notes.jpg").write_bytes(b"not a thumbnail")
    found = case.doctor.check()
    assert found.without_thumbnail == set(case.faces[:2])
    assert found.unused_thumbnails == {other}
    assert case.repaired().is_empty
    assert case.thumbs.read(case.faces[0])
    assert (case.thumbs.path(other).parent / "notes.jpg").exists()


def test_names_in_the_index_become_those_of_the_catalog(case: Case) -> None:
    first, second, third, *_ = case.index.points
    person_id = case.name("Ana", first, second)
    case.index.set_payload([second], person=None)
    case.index.set_payload([third], person=person_id)
    images = {case.index.points[face_id].payload.image_id for face_id in (second, third)}
    found = case.doctor.check()
    assert found.misnamed_images == images
    assert case.doctor.repair(found).named_images == 2
    assert case.doctor.check().is_empty
    assert case.index.facet("person") == {person_id: 2}


def test_an_interrupted_check_and_repair_change_nothing(case: Case) -> None:
    case.index.delete(case.faces[:3])
    found = case.doctor.check()
    case.stop.set()
    assert case.doctor.repair(found).images == 0
    assert case.doctor.check().faces == 0


# perceptual hashes, which older versions did not store


def _lose_hashes(case: Case, *face_ids: str) -> None:
    for face_id in face_ids or case.faces:
        one = case.index.points[face_id]
        case.index.points[face_id] = replace(one, payload=replace(one.payload, phash=None))


def test_hashes_that_an_older_version_did_not_store_are_computed_from_the_files(case: Case) -> None:
    before = dict(case.index.points)
    case.name("Ada", *case.faces[:1])
    named = dict(case.index.points)
    _lose_hashes(case, *case.faces[:5])
    found = case.doctor.check()
    assert (found.without_hash, found.is_empty) == (5, True)
    repairs = case.doctor.repair(found)
    assert (repairs.hashed_images, repairs.unhashed_images, repairs.images) == (5, 0, 0)
    assert case.doctor.check().without_hash == 0
    assert {face_id: one.payload for face_id, one in case.index.points.items()} == {
        face_id: one.payload for face_id, one in named.items()
    }
    assert all(one.payload.phash for one in before.values())


def test_images_without_a_hash_whose_file_is_gone_or_changed_are_counted_and_filled_in_once_it_is_back(
    case: Case,
) -> None:
    _lose_hashes(case)
    gone, changed = (Path(case.index.points[face_id].payload.path) for face_id in case.faces[:2])
    contents = gone.read_bytes(), changed.read_bytes()
    gone.unlink()
    changed.write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    repairs = case.doctor.repair(case.doctor.check())
    assert (repairs.hashed_images, repairs.unhashed_images) == (6, 2)
    assert case.doctor.check().without_hash == 2
    gone.write_bytes(contents[0])
    changed.write_bytes(contents[1])
    repairs = case.doctor.repair(case.doctor.check())
    assert (repairs.hashed_images, repairs.unhashed_images) == (2, 0)


@pytest.mark.parametrize("after", [0, 3, 7])
def test_filling_in_hashes_can_be_killed_and_goes_on_where_it_was(
    case: Case, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lose_hashes(case)
    found, calls, set_phash = case.doctor.check(), [], case.index.set_phash

    def killed(face_ids: Sequence[str], *, phash: str) -> None:
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(phash)
        set_phash(face_ids, phash=phash)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(case.index, "set_phash", killed)
        case.doctor.repair(found)
    found = case.doctor.check()
    assert found.without_hash == 8 - after
    assert case.doctor.repair(found).hashed_images == 8 - after
    assert case.doctor.check().without_hash == 0


def test_filling_in_hashes_stops_when_asked_to(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    _lose_hashes(case)
    found, set_phash = case.doctor.check(), case.index.set_phash

    def interrupted(face_ids: Sequence[str], *, phash: str) -> None:
        case.stop.set()
        set_phash(face_ids, phash=phash)

    monkeypatch.setattr(case.index, "set_phash", interrupted)
    repairs = case.doctor.repair(found)
    assert repairs.unhashed_images == 0
    left = [one for one in case.index.points.values() if one.payload.phash is None]
    assert 1 <= repairs.hashed_images == 8 - len(left) < 8


def test_each_page_of_a_file_gets_its_own_hash(
    settings: Settings, engine: FakeEngine, index: MemoryIndex, tmp_path: Path
) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()
    scenes = np.random.default_rng(1).integers(0, 256, (2, 48, 64, 3), np.uint8)
    first, second = (Image.fromarray(scene) for scene in scenes)
    first.save(folder / "a.tif", save_all=True, append_images=[second])
    options = IngestOptions(max_pixels=1_000_000, all_pages=True)
    Ingest(engine, index, Bench(settings, engine, index).ledger, ThumbStore(settings.thumbs_dir), options).run(folder)
    case = Case(settings, engine, index, folder)
    stored = {face_id: one.payload for face_id, one in index.points.items()}
    assert len({one.phash for one in stored.values()}) == 2
    _lose_hashes(case)
    assert case.doctor.repair(case.doctor.check()).hashed_images == 1
    assert {face_id: one.payload for face_id, one in index.points.items()} == stored
