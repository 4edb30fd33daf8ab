"""Copies, moved, replaced and missing files: index and ledger agree on the files in which each image lies."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from PIL import Image

from app.catalog import FileRecord, back_up, open_ledger, restore
from app.core.errors import OceanoError
from app.core.paths import folders_of, readable
from app.core.types import face_id_of
from app.ingest import Ingest, IngestCounts, IngestOptions
from app.library.presence import VisitedPaths, former_spellings
from app.library.scan import file_at
from tests.library.test_prune import Pruned, _mount
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex
from tests.support.pictures import encoded

LSTAT, LISTDIR = os.lstat, os.listdir


class Located(Pruned):
    """An ingest with all its parts, and checks of what it stored."""

    def ingest(self, folder: Path, **options: Any) -> IngestCounts:
        stop = options.pop("stop", None)
        return self._ingest(options, stop).run(folder)

    def ingest_files(self, *paths: Path) -> IngestCounts:
        """Ingest files as watch mode does."""
        ingest = self._ingest({}, None)
        ingest.ingest_files(filter(None, (file_at(str(path)) for path in paths)))
        return ingest.counts

    def _ingest(self, options: dict[str, Any], stop: Event | None) -> Ingest:
        chosen = IngestOptions(max_pixels=1_000_000, retry_seconds=0.1, **options)
        return Ingest(self.engine, self.index, self.ledger, self.thumbs, chosen, stop=stop)

    def where(self, face_id: str) -> tuple[str, set[str]]:
        """The path of a face, and the folders that a filter finds it in."""
        payload = self.payload(face_id)
        return payload.path, set(payload.folder)

    def unknown(self) -> set[str]:
        """Images that the index has and the ledger does not."""
        known = {record.image_id for record in self.ledger.files("/")}
        return {point.payload.image_id for point in self.index.points.values()} - known

    def require_consistent(self, *, missing: Iterable[Path] = (), unknown: Iterable[str] = ()) -> None:
        """Every image has one representative, whose path the faces have; their folders are those of all its files.

        Args:
            missing: files that the ledger keeps.
            unknown: images that the ledger may not have.
        """
        images = defaultdict(list)
        for record in self.ledger.files("/"):
            if record.image_id is not None and record.status != "failed":
                images[record.image_id].append(record)
        replaced = {image_id for image_id, _ in self.ledger.replaced()}  # by content that failed
        assert self.unknown() <= replaced | set(unknown)
        for image_id, files in images.items():
            (shown,) = [file for file in files if file.status in ("done", "no_face")]
            assert Path(shown.path) in missing or os.path.lexists(shown.path)
            for position in range(shown.faces):
                payload = self.payload(face_id_of(image_id, FAKE_PACK.digest, position))
                assert payload.path == readable(shown.path)
                assert payload.folder == folders_of(*(readable(file.path) for file in files))
        known = {face_id for face_id, point in self.index.points.items() if point.payload.image_id in images}
        assert known <= self.thumbnails()
        assert self.ledger.unsettled(10) == []


@pytest.fixture
def bench(settings: Any, engine: FakeEngine, index: MemoryIndex) -> Located:
    return Located(settings, engine, index)


def test_a_copy_is_found_in_its_folder_too(bench: Located, pictures: Path, tmp_path: Path) -> None:
    far, hard = tmp_path / "far" / "away", pictures / "hard"
    for folder in (far, hard):
        folder.mkdir(parents=True)
    shutil.copy(pictures / "0.png", far / "copy.png")
    (hard / "link.png").hardlink_to(pictures / "0.png")
    assert bench.run(pictures).duplicate == 1
    assert bench.run(far).duplicate == 1
    path, folders = bench.where(bench.face(pictures / "0.png"))
    assert path == str(pictures / "0.png")
    assert {str(pictures), str(hard), str(far)} <= folders
    bench.require_consistent()
    assert bench.run(tmp_path).skipped == 10


def test_a_copy_beside_its_original_in_one_ingest_is_found_in_its_folder(bench: Located, tmp_path: Path) -> None:
    for name in ("a", "b/deep", "c"):
        (tmp_path / "new" / name).mkdir(parents=True)
        (tmp_path / "new" / name / "x.png").write_bytes(encoded())
    counts = bench.run(tmp_path / "new")
    assert (counts.done, counts.duplicate, counts.moved) == (1, 2, 0)
    bench.require_consistent()
    assert bench.index.count() == 1


@pytest.mark.parametrize("ingested", ["the parent", "the new folder"])
def test_a_moved_folder_is_found_at_its_new_path_without_a_prune(
    bench: Located, pictures: Path, tmp_path: Path, ingested: str
) -> None:
    old, new = tmp_path / "archive" / "2020", tmp_path / "archive" / "2021"
    old.parent.mkdir()
    pictures.rename(old)
    Image.new("RGB", (64, 64)).save(old / "black.png")
    (old / "bad.png").write_bytes(b"rubbish")
    bench.run(old)
    old.rename(new)
    counts = bench.run(new.parent if ingested == "the parent" else new)
    assert (counts.moved, counts.duplicate, counts.failed) == (9, 0, 1)
    assert counts.missing == (1 if ingested == "the parent" else 0), "the file that failed has no image"
    bench.require_consistent()
    assert {Path(point.payload.path).parent for point in bench.index.points.values()} == {new}
    assert [point for point in bench.index.points.values() if str(old) in point.payload.folder] == []
    assert {Path(record.path).parent for record in bench.ledger.files("/") if record.image_id} == {new}
    assert bench.run(new).skipped == 10


def test_an_ingest_of_the_folder_of_the_copy_repairs_the_path_without_reading(
    bench: Located, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = tmp_path / "copies"
    shutil.copytree(pictures, copies)
    bench.run(copies)
    face_id = bench.face(pictures / "0.png")
    (pictures / "0.png").unlink()
    monkeypatch.setattr("app.library.reader.contents", None)
    assert bench.run(copies).skipped == 8
    assert bench.where(face_id) == (str(copies / "0.png"), set(folders_of(str(copies / "0.png"))))
    bench.require_consistent()


@pytest.mark.parametrize("step", ["before the index", "before the ledger", "after the ledger"])
def test_an_ingest_killed_while_it_settles_is_repaired_by_one_of_any_folder(
    bench: Located, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    new, other = tmp_path / "moved", tmp_path / "other"
    other.mkdir()
    pictures.rename(new)
    record = bench.ledger.record

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    def die_settling(*records: Any, settled: Iterable[str] = (), **options: Any) -> Mapping[str, int]:
        if settled and step != "after the ledger":
            die()
        counts = record(*records, settled=settled, **options)
        if settled:
            die()
        return counts

    with monkeypatch.context() as patch:
        if step == "before the index":
            patch.setattr(bench.index, "set_paths", die)
        else:
            patch.setattr(bench.ledger, "record", die_settling)
        with pytest.raises(KeyboardInterrupt):
            bench.run(new)
    bench.run(other)
    bench.require_consistent()
    assert bench.run(new).skipped == 8


def test_a_file_on_a_disconnected_drive_stays_a_copy_and_the_answer_names_a_living_one(
    bench: Located, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stick, away = tmp_path / "stick", tmp_path / "away"
    stick.mkdir()
    (pictures / "0.png").rename(stick / "0.png")
    _mount(monkeypatch, stick)
    bench.run(stick)
    bench.run(pictures)
    face_id = bench.face(stick / "0.png")
    stick.rename(away)
    _mount(monkeypatch)
    shutil.copy(away / "0.png", pictures / "copy.png")
    for expected in ("duplicate", "skipped", "skipped"):
        assert getattr(bench.run(pictures), expected) > 0
        path, folders = bench.where(face_id)
        assert path == str(pictures / "copy.png")
        assert {str(stick), str(pictures)} <= folders
    known = bench.ledger.file(str(stick / "0.png"))
    assert known is not None
    assert known.status == "duplicate"
    bench.require_consistent()


def _ignore_case(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let `folder` be on a file system that ignores case and the form of accents."""

    def form(name: str) -> str:
        return unicodedata.normalize("NFC", name).casefold()

    def listed(path: str) -> str:
        found = str(folder)
        for name in Path(path).relative_to(folder).parts:
            found += "/" + next((one for one in LISTDIR(found) if form(one) == form(name)), name)
        return found

    def within(path: Any) -> bool:
        return str(path).startswith(f"{folder}/")

    monkeypatch.setattr(os, "lstat", lambda path: LSTAT(listed(str(path)) if within(path) else path))
    monkeypatch.setattr(os, "listdir", lambda path: LISTDIR(listed(str(path)) if within(path) else path))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Photo.JPG", "photo.jpg"),
        ("Summer/A/x.png", "summer/a/x.png"),
        ("De\u0301cembre/x.png", "D\u00e9cembre/x.png"),
        ("Stra\u00dfe/x.png", "strasse/x.png"),
    ],
)
def test_a_file_renamed_in_case_only_has_its_new_name(
    bench: Located, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    folder = tmp_path / "mac"
    (folder / before).parent.mkdir(parents=True)
    (folder / before).write_bytes(encoded())
    bench.run(folder)
    face_id = bench.face(folder / before)
    (folder / after).parent.mkdir(parents=True, exist_ok=True)
    (folder / before).rename(folder / after)
    for parent in (folder / before).parents:
        if parent != folder and folder in parent.parents:
            parent.rmdir()
    _ignore_case(monkeypatch, folder)
    assert os.lstat(folder / before)
    counts = bench.run(folder)
    assert (counts.moved, counts.duplicate) == (1, 0)
    assert bench.where(face_id) == (str(folder / after), set(folders_of(str(folder / after))))
    assert [Path(record.path) for record in bench.ledger.files("/")] == [folder / after]
    assert bench.run(folder).skipped == 1


def test_hard_links_that_differ_in_case_are_two_files(bench: Located, tmp_path: Path) -> None:
    for name in ("a/x.png", "A/x.png", "a/X.png"):
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "p" / "a" / "x.png").write_bytes(encoded())
    for name in ("A/x.png", "a/X.png"):
        (tmp_path / "p" / name).hardlink_to(tmp_path / "p" / "a" / "x.png")
    counts = bench.run(tmp_path / "p")
    assert (counts.done, counts.duplicate, counts.moved) == (1, 2, 0)
    assert former_spellings([record.path for record in bench.ledger.files("/")]) == set()
    bench.require_consistent()


