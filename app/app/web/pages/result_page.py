"""Asks the service for a result and its counts, and makes the view that the page shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from fastapi.concurrency import run_in_threadpool

from app.core.texts import Translator
from app.core.types import FacePayload, Floats
from app.service import Bands, Facets, Query, ResultPage, Services, encode_query, narrowed, people_of, two_decimals
from app.web.pages.asked import Asked
from app.web.pages.counted import BandView, FacetsView, band_views, facets_view
from app.web.pages.filters import LEAST_MIN, Filters
from app.web.pages.names import printable
from app.web.pages.people_views import name_beside, shown_name
from app.web.pages.result_parts import (
    cards,
    crop_view,
    example_views,
    person_views,
    photograph_view,
    spans,
)
from app.web.pages.result_views import KeptView, Place, ResultView

PAGE: Final = 100  # cards
FOLDERS: Final = 200
COUNTED: Final = 100  # matches of a face of the photograph, for its tab


async def query_of(services: Services, asked: Asked, filters: Filters) -> Query:
    """Return the query of the persons and the filters.

    Raises:
        OceanoError: `face_unknown` if a face of the filters is not in the index, `index_unavailable`.
    """
    return await filtered_query(services, filters, asked.embedding, asked.companions)


async def filtered_query(
    services: Services, filters: Filters, embedding: Floats, companions: Sequence[Floats]
) -> Query:
    """Return the query of an embedding and the filters, whose faces are read from the index.

    Args:
        services: the running service.
        filters: the conditions.
        embedding: of the person, float32, (D,), with norm 1.
        companions: embeddings of persons who must be in the same image, besides those of the filters.

    Raises:
        OceanoError: as `query_of`.
    """
    face_ids = [*filters.together, *filters.unlike]
    embeddings = await services.results.embeddings_of(face_ids) if face_ids else []
    together, unlike = embeddings[: len(filters.together)], embeddings[len(filters.together) :]
    threshold = services.engine.pack.threshold
    query = filters.query(embedding, threshold=threshold, together=(*companions, *together), unlike=unlike)
    least, within = narrowed(query.threshold, filters.sureness, bands_of_page(services, filters))
    return replace(query, threshold=least, within=within)


def bands_of_page(services: Services, filters: Filters) -> Bands:
    """Return where each sureness begins; on a later page, where it began on the first page."""
    if not filters.bands:
        return services.bands
    likely, very_likely = map(float, filters.bands.split(","))
    return replace(services.bands, likely=likely, very_likely=very_likely)


async def result_view(
    services: Services,
    asked: Asked,
    place: Place,
    t: Translator,
    *,
    kept: KeptView | None = None,
    start: FacePayload | None = None,
    took_ms: float = 0.0,
    with_facets: bool = False,
) -> ResultView:
    """Search, and make the view of the page.

    Args:
        services: the running service.
        asked: the persons.
        place: the address and the filters.
        t: the language.
        kept: the kept search whose result it is.
        start: the face that the result starts from; None for none.
        took_ms: milliseconds before the search, such as of decoding.
        with_facets: count all matches, too.

    Raises:
        OceanoError: `cursor_invalid`, `face_unknown`, `folder_unknown`, `index_unavailable`.
    """
    filters = place.filters
    pack, bands = services.engine.pack, bands_of_page(services, filters)
    query = await query_of(services, asked, filters)
    page = await services.results.page(query, limit=PAGE, after=filters.after or None)
    counted, ticks = await facets_of(services, query, filters) if with_facets else (None, None)
    first, last = spans(page)
    shown = [one.match.payload.person for one in page.matches]
    same, person_id = ("", "") if start is None else (start.image_id, start.person or "")
    names = await names_of(services, [*shown, person_id], t, asked=filters.named)
    return ResultView(
        place=place,
        examples=(examples := example_views(asked.examples, place)),
        people=person_views(examples, people_of([one.embedding for one in asked.examples], pack.threshold), place),
        choices=tuple(crop_view(one, number) for number, one in enumerate(asked.choices, 1)),
        photograph=await run_in_threadpool(photograph_view, asked),
        cards=tuple(cards(page.matches, bands, place, t, same, same_person=pack.threshold, names=names)),
        first=first,
        last=last,
        total=counted.total if counted and not counted.is_cut and filters.group is None else page.total,
        next=page.next,
        bands_from=f"{bands.likely:.6g},{bands.very_likely:.6g}" if filters.sureness else "",
        closest="" if page.matches or filters.after else await _closest(services, query),
        least=two_decimals(query.threshold),
        bands=ticks or band_views(bands, pack.threshold, filters, None),
        facets=counted,
        took_ms=round(took_ms + page.took_ms.get("total", 0.0)),
        token="" if all(one.face_id for one in asked.examples) else _export_token(asked, query, pack.digest),
        has_names=await services.results.has_names(),
        folder_names={path: "/".join(printable(path).split("/")[-2:]) for path in filters.folders},
        kept=kept,
        names=names,
        asked_for=person_id if person_id in names else "",
        sure_from=_from(bands.very_likely, query),
        likely_from=_from(bands.likely, query),
    )


def _from(band: float, query: Query) -> str:
    """Return the lowest similarity of a band in a result, two decimals; empty if no match can have it."""
    least = math.ceil(max(band, query.threshold) * 100) / 100
    return f"{least:.2f}" if least <= 1 else ""


async def names_of(
    services: Services, person_ids: Iterable[str | None], t: Translator, *, asked: str | None
) -> dict[str, str]:
    """Return the names of people for display, by id; without None, empty and unknown ids.

    Args:
        services: as the one sees them who asks.
        person_ids: whom the shown faces are of.
        t: the language.
        asked: the person whom somebody asked for by name, which is shown even if the person is hidden.

    Raises:
        OceanoError: `ledger_unavailable`.
    """
    wanted = list(dict.fromkeys(one for one in (*person_ids, asked) if one))
    found = await services.lookups.run(services.people.names, wanted) if wanted else {}
    return {
        person_id: shown_name(person, t) if person_id == asked else name_beside(person, t)
        for person_id, person in found.items()
    }


async def facets_of(services: Services, query: Query, filters: Filters) -> tuple[FacetsView, tuple[BandView, ...]]:
    """Count all matches.

    Returns:
        The counts, and the ticks of the rail with the number of matches of each sureness.

    Raises:
        OceanoError: as `result_view`.
    """
    threshold = services.engine.pack.threshold
    least = threshold if filters.least is None else min(filters.least, threshold)
    counted = await services.results.facets(query, least=least, folders=FOLDERS)
    view = replace(facets_view(counted, filters), left_out=await _left_out(services, query, counted))
    return view, band_views(bands_of_page(services, filters), threshold, filters, counted.similarities)


async def _left_out(services: Services, query: Query, counted: Facets) -> int | None:
    """Return how many matches the faces in `unlike` leave out; None without such faces, or if unknown."""
    if not query.unlike or counted.is_cut:
        return None
    with_them = await services.results.facets(replace(query, unlike=()), folders=0)
    return None if with_them.is_cut else with_them.total - counted.total


async def counts_of_choices(services: Services, asked: Asked, filters: Filters) -> list[str]:
    """Return the number of matches of each face of the photograph, such as "7" or "100+"; empty without choices."""
    if not asked.choices:
        return []
    query = replace(await query_of(services, asked, filters), together=())
    queries = [replace(query, embedding=one.embedding) for one in asked.choices]
    pages = await run_in_threadpool(services.results.first_pages, queries, COUNTED)
    return [_counted(page, page.next is not None or after is not None) for page, after in pages]


def _counted(page: ResultPage, is_more: bool) -> str:
    return str(page.total) if page.total is not None else f"{len(page.matches)}{'+' if is_more else ''}"


async def _closest(services: Services, query: Query) -> str:
    """Return the highest similarity of any face that meets the filters; empty if none resembles the person.

    Also empty where a lower threshold does not help: the sureness limits the matches, or a person beside them.
    """
    if query.threshold <= LEAST_MIN or query.within or query.together:
        return ""
    lower = replace(query, threshold=LEAST_MIN, sort="similarity", group_by=None)
    page = await services.results.page(lower, limit=1)
    return two_decimals(page.matches[0].match.similarity) if page.matches else ""


def _export_token(asked: Asked, query: Query, digest: str) -> str:
    """Return the persons as one token; the filters are sent beside it."""
    return encode_query(Query(asked.embedding, query.threshold, together=asked.companions), digest)
