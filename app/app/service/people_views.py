"""What is shown of people: people, their faces, groups of unnamed faces, and who a face is likely to be."""

from __future__ import annotations

from dataclasses import dataclass

from app.catalog import Person, Source
from app.core.types import FaceRecord


@dataclass(frozen=True, slots=True)
class ShownPerson:
    """A person as somebody sees them.

    Attributes:
        person: the person.
        faces: number of faces that they see.
        cover: face_id of the face that stands for the person; None if none is in the index.
    """

    person: Person
    faces: int
    cover: str | None


@dataclass(frozen=True, slots=True)
class GonePerson:
    """Somebody who was merged or deleted.

    Attributes:
        name: empty if there was none.
        merged_into: who has got the faces; None: nobody who is there still.
    """

    name: str
    merged_into: ShownPerson | None


@dataclass(frozen=True, slots=True)
class PeoplePage:
    """A page of people; `next` is the `after` of the page after it, None at the end."""

    people: tuple[ShownPerson, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class PersonFace:
    """A face of a person or of a group.

    Attributes:
        record: the face.
        similarity: to the mean of the clear faces; None where faces are not compared.
        source: how it got its name; None if it has none.
    """

    record: FaceRecord
    similarity: float | None = None
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class FacePage:
    """A page of faces; `total` is the number of all, `next` as in `PeoplePage`."""

    faces: tuple[PersonFace, ...]
    total: int | None
    next: str | None


@dataclass(frozen=True, slots=True)
class ShownGroup:
    """Unnamed faces of one person: the id of the group, their number, and some of them."""

    id: str
    faces: int
    face_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GroupPage:
    """A page of groups; `next` as in `PeoplePage`."""

    groups: tuple[ShownGroup, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class Together:
    """A person who is in images with another one, and the number of these images."""

    person: ShownPerson
    images: int


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a face is likely to be.

    Attributes:
        person: the person whom it resembles most.
        similarity: mean cosine to the three most similar clear faces of the person.
        margin: how much less the next person resembles it; None if there is none.
        next: the next person.
        sure: whether it is likely enough to rely on, and not a close call.
    """

    person: Person
    similarity: float
    margin: float | None
    next: Person | None
    sure: bool
