"""pruning: only what is surely gone is forgotten, and names are not lost to a move."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest
from PIL import Image

from app.catalog import FileRecord, Totals
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.paths import folders_of
from app.core.types import FacePayload, face_id_of
from app.images import PreviewStore
from app.library.prune import PruneCounts, Pruning
from app.library.scan import Folder
from tests.library.test_ingest import Bench
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex
from tests.support.pictures import encoded


class Pruned(Bench):
    """An ingest with all its parts, and a pruning of them."""

    def pruning(self, folder: Path, *, dry_run: bool = False, drives: bool = False) -> Pruning:
        return Pruning(
            Folder(folder),
            self.index,
            self.ledger,
            self.thumbs,
            digest=FAKE_PACK.digest,
            dry_run=dry_run,
            drives=drives,
        )

    def prune(self, folder: Path, *, drives: bool = False) -> PruneCounts:
        """What a dry run said it would be, and that had changed nothing."""
        before = self.state()
        foretold = self.pruning(folder, dry_run=True, drives=drives).run()
        assert self.state() == before
        counts = self.pruning(folder, drives=drives).run()
        assert counts == foretold
        return counts

    def state(self) -> tuple[object, ...]:
        """All that a pruning may touch."""
        files = list(self.ledger.files("/"))
        return dict(self.index.points), files, self.ledger.replaced(), self.thumbnails()

    def thumbnails(self) -> set[str]:
        return {path.stem for path in self.thumbs._root.rglob("*.jpg")}

    def names(self) -> list[str]:
        return [Path(one.path).name for one in self.ledger.files("/")]

    def face(self, path: Path) -> str:
        """The id of the face in a file that the ledger knows."""
        known = self.ledger.file(str(path))
        assert known is not None
        return face_id_of(str(known.image_id), FAKE_PACK.digest, 0)

    def payload(self, face_id: str) -> FacePayload:
        return self.index.points[face_id].payload

    def require_sound(self, faces: int) -> None:
        """Index, ledger and thumbnails agree."""
        ids = {face_id_of(str(one.image_id), FAKE_PACK.digest, 0) for one in self.ledger.images()}
        assert ids == set(self.index.points) == self.thumbnails()
        assert len(ids) == self.ledger.totals().faces == faces
        assert self.ledger.replaced() == []


@pytest.fixture
def bench(settings: Settings, engine: FakeEngine, index: MemoryIndex) -> Pruned:
    return Pruned(settings, engine, index)


def _fail_at(monkeypatch: pytest.MonkeyPatch, call: str, path: Path, number: int) -> None:
    """Let `os.lstat` or `os.scandir` of this path fail."""
    real: Callable[..., object] = getattr(os, call)

    def failing(asked: object, *args: object, **options: object) -> object:
        if str(asked) == str(path):
            raise OSError(number, os.strerror(number))
        return real(asked, *args, **options)

    monkeypatch.setattr(f"app.library.presence.os.{call}", failing)


def test_where_nothing_is_gone_nothing_is_done(bench: Pruned, pictures: Path) -> None:
    before = bench.state()
    assert bench.prune(pictures) == PruneCounts()
    assert bench.state() == before
    bench.require_sound(8)


def test_a_deleted_file_goes_with_its_faces_its_thumbnail_and_its_result(bench: Pruned, pictures: Path) -> None:
    face_id = bench.face(pictures / "0.png")
    (pictures / "0.png").unlink()
    assert bench.prune(pictures) == PruneCounts(files=1, images=1, faces=1)
    assert face_id not in bench.index.points
    assert bench.thumbs.read(face_id) is None
    assert bench.ledger.file(str(pictures / "0.png")) is None
    bench.require_sound(7)
    assert bench.prune(pictures) == PruneCounts()
    assert bench.run(pictures).skipped == 7


def test_a_dry_run_counts_the_same_and_changes_nothing(bench: Pruned, pictures: Path) -> None:
    shutil.copy(pictures / "1.png", pictures / "copy.png")
    Image.new("RGB", (64, 64)).save(pictures / "black.png")
    (pictures / "bad.png").write_bytes(b"rubbish")
    (pictures / "7.png").write_bytes(b"cut off")
    bench.run(pictures)
    for name in ("0.png", "1.png", "black.png", "bad.png"):
        (pictures / name).unlink()
    before = bench.state()
    counts = bench.pruning(pictures, dry_run=True).run()
    assert counts == PruneCounts(files=4, images=3, faces=2, moved=1)
    assert bench.state() == before
    assert bench.pruning(pictures).run() == counts
    bench.require_sound(6)


def test_what_lies_elsewhere_is_not_looked_at(bench: Pruned, pictures: Path, tmp_path: Path) -> None:
    other = tmp_path / "pictures2"
    other.mkdir()
    (other / "1.png").write_bytes(encoded(size=(90, 48)))
    bench.run(other)
    shutil.rmtree(other)
    assert bench.prune(pictures) == PruneCounts()
    bench.require_sound(9)


def test_faces_of_a_file_that_is_gone_go_over_to_its_copy(bench: Pruned, pictures: Path) -> None:
    face_id = bench.face(pictures / "0.png")
    bench.index.set_payload([face_id], person="Ada")
    copy = pictures / "far" / "copy.png"
    copy.parent.mkdir()
    shutil.copy(pictures / "0.png", copy)
    assert bench.run(pictures).duplicate == 1
    (pictures / "0.png").unlink()
    assert bench.prune(pictures) == PruneCounts(files=1, moved=1)
    payload = bench.payload(face_id)
    assert (payload.path, payload.folder, payload.person) == (str(copy), folders_of(str(copy)), "Ada")
    known = bench.ledger.file(str(copy))
    assert known is not None
    assert (known.status, known.faces) == ("done", 1)
    bench.require_sound(8)
    seen = bench.engine.pictures
    assert bench.run(pictures).skipped == 8
    assert bench.engine.pictures == seen


def test_where_only_a_copy_is_gone_only_its_result_goes(bench: Pruned, pictures: Path) -> None:
    shutil.copy(pictures / "0.png", pictures / "copy.png")
    bench.run(pictures)
    (pictures / "copy.png").unlink()
    points = dict(bench.index.points)
    assert bench.prune(pictures) == PruneCounts(files=1)
    assert bench.index.points == points
    assert "copy.png" not in bench.names()
    bench.require_sound(8)


def test_a_picture_goes_when_it_and_all_its_copies_are_gone(bench: Pruned, pictures: Path) -> None:
    for name in ("a.png", "z.png"):
        shutil.copy(pictures / "0.png", pictures / name)
    bench.run(pictures)
    for name in ("a.png", "0.png", "z.png"):
        (pictures / name).unlink()
    assert bench.prune(pictures) == PruneCounts(files=3, images=1, faces=1)
    bench.require_sound(7)


@pytest.mark.parametrize("at_once", [1, 3, 256])
def test_copies_that_are_gone_inherit_nothing_however_many_are_forgotten_at_once(
    bench: Pruned, pictures: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("app.library.prune._BATCH_FILES", at_once)
    for place in range(8):
        shutil.copy(pictures / f"{place}.png", pictures / f"z{place}.png")
    bench.run(pictures)
    for path in [*pictures.glob("?.png"), *pictures.glob("z[0-5].png")]:
        path.unlink()
    assert bench.prune(pictures) == PruneCounts(files=14, images=6, faces=6, moved=2)
    bench.require_sound(2)


@pytest.mark.parametrize("to", ["photos/2025", "elsewhere/2025"])
def test_a_folder_that_is_moved_and_ingested_at_its_new_place_keeps_its_names(
    bench: Pruned, colour_pictures: Path, tmp_path: Path, to: str
) -> None:
    old, new = tmp_path / "photos" / "old", tmp_path / to
    for place in (old, new):
        place.parent.mkdir(exist_ok=True)
    colour_pictures.rename(old)
    (tmp_path / "photos" / "notes.txt").touch()
    bench.run(old)
    people = {face_id: f"Person {place}" for place, face_id in enumerate(bench.index.points)}
    for face_id, person in people.items():
        bench.index.set_payload([face_id], person=person)
    old.rename(new)
    assert bench.run(new).moved == 8
    assert bench.prune(tmp_path / "photos") == PruneCounts()
    assert {face_id: point.payload.person for face_id, point in bench.index.points.items()} == people
    assert {Path(point.payload.path).parent for point in bench.index.points.values()} == {new}
    assert bench.ledger.totals() == Totals(done=8, faces=8)
    bench.require_sound(8)
    assert bench.run(new).skipped == 8


def test_results_without_faces_go_with_their_files(bench: Pruned, pictures: Path) -> None:
    Image.new("RGB", (64, 64)).save(pictures / "black.png")
    (pictures / "bad.png").write_bytes(b"rubbish")
    bench.run(pictures)
    shutil.copy(pictures / "black.png", pictures / "copy.png")
    bench.run(pictures)
    (pictures / "black.png").unlink()
    (pictures / "bad.png").unlink()
    assert bench.prune(pictures) == PruneCounts(files=2, moved=1)
    assert [(Path(one.path).name, one.status) for one in bench.ledger.without_faces("/")] == [("copy.png", "no_face")]
    (pictures / "copy.png").unlink()
    assert bench.prune(pictures) == PruneCounts(files=1, images=1)
    assert list(bench.ledger.without_faces("/")) == []
    bench.require_sound(8)


def test_a_file_whose_folder_is_there_but_empty_is_kept_until_the_folder_is_gone(bench: Pruned, pictures: Path) -> None:
    stick = pictures / "stick"
    (stick / "deep").mkdir(parents=True)
    (pictures / "0.png").rename(stick / "deep" / "0.png")
    (pictures / "1.png").rename(stick / "1.png")
    bench.run(pictures)
    bench.prune(pictures)
    shutil.rmtree(stick)
    stick.mkdir()  # what the folder of a drive is while the drive is not there
    assert bench.prune(pictures) == PruneCounts(unsure=2)
    bench.require_sound(8)
    stick.rmdir()
    assert bench.prune(pictures) == PruneCounts(files=2, images=2, faces=2)
    bench.require_sound(6)


def _mount(monkeypatch: pytest.MonkeyPatch, *places: Path) -> None:
    """Let drives be mounted there, and in the root of all."""
    partition = psutil.disk_partitions(all=True)[0]
    mounted = [partition._replace(mountpoint=str(place)) for place in (Path("/"), *places)]
    monkeypatch.setattr("app.library.mounts.psutil.disk_partitions", lambda **_: mounted)


@pytest.fixture
def stick(bench: Pruned, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A drive in the folder, with one of its pictures, which is known to be there."""
    stick = pictures / "stick"
    stick.mkdir()
    (pictures / "0.png").rename(stick / "0.png")
    _mount(monkeypatch, stick)
    bench.run(pictures)
    bench.prune(pictures)
    return stick


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "a folder with something in it"])
def test_files_of_a_drive_that_is_not_mounted_are_kept_whatever_is_in_its_place(
    bench: Pruned, pictures: Path, stick: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    (stick / "deep").mkdir()
    (pictures / "1.png").rename(stick / "deep" / "1.png")
    bench.run(pictures)
    bench.prune(pictures)
    away = pictures.with_name("away")
    stick.rename(away)
    if left != "nothing":
        stick.mkdir()
    if left == "a folder with something in it":
        Image.new("RGB", (64, 64)).save(stick / "black.png")
    _mount(monkeypatch)
    bench.run(pictures)
    counts = bench.prune(pictures)
    assert counts == PruneCounts(unsure=2)
    assert counts.unsure_below == [str(stick)]
    assert len(bench.index.points) == 8
    shutil.rmtree(stick, ignore_errors=True)
    away.rename(stick)
    _mount(monkeypatch, stick)
    bench.run(pictures)
    bench.prune(pictures)
    bench.require_sound(8)


def test_files_of_a_drive_that_is_mounted_are_gone_when_they_are_also_the_last_of_them(
    bench: Pruned, pictures: Path, stick: Path
) -> None:
    (stick / "0.png").unlink()
    assert bench.prune(pictures) == PruneCounts(files=1, images=1, faces=1)
    bench.require_sound(7)


def test_files_of_a_drive_that_will_not_come_back_are_forgotten_if_that_is_said(
    bench: Pruned, pictures: Path, stick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = pictures / "empty"
    empty.mkdir()
    (pictures / "1.png").rename(empty / "1.png")
    bench.run(pictures)
    bench.prune(pictures)
    shutil.rmtree(stick)
    (empty / "1.png").unlink()
    _mount(monkeypatch)
    assert bench.prune(pictures) == PruneCounts(unsure=2)
    assert bench.prune(pictures, drives=True) == PruneCounts(files=2, images=2, faces=2)
    bench.require_sound(6)


def test_a_drive_is_known_also_where_folders_are_links_and_a_folder_above_is_pruned(
    bench: Pruned, colour_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stick, elsewhere = colour_pictures / "stick", tmp_path / "elsewhere"
    below = stick / "2024"
    below.mkdir(parents=True)
    elsewhere.mkdir()
    for number, place in enumerate((below, below, elsewhere)):
        (colour_pictures / f"{number}.png").rename(place / f"{number}.png")
    (colour_pictures / "to-the-drive").symlink_to(below)
    (stick / "from-the-drive").symlink_to(elsewhere)
    _mount(monkeypatch, stick)
    for place in (below, colour_pictures / "to-the-drive", stick / "from-the-drive"):
        bench.run(place)
    shutil.rmtree(stick)
    (colour_pictures / "to-the-drive").unlink()
    _mount(monkeypatch)
    counts = bench.prune(colour_pictures)
    assert counts == PruneCounts(unsure=5)
    assert counts.unsure_below == [str(stick), str(colour_pictures / "to-the-drive")]
    bench.require_sound(3)


def test_drives_are_noted_where_nothing_is_taken_up(
    bench: Pruned, pictures: Path, stick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _mount(monkeypatch, pictures.parent.parent, stick, pictures.with_name("pictures-too"))
    assert bench.run(pictures).skipped == 8
    assert {one.point for one in bench.ledger.mounts()} == {str(pictures.parent.parent), str(stick)}
    shutil.rmtree(stick)
    _mount(monkeypatch, pictures.parent.parent)
    assert bench.prune(pictures) == PruneCounts(unsure=1)
    bench.require_sound(8)


def test_a_drive_that_comes_and_goes_in_the_very_run_that_prunes_keeps_what_was_moved_there(
    bench: Pruned, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stick = pictures / "stick"
    stick.mkdir()
    (pictures / "0.png").rename(stick / "0.png")
    _mount(monkeypatch, stick)
    pruning = bench.pruning(pictures)
    missing = pruning.missing()
    assert bench.run(pictures).moved == 1
    shutil.rmtree(stick)
    _mount(monkeypatch)
    assert pruning.run(only=missing) == PruneCounts()
    assert bench.prune(pictures) == PruneCounts(unsure=1)
    bench.require_sound(8)


def test_where_it_cannot_be_told_what_is_mounted_the_files_of_drives_are_kept(
    bench: Pruned, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _mount(monkeypatch, pictures)
    bench.run(pictures)
    (pictures / "0.png").unlink()

    def hidden(**_: object) -> None:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr("app.library.mounts.psutil.disk_partitions", hidden)
    assert bench.run(pictures).skipped == 7
    assert bench.prune(pictures) == PruneCounts(unsure=1)


def test_a_real_drive_that_is_not_mounted_any_more_keeps_its_faces(bench: Pruned, pictures: Path) -> None:
    stick = pictures / "stick"
    stick.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "none", stick], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    try:
        for number in (1, 2):
            (stick / f"{number}.png").write_bytes(encoded(size=(90, 48 + number)))
        assert bench.run(pictures).done == 2
        (stick / "1.png").unlink()
        assert bench.prune(pictures) == PruneCounts(files=1, images=1, faces=1)
    finally:
        subprocess.run(["umount", stick], check=True)
    stick.rmdir()
    assert bench.prune(pictures) == PruneCounts(unsure=1)
    bench.require_sound(9)


def test_a_copy_whose_picture_was_forgotten_meanwhile_is_taken_up_again(bench: Pruned, pictures: Path) -> None:
    """While a prune looks, the copy is moved out of its sight, and then comes back."""
    copy = pictures / "zzz" / "copy.png"
    copy.parent.mkdir()
    shutil.copy(pictures / "0.png", copy)
    (copy.parent / "other.txt").touch()
    assert bench.run(pictures).duplicate == 1
    (pictures / "0.png").unlink()
    pruning = bench.pruning(pictures)
    missing = pruning.missing()
    away = copy.rename(pictures.with_name("away.png"))
    pruning.run(only=missing)
    away.rename(copy)
    assert bench.run(pictures).done == 1
    bench.prune(pictures)
    bench.require_sound(8)


def test_all_files_of_a_drive_that_is_not_there_are_kept(bench: Pruned, pictures: Path) -> None:
    pictures.rename(pictures.with_name("away"))
    pictures.mkdir()
    assert bench.prune(pictures) == PruneCounts(unsure=8)
    bench.require_sound(8)


def test_a_file_whose_folder_cannot_be_listed_is_kept(
    bench: Pruned, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = pictures / "below"
    below.mkdir()
    (pictures / "0.png").rename(below / "0.png")
    (below / "other.txt").touch()
    bench.run(pictures)
    bench.prune(pictures)
    (below / "0.png").unlink()
    with monkeypatch.context() as patch:
        _fail_at(patch, "scandir", below, errno.EACCES)
        assert bench.prune(pictures) == PruneCounts(unsure=1)
    assert bench.prune(pictures) == PruneCounts(files=1, images=1, faces=1)


def test_files_below_a_folder_that_became_a_file_are_gone(bench: Pruned, pictures: Path) -> None:
    below = pictures / "below"
    below.mkdir()
    (below / "new.png").write_bytes(encoded(size=(90, 48)))
    bench.run(pictures)
    shutil.rmtree(below)
    below.touch()
    assert bench.prune(pictures) == PruneCounts(files=1, images=1, faces=1)
    bench.require_sound(8)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENOTCONN, errno.ELOOP])
def test_a_file_that_cannot_be_looked_at_is_kept(
    bench: Pruned, pictures: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (pictures / "1.png").unlink()
    _fail_at(monkeypatch, "lstat", pictures / "0.png", number)
    assert bench.prune(pictures) == PruneCounts(files=1, images=1, faces=1)
    assert "0.png" in bench.names()
    bench.require_sound(7)


def test_a_link_that_leads_nowhere_is_kept(bench: Pruned, pictures: Path, tmp_path: Path) -> None:
    (pictures / "0.png").rename(tmp_path / "0.png")
    (pictures / "0.png").symlink_to(tmp_path / "0.png")
    (tmp_path / "0.png").unlink()
    assert bench.prune(pictures) == PruneCounts()


def _go_away(folder: Path, left_behind: str) -> None:
    folder.rename(folder.with_name("away"))
    if left_behind != "nothing":
        folder.mkdir()
    if left_behind == "another folder":
        (folder / "notes.txt").touch()


def test_a_folder_that_is_gone_is_not_pruned(bench: Pruned, pictures: Path) -> None:
    before = bench.state()
    pictures.rename(pictures.with_name("away"))
    with pytest.raises(OceanoError) as raised:
        bench.pruning(pictures)
    assert raised.value.code == "folder_unavailable"
    assert bench.state() == before


@pytest.mark.parametrize("left_behind", ["nothing", "another folder"])
def test_a_folder_that_goes_away_or_becomes_another_one_is_not_pruned(
    bench: Pruned, pictures: Path, left_behind: str
) -> None:
    before = bench.state()
    pruning = bench.pruning(pictures)
    _go_away(pictures, left_behind)
    with pytest.raises(OceanoError) as raised:
        pruning.run()
    assert raised.value.code == "folder_unavailable"
    assert bench.state() == before


@pytest.mark.parametrize("left_behind", ["nothing", "an empty folder", "another folder"])
def test_images_that_were_superseded_stay_while_the_folder_is_away(
    bench: Pruned, pictures: Path, left_behind: str
) -> None:
    shutil.copy(pictures / "0.png", pictures / "copy.png")
    bench.run(pictures)
    (pictures / "0.png").write_bytes(encoded(size=(90, 48)))
    bench.run(pictures)
    before = bench.state()
    pruning = bench.pruning(pictures)
    _go_away(pictures, left_behind)
    with pytest.raises(OceanoError) as raised:
        pruning.run()
    assert raised.value.code == "folder_unavailable"
    assert bench.state() == before


@pytest.mark.parametrize("left_behind", ["nothing", "another folder"])
def test_a_folder_that_goes_away_half_way_loses_nothing_more(
    bench: Pruned, pictures: Path, monkeypatch: pytest.MonkeyPatch, left_behind: str
) -> None:
    monkeypatch.setattr("app.library.prune._BATCH_FILES", 2)
    for name in ("0.png", "1.png", "2.png"):
        (pictures / name).unlink()
    record = bench.ledger.record

    def record_and_go(records: Sequence[FileRecord], *, delete: Sequence[str] = ()) -> None:
        record(records, delete=delete)
        _go_away(pictures, left_behind)

    monkeypatch.setattr(bench.ledger, "record", record_and_go)
    with pytest.raises(OceanoError) as raised:
        bench.pruning(pictures).run()
    assert raised.value.code == "folder_unavailable"
    assert bench.names() == ["2.png", "3.png", "4.png", "5.png", "6.png", "7.png"]
    bench.require_sound(6)


def test_the_faces_that_a_file_had_before_it_changed_go_and_those_that_it_has_stay(
    bench: Pruned, pictures: Path
) -> None:
    old = bench.face(pictures / "0.png")
    (pictures / "0.png").write_bytes(b"cut off")
    assert bench.run(pictures).failed == 1
    assert old in bench.index.points
    assert bench.prune(pictures) == PruneCounts(images=1, faces=1)
    assert old not in bench.index.points
    assert bench.thumbs.read(old) is None
    (pictures / "0.png").write_bytes(encoded(size=(90, 48)))
    assert bench.run(pictures).done == 1
    assert bench.payload(bench.face(pictures / "0.png")).path == str(pictures / "0.png")
    bench.require_sound(8)


def test_a_changed_file_whose_former_picture_lives_on_in_a_copy_leaves_its_faces_to_it(
    bench: Pruned, pictures: Path
) -> None:
    shutil.copy(pictures / "0.png", pictures / "copy.png")
    bench.run(pictures)
    old = bench.face(pictures / "0.png")
    bench.index.set_payload([old], person="Ada")
    (pictures / "0.png").write_bytes(encoded(size=(90, 48)))
    bench.run(pictures)
    assert bench.prune(pictures) == PruneCounts()
    assert (bench.payload(old).path, bench.payload(old).person) == (str(pictures / "copy.png"), "Ada")
    known = bench.ledger.file(str(pictures / "copy.png"))
    assert known is not None
    assert (known.status, known.faces) == ("done", 1)
    bench.require_sound(9)
    assert bench.run(pictures).skipped == 9


def test_a_changed_file_whose_former_picture_came_back_elsewhere_leaves_its_faces_to_it(
    bench: Pruned, pictures: Path
) -> None:
    old = bench.face(pictures / "0.png")
    bench.index.set_payload([old], person="Ada")
    former = (pictures / "0.png").read_bytes()
    (pictures / "0.png").write_bytes(b"cut off")
    bench.run(pictures)
    (pictures / "back.png").write_bytes(former)
    assert bench.run(pictures).done == 1
    assert bench.prune(pictures) == PruneCounts()
    assert (bench.payload(old).path, bench.payload(old).person) == (str(pictures / "back.png"), "Ada")
    bench.require_sound(8)


def test_a_former_picture_that_came_back_and_went_again_is_counted_once(bench: Pruned, pictures: Path) -> None:
    former = (pictures / "0.png").read_bytes()
    (pictures / "0.png").write_bytes(b"cut off")
    bench.run(pictures)
    (pictures / "back.png").write_bytes(former)
    bench.run(pictures)
    (pictures / "back.png").unlink()
    assert bench.prune(pictures) == PruneCounts(files=1, images=1, faces=1)
    bench.require_sound(7)


def test_two_files_that_swapped_their_pictures_keep_both(bench: Pruned, pictures: Path) -> None:
    one, other = pictures / "0.png", pictures / "1.png"
    faces = {bench.face(one), bench.face(other)}
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    bench.run(pictures)
    bench.prune(pictures)
    assert faces <= set(bench.index.points)
    assert {bench.payload(bench.face(path)).path for path in (one, other)} == {str(one), str(other)}
    bench.require_sound(8)


def test_a_copy_where_a_drive_may_be_keeps_the_faces(bench: Pruned, pictures: Path) -> None:
    stick = pictures / "stick"
    stick.mkdir()
    shutil.copy(pictures / "0.png", stick / "0.png")
    assert bench.run(pictures).duplicate == 1
    face_id = bench.face(pictures / "0.png")
    (pictures / "0.png").unlink()
    away = pictures.with_name("away")
    stick.rename(away)
    stick.mkdir()
    assert bench.prune(pictures) == PruneCounts(files=1, moved=1, unsure=1)
    stick.rmdir()
    away.rename(stick)
    assert bench.run(pictures).skipped == 8
    assert bench.payload(face_id).path == str(stick / "0.png")
    bench.require_sound(8)


def test_a_copy_elsewhere_keeps_the_faces_even_while_it_is_not_there(
    bench: Pruned, pictures: Path, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    shutil.copytree(pictures, backup)
    bench.run(backup)
    backup.rename(tmp_path / "away")
    (pictures / "0.png").unlink()
    assert bench.prune(pictures) == PruneCounts(files=1, moved=1)
    (tmp_path / "away").rename(backup)
    assert bench.run(backup).skipped == 8
    bench.require_sound(8)
    assert bench.payload(bench.face(backup / "0.png")).path == str(backup / "0.png")


def test_killed_before_the_ledger_knows_it_ends_the_same_when_run_again(
    bench: Pruned, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    face_id = bench.face(pictures / "1.png")
    shutil.copy(pictures / "1.png", pictures / "copy.png")
    bench.run(pictures)
    (pictures / "0.png").unlink()
    (pictures / "1.png").unlink()

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bench.ledger, "record", die)
        with pytest.raises(KeyboardInterrupt):
            bench.pruning(pictures).run()
    assert len(bench.index.points) == 7
    assert {"0.png", "1.png"} <= set(bench.names())
    assert bench.prune(pictures) == PruneCounts(files=2, images=1, faces=1, moved=1)
    assert bench.payload(face_id).path == str(pictures / "copy.png")
    bench.require_sound(7)
    assert bench.run(pictures).skipped == 7


def test_killed_before_a_superseded_image_is_settled_it_ends_the_same_when_run_again(
    bench: Pruned, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pictures / "0.png").write_bytes(b"cut off")
    bench.run(pictures)

    def die(_: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bench.ledger, "delete_replaced", die)
        with pytest.raises(KeyboardInterrupt):
            bench.pruning(pictures).run()
    bench.prune(pictures)
    bench.require_sound(7)


def test_an_index_that_is_gone_keeps_the_results(
    bench: Pruned, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: Sequence[str]) -> None:
        raise OceanoError("index_unavailable", "gone")

    (pictures / "0.png").unlink()
    before = bench.state()
    with monkeypatch.context() as patch:
        patch.setattr(bench.index, "delete", gone)
        with pytest.raises(OceanoError) as raised:
            bench.pruning(pictures).run()
    assert raised.value.code == "index_unavailable"
    assert bench.state()[:3] == before[:3], "only the thumbnail went"
    bench.prune(pictures)
    bench.require_sound(7)


def test_more_files_than_are_forgotten_at_once_are_all_forgotten(bench: Pruned, pictures: Path) -> None:
    gone = [str(pictures / f"{letter}{place:04}.png") for letter in "-z" for place in range(600)]
    bench.ledger.record([FileRecord(path, 1, 1, f"{place:064x}", "done", 1) for place, path in enumerate(gone)])
    assert bench.prune(pictures) == PruneCounts(files=1200, images=1200, faces=1200)
    assert bench.names() == [f"{place}.png" for place in range(8)]
    bench.require_sound(8)


def test_what_went_away_after_the_look_is_not_forgotten(bench: Pruned, pictures: Path) -> None:
    (pictures / "0.png").unlink()
    pruning = bench.pruning(pictures)
    missing = pruning.missing()
    (pictures / "1.png").unlink()  # moved, perhaps, to where the ingest had been already
    assert pruning.run(only=missing) == PruneCounts(files=1, images=1, faces=1)
    assert bench.prune(pictures) == PruneCounts(files=1, images=1, faces=1)
    bench.require_sound(6)


def test_a_prune_of_one_folder_leaves_the_changed_files_of_another_alone(bench: Pruned, pictures: Path) -> None:
    other = pictures.with_name("other")
    other.mkdir()
    changed = other / "0.png"
    (pictures / "0.png").rename(changed)
    bench.run(other)
    bench.prune(pictures)
    changed.write_bytes(b"cut off")
    bench.run(other)
    assert len(bench.ledger.replaced(str(other))) == 1
    assert bench.prune(pictures).faces == 0
    assert len(bench.ledger.replaced(str(other))) == 1
    assert bench.prune(other).faces == 1


def test_the_previews_of_a_deleted_image_go_with_it_and_those_of_others_stay(bench: Pruned, pictures: Path) -> None:
    bench.run(pictures)
    files = [one for one in bench.ledger.files("/") if one.status == "done"]
    gone, kept = str(files[0].image_id), str(files[1].image_id)
    previews = PreviewStore(bench.thumbs.previews, max_bytes=1_000_000)
    for image_id in (gone, kept):
        previews.write(image_id, 640, b"jpeg")
        previews.write(image_id, 1280, b"jpeg", page=2)
    Path(files[0].path).unlink()
    bench.pruning(pictures).run()
    assert previews.read(gone, 640) is None
    assert previews.read(gone, 1280, page=2) is None
    assert previews.read(kept, 640) == previews.read(kept, 1280, page=2) == b"jpeg"


def test_thumbnails_that_cannot_be_deleted_keep_the_faces(
    bench: Pruned, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    (pictures / "0.png").unlink()
    before = bench.state()
    with monkeypatch.context() as patch:
        patch.setattr("app.images.thumbnails.os.unlink", refuse)
        with pytest.raises(OceanoError) as raised:
            bench.pruning(pictures).run()
    assert raised.value.code == "thumbs_unavailable"
    assert bench.state() == before
