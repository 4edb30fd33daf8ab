"""The catalog in a SQLite file: durability, damage, a full disk, files that are no catalog."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from app.catalog import FileRecord, Ledger, Totals, open_ledger, open_sqlite
from app.catalog.sqlite import SqliteDatabase
from app.core.errors import OceanoError
from tests.support.damage import damage_bytes, lose_rows
from tests.support.plans import selects_of, whole_reads


@pytest.fixture
def database(tmp_path: Path) -> SqliteDatabase:
    return open_sqlite(tmp_path / "state" / "catalog.sqlite3")


def done(path: str, image_id: str = "i1") -> FileRecord:
    return FileRecord(path, 10, 20, image_id, "done", 1)


def pragma(database: SqliteDatabase, name: str) -> object:
    with database.reading() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()


def test_the_journal_is_truncate_and_fully_synchronised(database: SqliteDatabase) -> None:
    assert pragma(database, "journal_mode") == "truncate"
    assert pragma(database, "synchronous") == 2
    assert pragma(database, "foreign_keys") == 1


def test_a_second_process_reads_while_the_first_stays_open(tmp_path: Path) -> None:
    writer, reader = (open_ledger(tmp_path / "catalog.sqlite3", "c") for _ in range(2))
    version = reader.version()
    writer.record([done("/a")])
    assert reader.totals() == Totals(done=1, faces=1)
    assert reader.version() != version


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "catalog.sqlite3").write_bytes(b"rubbish" * 1000)
    with pytest.raises(OceanoError, match="not a database") as raised:
        open_sqlite(tmp_path / "catalog.sqlite3")
    assert raised.value.code == "ledger_unavailable"


def test_a_file_whose_schema_is_damaged_is_said_to_be_damaged(database: SqliteDatabase) -> None:
    """SQLite quotes the damaged text in its message, which is no text then."""
    database.close()
    damage_bytes(database.path, b"CREATE TABLE jobs", b"CREATE \xffABLE jobs")
    with pytest.raises(OceanoError, match=r"catalog\.sqlite3 is damaged: malformed database schema") as raised:
        open_sqlite(database.path)
    assert (raised.value.code, raised.value.details) == ("ledger_unavailable", {"path": str(database.path)})


def test_a_database_of_another_program_is_refused_and_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite3"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE songs (title TEXT)")
        other.commit()
    before = path.read_bytes()
    with pytest.raises(OceanoError, match=r"another program \(songs\)"):
        open_sqlite(path)
    assert path.read_bytes() == before


def test_a_catalog_of_a_newer_oceano_is_refused(database: SqliteDatabase) -> None:
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    with pytest.raises(OceanoError, match=r"newer Oceano \(version 9999\)"):
        open_sqlite(database.path)


def test_a_full_disk_is_said_as_disk_full(database: SqliteDatabase) -> None:
    ledger = Ledger(database, "c")
    pages = pragma(database, "page_count")
    with database.reading() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OceanoError) as raised:
        ledger.record([done(f"/{place:0100}", str(place)) for place in range(1000)])
    assert raised.value.code == "disk_full"
    assert ledger.totals() == Totals()


def test_a_write_that_fails_leaves_no_transaction_open(database: SqliteDatabase) -> None:
    ledger = Ledger(database, "c")
    ledger.record([done("/a")])
    with pytest.raises(OceanoError) as raised:
        ledger.delete_images([object()])  # type: ignore[list-item]
    assert raised.value.code == "ledger_unavailable"
    with open_sqlite(database.path).writing():  # no lock is left
        pass
    assert len(list(ledger.files("/"))) == 1


def test_a_damaged_catalog_is_found_by_the_check(database: SqliteDatabase) -> None:
    Ledger(database, "c").record([done(f"/{place:0200}", f"{place}") for place in range(2000)])
    database.check()
    database.close()
    lose_rows(database.path)
    with pytest.raises(OceanoError, match="damaged") as raised:
        open_sqlite(database.path).check()
    assert raised.value.code == "ledger_unavailable"


def test_a_catalog_can_be_read_by_its_owner_only(database: SqliteDatabase) -> None:
    assert database.path.parent.stat().st_mode & 0o777 == 0o700
    assert database.path.stat().st_mode & 0o777 == 0o600


def test_no_look_up_reads_the_files_of_the_whole_collection(tmp_path: Path) -> None:
    """With a million files, one that does takes half a second; an ingest looks up each batch."""
    with closing(open_ledger(tmp_path / "catalog.sqlite3", "faces")) as ledger:
        images = ["a" * 64, "b" * 64]
        ledger.record([done(f"/p/{number}.jpg", images[number]) for number in range(2)])

        with selects_of(ledger.database) as selects:
            ledger.file("/p/0.jpg")
            ledger.files_at(["/p/0.jpg", "/p/1.jpg"])
            ledger.image(images[0])
            for some in (images, images[:1]):
                ledger.originals(some)
                ledger.paths_of_images(some)
            ledger.files_of(images[0])
            ledger.unsettled(10)
            ledger.replaced()
        assert len(selects) >= 9
        for statement, values in selects:
            wrong = [one for one in whole_reads(ledger.database, statement, values) if " files" in one]
            assert wrong == [], statement
