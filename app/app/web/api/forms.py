"""The forms of requests: files, and options checked by pydantic."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any, Final, Generic, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from app.core.errors import JsonValue, OceanoError
from app.core.types import FLAWS, FaceFilter
from app.service import DEFAULT_LIMIT, MAX_LIMIT, SURENESSES, GroupBy, Sort
from app.web.api.fields import (
    MAX_EXAMPLES,
    VALID,
    ChosenFaces,
    ExampleIds,
    FacePlaces,
    Flaws,
    Folders,
    IsoTime,
    OtherIds,
    PersonId,
    Surenesses,
    Vectors,
)
from app.web.uploads import Photographs, Upload, read_fields, read_photographs, read_upload

Options = TypeVar("Options", bound=BaseModel)

_REPEATABLE: Final = frozenset({"folder", "face_id", "embedding", "face", "with_face", "with_face_id", "not_face_id"})
_FILTERS: Final = frozenset(FaceFilter.__dataclass_fields__)


class DetectOptions(BaseModel):
    """Options of `POST /detect`: none."""

    model_config = ConfigDict(extra="forbid")


class CompareOptions(BaseModel):
    """Options of `POST /compare`."""

    model_config = ConfigDict(extra="forbid")
    threshold: float | None = Field(
        None, ge=-1, le=1, description="least cosine of the same person; left out: the model's default"
    )
    all_pairs: bool = Field(False, description="compare all faces of `image_a` with all of `image_b`, too")


class PersonOptions(BaseModel):
    """Options of every search for a person: examples of the person, conditions, and the order of the matches."""

    model_config = ConfigDict(extra="forbid")
    face_id: ExampleIds = Field((), description="stored face of the person. Several fields: one combined query")
    embedding: Vectors = Field(
        (),
        description="embedding of the person by the same model, a JSON array of numbers. Several fields: as `face_id`",
    )
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="matches of a page")
    threshold: float | None = Field(
        None, ge=-1, le=1, description="least cosine of a match; left out: the model's default"
    )
    sureness: Surenesses = Field(
        (), description="only matches of these, comma-separated: " + ", ".join(SURENESSES) + "; left out: all"
    )
    sort: Sort = Field("similarity", description="order of the matches; by time, those without a date are last")
    group_by: GroupBy | None = Field(
        None, description="only the most similar match of each image, person, day or set of near-identical images"
    )
    min_face: int | None = Field(None, ge=1, le=10_000, description="least shorter side of a stored face, in pixels")
    with_face_id: OtherIds = Field((), description="stored face of a further person who must be in the same image")
    not_face_id: OtherIds = Field((), description="stored face of another person; leaves out what resembles it more")
    person: PersonId | None = Field(None, description="only faces of this person, by the id")
    named: bool = Field(False, description="only faces with a person")
    unnamed: bool = Field(False, description="only faces without a person")
    folder: Folders = Field(
        (), description="only pictures in or below this folder; absolute. Several fields: in or below any of them"
    )
    image_id: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="only faces of this image")
    taken_from: IsoTime | None = Field(None, description="taken at or after; year, month, day or time, ISO 8601")
    taken_to: IsoTime | None = Field(None, description="taken at or before; a year, month or day includes all of it")
    undated: bool = Field(False, description="only faces of images without a date")
    ingested_from: IsoTime | None = Field(None, description="ingested at or after, as `taken_from`")
    ingested_to: IsoTime | None = Field(None, description="ingested at or before, as `taken_to`")
    min_det_score: float | None = Field(None, ge=0, le=1, description="least det_score of a stored face")
    min_quality: float | None = Field(None, ge=0, le=1, description="least quality of a stored face")
    without: Flaws = Field(
        (), description="leave out stored faces with any of these flaws, comma-separated: " + ", ".join(FLAWS)
    )

    def where(self) -> FaceFilter | None:
        """Return the filter of these options; None if there is none."""
        given = self.model_dump(include={*_FILTERS}, exclude_none=True, exclude_defaults=True)
        if len(self.folder) == 1:
            given["folder"] = self.folder[0]
        return FaceFilter(**given) if given else None


class SearchOptions(PersonOptions):
    """Options of `POST /search`, in the form or the query string."""

    max_faces: int | None = Field(
        None, ge=1, le=1000, description="search only the largest faces; for one `image` and no other example"
    )
    face: ChosenFaces = Field(
        (), description="which face of an `image` is meant, as image_index:face_index; one field for each image"
    )
    with_face: FacePlaces = Field(
        (), description="face of an `image` that shows a further person who must be in the same image, as `face`"
    )
    identify: bool = Field(False, description="also say which named person each searched face is likely to be")


class MoreOptions(BaseModel):
    """Options of `POST /search/more`, in the form or the query string."""

    model_config = ConfigDict(extra="forbid")
    after: str = Field(description="`next` of the page before, of one face")
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="matches of this page")


async def read_more(request: Request) -> MoreOptions:
    """Read the fields of a request without files: a dependency.

    Raises:
        OceanoError: `invalid_request`.
    """
    return read_options(MoreOptions, await read_fields(request))


async def read_person(request: Request) -> PersonOptions:
    """Read the options of a search without images: a dependency; as `read_more`."""
    return read_options(PersonOptions, await read_fields(request))


MORE_FORM: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/x-www-form-urlencoded": {"schema": MoreOptions.model_json_schema()}},
    }
}  # for the route's `openapi_extra`


def read_options(kind: type[Options], fields: Mapping[str, str | list[str]]) -> Options:
    """Check the fields of a form. A blank field counts as absent; `lang`, the language of messages, is skipped.

    Args:
        kind: the model of the fields.
        fields: a field that was sent several times has a list.

    Raises:
        OceanoError: `invalid_request`; its details name every wrong field.
    """
    return check_options(
        kind, {name: value for name, value in fields.items() if name != "lang" and "".join(value).strip()}
    )


def check_options(kind: type[Options], given: Mapping[str, object]) -> Options:
    """Check fields, as texts or as JSON values; arguments and errors are those of `read_options`."""
    try:
        return kind.model_validate(given)
    except ValidationError as failure:
        wrong: dict[str, JsonValue] = {
            ".".join(str(part) for part in error["loc"]): _what_is_valid(error, kind) for error in failure.errors()
        }
        sentences = "; ".join(f"{name}: {message}" for name, message in wrong.items())
        raise OceanoError("invalid_request", sentences, details={"fields": wrong}) from None


def _what_is_valid(error: ErrorDetails, kind: type[BaseModel]) -> str:
    """Say what a wrong field may be; pydantic's own messages show patterns and types of Python."""
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        known = ", ".join(kind.model_fields)
        return f"is no field of this request; its fields are: {known}" if known else "this request has no such field"
    if isinstance(error["input"], list) and name not in _REPEATABLE:
        return f"was sent several times; it must be {VALID[name]}"
    return f"must be {VALID[name]}"


