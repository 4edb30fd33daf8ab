"""What a page of naming asks: who it is, whether names are taken away, whether one picture shows somebody twice."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from app.catalog import Place
from app.core.errors import OceanoError
from app.core.texts import Translator
from app.people import all_at, at, beside, checked_name, places_of
from app.service import Services, ShownPerson
from app.web.pages.people_views import PersonTile, name_beside, person_tile

_SAME_NAME: Final = 200
_NAMED: Final = 5  # people who are shown with their names


@dataclass(frozen=True, slots=True)
class Candidate:
    """Somebody whom the faces may show.

    Attributes:
        tile: the person.
        beside: number of the faces in whose pictures the person has another face.
        rejected: number of the faces that somebody said do not show the person.
    """

    tile: PersonTile
    beside: int
    rejected: int

    @property
    def value(self) -> str:
        """What a button sends: the id and the version; and that the pictures show this person twice."""
        return f"{self.tile.id}:{self.tile.version}{':same' if self.beside else ''}"


@dataclass(frozen=True, slots=True)
class Standing:
    """How faces are named now, and how they would be.

    Attributes:
        named: who has some of the faces, other than the one candidate, each with the number; most first, some of them.
        others: number of all these faces.
        told: ids of these people, so that a form takes faces only of those whom its page showed.
        candidates: people whom the faces may show.
        twins: number of the faces that are in one picture with another one of them.
    """

    named: tuple[tuple[PersonTile, int], ...] = ()
    others: int = 0
    told: str = ""
    candidates: tuple[Candidate, ...] = ()
    twins: int = 0

    @property
    def only(self) -> Candidate | None:
        """The one candidate; None if there are several or none."""
        return self.candidates[0] if len(self.candidates) == 1 else None

    @property
    def in_image(self) -> int:
        """Number of the faces whose pictures have another face of the one candidate, or of somebody new."""
        if self.candidates:
            return self.only.beside if self.only else 0
        return self.twins


def standing_of(services: Services, face_ids: Sequence[str], people: Sequence[ShownPerson], t: Translator) -> Standing:
    """Read how faces are named; blocking.

    Args:
        services: as the one sees them who asks.
        face_ids: the faces, which are in the index.
        people: whom they may show.
        t: the language.

    Raises:
        OceanoError: `face_unknown`, `index_unavailable`, `ledger_unavailable`.
    """
    if not face_ids:
        return Standing(candidates=tuple(Candidate(person_tile(one), 0, 0) for one in people))
    places = places_of(services.index, face_ids)
    assigned = services.people.store.assignments_in([*{place.image_id for place in places.values()}])
    now: dict[str, str] = {}
    for face_id, place in places.items():
        if (one := at(place, assigned.get(place.image_id, ()))) is not None:
            now[face_id] = one.person_id
    own: dict[str, dict[str, list[Place]]] = defaultdict(dict)
    for image_id, some in assigned.items():
        for one in some:
            own[one.person_id].setdefault(image_id, []).append(one.place)
    chosen = [*places.values()]
    against = rejected_for(services, chosen)
    candidates = tuple(
        Candidate(person_tile(one), len(beside(chosen, own.get(one.person.id, {}))), against[one.person.id])
        for one in people
    )
    only = people[0].person.id if len(people) == 1 else ""
    others = {face_id: person_id for face_id, person_id in now.items() if person_id != only}
    told = ",".join(sorted(set(others.values())))
    return Standing(_named(services, others, t), len(others), told, candidates, len(beside(chosen, {})))


def rejected_for(services: Services, places: Sequence[Place]) -> Counter[str]:
    """Return how many of some faces do not show a person, as somebody said, by person_id; blocking."""
    found: Counter[str] = Counter()
    rejections = services.people.store.rejections_in([*{place.image_id for place in places}])
    for place in places:
        found.update({one.person_id for one in all_at(place, rejections.get(place.image_id, ()))})
    return found


def candidates_of(services: Services, name: str, person_id: str, *, is_new: bool) -> list[ShownPerson]:
    """Return whom a form may mean: the person it names, or those of a name; nobody if it is somebody new. Blocking."""
    if person_id:
        return [*_visible(services, person_id).values()]
    return people_named(services, name) if name and not is_new else []


def people_named(services: Services, name: str) -> list[ShownPerson]:
    """Return the people with a name, whatever its case and accents, most faces first; blocking."""
    return services.people.named(checked_name(name), limit=_SAME_NAME)


def _visible(services: Services, person_id: str) -> dict[str, ShownPerson]:
    try:
        return {person_id: services.people.get(person_id)}
    except OceanoError as failure:
        if failure.code != "person_unknown":
            raise
        return {}


def _named(services: Services, others: Mapping[str, str], t: Translator) -> tuple[tuple[PersonTile, int], ...]:
    found = Counter(others.values()).most_common(_NAMED)
    return tuple((_tile(one, t), n) for person_id, n in found for one in _visible(services, person_id).values())


def _tile(shown: ShownPerson, t: Translator) -> PersonTile:
    """Return the tile of somebody nobody asked for: of a hidden person, without name and picture."""
    tile = replace(person_tile(shown), name=name_beside(shown.person, t))
    return replace(tile, cover="") if shown.person.hidden else tile
