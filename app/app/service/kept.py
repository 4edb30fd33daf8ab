"""Kept searches: embeddings of a person and one crop, stored on purpose, with a name and an end date."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np

from app.core.database import Database
from app.core.errors import OceanoError
from app.core.types import Floats
from app.security import Access, scope_of

DEFAULT_DAYS: Final = 30
MAX_DAYS: Final = 365
MAX_NAME: Final = 200
MAX_CROP_BYTES: Final = 64_000
MAX_KEPT: Final = 10_000  # about 300 MB

_FILE: Final = "searches.sqlite3"
_ID_BYTES: Final = 12
_COLUMNS: Final = "id, name, embeddings, size, crop, model_digest, filters, created, ends"
_ALL_COLUMNS: Final = f"{_COLUMNS}, owner, folders"
_VERSION: Final = 2
# Version 1 had no owner and no folders: nobody but those who see everything find its searches.
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS searches (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    embeddings BLOB NOT NULL,
    size INTEGER NOT NULL,
    crop BLOB,
    model_digest TEXT NOT NULL,
    filters TEXT NOT NULL,
    created TEXT NOT NULL,
    ends TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS searches_by_end ON searches (ends);
ALTER TABLE searches ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE searches ADD COLUMN folders TEXT NOT NULL DEFAULT '[]';
CREATE INDEX searches_by_owner ON searches (owner, folders);
"""


@dataclass(frozen=True, slots=True, eq=False)
class KeptSearch:
    """A search that someone kept.

    Attributes:
        kept_id: in its address; cannot be guessed.
        name: given by the user.
        embeddings: of the examples of the person, each float32, (D,), with norm 1.
        crop: a JPEG file of the first example, or None.
        model_digest: of the model that made the embeddings; they can be compared with its own only.
        filters: the query string of the filters.
        created: when it was kept, UTC.
        ends: when it is deleted, UTC.
    """

    kept_id: str
    name: str
    embeddings: tuple[Floats, ...]
    crop: bytes | None
    model_digest: str
    filters: str
    created: datetime
    ends: datetime

    def require_model(self, digest: str) -> None:
        """Raise OceanoError `index_model_mismatch` if another model than `digest` made the embeddings."""
        if self.model_digest != digest:
            raise OceanoError(
                "index_model_mismatch",
                f"the search {self.name!r} was kept with another face model, so its faces cannot be compared with "
                "those of the current one; search with the photograph again",
                details={"cause": "kept_other_model"},
            )


