"""`GET /images/{image_id}`, its preview and its file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import PurePath
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field
from starlette.responses import MalformedRangeHeader, RangeNotSatisfiable
from starlette.types import Receive, Scope, Send

from app.core.errors import OceanoError
from app.core.paths import readable
from app.core.types import BBox, FaceRecord
from app.images import MEDIA_TYPE, PREVIEW_WIDTHS, preview_width
from app.library import OpenedFile, StoredImage
from app.service import Services
from app.web.api.etags import is_known
from app.web.api.person_names import Names, PersonRef, names_in
from app.web.api.responses import Model, thumb_url
from app.web.api.responses import Response as Envelope
from app.web.audit import write_audit
from app.web.deps import ServicesDep
from app.web.errors import error_response
from app.web.root_path import root_path_of
from app.web.uploads import Decoding

_CACHE: Final = "private, max-age=86400"
IMAGE_ID: Final = re.compile(r"[0-9a-f]{64}")
_MEDIA_TYPES: Final = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}
_TYPES_TO_SAVE: Final = {
    "TIFF": "image/tiff",
    "HEIF": "image/heif",
    "AVIF": "image/avif",
    "BMP": "image/bmp",
}  # a browser may not show them
# A file is never run as a page, whatever it contains.
_ORIGINAL_HEADERS: Final = {
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cache-Control": "private, no-cache",
}

router = APIRouter()


class ImageFace(BaseModel):
    """A face of a stored image."""

    face_id: str
    bbox: BBox = Field(description="x1, y1, x2, y2 in pixels of the upright image")
    quality: float
    flaws: list[str]
    person: PersonRef | None = Field(description="whom the face shows, as somebody named it")
    page: int = Field(description="page of the image file that shows the face, from 0")
    thumb_url: str

    @classmethod
    def of(cls, record: FaceRecord, names: Names, root_path: str) -> ImageFace:
        """Describe a face."""
        stored = record.payload
        return cls(
            face_id=record.face_id,
            bbox=stored.bbox,
            quality=round(stored.quality, 4),
            flaws=list(stored.flaws),
            person=names.of(stored),
            page=stored.page,
            thumb_url=thumb_url(record.face_id, root_path),
        )


class ImageCopy(BaseModel):
    """A file that contains an image."""

    path: str
    size: int = Field(description="bytes")
    shown: bool = Field(description="it may be shown: it is below a folder of LIBRARY_ROOTS")


class Beside(BaseModel):
    """The ids of the images with faces before and after one; null if there is none."""

    previous: str | None
    next: str | None


class ImageResponse(Envelope):
    """Body of `GET /images/{image_id}`."""

    image_id: str
    width: int
    height: int
    taken_at: str | None = Field(description="time of the photograph, ISO 8601, with an offset if it is known")
    ingested_at: str
    details: dict[str, str] = Field(
        description="of camera, lens, exposure, aperture, iso and focal_length those that the file names; empty if the "
        "image may not be shown"
    )
    faces: list[ImageFace]
    files: list[ImageCopy]
    in_folder: Beside = Field(description="by file name in the same folder")
    in_time: Beside = Field(description="by the time of the photograph")
    alike: list[str] = Field(description="ids of near-identical images")
    preview_url: str | None = Field(description="null if the image may not be shown")
    file_url: str | None


@router.get("/images/{image_id}")
async def image(image_id: str, services: ServicesDep, request: Request) -> ImageResponse:
    """Return a stored image: its faces, its files, its camera, its neighbours and near-identical images."""
    decoding: Decoding = request.app.state.decoding
    known = await services.lookups.run(services.pictures.get, image_id_from(image_id))
    read = partial(services.shown.details, decoding.decoders, known.image_id, known.files)
    details = await decoding.original(read)
    await write_audit(request, "photo.view", {"image_id": known.image_id, "faces": len(known.faces)})
    names = await names_in(services, [record.payload for record in known.faces])
    return await services.lookups.run(_described, services, known, details, names, root_path_of(request))


@router.get(
    "/images/{image_id}/preview",
    response_class=Response,
    responses={200: {"content": {MEDIA_TYPE: {}}, "description": "JPEG"}},
)
async def preview(
    image_id: str,
    services: ServicesDep,
    request: Request,
    width: Annotated[int, Query(ge=1, le=100_000, description=f"in pixels, rounded up to one of {PREVIEW_WIDTHS}")] = (
        PREVIEW_WIDTHS[1]
    ),
    page: Annotated[int, Query(ge=0, le=100_000, description="page of the file, from 0")] = 0,
) -> Response:
    """Return the image as a JPEG for the screen, upright and at most `width` wide."""
    known = await services.lookups.run(services.pictures.get, image_id_from(image_id))
    width = preview_width(width)
    etag = f'"{known.image_id}-{width}-{page}"'
    headers = {"Cache-Control": _CACHE, "ETag": etag}
    await services.lookups.run(services.pictures.require_original, known.image_id, known.files)
    if is_known(request, etag):
        return Response(status_code=304, headers=headers)
    if width > PREVIEW_WIDTHS[0]:  # the smallest ones are the pictures of lists
        viewed = {"image_id": known.image_id, "width": width}
        await write_audit(request, "photo.view", viewed, once=f"photo {known.image_id}")
    jpeg = await services.lookups.run(services.shown.previews.read, known.image_id, width, page)
    if jpeg is None:
        decoding: Decoding = request.app.state.decoding
        draw = partial(services.shown.preview, decoding.decoders, known.image_id, known.files, width, page)
        jpeg = await decoding.original(draw)
    return Response(jpeg, media_type=MEDIA_TYPE, headers=headers)


@router.get(
    "/images/{image_id}/file",
    response_class=Response,
    responses={200: {"content": {"image/*": {}}, "description": "the file as it is"}},
)
async def file(
    image_id: str,
    services: ServicesDep,
    request: Request,
    download: Annotated[bool, Query(description="save it rather than show it")] = False,
) -> Response:
    """Return the original file. Answers `Range`, `If-Range` and `If-None-Match`."""
    known = await services.lookups.run(services.pictures.get, image_id_from(image_id))
    etag = f'"{known.image_id}"'
    work = partial(services.pictures.open_original, known.image_id, known.files)
    opened = await services.lookups.run_opening(work, OpenedFile.close)  # a disk that hangs may outlast the request
    if is_known(request, etag):
        opened.close()
        return Response(status_code=304, headers={"ETag": etag, **_ORIGINAL_HEADERS})
    try:
        await write_audit(request, "original.view", {"image_id": known.image_id, "download": download})
    except BaseException:
        opened.close()
        raise
    shown = _MEDIA_TYPES.get(opened.format)
    return _OriginalResponse(
        opened,
        etag,
        media_type=shown or _TYPES_TO_SAVE.get(opened.format, "application/octet-stream"),
        disposition="inline" if shown and not download else "attachment",
    )


def image_id_from(text: str) -> str:
    """Return an image id.

    Raises:
        OceanoError: `image_unknown` if the text is no SHA-256.
    """
    if not IMAGE_ID.fullmatch(text):
        raise OceanoError("image_unknown", "an image id has 64 hexadecimal digits", details={"image_id": text[:64]})
    return text


class _OriginalResponse(FileResponse):
    """Sends an open file, and closes it: the path may name another file by now."""

    def __init__(
        self, opened: OpenedFile, etag: str, *, media_type: str, disposition: Literal["inline", "attachment"]
    ) -> None:
        super().__init__(
            f"/proc/self/fd/{opened.handle}",
            headers={"ETag": etag, **_ORIGINAL_HEADERS},
            media_type=media_type,
            filename=readable(PurePath(opened.path).name),
            stat_result=opened.status,
            content_disposition_type=disposition,
        )
        self._close, self._size = opened.close, opened.status.st_size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except OceanoError as failure:  # of the range
            headers = {"Content-Range": f"bytes */{self._size}"}
            await error_response(failure, Request(scope), headers)(scope, receive, send)
        finally:
            self._close()

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            return []  # the whole file: RFC 9110 ignores such a header, Starlette answers 400
        except RangeNotSatisfiable as failure:
            raise OceanoError(
                "range_not_satisfiable", f"the file has {file_size} bytes", details={"bytes": file_size}
            ) from failure


def _described(
    services: Services, known: StoredImage, details: Mapping[str, str], names: Names, root_path: str
) -> ImageResponse:
    pictures, image_id = services.pictures, known.image_id
    in_folder, in_time = pictures.neighbours(known, "folder"), pictures.neighbours(known, "time")
    address = f"{root_path}/images/{image_id}"
    return ImageResponse(
        model=Model.of(services.engine.pack),
        image_id=image_id,
        width=known.width,
        height=known.height,
        taken_at=known.taken_at,
        ingested_at=known.ingested_at,
        details=dict(details),
        faces=[ImageFace.of(record, names, root_path) for record in known.faces],
        files=[ImageCopy(path=readable(one.path), size=one.size, shown=one.may_show) for one in known.files],
        in_folder=Beside(previous=in_folder.previous, next=in_folder.next),
        in_time=Beside(previous=in_time.previous, next=in_time.next),
        alike=[one.image_id for one in pictures.alike(known, services.engine.pack.threshold)],
        preview_url=f"{address}/preview" if known.may_show else None,
        file_url=f"{address}/file" if known.may_show else None,
    )
