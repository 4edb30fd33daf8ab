"""The tables of the catalog, for SQLite and PostgreSQL; `migrations` creates and upgrades them.

Paths are bytes (os.fsencode), because names can be in any encoding. Times are ISO 8601 in UTC.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

METADATA: Final = MetaData()


def _place() -> list[Column[Any]]:
    """Return the columns of a face of an image."""
    return [
        Column("image_id", Text, nullable=False, comment="with page and box, so that it stays true with another model"),
        Column("page", Integer, nullable=False, server_default="0"),
        Column("x1", Float, nullable=False, comment="of the box, in pixels of the upright image"),
        *(Column(name, Float, nullable=False) for name in ("y1", "x2", "y2")),
    ]


_VALID_USER: Final = text("kind = 'user' AND revoked_at IS NULL")

FILES: Final = Table(
    "files",
    METADATA,
    Column("collection", Text, primary_key=True, comment="full name of the index's collection"),
    Column("path", LargeBinary, primary_key=True, comment="absolute"),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("ctime_ns", BigInteger, comment="NULL if recorded before version 4 of the ledger"),
    Column("image_id", Text, comment="SHA-256 of the contents; NULL where they could not be read"),
    Column("status", Text, nullable=False),
    Column("faces", Integer, nullable=False, server_default="0"),
    Column("reason", Text, comment="an error code"),
    Column("message", Text),
    Column("updated_at", Text, nullable=False),
    CheckConstraint("status IN ('done', 'no_face', 'failed', 'duplicate')", name="files_status"),
    Index("files_by_image_and_status", "collection", "image_id", "status"),
    sqlite_with_rowid=False,
)
SUPERSEDED: Final = Table(
    "superseded",
    METADATA,
    Column("collection", Text, primary_key=True),
    Column("image_id", Text, primary_key=True, comment="an image with faces whose file became another image"),
    Column("path", LargeBinary, nullable=False),
    Column("faces", Integer, nullable=False),
    sqlite_with_rowid=False,
)
UNSETTLED: Final = Table(
    "unsettled",
    METADATA,
    Column("collection", Text, primary_key=True),
    Column("image_id", Text, primary_key=True, comment="an image whose faces in the index may lack paths of its files"),
    sqlite_with_rowid=False,
)
MOUNTS: Final = Table(
    "mounts",
    METADATA,
    Column("place", LargeBinary, primary_key=True, comment="files below it are on the drive mounted at `point`"),
    Column("point", LargeBinary, primary_key=True),
    sqlite_with_rowid=False,
)
INDEXES: Final = Table(
    "indexes",
    METADATA,
    Column("collection", Text, primary_key=True),
    Column("id", Text, primary_key=True, comment="what distinguishes the index from all others"),
    Column("name", Text, nullable=False, comment="for messages"),
    Column("added_at", Text, nullable=False),
)
JOBS: Final = Table(
    "jobs",
    METADATA,
    Column("id", Text, primary_key=True, comment="UUID"),
    Column("collection", Text, nullable=False),
    Column("kind", Text, nullable=False, comment="such as ingest"),
    Column("folder", LargeBinary, nullable=False),
    Column("options", Text, nullable=False, comment="JSON"),
    Column("state", Text, nullable=False),
    Column("shared", Integer, nullable=False, comment="1: workers share its files; 0: one process has them all"),
    Column("phase", Text, nullable=False),
    Column("holder", Text, comment="the worker that scans the folder or finishes the job"),
    Column("counts", Text, nullable=False, server_default="{}", comment="JSON"),
    Column("started_by", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("started_at", Text),
    Column("ended_at", Text),
    Column("error", Text, comment="an error code"),
    Column("message", Text),
    Column("resumed_at", Text, comment="when a worker last continued it"),
    Column("images_before", BigInteger, nullable=False, server_default="0", comment="images processed before that"),
    CheckConstraint("state IN ('queued', 'running', 'stopping', 'done', 'failed', 'interrupted')", name="jobs_state"),
    CheckConstraint("phase IN ('scan', 'files', 'finish')", name="jobs_phase"),
    Index("jobs_by_state", "state", "created_at"),
)
PROBLEMS: Final = Table(
    "problems",
    METADATA,
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("key", LargeBinary, primary_key=True, comment="of the path, see `path_key`"),
    Column("path", LargeBinary, nullable=False, comment="the file"),
    Column("code", Text, nullable=False, comment="an error code"),
    Column("message", Text, nullable=False),
)
WORKERS: Final = Table(
    "workers",
    METADATA,
    Column("id", Text, primary_key=True, comment="UUID"),
    Column("name", Text, nullable=False, comment="host and process"),
    Column("job_id", Text, comment="the job that it works on"),
    Column("leased_until", BigInteger, nullable=False, comment="seconds since 1970; then the worker counts as dead"),
)
CLAIMS: Final = Table(
    "claims",
    METADATA,
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", BigInteger, primary_key=True, comment="order of the scan"),
    Column("key", LargeBinary, nullable=False, comment="of the path, see `path_key`"),
    Column("path", LargeBinary, nullable=False, comment="a file of a shared job"),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("ctime_ns", BigInteger),
    Column("worker", Text, comment="the worker that has it; NULL: none"),
    Column("not_before", BigInteger, nullable=False, server_default="0", comment="seconds since 1970"),
    Column("finished", Integer, nullable=False, server_default="0", comment="1: its result is in `files`"),
    Index("claims_by_key", "job_id", "key", unique=True),
    Index("claims_open", "job_id", "finished", "worker", "number"),
    Index("claims_by_worker", "worker"),
)
MISSING: Final = Table(
    "missing",
    METADATA,
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("key", LargeBinary, primary_key=True, comment="of the path, see `path_key`"),
    Column("path", LargeBinary, nullable=False, comment="a known file that is missing before the scan"),
)
RESERVATIONS: Final = Table(
    "reservations",
    METADATA,
    Column("collection", Text, primary_key=True),
    Column("image_id", Text, primary_key=True, comment="an image that a worker is processing"),
    Column("worker", Text, nullable=False),
    Index("reservations_by_worker", "worker"),
)

PEOPLE: Final = Table(
    "people",
    METADATA,
    Column("id", Text, primary_key=True, comment="UUID"),
    Column("name", Text, nullable=False, comment="may be empty, and several people may have the same"),
    Column("name_key", Text, nullable=False, server_default=text("''"), comment="for searches, see `name_key`"),
    Column("hidden", Integer, nullable=False, server_default="0"),
    Column("cover", Text, comment="id of an assignment; NULL or unknown: any of the person's"),
    Column("birth_date", Text),
    Column("notes", Text),
    Column("faces", Integer, nullable=False, server_default="0", comment="number of assignments"),
    Column("created_at", Text, nullable=False),
    Column("changed_at", Text, nullable=False),
    Column("version", Integer, nullable=False, server_default="1", comment="one more with each change"),
    Index("people_by_name", "name_key", "id"),
    Index("people_by_faces", "faces", "id"),
)
ASSIGNMENTS: Final = Table(
    "assignments",
    METADATA,
    Column("id", Text, primary_key=True, comment="UUID"),
    Column("person_id", Text, ForeignKey("people.id", ondelete="CASCADE"), nullable=False),
    *_place(),
    Column("source", Text, nullable=False),
    Column("assigned_by", Text, nullable=False),
    Column("assigned_at", Text, nullable=False),
    CheckConstraint("source IN ('manual', 'confirmed', 'metadata')", name="assignments_source"),
    Index("assignments_by_person", "person_id"),
    Index("assignments_by_image", "image_id"),
)
REJECTIONS: Final = Table(
    "rejections",
    METADATA,
    Column("id", Text, primary_key=True, comment="UUID"),
    Column("person_id", Text, ForeignKey("people.id", ondelete="CASCADE"), nullable=False),
    *_place(),
    Column("rejected_by", Text, nullable=False),
    Column("rejected_at", Text, nullable=False),
    Index("rejections_by_person", "person_id"),
    Index("rejections_by_image", "image_id"),
)
DISMISSALS: Final = Table(
    "dismissals",
    METADATA,
    Column("id", Text, primary_key=True, comment="UUID"),
    Column("kind", Text, nullable=False, comment="set_aside: of no interest; not_a_face"),
    *_place(),
    Column("dismissed_by", Text, nullable=False),
    Column("dismissed_at", Text, nullable=False),
    CheckConstraint("kind IN ('set_aside', 'not_a_face')", name="dismissals_kind"),
    Index("dismissals_by_image", "image_id"),
    Index("dismissals_by_time", "kind", "dismissed_at", "id"),
)
CHANGES: Final = Table(
    "changes",
    METADATA,
    Column("number", BigInteger, primary_key=True, autoincrement=False, comment="from 1"),
    Column("at", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("kind", Text, nullable=False, comment="such as assign"),
    Column("faces", Integer, nullable=False, server_default="0", comment="number of faces that it was about"),
    Column("details", Text, nullable=False, server_default="{}", comment="JSON"),
    Column("undoes", BigInteger, comment="number of the change that it undid"),
    Column("undone_by", BigInteger, comment="number of the change that undid it"),
    Column("key", Text, comment="of an idempotent request, with who sent it"),
    Column("request", Text, comment="digest of that request"),
    Index("changes_by_key", "key", unique=True),
)
CHANGED_ROWS: Final = Table(
    "changed_rows",
    METADATA,
    Column("change", BigInteger, ForeignKey("changes.number", ondelete="CASCADE"), primary_key=True),
    Column("place", Integer, primary_key=True, comment="order within the change"),
    Column("table_name", Text, nullable=False),
    Column("row_id", Text, nullable=False),
    Column("image_id", Text, comment="of rows that are about a face"),
    Column("before", Text, comment="JSON; NULL: there was no row"),
    Column("after", Text, comment="JSON; NULL: there is none"),
)
CHANGED_PEOPLE: Final = Table(
    "changed_people",
    METADATA,
    Column("person_id", Text, primary_key=True),
    Column("change", BigInteger, ForeignKey("changes.number", ondelete="CASCADE"), primary_key=True),
    Index("changed_people_by_change", "change"),
    sqlite_with_rowid=False,
)
COPIED_NAMES: Final = Table(
    "copied_names",
    METADATA,
    Column("collection", Text, primary_key=True),
    Column("change", BigInteger, nullable=False, comment="the index has the names up to this change"),
)
FACES: Final = Table(
    "faces",
    METADATA,
    Column("collection", Text, primary_key=True),
    Column("face_id", Text, primary_key=True, comment="a face that was grouped or named"),
    Column("image_id", Text, nullable=False),
    Column("group_id", Text, comment="of its group: a person's id or that of one of its faces; NULL: not grouped yet"),
    Column("clear", Integer, nullable=False, server_default="1", comment="1: it may found groups and merge them"),
    Column("person_id", Text, comment="copy: whom it is assigned to"),
    Column("assignment_id", Text, comment="copy"),
    Column("dismissed", Text, comment="copy: the kind of dismissal"),
    Index("faces_by_group", "collection", "group_id", "person_id", "dismissed", "clear"),  # all that is counted
    Index(
        "faces_by_person",
        "collection",
        "person_id",
        "assignment_id",  # to find covers
        sqlite_where=text("person_id IS NOT NULL"),  # else SQLite would look for unnamed faces in it
        postgresql_where=text("person_id IS NOT NULL"),
    ),
    sqlite_with_rowid=False,
)
KEYS: Final = Table(
    "keys",
    METADATA,
    Column("id", Text, primary_key=True, comment="UUID"),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False, unique=True, comment="of the key, which is not kept"),
    Column("role", Text, nullable=False),
    Column("folders", Text, nullable=False, server_default="[]", comment="JSON; empty: all"),
    Column("created_at", Text, nullable=False),
    Column("expires_at", Text),
    Column("used_at", Text),
    Column("revoked_at", Text),
    Column("kind", Text, nullable=False, server_default="key"),
    Column("created_by", Text, nullable=False, server_default="oceano"),
)
Index(
    "keys_valid_user",
    KEYS.c.name,
    unique=True,
    sqlite_where=_VALID_USER,
    postgresql_where=_VALID_USER,
)
SESSIONS: Final = Table(
    "sessions",
    METADATA,
    Column("digest", Text, primary_key=True, comment="SHA-256 of the browser's token"),
    Column("before", Text, comment="SHA-256 of the token before it, which a request on its way may still have"),
    Column("form_token", Text, nullable=False, comment="of its forms, against other sites"),
    Column("who", Text, nullable=False),
    Column("key_id", Text, comment="of the key or user that signed in; NULL: a sign-in service did"),
    Column("role", Text, nullable=False),
    Column("folders", Text, nullable=False, comment="JSON; empty: all"),
    Column("created_at", Text, nullable=False),
    Column("rotated_at", Text, nullable=False, comment="when it got its token"),
    Column("confirmed", Integer, nullable=False, server_default="1", comment="1: the browser has sent its token"),
    Column("seen_at", Text, nullable=False),
    Column("expires_at", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Index("sessions_by_before", "before"),
    Index("sessions_by_who", "who"),
)
AUDIT: Final = Table(
    "audit",
    METADATA,
    Column("number", BigInteger, primary_key=True, autoincrement=False, comment="from 1, without gaps"),
    Column("at", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("address", Text),
    Column("action", Text, nullable=False),
    Column("purpose", Text),
    Column("details", Text, nullable=False, comment="JSON"),
    Column("digest", Text, nullable=False, comment="SHA-256 of this entry and the digest of the one before"),
    Index("audit_by_who", "who", "number"),
    Index("audit_by_action", "action", "number"),
)
SUPPRESSION: Final = Table(
    "suppression",
    METADATA,
    Column("id", Text, primary_key=True, comment="UUID"),
    Column("image_id", Text, comment="an image that is not ingested again"),
    Column("model_digest", Text, comment="of the model that made the embedding"),
    Column("embedding", LargeBinary, comment="a face that is not ingested again, float32"),
    Column("created_at", Text, nullable=False),
    Index("suppression_by_image", "image_id"),
)


def path_key(path: bytes) -> bytes:
    """Return a key of a path, 16 bytes: an index of PostgreSQL has no room for a path of 4,096 bytes."""
    return hashlib.sha256(path).digest()[:16]