def test_a_folder_given_in_other_case_is_not_read_again_for_ever(
    bench: Located, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user types `/photos` where the file system lists `/Photos`."""
    listed, typed = tmp_path / "mac" / "Photos", tmp_path / "mac" / "photos"
    listed.mkdir(parents=True)
    (listed / "x.png").write_bytes(encoded())
    typed.symlink_to(listed)  # for the functions that are not simulated
    lstat, listdir = os.lstat, os.listdir
    monkeypatch.setattr(os, "lstat", lambda path: lstat(str(path).replace("/photos/", "/Photos/")))
    monkeypatch.setattr(os, "listdir", lambda path: [name for name in listdir(path) if name != "photos"])
    assert bench.run(typed).done == 1
    assert bench.run(listed).moved == 1
    assert bench.run(typed).duplicate == 1
    for folder in (typed, listed, typed):
        assert bench.run(folder).skipped == 1
    assert bench.where(bench.face(listed / "x.png"))[0] == str(listed / "x.png")


def test_missing_files_are_removed_if_a_copy_exists_and_counted_if_not(
    bench: Located, pictures: Path, tmp_path: Path
) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    shutil.copy(pictures / "0.png", copies)
    shutil.copy(pictures / "1.png", pictures / "1-copy.png")
    bench.run(tmp_path)
    for name in ("0.png", "1-copy.png", "2.png"):
        (pictures / name).unlink()
    counts = bench.run(pictures)
    assert (counts.missing, counts.skipped, counts.moved) == (1, 6, 0)
    assert bench.where(bench.face(copies / "0.png"))[0] == str(copies / "0.png")
    assert {"0.png", "1.png", "2.png"} <= set(bench.names())
    assert "1-copy.png" not in bench.names()
    bench.require_consistent(missing=[pictures / "2.png"])
    assert bench.run(pictures).missing == 1
    assert bench.run(copies).missing == 0
    assert bench.prune(pictures).files == 1
    assert bench.run(pictures).missing == 0


@pytest.mark.parametrize("case", ["limit", "stop", "one file", "unread"])
def test_an_incomplete_ingest_looks_for_no_missing_files(
    bench: Located, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    shutil.copytree(pictures, tmp_path / "copies")
    bench.run(tmp_path / "copies")
    (pictures / "0.png").unlink()
    stop = Event()
    if case == "stop":
        stop.set()
    if case == "unread":
        monkeypatch.setattr(Ingest, "unread", 1)
    folder = pictures / "1.png" if case == "one file" else pictures
    if case == "limit":
        (pictures / "new.png").write_bytes(encoded(size=(90, 48)))
    assert bench.ingest(folder, limit=1 if case == "limit" else None, stop=stop).missing == 0
    assert "0.png" in {Path(one.path).name for one in bench.ledger.files(str(pictures))}


def test_many_missing_files_with_and_without_copies_are_settled(bench: Located, pictures: Path) -> None:
    (pictures / "old").mkdir()
    for place in range(40):
        shutil.copy(pictures / f"{place % 2}.png", pictures / "old" / f"{place}.png")
    bench.run(pictures)
    shutil.rmtree(pictures / "old")
    (pictures / "0.png").unlink()
    counts = bench.run(pictures)
    assert counts.missing == 21
    assert len(list(bench.ledger.files("/"))) == 7 + 21


@pytest.mark.parametrize("watched", [False, True])
def test_a_changed_file_loses_its_former_faces_without_a_prune(bench: Located, pictures: Path, watched: bool) -> None:
    """Such as an upload that was ingested before it was complete."""
    changed = pictures / "0.png"
    old = bench.face(changed)
    changed.write_bytes(encoded(size=(90, 48)))
    counts = bench.ingest_files(changed) if watched else bench.run(pictures)
    assert counts.done == 1
    assert old not in bench.index.points
    assert bench.thumbs.read(old) is None
    bench.require_consistent()
    bench.require_sound(8)


def test_a_changed_file_that_fails_keeps_its_former_faces(bench: Located, pictures: Path) -> None:
    changed, whole = pictures / "0.png", encoded(size=(90, 48))
    old = bench.face(changed)
    for content in (whole[: len(whole) // 3], b"rubbish", b""):
        changed.write_bytes(content)
        assert bench.run(pictures).failed == 1
        assert old in bench.index.points
    changed.write_bytes(whole)
    assert bench.run(pictures).done == 1
    assert old not in bench.index.points
    bench.require_consistent()


def test_the_faces_of_a_changed_file_go_to_a_copy_of_what_it_was(bench: Located, pictures: Path) -> None:
    (pictures / "far").mkdir()
    shutil.copy(pictures / "0.png", pictures / "far" / "copy.png")
    bench.run(pictures)
    old = bench.face(pictures / "0.png")
    bench.index.set_payload([old], person="Ada")
    (pictures / "0.png").write_bytes(encoded(size=(90, 48)))
    bench.run(pictures)
    assert bench.where(old)[0] == str(pictures / "far" / "copy.png")
    assert bench.payload(old).person == "Ada"
    bench.require_consistent()
    bench.require_sound(9)


@pytest.mark.parametrize("others", [0, 100])
def test_files_that_swap_their_names_keep_their_faces(bench: Located, pictures: Path, others: int) -> None:
    one, other = pictures / "0.png", pictures / "z.png"
    (pictures / "7.png").rename(other)
    for place in range(others):  # more than one batch between the two
        (pictures / f"5-{place}.png").write_bytes(encoded(size=(90, 50 + place)))
    bench.run(pictures)
    faces = {bench.face(one): other, bench.face(other): one}
    for face_id in faces:
        bench.index.set_payload([face_id], person=face_id)
    aside = one.rename(pictures / "aside")
    other.rename(one)
    aside.rename(other)
    bench.run(pictures)
    for face_id, path in faces.items():
        assert bench.where(face_id)[0] == str(path)
        assert bench.payload(face_id).person == face_id
    bench.require_consistent()
    bench.require_sound(8 + others)


def test_an_ingest_killed_before_a_replaced_image_is_settled_is_repaired(
    bench: Located, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(pictures / "1.png", pictures / "copy.png")
    bench.run(pictures)
    for name in ("0.png", "1.png"):
        (pictures / name).write_bytes(encoded(size=(90, 48 + int(name[0]))))

    def die(*_: str) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(bench.ledger, "delete_replaced", die)
            with pytest.raises(KeyboardInterrupt):
                bench.run(pictures)
    (tmp_path / "other").mkdir()
    bench.run(tmp_path / "other")
    bench.require_consistent()
    bench.require_sound(9)


def test_faces_whose_ledger_was_lost_get_the_path_at_which_they_are_ingested_again(
    bench: Located, pictures: Path, tmp_path: Path
) -> None:
    bench.ledger = open_ledger(tmp_path / "new.sqlite3", "faces__fake__ffffffff")
    new = tmp_path / "moved"
    pictures.rename(new)
    assert bench.run(new).done == 8
    bench.require_consistent()


def test_faces_of_an_older_index_get_the_paths_of_the_ledger(bench: Located, pictures: Path, tmp_path: Path) -> None:
    older = dict(bench.index.points)
    new = tmp_path / "moved"
    pictures.rename(new)
    (new / "more.png").write_bytes(encoded(size=(90, 48)))
    bench.run(new)
    bench.index.points = older
    bench.run(new)
    bench.require_consistent()


def _write_earlier_ledger(path: Path, catalog: Path) -> None:
    """Write the files of a catalog as version 4 of the ledger, which had no list of unsettled images."""
    with sqlite3.connect(path) as database:
        database.executescript(f"""
            ATTACH '{catalog}' AS catalog;
            CREATE TABLE files AS SELECT * FROM catalog.files;
            CREATE TABLE superseded AS SELECT * FROM catalog.superseded;
            CREATE TABLE mounts AS SELECT * FROM catalog.mounts;
            PRAGMA user_version = 4;
            DETACH catalog;
        """)
    database.close()


@pytest.mark.parametrize("how", ["upgrade", "restore"])
def test_copies_of_an_earlier_version_are_found_after_an_ingest_of_any_folder(
    bench: Located, pictures: Path, tmp_path: Path, settings: Any, how: str
) -> None:
    far, other = tmp_path / "far", tmp_path / "other"
    for folder in (far, other):
        folder.mkdir()
    shutil.copy(pictures / "0.png", far / "copy.png")
    shutil.copy(pictures / "1.png", far / "gone.png")
    bench.run(far)
    face_id, gone = bench.face(pictures / "0.png"), bench.face(pictures / "1.png")
    for name in ("0.png", "1.png"):  # earlier versions stored only the first path
        bench.index.set_paths([bench.face(pictures / name)], paths=[str(pictures / name)])
    (pictures / "1.png").unlink()
    state = settings.state_dir
    back_up(bench.ledger.database, tmp_path / "catalog.sqlite3")
    bench.ledger.close()
    (state / "catalog.sqlite3").unlink()
    earlier = state if how == "upgrade" else tmp_path
    _write_earlier_ledger(earlier / "ledger.sqlite3", tmp_path / "catalog.sqlite3")
    (tmp_path / "catalog.sqlite3").unlink()
    bench.ledger = open_ledger(state / "catalog.sqlite3", "faces__fake__ffffffff")
    if how == "restore":
        restore(bench.ledger, earlier, state)
    assert len(bench.ledger.unsettled(10)) == 2
    bench.run(other)
    assert str(far) in bench.where(face_id)[1]
    assert bench.where(gone)[0] == str(far / "gone.png")
    bench.require_consistent()


def test_a_merge_settles_images_that_both_ledgers_have_at_different_paths(
    bench: Located, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "backup").mkdir()
    back_up(bench.ledger.database, tmp_path / "backup" / "catalog.sqlite3")
    new = tmp_path / "moved"
    pictures.rename(new)
    bench.run(new)
    restore(bench.ledger, tmp_path / "backup", tmp_path)
    assert bench.ledger.totals().done == 16
    bench.run(new)
    assert bench.ledger.totals().done == 8
    bench.require_consistent()


def test_an_image_with_many_copies_is_not_settled_after_every_batch(
    bench: Located, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    for place in range(300):
        (folder / f"{place:03}.png").write_bytes(encoded())
    calls = []
    files_of = bench.ledger.files_of
    monkeypatch.setattr(bench.ledger, "files_of", lambda image_id: (calls.append(image_id), files_of(image_id))[1])
    assert bench.run(folder).duplicate == 299
    assert len(calls) < 10
    bench.require_consistent()


def test_an_ingest_settles_while_it_runs(
    bench: Located, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.library.settling._MAX_UNSETTLED", 1)
    new = tmp_path / "moved"
    pictures.rename(new)
    for place in range(50):
        shutil.copy(new / f"{place % 8}.png", new / f"z{place}.png")
    counts = bench.run(new)
    assert (counts.moved, counts.duplicate) == (8, 50)
    bench.require_consistent()


def test_visited_paths_are_told_from_others() -> None:
    visited = VisitedPaths()
    odd = os.fsdecode(b"/a/caf\xe9.png")
    assert VisitedPaths().others(["/a"]) == ["/a"]
    for path in ("/a/1.png", odd, "/a/3.png"):
        visited.add(path)
    assert visited.others(["/a/0.png", odd, "/a/2.png", "/a/3.png"]) == ["/a/0.png", "/a/2.png"]
    assert visited.others([]) == []


def test_paths_below_a_folder_come_in_pages(bench: Located) -> None:
    paths = sorted(["/a/1", "/a/2/3", "/a/4", "/a0", "/a-b/1", "/b", "/a"])
    bench.ledger.record([FileRecord(path, 1, 1, "i", "duplicate") for path in paths])
    assert [path for page in bench.ledger.paths("/a", size=2) for path in page] == ["/a/1", "/a/2/3", "/a/4"]
    assert [path for page in bench.ledger.paths("/", size=2) for path in page] == paths


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("seed", range(4))
def test_ingests_killed_at_any_call_while_files_move_end_consistent(
    bench: Located, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    archive = tmp_path / "archive"
    for place in range(12):
        path = archive / f"folder{place % 3}" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded((20 * place, 200, 30)))
    holders: list[tuple[Any, str]] = [
        *((bench.index, name) for name in ("upsert", "flush", "set_paths", "delete")),
        *((bench.ledger, name) for name in ("record", "delete_replaced")),
        (bench.thumbs, "delete"),
    ]
    left = [0]
    unknown = set[str]()

    def mortal(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            before = chance.random() < 0.5
            left[0] -= 1
            if left[0] == 0 and before:
                raise _Killed
            result = method(*args, **options)
            if left[0] == 0:
                raise _Killed
            return result

        return call

    for holder, name in holders:
        monkeypatch.setattr(holder, name, mortal(getattr(holder, name)))
    for _ in range(15):
        _change(archive, chance)
        left[0] = chance.randrange(1, 8)
        with contextlib.suppress(_Killed):
            bench.run(archive)
        unknown |= bench.unknown()  # killed before they were recorded, and perhaps deleted now
    left[0] = 0
    bench.run(archive)
    bench.run(archive)
    gone = [Path(record.path) for record in bench.ledger.files("/") if not os.path.lexists(record.path)]
    bench.require_consistent(missing=gone, unknown=unknown)
    for folder in [path for path in archive.iterdir() if not any(path.iterdir())]:
        folder.rmdir()  # it could be that of a drive
    bench.prune(archive)
    bench.require_consistent(unknown=unknown)
    assert {record.path for record in bench.ledger.files("/")} == {str(p) for p in archive.rglob("*.png")}


def _change(archive: Path, chance: random.Random) -> None:
    """Move a folder, copy, move, delete, overwrite or swap files."""
    files = sorted(archive.rglob("*.png"))
    one, other = chance.sample(files, 2)
    new = archive / f"folder{chance.randrange(100)}" / f"{chance.randrange(10_000)}.png"
    new.parent.mkdir(exist_ok=True)
    match chance.choice(["folder", "copy", "copy", "move", "delete", "write", "fail", "swap"]):
        case "folder":
            one.parent.rename(archive / f"moved{chance.randrange(10_000)}")
        case "copy":
            shutil.copy(one, new)
        case "move":
            one.rename(new)
        case "delete":
            one.unlink()
        case "write":
            one.write_bytes(encoded((chance.randrange(256), 100, 100)))
        case "fail":
            one.write_bytes(chance.randbytes(20))
        case "swap":
            first = one.read_bytes()
            one.write_bytes(other.read_bytes())
            other.write_bytes(first)


def test_an_index_that_is_unavailable_leaves_the_images_unsettled(
    bench: Located, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise OceanoError("index_unavailable", "gone")

    new = tmp_path / "moved"
    pictures.rename(new)
    with monkeypatch.context() as patch:
        patch.setattr(bench.index, "set_paths", gone)
        with pytest.raises(OceanoError):
            bench.run(new)
    assert len(bench.ledger.unsettled(10)) == 8
    assert bench.run(new).skipped == 8
    bench.require_consistent()


def test_files_of_watch_mode_are_settled_at_once(bench: Located, pictures: Path) -> None:
    """Such as a program that gives a finished file its final name."""
    final = pictures / "final.png"
    face_id = bench.face(pictures / "0.png")
    (pictures / "0.png").rename(final)
    counts = bench.ingest_files(final)
    assert (counts.moved, counts.duplicate) == (1, 0)
    assert bench.where(face_id)[0] == str(final)
    bench.require_consistent()
