"""What the library and the service are given: an engine and an index, whatever is behind them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

from app.core.types import (
    DeviceInfo,
    EngineHealth,
    Face,
    FaceFilter,
    FacePoint,
    FaceRecord,
    Floats,
    IndexInfo,
    Match,
    ModelPack,
    Picture,
    ScrollPage,
)


class Engine(Protocol):
    """Finds and embeds faces. Safe to call from several threads."""

    @property
    def pack(self) -> ModelPack: ...

    @property
    def device(self) -> DeviceInfo: ...

    @property
    def health(self) -> EngineHealth:
        """What the last check said."""
        ...

    @property
    def concurrency(self) -> int:
        """Calls of `analyze` that run at the same time; more of them wait."""
        ...

    @property
    def batch(self) -> int:
        """Pictures that one call of `analyze` is best given."""
        ...

    def analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
        """Faces of each picture in canonical order (bbox x1, then y1); adds "detect" and "embed" ms to `timings`.

        Raises OceanoError `engine_unhealthy`, `invalid_image` (a picture that cannot be decoded in full).
        """
        ...

    def check(self) -> EngineHealth:
        """Embed the reference picture again and compare it with start-up's; load the model again if it is broken."""
        ...


class FaceIndex(Protocol):
    """A collection of embeddings with payloads. Safe to call from several threads.

    Every method raises OceanoError `index_unavailable` when the index cannot be reached.
    """

    def upsert(self, points: Sequence[FacePoint]) -> None:
        """Insert the points whose face_id is new; one that is there already stays exactly as it is.

        Not durable before `flush`.
        """
        ...

    def flush(self) -> None:
        """Return only when all earlier upserts are durable."""
        ...

    def search(
        self, embedding: Floats, *, limit: int, threshold: float | None = None, where: FaceFilter | None = None
    ) -> list[Match]:
        """Best first; `threshold` is the least similarity."""
        ...

    def search_batch(
        self,
        embeddings: Sequence[Floats],
        *,
        limit: int,
        threshold: float | None = None,
        where: FaceFilter | None = None,
    ) -> list[list[Match]]: ...

    def retrieve(self, face_ids: Sequence[str], *, with_embedding: bool = False) -> list[FaceRecord]:
        """Those that exist, in the order asked for."""
        ...

    def scroll(
        self,
        *,
        limit: int,
        offset: str | None = None,
        where: FaceFilter | None = None,
        with_embedding: bool = False,
    ) -> ScrollPage: ...

    def set_payload(self, face_ids: Sequence[str], *, person: str | None) -> None:
        """Give a name to faces, or take it away; durable on return."""
        ...

    def set_path(self, face_ids: Sequence[str], *, path: str) -> None:
        """Their picture is to be found at another path now; durable on return."""
        ...

    def delete(self, face_ids: Sequence[str]) -> None:
        """Forget faces; durable on return. Unknown ids are ignored."""
        ...

    def count(self, where: FaceFilter | None = None) -> int: ...

    def facet(
        self, key: Literal["person", "folder", "image_id"], *, limit: int = 100, where: FaceFilter | None = None
    ) -> dict[str, int]:
        """Values of a payload key with their number of faces, most first; null is left out."""
        ...

    def info(self) -> IndexInfo: ...

    def maintain(self, *, wait: bool = False) -> None:
        """Bring new points into the HNSW graph, without stopping searches or writes; returns at once unless `wait`."""
        ...

    def backup(self, folder: Path) -> None:
        """A consistent, openable copy of the index in a new `folder`."""
        ...

    def close(self) -> None: ...
