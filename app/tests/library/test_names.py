"""ingest: the names in pictures and sidecars reach the faces, and survive kills and repeats."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.catalog import FileRecord, PeopleStore, open_ledger
from app.core.config import Settings
from app.images.thumbnails import ThumbStore
from app.ingest import Ingest, IngestOptions
from app.library import sidecars
from app.people import Author, MetadataNames, NamesCopy, Naming, Profile
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.xmp import Face, mwg, packet, picture_with, shown

ANA: Face = ("Ana", 0.5, 0.5, 0.4, 0.4)
ELSEWHERE: Face = ("Eve", 0.1, 0.1, 0.1, 0.1)


class Bench:
    """An ingest that names faces."""

    def __init__(self, settings: Settings, engine: FakeEngine, collection: str = "faces__fake__ffffffff") -> None:
        self.engine, self.index = engine, MemoryIndex()
        self.ledger = open_ledger(settings.state_dir / "catalog.sqlite3", collection)
        self.store = PeopleStore(self.ledger.database)
        self.thumbs = ThumbStore(settings.thumbs_dir)

    def run(self, folder: Path, *, read_names: bool = True, people_from_folders: bool = False) -> Ingest:
        options = IngestOptions(
            max_pixels=1_000_000, retry_seconds=0.1, read_names=read_names, people_from_folders=people_from_folders
        )
        names = MetadataNames(self.ledger.database, self.index, self.ledger.collection, "test")
        ingest = Ingest(self.engine, self.index, self.ledger, self.thumbs, options, names=names)
        ingest.run(folder)
        return ingest

    def names(self) -> dict[str, str]:
        """The name of each face in the index that has one, by the name of its file."""
        ids = {Path(one.payload.path).name: one.payload.person for one in self.index.points.values()}
        people = self.store.persons([one for one in ids.values() if one])
        return {path: people[person].name for path, person in ids.items() if person}


@pytest.fixture
def bench(settings: Settings, engine: FakeEngine) -> Bench:
    return Bench(settings, engine)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "photos"
    made.mkdir()
    return made


def test_regions_in_a_file_name_its_face(bench: Bench, folder: Path) -> None:
    (folder / "a.jpg").write_bytes(picture_with(packet(mwg([ANA]))))
    (folder / "b.png").write_bytes(picture_with(packet(shown("Bob")), "PNG", colour=(30, 200, 30)))
    (folder / "c.jpg").write_bytes(picture_with(b"", colour=(30, 30, 200)))
    counts = bench.run(folder).counts
    assert (counts.done, counts.named, counts.unmatched_names) == (3, 2, 0)
    assert bench.names() == {"a.jpg": "Ana", "b.png": "Bob"}


def test_a_turned_picture_is_named(bench: Bench, folder: Path) -> None:
    (folder / "a.jpg").write_bytes(picture_with(packet(mwg([ANA], (160, 120))), orientation=6))
    bench.run(folder)
    assert bench.names() == {"a.jpg": "Ana"}


def test_a_name_that_no_face_gets_is_counted_and_listed(bench: Bench, folder: Path) -> None:
    (folder / "a.jpg").write_bytes(picture_with(packet(mwg([ELSEWHERE]))))
    ingest = bench.run(folder)
    assert (ingest.counts.named, ingest.counts.unmatched_names) == (0, 1)
    assert [(one.path, one.reason) for one in ingest.name_problems] == [(str(folder / "a.jpg"), "region_without_face")]


def test_names_are_not_read_if_the_setting_says_so(bench: Bench, folder: Path) -> None:
    (folder / "a.jpg").write_bytes(picture_with(packet(mwg([ANA]))))
    bench.run(folder, read_names=False)
    assert not bench.store.is_any()


def test_damaged_metadata_does_not_make_a_picture_fail(
    bench: Bench, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug in the reader")

    monkeypatch.setattr("app.library.names.names_of_file", broken)
    (folder / "a.jpg").write_bytes(picture_with(packet(mwg([ANA]))))
    assert bench.run(folder).counts.done == 1


def test_an_ingest_that_ends_before_the_ledger_knows_its_files_loses_no_name_and_adds_nobody_twice(
    bench: Bench, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.jpg").write_bytes(picture_with(packet(mwg([ANA]))))
    record = bench.ledger.record

    def killed(records: Sequence[FileRecord], **_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.ledger, "record", killed)
    with pytest.raises(KeyboardInterrupt):
        bench.run(folder)
    assert bench.ledger.file(str(folder / "a.jpg")) is None
    monkeypatch.setattr(bench.ledger, "record", record)
    bench.run(folder)
    assert bench.names() == {"a.jpg": "Ana"}
    assert len(bench.store.find()) == 1
    assert len(bench.store.all_assignments()) == 1


def test_an_ingest_that_ends_before_the_names_are_in_the_catalog_reads_them_again(
    bench: Bench, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.jpg").write_bytes(picture_with(packet(mwg([ANA]))))
    apply = MetadataNames.apply

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MetadataNames, "apply", killed)
    with pytest.raises(KeyboardInterrupt):
        bench.run(folder)
    monkeypatch.setattr(MetadataNames, "apply", apply)
    bench.run(folder)
    assert bench.names() == {"a.jpg": "Ana"}


@pytest.mark.parametrize("name", ["a.jpg.xmp", "a.xmp"])
def test_a_sidecar_that_comes_later_names_the_face(bench: Bench, folder: Path, name: str) -> None:
    (folder / "a.jpg").write_bytes(picture_with(b""))
    bench.run(folder)
    seen = bench.engine.pictures
    (folder / name).write_bytes(packet(mwg([ANA])))
    counts = bench.run(folder).counts
    assert bench.names() == {"a.jpg": "Ana"}
    assert (counts.skipped, counts.named) == (1, 1)
    assert bench.engine.pictures == seen, "the picture itself is not ingested again"


def test_a_sidecar_of_a_copy_names_the_face_of_the_image(bench: Bench, folder: Path) -> None:
    for name in ("a.jpg", "copy.jpg"):
        (folder / name).write_bytes(picture_with(b""))
    bench.run(folder)
    copy = next(name for name in ("a.jpg", "copy.jpg") if name not in {
        Path(one.payload.path).name for one in bench.index.points.values()})  # fmt: skip
    (folder / f"{copy}.xmp").write_bytes(packet(mwg([ANA])))
    bench.run(folder)
    assert [*bench.names().values()] == ["Ana"]


def test_a_sidecar_older_than_the_ingest_is_not_read_again(
    bench: Bench, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.jpg").write_bytes(picture_with(b""))
    (folder / "a.jpg.xmp").write_bytes(packet(mwg([ANA])))
    bench.run(folder)
    taken: list[list[FileRecord]] = []
    take = sidecars.ChangedSidecars.take

    def noted(self: sidecars.ChangedSidecars) -> list[FileRecord]:
        taken.append(take(self))
        return taken[-1]

    monkeypatch.setattr(sidecars.ChangedSidecars, "take", noted)
    bench.run(folder)
    assert [len(one) for one in taken] == [1], "it may have been written while the picture was read"
    monkeypatch.setattr(sidecars, "_time", lambda _: datetime(2024, 5, 1, tzinfo=UTC))
    bench.run(folder)
    assert [len(one) for one in taken] == [1, 0]


def test_an_image_that_is_ingested_with_another_model_has_its_names(
    bench: Bench, folder: Path, settings: Settings, engine: FakeEngine
) -> None:
    (folder / "a.jpg").write_bytes(picture_with(packet(mwg([ANA]))))
    bench.run(folder)
    other = Bench(settings, engine, "faces__other__eeeeeeee")
    other.run(folder, read_names=False)
    assert other.names() == {"a.jpg": "Ana"}


def test_the_folder_names_the_person_if_asked(bench: Bench, folder: Path) -> None:
    for number, name in enumerate(("Ana", "Bob")):
        (folder / name).mkdir()
        (folder / name / f"{name}.jpg").write_bytes(picture_with(b"", colour=(200, 40 * number, 30)))
    (folder / "Ana" / "other.jpg").write_bytes(picture_with(packet(shown("Eve")), colour=(30, 30, 200)))
    bench.run(folder, people_from_folders=True)
    assert bench.names() == {"Ana.jpg": "Ana", "Bob.jpg": "Bob", "other.jpg": "Eve"}


# files whose metadata was edited by a program


def _by_hand(bench: Bench, file: str, name: str) -> None:
    (face_id,) = [one.face_id for one in bench.index.points.values() if Path(one.payload.path).name == file]
    names = NamesCopy(bench.ledger.database, bench.index, bench.ledger.collection)
    Naming(bench.ledger.database, bench.index, names).create(Profile(name=name), [face_id], Author("test"))


def test_a_picture_whose_metadata_is_edited_keeps_its_name_and_its_person_has_one_face(
    bench: Bench, folder: Path
) -> None:
    (folder / "a.jpg").write_bytes(picture_with(b""))
    bench.run(folder)
    _by_hand(bench, "a.jpg", "Ana")
    (folder / "a.jpg").write_bytes(picture_with(packet("", 'photoshop:City="Vigo"')))
    bench.run(folder)
    assert bench.names() == {"a.jpg": "Ana"}
    (ana,) = bench.store.find()
    assert ana.faces == 1
    assert [one.source for one in bench.store.assignments_of(ana.id)] == ["manual"]


def test_a_name_given_by_hand_stays_when_a_program_writes_another_one_into_the_picture(
    bench: Bench, folder: Path
) -> None:
    (folder / "a.jpg").write_bytes(picture_with(b""))
    bench.run(folder)
    _by_hand(bench, "a.jpg", "Ana")
    (folder / "a.jpg").write_bytes(picture_with(packet(mwg([("Eva", 0.5, 0.5, 0.4, 0.4)]))))
    ingest = bench.run(folder)
    assert bench.names() == {"a.jpg": "Ana"}
    assert [one.reason for one in ingest.name_problems] == ["named_by_hand"]


def test_a_copy_that_is_not_edited_keeps_its_name_too(bench: Bench, folder: Path) -> None:
    for name in ("a.jpg", "copy.jpg"):
        (folder / name).write_bytes(picture_with(b""))
    bench.run(folder)
    original = Path(next(iter(bench.index.points.values())).payload.path).name
    _by_hand(bench, original, "Ana")
    (folder / "copy.jpg").write_bytes(picture_with(packet("", 'photoshop:City="Vigo"')))
    bench.run(folder)
    assert bench.names() == {"a.jpg": "Ana", "copy.jpg": "Ana"}
    (ana,) = bench.store.find()
    assert ana.faces == 2


def test_another_photograph_under_the_same_name_does_not_get_the_name(bench: Bench, folder: Path) -> None:
    (folder / "a.jpg").write_bytes(picture_with(b""))
    bench.run(folder)
    _by_hand(bench, "a.jpg", "Ana")
    (folder / "a.jpg").write_bytes(picture_with(b"", colour=(30, 30, 200)))
    bench.run(folder)
    assert bench.names() == {}
    (ana,) = bench.store.find()
    assert ana.name == "Ana"


def test_an_edited_picture_keeps_its_name_after_a_kill_between_the_catalog_and_the_ledger(
    bench: Bench, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.jpg").write_bytes(picture_with(b""))
    bench.run(folder)
    _by_hand(bench, "a.jpg", "Ana")
    (folder / "a.jpg").write_bytes(picture_with(packet("", 'photoshop:City="Vigo"')))
    record = bench.ledger.record

    def killed(records: Sequence[FileRecord], **_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.ledger, "record", killed)
    with pytest.raises(KeyboardInterrupt):
        bench.run(folder)
    monkeypatch.setattr(bench.ledger, "record", record)
    bench.run(folder)
    assert bench.names() == {"a.jpg": "Ana"}
    assert len(bench.store.all_assignments()) == 1
