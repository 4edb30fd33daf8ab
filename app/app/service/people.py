"""The people as somebody sees them: lists, faces of a person, groups and suggestions.

Somebody who may see some folders only sees the people who have a face there, with the number of these faces.
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from app.catalog import (
    LEAST_FACES,
    Change,
    ChangeLog,
    CopiedNames,
    Database,
    Order,
    PeopleStore,
    Person,
    Source,
    UnnamedGroups,
    name_key,
    unknown_person,
)
from app.core.errors import OceanoError
from app.core.protocols import FaceIndex
from app.core.scrolling import scrolled
from app.core.types import FaceFilter, FaceRecord, Floats
from app.people import NamesCopy, Naming, Suggestion, Suggestions, at, clear_faces, identify, place_of
from app.security import Scope
from app.service.cursor import START, Cursor, decode_cursor, decode_mark, encode_cursor, encode_mark
from app.service.people_views import (
    FacePage,
    GroupPage,
    Identity,
    PeoplePage,
    PersonFace,
    ShownGroup,
    ShownPerson,
    Together,
)
from app.service.query import Query, Sort, combined
from app.service.results import Results
from app.service.scoped_naming import ScopedNaming
from app.service.sureness import Bands

_EXAMPLES: Final = 200  # faces whose mean orders those of a person by similarity
_MOST: Final = 100_000  # people in a part of the folders
_OF_GROUP: Final = 2_000  # faces of a group that are looked for in a part of the folders
_SAMPLES: Final = 8  # faces that stand for a group
_LOOKED_AT: Final = 20  # groups for each that is shown, of which none may be seen
_READ: Final = 1_000
_ANY: Final = -1.0  # every similarity

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
        self._log = ChangeLog(database)
        self._faces = CopiedNames(database, collection)
        self._groups = UnnamedGroups(database, collection)
        self._index = index
        self._results = results
        self._bands = bands
        self._size = size
        self._scope: Scope | None = None

    def _forget(self) -> None:
        self._results.forget_names()
        self._groups.forget()

    def through(self, index: FaceIndex, results: Results, scope: Scope) -> People:
        """Return the people whom an index shows that hides whole folders."""
        part = copy.copy(self)
        part._index, part._results, part._scope = index, results, scope
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

    def get(self, person_id: str) -> ShownPerson:
        """Return a person. Raises `person_unknown`, also if none of their faces may be seen."""
        found = self.store.person(person_id)
        shown = self._shown([] if found is None else [found])
        if not shown or (self._scope is not None and not shown[0].faces):
            raise unknown_person(person_id)
        return shown[0]

    def names(self, person_ids: Sequence[str]) -> dict[str, Person]:
        """Return people by id, such as those of the faces of an answer; unknown ones are left out."""
        return self.store.persons(person_ids) if person_ids else {}

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

    def suggestions(self, person_id: str, *, limit: int) -> list[Suggestion]:
        """Return unnamed faces that are likely to show a person, best first.

        Raises:
            OceanoError: `person_unknown`, `index_unavailable`, `ledger_unavailable`.
        """
        self.get(person_id)
        bands = self._bands()
        suggestions = Suggestions(self._index, self.store, self._faces)
        return suggestions.of(person_id, least=bands.threshold, line=bands.very_likely, limit=limit)

    def together(self, person_id: str, *, limit: int) -> list[Together]:
        """Return who is in images with a person, and in how many, most first; errors are those of `suggestions`."""
        self.get(person_id)
        if self._scope is None:
            found = self.store.together(person_id)
        else:
            faces = scrolled(self._index, page=_READ, where=FaceFilter(person=person_id))
            images = {record.payload.image_id for record in faces}
            beside = self.store.assignments_in([*images])
            seen = {(one.person_id, image_id) for image_id, some in beside.items() for one in some}
            found = Counter(other for other, _ in seen if other != person_id).most_common()
        images_of = dict(found[:limit])
        people = self.store.persons([*images_of])
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

    def groups(self, *, after: str | None = None, limit: int) -> GroupPage:
        """Return a page of the groups of unnamed faces, largest first.

        Of a part of the folders, groups are counted in this part, but ordered by all of their faces. The id of such a
        group is that of its first face that is seen, and a page begins at the number of groups before it.

        Raises:
            OceanoError: `cursor_invalid`, `index_unavailable`, `ledger_unavailable`.
        """
        list_name = f"groups\0{self._scope.key if self._scope else ''}"
        known = self._groups.all()
        if after is None:
            start = 0
        elif self._scope is not None:
            start = int(decode_mark(after, list_name, int)[0])
        else:
            faces, group_id = decode_mark(after, list_name, int, str)
            start = bisect_right(known, (-int(faces), str(group_id)), key=lambda one: (-one[1], one[0]))
        shown: list[ShownGroup] = []
        place = start
        while place < len(known) and len(shown) < limit and place - start < _LOOKED_AT * limit:
            group_id, faces = known[place]
            place += 1
            if (group := self._group(group_id, faces)) is not None:
                shown.append(group)
        following = None
        if place < len(known):
            group_id, faces = known[place - 1]
            following = encode_mark((place,) if self._scope is not None else (faces, group_id), list_name)
        return GroupPage(tuple(shown), following)

    def group(self, group_id: str, *, after: str | None = None, limit: int) -> FacePage:
        """Return a page of the faces of a group; `after` is `next` of the page before, errors are those of `groups`."""
        list_name = f"group\0{group_id}"
        last = "" if after is None else str(decode_mark(after, list_name, str)[0])
        total: int | None
        if self._scope is None:
            ids = self._groups.faces(group_id, after=last, limit=limit + 1)
            records, total = self._index.retrieve(ids[:limit]), self._groups.size(group_id)
        else:
            seen = self._seen_of_group(group_id)
            rest = [record for record in seen if record.face_id > last]
            ids, records, total = [record.face_id for record in rest[: limit + 1]], rest[:limit], len(seen)
        following = encode_mark((ids[limit - 1],), list_name) if len(ids) > limit else None
        return FacePage(tuple(PersonFace(record) for record in records), total, following)

    def changes(self, *, person_id: str | None = None, before: int | None = None, limit: int = 100) -> list[Change]:
        """Return changes, newest first; see `ChangeLog.find`."""
        return self._log.find(person_id=person_id, before=before, limit=limit)

    def change(self, number: int) -> Change | None:
        """Return a change by its number."""
        return self._log.get(number)

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

    def _shown(self, people: Sequence[Person]) -> list[ShownPerson]:
        covers = self._faces.covers({one.id: one.cover for one in people})
        if self._scope is None:
            known = self._faces.counts([one.id for one in people])
            return [ShownPerson(one, known.get(one.id, 0), covers.get(one.id)) for one in people]
        counts = self._visible_faces([one.id for one in people])
        visible = {record.face_id for record in self._index.retrieve([*covers.values()])}
        for person_id in counts:
            if covers.get(person_id) not in visible:
                found = self._index.scroll(limit=1, where=FaceFilter(person=person_id)).records
                covers[person_id] = found[0].face_id if found else ""
        return [ShownPerson(one, counts[one.id], covers[one.id] or None) for one in people if counts.get(one.id)]

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

    def _group(self, group_id: str, faces: int) -> ShownGroup | None:
        """Return a group as far as it is seen; None if that is less than two faces."""
        if self._scope is None:
            return ShownGroup(group_id, faces, tuple(self._groups.faces(group_id, limit=_SAMPLES)))
        ids = self._groups.faces(group_id, limit=_OF_GROUP)
        seen = [record.face_id for record in self._index.retrieve(ids)]
        return ShownGroup(min(seen), len(seen), tuple(seen[:_SAMPLES])) if len(seen) >= LEAST_FACES else None

    def _seen_of_group(self, face_id: str) -> list[FaceRecord]:
        """Return the faces of a group that are seen, if its id is that of a face that is seen, too."""
        group_id = self._groups.of_face(face_id) if self._index.retrieve([face_id]) else None
        ids = [] if group_id is None else self._groups.faces(group_id, limit=_OF_GROUP)
        return sorted(self._index.retrieve(ids), key=lambda record: record.face_id) if ids else []
