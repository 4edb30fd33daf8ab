"""Reads all faces of an index that meet a filter, in pages."""

from __future__ import annotations

from collections.abc import Iterator

from app.core.protocols import FaceIndex
from app.core.types import FaceFilter, FaceRecord


def scrolled(index: FaceIndex, *, page: int, where: FaceFilter | None = None) -> Iterator[FaceRecord]:
    """Yield faces without embeddings, in the order of their ids.

    Args:
        index: the faces.
        page: faces that are read at once.
        where: restricts the faces; None for all.

    Raises:
        OceanoError: as `FaceIndex.scroll` does.
    """
    offset: str | None = None
    while True:
        found = index.scroll(limit=page, offset=offset, where=where)
        yield from found.records
        if (offset := found.next_offset) is None:
            return
