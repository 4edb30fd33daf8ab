"""`POST /search/batch`: up to 100 queries in one request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.core.errors import OceanoError
from app.core.types import Floats, ModelPack
from app.security import hash_of
from app.service import Bands, ResultPage, Services
from app.web.api.examples import Person, person_of, stored_embeddings
from app.web.api.forms import PersonOptions, check_options
from app.web.api.matches import BatchResponse, BatchResult, CombinedMatches
from app.web.api.person_names import Names, names_in, payloads_of
from app.web.api.responses import Model, rounded
from app.web.audit import folders_in, listed, require_purpose, write_audit
from app.web.deps import ServicesDep
from app.web.errors import Problem
from app.web.i18n import error_message, language_of
from app.web.root_path import root_path_of

MAX_QUERIES: Final = 100
MAX_MATCHES: Final = 20_000  # of all queries together; about 1 kB each

router = APIRouter(dependencies=[Depends(require_purpose)])


class BatchRequest(BaseModel):
    """Body of `POST /search/batch`."""

    model_config = ConfigDict(extra="forbid")
    queries: list[dict[str, Any]] = Field(min_length=1, max_length=MAX_QUERIES)


class _Documented(BaseModel):
    """Body of `POST /search/batch`, as OpenAPI shows it."""

    queries: list[PersonOptions] = Field(min_length=1, max_length=MAX_QUERIES)


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    schema["properties"]["queries"]["items"] = schema.pop("$defs")["PersonOptions"]
    return schema


BATCH_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _inlined(_Documented.model_json_schema())}},
    }
}

_Outcome = tuple[Person, ResultPage] | OceanoError


@router.post("/search/batch", openapi_extra=BATCH_BODY, response_model=BatchResponse)
async def batch(request: Request, services: ServicesDep) -> Response:
    """Answer up to 100 queries, each with the fields of `POST /faces/{face_id}/search` as JSON.

    Queries with the same options, apart from their examples, are searched together. A wrong query has an `error` in
    its place; the others are answered. The `limit` of all queries together is at most 20,000.
    """
    asked = await run_in_threadpool(read_batch, await request.body(), request.headers.get("content-type", ""))
    took_ms: dict[str, float] = {}
    outcomes = await _answer(services, asked, took_ms)
    await write_audit(request, "search", await run_in_threadpool(_recorded, await request.body(), asked, outcomes))
    pages = [one[1] for one in outcomes if not isinstance(one, OceanoError)]
    names = await names_in(services, [one for page in pages for one in payloads_of(page.matches)])
    body = await run_in_threadpool(_written, request, services, outcomes, names, took_ms)
    return Response(body, media_type="application/json")


def _recorded(
    body: bytes, asked: Sequence[PersonOptions | OceanoError], outcomes: Sequence[_Outcome]
) -> dict[str, object]:
    """Return what the audit log keeps of a batch."""
    answered = [one for one in outcomes if not isinstance(one, OceanoError)]
    where = [folders_in(one.where()) or [] for one in asked if isinstance(one, PersonOptions)]
    folders = sorted({str(folder) for some in where for folder in some})
    return {
        "query": hash_of(body),
        "queries": len(asked),
        "faces": sum(len(person.examples) for person, _ in answered),
        "matches": sum(len(page.matches) for _, page in answered),
        "folders": listed(folders),
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A query of the batch with its options, and with its person once the stored faces have been read."""

    place: int
    options: PersonOptions
    person: Person


def read_batch(body: bytes, content_type: str) -> list[PersonOptions | OceanoError]:
    """Read the options of every query, or what is wrong with it.

    Raises:
        OceanoError: `invalid_request` if the body is no batch.
    """
    if content_type.split(";", maxsplit=1)[0].strip().lower() != "application/json":
        raise OceanoError("invalid_request", "send application/json with the list `queries`")
    try:
        queries = BatchRequest.model_validate_json(body).queries
    except ValidationError:
        raise OceanoError(
            "invalid_request",
            f"the body must be a JSON object with the list `queries`, which has 1 to {MAX_QUERIES} objects",
            details={"max_queries": MAX_QUERIES},
        ) from None
    asked = [_options(query) for query in queries]
    matches = sum(one.limit for one in asked if isinstance(one, PersonOptions))
    if matches > MAX_MATCHES:
        raise OceanoError(
            "invalid_request",
            f"the `limit` of all queries together is {matches}; it must be at most {MAX_MATCHES}",
            details={"limit": matches, "max_limit": MAX_MATCHES},
        )
    return asked


