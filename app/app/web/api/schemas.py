"""The fields that a client sends beside a picture."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from app.core.errors import JsonValue, OceanoError
from app.core.types import FLAWS, FaceFilter, Flaw

DEFAULT_LIMIT: Final = 20
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


_Options = TypeVar("_Options", bound=BaseModel)


def _comma_separated(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class DetectOptions(BaseModel):
    """Fields of `POST /detect` beside the picture."""

    model_config = ConfigDict(extra="forbid")


class CompareOptions(BaseModel):
    """Fields of `POST /compare` beside the pictures."""

    model_config = ConfigDict(extra="forbid")
    threshold: float | None = Field(
        None, ge=-1, le=1, description="least cosine of the same person; left out: the model's default"
    )


class SearchOptions(BaseModel):
    """Fields of `POST /search` beside the picture, in the form or the query string."""

    model_config = ConfigDict(extra="forbid")
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=1000, description="matches per face")
    threshold: float | None = Field(
        None, ge=-1, le=1, description="least cosine of a match; left out: the model's default"
    )
    max_faces: int | None = Field(None, ge=1, le=1000, description="search only the largest faces")
    group_by: Literal["image_id", "person"] | None = Field(None, description="only the best match of each")
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
        """The filter these fields make; None if they make none."""
        others = {"limit", "threshold", "max_faces", "group_by"}
        given = self.model_dump(exclude=others, exclude_none=True, exclude_defaults=True)
        return FaceFilter(**given) if given else None


def read_options(kind: type[_Options], fields: Mapping[str, str]) -> _Options:
    """The fields, checked. A blank one, as a form sends it, counts as absent; `lang` is for the error messages."""
    given = {name: value for name, value in fields.items() if name != "lang" and value.strip()}
    try:
        return kind.model_validate(given)
    except ValidationError as failure:
        wrong: dict[str, JsonValue] = {
            ".".join(str(part) for part in error["loc"]): error["msg"] for error in failure.errors()
        }
        sentences = "; ".join(f"{name}: {message}" for name, message in wrong.items())
        raise OceanoError("invalid_request", sentences, details={"fields": wrong}) from None


def multipart(files: list[str], options: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI shall say of a body that a handler reads by itself."""
    schema = options.model_json_schema()
    properties = {name: {"type": "string", "format": "binary"} for name in files} | schema.get("properties", {})
    body = {"type": "object", "required": files, "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": body}}}}
