"""folders: what lies below a folder, as a stream."""

from __future__ import annotations

import errno
import itertools
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from app.core.errors import OceanoError
from app.core.paths import readable
from app.core.types import File
from app.library.scan import Folder, PathFilter, contents, file_at


def _file(path: Path) -> File:
    status = path.stat()
    return File(str(path), status.st_size, status.st_mtime_ns)


def _names(folder: Path) -> list[str]:
    return [os.path.relpath(file.path, folder) for file in Folder(folder).scan()]


def test_files_come_from_all_depths_a_folder_s_own_before_those_below(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "a/9.jpg", "a/deep/er/1.jpg", "z.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert _names(tmp_path) == ["z.jpg", "a/9.jpg", "a/deep/er/1.jpg", "b/2.jpg"]


def test_paths_are_absolute_even_for_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1.jpg").touch()
    monkeypatch.chdir(tmp_path)
    assert [file.path for file in Folder(Path()).scan()] == [str(tmp_path / "1.jpg")]


def test_two_slashes_at_the_beginning_are_the_same_folder(tmp_path: Path) -> None:
    assert Folder(Path(f"/{tmp_path}")).path == str(tmp_path)
    assert Folder(Path("//")).path == "/"


def test_a_link_to_a_folder_is_not_followed_so_loops_end(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert _names(tmp_path) == ["a/1.jpg"]


def test_a_link_to_a_file_is_that_file_and_a_dangling_one_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"12345")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "1.jpg")
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "gone")
    found = {(Path(file.path).name, file.size) for file in Folder(tmp_path).scan()}
    assert found == {("1.jpg", 5), ("link.jpg", 5)}


def test_pipes_and_resource_forks_are_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "._photo.jpg").touch()
    assert _names(tmp_path) == []


def test_a_folder_below_that_cannot_be_listed_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/1.jpg", "b/2.jpg", "c/3.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    _break(monkeypatch, tmp_path / "b", PermissionError(errno.EACCES, "Permission denied"))
    assert _names(tmp_path) == ["a/1.jpg", "c/3.jpg"]


def _break(monkeypatch: pytest.MonkeyPatch, folder: Path, failure: OSError) -> None:
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path) == str(folder):
            raise failure
        return real(path)

    monkeypatch.setattr("app.library.scan.os.scandir", scandir)


def test_a_folder_that_is_not_there_is_no_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(OceanoError) as raised:
        Folder(tmp_path / "gone")
    assert raised.value.code == "folder_unavailable"


