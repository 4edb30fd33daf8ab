"""`POST /search`, `/search/more`, `/detect`, `/compare`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool

from app.service import Comparison, reaches
from app.web.addresses import root_path_of
from app.web.api.forms import (
    COMPARE_FORM,
    DETECT_FORM,
    MORE_FORM,
    SEARCH_FORM,
    CompareOptions,
    DetectOptions,
    MoreOptions,
    SearchOptions,
    read_more,
)
from app.web.api.responses import (
    ComparedImage,
    ComparedPair,
    CompareResponse,
    DetectResponse,
    FoundFace,
    ImageSize,
    Model,
    MoreResponse,
    SearchedFace,
    SearchResponse,
    rounded,
)
from app.web.deps import ServicesDep
from app.web.uploads import Upload

router = APIRouter()


@router.post("/search", openapi_extra=SEARCH_FORM.openapi)
async def search(
    request: Request, services: ServicesDep, form: Annotated[Upload[SearchOptions], Depends(SEARCH_FORM.read)]
) -> SearchResponse:
    """Find the matches of every face in `image`, best first. If no face reaches `threshold`, `matches` is empty."""
    options = form.options
    threshold = services.engine.pack.threshold if options.threshold is None else options.threshold
    result = await services.search.run(
        form.picture,
        limit=options.limit,
        threshold=threshold,
        max_faces=options.max_faces,
        where=options.where(),
        group_by=options.group_by,
        took_ms=form.took_ms,
    )
    return SearchResponse(
        model=Model.of(services.engine.pack),
        threshold=result.threshold,
        image=ImageSize.of(form.picture),
        faces=[SearchedFace.with_matches(found, root_path_of(request)) for found in result.faces],
        undated_left_out=result.undated_left_out,
        took_ms=rounded(result.took_ms),
    )


@router.post("/search/more", openapi_extra=MORE_FORM)
async def more(
    request: Request, services: ServicesDep, options: Annotated[MoreOptions, Depends(read_more)]
) -> MoreResponse:
    """Return the next matches of one face. `after` holds the query, so the image is not sent again."""
    page = await services.search.more(options.after, limit=options.limit)
    return MoreResponse.of(page, services.engine.pack, root_path_of(request))


@router.post("/detect", openapi_extra=DETECT_FORM.openapi)
async def detect(
    services: ServicesDep, form: Annotated[Upload[DetectOptions], Depends(DETECT_FORM.read)]
) -> DetectResponse:
    """Find the faces of `image`. If there is none, `faces` is empty."""
    faces = await services.search.detect(form.picture, took_ms=form.took_ms)
    return DetectResponse(
        model=Model.of(services.engine.pack),
        image=ImageSize.of(form.picture),
        faces=[FoundFace.of(position, face) for position, face in enumerate(faces)],
        took_ms=_with_total(form.took_ms),
    )


@router.post("/compare", openapi_extra=COMPARE_FORM.openapi)
async def compare(
    services: ServicesDep, form: Annotated[Upload[CompareOptions], Depends(COMPARE_FORM.read)]
) -> CompareResponse:
    """Compare the largest face of `image_a` with the largest of `image_b`; with `all_pairs` every face with every."""
    threshold = services.engine.pack.threshold if form.options.threshold is None else form.options.threshold
    comparison = await services.search.compare(*form.pictures, took_ms=form.took_ms)
    return await run_in_threadpool(_compared, form, comparison, threshold, Model.of(services.engine.pack))


def _compared(form: Upload[CompareOptions], comparison: Comparison, threshold: float, model: Model) -> CompareResponse:
    largest = comparison.largest
    is_above = reaches(largest.similarity, threshold)
    a, b = form.pictures
    return CompareResponse(
        model=model,
        threshold=threshold,
        similarity=largest.similarity,
        above_threshold=is_above,
        same_person=is_above,
        a=ComparedImage(image=ImageSize.of(a), face=FoundFace.of(largest.a, comparison.a[largest.a])),
        b=ComparedImage(image=ImageSize.of(b), face=FoundFace.of(largest.b, comparison.b[largest.b])),
        faces_a=len(comparison.a),
        faces_b=len(comparison.b),
        pairs=[
            ComparedPair(
                face_a=pair.a,
                face_b=pair.b,
                similarity=pair.similarity,
                above_threshold=reaches(pair.similarity, threshold),
            )
            for pair in comparison.pairs
        ]
        if form.options.all_pairs
        else None,
        took_ms=_with_total(form.took_ms),
    )


def _with_total(took_ms: dict[str, float]) -> dict[str, float]:
    return rounded(took_ms | {"total": sum(took_ms.values())})
