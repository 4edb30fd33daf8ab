"""Copies thumbnails between stores: hard links between folders, requests to and from S3."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from app.core.iteration import chunks
from app.images.thumb_protocol import Thumbs
from app.images.thumbnails import ThumbStore

_AT_ONCE: Final = 500


def copy_thumbs(source: Thumbs, target: Thumbs, is_stopped: Callable[[], bool] = lambda: False) -> int:
    """Copy the thumbnails that `target` lacks. Previews, which can be drawn, are left out.

    Args:
        source: where they are.
        target: where they are missing.
        is_stopped: asked between requests to S3; ends the copy early.

    Returns:
        Number of thumbnails in `source`, as far as it was read.

    Raises:
        OceanoError: `thumbs_unavailable`, `disk_full` of a store on S3.
        OSError: of a folder.
    """
    if isinstance(source, ThumbStore) and isinstance(target, ThumbStore):
        return _copy_folder(source, target)
    count = 0
    for face_ids in chunks(source.face_ids(), _AT_ONCE):
        if is_stopped():
            break
        count += len(face_ids)
        missing = sorted(target.missing(face_ids))
        for face_id, jpeg in zip(missing, source.read_many(missing), strict=True):
            if jpeg is not None:  # pruned meanwhile, or empty
                target.write_soon(face_id, jpeg)
    target.flush()
    return count


def _copy_folder(source: ThumbStore, target: ThumbStore) -> int:
    """Copy files, as hard links if possible."""
    count = 0
    previews = str(source.previews)
    for base, folders, names in os.walk(source.root):
        folders[:] = [name for name in folders if os.path.join(base, name) != previews]  # noqa: PTH118 - for speed
        folder = target.root / Path(base).relative_to(source.root)
        for name in names:
            if not name.endswith(".jpg") or not stat.S_ISREG(os.lstat(os.path.join(base, name)).st_mode):  # noqa: PTH118
                continue
            count += 1
            folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError, FileNotFoundError):  # FileNotFoundError: pruned meanwhile
                _link_or_copy(Path(base, name), folder / name)
    return count


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)  # a thumbnail is never written to, only replaced
    except FileExistsError:
        raise
    except OSError:
        temporary = target.with_name(f"{target.name}.tmp")
        try:
            shutil.copyfile(source, temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
