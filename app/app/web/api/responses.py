"""The JSON bodies of responses, as pydantic models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, Field

from app.core.paths import readable
from app.core.types import (
    BBox,
    Face,
    FaceRecord,
    Flaw,
    FoundBy,
    ModelPack,
    Picture,
    Point,
    Precision,
    Runtime,
)
from app.service import Sureness
from app.web.api.job_status import JobStatus
from app.web.api.person_names import PersonRef
from app.web.errors import current_request_id


class Model(BaseModel):
    """The model pack that made the embeddings."""

    name: str
    digest: str = Field(description="first 8 hex digits of the SHA-256 of the model's files and preprocessing")

    @classmethod
    def of(cls, pack: ModelPack) -> Model:
        """Name a pack."""
        return cls(name=pack.name, digest=pack.short_digest)


class Response(BaseModel):
    """What begins every body: the request's id and the model."""

    request_id: str = Field(default_factory=current_request_id, description="as in the header X-Request-ID")
    model: Model


class ImageSize(BaseModel):
    """Width and height of the upright image, in pixels."""

    width: int
    height: int

    @classmethod
    def of(cls, picture: Picture) -> ImageSize:
        """Read the size of a picture."""
        return cls(width=picture.width, height=picture.height)


class FoundFace(BaseModel):
    """A face of an uploaded image."""

    face_index: int = Field(description="position among the image's faces, ordered by x1, then y1")
    bbox: BBox = Field(description="x1, y1, x2, y2 in pixels of the upright image")
    kps: list[Point] = Field(description="left eye, right eye, nose, left and right mouth corner, as seen")
    det_score: float = Field(description="score of the detector, 0 to 1")
    quality: float = Field(description="0 to 1")
    flaws: list[Flaw] = Field(description="what keeps the quality low")
    found_by: FoundBy = Field(description="`direct`, `tiles`, or the fallback that found the face")

    @classmethod
    def of(cls, position: int, face: Face) -> FoundFace:
        """Describe a face, coordinates in hundredths of pixels, scores in ten-thousandths."""
        return cls(
            face_index=position,
            bbox=rounded_box(face.bbox),
            kps=[(round(x, 2), round(y, 2)) for x, y in face.kps],
            det_score=round(face.det_score, 4),
            quality=round(face.quality, 4),
            flaws=list(face.flaws),
            found_by=face.found_by,
        )


class DetectResponse(Response):
    """Body of `POST /detect`."""

    image: ImageSize
    faces: list[FoundFace]
    took_ms: dict[str, float] = Field(description="milliseconds per stage, and `total`")


class ComparedImage(BaseModel):
    """An image and its largest face."""

    image: ImageSize
    face: FoundFace


class ComparedPair(BaseModel):
    """A face of `image_a` and one of `image_b`."""

    face_a: int = Field(description="`face_index` in `image_a`, as in `POST /detect`")
    face_b: int = Field(description="`face_index` in `image_b`")
    similarity: float = Field(description="cosine, -1 to 1")
    above_threshold: bool
    sureness: Sureness | None = Field(description="as in `CompareResponse`")


class CompareResponse(Response):
    """Body of `POST /compare`."""

    threshold: float = Field(description="least cosine of the same person")
    similarity: float = Field(description="cosine of the largest face of each image, -1 to 1")
    above_threshold: bool = Field(description="`similarity` is `threshold` or more; no proof that it is one person")
    sureness: Sureness | None = Field(
        description="what the similarity would mean for a match in the index, see `GET /status`; null below `threshold`"
    )
    same_person: bool = Field(description="the same as `above_threshold`", json_schema_extra={"deprecated": True})
    a: ComparedImage
    b: ComparedImage
    faces_a: int = Field(description="number of faces in `image_a`")
    faces_b: int = Field(description="number of faces in `image_b`")
    pairs: list[ComparedPair] | None = Field(
        description="with `all_pairs`, every face of `image_a` with every face of `image_b`, most similar first"
    )
    took_ms: dict[str, float] = Field(description="milliseconds per stage of both images, and `total`")


class FaceResponse(Response):
    """Body of `GET /faces/{face_id}`."""

    face_id: str
    thumb_url: str
    image_id: str = Field(description="SHA-256 of the image file, hex")
    path: str = Field(description="absolute path of the image file")
    folder: list[str] = Field(description="every folder above `path`, outermost first")
    page: int = Field(description="page of the image file that shows the face, from 0")
    bbox: BBox = Field(description="x1, y1, x2, y2 in pixels of the upright image")
    kps: list[Point]
    width: int
    height: int
    det_score: float
    quality: float
    person: PersonRef | None = Field(description="whom the face shows, as somebody named it")
    taken_at: str | None = Field(description="time of the photograph, ISO 8601, with an offset if it is known")
    ingested_at: str = Field(description="ISO 8601")
    flaws: list[str]
    paths: list[str] = Field(description="every known path of the same image file")

    @classmethod
    def of(
        cls, record: FaceRecord, person: PersonRef | None, paths: list[str], pack: ModelPack, root_path: str = ""
    ) -> FaceResponse:
        """Describe a stored face, whom it shows, and the paths of its image."""
        stored = record.payload
        return cls(
            model=Model.of(pack),
            face_id=record.face_id,
            thumb_url=thumb_url(record.face_id, root_path),
            image_id=stored.image_id,
            path=readable(stored.path),
            folder=[readable(folder) for folder in stored.folder],
            page=stored.page,
            bbox=stored.bbox,
            kps=list(stored.kps),
            width=stored.width,
            height=stored.height,
            det_score=stored.det_score,
            quality=stored.quality,
            person=person,
            taken_at=stored.taken_at,
            ingested_at=stored.ingested_at,
            flaws=list(stored.flaws),
            paths=[readable(path) for path in paths],
        )


