"""`oceano backup` and `oceano restore`, on both kinds of index."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from app.catalog import FileRecord, Jobs, Worker, open_postgresql, restore
from app.cli import main
from app.commands.backup import run_backup, run_restore
from app.core.config import Settings, load_settings
from app.core.errors import OceanoError
from app.core.protocols import FaceIndex
from app.core.types import FaceFilter, FaceRecord
from app.images.previews import PreviewStore
from app.images.thumbnails import ThumbStore
from app.index import open_index
from app.index.transfer import Migration
from app.service.factory import find_model, open_ledger, open_without_engine
from tests.conftest import BOTH, kind_of
from tests.index.conftest import ids_of, points, processes_of, wait_until
from tests.support import memory
from tests.support.catalogs import KINDS, new_postgresql_database
from tests.support.damage import lose_rows
from tests.support.naming import name_faces, names_by_id, unname_all
from tests.support.packs import put

COUNT = 60
FACES = [
    replace(point, payload=replace(point.payload, page=number % 2))  # two pages of an image, a face on each
    for number, point in enumerate(points(COUNT, seed=3))
]
DATA = ("state", "thumbs", "qdrant_storage")

base, tmp_path = memory.base, memory.tmp_path


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with a model and without an index."""
    data = tmp_path / "data"
    put(data / "models" / "small")
    monkeypatch.setenv("DATA_DIR", str(data))
    monkeypatch.setenv("MODEL_NAME", "small")
    monkeypatch.setattr("app.core.config.REPOSITORY", data)
    return load_settings()


def fill(made: Settings) -> None:
    """Write FACES, two of them named, with thumbnails and a ledger."""
    pack = find_model(made)
    index = open_index(made, pack)
    index.upsert(FACES)
    name_faces(made, index, dict(zip(ids_of(FACES[:3:2]), ("Ana", "Eva"), strict=True)))
    index.close()
    ledger = open_ledger(made, pack)
    ledger.record([FileRecord("/photos/1.jpg", 5, 6, "a" * 64, "done", COUNT, None, None)])
    ledger.close()
    for face in FACES:
        ThumbStore(made.thumbs_dir).write(face.face_id, face.face_id.encode())


@pytest.fixture(scope="module")
def filled(base: Path) -> tuple[Path, Path]:
    """A filled data folder and its backup; tests copy them, which is faster than making them."""
    data, backup = base / "filled", base / "filled-backup"
    put(data / "models" / "small")
    made = Settings(_env_file=None, data_dir=data, model_name="small")
    fill(made)
    assert run_backup(made, backup, Event()) == 0
    wait_until(lambda: not processes_of(data))
    return data, backup


