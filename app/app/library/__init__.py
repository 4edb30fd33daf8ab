"""The picture library: scanning, reading and watching folders, copies and missing files, pruning, backups."""

from app.library.backup_manifest import read_manifest, require_undamaged, write_manifest
from app.library.consistency import ConsistencyCheck, Inconsistencies
from app.library.hashes import Hashed, MissingHashes
from app.library.ingest_counts import IngestCounts
from app.library.locations import Locations
from app.library.names import KnownNames, NameReader, PeopleNames
from app.library.neighbours import Neighbours
from app.library.opening import ImageFile, OpenedFile
from app.library.originals import redrawn_thumbnail
from app.library.pictures import Pictures, StoredImage
from app.library.presence import PresenceCheck
from app.library.progress import Progress, SharedProgress, running_progress
from app.library.prune import PruneCounts, Pruning
from app.library.reader import TEMPORARY_REASONS, has_read_pages
from app.library.scan import Folder, PathFilter, contents, file_at
from app.library.watch import Watch
from app.library.writer_lock import only_writer, restore_marker_path

__all__ = [
    "TEMPORARY_REASONS",
    "ConsistencyCheck",
    "Folder",
    "Hashed",
    "ImageFile",
    "Inconsistencies",
    "IngestCounts",
    "KnownNames",
    "Locations",
    "MissingHashes",
    "NameReader",
    "Neighbours",
    "OpenedFile",
    "PathFilter",
    "PeopleNames",
    "Pictures",
    "PresenceCheck",
    "Progress",
    "PruneCounts",
    "Pruning",
    "SharedProgress",
    "StoredImage",
    "Watch",
    "contents",
    "file_at",
    "has_read_pages",
    "only_writer",
    "read_manifest",
    "redrawn_thumbnail",
    "require_undamaged",
    "restore_marker_path",
    "running_progress",
    "write_manifest",
]
