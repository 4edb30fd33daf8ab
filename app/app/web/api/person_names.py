"""The people in answers: the names of those whom faces show, looked up once for each answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, Field

from app.catalog import Person
from app.core.errors import OceanoError
from app.core.types import FacePayload, Floats
from app.service import Identity, ListedMatch, Services


class PersonRef(BaseModel):
    """A person, by id and name."""

    id: str = Field(description="a UUID")
    name: str | None = Field(description="may be empty; null if the catalog cannot be read")
    hidden: bool | None = Field(description="whether not to show the name; null if the catalog cannot be read")

    @classmethod
    def of(cls, person: Person) -> PersonRef:
        """Name a person."""
        return cls(id=person.id, name=person.name, hidden=person.hidden)


@dataclass(frozen=True, slots=True)
class Names:
    """The people of an answer.

    Attributes:
        people: by id.
        is_read: false if the catalog could not be read; an answer then has ids without names.
    """

    people: Mapping[str, Person] = field(default_factory=dict)
    is_read: bool = True

    def of(self, payload: FacePayload) -> PersonRef | None:
        """Return whom a face shows; None if it has no name, or one that was taken back meanwhile."""
        if payload.person is None:
            return None
        if (person := self.people.get(payload.person)) is not None:
            return PersonRef.of(person)
        return None if self.is_read else PersonRef(id=payload.person, name=None, hidden=None)


class IdentifiedFace(BaseModel):
    """Who a searched face is likely to be, compared with several clear faces of each named person."""

    person: PersonRef
    similarity: float = Field(description="mean cosine to the three most similar clear faces of the person, -1 to 1")
    margin: float | None = Field(description="how much less the next person resembles it; null if nobody else does")
    sure: bool = Field(description="the similarity is high, the margin is not small, and the face is clear")
    next: PersonRef | None = Field(description="the next person")

    @classmethod
    def of(cls, identity: Identity) -> IdentifiedFace:
        """Describe an answer."""
        return cls(
            person=PersonRef.of(identity.person),
            similarity=round(identity.similarity, 6),
            margin=None if identity.margin is None else round(identity.margin, 6),
            sure=identity.sure,
            next=None if identity.next is None else PersonRef.of(identity.next),
        )


def payloads_of(matches: Iterable[ListedMatch]) -> list[FacePayload]:
    """Return the payloads of matches and of the faces together with them."""
    return [one.payload for listed in matches for one in (listed.match, *listed.together)]


async def names_in(services: Services, payloads: Iterable[FacePayload]) -> Names:
    """Look up whom faces show, if any of them has a name. Without the catalog, an answer has no names."""
    ids = sorted({payload.person for payload in payloads if payload.person is not None})
    if not ids:
        return Names()
    try:
        return Names(await services.lookups.run(services.people.names, ids))
    except OceanoError as failure:
        if failure.code != "ledger_unavailable":
            raise
        return Names(is_read=False)


async def identified(
    services: Services, embeddings: Sequence[Floats], clear: Sequence[bool] | None = None
) -> list[IdentifiedFace | None]:
    """Say who each of some faces is likely to be.

    Args:
        services: as the one sees them who asks.
        embeddings: of the faces, each float32, (D,), with norm 1.
        clear: for each whether it has no flaw; None: all are clear.

    Returns:
        An answer for each face; None where nobody with a name resembles it.

    Raises:
        OceanoError: `index_unavailable`, `ledger_unavailable`.
    """
    found = await services.lookups.run(services.people.identify, embeddings, clear)
    return [None if one is None else IdentifiedFace.of(one) for one in found]
