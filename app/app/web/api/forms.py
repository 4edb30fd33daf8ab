"""The forms of requests: files, and options checked by pydantic."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Generic, TypeVar

from fastapi import Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from app.core.errors import JsonValue, OceanoError
from app.core.paths import absolute
from app.core.types import FLAWS, FaceFilter, Flaw
from app.service import DEFAULT_LIMIT, MAX_LIMIT, GroupBy
from app.web.uploads import Upload, read_fields, read_upload

Options = TypeVar("Options", bound=BaseModel)

_MAX_FOLDERS: Final = 20
_ISO_TIME: Final = (
    r"^[0-9]{4}(-[0-9]{2}(-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?)?)?$"
)
_TIME: Final = "a year, month, day or time, such as 2021, 2021-06, 2021-06-30 or 2021-06-30T18:00:00+02:00"
_COSINE: Final = "a number from -1 to 1"
_SHARE: Final = "a number from 0 to 1"
_VALID: Final[Mapping[str, str]] = {
    "limit": f"a whole number from 1 to {MAX_LIMIT}",
    "threshold": _COSINE,
    "max_faces": "a whole number from 1 to 1000",
    "group_by": "image_id or person",
    "person": "a name of at most 200 characters",
    "folder": f"an absolute path of at most 4096 characters, such as /photos/2021; at most {_MAX_FOLDERS} of them",
    "image_id": "a SHA-256 of 64 hexadecimal digits in lower case",
    "taken_from": _TIME,
    "taken_to": _TIME,
    "ingested_from": _TIME,
    "ingested_to": _TIME,
    "min_det_score": _SHARE,
    "min_quality": _SHARE,
    "without": "flaws, comma-separated, of: " + ", ".join(FLAWS),
    "all_pairs": "true or false",
    "after": "`next` of the page before",
}  # what an error says of a wrong field


def _is_a_time(text: str) -> str:
    datetime.fromisoformat((text + "-01-01")[:10] if len(text) < len("2021-06-30") else text)
    return text


IsoTime = Annotated[str, StringConstraints(pattern=_ISO_TIME), AfterValidator(_is_a_time)]


def _absolute(folders: tuple[str, ...]) -> tuple[str, ...]:
    if len(folders) > _MAX_FOLDERS or any(not folder.startswith("/") or len(folder) > 4096 for folder in folders):
        raise ValueError("no absolute paths")
    return tuple(absolute(Path(folder)) for folder in folders)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _comma_separated(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


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


class SearchOptions(BaseModel):
    """Options of `POST /search`, in the form or the query string."""

    model_config = ConfigDict(extra="forbid")
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="matches per face")
    threshold: float | None = Field(
        None, ge=-1, le=1, description="least cosine of a match; left out: the model's default"
    )
    max_faces: int | None = Field(None, ge=1, le=1000, description="search only the largest faces")
    group_by: GroupBy | None = Field(None, description="only the best match of each")
    person: str | None = Field(None, max_length=200, description="only faces with this name")
    folder: Annotated[tuple[str, ...], BeforeValidator(_as_list), AfterValidator(_absolute)] = Field(
        (), description="only pictures in or below this folder; absolute. Several fields: in or below any of them"
    )
    image_id: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="only faces of this image")
    taken_from: IsoTime | None = Field(None, description="taken at or after; year, month, day or time, ISO 8601")
    taken_to: IsoTime | None = Field(None, description="taken at or before; a year, month or day includes all of it")
    ingested_from: IsoTime | None = Field(None, description="ingested at or after, as `taken_from`")
    ingested_to: IsoTime | None = Field(None, description="ingested at or before, as `taken_to`")
    min_det_score: float | None = Field(None, ge=0, le=1, description="least det_score of a stored face")
    min_quality: float | None = Field(None, ge=0, le=1, description="least quality of a stored face")
    without: Annotated[tuple[Flaw, ...], BeforeValidator(_comma_separated)] = Field(
        (), description="leave out stored faces with any of these flaws, comma-separated: " + ", ".join(FLAWS)
    )

    def where(self) -> FaceFilter | None:
        """Return the filter of these options; None if there is none."""
        others = {"limit", "threshold", "max_faces", "group_by"}
        given = self.model_dump(exclude=others, exclude_none=True, exclude_defaults=True)
        if len(self.folder) == 1:
            given["folder"] = self.folder[0]
        return FaceFilter(**given) if given else None


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
    given = {name: value for name, value in fields.items() if name != "lang" and "".join(value).strip()}
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
    if isinstance(error["input"], list) and name != "folder":
        return f"was sent several times; it must be {_VALID[name]}"
    return f"must be {_VALID[name]}"


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


SEARCH_FORM: Final = ImageForm(SearchOptions, "image")
DETECT_FORM: Final = ImageForm(DetectOptions, "image")
COMPARE_FORM: Final = ImageForm(CompareOptions, "image_a", "image_b")
