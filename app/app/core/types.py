"""Value types that the packages exchange: images, faces, matches, filters, and information about model and index.

Coordinates are pixels of the upright image, x to the right, y down, origin in the top left corner; bounding boxes are
(x1, y1, x2, y2). Pixels are BGR, uint8, (H, W, 3). Embeddings are float32, (D,), where D is the embedding size of the
model pack (antelopev2: 512, opencv: 128); their L2 norm is 1, so the dot product of two is their cosine similarity.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
BBox = tuple[float, float, float, float]
Point = tuple[float, float]
FoundBy = Literal["direct", "border", "larger", "rotated", "contrast", "tiles"]
Runtime = Literal["onnxruntime", "openvino"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
Flaw = Literal["face_too_small", "blurred", "extreme_pose", "low_detection_score"]

RUNTIME_NAMES: Final[Mapping[Runtime, str]] = MappingProxyType({"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"})
FLAWS: Final[tuple[Flaw, ...]] = get_args(Flaw)
PAGED_FORMATS: Final = frozenset({"TIFF", "JPEG", "HEIF"})  # formats whose frames are photographs of their own
DEFAULT_THRESHOLD: Final = 0.4  # of an unknown model pack


@dataclass(frozen=True, slots=True)
class File:
    """A regular file: absolute path (os.fsdecode), size in bytes, and two times in nanoseconds.

    `mtime_ns` is the last change of the content, which programs can set; `ctime_ns` the last change of content, name or
    permissions, which they cannot.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Strangers:
    """The cosine similarities of different people with a model.

    Attributes:
        mean: their mean.
        deviation: their standard deviation.
        measured: whether these are of this model; if not, they are cautious defaults.
    """

    mean: float = 0.02
    deviation: float = 0.1
    measured: bool = False


UNMEASURED: Final = Strangers()


