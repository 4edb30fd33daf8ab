"""`GET /photo/{image_id}`: one photograph, its faces and what is known of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.core.boxes import area
from app.core.errors import OceanoError
from app.core.texts import Translator, translator
from app.images import PREVIEW_WIDTHS
from app.library import Neighbours, Pictures, StoredImage
from app.service import Services, Sureness, two_decimals
from app.web.api.faces import face_id_from
from app.web.api.images import image_id_from
from app.web.audit import write_audit
from app.web.deps import ServicesDep
from app.web.i18n import language_of
from app.web.pages.change_views import toast_of
from app.web.pages.filters import FIRST_PAGE
from app.web.pages.form_fields import last_of, query_fields
from app.web.pages.names import encodable, printable
from app.web.pages.people_views import name_beside
from app.web.pages.result_parts import outline
from app.web.pages.result_views import OutlineView, day_text
from app.web.pages.templating import render
from app.web.uploads import Decoding

_ORIGIN: Final = re.compile(  # a result, a person or a list of faces, to which the page leads back
    r"/((face/(?P<face>[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})|(kept|search)/[0-9A-Za-z_-]+)"
    r"|(?P<list>(person|group)/[0-9a-f-]{36}|people))(\?.*)?"
)
_LARGEST_BADGE: Final = 0.024  # the photograph is as large as the screen
_SIMILARITY: Final = re.compile(r"[01]\.[0-9]{2}")


@dataclass(frozen=True, slots=True)
class PhotoFace:
    """A face of the photograph.

    Attributes:
        face_id: the face.
        number: in canonical order, from 1.
        outline: in pixels of the upright image.
        name: of the person; empty if it has none.
        person_id: of the person; empty if it has none.
        version: of the person; 0 if it has none.
        dismissed: `set_aside` or `not_a_face`; empty if it was not dismissed.
        is_chosen: the match of the result that the page was opened from.
        together: address below the root of that result with this person as well; empty for the person searched for.
    """

    face_id: str
    number: int
    outline: OutlineView
    name: str
    person_id: str
    version: int
    dismissed: str
    is_chosen: bool
    together: str


@dataclass(frozen=True, slots=True)
class Why:
    """Why the photograph is in a result: both faces, and what their similarity means.

    Attributes:
        query_face: face_id; empty for a photograph that was sent, of which the browser has the crop.
        face: face_id.
        similarity: two decimals.
        sureness: what the similarity means.
    """

    query_face: str
    face: str
    similarity: str
    sureness: Sureness


@dataclass(frozen=True, slots=True)
class Copy:
    """A file of the photograph; its names are for display, `copied` is its path for programs."""

    copied: str
    path: str
    name: str
    folder: str


@dataclass(frozen=True, slots=True)
class NearView:
    """A photograph before or after this one, or near-identical to it.

    Attributes:
        image_id: the image.
        name: of its file.
        folder: of the file.
        day: of the photograph, in words; empty if unknown.
        picture: address of a small picture below the root: of the photograph, or of a face if it may not be shown.
    """

    image_id: str
    name: str
    folder: str
    day: str
    picture: str


@dataclass(frozen=True, slots=True)
class PhotoView:
    """Contents of the page.

    Attributes:
        image_id: the image.
        width: of the upright image in pixels.
        height: of the upright image in pixels.
        widths: of the previews that are not larger than the image.
        faces: in canonical order.
        why: None if the page was not opened from a result.
        back: address of the result; empty if there is none.
        taken_at: date and time of the photograph in ISO 8601; empty if it has no date.
        day: the same in words.
        time: of the photograph, such as 10:42; empty if it has no date.
        name: of the file.
        folder: of the file.
        copies: all files that contain the image.
        size: of the file, with its unit; empty if no file is known.
        details: of the camera.
        shown: the photograph can be shown; if not, `problem` says why.
        problem: an error; None if there is none.
        in_folder: the photographs before and after it in its folder; None for one that is not there.
        in_time: the same in time.
        alike: near-identical images.
        ingested: day of the ingest, in words.
    """

    image_id: str
    width: int
    height: int
    widths: tuple[int, ...]
    faces: tuple[PhotoFace, ...]
    why: Why | None
    back: str
    taken_at: str
    day: str
    time: str
    name: str
    folder: str
    copies: tuple[Copy, ...]
    size: str
    details: Mapping[str, str]
    shown: bool
    problem: OceanoError | None
    in_folder: tuple[NearView | None, NearView | None]
    in_time: tuple[NearView | None, NearView | None]
    alike: tuple[NearView, ...]
    ingested: str


def router() -> APIRouter:
    """Return the route, which is not in the schema of the API."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    routes.add_api_route("/photo/{image_id}", _photo, methods=["GET"])
    return routes


async def _photo(request: Request, image_id: str, services: ServicesDep) -> HTMLResponse:
    fields = query_fields(request)
    chosen = last_of(fields, "face")
    chosen = face_id_from(chosen) if chosen else ""
    back = _origin(last_of(fields, "from"))
    similarity = last_of(fields, "s")
    decoding: Decoding = request.app.state.decoding
    image = await services.lookups.run(services.pictures.get, image_id_from(image_id))
    read = partial(services.shown.details, decoding.decoders, image.image_id, image.files)
    details = await decoding.original(read)
    why = await services.lookups.run(_why, services, chosen, back, similarity)
    viewed = {"image_id": image.image_id, "faces": len(image.faces)}
    await write_audit(request, "photo.view", viewed, again=f"photo {image.image_id}")
    t = translator(language_of(request))
    view = await services.lookups.run(_view, services, image, details, chosen, back, why, t)
    return render(request, "photo.html", {"photo": view, "toast": await toast_of(request, services)})


