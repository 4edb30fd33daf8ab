"""The JSON bodies of answers about people."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, JsonValue

from app.catalog import Change
from app.core.paths import readable
from app.core.types import BBox, FaceRecord
from app.people import Suggestion
from app.service import PersonFace, ShownGroup, ShownPerson, Together
from app.web.api.responses import Response, rounded_box, thumb_url

_NEXT = "`after` of the next page; null at the end"


class PersonBody(BaseModel):
    """A person. `faces` and the cover are of the folders that the request may see."""

    id: str = Field(description="a UUID")
    name: str = Field(description="may be empty, and others may have the same")
    hidden: bool = Field(description="left out of what shows or offers people, unless it is asked for")
    faces: int = Field(description="number of faces")
    cover: str | None = Field(description="face_id of the face that stands for the person; null if there is none")
    cover_url: str | None = Field(description="address of its thumbnail")
    birth_date: str | None = Field(description="year, month or day, ISO 8601; null if it is not known")
    notes: str | None
    created_at: str = Field(description="UTC, ISO 8601")
    changed_at: str = Field(description="UTC, ISO 8601")
    version: int = Field(description="one more with each change of the person or of whose faces are theirs")

    @classmethod
    def of(cls, shown: ShownPerson, root_path: str = "") -> PersonBody:
        """Describe a person."""
        person = shown.person
        return cls(
            id=person.id,
            name=person.name,
            hidden=person.hidden,
            faces=shown.faces,
            cover=shown.cover,
            cover_url=None if shown.cover is None else thumb_url(shown.cover, root_path),
            birth_date=person.birth_date,
            notes=person.notes,
            created_at=person.created_at,
            changed_at=person.changed_at,
            version=person.version,
        )


class FaceBody(BaseModel):
    """A stored face."""

    face_id: str
    image_id: str = Field(description="SHA-256 of the image file, hex")
    path: str = Field(description="absolute path of the image file")
    page: int = Field(description="page of the image file that shows the face, from 0")
    taken_at: str | None = Field(description="time of the photograph, ISO 8601, with an offset if it is known")
    bbox: BBox = Field(description="x1, y1, x2, y2 in pixels of the upright image")
    width: int = Field(description="of the upright image, in pixels")
    height: int
    quality: float
    flaws: list[str]
    thumb_url: str
    image_url: str = Field(description="address of `GET /images/{image_id}`")

    @classmethod
    def of(cls, record: FaceRecord, root_path: str = "") -> FaceBody:
        """Describe a face."""
        stored = record.payload
        return cls(
            face_id=record.face_id,
            image_id=stored.image_id,
            path=readable(stored.path),
            page=stored.page,
            taken_at=stored.taken_at,
            bbox=rounded_box(stored.bbox),
            width=stored.width,
            height=stored.height,
            quality=round(stored.quality, 4),
            flaws=list(stored.flaws),
            thumb_url=thumb_url(record.face_id, root_path),
            image_url=f"{root_path}/images/{stored.image_id}",
        )


class PersonFaceBody(FaceBody):
    """A face of a person or of a group."""

    similarity: float | None = Field(description="cosine to the mean of the clear faces, -1 to 1; null if not compared")
    source: Literal["manual", "confirmed", "metadata"] | None = Field(
        description="named by hand, a confirmed suggestion, or read from the file; null without a name"
    )

    @classmethod
    def of_person(cls, face: PersonFace, root_path: str = "") -> PersonFaceBody:
        """Describe a face and how it got its name."""
        similarity = None if face.similarity is None else round(face.similarity, 6)
        return cls(**FaceBody.of(face.record, root_path).model_dump(), similarity=similarity, source=face.source)


class SuggestedFace(FaceBody):
    """A face without a name that may show a person."""

    similarity: float = Field(description="mean cosine to the three most similar clear faces of the person, -1 to 1")
    reason: Literal["group", "similar"] = Field(
        description="it is in one group with faces of the person, or it resembles some of them"
    )
    clear: bool = Field(description="it has no flaw")
    sure: bool = Field(description="so likely that all such faces may be confirmed together")
    doubt: Literal["unclear", "somebody_else", "not_similar"] | None = Field(
        description="why it is not sure: it has a flaw, it resembles somebody else as much, or neither the person nor "
        "the other faces of the group enough; null if it is sure"
    )

    @classmethod
    def of_suggestion(cls, one: Suggestion, root_path: str = "") -> SuggestedFace:
        """Describe a suggestion."""
        face = FaceBody.of(one.record, root_path).model_dump()
        return cls(
            **face,
            similarity=round(one.similarity, 6),
            reason=one.reason,
            clear=one.clear,
            sure=one.sure,
            doubt=one.doubt,
        )


class GroupBody(BaseModel):
    """Faces without a name that are likely to show one person."""

    id: str = Field(description="of the group, for `GET /people/groups/{group_id}`; it may change when faces join")
    faces: int = Field(description="number of faces")
    face_ids: list[str] = Field(description="some of them")
    thumb_urls: list[str] = Field(description="addresses of their thumbnails")

    @classmethod
    def of(cls, group: ShownGroup, root_path: str = "") -> GroupBody:
        """Describe a group."""
        urls = [thumb_url(face_id, root_path) for face_id in group.face_ids]
        return cls(id=group.id, faces=group.faces, face_ids=[*group.face_ids], thumb_urls=urls)


class ChangeBody(BaseModel):
    """A change of people, as the journal has it."""

    number: int = Field(description="from 1; later changes have higher numbers")
    at: str = Field(description="UTC, ISO 8601")
    who: str = Field(description="as in the audit log, such as `user ana`")
    kind: str = Field(
        description="`create`, `edit`, `delete`, `assign`, `confirm`, `reject`, `merge`, `split`, `dismiss`, `undo` or "
        "another word"
    )
    faces: int = Field(description="number of faces that it was about")
    details: dict[str, JsonValue] = Field(description="for people to read, such as names")
    undoes: int | None = Field(description="number of the change that it undid")
    undone_by: int | None = Field(description="number of the change that undid it")

    @classmethod
    def of(cls, change: Change) -> ChangeBody:
        """Describe a change."""
        return cls(
            number=change.number,
            at=change.at,
            who=change.who,
            kind=change.kind,
            faces=change.faces,
            details=dict(change.details),
            undoes=change.undoes,
            undone_by=change.undone_by,
        )


class TogetherBody(BaseModel):
    """A person who is in images with another one."""

    person: PersonBody
    images: int = Field(description="number of images that show both")

    @classmethod
    def of(cls, one: Together, root_path: str = "") -> TogetherBody:
        """Describe a person and how often."""
        return cls(person=PersonBody.of(one.person, root_path), images=one.images)


class PeopleResponse(Response):
    """Body of `GET /people`."""

    people: list[PersonBody]
    next: str | None = Field(description=_NEXT)


class PersonResponse(Response):
    """Body of `GET /people/{person_id}`."""

    person: PersonBody


class PersonFacesResponse(Response):
    """Body of the lists of faces: of a person, of a group, without a name and a group, or dismissed."""

    faces: list[PersonFaceBody]
    total: int | None = Field(description="number of all of them; null if it is not known")
    next: str | None = Field(description=_NEXT)


class GroupsResponse(Response):
    """Body of `GET /people/groups`: the groups without a name, largest first."""

    groups: list[GroupBody]
    next: str | None = Field(description=_NEXT)


class SuggestionsResponse(Response):
    """Body of `GET /people/{person_id}/suggestions`, best first."""

    suggestions: list[SuggestedFace]


class TogetherResponse(Response):
    """Body of `GET /people/{person_id}/together`, most images first."""

    together: list[TogetherBody]


class ChangedResponse(Response):
    """Body of every request that changes people."""

    person: PersonBody | None = Field(
        description="whom the request was about, as they are now; null if there is nobody, or nobody whom you may see"
    )
    change: ChangeBody | None = Field(description="the entry in the journal; null if everything was so already")


class ChangesResponse(Response):
    """Body of `GET /changes`, newest first."""

    changes: list[ChangeBody]
    next: str | None = Field(description=_NEXT)
