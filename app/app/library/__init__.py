"""The picture library: scanning, reading and watching folders, the ledger of ingested files, pruning, backups."""

from app.library.backup_manifest import read_manifest, require_undamaged, write_manifest
from app.library.consistency import ConsistencyCheck, Inconsistencies
from app.library.ledger import FileRecord, Ledger, Totals, only_writer, restore_marker_path
from app.library.locations import Locations
from app.library.originals import redrawn_thumbnail
from app.library.pictures import ImageFile, Neighbours, OpenedFile, Pictures, StoredImage
from app.library.presence import PresenceCheck
from app.library.prune import PruneCounts, Pruning
from app.library.reader import has_read_pages
from app.library.scan import File, Folder, PathFilter, file_at
from app.library.watch import Watch

__all__ = [
    "ConsistencyCheck",
    "File",
    "FileRecord",
    "Folder",
    "ImageFile",
    "Inconsistencies",
    "Ledger",
    "Locations",
    "Neighbours",
    "OpenedFile",
    "PathFilter",
    "Pictures",
    "PresenceCheck",
    "PruneCounts",
    "Pruning",
    "StoredImage",
    "Totals",
    "Watch",
    "file_at",
    "has_read_pages",
    "only_writer",
    "read_manifest",
    "redrawn_thumbnail",
    "require_undamaged",
    "restore_marker_path",
    "write_manifest",
]
