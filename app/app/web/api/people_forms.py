"""The fields of requests about people: JSON bodies, and query parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field, StringConstraints

from app.people import MAX_FACES, MAX_MERGED, MAX_NAME, MAX_NOTES
from app.service import DEFAULT_LIMIT, MAX_LIMIT
from app.web.api.fields import UUID, VALID, PersonId
from app.web.api.requests import Checked

MAX_SUGGESTIONS: Final = 1000
MAX_TOGETHER: Final = 1000

_MAX_VERSION: Final = 2**53 - 1  # larger numbers are not exact in JavaScript
_VALID: Final[Mapping[str, str]] = {
    **VALID,
    "name": f"a text of at most {MAX_NAME} characters",
    "hidden": "true or false",
    "birth_date": "a year, a month or a day, such as 1970, 1970-05 or 1970-05-17; empty for none",
    "notes": f"a text of at most {MAX_NOTES} characters",
    "cover": "the face_id of a face of the person, a UUID",
    "face_ids": f"a list of 1 to {MAX_FACES} face_ids of stored faces, UUIDs",
    "version": "the version of the person that you saw, a whole number",
    "source": "manual or confirmed",
    "replace": "true or false",
    "same_image": "true or false",
    "others": f'a list of 1 to {MAX_MERGED} objects {{"id", "version"}} of people, UUIDs and whole numbers',
    "kind": "set_aside, not_a_face or null",
    "person_id": "the id of a person, a UUID",
}  # what a field must be

_Id = Annotated[str, StringConstraints(pattern=UUID, to_lower=True)]
_FaceIds = Annotated[list[_Id], Field(min_length=1, max_length=MAX_FACES, description="stored faces")]
_Name = Annotated[str, StringConstraints(max_length=10 * MAX_NAME)]  # spaces are removed before it is measured
_Notes = Annotated[str, StringConstraints(max_length=10 * MAX_NOTES)]
_Date = Annotated[str, StringConstraints(max_length=40)]
_Hidden = Literal["false", "true", "all"]
_Version = Annotated[int, Field(ge=0, le=_MAX_VERSION)]
_SEEN: Final = "of the person as the request saw it; or send `If-Match`"


class _Json(Checked):
    model_config = ConfigDict(extra="forbid", strict=True)
    valid: ClassVar[Mapping[str, str]] = _VALID


class NewPerson(_Json):
    """Body of `POST /people`."""

    name: _Name = Field("", description=f"at most {MAX_NAME} characters; may be empty, and others may have the same")
    hidden: bool = Field(False, description="left out of lists")
    birth_date: _Date = Field("", description="year, month or day, ISO 8601; empty: unknown")
    notes: _Notes = Field("", description=f"at most {MAX_NOTES} characters")
    face_ids: list[_Id] = Field([], max_length=MAX_FACES, description="faces of the person")
    replace: bool = Field(False, description="also take faces that have another name")
    same_image: bool = Field(False, description="several of the faces may be in one image, such as a collage")


class EditedPerson(_Json):
    """Body of `PATCH /people/{person_id}`; what is left out stays."""

    version: _Version | None = Field(None, description=_SEEN)
    name: _Name | None = Field(None, description="as in `POST /people`. Never merges people of the same name")
    hidden: bool | None = Field(None, description="as in `POST /people`")
    birth_date: _Date | None = Field(None, description="as in `POST /people`")
    notes: _Notes | None = Field(None, description="as in `POST /people`")
    cover: _Id | None = Field(None, description="face_id of the face that stands for the person; one of theirs")


class Version(_Json):
    """Body of `DELETE /people/{person_id}`."""

    version: _Version | None = Field(None, description=_SEEN)


class AssignedFaces(_Json):
    """Body of `POST /people/{person_id}/faces`."""

    version: _Version | None = Field(None, description=_SEEN)
    face_ids: _FaceIds
    source: Literal["manual", "confirmed"] = Field("manual", description="named by hand, or a confirmed suggestion")
    replace: bool = Field(False, description="also take faces that have another name")
    same_image: bool = Field(False, description="also name a second face of an image with this name")


class RejectedFaces(_Json):
    """Body of `POST /people/{person_id}/reject`."""

    version: _Version | None = Field(None, description=_SEEN)
    face_ids: _FaceIds


class OtherPerson(_Json):
    """A person of a merge, and the version that the request saw."""

    id: _Id
    version: _Version


class MergedPeople(_Json):
    """Body of `POST /people/{person_id}/merge`."""

    version: _Version | None = Field(None, description=_SEEN)
    others: list[OtherPerson] = Field(min_length=1, max_length=MAX_MERGED, description="who become this person")


class SplitFaces(_Json):
    """Body of `POST /people/{person_id}/split`."""

    version: _Version | None = Field(None, description=_SEEN)
    face_ids: _FaceIds
    name: _Name = Field("", description="of the new person; may be empty")


class DismissedFaces(_Json):
    """Body of `POST /faces/dismiss`."""

    face_ids: _FaceIds
    kind: Literal["set_aside", "not_a_face"] | None = Field(
        description="do not ask about these faces again, or they are no faces; null takes that back"
    )


class Nothing(_Json):
    """Body of `POST /changes/{number}/undo`: empty, or an empty object."""


class _Parameters(Checked):
    valid: ClassVar[Mapping[str, str]] = _VALID


class Paged(_Parameters):
    """Query parameters of a list."""

    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="entries of a page")
    after: str | None = Field(None, max_length=10_000, description="`next` of the page before")


class PeopleOptions(Paged):
    """Query parameters of `GET /people`."""

    valid: ClassVar[Mapping[str, str]] = {**_VALID, "hidden": "false, true or all", "order": "faces or name"}
    name: _Name = Field("", description="part of the name; upper and lower case and accents do not matter")
    hidden: _Hidden = Field("false", description="people who are not hidden, those who are, or both")
    order: Literal["faces", "name"] = Field("faces", description="most faces first, or by name")


class DismissedOptions(Paged):
    """Query parameters of `GET /people/dismissed`."""

    valid: ClassVar[Mapping[str, str]] = {**_VALID, "kind": "set_aside or not_a_face"}
    kind: Literal["set_aside", "not_a_face"] = Field("set_aside", description="set aside, or not a face")


class PersonFacesOptions(Paged):
    """Query parameters of `GET /people/{person_id}/faces`."""

    valid: ClassVar[Mapping[str, str]] = {**_VALID, "order": "newest, oldest or similarity"}
    order: Literal["newest", "oldest", "similarity"] = Field(
        "newest", description="by time, or those that resemble the others most first"
    )


class SuggestionOptions(_Parameters):
    """Query parameters of `GET /people/{person_id}/suggestions`."""

    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_SUGGESTIONS, description="largest number of faces")


class TogetherOptions(_Parameters):
    """Query parameters of `GET /people/{person_id}/together`."""

    valid: ClassVar[Mapping[str, str]] = {**_VALID, "hidden": "false, true or all"}
    hidden: _Hidden = Field("false", description="people who are not hidden, those who are, or both")
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_TOGETHER, description="largest number of people")


class ChangesOptions(Paged):
    """Query parameters of `GET /changes`."""

    person_id: PersonId | None = Field(None, description="only changes of this person")
