"""Users beside keys, sessions of browsers, indexes of the audit log, when a job was resumed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns to the jobs and to the keys, which nothing used before, and the table of sessions."""
    op.add_column("jobs", sa.Column("resumed_at", sa.Text(), nullable=True, comment="when a worker last continued it"))
    op.add_column(
        "jobs",
        sa.Column(
            "images_before",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="images processed before that",
        ),
    )
    op.add_column("keys", sa.Column("kind", sa.Text(), nullable=False, server_default="key"))
    op.add_column("keys", sa.Column("created_by", sa.Text(), nullable=False, server_default="oceano"))
    valid_user = sa.text("kind = 'user' AND revoked_at IS NULL")
    op.create_index(
        "keys_valid_user", "keys", ["name"], unique=True, sqlite_where=valid_user, postgresql_where=valid_user
    )
    op.create_table(
        "sessions",
        sa.Column("digest", sa.Text(), nullable=False, comment="SHA-256 of the browser's token"),
        sa.Column(
            "before",
            sa.Text(),
            nullable=True,
            comment="SHA-256 of the token before it, which a request on its way may still have",
        ),
        sa.Column("form_token", sa.Text(), nullable=False, comment="of its forms, against other sites"),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column(
            "key_id", sa.Text(), nullable=True, comment="of the key or user that signed in; NULL: a sign-in service did"
        ),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("folders", sa.Text(), nullable=False, comment="JSON; empty: all"),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("rotated_at", sa.Text(), nullable=False, comment="when it got its token"),
        sa.Column(
            "confirmed", sa.Integer(), server_default="1", nullable=False, comment="1: the browser has sent its token"
        ),
        sa.Column("seen_at", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("sessions_by_before", "sessions", ["before"], unique=False)
    op.create_index("sessions_by_who", "sessions", ["who"], unique=False)
    op.create_index("audit_by_who", "audit", ["who", "number"], unique=False)
    op.create_index("audit_by_action", "audit", ["action", "number"], unique=False)
