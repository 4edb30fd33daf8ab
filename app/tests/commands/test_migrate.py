"""`oceano migrate`: an index to a server and back, a catalog to PostgreSQL and back."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy import insert, make_url, select

from app.catalog import CATALOG_FILE, FileRecord, Ledger, open_postgresql
from app.catalog.database import rows
from app.catalog.tables import FILES, INDEXES, WORKERS
from app.cli import main
from app.commands.migrate import run_migrate
from app.core.config import Settings, load_settings
from app.core.errors import OceanoError
from app.core.types import FaceFilter
from app.index import open_index
from app.library import only_writer
from app.service.factory import find_model, open_ledger, open_without_engine
from tests.index.conftest import ids_of, points
from tests.support.packs import put
from tests.support.qdrant_nodes import BINARY, Node


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    put(tmp_path / "models" / "small")
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("MODEL_NAME", "small")
    monkeypatch.setattr("app.core.config.REPOSITORY", tmp_path)
    return tmp_path


def test_an_index_is_migrated_to_a_server_and_back(
    data: Path, qdrant_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load_settings()
    pack = find_model(settings)
    faces = points(520, seed=3)
    index = open_index(settings, pack)
    index.upsert(faces)
    index.set_payload(ids_of(faces[:2]), person="Ana")
    index.close()

    assert main(["migrate", "--to", qdrant_url]) == 0
    output = capsys.readouterr().out
    assert "both indexes have 520 faces (520 copied" in output
    assert f"QDRANT_URL={qdrant_url}" in output
    assert main(["migrate", "--to", qdrant_url]) == 0
    assert "(0 copied, 0 updated)" in capsys.readouterr().out

    monkeypatch.setenv("QDRANT_URL", qdrant_url)
    served = open_index(load_settings(), pack, create=False)
    assert served.info().kind == "server"
    assert served.count(FaceFilter(person="Ana")) == 2
    (match,) = served.search(faces[9].embedding, limit=1)
    assert (match.face_id, match.payload) == (faces[9].face_id, faces[9].payload)
    served.set_payload(ids_of(faces[:1]), person="Eva")
    served.close()

    assert main(["migrate", "--to", "embedded"]) == 0
    assert "(0 copied, 1 updated)" in capsys.readouterr().out
    monkeypatch.delenv("QDRANT_URL")
    back = open_index(load_settings(), pack, create=False)
    assert back.count(FaceFilter(person="Eva")) == 1
    back.close()


@pytest.mark.parametrize(
    ("to", "code", "output"),
    [
        ("embedded", 2, "the target is the current index"),
        ("somewhere", 2, "--to 'somewhere': must be like http://host:6333"),
        ("http://me:secret@host:6333", 2, "--to '***@host:6333': must not contain a user"),
        ("http://127.0.0.1:9", 2, "no index"),
    ],
)
def test_invalid_targets_are_reported(
    data: Path, to: str, code: int, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate", "--to", to]) == code
    assert output in capsys.readouterr().err


def test_the_same_server_by_another_name_is_refused(
    data: Path, qdrant_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QDRANT_URL", qdrant_url)
    settings = load_settings()
    with closing(open_index(settings, find_model(settings))) as index:
        index.upsert(points(3))
    assert main(["migrate", "--to", qdrant_url.replace("127.0.0.1", "localhost")]) == 2
    assert "is the current index under another address" in capsys.readouterr().err


@pytest.mark.parametrize(("own", "used"), [(None, "the key here"), ("the key there", "the key there")])
def test_the_target_server_may_have_another_key(
    data: Path, own: str | None, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[Settings] = []

    def record(settings: Settings, there: Settings, stop: Event, *, exact: bool, catalog_to: str) -> int:
        received.extend((settings, there))
        return 0

    monkeypatch.setattr("app.commands.migrate.run_migrate", record)
    monkeypatch.setenv("QDRANT_API_KEY", "the key here")
    if own:
        monkeypatch.setenv("MIGRATE_API_KEY", own)
    assert main(["migrate", "--to", "http://127.0.0.1:9"]) == 0
    assert [settings.qdrant_api_key for settings in received] == ["the key here", used]


@pytest.mark.server
def test_a_server_s_index_is_migrated_to_a_server_with_another_key(
    data: Path, qdrant_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not BINARY:
        pytest.skip("QDRANT_TEST_BINARY is not set")
    monkeypatch.setenv("QDRANT_URL", qdrant_url)
    settings = load_settings()
    with closing(open_index(settings, find_model(settings))) as index:
        index.upsert(points(3))
    with Node(tmp_path / "there", service__api_key="a key of sixteen or more") as there:
        arguments = ["migrate", "--to", there.url, "--grpc-port", str(there.grpc)]
        assert main(arguments) == 2
        assert "QDRANT_API_KEY" in capsys.readouterr().err
        assert main([*arguments, "--api-key", "a key of sixteen or more"]) == 0
    assert "both indexes have 3 faces" in capsys.readouterr().out


def test_a_migration_is_logged(data: Path, qdrant_url: str) -> None:
    settings = load_settings()
    with closing(open_index(settings, find_model(settings))) as index:
        index.upsert(points(3))
    assert main(["migrate", "--to", qdrant_url]) == 0
    for handler in logging.getLogger().handlers:
        handler.flush()
    assert "both indexes have 3 faces" in (settings.logs_dir / "migrate.log").read_text()


# --- the catalog


RECORDS = [
    FileRecord("/photos/1.jpg", 5, 6, "a" * 64, "done", 3, ctime_ns=7),
    FileRecord("/photos/2\udcff.jpg", 5, 6, None, "failed", 0, "invalid_image", "no picture"),
]


@pytest.fixture
def recorded(data: Path) -> Settings:
    """Settings of a SQLite catalog with records, and an index."""
    settings = load_settings()
    pack = find_model(settings)
    with closing(open_index(settings, pack)) as index, closing(open_ledger(settings, pack)) as ledger:
        index.upsert(points(3))
        ledger.record(RECORDS)
    return settings


def files_in(settings: Settings) -> list[FileRecord]:
    with closing(open_ledger(settings, find_model(settings))) as ledger:
        return list(ledger.files("/"))


def test_a_catalog_is_migrated_to_postgresql_and_back(
    recorded: Settings, postgresql_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate", "--catalog", postgresql_url]) == 0
    output = capsys.readouterr().out
    assert "both catalogs have the same rows: audit 1, files 2" in output
    assert f"set CATALOG_URL={postgresql_url} and restart" in output
    assert files_in(recorded) == RECORDS
    with closing(open_postgresql(postgresql_url)) as database:
        assert all("(embedded)" in row.name for row in rows(database, select(INDEXES.c.name)))
    assert main(["migrate", "--catalog", postgresql_url]) == 0  # nothing is left to do

    monkeypatch.setenv("CATALOG_URL", postgresql_url)
    there = load_settings()
    assert files_in(there) == RECORDS
    newer = [RECORDS[0], FileRecord("/photos/2\udcff.jpg", 1, 1, "b" * 64, "no_face")]
    with closing(open_ledger(there, find_model(there))) as ledger:
        ledger.record(newer)
    assert main(["migrate", "--catalog", "sqlite"]) == 2  # the first one is still there
    assert f"{recorded.state_dir / CATALOG_FILE} has other rows in the table files" in capsys.readouterr().err
    (recorded.state_dir / CATALOG_FILE).unlink()
    assert main(["migrate", "--catalog", "sqlite"]) == 0
    assert "remove CATALOG_URL" in capsys.readouterr().out
    assert files_in(there) == newer
    monkeypatch.delenv("CATALOG_URL")
    assert files_in(load_settings()) == newer


def test_an_older_catalog_gets_the_missing_rows_on_the_way_back(
    recorded: Settings, postgresql_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate", "--catalog", postgresql_url]) == 0
    monkeypatch.setenv("CATALOG_URL", postgresql_url)
    there = load_settings()
    added = FileRecord("/photos/3.jpg", 1, 1, "c" * 64, "no_face")
    with closing(open_ledger(there, find_model(there))) as ledger:
        ledger.record([added])
    assert main(["migrate", "--catalog", "sqlite"]) == 0
    with closing(open_ledger(there, find_model(there))) as ledger:
        ledger.delete_images(["c" * 64])
    assert main(["migrate", "--catalog", "sqlite"]) == 2, "the older one has a file that the current one lacks"
    monkeypatch.delenv("CATALOG_URL")
    assert files_in(load_settings()) == [*RECORDS, added]


def test_index_and_catalog_are_migrated_by_one_command(
    recorded: Settings,
    qdrant_url: str,
    postgresql_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MIGRATE_CATALOG_URL", postgresql_url)  # where `ps` does not show a password
    assert main(["migrate", "--to", qdrant_url]) == 0
    output = capsys.readouterr().out
    assert f"set QDRANT_URL={qdrant_url}" in output
    assert f"set CATALOG_URL={postgresql_url}" in output
    with closing(open_postgresql(postgresql_url)) as database:
        named = {row.name for row in rows(database, select(INDEXES.c.name))}
    assert named == {f"QDRANT_URL={qdrant_url}"}


def test_a_catalog_in_postgresql_learns_of_the_copy_of_its_index(
    recorded: Settings, qdrant_url: str, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["migrate", "--catalog", postgresql_url]) == 0
    monkeypatch.setenv("CATALOG_URL", postgresql_url)
    monkeypatch.setenv("QDRANT_URL", qdrant_url)
    with pytest.raises(OceanoError, match="belongs to another index"), open_without_engine(load_settings()):
        pass
    monkeypatch.delenv("QDRANT_URL")
    assert main(["migrate", "--to", qdrant_url]) == 0
    for url in (qdrant_url, ""):
        monkeypatch.setenv("QDRANT_URL", url)
        with open_without_engine(load_settings()) as (_, index, _):
            assert index.count() == 3


@pytest.mark.parametrize(
    ("to", "code", "output"),
    [
        ("sqlite", 2, "the target is the current catalog"),
        ("mysql://root:secret@host/oceano", 2, "--catalog: mysql is not supported. Use sqlite, or a URL such as"),
        ("nonsense", 2, "--catalog: it is not a URL. Use sqlite, or a URL such as"),
        ("postgresql://oceano:secret@127.0.0.1", 2, "--catalog: it names no database"),
        ("postgresql://oceano:secret@127.0.0.1:9/oceano", 3, "ledger_unavailable"),
        ("postgresql://oceano:p@secret@127.0.0.1:9/oceano", 2, "--catalog: it has more than one @"),
    ],
)
def test_invalid_targets_of_a_catalog_are_reported_in_one_line_without_the_password(
    recorded: Settings, to: str, code: int, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate", "--catalog", to]) == code
    error = capsys.readouterr().err
    assert output in error
    assert "secret" not in error
    assert "Traceback" not in error
    assert "CATALOG_URL" not in error, "the command's own option is named"
    assert files_in(recorded) == RECORDS


def test_a_wrong_password_or_the_database_of_another_program_are_no_target(
    recorded: Settings, postgresql_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = (
        make_url(postgresql_url).set(username="nobody_here", password="secret").render_as_string(hide_password=False)
    )
    assert main(["migrate", "--catalog", nobody]) == 2
    with closing(open_postgresql(postgresql_url)) as database, database.engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE TABLE songs (title TEXT)")
    assert main(["migrate", "--catalog", postgresql_url]) == 2
    error = capsys.readouterr().err
    assert "holds tables of another program (songs)" in error
    assert "secret" not in error


def test_a_catalog_of_a_running_ingest_is_not_migrated(
    recorded: Settings, postgresql_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with only_writer(recorded.state_dir):
        assert main(["migrate", "--catalog", postgresql_url]) == 3
    assert "ingest_in_progress" in capsys.readouterr().err
    with closing(open_postgresql(postgresql_url)) as database:
        with database.writing() as connection:
            worker = {"id": "w", "name": "machine-2 7", "leased_until": 1 << 40}
            connection.execute(insert(WORKERS), worker)
        assert main(["migrate", "--catalog", postgresql_url]) == 3
        assert "(machine-2 7); stop them first" in capsys.readouterr().err
        assert rows(database, select(FILES)) == []


def test_an_interrupted_migration_leaves_the_target_empty_and_is_repeated(
    recorded: Settings, postgresql_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = Event()
    stop.set()
    assert run_migrate(recorded, None, stop, catalog_to=postgresql_url) == 130
    assert "unchanged" in capsys.readouterr().out
    with closing(open_postgresql(postgresql_url)) as database:
        assert list(Ledger(database, "c").files("/")) == []
        assert rows(database, select(FILES)) == []
    assert run_migrate(recorded, None, Event(), catalog_to=postgresql_url) == 0


def test_a_migration_needs_a_target(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate"]) == 2
    assert "--to for the index, --catalog for the catalog" in capsys.readouterr().err
