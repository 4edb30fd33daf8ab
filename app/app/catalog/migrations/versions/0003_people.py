"""Names of faces: rejections, dismissals, a journal of changes, and groups of faces."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables, and what people lacked; nothing has written to people and assignments yet."""
    op.add_column(
        "people",
        sa.Column(
            "name_key", sa.Text(), nullable=False, server_default=sa.text("''"), comment="for searches, see `name_key`"
        ),
    )
    op.add_column(
        "people",
        sa.Column(
            "cover", sa.Text(), nullable=True, comment="id of an assignment; NULL or unknown: any of the person's"
        ),
    )
    op.add_column(
        "people", sa.Column("faces", sa.Integer(), nullable=False, server_default="0", comment="number of assignments")
    )
    op.drop_index("people_by_name", "people")
    op.create_index("people_by_name", "people", ["name_key", "id"])
    op.create_index("people_by_faces", "people", ["faces", "id"])
    op.create_table(
        "rejections",
        sa.Column("id", sa.Text(), nullable=False, comment="UUID"),
        sa.Column("person_id", sa.Text(), sa.ForeignKey("people.id", ondelete="CASCADE"), nullable=False),
        *_place(),
        sa.Column("rejected_by", sa.Text(), nullable=False),
        sa.Column("rejected_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("rejections_by_person", "rejections", ["person_id"])
    op.create_index("rejections_by_image", "rejections", ["image_id"])
    op.create_table(
        "dismissals",
        sa.Column("id", sa.Text(), nullable=False, comment="UUID"),
        sa.Column("kind", sa.Text(), nullable=False, comment="set_aside: of no interest; not_a_face"),
        *_place(),
        sa.Column("dismissed_by", sa.Text(), nullable=False),
        sa.Column("dismissed_at", sa.Text(), nullable=False),
        sa.CheckConstraint("kind IN ('set_aside', 'not_a_face')", name="dismissals_kind"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("dismissals_by_image", "dismissals", ["image_id"])
    op.create_table(
        "changes",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False, comment="from 1"),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="such as assign"),
        sa.Column(
            "faces", sa.Integer(), nullable=False, server_default="0", comment="number of faces that it was about"
        ),
        sa.Column("details", sa.Text(), nullable=False, server_default="{}", comment="JSON"),
        sa.Column("undoes", sa.BigInteger(), nullable=True, comment="number of the change that it undid"),
        sa.Column("undone_by", sa.BigInteger(), nullable=True, comment="number of the change that undid it"),
        sa.Column("key", sa.Text(), nullable=True, comment="of an idempotent request, with who sent it"),
        sa.Column("request", sa.Text(), nullable=True, comment="digest of that request"),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index("changes_by_key", "changes", ["key"], unique=True)
    op.create_table(
        "changed_rows",
        sa.Column("change", sa.BigInteger(), sa.ForeignKey("changes.number", ondelete="CASCADE"), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False, comment="order within the change"),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("row_id", sa.Text(), nullable=False),
        sa.Column("image_id", sa.Text(), nullable=True, comment="of rows that are about a face"),
        sa.Column("before", sa.Text(), nullable=True, comment="JSON; NULL: there was no row"),
        sa.Column("after", sa.Text(), nullable=True, comment="JSON; NULL: there is none"),
        sa.PrimaryKeyConstraint("change", "place"),
    )
    op.create_table(
        "changed_people",
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.Column("change", sa.BigInteger(), sa.ForeignKey("changes.number", ondelete="CASCADE"), nullable=False),
        sa.PrimaryKeyConstraint("person_id", "change"),
        sqlite_with_rowid=False,
    )
    op.create_index("changed_people_by_change", "changed_people", ["change"])
    op.create_table(
        "copied_names",
        sa.Column("collection", sa.Text(), nullable=False),
        sa.Column("change", sa.BigInteger(), nullable=False, comment="the index has the names up to this change"),
        sa.PrimaryKeyConstraint("collection"),
    )
    op.create_table(
        "faces",
        sa.Column("collection", sa.Text(), nullable=False),
        sa.Column("face_id", sa.Text(), nullable=False, comment="a face that was grouped or named"),
        sa.Column("image_id", sa.Text(), nullable=False),
        sa.Column(
            "group_id",
            sa.Text(),
            nullable=True,
            comment="of its group: a person's id or that of one of its faces; NULL: not grouped yet",
        ),
        sa.Column(
            "clear", sa.Integer(), nullable=False, server_default="1", comment="1: it may found groups and merge them"
        ),
        sa.Column("person_id", sa.Text(), nullable=True, comment="copy: whom it is assigned to"),
        sa.Column("assignment_id", sa.Text(), nullable=True, comment="copy"),
        sa.Column("dismissed", sa.Text(), nullable=True, comment="copy: the kind of dismissal"),
        sa.PrimaryKeyConstraint("collection", "face_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("faces_by_group", "faces", ["collection", "group_id", "person_id", "dismissed", "clear"])
    op.create_index(
        "faces_by_person",
        "faces",
        ["collection", "person_id"],
        sqlite_where=sa.text("person_id IS NOT NULL"),
        postgresql_where=sa.text("person_id IS NOT NULL"),
    )


def _place() -> list[Any]:
    return [
        sa.Column(
            "image_id", sa.Text(), nullable=False, comment="with page and box, so that it stays true with another model"
        ),
        sa.Column("page", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("x1", sa.Float(), nullable=False, comment="of the box, in pixels of the upright image"),
        *(sa.Column(name, sa.Float(), nullable=False) for name in ("y1", "x2", "y2")),
    ]
