"""Which faces a form of naming is about: selected ones, a group, or all matches of a search above a similarity."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import parse_qs

from app.core.errors import OceanoError
from app.core.types import FaceFilter
from app.people import MAX_FACES
from app.service import Query, Services, decode_query, two_decimals
from app.web.pages.filters import LEAST_MIN, Fields, Filters, read_filters
from app.web.pages.form_fields import all_of, last_of
from app.web.pages.people import group_id_from, no_group
from app.web.pages.person_edits import face_ids_in
from app.web.pages.result_page import filtered_query
from app.web.pages.results import asked_of_faces

SAMPLES: Final = 24
_GROUP_PAGE: Final = 1000
_MOST_ABOVE: Final = 1.0


@dataclass(frozen=True, slots=True)
class ChosenFaces:
    """Faces to name.

    Attributes:
        face_ids: at most `MAX_FACES`.
        samples: some of them, to be shown; of a search, the first ones and the least similar ones.
        fields: names and values with which a form chooses the same faces again.
        group_id: the group that they are; empty for others.
        above: lowest similarity of a search, two decimals; empty for others.
        digest: of the faces of a search: the next form must be about the same ones; empty for others.
        is_cut: there are more than `MAX_FACES`.
    """

    face_ids: tuple[str, ...]
    samples: tuple[str, ...]
    fields: tuple[tuple[str, str], ...]
    group_id: str = ""
    above: str = ""
    digest: str = ""
    is_cut: bool = False

    def are_as_seen(self, fields: Fields) -> bool:
        """Return whether these are the faces that the page of a form showed: a group may have grown since."""
        shown = last_of(fields, "faces")
        if shown and last_of(fields, "of_group"):
            return shown == str(len(self.face_ids))
        return not self.digest or last_of(fields, "digest") == self.digest


async def chosen_faces(services: Services, fields: Fields) -> ChosenFaces:
    """Find the faces that a form is about.

    Args:
        services: as the one sees them who asks.
        fields: `of_group`, or `above` with the search, or `id` once for each face.

    Raises:
        OceanoError: `invalid_request`, `face_unknown`, `cursor_invalid`, `index_unavailable`, `not_found` if a group is
            not there any more.
    """
    if group_id := last_of(fields, "of_group"):
        return await services.lookups.run(_of_group, services, group_id_from(group_id))
    if last_of(fields, "above"):
        return await _of_search(services, fields)
    return _selected(face_ids_in(fields, "id"))


def _selected(face_ids: tuple[str, ...]) -> ChosenFaces:
    return ChosenFaces(face_ids, face_ids[:SAMPLES], tuple(("id", one) for one in face_ids))


def _of_group(services: Services, group_id: str) -> ChosenFaces:
    face_ids: list[str] = []
    after: str | None = None
    while True:
        page = services.people.unnamed.group(group_id, after=after, limit=_GROUP_PAGE)
        face_ids += [one.record.face_id for one in page.faces]
        after = page.next
        if after is None or len(face_ids) >= MAX_FACES:
            break
    if not face_ids:
        raise no_group()
    taken = tuple(face_ids[:MAX_FACES])
    is_cut = after is not None or len(face_ids) > MAX_FACES
    fields = (("of_group", group_id), ("faces", str(len(taken))))
    return ChosenFaces(taken, taken[:SAMPLES], fields, group_id, is_cut=is_cut)


async def _of_search(services: Services, fields: Fields) -> ChosenFaces:
    """Find the unnamed matches of a search from a similarity on, the most similar of each image."""
    chosen = last_of(fields, "above")
    above = _similarity(last_of(fields, "exactly") if chosen == "exactly" else chosen)
    filters = read_filters(parse_qs(last_of(fields, "filters")))
    query = await _query(services, fields, filters)
    where = replace(query.where or FaceFilter(), unnamed=True, person=None)
    asked = replace(query, threshold=above, where=where, sort="similarity", group_by="image_id", within=())
    found = await services.lookups.run(lambda: _matches(services, asked))
    face_ids, is_cut = found[:MAX_FACES], len(found) > MAX_FACES
    half = SAMPLES // 2
    samples = dict.fromkeys([*face_ids[:half], *face_ids[-half:]])
    names = ("query", "person_face", "filters")
    sent = [(name, value) for name in names for value in all_of(fields, name)]
    shown = two_decimals(above)
    return ChosenFaces(tuple(face_ids), tuple(samples), (*sent, ("above", shown)), "", shown, _digest(face_ids), is_cut)


async def _query(services: Services, fields: Fields, filters: Filters) -> Query:
    """Return the query of a token, or of indexed faces; both with the filters of the result."""
    pack = services.engine.pack
    if token := last_of(fields, "query"):
        sent = decode_query(token, pack.digest, pack.embedding_size)
        return await filtered_query(services, filters, sent.embedding, sent.together)
    face_ids = face_ids_in(fields, "person_face")
    if not face_ids:
        raise OceanoError("invalid_request", "a search has at least one face", details={"field": "query"})
    asked = await asked_of_faces(services, face_ids)
    return await filtered_query(services, filters, asked.embedding, ())


def _matches(services: Services, query: Query) -> list[str]:
    return [listed.match.face_id for listed in services.results.listed(query, limit=MAX_FACES + 1)]


def _similarity(text: str) -> float:
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        number = -1.0
    if not LEAST_MIN <= number <= _MOST_ABOVE:
        raise OceanoError(
            "invalid_request",
            f"above must be a number from {LEAST_MIN:g} to {_MOST_ABOVE:g}",
            details={"field": "above", "value": text[:64]},
        )
    return round(number, 2)


def _digest(face_ids: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(face_ids)).encode()).hexdigest()[:16]
