"""`oceano search`: find the photographs of a person from the command line, and take them out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from threading import Event
from typing import Final

from app.catalog import PeopleStore
from app.commands.audit import record_command
from app.commands.search_faces import QueryFaces, chosen_faces, require_faces, require_readable, say_examples
from app.commands.search_output import SearchOutput, Sources, write_matches
from app.core.config import Settings
from app.core.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED, OceanoError
from app.core.paths import readable
from app.core.protocols import Engine
from app.core.types import FaceFilter
from app.images import DecoderPool
from app.library import Pictures
from app.metrics import Metrics
from app.security import hash_of
from app.service import (
    GroupBy,
    Query,
    Results,
    Sort,
    build_engine,
    combine_pictures,
    face_filter,
    is_later,
    measured_bands,
    open_thumbs,
    open_without_engine,
)

_SECONDS: Final = 30.0  # to decode a photograph


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What to search for.

    Attributes:
        photographs: files that show the person.
        faces: which faces of the photographs are meant, see `chosen_faces`.
        face_ids: indexed faces of the person.
        together: files or face_ids of further persons in the same photograph.
        unlike: files or face_ids of other persons.
        where: which stored faces count, apart from `people`.
        people: names or ids of people, any of whom the faces must show; empty: anybody.
        threshold: lowest similarity; None: the model's own.
        sort: the order.
        group_by: only the best match of each.
        min_face: least length of the shorter side of a face, in pixels; None: any.
        limit: the largest number of matches; None: all.
    """

    photographs: tuple[Path, ...] = ()
    faces: tuple[str, ...] = ()
    face_ids: tuple[str, ...] = ()
    together: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()
    where: FaceFilter | None = None
    people: tuple[str, ...] = ()
    threshold: float | None = None
    sort: Sort = "similarity"
    group_by: GroupBy | None = None
    min_face: int | None = None
    limit: int | None = 100


def condition(
    folders: Iterable[Path], taken_from: str, taken_to: str, *, undated: bool, clear: bool, unnamed: bool = False
) -> FaceFilter | None:
    """Return the filter of the options; None if there is none.

    Raises:
        OceanoError: `invalid_request` if the last time is before the first one.
    """
    if is_later(taken_from, taken_to):
        raise OceanoError("invalid_request", f"--from {taken_from} is later than --to {taken_to}")
    paths = [str(folder.absolute()) for folder in folders]
    return face_filter(paths, taken_from, taken_to, undated=undated, clear=clear, unnamed=unnamed)


def of_people(where: FaceFilter | None, store: PeopleStore, people: Iterable[str]) -> FaceFilter | None:
    """Return a filter with people as a condition.

    Args:
        where: the other conditions.
        store: knows the people.
        people: their names or ids. A name is all people who have exactly this one.

    Raises:
        OceanoError: `person_unknown`, `ledger_unavailable`.
    """
    ids: list[str] = []
    for text in people:
        found = [one.id for one in store.named(text)] or [*store.persons([text.lower()])]
        if not found:
            raise OceanoError("person_unknown", f"nobody has the name or id {text}", details={"person": text})
        ids += found
    return replace(where or FaceFilter(), person=tuple(dict.fromkeys(ids))) if ids else where


def run_search(settings: Settings, request: SearchRequest, output: SearchOutput, stop: Event) -> int:
    """Search, and write the matches.

    Args:
        settings: name the model and the index.
        request: what to search for.
        output: where the matches go.
        stop: once set, writing ends early.

    Returns:
        The exit code: 0 found, 1 nothing found or a photograph could not be copied, 130 interrupted.

    Raises:
        OceanoError: `invalid_request`, `face_not_found`, `face_unknown`, `folder_unknown`, and as
            `open_without_engine`, `build_engine` and `write_matches` do.
    """
    if not request.photographs and not request.face_ids:
        raise OceanoError("invalid_request", "name at least one photograph, or a face with --face-id")
    chosen = chosen_faces(request.faces, len(request.photographs))
    output.check()
    require_readable(request.photographs)
    with ThreadPoolExecutor(1, "load") as loader:
        # the model is loaded while the process of the index starts
        loaded = loader.submit(build_engine, settings) if request.photographs else None
        load = loaded.result if loaded else cache(partial(build_engine, settings))
        return _search(settings, request, chosen, output, stop, load)


def _search(
    settings: Settings,
    request: SearchRequest,
    chosen: Mapping[int, int],
    output: SearchOutput,
    stop: Event,
    load: Callable[[], Engine],
) -> int:
    with open_without_engine(settings) as (pack, index, ledger):
        store = PeopleStore(ledger.database)
        request = replace(request, where=of_people(request.where, store, request.people))
        results = Results(index, pack, Metrics())
        with closing(results), closing(DecoderPool(1, seconds=_SECONDS)) as decoders:
            faces = QueryFaces(settings, pack, index, decoders, load)
            query = _query(request, chosen, faces, stop)
            if query is None:
                return EXIT_INTERRUPTED
            matches = results.listed(query, limit=request.limit)
        record_command(settings, "command.search", _recorded(request, query, len(matches)))
        # who runs commands can read the files anyway
        pictures = Pictures(index, ledger, None)
        sources = Sources(pictures, store.persons, open_thumbs(settings), cache(lambda: measured_bands(index, pack)))
        try:
            is_complete = write_matches(matches, output, sources, stop)
        except BrokenPipeError:  # such as `| head`; Python would complain again when it closes standard output
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            is_complete = True
    if stop.is_set():
        return EXIT_INTERRUPTED
    return EXIT_OK if matches and is_complete else EXIT_SOME_FAILED


def _recorded(request: SearchRequest, query: Query, matches: int) -> dict[str, object]:
    """Return what the audit log keeps of a search."""
    folder = query.where.folder if query.where else None
    return {
        "query": hash_of(query.embedding),
        "images": [hash_of(path.read_bytes()) for path in request.photographs] or None,
        "face_ids": [*request.face_ids] or None,
        "faces": len(request.photographs) + len(request.face_ids),
        "matches": matches,
        "threshold": query.threshold,
        "folders": [readable(one) for one in ((folder,) if isinstance(folder, str) else folder)] if folder else None,
    }


def _query(request: SearchRequest, chosen: Mapping[int, int], faces: QueryFaces, stop: Event) -> Query | None:
    """Return the query; None if it was interrupted."""
    known = [faces.of_index(face_id) for face_id in request.face_ids]
    found = [faces.of_photograph(path) for path in request.photographs if not stop.is_set()]
    if stop.is_set():
        return None
    require_faces(request.photographs, found, chosen)
    examples, embedding = combine_pictures(found, faces.threshold, chosen=chosen, known=known)
    say_examples(request.photographs, found, examples, chosen)
    return Query(
        embedding,
        faces.threshold if request.threshold is None else request.threshold,
        request.where,
        request.sort,
        request.group_by,
        request.min_face,
        unlike=tuple(faces.of_either(text, "--not") for text in request.unlike),
        together=tuple(faces.of_either(text, "--with") for text in request.together),
    )
