"""`oceano ingest` and its options, with a fake model."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from PIL import Image

from app.catalog import FileRecord, Ledger, Totals
from app.cli import main
from app.commands.ingest import run_ingest
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.protocols import Engine, FaceIndex
from app.core.types import File, ModelPack
from app.library import Progress, running_progress
from app.library.scan import Folder
from app.library.writer_lock import only_writer
from app.service import IngestRequest, open_ledger
from tests.support.damage import lose_rows
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex
from tests.support.pictures import encoded

NOTHING_PRUNED = {"files": 0, "images": 0, "faces": 0, "moved": 0, "unsure": 0, "unsure_below": []}


class Command:
    """`oceano ingest` over a folder of pictures, an engine and an index that are fakes, a real ledger."""

    def __init__(self, folder: Path, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.settings = settings
        self.engine = FakeEngine()
        self.index = MemoryIndex()
        self.loaded = 0
        self.out = self.err = ""
        self._capsys = capsys

    def __call__(self, *words: str, folder: Path | None = None) -> int:
        """The exit code; what was printed is in `out` and `err`."""
        code = main(["ingest", str(folder or self.folder), *words])
        self.out, self.err = self._capsys.readouterr()
        return code

    def json(self, *words: str, code: int = 0) -> dict[str, Any]:
        """The one line that `--json` prints."""
        assert self(*words, "--json") == code
        (line,) = self.out.splitlines()
        said: dict[str, Any] = json.loads(line)
        return said

    @contextmanager
    def open_for_ingest(self, settings: Settings) -> Iterator[tuple[Engine, FaceIndex, Ledger]]:
        self.loaded += 1
        with closing(open_ledger(settings, FAKE_PACK)) as ledger:
            yield self.engine, self.index, ledger

    @contextmanager
    def open_without_engine(self, settings: Settings) -> Iterator[tuple[ModelPack, FaceIndex, Ledger]]:
        with closing(open_ledger(settings, FAKE_PACK)) as ledger:
            yield FAKE_PACK, self.index, ledger

    def files(self) -> list[FileRecord]:
        with closing(open_ledger(self.settings, FAKE_PACK)) as ledger:
            return list(ledger.files("/"))

    def totals(self) -> Totals:
        with closing(open_ledger(self.settings, FAKE_PACK)) as ledger:
            return ledger.totals()

    def names(self) -> set[str]:
        """Files that the ledger knows, below the folder."""
        return {os.path.relpath(one.path, self.folder) for one in self.files()}


@pytest.fixture
def command(
    colour_pictures: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    command = Command(colour_pictures, settings, capsys)
    monkeypatch.setenv("DATA_DIR", str(settings.data_dir))
    monkeypatch.setattr("app.core.config.REPOSITORY", settings.data_dir)
    monkeypatch.setattr("app.service.ingest_job.open_for_ingest", command.open_for_ingest)
    monkeypatch.setattr("app.service.ingest_job.open_without_engine", command.open_without_engine)
    return command


def test_other_processes_see_how_far_an_ingest_is_until_it_ends(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.library.progress.WRITE_SECONDS", 0.0)
    monkeypatch.setattr("app.library.progress.COUNT_AFTER_SECONDS", 0.0)
    monkeypatch.setattr("app.ingest.WRITE_BATCH_FILES", 1)
    seen: list[Progress | None] = []
    flush = command.index.flush

    def flush_and_look() -> None:
        seen.append(running_progress(command.settings.state_dir))
        flush()

    monkeypatch.setattr(command.index, "flush", flush_and_look)
    command.engine.batch = 1
    assert command() == 0
    finished = [one.finished for one in seen if one is not None]
    assert len(finished) == len(seen) > 1
    assert finished[0] == 0
    assert finished == sorted(finished)
    assert 0 < finished[-1] < 8
    assert running_progress(command.settings.state_dir) is None


def _lines(report: Path) -> list[list[str]]:
    with report.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def _make_bad(folder: Path) -> None:
    (folder / "bad.jpg").write_bytes(b"rubbish")
    Image.new("RGB", (64, 64)).save(folder / "black.png")


def test_a_run_says_what_it_did_in_a_line(command: Command) -> None:
    shutil.copy(command.folder / "0.png", command.folder / "copy.png")
    assert command() == 0
    assert command.out.startswith("9 images, 8 faces; 8 done, 0 without a face; 0 failed, 1 duplicates, 0 moved;")
    assert command() == 0
    assert "9 skipped" in command.out


def test_the_json_line_has_every_count(command: Command) -> None:
    _make_bad(command.folder)
    (command.folder / "notes.txt").write_text("not ours")
    said = command.json(code=1)
    assert said.pop("seconds") > 0
    assert said.pop("images_per_second") > 0
    assert said == {
        "files": 11,
        "done": 8,
        "no_face": 1,
        "failed": 1,
        "duplicate": 0,
        "moved": 0,
        "missing": 0,
        "skipped": 0,
        "failed_before": 0,
        "ignored": 1,
        "system_files": 0,
        "system_folders": 0,
        "linked_folders": 0,
        "raw_pairs": 0,
        "first_page_only": 0,
        "pages": 0,
        "failed_pages": 0,
        "faces": 8,
        "named": 0,
        "unmatched_names": 0,
        "images": 10,
        "folder": str(command.folder),
        "interrupted": False,
    }


def test_patterns_say_which_files_are_taken_up(command: Command) -> None:
    for folder in ("2024", "cache"):
        (command.folder / folder).mkdir()
        (command.folder / folder / "new.jpg").write_bytes(encoded(size=(90, 48 + len(folder)), kind="JPEG"))
    assert command("--include", "[0-3].png", "--include", "*.jpg", "--exclude", "cache", "--exclude", "3*") == 0
    assert command.names() == {"0.png", "1.png", "2.png", "2024/new.jpg"}
    assert command.json("--exclude", "cache")["files"] == 9
    assert command.json()["files"] == 10


def test_a_limit_is_of_files_taken_up_and_the_next_run_takes_the_next(command: Command) -> None:
    taken = []
    for _ in range(4):
        said = command.json("--limit", "3")
        taken.append((said["images"], said["skipped"]))
    assert [images for images, _ in taken] == [3, 3, 2, 0]
    assert taken[-1] == (0, 8)
    assert command.totals() == Totals(done=8, faces=8)


def test_what_is_no_picture_or_has_not_changed_does_not_count_towards_a_limit(command: Command) -> None:
    assert command.json()["done"] == 8
    for place in range(8):
        os.utime(command.folder / f"{place}.png", ns=(place, place))
        (command.folder / f"a{place}.txt").write_text("not ours")
    (command.folder / "x.png").write_bytes(encoded(size=(90, 48)))
    said = command.json("--limit", "1")
    assert (said["done"], said["images"]) == (1, 1)
    assert command.totals() == Totals(done=9, faces=9)


def test_failures_count_towards_a_limit(command: Command) -> None:
    for path in command.folder.iterdir():
        path.write_bytes(b"rubbish")
    assert command.json("--limit", "5", code=1)["failed"] == 5
    assert command.json("--limit", "5", code=1)["failed"] == 3


def test_what_failed_is_skipped_and_goes_again_with_retry(command: Command) -> None:
    _make_bad(command.folder)
    assert command() == 1
    assert command.out.splitlines()[-2:] == [
        f"failed: {command.folder / 'bad.jpg'}: the content is not an image of a supported format",
        "--retry ingests it again",
    ]
    assert command() == 0
    assert command.out.splitlines()[-1].startswith("--report FILE.csv lists all failed files")
    said = command.json()
    assert (said["skipped"], said["failed_before"], said["failed"]) == (10, 1, 0)
    said = command.json("--retry", code=1)
    assert (said["skipped"], said["no_face"], said["failed"]) == (8, 1, 1)


def test_of_many_failures_the_first_five_are_named_and_how_to_get_the_others(command: Command) -> None:
    for number, path in enumerate(sorted(command.folder.iterdir())):
        path.write_bytes(b"rubbish %d" % number)
    (command.folder / "0.png").rename(command.folder / "\x1b[2J.png")
    assert command() == 1
    failed = [line for line in command.out.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 5
    assert command.out.splitlines()[-2:] == [
        "and 3 more",
        "--report FILE.csv lists all failed files with reasons; --retry ingests them again",
    ]
    assert "\x1b" not in command.out


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_the_report_has_the_permissions_of_the_users_umask(command: Command, tmp_path: Path, umask: int) -> None:
    os.umask(umask)
    new, old = tmp_path / "new.csv", tmp_path / "old.csv"
    old.touch(mode=0o600)
    for report in (new, old):
        assert command("--report", str(report)) == 0
    assert [stat.S_IMODE(report.stat().st_mode) for report in (new, old)] == [0o666 & ~umask, 0o600]


def test_the_report_lists_what_has_no_faces_of_this_run_and_earlier_ones(command: Command, tmp_path: Path) -> None:
    _make_bad(command.folder)
    report = tmp_path / "report.csv"
    for code in (1, 0):
        assert command("--report", str(report)) == code
        header, *lines = _lines(report)
        assert header == ["path", "status", "reason", "message"]
        assert [line[:3] for line in lines] == [
            [str(command.folder / "bad.jpg"), "failed", "unsupported_image"],
            [str(command.folder / "black.png"), "no_face", "face_not_found"],
        ]
        assert all(line[3] for line in lines)


@pytest.mark.parametrize("folder", [".", "../pictures", "../pictures/"])
def test_the_report_is_the_same_however_the_folder_is_said(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    _make_bad(command.folder)
    monkeypatch.chdir(command.folder)
    assert command("--report", str(tmp_path / "report.csv"), folder=Path(folder)) == 1
    assert [Path(line[0]).name for line in _lines(tmp_path / "report.csv")] == ["path", "bad.jpg", "black.png"]


def test_a_report_that_cannot_be_written_is_said_before_the_work(command: Command, tmp_path: Path) -> None:
    assert command("--report", str(tmp_path / "nowhere" / "report.csv")) == 2
    assert "No such file or directory (invalid_request)" in command.err
    assert command.loaded == 0


def test_a_prune_forgets_what_is_gone_and_says_so(command: Command) -> None:
    assert "pruned" not in command.json()
    assert command.json("--prune")["pruned"] == NOTHING_PRUNED
    (command.folder / "0.png").unlink()
    (command.folder / "far").mkdir()
    (command.folder / "1.png").rename(command.folder / "far" / "1.png")
    said = command.json("--prune")
    assert said["pruned"] == NOTHING_PRUNED | {"files": 1, "images": 1, "faces": 1}
    assert (said["skipped"], said["duplicate"], said["moved"], said["missing"]) == (6, 0, 1, 1)
    assert command.names() == {"far/1.png", *(f"{place}.png" for place in range(2, 8))}
    assert len(command.index.points) == 7
    (command.folder / "2.png").unlink()
    assert command("--prune") == 0
    assert "Removed: 1 file, 1 image, 1 face. Kept because a copy exists: 0." in command.out
    assert len(command.index.points) == 6


def test_an_ingest_says_which_missing_files_only_a_prune_removes(command: Command) -> None:
    command()
    for name in ("0.png", "1.png"):
        (command.folder / name).unlink()
    assert command() == 0
    assert "Missing: 2 files of this folder are not there any more." in command.out
    assert "--prune removes them" in command.out
    assert command("--prune") == 0
    assert "Missing" not in command.out
    assert command.json()["missing"] == 0


def test_a_prune_says_what_it_kept_for_a_drive_that_may_be_away(command: Command) -> None:
    stick = command.folder / "stick"
    stick.mkdir()
    (command.folder / "0.png").rename(stick / "0.png")
    command()
    (stick / "0.png").unlink()
    assert command("--prune") == 0
    assert "Removed: 0 files" in command.out
    assert "Kept: 1 file whose drive may be disconnected" in command.err
    assert command.json("--prune")["pruned"] == NOTHING_PRUNED | {"unsure": 1, "unsure_below": [str(stick)]}
    assert len(command.index.points) == 8
    assert command("--forget-drives") == 2
    assert command("--prune", "--forget-drives", "--dry-run") == 0
    assert "1 image, 1 face." in command.out
    assert command("--prune", "--forget-drives") == 0
    assert len(command.index.points) == 7


def test_without_prune_nothing_is_forgotten(command: Command) -> None:
    command()
    (command.folder / "0.png").unlink()
    assert command.json("--retry")["skipped"] == 7
    assert len(command.index.points) == command.totals().faces == 8


def test_a_dry_run_says_what_would_go_and_loads_no_model(command: Command) -> None:
    command()
    loaded = command.loaded
    (command.folder / "0.png").unlink()
    (command.folder / "new.png").write_bytes(encoded(size=(90, 48)))
    would = NOTHING_PRUNED | {"files": 1, "images": 1, "faces": 1}
    assert command.json("--prune", "--dry-run") == {"pruned": would, "dry_run": True}
    assert command("--prune", "--dry-run") == 0
    assert "1 image, 1 face." in command.out
    assert command.loaded == loaded
    assert command.names() == {f"{place}.png" for place in range(8)}
    assert len(command.index.points) == 8
    assert command.json("--prune")["pruned"] == would


@pytest.mark.parametrize(
    "words",
    [
        ["--dry-run"],
        ["--watch", "--prune"],
        ["--watch", "--limit", "3"],
        ["--watch", "--dry-run"],
        ["--prune", "--limit", "3"],
        ["--prune", "--include", "*.jpg"],
        ["--prune", "--exclude", "*.jpg"],
        ["--limit", "0"],
        ["--include", ""],
        ["--exclude", " "],
        ["--prune", "--dry-run", "--report", "/tmp/r.csv"],
    ],
    ids=" ".join,
)
def test_words_that_do_not_go_together_are_exit_2_before_anything_is_done(command: Command, words: list[str]) -> None:
    assert command(*words) == 2
    assert command.err
    assert (command.loaded, command.files()) == (0, [])


def test_a_report_never_replaces_a_picture(command: Command) -> None:
    picture = next(command.folder.iterdir())
    before = picture.read_bytes()
    assert command("--report", str(picture)) == 2
    assert "this file is a picture" in command.err
    assert picture.read_bytes() == before


def test_a_second_ingest_is_refused_with_exit_3(command: Command) -> None:
    with only_writer(command.settings.state_dir):
        assert command("--json") == 3
    assert json.loads(command.out)["error"]["code"] == "ingest_in_progress"


@contextmanager
def _meanwhile(work: Callable[[], None], end: Callable[[], None]) -> Iterator[None]:
    """A thread beside a command that goes on until it is ended; what fails in it fails the test."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as failure:  # noqa: BLE001 - raised again below
            failures.append(failure)
        finally:
            end()

    thread = Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert not failures, failures


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.library.watch.STABLE_SECONDS", 0.2)
    monkeypatch.setattr("app.library.watch._TICK_MS", 60)


