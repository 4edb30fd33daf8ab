"""The Protocols of the engine and of the index: what the library and the service need of them, and their contract."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    Score,
    ScrollPage,
)


class Engine(Protocol):
    """Detects and embeds faces with one model pack. Safe to call from several threads."""

    @property
    def pack(self) -> ModelPack:
        """The model pack in use."""
        ...

    @property
    def device(self) -> DeviceInfo:
        """The device that the model runs on."""
        ...

    @property
    def health(self) -> EngineHealth:
        """The result of the last check."""
        ...

    @property
    def concurrency(self) -> int:
        """Maximum number of concurrent calls of `analyze`; further calls wait."""
        ...

    @property
    def batch(self) -> int:
        """Recommended number of images per call of `analyze`."""
        ...

    def analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
        """Detect and embed the faces of each image.

        Args:
            pictures: the images, upright, BGR, uint8, (H, W, 3); any number of them, of any size.
            timings: if given, the milliseconds of each stage are added to its keys "detect" and "embed".

        Returns:
            For each image its faces in canonical order (bbox x1, then y1); an empty list if no face is found.
            Coordinates are pixels of the upright image; embeddings are float32, (D,), with norm 1.

        Raises:
            OceanoError: `engine_unhealthy` if the model fails its checks and cannot be reloaded; `invalid_image` if an
                image cannot be decoded in full; `internal` if a healthy engine computes no embedding.
        """
        ...

    def check(self) -> EngineHealth:
        """Compare the model's output for a reference image with the output at start-up; reload the model if it differs.

        Returns:
            The health after the check and, if needed, the reload; also available as `health` until the next check.
        """
        ...

    def measure_runtimes(self) -> None:
        """Measure which runtime is the fastest here, unless this is known; the next start uses the result. Slow."""
        ...


class FaceIndex(Protocol):
    """A collection of embeddings with payloads. Safe to call from several threads.

    D is the embedding size of the model pack. Every method except `close` retries temporary errors and then raises
    OceanoError `index_unavailable` if the index cannot be reached or fails. With a Qdrant server, every method can also
    raise `invalid_setting` if the server rejects the API key or the request.
    """

    def upsert(self, points: Sequence[FacePoint]) -> None:
        """Insert the points whose face_id is new; existing points stay unchanged.

        The points can be read on return, but are durable only after `flush`.

        Args:
            points: any number; embeddings are float32, (D,), with norm 1. If two have the same face_id, the first is
                inserted.

        Raises:
            OceanoError: `invalid_request` if a face_id is not a UUID or an embedding has another shape or norm;
                `disk_full`; `index_unavailable`. Some of the points may have been inserted.
        """
        ...

    def flush(self) -> None:
        """Return when all earlier writes are durable.

        Raises:
            OceanoError: `disk_full`, `index_unavailable`.
        """
        ...

    def search(
        self, embedding: Floats, *, limit: int, threshold: float | None = None, where: FaceFilter | None = None
    ) -> list[Match]:
        """Search for the faces that are most similar to an embedding.

        The search may be approximate (HNSW, quantization); the similarities of the matches are exact.

        Args:
            embedding: float32, (D,), with norm 1.
            limit: maximum number of matches, at least 1.
            threshold: lowest cosine similarity of a match, -1 to 1; None for no threshold.
            where: restricts the faces; None for all.

        Returns:
            The matches with their payloads, best first.

        Raises:
            OceanoError: `invalid_request` if an argument is not as described or a time of the filter is not ISO 8601;
                `index_unavailable`.
        """
        ...

    def search_batch(
        self,
        embeddings: Sequence[Floats],
        *,
        limit: int,
        threshold: float | None = None,
        where: FaceFilter | None = None,
    ) -> list[list[Match]]:
        """Search as `search` does, for several embeddings.

        Args:
            embeddings: n embeddings, each float32, (D,), with norm 1.
            limit: maximum number of matches per embedding, at least 1.
            threshold: lowest cosine similarity of a match, -1 to 1; None for no threshold.
            where: restricts the faces; None for all.

        Returns:
            The n lists of matches, in the order of the embeddings, each best first.

        Raises:
            OceanoError: as `search` does.
        """
        ...

    def search_scores(
        self, embeddings: Sequence[Floats], *, limit: int, threshold: float | None = None, candidates: int = 128
    ) -> list[list[Score]]:
        """Search as `search_batch` does, for many embeddings: without payloads, and quicker where less is enough.

        Args:
            embeddings: n embeddings, each float32, (D,), with norm 1.
            limit: maximum number of scores per embedding, at least 1.
            threshold: lowest cosine similarity, -1 to 1; None for no threshold.
            candidates: of a search in the graph, in place of HNSW_EF; the time grows with them, and the recall.

        Returns:
            The n lists of scores, in the order of the embeddings, each best first.

        Raises:
            OceanoError: as `search` does.
        """
        ...

    def search_exact(
        self, embedding: Floats, *, limit: int, threshold: float | None = None, where: FaceFilter | None = None
    ) -> list[Score]:
        """Compare an embedding with every face, without HNSW and quantization.

        The time grows with the number of faces: about 0.3 s per million with 512 dimensions.

        Args:
            embedding: float32, (D,), with norm 1.
            limit: maximum number of scores, at least 1; each takes about 10 us.
            threshold: lowest cosine similarity, -1 to 1; None for no threshold.
            where: restricts the faces; None for all.

        Returns:
            The ids and similarities of the most similar faces, best first.

        Raises:
            OceanoError: as `search` does.
        """
        ...

    def retrieve(self, face_ids: Sequence[str], *, with_embedding: bool = False) -> list[FaceRecord]:
        """Read faces by their ids.

        Args:
            face_ids: any number; unknown ids are skipped.
            with_embedding: also read the embeddings, float32, (D,), with norm 1.

        Returns:
            The faces that exist, in the order of `face_ids`.

        Raises:
            OceanoError: `index_unavailable`.
        """
        ...

    def scroll(
        self,
        *,
        limit: int,
        offset: str | None = None,
        where: FaceFilter | None = None,
        with_embedding: bool = False,
    ) -> ScrollPage:
        """Read a page of faces in the order of their ids.

        Args:
            limit: maximum number of faces, at least 1.
            offset: the first face_id of the page, `next_offset` of the page before; None for the first page.
            where: restricts the faces; None for all.
            with_embedding: also read the embeddings, float32, (D,), with norm 1.

        Returns:
            The page. Its `next_offset` is None if it is the last one.

        Raises:
            OceanoError: `invalid_request` if `limit` is below 1, `offset` is not a UUID or a time of the filter is not
                ISO 8601; `index_unavailable`.
        """
        ...

    def set_payload(self, face_ids: Sequence[str], *, person: str | None) -> None:
        """Set the person of faces; durable on return.

        Args:
            face_ids: any number; unknown ids are ignored.
            person: id of the person; None removes it.

        Raises:
            OceanoError: `disk_full`, `index_unavailable`. Some of the faces may have been changed.
        """
        ...

    def set_paths(self, face_ids: Sequence[str], *, paths: Sequence[str]) -> None:
        """Set the path and the folders of the faces of an image; durable on return.

        Args:
            face_ids: any number; unknown ids are ignored.
            paths: the absolute paths of the files that contain the image, at least one. The first becomes the path of
                the faces; the folders are those of all.

        Raises:
            OceanoError: `disk_full`, `index_unavailable`. Some of the faces may have been changed.
        """
        ...

    def set_phash(self, face_ids: Sequence[str], *, phash: str) -> None:
        """Set the perceptual hash of the faces of one page of an image; durable on return.

        Args:
            face_ids: any number; unknown ids are ignored.
            phash: 16 hexadecimal digits.

        Raises:
            OceanoError: `invalid_request` if `phash` is not as described; `disk_full`, `index_unavailable`. Some of the
                faces may have been changed.
        """
        ...

    def delete(self, face_ids: Sequence[str]) -> None:
        """Delete faces; durable on return.

        Args:
            face_ids: any number; unknown ids are ignored.

        Raises:
            OceanoError: `disk_full`, `index_unavailable`. Some of the faces may have been deleted.
        """
        ...

    def count(self, where: FaceFilter | None = None) -> int:
        """Count faces exactly.

        Args:
            where: restricts the faces; None for all.

        Returns:
            The number of faces.

        Raises:
            OceanoError: `invalid_request` if a time of the filter is not ISO 8601; `index_unavailable`.
        """
        ...

    def facet(
        self, key: Literal["person", "folder", "image_id"], *, limit: int = 100, where: FaceFilter | None = None
    ) -> dict[str, int]:
        """Count the faces of each value of a payload key.

        Args:
            key: the payload key. A face counts for each of its folders; a face without a person is not counted.
            limit: maximum number of values, at least 1.
            where: restricts the faces; None for all.

        Returns:
            The values with their numbers of faces, most faces first.

        Raises:
            OceanoError: `invalid_request` if `limit` is below 1 or a time of the filter is not ISO 8601;
                `index_unavailable`.
        """
        ...

    def damaged_faces(self) -> Iterator[str]:
        """Read every face, and yield the ids of those whose embedding or payload was damaged in the index.

        Searches leave such faces out. To repair one, delete it, and insert it again.

        Raises:
            OceanoError: `index_unavailable`.
        """
        ...

    def info(self) -> IndexInfo:
        """Describe the index: its collection, numbers of points, size on disk and state.

        Returns:
            The description; the numbers of a server may be a moment old.

        Raises:
            OceanoError: `index_unavailable`.
        """
        ...

    def maintain(self, *, wait: bool = False) -> None:
        """Start adding new points to the HNSW graph; searches and writes continue.

        Args:
            wait: return only when the graph is built.

        Raises:
            OceanoError: `index_unavailable`; with `wait` also the error of a build that failed.
        """
        ...

    def backup(self, folder: Path) -> None:
        """Write a consistent copy of the index, which can be restored; searches continue, and writes wait only briefly.

        Args:
            folder: a folder that does not exist; it appears complete or not at all.

        Raises:
            OceanoError: `invalid_request` if the folder exists or the index is on a server; `disk_full`;
                `index_unavailable`.
        """
        ...

    def close(self) -> None:
        """Close the connections; the index must not be used afterwards."""
        ...
