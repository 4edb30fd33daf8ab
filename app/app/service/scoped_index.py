"""The faces of an index that someone sees who may see some folders only.

The index is asked with the filter of the scope. An image may have copies inside and outside of the scope; the index has
the path of one of them and the folders of all. Every answer has a path and folders in the scope instead.
"""

# ruff: noqa: D102 - the Protocols and Ledger describe the methods
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, NoReturn, TypeVar

from app.catalog import Ledger
from app.core.errors import OceanoError
from app.core.paths import readable
from app.core.protocols import FaceIndex
from app.core.types import (
    FaceFilter,
    FacePayload,
    FacePoint,
    FaceRecord,
    Floats,
    IndexInfo,
    Match,
    Score,
    ScrollPage,
)
from app.security import Scope

_Stored = TypeVar("_Stored", FaceRecord, Match)

_SPARE_VALUES: Final = 100  # values of a facet beyond those that are asked for: folders outside of the scope
_GROWTH: Final = 4


class ScopedIndex:
    """The faces of an index whose images are in a scope: the `FaceIndex` Protocol, for reading.

    Methods that write or maintain the index raise OceanoError `forbidden`. Those that return paths can also raise
    `ledger_unavailable`: the ledger knows the copies of an image.

    Args:
        index: all faces.
        ledger: the files in the scope.
        scope: the folders.
    """

    def __init__(self, index: FaceIndex, ledger: Ledger, scope: Scope) -> None:
        self._index = index
        self._ledger = ledger
        self._scope = scope

    def search(
        self, embedding: Floats, *, limit: int, threshold: float | None = None, where: FaceFilter | None = None
    ) -> list[Match]:
        narrowed = self._scope.narrowed(where)
        if narrowed is None:
            return []
        return self._seen(self._index.search(embedding, limit=limit, threshold=threshold, where=narrowed))

    def search_batch(
        self,
        embeddings: Sequence[Floats],
        *,
        limit: int,
        threshold: float | None = None,
        where: FaceFilter | None = None,
    ) -> list[list[Match]]:
        narrowed = self._scope.narrowed(where)
        if narrowed is None:
            return [[] for _ in embeddings]
        found = self._index.search_batch(embeddings, limit=limit, threshold=threshold, where=narrowed)
        see = self._view(match.payload for matches in found for match in matches)
        return [_seen_through(see, matches) for matches in found]

    def search_scores(
        self, embeddings: Sequence[Floats], *, limit: int, threshold: float | None = None, candidates: int = 128
    ) -> list[list[Score]]:
        forbid()

    def search_exact(
        self, embedding: Floats, *, limit: int, threshold: float | None = None, where: FaceFilter | None = None
    ) -> list[Score]:
        narrowed = self._scope.narrowed(where)
        if narrowed is None:
            return []
        return self._index.search_exact(embedding, limit=limit, threshold=threshold, where=narrowed)

    def retrieve(self, face_ids: Sequence[str], *, with_embedding: bool = False) -> list[FaceRecord]:
        return self._seen(self._index.retrieve(face_ids, with_embedding=with_embedding))

    def scroll(
        self,
        *,
        limit: int,
        offset: str | None = None,
        where: FaceFilter | None = None,
        with_embedding: bool = False,
    ) -> ScrollPage:
        narrowed = self._scope.narrowed(where)
        if narrowed is None:
            return ScrollPage((), None)
        page = self._index.scroll(limit=limit, offset=offset, where=narrowed, with_embedding=with_embedding)
        return ScrollPage(tuple(self._seen(page.records)), page.next_offset)

    def count(self, where: FaceFilter | None = None) -> int:
        narrowed = self._scope.narrowed(where)
        return 0 if narrowed is None else self._index.count(narrowed)

    def facet(
        self, key: Literal["person", "folder", "image_id"], *, limit: int = 100, where: FaceFilter | None = None
    ) -> dict[str, int]:
        narrowed = self._scope.narrowed(where)
        if narrowed is None:
            return {}
        if key != "folder":
            return self._index.facet(key, limit=limit, where=narrowed)
        asked = limit + _SPARE_VALUES
        while True:
            found = self._index.facet(key, limit=asked, where=narrowed)
            within = {folder: n for folder, n in found.items() if self._scope.shows_folder(folder)}
            if len(within) >= limit or len(found) < asked:
                return dict([*within.items()][:limit])
            asked *= _GROWTH

    def info(self) -> IndexInfo:
        """Describe the index; of the numbers, only `points` is known of a scope, the others are 0 or None."""
        return part_of(self._index.info(), self.count())

    def upsert(self, points: Sequence[FacePoint]) -> None:
        forbid()

    def flush(self) -> None:
        forbid()

    def set_payload(self, face_ids: Sequence[str], *, person: str | None) -> None:
        forbid()

    def set_paths(self, face_ids: Sequence[str], *, paths: Sequence[str]) -> None:
        forbid()

    def set_phash(self, face_ids: Sequence[str], *, phash: str) -> None:
        forbid()

    def delete(self, face_ids: Sequence[str]) -> None:
        forbid()

    def damaged_faces(self) -> Iterator[str]:
        """Raise OceanoError `forbidden`: a damaged face may have lost its folders."""
        forbid()

    def maintain(self, *, wait: bool = False) -> None:
        forbid()

    def backup(self, folder: Path) -> None:
        forbid()

    def close(self) -> None:
        """Leave the index open, which others use."""

    def _seen(self, found: Sequence[_Stored]) -> list[_Stored]:
        return _seen_through(self._view(one.payload for one in found), found)

    def _view(self, payloads: Iterable[FacePayload]) -> Callable[[FacePayload], FacePayload | None]:
        """Return a function that shows a payload as the scope does; None for one that the scope does not show.

        One query to the ledger finds the copies of all images whose path is not in the scope.
        """
        folders: dict[tuple[str, ...], tuple[str, ...]] = {}  # few, for many faces
        elsewhere: set[str] = set()
        for payload in payloads:
            if (within := folders.get(payload.folder)) is None:
                within = tuple(folder for folder in payload.folder if self._scope.shows_folder(folder))
                folders[payload.folder] = within
            if within and not self._shows(payload.path):
                elsewhere.add(payload.image_id)
        paths = self._ledger.paths_of_images(sorted(elsewhere)) if elsewhere else {}

        def see(payload: FacePayload) -> FacePayload | None:
            if not (within := folders[payload.folder]):
                return None
            if payload.image_id not in elsewhere:
                return payload if within == payload.folder else replace(payload, folder=within)
            if payload.image_id not in paths:  # the index has not heard of a deleted copy yet
                return None
            return replace(payload, path=readable(paths[payload.image_id][0]), folder=within)

        return see

    def _shows(self, path: str) -> bool:
        return self._scope.is_exact and self._scope.shows_file(path)


def part_of(info: IndexInfo, points: int) -> IndexInfo:
    """Describe a part of an index with so many faces; numbers of the whole index are 0 or None."""
    return replace(info, points=points, indexed=0, segments=0, disk_bytes=None, copies_missing=0, damaged_files=0)


def forbid() -> NoReturn:
    """Refuse what is about all folders to someone who may see some of them.

    Raises:
        OceanoError: `forbidden`, with the cause `scope`.
    """
    raise OceanoError(
        "forbidden", "this is about all folders, and you may see some of them only", details={"cause": "scope"}
    )


def _seen_through(see: Callable[[FacePayload], FacePayload | None], found: Sequence[_Stored]) -> list[_Stored]:
    shown = ((one, see(one.payload)) for one in found)
    return [one if seen is one.payload else replace(one, payload=seen) for one, seen in shown if seen is not None]
