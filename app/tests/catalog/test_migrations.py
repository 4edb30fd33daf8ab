"""The migrations make the tables that the code uses."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, inspect

from app.catalog import schema
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
