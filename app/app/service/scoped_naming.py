"""Changes of people by somebody who may see some folders only."""

# ruff: noqa: D102 - `Naming` describes the methods
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from app.catalog import DismissalKind, PeopleStore, Source, unknown_person
from app.core.errors import OceanoError
from app.core.protocols import FaceIndex
from app.core.types import FaceFilter
from app.people import Author, Done, Naming, Profile, places_of
from app.service.scoped_index import forbid


class ScopedNaming:
    """Makes changes of faces that an index shows. Those of a person with other faces, too, are `forbidden`.

    Args:
        naming: makes all changes.
        index: shows a part of the faces; others are as if they did not exist.
        store: the people.
    """

    def __init__(self, naming: Naming, index: FaceIndex, store: PeopleStore) -> None:
        self._naming = naming
        self._index = index
        self._store = store

    def create(
        self,
        profile: Profile,
        face_ids: Sequence[str],
        by: Author,
        *,
        replace: bool | Sequence[str] = False,
        same_image: bool = False,
    ) -> Done:
        if not face_ids:
            raise OceanoError(
                "invalid_request",
                "name at least one face: you see only people with faces in your folders",
                details={"field": "face_ids", "cause": "scope"},
            )
        self._require(face_ids)
        return self._naming.create(profile, face_ids, by, replace=replace, same_image=same_image)

    def edit(self, person_id: str, version: int, profile: Profile, by: Author) -> Done:
        self._require_whole(person_id)
        if profile.cover is not None:
            self._require([profile.cover])
        return self._naming.edit(person_id, version, profile, by)

    def delete(self, person_id: str, version: int, by: Author) -> Done:
        self._require_whole(person_id)
        return self._naming.delete(person_id, version, by)

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
        self._require_seen(person_id)
        self._require(face_ids)
        return self._naming.assign(
            person_id, version, face_ids, by, source=source, replace=replace, same_image=same_image
        )

    def reject(self, person_id: str, version: int, face_ids: Sequence[str], by: Author) -> Done:
        self._require_seen(person_id)
        self._require(face_ids)
        return self._naming.reject(person_id, version, face_ids, by)

    def merge(self, person_id: str, version: int, others: Mapping[str, int], by: Author) -> Done:
        for one in (person_id, *others):
            self._require_whole(one)
        return self._naming.merge(person_id, version, others, by)

    def split(self, person_id: str, version: int, face_ids: Sequence[str], name: str, by: Author) -> Done:
        self._require_seen(person_id)
        self._require(face_ids)
        return self._naming.split(person_id, version, face_ids, name, by)

    def dismiss(self, face_ids: Sequence[str], kind: DismissalKind | None, by: Author) -> Done:
        self._require(face_ids)
        return self._naming.dismiss(face_ids, kind, by)

    def undo(self, number: int, by: Author) -> NoReturn:
        """Raise OceanoError `forbidden`: a change may be about faces of all folders."""
        forbid()

    def _require(self, face_ids: Sequence[str]) -> None:
        places_of(self._index, face_ids)

    def _require_seen(self, person_id: str) -> int:
        seen = self._index.count(FaceFilter(person=person_id))
        if not seen:
            raise unknown_person(person_id)
        return seen

    def _require_whole(self, person_id: str) -> None:
        seen, person = self._require_seen(person_id), self._store.person(person_id)
        if person is None:
            raise unknown_person(person_id)
        if seen < person.faces:
            forbid()
