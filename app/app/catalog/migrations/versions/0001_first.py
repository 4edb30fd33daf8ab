"""The first catalog."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "audit",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False, comment="from 1, without gaps"),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=True),
        sa.Column("details", sa.Text(), nullable=False, comment="JSON"),
        sa.Column(
            "digest", sa.Text(), nullable=False, comment="SHA-256 of this entry and the digest of the one before"
        ),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_table(
        "files",
        sa.Column("collection", sa.Text(), nullable=False, comment="full name of the index's collection"),
        sa.Column("path", sa.LargeBinary(), nullable=False, comment="absolute"),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column(
            "ctime_ns", sa.BigInteger(), nullable=True, comment="NULL if recorded before version 4 of the ledger"
        ),
        sa.Column(
            "image_id", sa.Text(), nullable=True, comment="SHA-256 of the contents; NULL where they could not be read"
        ),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("faces", sa.Integer(), server_default="0", nullable=False),
        sa.Column("reason", sa.Text(), nullable=True, comment="an error code"),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("updated_at", sa.Text(), nullable=False),
        sa.CheckConstraint("status IN ('done', 'no_face', 'failed', 'duplicate')", name="files_status"),
        sa.PrimaryKeyConstraint("collection", "path"),
        sqlite_with_rowid=False,
    )
    op.create_index("files_by_image_and_status", "files", ["collection", "image_id", "status"], unique=False)
    op.create_table(
        "indexes",
        sa.Column("collection", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False, comment="what distinguishes the index from all others"),
        sa.Column("name", sa.Text(), nullable=False, comment="for messages"),
        sa.Column("added_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("collection", "id"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), nullable=False, comment="UUID"),
        sa.Column("collection", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="such as ingest"),
        sa.Column("folder", sa.LargeBinary(), nullable=False),
        sa.Column("options", sa.Text(), nullable=False, comment="JSON"),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column(
            "shared", sa.Integer(), nullable=False, comment="1: workers share its files; 0: one process has them all"
        ),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=True, comment="the worker that scans the folder or finishes the job"),
        sa.Column("counts", sa.Text(), server_default="{}", nullable=False, comment="JSON"),
        sa.Column("started_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Text(), nullable=True),
        sa.Column("ended_at", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True, comment="an error code"),
        sa.Column("message", sa.Text(), nullable=True),
        sa.CheckConstraint("phase IN ('scan', 'files', 'finish')", name="jobs_phase"),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'stopping', 'done', 'failed', 'interrupted')", name="jobs_state"
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("jobs_by_state", "jobs", ["state", "created_at"], unique=False)
    op.create_table(
        "keys",
        sa.Column("id", sa.Text(), nullable=False, comment="UUID"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False, comment="of the key, which is not kept"),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("folders", sa.Text(), server_default="[]", nullable=False, comment="JSON; empty: all"),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Text(), nullable=True),
        sa.Column("used_at", sa.Text(), nullable=True),
        sa.Column("revoked_at", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("digest"),
    )
    op.create_table(
        "mounts",
        sa.Column(
            "place", sa.LargeBinary(), nullable=False, comment="files below it are on the drive mounted at `point`"
        ),
        sa.Column("point", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("place", "point"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "people",
        sa.Column("id", sa.Text(), nullable=False, comment="UUID"),
        sa.Column("name", sa.Text(), nullable=False, comment="may be empty, and several people may have the same"),
        sa.Column("hidden", sa.Integer(), server_default="0", nullable=False),
        sa.Column("birth_date", sa.Text(), nullable=True),
        sa.Column("notes", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False, comment="one more with each change"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("people_by_name", "people", ["name"], unique=False)
    op.create_table(
        "reservations",
        sa.Column("collection", sa.Text(), nullable=False),
        sa.Column("image_id", sa.Text(), nullable=False, comment="an image that a worker is processing"),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("collection", "image_id"),
    )
    op.create_index("reservations_by_worker", "reservations", ["worker"], unique=False)
    op.create_table(
        "superseded",
        sa.Column("collection", sa.Text(), nullable=False),
        sa.Column("image_id", sa.Text(), nullable=False, comment="an image with faces whose file became another image"),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.Column("faces", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("collection", "image_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "suppression",
        sa.Column("id", sa.Text(), nullable=False, comment="UUID"),
        sa.Column("image_id", sa.Text(), nullable=True, comment="an image that is not ingested again"),
        sa.Column("model_digest", sa.Text(), nullable=True, comment="of the model that made the embedding"),
        sa.Column("embedding", sa.LargeBinary(), nullable=True, comment="a face that is not ingested again, float32"),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("suppression_by_image", "suppression", ["image_id"], unique=False)
    op.create_table(
        "unsettled",
        sa.Column("collection", sa.Text(), nullable=False),
        sa.Column(
            "image_id",
            sa.Text(),
            nullable=False,
            comment="an image whose faces in the index may lack paths of its files",
        ),
        sa.PrimaryKeyConstraint("collection", "image_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), nullable=False, comment="UUID"),
        sa.Column("name", sa.Text(), nullable=False, comment="host and process"),
        sa.Column("job_id", sa.Text(), nullable=True, comment="the job that it works on"),
        sa.Column(
            "leased_until",
            sa.BigInteger(),
            nullable=False,
            comment="seconds since 1970; then the worker counts as dead",
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "assignments",
        sa.Column("id", sa.Text(), nullable=False, comment="UUID"),
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.Column(
            "image_id", sa.Text(), nullable=False, comment="with page and box, so that it stays true with another model"
        ),
        sa.Column("page", sa.Integer(), server_default="0", nullable=False),
        sa.Column("x1", sa.Float(), nullable=False, comment="of the box, in pixels of the upright image"),
        sa.Column("y1", sa.Float(), nullable=False),
        sa.Column("x2", sa.Float(), nullable=False),
        sa.Column("y2", sa.Float(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("assigned_by", sa.Text(), nullable=False),
        sa.Column("assigned_at", sa.Text(), nullable=False),
        sa.CheckConstraint("source IN ('manual', 'confirmed', 'metadata')", name="assignments_source"),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("assignments_by_image", "assignments", ["image_id"], unique=False)
    op.create_index("assignments_by_person", "assignments", ["person_id"], unique=False)
    op.create_table(
        "claims",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False, comment="order of the scan"),
        sa.Column("key", sa.LargeBinary(), nullable=False, comment="of the path, see `path_key`"),
        sa.Column("path", sa.LargeBinary(), nullable=False, comment="a file of a shared job"),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("ctime_ns", sa.BigInteger(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True, comment="the worker that has it; NULL: none"),
        sa.Column("not_before", sa.BigInteger(), server_default="0", nullable=False, comment="seconds since 1970"),
        sa.Column("finished", sa.Integer(), server_default="0", nullable=False, comment="1: its result is in `files`"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "number"),
    )
    op.create_index("claims_by_key", "claims", ["job_id", "key"], unique=True)
    op.create_index("claims_by_worker", "claims", ["worker"], unique=False)
    op.create_index("claims_open", "claims", ["job_id", "finished", "worker", "number"], unique=False)
    op.create_table(
        "missing",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False, comment="of the path, see `path_key`"),
        sa.Column("path", sa.LargeBinary(), nullable=False, comment="a known file that is missing before the scan"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "key"),
    )
    op.create_table(
        "problems",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False, comment="of the path, see `path_key`"),
        sa.Column("path", sa.LargeBinary(), nullable=False, comment="the file"),
        sa.Column("code", sa.Text(), nullable=False, comment="an error code"),
        sa.Column("message", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "key"),
    )
