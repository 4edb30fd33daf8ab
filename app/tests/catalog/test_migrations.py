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

from app.catalog import Jobs, KeyStore, open_ledger, schema
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


def test_a_catalog_of_the_first_version_is_upgraded_with_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite3"
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(schema._MIGRATIONS))
        command.upgrade(config, "0001")
        connection.exec_driver_sql(
            "INSERT INTO jobs (id, collection, kind, folder, options, state, shared, phase, started_by, created_at) "
            "VALUES ('j', 'faces', 'ingest', x'2F70', '{}', 'done', 0, 'finish', 'tests', '2026-11-01T00:00:00+00:00')"
        )
    engine.dispose()
    with closing(open_ledger(path, "faces")) as ledger:
        (job,) = Jobs(ledger.database, "faces").newest()
        assert (job.id, job.folder, job.state) == ("j", "/p", "done")
        assert KeyStore(ledger.database).all() == []
        with ledger.database.reading() as connection:
            assert schema.is_current(connection, "catalog")
