"""The people as somebody sees them: lists, faces of a person, and suggestions.

Somebody who may see some folders only sees the people who have a face there, with the number of these faces.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from app.catalog import (
    Change,
    ChangeLog,
    CopiedNames,
    Database,
    Order,
    PeopleStore,
    Person,
    Source,
    name_key,
    unknown_person,
)
from app.core.errors import OceanoError
from app.core.protocols import FaceIndex
from app.core.scrolling import scrolled
from app.core.types import FLAWS, FaceFilter, FaceRecord, Floats
from app.people import NamesCopy, Naming, Suggestion, Suggestions, at, clear_faces, identify, place_of
from app.security import Scope
from app.service.cursor import START, Cursor, decode_cursor, decode_mark, encode_cursor, encode_mark
from app.service.people_views import (
    FacePage,
    GonePerson,
    Identity,
    PeoplePage,
    PersonFace,
    ShownPerson,
    Together,
)
from app.service.query import Query, Sort, combined
from app.service.results import Results
from app.service.scoped_naming import ScopedNaming
from app.service.sureness import Bands
from app.service.unnamed import UnnamedFaces

_EXAMPLES: Final = 200  # faces whose mean orders those of a person by similarity
_MOST: Final = 100_000  # people in a part of the folders
_READ: Final = 1_000
_ANY: Final = -1.0  # every similarity
_FIRST_DATE: Final = "1800"  # before every photograph

FaceOrder = Sort
"""Newest or oldest photograph first, or the most similar face."""


class People:
    """Reads and changes people. Its methods block; they may be called from several threads.

    Args:
        database: the catalog.
        index: the faces.
        collection: full name of the index's collection.
        results: the lists of matches in the index.
        bands: returns what similarities mean now.
        size: D of the model pack.

    Attributes:
        naming: makes changes.
        names_copy: keeps the names in the index.
        unnamed: groups of faces without a name, single ones, and dismissed ones.
    """

    def __init__(
        self,
        database: Database,
        index: FaceIndex,
        collection: str,
        results: Results,
        bands: Callable[[], Bands],
        size: int,
    ) -> None:
        self.store = PeopleStore(database)
        self.names_copy = NamesCopy(database, index, collection, self._forget)
        self.naming: Naming | ScopedNaming = Naming(database, index, self.names_copy)
        self.unnamed = UnnamedFaces(database, index, collection)
        self._log = ChangeLog(database)
        self._faces = CopiedNames(database, collection)
        self._index = index
        self._results = results
        self._bands = bands
        self._size = size
        self._scope: Scope | None = None

    def _forget(self) -> None:
        self._results.forget_names()
        self.unnamed.forget()

    def through(self, index: FaceIndex, results: Results, scope: Scope) -> People:
        """Return the people whom an index shows that hides whole folders."""
        part = copy.copy(self)
        part._index, part._results, part._scope = index, results, scope
        part.unnamed = self.unnamed.through(index, scope)
        assert isinstance(self.naming, Naming)  # noqa: S101 - scopes are parts of all folders
        part.naming = ScopedNaming(self.naming, index, self.store)
        return part

    def find(
        self,
        text: str = "",
        *,
        hidden: bool | None = False,
        order: Order = "faces",
        after: str | None = None,
        limit: int = 100,
    ) -> PeoplePage:
        """Return a page of people.

        Args:
            text: part of the name; case and accents do not matter. Empty: all.
            hidden: only those who are hidden, or who are not; None: both.
            order: most faces first, or by name.
            after: `next` of the page before; None: the first page.
            limit: the largest number.

        Raises:
            OceanoError: `cursor_invalid`, `ledger_unavailable`, `index_unavailable`.
        """
        list_name = f"people\0{text}\0{hidden}\0{order}\0{self._scope.key if self._scope else ''}"
        kind = int if order == "faces" else str
        mark = None if after is None else decode_mark(after, list_name, kind, str)
        last = None if mark is None else (mark[0], str(mark[1]))
        if self._scope is None:
            found = self.store.find(text, hidden=hidden, order=order, after=last, limit=limit + 1)
            shown = self._shown(found[:limit])
        else:
            found = self._find_visible(text, hidden, order, last)
            shown = self._shown(found[:limit])
        following = None
        if len(found) > limit:
            one = shown[-1]
            faces = one.faces if self._scope else one.person.faces  # as the list is sorted
            rank: str | int = faces if order == "faces" else name_key(one.person.name)
            following = encode_mark((rank, one.person.id), list_name)
        return PeoplePage(tuple(shown), following)

    def with_waiting(self, waiting: Mapping[str, int], *, limit: int) -> list[ShownPerson]:
        """Return the people with most faces that wait for an answer, of those that `UnnamedFaces.waiting` returns."""
        most = sorted(waiting, key=lambda person_id: (-waiting[person_id], person_id))[:limit]
        people = self.store.persons(most)
        return self._shown([people[person_id] for person_id in most if person_id in people])

    def get(self, person_id: str) -> ShownPerson:
        """Return a person. Raises `person_unknown`, also if none of their faces may be seen."""
        if (found := self._one(person_id)) is None:
            raise unknown_person(person_id)
        return found

    def _one(self, person_id: str) -> ShownPerson | None:
        counts = None if self._scope is None else self._visible_faces([person_id])
        # in a part of the folders, first what takes as long for an unknown person
        found = None if counts == {} else self.store.person(person_id)
        return None if found is None else self._shown([found], counts)[0]

    def gone(self, person_id: str) -> GonePerson | None:
        """Return what became of somebody who is not there any more; None if nothing is known.

        It is for those who see all folders: others must not learn of people whom they do not see.

        Raises:
            OceanoError: `index_unavailable`, `ledger_unavailable`.
        """
        first = removal = self._log.removal_of(person_id)
        stays: ShownPerson | None = None
        while removal is not None and removal.merged_into is not None:
            if (stays := self._one(removal.merged_into)) is not None:
                break
            removal = self._log.removal_of(removal.merged_into)
        return None if first is None else GonePerson(first.name, stays)

    def names(self, person_ids: Sequence[str]) -> dict[str, Person]:
        """Return people by id, such as those of the faces of an answer; unknown ones are left out."""
        return self.store.persons(person_ids) if person_ids else {}

    def frequent_names(self, limit: int) -> list[str]:
        """Return the names of the people with most faces, each once, without those of hidden people."""
        found = (
            self.store.find(limit=limit)
            if self._scope is None
            else self._find_visible("", False, "faces", None)[:limit]
        )
        return [*dict.fromkeys(one.name for one in found if one.name)]

    def named(self, name: str, *, limit: int) -> list[ShownPerson]:
        """Return the people with a name, whatever its case and accents, most faces first."""
        if self._scope is None:
            return self._shown(self.store.alike(name, limit))
        found = self._find_visible(name, None, "faces", None)
        return self._shown([one for one in found if name_key(one.name) == name_key(name)][:limit])

    def faces(self, person_id: str, *, order: FaceOrder = "newest", after: str | None = None, limit: int) -> FacePage:
        """Return a page of the faces of a person.

        Args:
            person_id: the person.
            order: by time of the photograph, or by similarity to the mean of the person's clear faces.
            after: `next` of the page before; None: the first page.
            limit: the largest number.

        Raises:
            OceanoError: `person_unknown`, `cursor_invalid`, `index_unavailable`, `ledger_unavailable`.
        """
        person = self.get(person_id)
        key = self._results.cursor_key
        if after is None:
            query, position = self._query(person_id, order), START
            if query is None:
                return FacePage((), person.faces, None)
        else:
            cursor = decode_cursor(after, key, self._size)
            query, position = cursor.query, cursor.position
            if query.where != FaceFilter(person=person_id) or query.sort != order:
                raise OceanoError("cursor_invalid", "`after` is of another list", details={"field": "after"})
        page, following = self._results.page_at(query, position, limit)
        records = [FaceRecord(one.match.face_id, one.match.payload) for one in page.matches]
        sources = self._sources(records)
        faces = [
            PersonFace(record, one.match.similarity, sources.get(record.face_id))
            for record, one in zip(records, page.matches, strict=True)
        ]
        following_text = None if following is None else encode_cursor(Cursor(query, following), key)
        return FacePage(tuple(faces), person.faces, following_text)

    def has_dates(self, person_id: str) -> bool:
        """Return whether a photograph of a person has a date. Raises `index_unavailable`."""
        where = FaceFilter(person=person_id, taken_from=_FIRST_DATE)
        return bool(self._index.scroll(limit=1, where=where).records)

    def suggestions(self, person_id: str, *, limit: int) -> list[Suggestion]:
        """Return unnamed faces that are likely to show a person, best first.

        Raises:
            OceanoError: `person_unknown`, `index_unavailable`, `ledger_unavailable`.
        """
        self.get(person_id)
        bands = self._bands()
        suggestions = Suggestions(self._index, self.store, self._faces)
        return suggestions.of(
            person_id, least=bands.threshold, likely=bands.likely, line=bands.very_likely, limit=limit
        )

    def together(self, person_id: str, *, hidden: bool | None = False, limit: int) -> list[Together]:
        """Return who is in images with a person, and in how many, most first; errors are those of `suggestions`.

        Args:
            person_id: the person.
            hidden: only those who are hidden, or who are not; None: both.
            limit: the largest number.
        """
        self.get(person_id)
        if self._scope is None:
            found = self.store.together(person_id, hidden=hidden)
            people = self.store.persons([other for other, _ in found[:limit]])
        else:
            faces = scrolled(self._index, page=_READ, where=FaceFilter(person=person_id))
            images = {record.payload.image_id for record in faces}
            beside = self.store.assignments_in([*images])
            seen = {(one.person_id, image_id) for image_id, some in beside.items() for one in some}
            known = self.store.persons([other for other, _ in seen if other != person_id])
            people = {one.id: one for one in known.values() if hidden in (None, one.hidden)}
            found = Counter(other for other, _ in seen if other in people).most_common()
        images_of = dict(found[:limit])
        shown = {one.person.id: one for one in self._shown([people[one] for one in images_of if one in people])}
        return [Together(shown[one], images) for one, images in images_of.items() if one in shown]

    def identify(self, embeddings: Sequence[Floats], clear: Sequence[bool] | None = None) -> list[Identity | None]:
        """Say who faces are likely to be.

        Args:
            embeddings: of the faces, each float32, (D,), with norm 1.
            clear: for each whether it has no flaw: no answer for a blurred face is sure. None: all are clear.

        Returns:
            An answer for each face; None where nobody is similar.

        Raises:
            OceanoError: `index_unavailable`, `ledger_unavailable`.
        """
        bands = self._bands()
        found = identify(self._index, embeddings, least=bands.threshold, line=bands.likely, clear=clear)
        people = self.names([one for answer in found if answer for one in (answer.person_id, answer.next_id) if one])
        return [
            None
            if answer is None or answer.person_id not in people
            else Identity(
                people[answer.person_id],
                answer.similarity,
                answer.margin,
                None if answer.next_id is None else people.get(answer.next_id),
                answer.sure,
            )
            for answer in found
        ]

    def changes(self, *, person_id: str | None = None, before: int | None = None, limit: int = 100) -> list[Change]:
        """Return changes, newest first; see `ChangeLog.find`."""
        return self._log.find(person_id=person_id, before=before, limit=limit)

    def change(self, number: int) -> Change | None:
        """Return a change by its number."""
        return self._log.get(number)

    def people_of_changes(self, numbers: Sequence[int], limit: int) -> list[str]:
        """Return ids of the people whom changes were about; see `ChangeLog.people_of`."""
        return self._log.people_of(numbers, limit)

    def was_changed_again(self, change: Change) -> bool:
        """Return whether what a change did was undone, or changed by a later one."""
        return change.undone_by is not None or self._log.later(change.number) is not None

    def later_change(self, number: int) -> Change | None:
        """Return the newest change that changed again what a change did; see `ChangeLog.later`."""
        return self._log.later(number)

    def _find_visible(
        self, text: str, hidden: bool | None, order: Order, last: tuple[int | str, str] | None
    ) -> list[Person]:
        counts = self._index.facet("person", limit=_MOST)
        wanted = name_key(text)
        found = [
            one
            for one in self.store.persons([*counts]).values()
            if wanted in name_key(one.name) and hidden in (None, one.hidden)
        ]
        if order == "name":
            found.sort(key=lambda one: (name_key(one.name), one.id))
            return [one for one in found if last is None or (name_key(one.name), one.id) > last]
        found.sort(key=lambda one: (counts[one.id], one.id), reverse=True)
        return [one for one in found if last is None or (counts[one.id], one.id) < last]

    def _shown(self, people: Sequence[Person], counts: Mapping[str, int] | None = None) -> list[ShownPerson]:
        """Return people with faces and covers; in a part of the folders without those of whom no face is seen.

        Args:
            people: the people.
            counts: the numbers of their faces that are seen there, if they are known.
        """
        if self._scope is None:
            covers = self._faces.covers({one.id: one.cover for one in people})
            known = self._faces.counts([one.id for one in people])
            return [ShownPerson(one, known.get(one.id, 0), covers.get(one.id)) for one in people]
        if counts is None:
            counts = self._visible_faces([one.id for one in people])
        return [ShownPerson(one, counts[one.id], self._visible_cover(one.id)) for one in people if counts.get(one.id)]

    def _visible_cover(self, person_id: str) -> str | None:
        """Return a face of a person for somebody who sees some folders.

        It does not depend on the cover, which tells of the faces in other folders: it is the first one without a flaw.
        """
        any_face = FaceFilter(person=person_id)
        for where in (replace(any_face, without=FLAWS), any_face):
            if found := self._index.scroll(limit=1, where=where).records:
                return found[0].face_id
        return None

    def _visible_faces(self, person_ids: Sequence[str]) -> dict[str, int]:
        if not person_ids:
            return {}
        return self._index.facet("person", limit=len(person_ids), where=FaceFilter(person=tuple(person_ids)))

    def _query(self, person_id: str, order: FaceOrder) -> Query | None:
        examples = clear_faces(self._index, self.store, person_id, _EXAMPLES)
        if not examples:
            where = FaceFilter(person=person_id)
            examples = list(self._index.scroll(limit=1, where=where, with_embedding=True).records)
        rows = [one.embedding for one in examples if one.embedding is not None]
        return Query(combined(rows), _ANY, FaceFilter(person=person_id), sort=order) if rows else None

    def _sources(self, records: Sequence[FaceRecord]) -> dict[str, Source]:
        assigned = self.store.assignments_in([record.payload.image_id for record in records])
        found = {}
        for record in records:
            one = at(place_of(record.payload), assigned.get(record.payload.image_id, ()))
            if one is not None:
                found[record.face_id] = one.source
        return found
