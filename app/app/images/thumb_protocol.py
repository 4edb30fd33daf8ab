"""The Protocol of the stores of thumbnails: a folder, or an S3 store that several machines share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol


class Thumbs(Protocol):
    """Thumbnails by face. Safe to call from several threads; a thumbnail is stored completely or not at all.

    Every method raises `face_unknown` if a face id is not a UUID. A store that fails raises `thumbs_unavailable`, or
    `disk_full`.
    """

    @property
    def previews(self) -> Path:
        """The folder of this machine's previews, which `PreviewStore` keeps."""
        ...

    def write(self, face_id: str, jpeg: bytes) -> None:
        """Store a thumbnail, in place of an earlier one.

        Args:
            face_id: a UUID.
            jpeg: the JPEG file.
        """
        ...

    def write_soon(self, face_id: str, jpeg: bytes) -> None:
        """Store a thumbnail, perhaps in the background until `flush`; waits while too many are to be stored.

        Args:
            face_id: a UUID.
            jpeg: the JPEG file.

        Raises:
            OceanoError: also the error of an earlier thumbnail.
        """
        ...

    def flush(self) -> None:
        """Wait until all thumbnails are stored that `write_soon` was called with before.

        Raises:
            OceanoError: one of them could not be stored.
        """
        ...

    def read(self, face_id: str) -> bytes | None:
        """Return a thumbnail, a JPEG file; None if it is missing or empty.

        Args:
            face_id: a UUID.
        """
        ...

    def read_many(self, face_ids: Sequence[str]) -> list[bytes | None]:
        """Return what `read` returns for each face, in their order.

        Args:
            face_ids: UUIDs; at most some hundred, since all thumbnails are in memory at once.
        """
        ...

    def missing(self, face_ids: Sequence[str]) -> set[str]:
        """Return those of the faces whose thumbnail is missing or empty; fastest for neighbours in the order of ids.

        Args:
            face_ids: UUIDs.
        """
        ...

    def face_ids(self) -> Iterator[str]:
        """Yield the face id of each thumbnail, sorted; other files are skipped."""
        ...

    def delete(self, face_ids: Iterable[str]) -> None:
        """Delete thumbnails; missing ones are ignored.

        Args:
            face_ids: UUIDs.
        """
        ...