@pytest.fixture
def settings(bare: Settings, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with an index of some faces, two of them named, with thumbnails and a ledger."""
    if kind_of(request) == "server":
        monkeypatch.setenv("QDRANT_URL", request.getfixturevalue("qdrant_url"))
        fill(load_settings())
    else:
        data, _ = request.getfixturevalue("filled")
        for name in DATA:
            memory.copy_tree(data / name, bare.data_dir / name)
    return load_settings()


@pytest.fixture
def backup(settings: Settings, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A backup of `settings`."""
    folder = tmp_path / "backup"
    if settings.qdrant_url:
        assert main(["backup", str(folder)]) == 0
    else:
        memory.copy_tree(request.getfixturevalue("filled")[1], folder)
    return folder


def lose_everything(settings: Settings) -> None:
    wait_until(lambda: not processes_of(settings.data_dir))
    for name in DATA:
        shutil.rmtree(settings.data_dir / name, ignore_errors=True)
    if settings.qdrant_url:
        index = open_index(settings, find_model(settings))
        index.delete(ids_of(FACES))
        index.close()


def named_faces(index: FaceIndex) -> Sequence[FaceRecord]:
    return index.scroll(limit=COUNT, where=FaceFilter(named=True)).records


def require_all(settings: Settings) -> None:
    pack = find_model(settings)
    index = open_index(settings, pack, create=False)
    assert index.count() == COUNT
    names = names_by_id(settings)
    named = {record.face_id: names[str(record.payload.person)] for record in named_faces(index)}
    assert named == dict(zip(ids_of(FACES[:3:2]), ("Ana", "Eva"), strict=True))
    (match,) = index.search(FACES[9].embedding, limit=1)
    assert (match.face_id, match.payload) == (FACES[9].face_id, FACES[9].payload)
    index.close()
    ledger = open_ledger(settings, pack)
    assert ledger.file("/photos/1.jpg") == FileRecord("/photos/1.jpg", 5, 6, "a" * 64, "done", COUNT, None, None)
    ledger.close()
    assert ThumbStore(settings.thumbs_dir).read(FACES[5].face_id) == FACES[5].face_id.encode()


@BOTH
def test_a_backup_restores_everything(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backup = tmp_path / "backup"
    assert main(["backup", str(backup)]) == 0
    assert f"{COUNT} faces, {COUNT} thumbnails" in capsys.readouterr().out
    lose_everything(settings)
    assert main(["restore", str(backup)]) == 0
    assert f"{COUNT} faces in the index, {COUNT} thumbnails" in capsys.readouterr().out
    require_all(settings)


def test_a_backup_is_restored_into_an_empty_index(settings: Settings, backup: Path) -> None:
    lose_everything(settings)
    running = open_index(settings, find_model(settings))  # as in a running service
    assert main(["restore", str(backup)]) == 0
    assert running.count() == COUNT
    running.close()
    require_all(settings)


@BOTH
def test_a_server_s_backup_becomes_an_embedded_index(
    settings: Settings, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_everything(settings)
    monkeypatch.delenv("QDRANT_URL", raising=False)
    assert main(["restore", str(backup)]) == 0
    require_all(load_settings())


@pytest.mark.parametrize("settings", ["server"], indirect=True)
def test_no_process_uses_a_finished_backup(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with a short path, so that the socket is in the index's folder."""
    with tempfile.TemporaryDirectory(prefix="o", dir="/tmp") as name:
        backup = Path(name, "backup")
        assert main(["backup", str(backup)]) == 0
        left = {path.name for path in backup.rglob("*") if path.name.startswith(("owner.sock", "owner.json"))}
        assert left == set()
        assert processes_of(Path(name)) == []
        lose_everything(settings)
        monkeypatch.delenv("QDRANT_URL")
        assert main(["restore", str(backup)]) == 0
        require_all(load_settings())


def test_faces_whose_alias_is_lost_are_not_replaced(
    settings: Settings, backup: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (settings.index_dir / "embedded" / "faces.alias.json").unlink()
    assert main(["restore", str(backup)]) == 2
    assert "move them away first" in capsys.readouterr().err


def test_an_index_with_faces_is_not_restored_into_so_that_deleted_faces_stay_deleted(
    settings: Settings, backup: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = open_index(settings, find_model(settings))
    index.delete(ids_of(FACES[:20]))
    assert main(["restore", str(backup)]) == 2
    assert f"already has {COUNT - 20} faces" in capsys.readouterr().err
    assert index.count() == COUNT - 20
    index.close()


def test_an_interrupted_restore_continues(settings: Settings, backup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lose_everything(settings)
    running = open_index(settings, find_model(settings))
    stop = Event()

    class Stopped(Migration):
        def _copy_page(self, page: Sequence[FaceRecord]) -> None:
            super()._copy_page(page[:20])
            stop.set()

    (settings.state_dir / "restore-faces.json").parent.mkdir(exist_ok=True)
    (settings.state_dir / "restore-faces.json").touch()  # as after a kill during the write
    with monkeypatch.context() as patch:
        patch.setattr("app.commands.backup.Migration", Stopped)
        assert run_restore(settings, backup, stop) == 130
    assert running.count() == 20
    running.close()
    assert main(["restore", str(backup)]) == 0
    require_all(settings)
    assert main(["restore", str(backup)]) == 2  # now the index has faces


def test_a_missing_index_is_not_backed_up_as_an_empty_one(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QDRANT_COLLECTION", "never")
    assert main(["backup", str(tmp_path / "backup")]) == 2
    assert "There is no index" in capsys.readouterr().err
    assert not (tmp_path / "backup").exists()


def test_the_parent_folder_of_a_backup_is_not_created(settings: Settings, tmp_path: Path) -> None:
    assert main(["backup", str(tmp_path / "not mounted" / "backup")]) == 2
    assert not (tmp_path / "not mounted").exists()


def test_a_backup_is_readable_by_its_user_only(settings: Settings, tmp_path: Path) -> None:
    assert main(["backup", str(tmp_path / "backup")]) == 0
    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0


def test_an_interrupted_backup_leaves_nothing(settings: Settings, tmp_path: Path) -> None:
    stop = Event()
    stop.set()
    assert run_backup(settings, tmp_path / "backup", stop) == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_backup_never_overwrites(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    assert main(["backup", str(tmp_path / "backup")]) == 2


def test_a_thumbnail_that_changes_later_does_not_change_in_the_backup(settings: Settings, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    assert main(["backup", str(backup)]) == 0
    ThumbStore(settings.thumbs_dir).write(FACES[0].face_id, b"another")
    assert ThumbStore(backup / "thumbs").read(FACES[0].face_id) == FACES[0].face_id.encode()


def test_a_folder_that_is_not_a_backup_of_this_model_is_refused(
    settings: Settings,
    backup: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["restore", str(tmp_path)]) == 2
    assert "is not a backup" in capsys.readouterr().err
    manifest = json.loads((backup / "backup.json").read_text())
    for changed, message in (
        ({"digest": "f" * 64}, "MODEL_NAME"),
        ({"format": 9}, "newer Oceano"),
        ({"collection": "others"}, "QDRANT_COLLECTION=others"),
    ):
        (backup / "backup.json").write_text(json.dumps(manifest | changed))
        assert main(["restore", str(backup)]) in (2, 3)
        assert message in capsys.readouterr().err
    (backup / "backup.json").write_text("{")
    assert main(["restore", str(backup)]) == 2


def test_thumbnails_that_cannot_be_hard_linked_are_copied(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    assert main(["backup", str(tmp_path / "backup")]) == 0
    assert len(list((tmp_path / "backup" / "thumbs").rglob("*.jpg"))) == COUNT
    assert not list((tmp_path / "backup").rglob("*.tmp"))


def test_the_note_of_another_restore_is_ignored(
    settings: Settings, backup: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = {"backup": json.loads((backup / "backup.json").read_text()), "into": "http://127.0.0.1:1"}
    (settings.state_dir / "restore-faces.json").write_text(json.dumps(note))
    assert main(["restore", str(backup)]) == 2
    assert f"already has {COUNT} faces" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["state/catalog.sqlite3", "qdrant_storage/embedded/faces.alias.json", "faces"])
def test_a_backup_that_lacks_a_part_is_not_restored(
    settings: Settings, backup: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if part == "faces":
        (folder,) = (backup / "qdrant_storage" / "embedded").glob("faces__*")
        shutil.rmtree(folder)
    else:
        (backup / part).unlink()
    lose_everything(settings)
    assert main(["restore", str(backup)]) == 2
    assert "is incomplete" in capsys.readouterr().err


@BOTH
def test_a_backup_in_a_folder_whose_name_is_not_utf_8_is_restored_and_unchanged(
    settings: Settings, tmp_path: Path
) -> None:
    backup = tmp_path / os.fsdecode(b"\xff\xfe")
    assert main(["backup", str(backup)]) == 0
    before = {path: path.stat().st_mtime_ns for path in backup.rglob("*")}
    lose_everything(settings)
    left = settings.state_dir / ".restore.1"
    left.mkdir(parents=True)  # as after a killed restore
    assert main(["restore", str(backup)]) == 0
    require_all(settings)
    assert {path: path.stat().st_mtime_ns for path in backup.rglob("*")} == before
    assert settings.qdrant_url == "" or not list(settings.state_dir.glob(".restore.*"))


@pytest.mark.parametrize("part", ["state/catalog.sqlite3", "qdrant_storage/embedded/**/vectors/**/*.mmap"])
def test_a_damaged_backup_is_not_restored(
    settings: Settings, backup: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = next(path for path in backup.glob(part) if path.is_file())
    with damaged.open("r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(bytes([byte[0] ^ 1]))
    lose_everything(settings)
    assert main(["restore", str(backup)]) == 2
    assert f"{damaged} has changed" in capsys.readouterr().err
    assert not settings.embedded_dir.exists()


def test_a_backup_with_links_or_pipes_is_refused_without_hanging(
    settings: Settings, backup: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lose_everything(settings)
    segments = next(backup.glob("qdrant_storage/embedded/*/shard-backup/segments"))
    segments.rename(tmp_path / "elsewhere")
    segments.symlink_to(tmp_path / "elsewhere")
    assert main(["restore", str(backup)]) == 2
    assert "is missing" in capsys.readouterr().err
    (backup / "state" / "catalog.sqlite3").unlink()
    os.mkfifo(backup / "state" / "catalog.sqlite3")
    assert main(["restore", str(backup)]) == 2
    (backup / "backup.json").unlink()
    os.mkfifo(backup / "backup.json")
    assert main(["restore", str(backup)]) == 2
    assert "is not a backup" in capsys.readouterr().err
    assert not settings.embedded_dir.exists()


def test_a_restore_removes_leftovers_of_a_killed_one_and_its_own_on_a_full_disk(
    settings: Settings, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_everything(settings)
    (collection,) = (path.name for path in (backup / "qdrant_storage" / "embedded").glob("faces__*"))
    left = settings.embedded_dir / f".{collection}.{os.getpid()}.partial"  # pids repeat in containers
    left.mkdir(parents=True)

    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("app.index.embedded.backup.sync_tree", full)
        assert main(["restore", str(backup)]) == 3
    assert not list(settings.embedded_dir.glob(".*.partial"))
    assert main(["restore", str(backup)]) == 0
    require_all(settings)


def test_opening_the_index_waits_for_a_running_restore(
    settings: Settings, backup: Path, monkeypatch: pytest.MonkeyPatch
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
        assert main(["restore", str(backup)]) == 0
        opened.result()
    assert counts == [COUNT]
    require_all(settings)


def test_a_backup_without_digests_is_restored(settings: Settings, backup: Path) -> None:
    manifest = json.loads((backup / "backup.json").read_text())
    assert manifest.pop("files")
    (backup / "backup.json").write_text(json.dumps(manifest))
    lose_everything(settings)
    assert main(["restore", str(backup)]) == 0
    require_all(settings)


def test_a_name_that_is_too_long_is_reported(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["backup", str(tmp_path / ("x" * 250))]) == 3
    assert "too long" in capsys.readouterr().err


def test_leftovers_of_a_killed_backup_are_removed_by_the_next(settings: Settings, tmp_path: Path) -> None:
    leftovers = [tmp_path / f".{name}.999999999.partial" for name in ("backup", "an older.one")]
    running, foreign = tmp_path / f".backup.{os.getppid()}.partial", tmp_path / ".other.999999999.partial"
    for folder in (*leftovers, running, foreign):
        (folder / "state").mkdir(parents=True)
    (foreign / "letter.txt").touch()
    (tmp_path / ".link.999999999.partial").symlink_to(tmp_path / "elsewhere")
    assert main(["backup", str(tmp_path / "backup")]) == 0
    assert not any(leftover.exists() for leftover in leftovers)
    assert running.exists()  # its process is running
    assert foreign.exists()  # no backup
    assert (tmp_path / ".link.999999999.partial").is_symlink()


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
def test_an_incomplete_manifest_is_refused(
    bare: Settings, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "backup.json").write_text(text)
    assert main(["restore", str(tmp_path / "backup")]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("settings", ["server"], indirect=True)
def test_a_backup_of_a_server_without_disk_space_is_refused_at_the_start(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("app.commands.backup._WRITE_RESERVE_BYTES", 1 << 60)
    assert main(["backup", str(tmp_path / "backup")]) == 3
    assert "disk_full" in capsys.readouterr().err
    assert not list(tmp_path.glob("*backup*"))


def test_a_damaged_ledger_is_not_backed_up(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(open_ledger(settings, find_model(settings))) as ledger:
        ledger.record([FileRecord(f"/{number:0200}", 1, 1, f"{number}", "done") for number in range(2000)])
    lose_rows(settings.state_dir / "catalog.sqlite3")
    assert main(["backup", str(tmp_path / "backup")]) == 3
    assert "ledger_unavailable" in capsys.readouterr().err
    assert not (tmp_path / "backup").exists()


def test_a_pipe_among_the_thumbnails_is_not_backed_up(settings: Settings, tmp_path: Path) -> None:
    thumb = ThumbStore(settings.thumbs_dir).path(FACES[0].face_id)
    thumb.unlink()
    os.mkfifo(thumb)
    assert main(["backup", str(tmp_path / "backup")]) == 0
    assert not (tmp_path / "backup" / "thumbs" / thumb.parent.name / thumb.name).exists()


def test_previews_are_not_backed_up(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    PreviewStore(ThumbStore(settings.thumbs_dir).previews, 10**6).write("a" * 64, 640, b"preview")
    assert main(["backup", str(tmp_path / "backup")]) == 0
    assert f"{COUNT} faces, {COUNT} thumbnails" in capsys.readouterr().out
    assert not (tmp_path / "backup" / "thumbs" / "previews").exists()


# --- catalogs of both kinds


def add_job(settings: Settings) -> None:
    pack = find_model(settings)
    with closing(open_ledger(settings, pack)) as ledger:
        Jobs(ledger.database, ledger.collection).add("/photos", {}, "ana")


def jobs_of(settings: Settings) -> list[tuple[str, str]]:
    with closing(open_ledger(settings, find_model(settings))) as ledger:
        return [(job.folder, job.state) for job in Jobs(ledger.database, ledger.collection).newest()]


@pytest.mark.parametrize("before", KINDS)
@pytest.mark.parametrize("after", KINDS)
def test_a_backup_brings_the_catalog_back_into_either_kind(
    bare: Settings, tmp_path: Path, before: str, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as databases:

        def use(kind: str) -> Settings:
            url = databases.enter_context(new_postgresql_database()) if kind == "postgresql" else ""
            monkeypatch.setenv("CATALOG_URL", url)
            return load_settings()

        made = use(before)
        fill(made)
        add_job(made)
        assert main(["backup", str(tmp_path / "backup")]) == 0
        assert (tmp_path / "backup" / "state" / "catalog.sqlite3").is_file()
        lose_everything(made)
        restored = use(after)
        assert main(["restore", str(tmp_path / "backup")]) == 0
        require_all(restored)
        assert jobs_of(restored) == [("/photos", "interrupted")]
        with open_without_engine(restored):  # the catalog belongs to the restored index
            pass


def test_after_a_restore_a_shared_catalog_belongs_to_the_restored_index_alone(
    bare: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with new_postgresql_database() as url:
        monkeypatch.setenv("CATALOG_URL", url)
        first = load_settings()
        fill(first)
        with open_without_engine(first):  # an ingest: the catalog belongs to this index from now on
            pass
        assert main(["backup", str(tmp_path / "backup")]) == 0
        put(tmp_path / "second" / "models" / "small")
        monkeypatch.setenv("DATA_DIR", str(tmp_path / "second"))
        second = load_settings()
        assert main(["restore", str(tmp_path / "backup")]) == 0
        assert f"no longer to DATA_DIR={first.data_dir} on " in capsys.readouterr().out
        require_all(second)
        with open_without_engine(second):
            pass
        with pytest.raises(OceanoError, match="belongs to another index"), open_without_engine(first):
            pass


def test_a_restore_into_a_catalog_of_no_other_index_says_nothing_of_indexes(
    settings: Settings, backup: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lose_everything(settings)
    with new_postgresql_database() as url:
        monkeypatch.setenv("CATALOG_URL", url)
        assert main(["restore", str(backup)]) == 0
        assert "no longer" not in capsys.readouterr().out


def test_a_restore_that_is_stopped_in_the_catalog_is_marked_and_continues(
    settings: Settings, backup: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lose_everything(settings)
    stop = Event()

    def restore_stopped(*arguments: Any) -> bool:
        stop.set()
        return restore(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("app.commands.backup.restore", restore_stopped)
        assert run_restore(settings, backup, stop) == 130
    assert "run the same command again" in capsys.readouterr().out
    assert (settings.state_dir / "restore-faces.json").exists()
    with closing(open_ledger(settings, find_model(settings))) as ledger:
        assert list(ledger.files("/")) == []
    assert main(["restore", str(backup)]) == 0
    require_all(settings)


def test_a_stopped_backup_of_postgresql_leaves_nothing(
    bare: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with new_postgresql_database() as url:
        monkeypatch.setenv("CATALOG_URL", url)
        made = load_settings()
        fill(made)
        stop = Event()
        stop.set()
        assert run_backup(made, tmp_path / "backup", stop) == 130
        assert "no backup was made" in capsys.readouterr().out
        assert list(tmp_path.glob("*backup*")) == []


def test_nothing_is_restored_while_workers_use_the_catalog(
    settings: Settings, backup: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lose_everything(settings)
    with new_postgresql_database() as url:
        monkeypatch.setenv("CATALOG_URL", url)
        with closing(open_postgresql(url)) as database:
            worker = Worker(database, "c", "machine-2 7")
            worker.join()
            assert main(["restore", str(backup)]) == 3
            assert "(machine-2 7); stop them first" in capsys.readouterr().err
            worker.leave()
        assert main(["restore", str(backup)]) == 0
        require_all(load_settings())


def test_a_restore_keeps_the_people_of_a_catalog_that_has_its_own(
    settings: Settings, backup: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = find_model(settings)
    with closing(open_index(settings, pack)) as index:
        unname_all(settings, index)
        name_faces(settings, index, {FACES[4].face_id: "Ida"})
        index.delete(ids_of(FACES))
    capsys.readouterr()
    assert main(["restore", str(backup)]) == 0
    assert "the people of the backup were not restored" in capsys.readouterr().out
    with closing(open_index(settings, pack)) as index:
        assert [record.face_id for record in named_faces(index)] == [FACES[4].face_id]
        assert [*names_by_id(settings).values()] == ["Ida"]