@pytest.mark.usefixtures("quick")
def test_a_watch_takes_what_lies_there_and_what_comes_and_ends_with_130(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = Event()

    def come() -> None:
        _until(lambda: len(command.index.points) == 8)
        (command.folder / "new.png").write_bytes(encoded(size=(90, 48)))
        (command.folder / "no.jpg").write_bytes(encoded(size=(91, 48), kind="JPEG"))
        (command.folder / "bad.png").write_bytes(b"rubbish")
        _until(lambda: len(command.index.points) == 9)
        (command.folder / "far").mkdir()
        (command.folder / "far" / "newer.png").write_bytes(encoded(size=(92, 48)))
        _until(lambda: len(command.index.points) == 10)

    request = IngestRequest(command.folder, include=("*.png",), watch=True)
    with _meanwhile(come, end=stop.set):
        assert run_ingest(request, command.settings, stop, as_json=True) == 130
    (line,) = capsys.readouterr().out.splitlines()
    said = json.loads(line)
    assert (said["done"], said["failed"], said["skipped"], said["interrupted"]) == (10, 1, 0, True)
    assert command.names() == {"new.png", "bad.png", "far/newer.png", *(f"{place}.png" for place in range(8))}


@pytest.mark.usefixtures("quick")
def test_a_file_that_comes_while_what_lies_there_is_taken_up_is_not_missed(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Event()
    flush = command.index.flush

    def flush_and_come() -> None:
        if not (command.folder / "new.png").exists():
            (command.folder / "new.png").write_bytes(encoded(size=(90, 48)))
        flush()

    monkeypatch.setattr(command.index, "flush", flush_and_come)
    with _meanwhile(lambda: _until(lambda: len(command.index.points) == 9), end=stop.set):
        assert run_ingest(IngestRequest(command.folder, watch=True), command.settings, stop) == 130
    assert command.totals() == Totals(done=9, faces=9)


@pytest.mark.usefixtures("quick")
def test_ctrl_c_ends_a_watch(command: Command) -> None:
    running = Event()
    running.set()

    def interrupt() -> None:
        if running.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    with _meanwhile(lambda: _until(lambda: command.totals().done == 8), end=interrupt):
        code = command("--watch")
        running.clear()
    assert code == 130
    assert command.out.startswith("interrupted: 8 images")
    assert "Traceback" not in command.err


@pytest.mark.usefixtures("quick")
def test_a_watched_folder_that_goes_away_is_exit_3_and_what_was_taken_up_stays(
    command: Command, tmp_path: Path
) -> None:
    def go() -> None:
        _until(lambda: command.totals().done == 8)
        command.folder.rename(tmp_path / "away")

    with _meanwhile(go, end=lambda: None):
        assert command("--watch") == 3
    assert "(folder_unavailable)" in command.err
    assert command.totals() == Totals(done=8, faces=8)


def test_a_stop_leaves_the_prune_out(command: Command) -> None:
    command()
    (command.folder / "0.png").unlink()
    stop = Event()
    stop.set()
    assert run_ingest(IngestRequest(command.folder, prune=True), command.settings, stop) == 130
    assert len(command.index.points) == 8


def test_a_drive_that_is_away_is_not_pruned(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command()
    monkeypatch.setattr("app.ingest.Ingest.run", lambda *_: command.folder.rename(tmp_path / "away"))
    with pytest.raises(OceanoError) as raised:
        run_ingest(IngestRequest(command.folder, prune=True), command.settings, Event())
    assert raised.value.code == "folder_unavailable"
    assert len(command.index.points) == command.totals().faces == 8


def test_a_dry_run_says_where_it_cannot_look(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    command()

    def scan(folder: Folder) -> Iterator[File]:
        folder.unlisted += 1
        return iter(())

    monkeypatch.setattr("app.library.scan.Folder.scan", scan)
    assert command("--prune", "--dry-run") == 1
    assert "Nothing was pruned" in command.err


def test_nothing_is_forgotten_while_something_cannot_be_read(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    command()
    (command.folder / "0.png").rename(command.folder / "moved.png")

    def refuse(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("app.library.reader.contents", refuse)
        assert command("--prune") == 1
    assert "Nothing was pruned" in command.err
    assert len(command.index.points) == 8
    assert command("--prune") == 0
    assert "1 moved" in command.out
    assert "Removed: 0 files, 0 images, 0 faces." in command.out
    assert len(command.index.points) == 8


def test_nothing_is_forgotten_while_a_folder_cannot_be_listed(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    command()
    locked = command.folder / "locked"
    locked.mkdir()
    (command.folder / "0.png").rename(locked / "0.png")
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path) == str(locked):
            raise PermissionError(13, "Permission denied")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr("app.library.scan.os.scandir", scandir)
        assert command("--prune") == 1
    assert len(command.index.points) == 8


def test_a_copy_that_cannot_be_read_just_now_stays_a_copy(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(command.folder / "0.png", command.folder / "copy.png")
    command()
    os.utime(command.folder / "copy.png", ns=(1, 1))
    with monkeypatch.context() as patch:
        patch.setattr("app.library.reader.contents", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        command()
    assert command.totals().duplicate == 1


def test_an_ingest_that_is_refused_leaves_a_report_alone(command: Command, tmp_path: Path) -> None:
    report = tmp_path / "report.csv"
    report.write_text("what another ingest found")
    with only_writer(command.settings.state_dir):
        assert command("--report", str(report)) == 3
    assert report.read_text() == "what another ingest found"


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000])
def test_a_folder_with_an_impossible_name_is_exit_2(
    command: Command, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ingest", name]) == 2
    assert "is not a folder or file (not_found)" in capsys.readouterr().err


def test_no_folder_is_not_the_folder_that_one_stands_in(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ingest", ""]) == 2
    assert "FOLDER is empty" in capsys.readouterr().err


def test_the_summary_says_what_was_left_out(command: Command, tmp_path: Path) -> None:
    for name in ("notes.pdf", "film.mp4", "Thumbs.db"):
        (command.folder / name).write_bytes(b"no picture")
    (command.folder / "@eaDir").mkdir()
    shutil.copy(command.folder / "0.png", command.folder / "@eaDir" / "other.png")
    shutil.copy(command.folder / "0.png", command.folder / "1.png.part")
    (command.folder / "link").symlink_to(tmp_path)
    assert command() == 0
    assert "Left out: 3 other files, 1 temporary or system file, 1 system folder (--include-system" in command.out
    assert "Not followed: 1 link to a folder" in command.out
    said = command.json("--include-system")
    assert (said["ignored"], said["system_files"], said["system_folders"], said["linked_folders"]) == (3, 0, 0, 1)
    assert said["duplicate"] == 2


def test_a_run_that_left_out_nothing_says_nothing_about_it(command: Command) -> None:
    assert command() == 0
    assert len(command.out.splitlines()) == 1


def test_a_folder_of_links_does_not_end_silently(command: Command, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "pictures").symlink_to(command.folder)
    assert command(folder=tmp_path / "links") == 0
    assert "0 images" in command.out
    assert "Not followed: 1 link to a folder; ingest the folders they lead to." in command.out


def test_a_single_file_is_ingested(command: Command, tmp_path: Path) -> None:
    report = tmp_path / "report.csv"
    assert command("--report", str(report), folder=command.folder / "3.png") == 0
    assert command.names() == {"3.png"}
    assert _lines(report)[1:] == []
    assert command(folder=command.folder / "3.png") == 0
    assert "1 skipped" in command.out


@pytest.mark.parametrize("option", [["--watch"], ["--prune"], ["--include", "*"], ["--exclude", "x"]])
def test_options_for_folders_are_refused_with_a_file(command: Command, option: list[str]) -> None:
    assert command(*option, folder=command.folder / "3.png") == 2
    assert "need a folder" in command.err


def test_with_a_damaged_ledger_nothing_is_ingested_or_called_deleted(command: Command) -> None:
    assert command() == 0
    with closing(open_ledger(command.settings, FAKE_PACK)) as ledger:
        ledger.record([FileRecord(f"{command.folder}/{n:0200}", 1, 1, f"{n}", "done") for n in range(2000)])
    lose_rows(command.settings.state_dir / "catalog.sqlite3")
    for words in ([], ["--prune", "--dry-run"], ["--prune"]):
        assert command(*words) == 3
        assert "ledger_unavailable" in command.err
        assert "is damaged" in command.err
        assert command.out == ""