class KeptSearches:
    """The kept searches of a service, in a file of their own. Safe to call from several threads.

    They belong to those who kept them. A search that was kept with more folders in sight than somebody sees now is
    hidden from them, as its crop and its filters may be of the others. An admin who sees all folders has all searches.

    Searches whose time is over are deleted when the file is opened, at every call, and by `delete_ended`, which the
    monitor calls. Their bytes in the file are overwritten.

    Args:
        state_dir: the folder of the file.

    Raises:
        OceanoError: `ledger_unavailable` or `disk_full`, from every method.
    """

    def __init__(self, state_dir: Path) -> None:
        self._database = Database(state_dir / _FILE, schema=_SCHEMA, version=_VERSION)
        self._database.rows("PRAGMA secure_delete = ON")
        self.delete_ended()

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    def keep(
        self,
        name: str,
        embeddings: Sequence[Floats],
        *,
        access: Access,
        model_digest: str,
        crop: bytes | None = None,
        filters: str = "",
        days: int = DEFAULT_DAYS,
    ) -> KeptSearch:
        """Store a search.

        Args:
            name: 1 to MAX_NAME characters.
            embeddings: at least one, each float32, (D,).
            access: who keeps it.
            model_digest: of the model that made them.
            crop: a JPEG file of at most MAX_CROP_BYTES.
            filters: a query string.
            days: how long, 1 to MAX_DAYS.

        Raises:
            OceanoError: `invalid_request` if an argument is not as described.
        """
        name = _checked_name(name)
        if not 1 <= days <= MAX_DAYS:
            raise _invalid("days", f"a number of days from 1 to {MAX_DAYS}")
        if not embeddings:
            raise _invalid("query", "a search for at least one face")
        if crop is not None and (len(crop) > MAX_CROP_BYTES or not crop.startswith(b"\xff\xd8\xff")):
            raise _invalid("crop", f"a JPEG file of at most {MAX_CROP_BYTES // 1000} kB")
        now = _now()
        kept = KeptSearch(
            secrets.token_urlsafe(_ID_BYTES),
            name,
            tuple(embeddings),
            crop,
            model_digest,
            filters,
            now,
            now + timedelta(days=days),
        )
        rows = np.stack(kept.embeddings).astype("<f4")
        self.delete_ended()
        if self._database.rows("SELECT COUNT(*) FROM searches")[0][0] >= MAX_KEPT:
            raise OceanoError("invalid_request", f"{MAX_KEPT:,} searches are kept already; delete some first")
        with self._database.transaction() as connection:
            connection.execute(
                f"INSERT INTO searches ({_ALL_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                (
                    kept.kept_id,
                    name,
                    rows.tobytes(),
                    rows.shape[1],
                    crop,
                    model_digest,
                    filters,
                    kept.created.isoformat(),
                    kept.ends.isoformat(),
                    access.who,
                    json.dumps(list(access.folders)),
                ),
            )
        return kept

    def get(self, kept_id: str, access: Access) -> KeptSearch:
        """Read a search.

        Raises:
            OceanoError: `not_found` if there is none that is not hidden, or its time is over.
        """
        self._try_delete_ended()
        seen, values = self._seen(access)
        query = f"SELECT {_COLUMNS} FROM searches WHERE id = ? AND ends > ? AND {seen}"  # noqa: S608 - constants
        rows = self._database.rows(query, (kept_id, _now().isoformat(), *values))
        if not rows:
            raise OceanoError(
                "not_found",
                "this search is not kept: its time is over, or it was deleted",
                details={"cause": "kept_ended"},
            )
        return _kept(rows[0])

    def all(self, access: Access, *, limit: int = 100) -> list[KeptSearch]:
        """Return the searches that are not hidden, the newest first."""
        self._try_delete_ended()
        seen, values = self._seen(access)
        query = f"SELECT {_COLUMNS} FROM searches WHERE ends > ? AND {seen} ORDER BY created DESC, id LIMIT ?"  # noqa: S608
        return [_kept(row) for row in self._database.rows(query, (_now().isoformat(), *values, limit))]

    def rename(self, kept_id: str, name: str, access: Access) -> None:
        """Give a search another name; one that is not there, or hidden, is ignored.

        Raises:
            OceanoError: `invalid_request` if the name has not 1 to MAX_NAME characters.
        """
        name = _checked_name(name)
        seen, values = self._seen(access)
        with self._database.transaction() as connection:
            connection.execute(f"UPDATE searches SET name = ? WHERE id = ? AND {seen}", (name, kept_id, *values))  # noqa: S608

    def delete(self, kept_id: str, access: Access) -> None:
        """Delete a search; one that is not there, or hidden, is ignored."""
        seen, values = self._seen(access)
        with self._database.transaction() as connection:
            connection.execute(f"DELETE FROM searches WHERE id = ? AND {seen}", (kept_id, *values))  # noqa: S608

    def _seen(self, access: Access) -> tuple[str, tuple[str, ...]]:
        """Return the condition of SQL for the searches that are not hidden from somebody, and its values."""
        if access.may("admin") and access.sees_all:
            return "1", ()
        owned = self._database.rows("SELECT DISTINCT folders FROM searches WHERE owner = ?", (access.who,))
        seen = [folders for (folders,) in owned if _covers(access, json.loads(folders))]
        return f"owner = ? AND owner <> '' AND folders IN ({', '.join('?' for _ in seen)})", (access.who, *seen)

    def delete_ended(self) -> int:
        """Delete the searches whose time is over, and return their number."""
        now = _now().isoformat()
        if not self._database.rows("SELECT 1 FROM searches WHERE ends <= ? LIMIT 1", (now,)):
            return 0
        with self._database.transaction() as connection:
            return connection.execute("DELETE FROM searches WHERE ends <= ?", (now,)).rowcount

    def _try_delete_ended(self) -> None:
        """Delete them before a read, unless the disk is full, which deleting needs room on."""
        try:
            self.delete_ended()
        except OceanoError as failure:
            if failure.code != "disk_full":
                raise

    def backup(self, folder: Path) -> None:
        """Write a consistent copy of the file into a folder."""
        self._database.backup(folder / _FILE)

    @staticmethod
    def exists(state_dir: Path) -> bool:
        """Return whether a folder has a file of kept searches."""
        return (state_dir / _FILE).is_file()

    def merge(self, state_dir: Path) -> None:
        """Add the searches of another folder's file; those that are known stay as they are."""
        copy = self.path.with_name(f".{_FILE}.{os.getpid()}.merge")  # SQLite attaches no name that is not UTF-8
        try:
            shutil.copyfile(state_dir / _FILE, copy)
            Database(copy, schema=_SCHEMA, version=_VERSION).close()
            with self._database.transaction(attached=copy) as connection:
                connection.execute(
                    f"INSERT OR IGNORE INTO searches SELECT {_ALL_COLUMNS} FROM attached.searches"  # noqa: S608
                )
        finally:
            for left in (copy, copy.with_name(f"{copy.name}-journal")):
                left.unlink(missing_ok=True)
        self.delete_ended()

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _covers(access: Access, folders: Sequence[str]) -> bool:
    """Return whether somebody sees all that somebody with these folders sees; without folders, that is everything."""
    return access.sees_all or (bool(folders) and scope_of(access.folders).contains(folders))


def _checked_name(name: str) -> str:
    name = " ".join(name.split())
    if not 1 <= len(name) <= MAX_NAME:
        raise _invalid("name", f"a name of 1 to {MAX_NAME} characters")
    return name


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _kept(row: Sequence[object]) -> KeptSearch:
    kept_id, name, embeddings, size, crop, model_digest, filters, created, ends = row
    assert isinstance(embeddings, bytes) and isinstance(size, int)  # noqa: S101 - by the schema
    vectors = np.frombuffer(embeddings, "<f4").astype(np.float32).reshape(-1, size)
    return KeptSearch(
        str(kept_id),
        str(name),
        tuple(vectors),
        crop if isinstance(crop, bytes) else None,
        str(model_digest),
        str(filters),
        datetime.fromisoformat(str(created)),
        datetime.fromisoformat(str(ends)),
    )


def _invalid(field: str, valid: str) -> OceanoError:
    return OceanoError("invalid_request", f"{field} must be {valid}", details={"field": field})