def _origin(sent: str) -> str:
    """Return the address of a result; empty for any other, which a link of another site may contain."""
    return sent if _ORIGIN.fullmatch(sent) else ""


def _view(
    services: Services,
    image: StoredImage,
    details: Mapping[str, str],
    chosen: str,
    back: str,
    why: Why | None,
    t: Translator,
) -> PhotoView:
    pictures = services.pictures
    path = PurePosixPath(printable(image.path))
    return PhotoView(
        image_id=image.image_id,
        width=image.width,
        height=image.height,
        widths=tuple(width for width in PREVIEW_WIDTHS if width <= image.width) or PREVIEW_WIDTHS[:1],
        faces=tuple(_faces(services, image, chosen, back, t)),
        why=why,
        back=back,
        taken_at=image.taken_at or "",
        day=day_text(image.taken_at, t),
        time=(image.taken_at or "")[11:16],
        name=path.name,
        folder=str(path.parent),
        copies=tuple(_copies(image)),
        size=t.size(image.files[0].size) if image.files else "",
        details=details,
        shown=(problem := _problem(services, image)) is None,
        problem=problem,
        in_folder=_near(pictures, pictures.neighbours(image, "folder"), t),
        in_time=_near(pictures, pictures.neighbours(image, "time"), t),
        alike=tuple(_near_view(one, t) for one in pictures.alike(image, services.engine.pack.threshold)),
        ingested=day_text(image.ingested_at, t),
    )


def _near(pictures: Pictures, found: Neighbours, t: Translator) -> tuple[NearView | None, NearView | None]:
    return _near_one(pictures, found.previous, t), _near_one(pictures, found.next, t)


def _near_one(pictures: Pictures, image_id: str | None, t: Translator) -> NearView | None:
    if image_id is None:
        return None
    try:
        image = pictures.get(image_id)
    except OceanoError as failure:
        if failure.code == "image_unknown":  # deleted meanwhile
            return None
        raise
    return _near_view(image, t)


def _near_view(image: StoredImage, t: Translator) -> NearView:
    face = max(image.faces, key=lambda record: area(record.payload.bbox))
    is_shown = image.may_show and face.payload.page == 0
    picture = f"/images/{image.image_id}/preview?width={PREVIEW_WIDTHS[0]}" if is_shown else f"/thumbs/{face.face_id}"
    path = PurePosixPath(printable(image.path))
    return NearView(image.image_id, path.name, str(path.parent), day_text(image.taken_at, t), picture)


def _faces(services: Services, image: StoredImage, chosen: str, back: str, t: Translator) -> Iterator[PhotoFace]:
    origin = _ORIGIN.fullmatch(back)
    others = _others(services, image, chosen) if origin and not origin["list"] else frozenset()
    ids = [record.payload.person for record in image.faces if record.payload.person]
    people = services.people.names(ids) if ids else {}
    dismissed = services.people.unnamed.kinds(image.faces)
    for number, record in enumerate(image.faces, 1):
        person = people.get(record.payload.person or "")
        shape = outline(record.payload.bbox, number, image.width, image.height, largest_badge=_LARGEST_BADGE)
        together = _beside(back, record.face_id) if record.face_id in others else ""
        yield PhotoFace(
            record.face_id,
            number,
            shape,
            name_beside(person, t),
            "" if person is None else person.id,
            0 if person is None else person.version,
            dismissed.get(record.face_id, ""),
            record.face_id == chosen,
            together,
        )


def _others(services: Services, image: StoredImage, chosen: str) -> frozenset[str]:
    """Return the faces of other people than the chosen match, which shows the person searched for."""
    records = services.index.retrieve([one.face_id for one in image.faces], with_embedding=True)
    embeddings = {record.face_id: record.embedding for record in records if record.embedding is not None}
    if chosen not in embeddings:
        return frozenset()
    threshold = services.engine.pack.threshold
    return frozenset(one for one, other in embeddings.items() if float(other @ embeddings[chosen]) < threshold)


def _beside(back: str, face_id: str) -> str:
    """Return the address of the first page of a result, with a further person who must be in the same image."""
    address, _, query = back.partition("?")
    pairs = [(name, value) for name, value in parse_qsl(query) if name not in FIRST_PAGE]
    return f"{address}?{urlencode([*pairs, ('with', face_id)])}"


def _copies(image: StoredImage) -> Sequence[Copy]:
    paths = [file.path for file in image.files] or [image.path]
    shown = [PurePosixPath(printable(path)) for path in paths]
    return [Copy(encodable(path), str(one), one.name, str(one.parent)) for path, one in zip(paths, shown, strict=True)]


def _why(services: Services, chosen: str, back: str, told: str) -> Why | None:
    """Say what the similarity of a hit means; without one from the result, compare with the face it starts from."""
    origin = _ORIGIN.fullmatch(back)
    if origin is None or origin["list"] or not chosen or chosen == origin["face"]:
        return None
    start = origin["face"] or ""
    if _SIMILARITY.fullmatch(told) and float(told) <= 1:
        return Why(start, chosen, told, services.bands.of(float(told)))
    if not start:
        return None
    records = services.index.retrieve([start, chosen], with_embedding=True)
    embeddings = {record.face_id: record.embedding for record in records}
    one, other = embeddings.get(start), embeddings.get(chosen)
    if one is None or other is None:
        return None
    similarity = float(one @ other)
    return Why(start, chosen, two_decimals(similarity), services.bands.of(similarity))


def _problem(services: Services, image: StoredImage) -> OceanoError | None:
    """Return why the original cannot be shown; None if it can."""
    try:
        services.pictures.open_original(image.image_id, image.files).close()
    except OceanoError as failure:
        return failure
    return None
