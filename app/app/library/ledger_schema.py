"""The tables of the ledger, and the upgrades from earlier versions."""

from __future__ import annotations

from typing import Final

SCHEMA_VERSION: Final = 5
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS files (
    collection TEXT NOT NULL,      -- faces__antelopev2__4ab1d643
    path BLOB NOT NULL,            -- bytes of the absolute path, because names can be in any encoding
    size INTEGER NOT NULL,         -- bytes
    mtime_ns INTEGER NOT NULL,
    image_id TEXT,                 -- SHA-256 of the contents; NULL where they could not be read
    status TEXT NOT NULL CHECK (status IN ('done', 'no_face', 'failed', 'duplicate')),
    reason TEXT,                   -- an error code
    message TEXT,
    faces INTEGER NOT NULL DEFAULT 0,
    updated_at TEXT NOT NULL,
    ctime_ns INTEGER,              -- NULL if recorded before version 4
    PRIMARY KEY (collection, path)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS superseded ( -- images with faces whose file became another image
    collection TEXT NOT NULL,
    image_id TEXT NOT NULL,
    path BLOB NOT NULL,
    faces INTEGER NOT NULL,
    PRIMARY KEY (collection, image_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mounts ( -- drives: files below `place` are on the one mounted at `point`
    place BLOB NOT NULL,
    point BLOB NOT NULL,
    PRIMARY KEY (place, point)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unsettled ( -- images whose faces in the index may lack paths of their files
    collection TEXT NOT NULL,
    image_id TEXT NOT NULL,
    PRIMARY KEY (collection, image_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_by_image_and_status ON files (collection, image_id, status);
"""
UNSETTLE_COPIES: Final = (
    "INSERT OR IGNORE INTO unsettled SELECT collection, image_id FROM files "
    "WHERE image_id IS NOT NULL GROUP BY collection, image_id HAVING COUNT(*) > 1;"
)
UPGRADES: Final = {
    4: "ALTER TABLE files ADD COLUMN ctime_ns INTEGER;",
    5: f"DROP INDEX IF EXISTS files_by_image; {UNSETTLE_COPIES}",
}
