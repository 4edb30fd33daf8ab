"""The migrations make the tables that the code uses."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, create_engine, inspect

from app.catalog import Jobs, KeyStore, PeopleStore, open_ledger, schema
from app.catalog.database import Database
from app.catalog.tables import METADATA


def test_the_migrations_make_the_tables_of_the_code(database: Database) -> None:
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, METADATA) == []
        found = {
            str(one["name"]) for table in METADATA.tables for one in inspect(connection).get_check_constraints(table)
        }
    checks = {
        str(one.name)
        for table in METADATA.sorted_tables
        for one in table.constraints
        if isinstance(one, CheckConstraint)
    }
    assert checks
    assert found == checks


def test_the_newest_migration_is_the_version_of_the_code() -> None:
    scripts = ScriptDirectory(str(schema._MIGRATIONS))
    assert scripts.get_current_head() == schema.CURRENT
    assert {one.revision for one in scripts.walk_revisions()} == schema._KNOWN


def test_people_without_a_cover_get_their_first_face(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite3"
    _upgrade(
        path,
        "0003",
        "INSERT INTO people (id, name, hidden, cover, faces, created_at, changed_at) VALUES "
        "('a', 'Ada', 0, NULL, 3, '', ''), ('b', 'Ben', 0, 'of b', 1, '', ''), ('c', 'Eve', 0, 'gone', 0, '', '')",
        "INSERT INTO assignments (id, person_id, image_id, page, x1, y1, x2, y2, source, assigned_by, assigned_at) "
        "VALUES ('later', 'a', 'i', 0, 0, 0, 9, 9, 'manual', '', '2'), "
        "('small', 'a', 'j', 0, 0, 0, 2, 2, 'manual', '', '1'), ('large', 'a', 'k', 0, 0, 0, 5, 5, 'manual', '', '1'), "
        "('of b', 'b', 'i', 0, 9, 0, 12, 9, 'manual', '', '2')",
    )
    with closing(open_ledger(path, "faces")) as ledger:
        found = PeopleStore(ledger.database).persons(["a", "b", "c"])
        assert {one.id: one.cover for one in found.values()} == {"a": "large", "b": "of b", "c": "gone"}


def test_a_catalog_of_the_first_version_is_upgraded_with_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite3"
    _upgrade(
        path,
        "0001",
        "INSERT INTO jobs (id, collection, kind, folder, options, state, shared, phase, started_by, created_at) "
        "VALUES ('j', 'faces', 'ingest', x'2F70', '{}', 'done', 0, 'finish', 'tests', '2026-11-01T00:00:00+00:00')",
    )
    with closing(open_ledger(path, "faces")) as ledger:
        (job,) = Jobs(ledger.database, "faces").newest()
        assert (job.id, job.folder, job.state) == ("j", "/p", "done")
        assert KeyStore(ledger.database).all() == []
        with ledger.database.reading() as connection:
            assert schema.is_current(connection, "catalog")


def _upgrade(path: Path, revision: str, *statements: str) -> None:
    """Make a catalog of a version, and run statements in it."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(schema._MIGRATIONS))
        command.upgrade(config, revision)
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()