@dataclass(frozen=True, slots=True)
class ModelPack:
    """A verified model pack: the ONNX files of a detector and of a recogniser.

    Attributes:
        name: the name of the pack.
        folder: the folder of both files.
        detector: the detector's file.
        recogniser: the recogniser's file.
        digest: SHA-256 (64 hex digits) of both files' digests and the preprocessing; two packs with the same digest
            compute the same embeddings.
        embedding_size: D, the length of an embedding.
        threshold: default lowest cosine similarity of a match.
        strangers: the similarities of different people.
    """

    name: str
    folder: Path
    detector: Path
    recogniser: Path
    digest: str
    embedding_size: int
    threshold: float = DEFAULT_THRESHOLD
    strangers: Strangers = UNMEASURED

    @property
    def short_digest(self) -> str:
        """The first 8 hex digits of the digest, as in the name of a collection."""
        return self.digest[:8]


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A decoded, upright image. An image far larger than the detector needs is decoded at a reduced size.

    Attributes:
        image_id: SHA-256 (hex) of the file's bytes.
        pixels: the image, BGR, uint8, (`height` * `scale`, `width` * `scale`, 3).
        format: the file format, such as "JPEG".
        taken_at: time of the photograph as ISO 8601, with the offset from UTC if it is known; None if there is none.
        width: width of the full image in pixels.
        height: height of the full image in pixels.
        scale: size of `pixels` as a fraction of the full size: 1, 1/2, 1/4 or 1/8.
        decode_full: decodes the image again at `full_scale`; None if `pixels` has it.
        full_scale: the largest scale within the limit of pixels; less than 1 for an image that exceeds the limit.
        frames: number of frames or pages of the file, of which this is the first.
        details: camera and exposure, see `app.images.details`.
    """

    image_id: str
    pixels: Pixels
    format: str
    taken_at: str | None
    width: int
    height: int
    scale: float = 1.0
    decode_full: Callable[[], Pixels] | None = None
    full_scale: float = 1.0
    frames: int = 1
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def pages(self) -> int:
        """Number of photographs in the file; the frames of an animation are one."""
        return self.frames if self.format in PAGED_FORMATS else 1

    def full(self) -> Pixels:
        """Return the image at `full_scale`: at full size, unless it exceeds the limit of pixels.

        Raises:
            OceanoError: `invalid_image` if it cannot be decoded at that size.
        """
        return self.pixels if self.decode_full is None else self.decode_full()


@dataclass(frozen=True, slots=True)
class Face:
    """A detected face of an image, with its embedding.

    Attributes:
        bbox: bounding box in pixels of the upright image, within it.
        kps: five landmarks in pixels of the upright image: left eye, right eye, nose, left and right corner of the
            mouth, as seen in the image.
        det_score: the detector's score, 0 to 1.
        quality: 0 to 1.
        found_by: the view that found the face: `direct`, `tiles` or a fallback.
        embedding: float32, (D,), with norm 1.
        flaws: reasons for a low quality.
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
    """The data of a face that the index stores with its embedding.

    Attributes:
        image_id: SHA-256 (hex) of the image file's bytes.
        path: absolute path of the first copy of the image file.
        folder: every folder above `path`, outermost first, so that a filter on a folder matches everything below it.
        bbox: as in `Face`.
        kps: as in `Face`.
        width: width of the upright image in pixels.
        height: height of the upright image in pixels.
        det_score: as in `Face`.
        quality: as in `Face`.
        person: id of the person whom the catalog assigns the face to, or None.
        taken_at: time of the photograph in ISO 8601, or None.
        ingested_at: time of the ingest in ISO 8601.
        flaws: as in `Face`; empty for faces that older versions stored.
        page: page of the image file that shows the face, from 0.
        phash: perceptual hash of the image, 16 hex digits; None for faces that older versions stored.
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
    page: int = 0
    phash: str | None = None


@dataclass(frozen=True, slots=True)
class FacePoint:
    """A face to store in the index.

    Attributes:
        face_id: a UUID as text, see `face_id_of`.
        embedding: float32, (D,), with norm 1.
        payload: the data stored with it.
    """

    face_id: str
    embedding: Floats
    payload: FacePayload


@dataclass(frozen=True, slots=True)
class FaceRecord:
    """A face read from the index; `embedding` is None unless it was requested."""

    face_id: str
    payload: FacePayload
    embedding: Floats | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """A stored face that is similar to a query; `similarity` is the cosine similarity, -1 to 1."""

    face_id: str
    similarity: float
    payload: FacePayload


@dataclass(frozen=True, slots=True)
class Score:
    """The similarity of a stored face to a query, without the face's payload; as in `Match`."""

    face_id: str
    similarity: float


@dataclass(frozen=True, slots=True)
class FaceFilter:
    """Conditions on stored faces. A face matches if it meets all of them; None is no condition.

    Attributes:
        person: the face's person; several: any of them.
        not_person: none of these is the face's person.
        named: only faces with a person.
        unnamed: only faces without a person.
        folder: absolute path of a folder; the image is in it or below it. Several: in or below any of them.
        image_id: the face's image; several: any of them.
        taken_from: earliest time of the photograph, inclusive, ISO 8601.
        taken_to: latest time of the photograph, inclusive, ISO 8601.
        undated: only faces without a time of the photograph.
        ingested_from: earliest time of the ingest, inclusive, ISO 8601.
        ingested_to: latest time of the ingest, inclusive, ISO 8601.
        min_det_score: lowest det_score.
        min_quality: lowest quality.
        without: flaws that the face must not have.
    """

    person: str | tuple[str, ...] | None = None
    not_person: tuple[str, ...] = ()
    named: bool = False
    unnamed: bool = False
    folder: str | tuple[str, ...] | None = None
    image_id: str | tuple[str, ...] | None = None
    taken_from: str | None = None
    taken_to: str | None = None
    undated: bool = False
    ingested_from: str | None = None
    ingested_to: str | None = None
    min_det_score: float | None = None
    min_quality: float | None = None
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """The state of an index.

    Attributes:
        kind: embedded, or on a Qdrant server.
        collection: full name of the collection, such as `faces__antelopev2__4ab1d643`.
        points: number of faces.
        indexed: number of faces in the HNSW graph.
        segments: number of Qdrant segments.
        maintaining: a graph is being built.
        disk_bytes: size on disk; None for a server, which does not report it.
        copies_missing: copies of shards on a cluster (REPLICATION_FACTOR) that are missing or out of date.
        damaged_files: files of an embedded index that were damaged on the disk since its graph was built.
    """

    kind: Literal["embedded", "server"]
    collection: str
    points: int
    indexed: int
    segments: int
    maintaining: bool
    disk_bytes: int | None
    copies_missing: int = 0
    damaged_files: int = 0


