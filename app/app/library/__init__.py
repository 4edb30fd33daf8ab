"""The picture library: scanning, reading and watching folders, the ledger of ingested files, pruning, backups."""

from app.library.backup_manifest import read_manifest, require_undamaged, write_manifest
from app.library.ledger import FileRecord, Ledger, Totals, only_writer, restore_marker_path
from app.library.originals import redrawn_thumbnail
from app.library.prune import PruneCounts, Pruning
from app.library.scan import File, Folder, PathFilter, file_at
from app.library.watch import arrivals

__all__ = [
    "File",
    "FileRecord",
    "Folder",
    "Ledger",
    "PathFilter",
    "PruneCounts",
    "Pruning",
    "Totals",
    "arrivals",
    "file_at",
    "only_writer",
    "read_manifest",
    "redrawn_thumbnail",
    "require_undamaged",
    "restore_marker_path",
    "write_manifest",
]
