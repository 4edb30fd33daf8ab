"""Changes to people: names, whose face is whose, merging, splitting, and undoing all of it.

Each method is one change: a transaction of the catalog and an entry of its journal. Afterwards the index gets a copy.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from app.catalog import (
    AlreadyDone,
    Change,
    ChangeLog,
    Database,
    DismissalKind,
    Making,
    NewChange,
    PeopleStore,
    Person,
    Place,
    Source,
)
from app.core.errors import OceanoError
from app.core.protocols import FaceIndex
from app.people import edits
from app.people.examples import rating
from app.people.names_copy import NamesCopy
from app.people.places import payloads_of, place_of
from app.people.profile import Profile, checked_name

_log = logging.getLogger(__name__)

MAX_MERGED: Final = 100
"""People of one merge."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who asks for a change.

    Attributes:
        who: as in `app.security.Access`.
        key: the Idempotency-Key of the request; None: it is made as often as it is sent.
    """

    who: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """What a request did.

    Attributes:
        change: the entry of the journal; None if everything was so already.
        person: the person that it was about, as they are now; None if there is none, or none any more.
    """

    change: Change | None
    person: Person | None = None


class Naming:
    """Changes people. Safe for threads.

    All methods raise OceanoError: `ledger_unavailable`, `disk_full`; `index_unavailable` if the faces cannot be looked
    up, and then nothing has changed. If the copy to the index fails, the change counts, and a later one copies it, too.

    Args:
        database: the catalog.
        index: the faces; shows all of them.
        names: keeps the names in the index.
    """

    def __init__(self, database: Database, index: FaceIndex, names: NamesCopy) -> None:
        self._log = ChangeLog(database)
        self._store = PeopleStore(database)
        self._index = index
        self._names = names

    def create(
        self,
        profile: Profile,
        face_ids: Sequence[str],
        by: Author,
        *,
        replace: bool | Sequence[str] = False,
        same_image: bool = False,
    ) -> Done:
        """Add a person.

        Args:
            profile: name and so on; what is None is empty.
            face_ids: faces that show the person; may be empty.
            by: who asks.
            replace: also take faces that are other people's, or those of these people.
            same_image: some of them are in one image, and show the same person.

        Raises:
            OceanoError: `invalid_request`, `face_unknown`, `face_named`, `person_in_image`.
        """
        faces = self._faces(face_ids) if face_ids else {}
        new = _new("create", by, profile=asdict(profile), face_ids=face_ids, replace=replace, same=same_image)

        def work(making: Making) -> str:
            person_id = edits.add_person(making, profile)
            making.ratings.update(faces)
            edits.assign(making, person_id, [*faces], "manual", by.who, replace=replace, same_image=same_image)
            making.details.update(name=checked_name(profile.name or ""))
            return person_id

        return self._make(new, {}, work)

    def edit(self, person_id: str, version: int, profile: Profile, by: Author) -> Done:
        """Change name, visibility, cover, birth date or notes of a person. Never merges people of the same name.

        Args:
            person_id: whom.
            version: that the request saw.
            profile: what changes; None: stays.
            by: who asks.

        Raises:
            OceanoError: `person_unknown`, `person_changed`, `invalid_request`, `face_unknown` if the cover is none of
                the person's faces.
        """
        cover = None if profile.cover is None else self._places([profile.cover])[0]
        new = _new("edit", by, person_id=person_id, version=version, profile=asdict(profile))

        def work(making: Making) -> str:
            edits.edit_person(making, person_id, profile, cover)
            return person_id

        return self._make(new, {person_id: version}, work)

    def delete(self, person_id: str, version: int, by: Author) -> Done:
        """Delete a person; the faces become unnamed. Raises `person_unknown`, `person_changed`."""
        new = _new("delete", by, person_id=person_id, version=version)

        def work(making: Making) -> None:
            edits.remove_person(making, person_id)

        return self._make(new, {person_id: version}, work)

    def assign(
        self,
        person_id: str,
        version: int,
        face_ids: Sequence[str],
        by: Author,
        *,
        source: Source = "manual",
        replace: bool | Sequence[str] = False,
        same_image: bool = False,
    ) -> Done:
        """Name faces.

        Args:
            person_id: whom they show.
            version: of the person that the request saw.
            face_ids: the faces, at most `MAX_FACES`.
            by: who asks.
            source: named by hand, or a confirmed suggestion.
            replace: also take faces that are other people's, or those of these people.
            same_image: also name faces of images that show the person already, and several faces of one image.

        Raises:
            OceanoError: `person_unknown`, `person_changed`, `face_unknown`, `invalid_request`; `face_named` if some of
                them are other people's, and `replace` is not set; `person_in_image` if an image would then have several
                faces of the person, and `same_image` is not set.
        """
        faces = self._faces(face_ids)
        kind = "confirm" if source == "confirmed" else "assign"
        asked = {"person_id": person_id, "version": version, "face_ids": face_ids, "replace": replace}
        new = _new(kind, by, **asked, same=same_image)

        def work(making: Making) -> str:
            making.ratings.update(faces)
            edits.assign(making, person_id, [*faces], source, by.who, replace=replace, same_image=same_image)
            making.details.update(name=edits.name_of(making, person_id))
            return person_id

        return self._make(new, {person_id: version}, work)

    def reject(self, person_id: str, version: int, face_ids: Sequence[str], by: Author) -> Done:
        """Say that faces do not show a person, which is remembered; those that have the name lose it.

        Arguments and errors are those of `assign`.
        """
        places = self._places(face_ids)
        new = _new("reject", by, person_id=person_id, version=version, face_ids=face_ids)

        def work(making: Making) -> str:
            edits.reject(making, person_id, places, by.who)
            making.details.update(name=edits.name_of(making, person_id))
            return person_id

        return self._make(new, {person_id: version}, work)

    def merge(self, person_id: str, version: int, others: Mapping[str, int], by: Author) -> Done:
        """Give a person the faces and rejections of others, who are deleted then.

        Args:
            person_id: who stays, with the name.
            version: that the request saw.
            others: the versions of the others by id, at most `MAX_MERGED`.
            by: who asks.

        Raises:
            OceanoError: `person_unknown`, `person_changed`, `invalid_request`.
        """
        if person_id in others or not 0 < len(others) <= MAX_MERGED:
            raise OceanoError(
                "invalid_request",
                f"give 1 to {MAX_MERGED} people to merge, none of them the one who stays",
                details={"field": "others", "max": MAX_MERGED},
            )
        new = _new("merge", by, person_id=person_id, version=version, others=dict(others))

        def work(making: Making) -> str:
            edits.merge(making, person_id, [*others])
            return person_id

        return self._make(new, {person_id: version, **others}, work)

    def split(self, person_id: str, version: int, face_ids: Sequence[str], name: str, by: Author) -> Done:
        """Move some faces of a person to a new one; it is remembered that they do not show the first one.

        Args:
            person_id: whose faces they are.
            version: that the request saw.
            face_ids: the faces, at most `MAX_FACES`.
            name: of the new person; may be empty.
            by: who asks.

        Returns:
            The change and the new person.

        Raises:
            OceanoError: `person_unknown`, `person_changed`, `face_unknown`; `invalid_request` if a face is not the
                person's.
        """
        faces = self._faces(face_ids)
        new = _new("split", by, person_id=person_id, version=version, face_ids=face_ids, name=name)

        def work(making: Making) -> str:
            making.details.update(name=edits.name_of(making, person_id), new=checked_name(name))
            making.ratings.update(faces)
            return edits.split(making, person_id, [*faces], name, by.who)

        return self._make(new, {person_id: version}, work)

    def dismiss(self, face_ids: Sequence[str], kind: DismissalKind | None, by: Author) -> Done:
        """Set faces aside, or say that they are none; with the kind None, take that back.

        Raises:
            OceanoError: `face_unknown`, `invalid_request`; `face_named` if a face that is set aside has a name.
        """
        places = self._places(face_ids)
        new = _new("dismiss", by, face_ids=face_ids, to=kind)
        new.details["to"] = kind

        def work(making: Making) -> None:
            edits.dismiss(making, places, kind, by.who)

        return self._make(new, {}, work)

    def undo(self, number: int, by: Author) -> Done:
        """Undo a change, also one that undid another. Raises `change_unknown`, `change_conflict`."""
        new = _new("undo", by, number=number)
        return self._make(new, {}, lambda making: making.undo(number))

    def _places(self, face_ids: Sequence[str]) -> list[Place]:
        return [*self._faces(face_ids)]

    def _faces(self, face_ids: Sequence[str]) -> dict[Place, float]:
        """Return the places of faces, and how well each stands for a person."""
        found = payloads_of(self._index, face_ids).values()
        return {place_of(payload): rating(payload) for payload in found}

    def _make(self, new: NewChange, versions: Mapping[str, int], work: Callable[[Making], str | None]) -> Done:
        try:
            with self._log.making(new, versions) as making:
                person_id = work(making)
                if person_id is not None:
                    making.details.setdefault("person_id", person_id)
            change = making.change
        except AlreadyDone as done:
            change = done.change
            person_id = change.details.get("person_id")
        self._copy()
        return Done(change, None if person_id is None else self._store.person(person_id))

    def _copy(self) -> None:
        try:
            self._names.catch_up()
        except OceanoError as failure:
            _log.warning("names could not be copied to the index yet: %s", failure)


def _new(kind: str, by: Author, **asked: Any) -> NewChange:
    if by.key is None:
        return NewChange(by.who, kind)
    request = json.dumps([kind, asked], sort_keys=True, default=list)
    key = hashlib.sha256(f"{by.who}\0{by.key}".encode("utf-8", "surrogatepass")).hexdigest()
    return NewChange(
        by.who, kind, key=key, request=hashlib.sha256(request.encode("utf-8", "surrogatepass")).hexdigest()
    )