class ImageForm(Generic[Options]):
    """A multipart form of files and options: a dependency that reads it, and what OpenAPI says of it.

    FastAPI's own form parameters do not fit: they turn an upload that is too large, or a client that disconnects,
    into a 400, and they read no query parameters.

    Args:
        options: the model of all fields that are not files.
        files: the names of the files.
    """

    def __init__(self, options: type[Options], *files: str) -> None:
        self._options = options
        self._files = files

    async def read(self, request: Request) -> AsyncIterator[Upload[Options]]:
        """Yield the decoded pictures and the checked options; errors as of `app.web.uploads.read_upload`."""
        async with read_upload(request, self._files, partial(read_options, self._options)) as upload:
            yield upload

    @property
    def openapi(self) -> dict[str, Any]:
        """The request body, for a route's `openapi_extra`."""
        schema = self._options.model_json_schema()
        files = {name: {"type": "string", "format": "binary"} for name in self._files}
        body = {"type": "object", "required": [*files], "properties": files | schema.get("properties", {})}
        return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": body}}}}


DETECT_FORM: Final = ImageForm(DetectOptions, "image")
COMPARE_FORM: Final = ImageForm(CompareOptions, "image_a", "image_b")


async def read_search(request: Request) -> AsyncIterator[Photographs[SearchOptions]]:
    """Yield the images, not decoded yet, and the checked options of `POST /search`: a dependency.

    Raises:
        OceanoError: as `read_photographs`.
    """
    async with read_photographs(request, "image", MAX_EXAMPLES, partial(read_options, SearchOptions)) as sent:
        yield sent


def _search_form() -> dict[str, Any]:
    """Return what OpenAPI says of the body of `POST /search`."""
    images = {"type": "array", "items": {"type": "string", "format": "binary"}, "maxItems": MAX_EXAMPLES}
    properties = {"image": images} | SearchOptions.model_json_schema()["properties"]
    schema = {"type": "object", "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def _form_of(options: type[BaseModel]) -> dict[str, Any]:
    schema = options.model_json_schema()
    return {"requestBody": {"content": {"application/x-www-form-urlencoded": {"schema": schema}}}}


SEARCH_FORM: Final = _search_form()  # for the route's `openapi_extra`
PERSON_FORM: Final = _form_of(PersonOptions)