class Check(BaseModel):
    """Whether a part works, and if not, why."""

    ok: bool
    message: str


class Checks(BaseModel):
    """The parts that a search needs."""

    engine: Check
    index: Check


class HealthResponse(BaseModel):
    """Body of `GET /health`."""

    status: Literal["ok", "unavailable"]
    checks: Checks
    request_id: str = Field(default_factory=current_request_id)


class GpuStatus(BaseModel):
    """A GPU; memory in bytes, utilisation 0 to 1 or null where the driver does not report it."""

    name: str
    memory_used: int
    memory_total: int
    utilisation: float | None


class RuntimeTrialStatus(BaseModel):
    """How a runtime ran a network on reference images: milliseconds are the CPU time of one image on one thread."""

    runtime: Runtime
    precision: Precision
    milliseconds: float | None = Field(description="null if it did not run")
    cosine: float | None = Field(
        description="of its output to that of ONNX Runtime in fp32 (int8 for a quantized model); null if it did not run"
    )
    problem: str = Field(description="why it did not run; empty if it did")


class RuntimeStatus(BaseModel):
    """What runs a network, and why; `trials` are the runtimes that were measured on this machine."""

    runtime: Runtime
    version: str
    precision: Precision
    reason: str
    trials: list[RuntimeTrialStatus]


class DeviceStatus(BaseModel):
    """Where the model runs, and why there."""

    device: Literal["cpu", "cuda", "intel_gpu"]
    provider: str
    reason: str
    runtimes: dict[str, RuntimeStatus] = Field(description="of the networks, by `detector` and `recogniser`")
    gpus: list[GpuStatus]


class EngineStatus(BaseModel):
    """The last comparison of the model with its reference picture."""

    healthy: bool
    cosine: float | None = Field(description="to the embedding at start; null if it is not a number")
    message: str


class IndexStatus(BaseModel):
    """The index as last seen; `ok` is false once that is more than 10 seconds ago.

    With a key for some folders, `points` are the faces in them, and numbers of the whole index are null.
    """

    ok: bool
    kind: Literal["embedded", "server"]
    collection: str
    points: int = Field(description="faces")
    indexed: int | None = Field(description="faces in the HNSW graph")
    segments: int | None
    maintaining: bool = Field(description="a graph is being built")
    disk_bytes: int | None
    copies_missing: int | None = Field(description="copies of shards that a cluster lacks")
    damaged_files: int | None = Field(description="files of an embedded index that were damaged on the disk")


class IndexUnavailable(BaseModel):
    """The index has not answered."""

    ok: Literal[False] = False
    message: str


class IngestStatus(BaseModel):
    """Ingested files by result, and the faces of all images."""

    done: int
    no_face: int
    failed: int
    duplicate: int
    faces: int


class IngestUnavailable(BaseModel):
    """The ledger cannot be read."""

    message: str


class BandsStatus(BaseModel):
    """Which similarities are a very likely or likely match in this index; the others need a close look."""

    very_likely: float = Field(description="least similarity at which 0.01 strangers are expected in the whole index")
    likely: float = Field(description="least similarity at which 1 stranger is expected in the whole index")
    mean: float = Field(description="mean similarity of different people")
    deviation: float = Field(description="standard deviation of the same")
    faces: int = Field(description="number of faces in the index")
    source: Literal["default", "model", "index"] = Field(
        description="where mean and deviation come from: a cautious default, measurements of the model, or this index"
    )


class Versions(BaseModel):
    """Versions of the running software."""

    oceano: str
    python: str


class StatusResponse(Response):
    """Body of `GET /status`."""

    demo: bool = Field(description="the model is the demo pack, which finds drawn people only")
    embedding_size: int = Field(description="dimensions of an embedding")
    threshold: float = Field(description="the model's default least cosine of a match")
    bands: BandsStatus
    device: DeviceStatus
    engine: EngineStatus
    index: IndexStatus | IndexUnavailable
    ingest: IngestStatus | IngestUnavailable | None = Field(description="null with a key for some folders")
    jobs: list[JobStatus] | None = Field(
        description="ingests that have not ended, on all machines: those that run, then those that wait, newest first, "
        "50 at most; null if they cannot be read. With a key for some folders, only those of these folders"
    )
    jobs_left_out: int = Field(description="ingests that have not ended and are not in `jobs`")
    versions: Versions
    started_at: float = Field(description="seconds since 1970")
    uptime_seconds: float


def thumb_url(face_id: str, root_path: str) -> str:
    """Return the address of a face's thumbnail, behind a proxy with its path."""
    return f"{root_path}/thumbs/{face_id}"


def finite(value: float) -> float | None:
    """Return the value, or None for NaN and infinities, which JSON lacks."""
    return value if math.isfinite(value) else None


def rounded(took_ms: Mapping[str, float]) -> dict[str, float]:
    """Round milliseconds to hundredths."""
    return {stage: round(milliseconds, 2) for stage, milliseconds in took_ms.items()}


def rounded_box(box: BBox) -> BBox:
    """Round coordinates to hundredths of pixels."""
    x1, y1, x2, y2 = box
    return round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2)
