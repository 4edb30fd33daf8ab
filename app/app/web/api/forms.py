"""The forms of requests: files, and options checked by pydantic."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Generic, TypeVar

from fastapi import Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from app.core.errors import JsonValue, OceanoError
from app.core.types import FLAWS, FaceFilter, Flaw
from app.service import DEFAULT_LIMIT, MAX_LIMIT, GroupBy
from app.web.uploads import Upload, read_upload

Options = TypeVar("Options", bound=BaseModel)

_ISO_TIME: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?$"
)


def _is_a_time(text: str) -> str:
    datetime.fromisoformat(text)  # the pattern lets 2024-02-30 through
    return text


IsoTime = Annotated[str, StringConstraints(pattern=_ISO_TIME), AfterValidator(_is_a_time)]


def _absolute(folder: str) -> str:
    if not folder.startswith("/"):
        raise ValueError("must be an absolute path, as stored")
    return str(Path(folder))  # without a trailing slash


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
    folder: Annotated[str, AfterValidator(_absolute)] | None = Field(
        None, max_length=4096, description="only pictures at or below this folder; absolute"
    )
    image_id: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="only faces of this image")
    taken_from: IsoTime | None = Field(None, description="taken at or after, ISO 8601")
    taken_to: IsoTime | None = Field(None, description="taken at or before, ISO 8601")
    ingested_from: IsoTime | None = Field(None, description="ingested at or after, ISO 8601")
    ingested_to: IsoTime | None = Field(None, description="ingested at or before, ISO 8601")
    min_det_score: float | None = Field(None, ge=0, le=1, description="least det_score of a stored face")
    min_quality: float | None = Field(None, ge=0, le=1, description="least quality of a stored face")
    without: Annotated[tuple[Flaw, ...], BeforeValidator(_comma_separated)] = Field(
        (), description="leave out stored faces with any of these flaws, comma-separated: " + ", ".join(FLAWS)
    )

    def where(self) -> FaceFilter | None:
        """Return the filter of these options; None if there is none."""
        others = {"limit", "threshold", "max_faces", "group_by"}
        given = self.model_dump(exclude=others, exclude_none=True, exclude_defaults=True)
        return FaceFilter(**given) if given else None


def read_options(kind: type[Options], fields: Mapping[str, str]) -> Options:
    """Check the fields of a form. A blank field counts as absent; `lang`, the language of messages, is skipped.

    Raises:
        OceanoError: `invalid_request`; its details name every wrong field.
    """
    given = {name: value for name, value in fields.items() if name != "lang" and value.strip()}
    try:
        return kind.model_validate(given)
    except ValidationError as failure:
        wrong: dict[str, JsonValue] = {
            ".".join(str(part) for part in error["loc"]): error["msg"] for error in failure.errors()
        }
        sentences = "; ".join(f"{name}: {message}" for name, message in wrong.items())
        raise OceanoError("invalid_request", sentences, details={"fields": wrong}) from None


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
