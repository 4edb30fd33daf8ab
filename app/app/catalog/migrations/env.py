"""Alembic's environment: runs the migrations on the connection that `schema.upgrade` passes."""

from alembic import context

from app.catalog.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, transactional_ddl=True)
context.run_migrations()
