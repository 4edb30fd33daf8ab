"""What crosses a module's border: frozen values, and the Protocols of the parts.

Coordinates are pixels of the upright image, x to the right, y down, origin in the top left corner;
boxes are (x1, y1, x2, y2). Pixels are BGR, uint8, (H, W, 3). Embeddings are float32, (D,) with the D of the model
pack (antelopev2: 512, opencv: 128), L2 norm 1, so that a dot product of two is their cosine similarity.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
BBox = tuple[float, float, float, float]
Point = tuple[float, float]
FoundBy = Literal["direct", "border", "larger", "rotated", "contrast"]
Flaw = Literal["face_too_small", "blurred", "extreme_pose", "low_detection_score"]

FLAWS: Final[tuple[Flaw, ...]] = get_args(Flaw)
DEFAULT_THRESHOLD: Final = 0.4  # of a pack of which nothing is known


@dataclass(frozen=True, slots=True)
class ModelPack:
    """Two verified ONNX files that belong together.

    `digest` is the SHA-256 (64 hex digits) over both files' digests and the preprocessing:
    two packs with the same digest give the same embeddings. `embedding_size` is how many numbers an embedding has;
    `threshold` is the default least cosine of a match.
    """

    name: str
    folder: Path
    detector: Path
    recogniser: Path
    digest: str
    embedding_size: int
    threshold: float = DEFAULT_THRESHOLD

    @property
    def short_digest(self) -> str:
        """The first 8 hex digits, as in a collection's name."""
        return self.digest[:8]


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A decoded, upright picture. `image_id` is the SHA-256 (hex) of the file's bytes.

    `taken_at` is EXIF's DateTimeOriginal as ISO 8601 without an offset, else None. A picture far larger than a
    detector needs is decoded at a part of its size: `pixels` then has `scale` (1/2, 1/4, 1/8) times the width and
    height, and `decode_full` decodes it again with every pixel.
    """

    image_id: str
    pixels: Pixels
    format: str
    taken_at: str | None
    width: int
    height: int
    scale: float = 1.0
    decode_full: Callable[[], Pixels] | None = None

    def full(self) -> Pixels:
        """All pixels, (height, width, 3). Raises OceanoError `invalid_image`."""
        return self.pixels if self.decode_full is None else self.decode_full()


@dataclass(frozen=True, slots=True)
class Face:
    """One face of one picture.

    bbox and kps (5 landmarks: left eye, right eye, nose, left and right mouth corner, as seen) are pixels
    of the upright image; the bbox lies within it. det_score and quality are in [0, 1], `flaws` say what keeps the
    quality low. `found_by` names the view that found it: `direct` or a fallback.
    """

    bbox: BBox
    kps: tuple[Point, Point, Point, Point, Point]
    det_score: float
    quality: float
    found_by: FoundBy
    embedding: Floats
    flaws: tuple[Flaw, ...] = ()


@dataclass(frozen=True, slots=True)
class FacePayload:
    """What the index keeps beside an embedding.

    `path` is the absolute path of the first copy, `folder` every ancestor folder of it, outermost first
    (a filter on a folder finds all below it). Times are ISO 8601; `person` is None or a name given by people.
    `flaws` are those of `Face` (none in what older versions stored).
    """

    image_id: str
    path: str
    folder: tuple[str, ...]
    bbox: BBox
    kps: tuple[Point, ...]
    width: int
    height: int
    det_score: float
    quality: float
    person: str | None
    taken_at: str | None
    ingested_at: str
    flaws: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FacePoint:
    """One point of the index. `face_id` is a UUID (text), see `face_id_of`."""

    face_id: str
    embedding: Floats
    payload: FacePayload


@dataclass(frozen=True, slots=True)
class FaceRecord:
    """A stored face as read back; `embedding` only where it was asked for."""

    face_id: str
    payload: FacePayload
    embedding: Floats | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """A stored face that resembles a query; `similarity` is the raw cosine, -1 to 1."""

    face_id: str
    similarity: float
    payload: FacePayload


@dataclass(frozen=True, slots=True)
class FaceFilter:
    """Which stored faces count; None means no restriction, all conditions hold together.

    `folder` matches everything below it; the time bounds are inclusive ISO 8601. A face with any of the flaws in
    `without` does not count.
    """

    person: str | None = None
    folder: str | None = None
    image_id: str | None = None
    taken_from: str | None = None
    taken_to: str | None = None
    ingested_from: str | None = None
    ingested_to: str | None = None
    min_det_score: float | None = None
    min_quality: float | None = None
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """`collection` is the full name (faces__antelopev2__4ab1d643); `indexed` of `points` are in the HNSW graph.

    `copies_missing` of the shards' copies on a cluster are not there or behind (REPLICATION_FACTOR).
    """

    kind: Literal["embedded", "server"]
    collection: str
    points: int
    indexed: int
    segments: int
    maintaining: bool
    disk_bytes: int | None  # a server does not say
    copies_missing: int = 0


@dataclass(frozen=True, slots=True)
class ScrollPage:
    """One page of a scroll, ordered by face_id; `next_offset` is None at the end."""

    records: tuple[FaceRecord, ...]
    next_offset: str | None


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """Where the sessions really run; `reason` says why `auto` took it."""

    device: Literal["cpu", "cuda"]
    provider: str
    reason: str


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """The last comparison with the reference picture; `cosine` to the embedding kept from start-up."""

    healthy: bool
    cosine: float
    message: str = ""


@dataclass(frozen=True, slots=True)
class FaceMatches:
    """One face of the query with its matches, best first. `face_index` is its place in the canonical order."""

    face_index: int
    face: Face
    matches: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer to one picture; width and height in pixels of the upright query, `took_ms` per stage and total."""

    width: int
    height: int
    threshold: float
    faces: tuple[FaceMatches, ...]
    took_ms: dict[str, float]


FACE_NAMESPACE: Final = uuid.UUID("a579510d-68e7-51d9-862f-fea30fcc201c")


def face_id_of(image_id: str, model_digest: str, place: int) -> str:
    """UUIDv5 of the image, the model's digest and the face's place (from 0) in the canonical order."""
    return str(uuid.uuid5(FACE_NAMESPACE, f"{image_id}:{model_digest}:{place}"))


def collection_name(alias: str, pack: ModelPack) -> str:
    """`faces`, antelopev2 -> `faces__antelopev2__4ab1d643`."""
    return f"{alias}__{pack.name}__{pack.short_digest}"
