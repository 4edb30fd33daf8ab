"""backup_command: everything is lost, and comes back; on both kinds of index."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest

from app.cli import main
from app.commands.backup import run_backup, run_restore
from app.core.config import Settings, load_settings
from app.core.types import FaceFilter, FaceRecord
from app.images.thumbnails import ThumbStore
from app.index import open_index
from app.index.transfer import Migration
from app.library.ledger import FileRecord
from app.service.factory import find_model, open_ledger
from tests.conftest import BOTH, kind_of
from tests.index.conftest import ids_of, points, processes_of, wait_until
from tests.support.packs import put

COUNT = 60
FACES = points(COUNT, seed=3)
DATA = ("state", "thumbs", "qdrant_storage")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A model and no index yet."""
    data = tmp_path / "data"
    put(data / "models" / "small")
    monkeypatch.setenv("DATA_DIR", str(data))
    monkeypatch.setenv("MODEL_NAME", "small")
    monkeypatch.setattr("app.core.config.REPOSITORY", data)
    return load_settings()


@pytest.fixture
def settings(bare: Settings, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An index of some faces, two of them named, with thumbnails and a ledger."""
    if kind_of(request) == "server":
        monkeypatch.setenv("QDRANT_URL", request.getfixturevalue("qdrant_url"))
    made = load_settings()
    pack = find_model(made)
    index = open_index(made, pack)
    index.upsert(FACES)
    index.set_payload(ids_of(FACES[:2]), person="Ana")
    index.close()
    ledger = open_ledger(made, pack)
    ledger.record([FileRecord("/photos/1.jpg", 5, 6, "a" * 64, "done", COUNT, None, None)])
    ledger.close()
    for face in FACES:
        ThumbStore(made.thumbs_dir).write(face.face_id, face.face_id.encode())
    return made


@pytest.fixture
def kept(settings: Settings, tmp_path: Path) -> Path:
    """A backup of it."""
    folder = tmp_path / "kept"
    assert main(["backup", str(folder)]) == 0
    return folder


def lose_everything(settings: Settings) -> None:
    wait_until(lambda: not processes_of(settings.data_dir))
    for name in DATA:
        shutil.rmtree(settings.data_dir / name, ignore_errors=True)
    if settings.qdrant_url:
        index = open_index(settings, find_model(settings))
        index.delete(ids_of(FACES))
        index.close()


def require_all(settings: Settings) -> None:
    pack = find_model(settings)
    index = open_index(settings, pack, create=False)
    assert index.count() == COUNT
    assert index.count(FaceFilter(person="Ana")) == 2
    (match,) = index.search(FACES[9].embedding, limit=1)
    assert (match.face_id, match.payload) == (FACES[9].face_id, FACES[9].payload)
    index.close()
    ledger = open_ledger(settings, pack)
    assert ledger.file("/photos/1.jpg") == FileRecord("/photos/1.jpg", 5, 6, "a" * 64, "done", COUNT, None, None)
    ledger.close()
    assert ThumbStore(settings.thumbs_dir).read(FACES[5].face_id) == FACES[5].face_id.encode()


@BOTH
def test_all_that_was_lost_comes_back(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept"
    assert main(["backup", str(kept)]) == 0
    assert f"{COUNT} faces, {COUNT} thumbnails" in capsys.readouterr().out
    lose_everything(settings)
    assert main(["restore", str(kept)]) == 0
    assert f"{COUNT} faces in the index, {COUNT} thumbnails" in capsys.readouterr().out
    require_all(settings)


def test_a_backup_goes_into_an_index_that_is_there_and_empty(settings: Settings, kept: Path) -> None:
    lose_everything(settings)
    running = open_index(settings, find_model(settings))  # as a service has it
    assert main(["restore", str(kept)]) == 0
    assert running.count() == COUNT
    running.close()
    require_all(settings)


@BOTH
def test_a_server_s_backup_becomes_an_embedded_index(
    settings: Settings, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_everything(settings)
    monkeypatch.delenv("QDRANT_URL", raising=False)
    assert main(["restore", str(kept)]) == 0
    require_all(load_settings())


@pytest.mark.parametrize("settings", ["server"], indirect=True)
def test_nobody_is_on_a_backup_any_more_when_it_is_there(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short path, beside whose index there is room for a socket."""
    with tempfile.TemporaryDirectory(prefix="o", dir="/tmp") as name:
        kept = Path(name, "kept")
        assert main(["backup", str(kept)]) == 0
        left = {path.name for path in kept.rglob("*") if path.name.startswith(("owner.sock", "owner.json"))}
        assert left == set()
        assert processes_of(Path(name)) == []
        lose_everything(settings)
        monkeypatch.delenv("QDRANT_URL")
        assert main(["restore", str(kept)]) == 0
        require_all(load_settings())


def test_faces_whose_alias_is_lost_are_not_replaced(
    settings: Settings, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (settings.index_dir / "embedded" / "faces.alias.json").unlink()
    assert main(["restore", str(kept)]) == 2
    assert "move them away first" in capsys.readouterr().err


def test_an_index_with_faces_is_not_restored_into_so_that_what_was_forgotten_stays_so(
    settings: Settings, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = open_index(settings, find_model(settings))
    index.delete(ids_of(FACES[:20]))
    assert main(["restore", str(kept)]) == 2
    assert f"holds {COUNT - 20} faces already" in capsys.readouterr().err
    assert index.count() == COUNT - 20
    index.close()


def test_a_restore_that_was_interrupted_goes_on(
    settings: Settings, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_everything(settings)
    running = open_index(settings, find_model(settings))
    stop = Event()

    class Stopped(Migration):
        def _bring(self, page: Sequence[FaceRecord]) -> None:
            super()._bring(page[:20])
            stop.set()

    (settings.state_dir / "restore-faces.json").parent.mkdir(exist_ok=True)
    (settings.state_dir / "restore-faces.json").touch()  # as a kill while it was written leaves it
    with monkeypatch.context() as patch:
        patch.setattr("app.commands.backup.Migration", Stopped)
        assert run_restore(settings, kept, stop) == 130
    assert running.count() == 20
    running.close()
    assert main(["restore", str(kept)]) == 0
    require_all(settings)
    assert main(["restore", str(kept)]) == 2  # from now on it is an index like any other


def test_an_index_that_is_not_there_is_not_backed_up_as_an_empty_one(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QDRANT_COLLECTION", "never")
    assert main(["backup", str(tmp_path / "kept")]) == 2
    assert "There is no index" in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()


def test_a_folder_for_backups_is_not_made(settings: Settings, tmp_path: Path) -> None:
    assert main(["backup", str(tmp_path / "not mounted" / "kept")]) == 2
    assert not (tmp_path / "not mounted").exists()


def test_a_backup_is_for_its_owner_alone(settings: Settings, tmp_path: Path) -> None:
    assert main(["backup", str(tmp_path / "kept")]) == 0
    assert (tmp_path / "kept").stat().st_mode & 0o077 == 0


def test_an_interrupted_backup_leaves_nothing(settings: Settings, tmp_path: Path) -> None:
    stop = Event()
    stop.set()
    assert run_backup(settings, tmp_path / "kept", stop) == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_backup_never_goes_where_something_is(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    assert main(["backup", str(tmp_path / "kept")]) == 2


def test_a_thumbnail_that_changes_later_does_not_change_in_the_backup(settings: Settings, kept: Path) -> None:
    ThumbStore(settings.thumbs_dir).write(FACES[0].face_id, b"another")
    assert ThumbStore(kept / "thumbs").read(FACES[0].face_id) == FACES[0].face_id.encode()


def test_what_is_no_backup_or_one_of_another_model_is_refused(
    settings: Settings, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["restore", str(tmp_path)]) == 2
    assert "is no backup" in capsys.readouterr().err
    manifest = json.loads((kept / "backup.json").read_text())
    for changed, said in (
        ({"digest": "f" * 64}, "MODEL_NAME"),
        ({"format": 9}, "newer Oceano"),
        ({"collection": "others"}, "QDRANT_COLLECTION=others"),
    ):
        (kept / "backup.json").write_text(json.dumps(manifest | changed))
        assert main(["restore", str(kept)]) in (2, 3)
        assert said in capsys.readouterr().err
    (kept / "backup.json").write_text("{")
    assert main(["restore", str(kept)]) == 2


def test_where_thumbnails_cannot_get_a_second_name_they_are_copied(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    assert main(["backup", str(tmp_path / "kept")]) == 0
    assert len(list((tmp_path / "kept" / "thumbs").rglob("*.jpg"))) == COUNT
    assert not list((tmp_path / "kept").rglob("*.tmp"))


def test_a_note_of_another_restore_opens_no_door(
    settings: Settings, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = {"backup": json.loads((kept / "backup.json").read_text()), "into": "http://127.0.0.1:1"}
    (settings.state_dir / "restore-faces.json").write_text(json.dumps(note))
    assert main(["restore", str(kept)]) == 2
    assert f"holds {COUNT} faces already" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["state/ledger.sqlite3", "qdrant_storage/embedded/faces.alias.json", "faces"])
def test_a_backup_that_lacks_a_part_is_not_restored(
    settings: Settings, kept: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if part == "faces":
        (folder,) = (kept / "qdrant_storage" / "embedded").glob("faces__*")
        shutil.rmtree(folder)
    else:
        (kept / part).unlink()
    lose_everything(settings)
    assert main(["restore", str(kept)]) == 2
    assert "is not a whole backup" in capsys.readouterr().err


@BOTH
def test_a_backup_in_a_folder_whose_name_is_no_text_comes_back_and_is_only_read(
    settings: Settings, tmp_path: Path
) -> None:
    kept = tmp_path / os.fsdecode(b"\xff\xfe")
    assert main(["backup", str(kept)]) == 0
    before = {path: path.stat().st_mtime_ns for path in kept.rglob("*")}
    lose_everything(settings)
    left = settings.state_dir / ".restore.1"
    left.mkdir(parents=True)  # as a restore that was killed leaves it
    assert main(["restore", str(kept)]) == 0
    require_all(settings)
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("*")} == before
    assert settings.qdrant_url == "" or not list(settings.state_dir.glob(".restore.*"))


@pytest.mark.parametrize("part", ["state/ledger.sqlite3", "qdrant_storage/embedded/**/vectors/**/*.mmap"])
def test_a_backup_that_was_damaged_is_not_restored(
    settings: Settings, kept: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = next(path for path in kept.glob(part) if path.is_file())
    with damaged.open("r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(bytes([byte[0] ^ 1]))
    lose_everything(settings)
    assert main(["restore", str(kept)]) == 2
    assert f"{damaged} is not as it was written" in capsys.readouterr().err
    assert not settings.embedded_dir.exists()


def test_a_backup_of_other_than_plain_files_is_not_restored_and_nothing_hangs(
    settings: Settings, kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lose_everything(settings)
    segments = next(kept.glob("qdrant_storage/embedded/*/shard-backup/segments"))
    segments.rename(tmp_path / "elsewhere")
    segments.symlink_to(tmp_path / "elsewhere")
    assert main(["restore", str(kept)]) == 2
    assert "is missing" in capsys.readouterr().err
    (kept / "state" / "ledger.sqlite3").unlink()
    os.mkfifo(kept / "state" / "ledger.sqlite3")
    assert main(["restore", str(kept)]) == 2
    (kept / "backup.json").unlink()
    os.mkfifo(kept / "backup.json")
    assert main(["restore", str(kept)]) == 2
    assert "is no backup" in capsys.readouterr().err
    assert not settings.embedded_dir.exists()


def test_a_restore_clears_what_a_killed_one_left_and_its_own_where_the_disk_is_full(
    settings: Settings, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_everything(settings)
    (collection,) = (path.name for path in (kept / "qdrant_storage" / "embedded").glob("faces__*"))
    left = settings.embedded_dir / f".{collection}.{os.getpid()}.partial"  # in containers all have one number
    left.mkdir(parents=True)

    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("app.index.embedded.backup.sync_tree", full)
        assert main(["restore", str(kept)]) == 3
    assert not list(settings.embedded_dir.glob(".*.partial"))
    assert main(["restore", str(kept)]) == 0
    require_all(settings)


def test_whoever_opens_the_index_while_a_restore_copies_waits_for_it(
    settings: Settings, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_everything(settings)
    copying, counts = Event(), []

    def count() -> None:
        copying.wait()
        with closing(open_index(settings, find_model(settings))) as index:
            counts.append(index.count())

    def slow(folder: Path) -> None:
        copying.set()
        time.sleep(1)

    monkeypatch.setattr("app.index.embedded.backup.sync_tree", slow)
    with ThreadPoolExecutor() as threads:
        opened = threads.submit(count)
        assert main(["restore", str(kept)]) == 0
        opened.result()
    assert counts == [COUNT]
    require_all(settings)


def test_a_backup_of_before_there_were_digests_is_restored(settings: Settings, kept: Path) -> None:
    manifest = json.loads((kept / "backup.json").read_text())
    assert manifest.pop("files")
    (kept / "backup.json").write_text(json.dumps(manifest))
    lose_everything(settings)
    assert main(["restore", str(kept)]) == 0
    require_all(settings)


def test_a_name_that_is_too_long_is_said(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["backup", str(tmp_path / ("x" * 250))]) == 3
    assert "too long" in capsys.readouterr().err


def test_what_a_killed_backup_left_is_cleared_by_the_next(settings: Settings, tmp_path: Path) -> None:
    left, other = tmp_path / ".kept.999999999.partial", tmp_path / f".kept.{os.getppid()}.partial"
    for folder in (left, other):
        folder.mkdir()
    assert main(["backup", str(tmp_path / "kept")]) == 0
    assert not left.exists()
    assert other.exists()  # its process lives


@pytest.mark.parametrize(
    "text",
    [
        '{"format": 1, "collection": "faces"}',
        '{"format": 2}',
        "[]",
        "[" * 200_000,
        '{"format": 1, "collection": "faces", "model": "small", "digest": 5}',
        '{"format": 1, "collection": "faces", "model": "small", "digest": "5", "files": []}',
    ],
)
def test_a_description_that_says_too_little_is_refused(
    bare: Settings, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "backup.json").write_text(text)
    assert main(["restore", str(tmp_path / "kept")]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("settings", ["server"], indirect=True)
def test_a_server_s_backup_for_which_there_is_no_room_is_refused_before_it_begins(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("app.commands.backup._ROOM_TO_WRITE", 1 << 60)
    assert main(["backup", str(tmp_path / "kept")]) == 3
    assert "disk_full" in capsys.readouterr().err
    assert not list(tmp_path.glob("*kept*"))
