"""A cover for each person, an index that finds it, and one for lists of dismissed faces."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_FIRST_FACES = """
UPDATE people SET cover = (
    SELECT id FROM assignments WHERE assignments.person_id = people.id
    ORDER BY assigned_at, (x2 - x1) * (y2 - y1) DESC, id LIMIT 1
) WHERE EXISTS (SELECT 1 FROM assignments WHERE assignments.person_id = people.id)
  AND (cover IS NULL OR cover NOT IN (SELECT id FROM assignments WHERE assignments.person_id = people.id))
"""


def upgrade() -> None:
    """Choose the covers that nobody chose, as a change does now; shorten keys of names; add the indexes."""
    op.execute(_FIRST_FACES)
    op.execute("UPDATE people SET name_key = substr(name_key, 1, 500) WHERE length(name_key) > 500")
    named = sa.text("person_id IS NOT NULL")
    op.drop_index("faces_by_person", "faces", sqlite_where=named, postgresql_where=named)
    op.create_index(
        "faces_by_person",
        "faces",
        ["collection", "person_id", "assignment_id"],
        sqlite_where=named,
        postgresql_where=named,
    )
    op.create_index("dismissals_by_time", "dismissals", ["kind", "dismissed_at", "id"])
