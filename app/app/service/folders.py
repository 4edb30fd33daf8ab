"""Checks that the folders of a filter are known to the index."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Final

from app.core.errors import OceanoError
from app.core.protocols import FaceIndex
from app.core.types import FaceFilter

_NEAREST: Final = 3
_COMPARED: Final = 10_000  # folders that are compared with an unknown one
_OFFERED: Final = 6


@dataclass(frozen=True, slots=True)
class FoldersFound:
    """Known folders that a person may mean.

    Attributes:
        paths: the nearest ones, best first; empty if none is similar.
        is_named: the text is the end of their path or a part of their name; else they are only similar.
    """

    paths: tuple[str, ...]
    is_named: bool

    @property
    def is_sure(self) -> bool:
        """Whether the text names exactly one."""
        return self.is_named and len(self.paths) == 1


def find_folders(index: FaceIndex, text: str) -> FoldersFound:
    """Find the folders that a text names: by the end of their path, else by a part of their name, else by similarity.

    Args:
        index: its folders are compared; upper and lower case are the same.
        text: a path, its end or a part of a name, such as `2021/Paris` or `par`.

    Raises:
        OceanoError: `index_unavailable`.
    """
    known = list(index.facet("folder", limit=_COMPARED))
    wanted = text.strip("/").casefold()
    folded = {path: path.casefold() for path in known}
    names = {path: path.rpartition("/")[2] for path in folded.values()}
    ends = [path for path in known if folded[path].endswith(f"/{wanted}")]
    parts = [path for path in known if wanted in names[folded[path]]]
    parts.sort(key=lambda path: not names[folded[path]].startswith(wanted))
    for found in (ends, parts):
        if found:
            return FoldersFound(tuple(found[:_OFFERED]), is_named=True)
    by_name: dict[str, list[str]] = {}
    for path in known:
        by_name.setdefault(names[folded[path]], []).append(path)
    alike = difflib.get_close_matches(wanted.rpartition("/")[2], by_name, n=_NEAREST)
    return FoldersFound(tuple(path for name in alike for path in by_name[name])[:_OFFERED], is_named=False)


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
