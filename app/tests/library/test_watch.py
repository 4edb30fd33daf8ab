"""watching: files are told once they are whole, and once only. With the system's own notifications."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from app.core.errors import OceanoError
from app.core.types import File
from app.library import watch as library_watch
from app.library.scan import EVERYTHING, Folder, PathFilter, file_at
from tests.support.pictures import encoded

SETTLED = 0.2  # seconds
PATIENCE = 10.0  # seconds; what is waited for comes far sooner


class Watch:
    """Arrivals, taken by a thread."""

    def __init__(self, folder: Path, wanted: PathFilter) -> None:
        self.folder = folder
        self.lists: list[list[File]] = []
        self.failure: OceanoError | None = None
        self.stop = Event()
        self._coming = library_watch.Watch(Folder(folder), self.stop, wanted).arrivals()
        self._thread = Thread(target=self._take)
        self._thread.start()
        self.until(lambda: bool(self.lists))

    def _take(self) -> None:
        try:
            for files in self._coming:
                self.lists.append(files)
        except OceanoError as failure:
            self.failure = failure

    @property
    def told(self) -> list[str]:
        """Paths below the folder, in the order in which they came."""
        return [os.path.relpath(file.path, self.folder) for files in self.lists for file in files]

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, f"told in {PATIENCE} s: {self.told}"
            time.sleep(0.01)

    def expect(self, *paths: str) -> None:
        """These and no others, whatever the order; a last file shows that what came before has been told."""
        last = f"last{len(self.lists)}.png"
        (self.folder / last).touch()
        self.until(lambda: last in self.told)
        assert sorted(path for path in self.told if not path.startswith("last")) == sorted(paths)

    def end(self) -> None:
        self.stop.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@pytest.fixture
def watching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Watch]]:
    """Begin to watch `tmp_path/watched`, which then is being watched."""
    monkeypatch.setattr("app.library.watch.STABLE_SECONDS", SETTLED)
    monkeypatch.setattr("app.library.watch._TICK_MS", 30)
    (tmp_path / "watched").mkdir()
    begun: list[Watch] = []

    def begin(wanted: PathFilter = EVERYTHING) -> Watch:
        begun.append(Watch(tmp_path / "watched", wanted))
        return begun[-1]

    yield begin
    for watch in begun:
        watch.end()


def test_the_first_list_is_empty_and_what_lies_there_is_not_told(
    watching: Callable[..., Watch], tmp_path: Path
) -> None:
    (tmp_path / "watched" / "1.png").write_bytes(b"1")
    watch = watching()
    assert watch.lists[0] == []
    watch.expect()


def test_a_file_that_comes_is_told_once_it_has_settled(watching: Callable[..., Watch]) -> None:
    watch = watching()
    began = time.monotonic()
    (watch.folder / "1.png").write_bytes(b"picture")
    watch.until(lambda: watch.told == ["1.png"])
    assert time.monotonic() - began >= SETTLED
    (told,) = [file for files in watch.lists for file in files]
    assert told == file_at(str(watch.folder / "1.png"))
    watch.expect("1.png")


def test_what_comes_at_once_comes_together(watching: Callable[..., Watch]) -> None:
    watch = watching()
    for place in range(50):
        (watch.folder / f"{place}.png").touch()
    watch.until(lambda: len(watch.told) == 50)
    assert len([files for files in watch.lists if files]) < 10


def test_a_file_that_is_written_slowly_is_told_once_and_whole(
    watching: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.library.watch.STABLE_SECONDS", 0.6)
    watch = watching()
    with (watch.folder / "slow.png").open("wb") as file:
        for _ in range(10):
            file.write(b"0123456789")
            file.flush()
            time.sleep(0.08)
    watch.expect("slow.png")
    assert next(file.size for files in watch.lists for file in files) == 100


def test_a_file_that_is_written_again_is_told_again(watching: Callable[..., Watch]) -> None:
    watch = watching()
    (watch.folder / "1.png").write_bytes(b"1")
    watch.until(lambda: watch.told == ["1.png"])
    (watch.folder / "1.png").write_bytes(b"22")
    watch.expect("1.png", "1.png")


def test_files_and_folders_that_are_moved_in_are_told(watching: Callable[..., Watch], tmp_path: Path) -> None:
    watch = watching()
    (tmp_path / "1.png").touch()
    (tmp_path / "event" / "deep" / "er").mkdir(parents=True)
    for name in ("2.png", "deep/3.png", "deep/er/4.png"):
        (tmp_path / "event" / name).touch()
    (tmp_path / "1.png").rename(watch.folder / "1.png")
    (tmp_path / "event").rename(watch.folder / "event")
    watch.expect("1.png", "event/2.png", "event/deep/3.png", "event/deep/er/4.png")
    (watch.folder / "event" / "deep" / "er" / "5.png").touch()
    watch.until(lambda: "event/deep/er/5.png" in watch.told)


def test_a_folder_that_is_copied_in_is_told_whole(watching: Callable[..., Watch], tmp_path: Path) -> None:
    names = [f"{folder}/{place}.png" for folder in ("a", "a/b", "a/b/c") for place in range(20)]
    for name in names:
        (tmp_path / "event" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "event" / name).touch()
    watch = watching()
    shutil.copytree(tmp_path / "event", watch.folder / "event")
    watch.until(lambda: len(set(watch.told)) == len(names))
    assert set(watch.told) == {f"event/{name}" for name in names}


def test_what_is_not_wanted_is_not_told(watching: Callable[..., Watch], tmp_path: Path) -> None:
    (tmp_path / "watched" / "cache" / "deep").mkdir(parents=True)
    (tmp_path / "moved" / "cache").mkdir(parents=True)
    for name in ("moved/1.png", "moved/cache/2.png", "moved/notes.txt"):
        (tmp_path / name).touch()
    watch = watching(PathFilter(include=["*.png"], exclude=["cache", "raw*"]))
    for name in ("yes.png", "no.txt", "raw1.png", "cache/3.png", "cache/deep/4.png"):
        (watch.folder / name).touch()
    (tmp_path / "moved").rename(watch.folder / "moved")
    shutil.copytree(watch.folder / "moved", watch.folder / "raws")
    watch.expect("yes.png", "moved/1.png")


def test_what_a_scan_would_not_come_to_is_not_told(watching: Callable[..., Watch], tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "watched" / "link").symlink_to(outside)
    watch = watching()
    (outside / "1.png").touch()
    (watch.folder / "another").symlink_to(outside)
    (watch.folder / "link.png").symlink_to(outside / "1.png")
    (watch.folder / "nowhere.png").symlink_to(outside / "gone.png")
    (watch.folder / "._fork.png").touch()
    os.mkfifo(watch.folder / "pipe.png")
    watch.expect("link.png")


def test_what_is_deleted_or_moved_out_says_nothing(watching: Callable[..., Watch], tmp_path: Path) -> None:
    for name in ("1.png", "2.png", "folder/3.png"):
        (tmp_path / "watched" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "watched" / name).touch()
    watch = watching()
    (watch.folder / "short.png").touch()
    (watch.folder / "1.png").unlink()
    (watch.folder / "2.png").rename(tmp_path / "2.png")
    shutil.rmtree(watch.folder / "folder")
    (watch.folder / "short.png").unlink()
    watch.expect()


def test_a_name_in_any_encoding_ends_nothing(watching: Callable[..., Watch]) -> None:
    watch = watching()
    odd = os.fsdecode(b"caf\xe9.png")
    (watch.folder / odd).touch()
    (watch.folder / "beside.png").touch()
    watch.until(lambda: {odd, "beside.png"} <= set(watch.told))
    (watch.folder / "later.png").touch()
    watch.until(lambda: "later.png" in watch.told)


def test_a_stop_ends_it(watching: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.library.watch.STABLE_SECONDS", PATIENCE)
    watch = watching()
    (watch.folder / "unsettled.png").touch()
    began = time.monotonic()
    watch.end()
    assert time.monotonic() - began < PATIENCE / 2
    assert (watch.failure, watch.told) == (None, [])


@pytest.mark.parametrize("left_behind", [False, True], ids=["nothing", "an-empty-folder"])
def test_a_folder_that_goes_away_ends_it(watching: Callable[..., Watch], tmp_path: Path, left_behind: bool) -> None:
    watch = watching()
    watch.folder.rename(tmp_path / "away")
    if left_behind:
        watch.folder.mkdir()
    watch.until(lambda: watch.failure is not None)
    assert watch.failure is not None
    assert watch.failure.code == "folder_unavailable"


def test_a_system_that_watches_no_more_folders_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "OS file watch limit reached.")

    monkeypatch.setattr("app.library.watch.watch", full)
    with pytest.raises(OceanoError, match="max_user_watches") as raised:
        next(library_watch.Watch(Folder(tmp_path), Event()).arrivals())
    assert raised.value.code == "folder_unavailable"


def test_what_systems_make_is_not_told(watching: Callable[..., Watch]) -> None:
    (watching_folder := watching()).folder.joinpath("@eaDir").mkdir()
    for name in ("@eaDir/1.png", ".syncthing.2.png.tmp", "3.png.part"):
        (watching_folder.folder / name).touch()
    time.sleep(3 * SETTLED)
    (watching_folder.folder / ".syncthing.2.png.tmp").rename(watching_folder.folder / "2.png")
    watching_folder.expect("2.png")


@pytest.fixture
def writing() -> Iterator[Callable[[Path], subprocess.Popen[bytes]]]:
    """Keep a file open for writing in another process."""
    begun: list[subprocess.Popen[bytes]] = []

    def begin(path: Path) -> subprocess.Popen[bytes]:
        with path.open("ab") as file:
            begun.append(subprocess.Popen(["/bin/sleep", "60"], stdout=file))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.wait()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.library.watch._CHECK_SECONDS", 0.1)


@pytest.mark.usefixtures("impatient")
def test_a_stalled_upload_is_reported_once_when_it_is_closed(
    watching: Callable[..., Watch], writing: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    watch = watching()
    upload = watch.folder / "1.jpg"
    writer = writing(upload)
    time.sleep(4 * SETTLED)
    assert watch.told == []
    upload.write_bytes(b"all of it")
    writer.kill()
    watch.expect("1.jpg")
    assert next(file.size for files in watch.lists for file in files) == len(b"all of it")


@pytest.mark.usefixtures("impatient")
def test_a_temporary_name_is_not_reported_if_it_is_renamed_at_the_end(
    watching: Callable[..., Watch], writing: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    watch = watching()
    writer = writing(watch.folder / "1.jpg-upload")
    time.sleep(3 * SETTLED)
    writer.kill()
    (watch.folder / "1.jpg-upload").rename(watch.folder / "1.jpg")
    watch.expect("1.jpg")


@pytest.mark.usefixtures("impatient")
def test_a_file_that_stays_open_is_reported_in_the_end(
    watching: Callable[..., Watch],
    writing: Callable[[Path], subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("app.library.watch.OPEN_SECONDS", 0.8)
    watch = watching()
    began = time.monotonic()
    writing(watch.folder / "1.jpg")
    watch.until(lambda: watch.told == ["1.jpg"])
    assert time.monotonic() - began >= 0.8
    assert "still has it open for writing" in caplog.text


@pytest.mark.usefixtures("impatient")
def test_a_cut_off_picture_waits_longer(watching: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.library.watch.CUT_OFF_SECONDS", 0.9)
    watch = watching()
    whole = encoded(size=(300, 300), kind="JPEG")
    (watch.folder / "stalled.jpg").write_bytes(whole[:-200])
    (watch.folder / "whole.jpg").write_bytes(whole)
    watch.until(lambda: watch.told == ["whole.jpg"])
    with (watch.folder / "stalled.jpg").open("ab") as file:
        file.write(whole[-200:])
    watch.until(lambda: watch.told == ["whole.jpg", "stalled.jpg"])
    (watch.folder / "broken.jpg").write_bytes(whole[:-200])
    began = time.monotonic()
    watch.until(lambda: watch.told == ["whole.jpg", "stalled.jpg", "broken.jpg"])
    assert time.monotonic() - began >= 0.8


def test_checks_of_an_open_file_are_not_repeated_at_once(
    watching: Callable[..., Watch],
    writing: Callable[[Path], subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked: list[str] = []
    have_open = library_watch.Writers.have_open

    def count(writers: library_watch.Writers, path: str) -> bool:
        checked.append(path)
        return have_open(writers, path)

    monkeypatch.setattr("app.library.watch.Writers.have_open", count)
    watch = watching()
    writing(watch.folder / "1.jpg")
    watch.until(lambda: bool(checked))
    time.sleep(4 * SETTLED)
    assert len(checked) == 1  # one in _CHECK_SECONDS


def test_a_file_that_is_new_when_the_watch_starts_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.library.watch.STABLE_SECONDS", 0.3)
    monkeypatch.setattr("app.library.watch._TICK_MS", 30)
    (tmp_path / "old.jpg").touch()
    time.sleep(0.4)
    (tmp_path / "new.jpg").touch()
    folder, stop = Folder(tmp_path), Event()
    watch = library_watch.Watch(folder, stop)
    arriving = watch.arrivals()
    assert next(arriving) == []
    assert [Path(file.path).name for file in watch.complete(folder.scan())] == ["old.jpg"]
    later = next(files for files in arriving if files)
    assert [Path(file.path).name for file in later] == ["new.jpg"]
    stop.set()
    assert not any(arriving)