def test_a_drive_that_goes_away_half_way_is_an_error_not_the_end_of_the_files(tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    for name in ("a", "b"):
        (drive / name).mkdir(parents=True)
        (drive / name / "1.jpg").touch()
    files = Folder(drive).scan()
    next(files)
    drive.rename(tmp_path / "elsewhere")
    drive.mkdir()  # what a mount leaves behind: the empty folder it was mounted on
    with pytest.raises(OceanoError) as raised:
        list(files)
    assert raised.value.code == "folder_unavailable"


def test_a_network_that_does_not_answer_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    folder = Folder(tmp_path)
    _break(monkeypatch, tmp_path / "a", OSError(errno.EHOSTDOWN, "Host is down"))
    with pytest.raises(OceanoError) as raised:
        list(folder.scan())
    assert raised.value.code == "folder_unavailable"
    assert "Host is down" in raised.value.message


def test_a_million_files_are_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1.jpg").touch()

    class Many:
        """A folder with a file again and again."""

        def __enter__(self) -> Iterator[os.DirEntry[str]]:
            with os.scandir(tmp_path) as listing:
                (entry,) = listing
            return itertools.repeat(entry, 1_000_000)

        def __exit__(self, *_: object) -> None: ...

    folder = Folder(tmp_path)
    with monkeypatch.context() as patch:
        real = os.scandir
        first = [True]
        patch.setattr("app.library.scan.os.scandir", lambda path: Many() if first and first.pop() else real(path))
        tracemalloc.start()
        assert sum(1 for _ in itertools.islice(folder.scan(), 50_000)) == 50_000
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    ("include", "exclude", "taken"),
    [
        ((), (), ["1.jpg", "2.JPG", "3.png", "2024/4.jpg", "2024/raw/5.jpg", "cache/6.jpg"]),
        (("*.jpg",), (), ["1.jpg", "2.JPG", "2024/4.jpg", "2024/raw/5.jpg", "cache/6.jpg"]),
        (("2024/*",), (), ["2024/4.jpg", "2024/raw/5.jpg"]),
        (("*.jpg", "*.png"), ("cache", "raw/"), ["1.jpg", "2.JPG", "3.png", "2024/4.jpg"]),
        ((), ("2024/raw", "?.png"), ["1.jpg", "2.JPG", "2024/4.jpg", "cache/6.jpg"]),
        (("nothing",), (), []),
    ],
)
def test_patterns_say_which_files_are_wanted(
    tmp_path: Path, include: tuple[str, ...], exclude: tuple[str, ...], taken: list[str]
) -> None:
    for name in ("1.jpg", "2.JPG", "3.png", "2024/4.jpg", "2024/raw/5.jpg", "cache/6.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = Folder(tmp_path).scan(PathFilter(include, exclude))
    assert sorted(os.path.relpath(file.path, tmp_path) for file in found) == sorted(taken)


def test_what_is_excluded_is_not_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").mkdir()
    folder = Folder(tmp_path)
    _break(monkeypatch, tmp_path / "cache", AssertionError("entered"))  # type: ignore[arg-type]
    assert list(folder.scan(PathFilter(exclude=["cache"]))) == []


def test_a_file_that_changed_since_it_was_listed_says_so(tmp_path: Path) -> None:
    path = tmp_path / "1.png"
    Image.new("RGB", (4, 4)).save(path)
    listed = _file(path)
    Image.new("RGB", (40, 40)).save(path)
    with pytest.raises(OceanoError) as raised:
        contents(listed)
    assert raised.value.code == "changed_while_read"


def test_a_picture_is_known_by_its_content_not_by_its_name(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "picture.txt", "PNG")
    assert contents(_file(tmp_path / "picture.txt")) == (tmp_path / "picture.txt").read_bytes()


def test_a_text_is_none_of_ours_but_rubbish_called_a_picture_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert contents(_file(tmp_path / "notes.txt")) is None
    (tmp_path / "broken.JPG").write_text("hello")
    with pytest.raises(OceanoError) as raised:
        contents(_file(tmp_path / "broken.JPG"))
    assert raised.value.code == "unsupported_image"
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(OceanoError) as raised:
        contents(_file(tmp_path / "empty.jpg"))
    assert raised.value.code == "invalid_image"


def test_a_name_in_any_encoding_can_be_said_in_json(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    Path(os.fsdecode(raw)).touch()
    (found,) = Folder(tmp_path).scan()
    assert os.fsencode(found.path) == raw
    assert readable(found.path) == f"{tmp_path}/caf\\xe9.jpg"
    assert readable(f"{tmp_path}/café.jpg") == f"{tmp_path}/café.jpg"


def test_a_file_that_became_a_pipe_since_it_was_listed_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    listed = file_at(str(path))
    assert listed is not None
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OceanoError) as caught:
        contents(listed)
    assert caught.value.code == "invalid_image"


MADE_BY_SYSTEMS = [
    "@eaDir/1.jpg/SYNOPHOTO_THUMB_XL.jpg", "@__thumb/1.jpg", "#recycle/1.jpg", "$Recycle.Bin/S-1/1.jpg",
    ".Trash-1000/files/1.jpg", ".Trash/1.jpg", ".thumbnails/1.png", ".AppleDouble/1.jpg",
    "System Volume Information/1.jpg", "lost+found/1.jpg", "Catalog Previews.lrdata/0/1.jpg", ".dropbox.cache/1.jpg",
    ".stversions/1.jpg", "Mine.photoslibrary/resources/derivatives/1.jpg",
    ".syncthing.1.jpg.tmp", "1.jpg.part", "1.jpg.crdownload", ".~lock.1.jpg#", "._1.jpg", ".1.jpg.Ab3dE6",
]  # fmt: skip
KEPT = ["1.jpg", ".hidden/1.jpg", "deep/2.part.jpg", "Mine.photoslibrary/originals/0/1.jpg", "recycle/1.jpg"]


def test_what_systems_make_is_left_out_and_counted(tmp_path: Path) -> None:
    for name in (*MADE_BY_SYSTEMS, *(f"deep/{name}" for name in MADE_BY_SYSTEMS), *KEPT):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    folder = Folder(tmp_path)
    for _ in ("once", "again: each is counted once"):
        assert {os.path.relpath(file.path, tmp_path) for file in folder.scan()} == set(KEPT)
        assert (len(folder.system_folders), len(folder.system_files)) == (2 * 14, 2 * 6)
    everything = {os.path.relpath(file.path, tmp_path) for file in folder.scan(PathFilter(system=True))}
    forks = {"._1.jpg", "deep/._1.jpg"}
    assert everything == {*KEPT, *MADE_BY_SYSTEMS, *(f"deep/{name}" for name in MADE_BY_SYSTEMS)} - forks


def test_a_system_folder_that_is_named_itself_is_taken(tmp_path: Path) -> None:
    (tmp_path / "#recycle").mkdir()
    (tmp_path / "#recycle" / "1.jpg").touch()
    assert _names(tmp_path / "#recycle") == ["1.jpg"]


def test_links_to_folders_are_counted(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "links" / "a").mkdir(parents=True)
    (tmp_path / "links" / "to").symlink_to(tmp_path / "real")
    (tmp_path / "links" / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "links" / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "links" / "itself").symlink_to(tmp_path / "links" / "itself")
    folder = Folder(tmp_path / "links")
    assert list(folder.scan()) == []
    assert folder.unlisted == 0
    assert folder.linked_folders == {str(tmp_path / "links" / "to"), str(tmp_path / "links" / "a" / "up")}


def test_a_file_in_place_of_a_folder_is_the_only_one(tmp_path: Path) -> None:
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).touch()
    folder = Folder(tmp_path / "2.jpg")
    assert folder.path == str(tmp_path)
    assert [file.path for file in folder.scan()] == [str(tmp_path / "2.jpg")]