@dataclass(frozen=True, slots=True)
class ScrollPage:
    """A page of faces in the order of their ids.

    Attributes:
        records: the faces.
        next_offset: the first id of the next page; None if this is the last one.
    """

    records: tuple[FaceRecord, ...]
    next_offset: str | None


@dataclass(frozen=True, slots=True)
class RuntimeTrial:
    """How one runtime ran a network on the reference images.

    Attributes:
        runtime: that ran it.
        precision: of the computations.
        milliseconds: CPU time of a run with one image on one thread; None if it did not run.
        cosine: the lowest cosine similarity of an output to that of ONNX Runtime in fp32 (of a quantized model, in
            int8); None if it did not run.
        problem: why it did not run; empty if it did.
    """

    runtime: Runtime
    precision: Precision
    milliseconds: float | None
    cosine: float | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """The runtime of a network.

    Attributes:
        runtime: that runs it.
        version: of its package.
        precision: of the computations.
        reason: why it was chosen.
        trials: the runtimes that were measured on this machine, if any.
    """

    runtime: Runtime
    version: str
    precision: Precision
    reason: str
    trials: tuple[RuntimeTrial, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """The device and the runtimes that the model runs on.

    Attributes:
        device: CPU or GPU.
        provider: what runs the recogniser: an execution provider of ONNX Runtime, or a device of OpenVINO.
        reason: why this device was chosen.
        runtimes: those of the networks, by `detector` and `recogniser`.
    """

    device: Literal["cpu", "cuda", "intel_gpu"]
    provider: str
    reason: str
    runtimes: dict[str, RuntimeInfo] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """The result of an engine's check.

    Attributes:
        healthy: whether the model still returns what it returned at start-up.
        cosine: cosine similarity of its reference output to that of start-up; 0 if the model does not run.
        message: what is wrong; empty if healthy.
    """

    healthy: bool
    cosine: float
    message: str = ""


FACE_NAMESPACE: Final = uuid.UUID("a579510d-68e7-51d9-862f-fea30fcc201c")


def face_id_of(image_id: str, model_digest: str, face_index: int) -> str:
    """Return the id of a face, the same for every ingest of the image with the same model.

    Args:
        image_id: SHA-256 (hex) of the image file's bytes.
        model_digest: the digest of the model pack.
        face_index: position of the face in canonical order (bbox x1, then y1), from 0.

    Returns:
        A UUIDv5 as text.
    """
    return str(uuid.uuid5(FACE_NAMESPACE, f"{image_id}:{model_digest}:{face_index}"))


def face_ids_of(image_id: str, model_digest: str, faces: int) -> list[str]:
    """Return the ids of all faces of an image, in canonical order; the arguments are those of `face_id_of`."""
    return [face_id_of(image_id, model_digest, face_index) for face_index in range(faces)]


def collection_name(alias: str, pack: ModelPack) -> str:
    """Return the full name of a model's collection, such as `faces__antelopev2__4ab1d643`.

    Args:
        alias: QDRANT_COLLECTION.
        pack: the model.
    """
    return f"{alias}__{pack.name}__{pack.short_digest}"
