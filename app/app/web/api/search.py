"""`POST /search`, `/search/more`, `/faces/{face_id}/search`, `/detect`, `/compare`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool

from app.core.types import Picture
from app.security import hash_of
from app.service import Bands, Comparison, Services, Sureness, reaches
from app.web.api.examples import Person, conditions_of, faces_of, person_of, stored_embeddings, threshold_of
from app.web.api.faces import face_id_from
from app.web.api.forms import (
    COMPARE_FORM,
    DETECT_FORM,
    MORE_FORM,
    PERSON_FORM,
    SEARCH_FORM,
    CompareOptions,
    DetectOptions,
    MoreOptions,
    PersonOptions,
    SearchOptions,
    read_more,
    read_person,
    read_search,
)
from app.web.api.matches import CombinedMatches, MoreResponse, SearchedFace, SearchResponse
from app.web.api.person_names import identified, names_in, payloads_of
from app.web.api.responses import (
    ComparedImage,
    ComparedPair,
    CompareResponse,
    DetectResponse,
    FoundFace,
    ImageSize,
    Model,
    rounded,
)
from app.web.audit import folders_in, listed, require_purpose, write_audit
from app.web.deps import ServicesDep
from app.web.root_path import root_path_of
from app.web.uploads import Photographs, Upload

router = APIRouter(dependencies=[Depends(require_purpose)])


@router.post("/search", openapi_extra=SEARCH_FORM)
async def search(
    request: Request, services: ServicesDep, sent: Annotated[Photographs[SearchOptions], Depends(read_search)]
) -> SearchResponse:
    """Find the matches of every face of one `image`, or of one person whom several examples show together.

    Examples are `image`, `face_id` and `embedding`, 1 to 10 altogether. With one `image` and no other example, `faces`
    has the matches of each of its faces. Else `combined` has those of one query: the mean of the examples' embeddings.
    In an image of several faces, the one that resembles the other examples most is meant, unless `face` names one. If
    all images show several faces, the largest of the first one is meant. If no face reaches `threshold`, `matches` is
    empty.
    """
    options = sent.options
    alone = len(sent.files) == 1 and not (options.face_id or options.embedding or options.face or options.with_face)
    if alone:
        return await _every_face(request, services, sent)
    one = len(sent.files) == 1
    images = await faces_of(services, sent)
    stored = await services.lookups.run(stored_embeddings, services, [options])
    faces = [image.faces for image in images]
    person = person_of(options, stored, services.engine.pack, services.bands, faces)
    size = images[0].size if one else None
    return await _combined(
        request, services, person, options.limit, sent.took_ms, size, sent.hashes, identify=options.identify
    )


@router.post("/faces/{face_id}/search", openapi_extra=PERSON_FORM)
async def search_from_face(
    request: Request, services: ServicesDep, face_id: str, options: Annotated[PersonOptions, Depends(read_person)]
) -> SearchResponse:
    """Find the matches of a stored face, together with further examples. The face itself is among the matches."""
    face_ids = dict.fromkeys((face_id_from(face_id), *options.face_id))
    options = options.model_copy(update={"face_id": tuple(face_ids)})
    stored = await services.lookups.run(stored_embeddings, services, [options])
    person = person_of(options, stored, services.engine.pack, services.bands)
    return await _combined(request, services, person, options.limit, {})


@router.post("/search/more", openapi_extra=MORE_FORM)
async def more(
    request: Request, services: ServicesDep, options: Annotated[MoreOptions, Depends(read_more)]
) -> MoreResponse:
    """Return the next matches of a face or a combined query. `after` holds the query, so nothing is sent again."""
    page = await services.search.more(options.after, limit=options.limit)
    asked: dict[str, object] = {
        "query": hash_of(options.after),
        "first": page.first,
        "matches": len(page.matches),
        "threshold": page.threshold,
    }
    await write_audit(request, "search.more", asked)
    names = await names_in(services, payloads_of(page.matches))
    return MoreResponse.of(page, services, names, root_path_of(request))


async def _every_face(request: Request, services: Services, sent: Photographs[SearchOptions]) -> SearchResponse:
    options = sent.options
    stored = await services.lookups.run(stored_embeddings, services, [options])
    conditions, bands = conditions_of(options, stored), services.bands
    threshold, conditions["within"] = threshold_of(options, services.engine.pack, bands)
    picture: Picture = await sent.decode_next()
    result = await services.search.run(
        picture,
        limit=options.limit,
        threshold=threshold,
        max_faces=options.max_faces,
        took_ms=sent.took_ms,
        **conditions,
    )
    asked: dict[str, object] = {
        "images": listed(sent.hashes),
        "faces": len(result.faces),
        "matches": sum(len(found.matches) for found in result.faces),
        "threshold": result.threshold,
        "folders": folders_in(conditions["where"]),
        "identify": options.identify or None,
    }
    await write_audit(request, "search", asked)
    names = await names_in(services, [one for found in result.faces for one in payloads_of(found.matches)])
    embeddings = [found.face.embedding for found in result.faces] if options.identify else []
    clear = [not found.face.flaws for found in result.faces]
    known = await identified(services, embeddings, clear) if embeddings else [None] * len(result.faces)
    return SearchResponse(
        model=Model.of(services.engine.pack),
        threshold=result.threshold,
        image=ImageSize.of(picture),
        faces=[
            SearchedFace.with_matches(found, bands, names, one, root_path_of(request))
            for found, one in zip(result.faces, known, strict=True)
        ],
        combined=None,
        undated_left_out=result.undated_left_out,
        took_ms=rounded(result.took_ms),
    )


async def _combined(
    request: Request,
    services: Services,
    person: Person,
    limit: int,
    took_ms: dict[str, float],
    size: ImageSize | None = None,
    hashes: Sequence[str] = (),
    *,
    identify: bool = False,
) -> SearchResponse:
    (page,) = await services.search.find([person.query], limit=limit, took_ms=took_ms)
    asked: dict[str, object] = {
        "query": hash_of(person.query.embedding),
        "images": listed(hashes),
        "face_ids": listed([one.face_id for one in person.examples if one.face_id]),
        "faces": len(person.examples),
        "matches": len(page.matches),
        "threshold": page.threshold,
        "folders": folders_in(person.query.where),
        "identify": identify or None,
    }
    await write_audit(request, "search", asked)
    names = await names_in(services, payloads_of(page.matches))
    (known,) = await identified(services, [person.query.embedding]) if identify else (None,)
    return SearchResponse(
        model=Model.of(services.engine.pack),
        threshold=page.threshold,
        image=size,
        faces=[],
        combined=CombinedMatches.of(person.examples, page, services.bands, names, known, root_path_of(request)),
        undated_left_out=page.undated_left_out,
        took_ms=rounded(page.took_ms),
    )


@router.post("/detect", openapi_extra=DETECT_FORM.openapi)
async def detect(
    request: Request, services: ServicesDep, form: Annotated[Upload[DetectOptions], Depends(DETECT_FORM.read)]
) -> DetectResponse:
    """Find the faces of `image`. If there is none, `faces` is empty."""
    faces = await services.search.detect(form.picture, took_ms=form.took_ms)
    await write_audit(request, "detect", {"images": listed(form.hashes), "faces": len(faces)})
    return DetectResponse(
        model=Model.of(services.engine.pack),
        image=ImageSize.of(form.picture),
        faces=[FoundFace.of(position, face) for position, face in enumerate(faces)],
        took_ms=_with_total(form.took_ms),
    )


@router.post("/compare", openapi_extra=COMPARE_FORM.openapi)
async def compare(
    request: Request, services: ServicesDep, form: Annotated[Upload[CompareOptions], Depends(COMPARE_FORM.read)]
) -> CompareResponse:
    """Compare the largest face of `image_a` with the largest of `image_b`; with `all_pairs` every face with every."""
    threshold = services.engine.pack.threshold if form.options.threshold is None else form.options.threshold
    comparison = await services.search.compare(*form.pictures, took_ms=form.took_ms)
    faces = len(comparison.a) + len(comparison.b)
    await write_audit(request, "compare", {"images": listed(form.hashes), "faces": faces, "threshold": threshold})
    return await run_in_threadpool(_compared, form, comparison, threshold, services)


def _compared(
    form: Upload[CompareOptions], comparison: Comparison, threshold: float, services: Services
) -> CompareResponse:
    bands = services.bands
    largest = comparison.largest
    is_above = reaches(largest.similarity, threshold)
    a, b = form.pictures
    return CompareResponse(
        model=Model.of(services.engine.pack),
        threshold=threshold,
        similarity=largest.similarity,
        above_threshold=is_above,
        sureness=_sureness(bands, largest.similarity, threshold),
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
                sureness=_sureness(bands, pair.similarity, threshold),
            )
            for pair in comparison.pairs
        ]
        if form.options.all_pairs
        else None,
        took_ms=_with_total(form.took_ms),
    )


def _sureness(bands: Bands, similarity: float, threshold: float) -> Sureness | None:
    return bands.of(similarity) if reaches(similarity, threshold) else None


def _with_total(took_ms: dict[str, float]) -> dict[str, float]:
    return rounded(took_ms | {"total": sum(took_ms.values())})
