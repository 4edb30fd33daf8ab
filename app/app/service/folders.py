"""Checks that the folders of a filter are known to the index."""

from __future__ import annotations

import difflib
from typing import Final

from app.core.errors import OceanoError
from app.core.protocols import FaceIndex
from app.core.types import FaceFilter

_NEAREST: Final = 3
_COMPARED: Final = 10_000  # folders that are compared with an unknown one


def require_known_folders(index: FaceIndex, where: FaceFilter | None) -> None:
    """Refuse a filter with a folder in which the index has no face; asking for one face takes 0.1 ms.

    Args:
        index: is asked for each folder.
        where: the filter.

    Raises:
        OceanoError: `folder_unknown`; its details have the folder and up to three known ones with similar names.
    """
    if where is None or where.folder is None:
        return
    for folder in (where.folder,) if isinstance(where.folder, str) else where.folder:
        if not index.scroll(limit=1, where=FaceFilter(folder=folder)).records:
            raise _unknown(index, folder)


def _unknown(index: FaceIndex, folder: str) -> OceanoError:
    known = index.facet("folder", limit=_COMPARED)
    nearest = difflib.get_close_matches(folder, known, n=_NEAREST)
    hint = f"; the nearest known folders: {', '.join(nearest)}" if nearest else ""
    return OceanoError(
        "folder_unknown",
        f"no indexed face is in or below the folder {folder}{hint}",
        details={"folder": folder} | ({"nearest": [*nearest]} if nearest else {}),
    )
