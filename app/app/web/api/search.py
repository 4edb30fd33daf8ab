"""`POST /search`, `/detect`, `/compare`."""

from __future__ import annotations

from fastapi import Request

from app.core.errors import OceanoError
from app.core.types import Face
from app.service.search import with_decoding
from app.service.services import Services
from app.web.api.answers import Body, envelope, face_body, image_body, rounded, search_body
from app.web.api.schemas import CompareOptions, DetectOptions, SearchOptions, read_options
from app.web.deps import services_of
from app.web.uploads import read_upload, read_uploads


async def search(request: Request) -> Body:
    """Matches of every face in the picture `image`, best first."""
    services = services_of(request)
    upload = await read_upload(request)
    options = read_options(SearchOptions, upload.fields)
    result = await services.search.run(
        upload.picture,
        limit=options.limit,
        threshold=_threshold(services, options.threshold),
        max_faces=options.max_faces,
        where=options.where(),
        group_by=options.group_by,
    )
    return envelope(services.engine.pack) | search_body(with_decoding(result, upload.decode_ms))


async def detect(request: Request) -> Body:
    """The faces of the picture `image`; none is an empty list."""
    services = services_of(request)
    upload = await read_upload(request)
    read_options(DetectOptions, upload.fields)
    faces, took = await services.search.detect(upload.picture)
    took = {"decode": upload.decode_ms, **took}
    return envelope(services.engine.pack) | {
        "image": image_body(upload.picture),
        "faces": [face_body(place, face) for place, face in enumerate(faces)],
        "took_ms": rounded(took | {"total": sum(took.values())}),
    }


async def compare(request: Request) -> Body:
    """The largest face of `image_a` against the largest of `image_b`."""
    services = services_of(request)
    uploads = await read_uploads(request, ("image_a", "image_b"))
    options = read_options(CompareOptions, uploads.fields)
    took = {"decode": uploads.decode_ms}
    sides = []
    for name, picture in zip(("image_a", "image_b"), uploads.pictures, strict=True):
        faces, spent = await services.search.detect(picture)
        if not faces:
            raise OceanoError("face_not_found", f"no face was found in {name}", details={"image": name})
        largest = max(range(len(faces)), key=lambda place: _area(faces[place]))
        sides.append((picture, largest, faces[largest]))
        for stage, milliseconds in spent.items():
            took[stage] = took.get(stage, 0.0) + milliseconds
    similarity = float(sides[0][2].embedding @ sides[1][2].embedding)
    threshold = _threshold(services, options.threshold)
    bodies = [{"image": image_body(picture), "face": face_body(place, face)} for picture, place, face in sides]
    return envelope(services.engine.pack) | {
        "threshold": threshold,
        "similarity": round(similarity, 6),
        "same_person": similarity >= threshold,
        "a": bodies[0],
        "b": bodies[1],
        "took_ms": rounded(took | {"total": sum(took.values())}),
    }


def _threshold(services: Services, asked: float | None) -> float:
    return services.engine.pack.threshold if asked is None else asked


def _area(face: Face) -> float:
    x1, y1, x2, y2 = face.bbox
    return (x2 - x1) * (y2 - y1)
