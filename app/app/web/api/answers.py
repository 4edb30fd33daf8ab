"""JSON bodies."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from app.core import logs
from app.core.paths import readable
from app.core.types import Face, FaceRecord, Match, ModelPack, Picture, SearchResult

Body = dict[str, Any]


def envelope(pack: ModelPack) -> Body:
    """What begins every answer: the request's id and the model."""
    return {"request_id": logs.request_id.get(), "model": {"name": pack.name, "digest": pack.short_digest}}


def search_body(result: SearchResult) -> Body:
    return {
        "threshold": result.threshold,
        "image": {"width": result.width, "height": result.height},
        "faces": [
            face_body(found.face_index, found.face) | {"matches": [match_body(match) for match in found.matches]}
            for found in result.faces
        ],
        "took_ms": rounded(result.took_ms),
    }


def image_body(picture: Picture) -> Body:
    return {"width": picture.width, "height": picture.height}


def face_body(place: int, face: Face) -> Body:
    return {
        "face_index": place,
        "bbox": [round(value, 2) for value in face.bbox],
        "kps": [[round(x, 2), round(y, 2)] for x, y in face.kps],
        "det_score": round(face.det_score, 4),
        "quality": round(face.quality, 4),
        "flaws": list(face.flaws),
        "found_by": face.found_by,
    }


def match_body(match: Match) -> Body:
    return {
        "face_id": match.face_id,
        "image_id": match.payload.image_id,
        "similarity": round(match.similarity, 6),
        "person": match.payload.person,
        "path": readable(match.payload.path),
        "bbox": [round(value, 2) for value in match.payload.bbox],
        "quality": round(match.payload.quality, 4),
        "flaws": list(match.payload.flaws),
        "thumb_url": f"/thumbs/{match.face_id}",
    }


def record_body(record: FaceRecord) -> Body:
    stored = asdict(record.payload)
    stored |= {
        "path": readable(record.payload.path),
        "folder": [readable(folder) for folder in record.payload.folder],
    }
    return {"face_id": record.face_id, "thumb_url": f"/thumbs/{record.face_id}"} | stored


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no NaN


def rounded(took: dict[str, float]) -> dict[str, float]:
    return {stage: round(milliseconds, 2) for stage, milliseconds in took.items()}