def _options(query: Mapping[str, Any]) -> PersonOptions | OceanoError:
    try:
        return check_options(PersonOptions, {name: value for name, value in query.items() if value is not None})
    except OceanoError as error:
        return error


async def _answer(
    services: Services, asked: Sequence[PersonOptions | OceanoError], took_ms: dict[str, float]
) -> list[_Outcome]:
    valid = [one for one in asked if isinstance(one, PersonOptions)]
    stored = await services.lookups.run(stored_embeddings, services, valid)
    outcomes, groups = await run_in_threadpool(_grouped, asked, stored, services.engine.pack, services.bands)
    for group in groups:  # one after another: a batch takes one thread, as other searches do
        outcomes |= await _found(services, group, took_ms)
    return [outcomes[place] for place in range(len(asked))]


def _grouped(
    asked: Sequence[PersonOptions | OceanoError], stored: Mapping[str, Floats], pack: ModelPack, bands: Bands
) -> tuple[dict[int, _Outcome], list[list[_Asked]]]:
    """Return the outcomes of the wrong queries, and the others in groups of equal options."""
    outcomes: dict[int, _Outcome] = {}
    groups: dict[str, list[_Asked]] = {}
    for place, options in enumerate(asked):
        query = _query(place, options, stored, pack, bands)
        if isinstance(query, OceanoError):
            outcomes[place] = query
            continue
        alike = query.options.model_dump_json(exclude={"face_id", "embedding"})
        if query.person.query.needs_list:  # gains nothing from a group, and may take long
            alike += f" {place}"
        groups.setdefault(alike, []).append(query)
    return outcomes, [*groups.values()]


def _query(
    place: int, options: PersonOptions | OceanoError, stored: Mapping[str, Floats], pack: ModelPack, bands: Bands
) -> _Asked | OceanoError:
    if isinstance(options, OceanoError):
        return options
    try:
        return _Asked(place, options, person_of(options, stored, pack, bands))
    except OceanoError as error:
        return error


async def _found(services: Services, group: Sequence[_Asked], took_ms: dict[str, float]) -> dict[int, _Outcome]:
    queries = [one.person.query for one in group]
    try:
        pages = await services.search.find(queries, limit=group[0].options.limit, took_ms=took_ms)
    except OceanoError as error:
        if error.status >= 500:  # not this query's fault: the request may be sent again
            raise
        return {one.place: error for one in group}
    return {one.place: (one.person, page) for one, page in zip(group, pages, strict=True)}


def _written(
    request: Request,
    services: Services,
    outcomes: Sequence[_Outcome],
    names: Names,
    took_ms: Mapping[str, float],
) -> bytes:
    language, root, bands = language_of(request), root_path_of(request), services.bands
    results = []
    for outcome in outcomes:
        if isinstance(outcome, OceanoError):
            message = error_message(outcome, language)
            problem = Problem(code=outcome.code, message=message, details=outcome.details)
            results.append(BatchResult(threshold=None, combined=None, undated_left_out=None, error=problem))
        else:
            person, page = outcome
            results.append(
                BatchResult(
                    threshold=page.threshold,
                    combined=CombinedMatches.of(person.examples, page, bands, names, root_path=root),
                    undated_left_out=page.undated_left_out,
                    error=None,
                )
            )
    search_ms = took_ms.get("search", 0.0)
    response = BatchResponse(
        model=Model.of(services.engine.pack),
        results=results,
        took_ms=rounded({"search": search_ms, "total": search_ms}),
    )
    return response.model_dump_json().encode("utf-8")
