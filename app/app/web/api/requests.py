"""Requests with a JSON body or with query parameters: reading them, and what OpenAPI says of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, TypeVar

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from app.core.errors import JsonValue, OceanoError
from app.web.api.etags import seen_version
from app.web.api.fields import VALID

MAX_KEY: Final = 200  # characters of an Idempotency-Key
MAX_BODY: Final = 2_000_000  # bytes; 10,000 ids take 400 kB

_MAX_TOLD: Final = 10  # wrong fields that an error names
_KEY: Final = re.compile(rf"[\x20-\x7e]{{1,{MAX_KEY}}}")


class Checked(BaseModel):
    """Fields of a request.

    Attributes:
        valid: what each field must be, for errors.
    """

    model_config = ConfigDict(extra="forbid")
    valid: ClassVar[Mapping[str, str]] = VALID


Body = TypeVar("Body", bound=Checked)


@dataclass(frozen=True, slots=True)
class Sent(Generic[Body]):
    """A request that changes something.

    Attributes:
        body: the checked body.
        key: its Idempotency-Key; None if it has none.
        match: the version in `If-Match`; None if it has none.
    """

    body: Body
    key: str | None
    match: int | None

    def version(self) -> int:
        """Return the version of the person that the request saw.

        Raises:
            OceanoError: `invalid_request` if it names none, or two.
        """
        named: int | None = getattr(self.body, "version", None)
        found = {one for one in (named, self.match) if one is not None}
        if len(found) != 1:
            problem = "send the version of the person that you saw" if not found else "two versions were sent"
            raise OceanoError(
                "invalid_request",
                f'{problem}: as `version` in the body, or as If-Match: "N"',
                details={"field": "version"},
            )
        return found.pop()


class JsonBody(Generic[Body]):
    """The JSON body of a request that changes something: a dependency that reads it, and what OpenAPI says of it.

    Args:
        kind: the model of the body.
        optional: the body may be empty.
        versioned: the request names the version of a person.
    """

    def __init__(self, kind: type[Body], *, optional: bool = False, versioned: bool = True) -> None:
        self._kind = kind
        self._optional = optional
        self._versioned = versioned

    async def read(self, request: Request) -> Sent[Body]:
        """Return the checked request.

        Raises:
            OceanoError: `invalid_request`; its details name the wrong fields.
        """
        key = _key_of(request)
        match = seen_version(request) if self._versioned else None
        raw = await request.body()
        if not raw.strip() and self._optional:
            return Sent(self._kind(), key, match)
        if len(raw) > MAX_BODY:
            raise OceanoError(
                "invalid_request",
                f"the body is larger than {MAX_BODY / 1e6:g} MB",
                details={"max_megabytes": MAX_BODY / 1e6},
            )
        kind = request.headers.get("content-type", "").split(";", maxsplit=1)[0].strip().lower()
        if kind != "application/json":
            raise OceanoError("invalid_request", "send a JSON object as application/json")
        return Sent(await run_in_threadpool(read_json, self._kind, raw), key, match)

    @property
    def openapi(self) -> dict[str, Any]:
        """The body and the headers, for a route's `openapi_extra`."""
        header = {"in": "header", "required": False, "schema": {"type": "string"}}
        headers = [
            {"name": "Idempotency-Key", **header, "description": "a request with the same key is made once only"},
            {"name": "If-Match", **header, "description": 'the version that the request saw, such as "3"'},
        ]
        schema = _inlined(self._kind.model_json_schema())
        return {
            "parameters": headers if self._versioned else headers[:1],
            "requestBody": {"required": not self._optional, "content": {"application/json": {"schema": schema}}},
        }


class QueryOptions(Generic[Body]):
    """Query parameters: a dependency that reads them, and what OpenAPI says of them.

    Args:
        kind: the model of the parameters; `lang`, the language of messages, is skipped.
    """

    def __init__(self, kind: type[Body]) -> None:
        self._kind = kind

    def read(self, request: Request) -> Body:
        """Return the checked parameters; a blank one counts as absent.

        Raises:
            OceanoError: `invalid_request`; its details name the wrong fields.
        """
        given: dict[str, Any] = {}
        for name, value in request.query_params.multi_items():
            if name != "lang" and value.strip():
                given[name] = [*_as_list(given[name]), value] if name in given else value
        return _told(self._kind, lambda: self._kind.model_validate(given))

    @property
    def openapi(self) -> dict[str, Any]:
        """The parameters, for a route's `openapi_extra`."""
        found = []
        for name, schema in self._kind.model_json_schema()["properties"].items():
            described = {key: value for key, value in schema.items() if key not in ("title", "description")}
            found.append({"name": name, "in": "query", "description": schema["description"], "schema": described})
        return {"parameters": found}


def read_json(kind: type[Body], raw: bytes) -> Body:
    """Read a JSON body.

    Args:
        kind: the model of the body.
        raw: the body.

    Raises:
        OceanoError: `invalid_request`; its details name the wrong fields.
    """
    return _told(kind, lambda: kind.model_validate_json(raw))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema without references, which would point to nothing in the document."""
    parts = schema.pop("$defs", {})

    def resolved(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return resolved(parts[value["$ref"].rpartition("/")[2]])
            return {key: resolved(one) for key, one in value.items()}
        return [resolved(one) for one in value] if isinstance(value, list) else value

    return dict(resolved(schema))


def _key_of(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise OceanoError(
            "invalid_request",
            f"Idempotency-Key must have 1 to {MAX_KEY} printable ASCII characters",
            details={"field": "Idempotency-Key", "max_characters": MAX_KEY},
        )
    return key


def _told(kind: type[Checked], check: Callable[[], Body]) -> Body:
    try:
        return check()
    except ValidationError as failure:
        raise _invalid(kind, failure) from None


def _invalid(kind: type[Checked], failure: ValidationError) -> OceanoError:
    wrong: dict[str, str] = {}
    for error in failure.errors(include_url=False, include_input=False, include_context=False):
        if len(wrong) == _MAX_TOLD:
            break
        if not error["loc"]:
            message = "the body must be a JSON object"
            return OceanoError("invalid_request", message, details={"fields": _known(kind)})
        wrong.setdefault(str(error["loc"][0])[:64], _what_is_valid(error, kind))
    details: dict[str, JsonValue] = {**wrong}
    sentences = "; ".join(f"{name}: {message}" for name, message in wrong.items())
    return OceanoError("invalid_request", sentences, details={"fields": details})


def _what_is_valid(error: ErrorDetails, kind: type[Checked]) -> str:
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden" and len(error["loc"]) == 1:
        known = ", ".join(kind.model_fields)
        return f"is no field of this request; its fields are: {known}" if known else "this request has no such field"
    return f"must be {kind.valid.get(name, 'valid')}"


def _known(kind: type[Checked]) -> list[JsonValue]:
    return [*kind.model_fields]
