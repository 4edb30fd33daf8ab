"""Names faces as the metadata of their pictures says, and keeps the names of images that are ingested again.

A name of the metadata is that of the person with exactly this name: "alex" is not "Alex". If several have it, the
oldest who is not hidden; if nobody has, a new person. It never takes the place of a name that somebody gave, never
contradicts a rejection, and never makes two faces of a picture one person.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from app.catalog import Assignment, Change, ChangeLog, Database, NewChange, PeopleStore, Place
from app.core.errors import OceanoError
from app.core.protocols import FaceIndex
from app.core.types import FacePoint, FaceRecord
from app.images import EditedImage, NameProblem, NamesApplied, PictureNames
from app.people.carried_names import carry_names
from app.people.examples import rating
from app.people.metadata_rows import Given, give_names
from app.people.names_copy import NamesCopy
from app.people.places import at, matched, place_of
from app.people.profile import checked_name
from app.people.regions import named_faces

_SHOWN_NAMES: Final = 10  # of a change, in the journal
_CHANGES: Final = 500  # read at once
_RENAMED: Final = frozenset({"edit", "merge", "undo"})


@dataclass(frozen=True, slots=True)
class GivenNames:
    """What a change of many names did: the entry of the journal, None if nothing changed, and what was not done."""

    change: Change | None
    applied: NamesApplied


class _NotKept(Exception):
    """Ends a transaction of which nothing is kept."""


class MetadataNames:
    """Names of an ingest. Safe for threads.

    All methods raise OceanoError: `ledger_unavailable`, `disk_full`, `index_unavailable`. After an error, the same call
    can be repeated: it does what is left.

    Args:
        database: the catalog.
        index: the faces.
        collection: full name of the index's collection.
        who: asks for the changes, as in `app.security.Access`.
    """

    def __init__(self, database: Database, index: FaceIndex, collection: str, who: str) -> None:
        self._log = ChangeLog(database)
        self._store = PeopleStore(database)
        self._names = NamesCopy(database, index, collection)
        self._who = who

    def stamped(self, points: Sequence[FacePoint]) -> list[FacePoint]:
        """Return faces to store with the people that the catalog assigns them to."""
        by_image: dict[str, list[FaceRecord]] = defaultdict(list)
        for point in points:
            by_image[point.payload.image_id].append(FaceRecord(point.face_id, point.payload))
        people: dict[str, str] = {}
        for image_id, placed in self._store.assignments_in([*by_image]).items():
            found = matched(by_image[image_id], placed)
            people |= {face_id: assignment.person_id for face_id, assignment in found.items()}
        return [
            replace(point, payload=replace(point.payload, person=people[point.face_id]))
            if point.face_id in people
            else point
            for point in points
        ]

    def carry(self, images: Sequence[EditedImage]) -> None:
        """Take names over from images to those that their files became: one change, of the kind `carry`."""
        said = (self._store.assignments_in, self._store.rejections_in, self._store.dismissals_in)
        before = [one.before for one in images]
        if not any(read(before) for read in said):
            return
        with self._log.making(NewChange(self._who, "carry"), {}) as making:
            carry_names(making, images)
        if making.change is not None:
            self._names.catch_up()

    def apply(self, pictures: Sequence[PictureNames], stored: Sequence[FacePoint]) -> NamesApplied:
        """Name the faces of pictures as their metadata says: one change, of the kind `metadata`.

        Args:
            pictures: those with names.
            stored: faces that were just stored in the index; those that the catalog has names for get them.
        """
        found = [_given(picture) for picture in pictures]
        given = [one for names, _ in found for one in names]
        problems = [problem for _, some in found for problem in some]
        ratings = {place_of(point.payload): rating(point.payload) for point in stored}
        done = self.give(given, NewChange(self._who, "metadata"), ratings)
        copied = () if done.change is None else self._log.images_after(done.change.number - 1)
        rest = {point.payload.image_id for point in stored}.difference(copied)
        said = {*self._store.assignments_in([*rest]), *self._store.dismissals_in([*rest])}
        had = {point.payload.image_id for point in stored if point.payload.person is not None}  # and may have lost it
        if named := said | (had & rest):
            self._names.copy_images(sorted(named))
        return replace(done.applied, problems=(*problems, *done.applied.problems))

    def give(
        self,
        given: Sequence[Given],
        new: NewChange,
        ratings: Mapping[Place, float] = MappingProxyType({}),
        *,
        dry_run: bool = False,
    ) -> GivenNames:
        """Name faces in one change.

        Args:
            given: names and faces.
            new: who and what kind; details are added.
            ratings: how well faces stand for a person, as far as it is known.
            dry_run: make the change and take it back before anybody can see it.
        """
        images = [*dict.fromkeys(one.place.image_id for one in given)]
        before = self._store.assignments_in(images)
        had = self._names_ever(given, before)
        change, added, named = None, 0, 0
        problems: tuple[NameProblem, ...] = ()
        if any(_is_news(one, before.get(one.place.image_id, ()), had) for one in given):
            with suppress(_NotKept), self._log.making(new, {}) as making:
                making.ratings.update(ratings)
                done = give_names(making, given, had, new.who)
                making.details.update(names=done.names[:_SHOWN_NAMES], people=len(done.added))
                if dry_run:
                    raise _NotKept
            change, added, named, problems = making.change, len(done.added), done.faces, done.problems
        if given and not dry_run:
            self._names.catch_up()  # also of a change before which a kill left no copy
        return GivenNames(change, NamesApplied(named, added, problems))

    def _names_ever(
        self, given: Sequence[Given], before: Mapping[str, Sequence[Assignment]]
    ) -> Mapping[str, frozenset[str]]:
        """Return which names each person has had whose face has another name in the metadata.

        Somebody who was renamed or merged here still has the old name in the pictures.
        """
        ids = {one.person_id for some in before.values() for one in some}
        people = self._store.persons(sorted(ids))
        asked = set()
        for one in given:
            known = at(one.place, before.get(one.place.image_id, ()))
            if known is not None and known.person_id in people and people[known.person_id].name != one.name:
                asked.add(known.person_id)
        return {
            person_id: frozenset({person.name, *(self._earlier(person_id) if person_id in asked else ())})
            for person_id, person in people.items()
        }

    def _earlier(self, person_id: str) -> set[str]:
        names: set[str] = set()
        before: int | None = None
        while page := self._log.find(person_id=person_id, before=before, limit=_CHANGES):
            for change in page:
                if change.kind in _RENAMED:
                    said = (change.details.get("name"), change.details.get("new"), *change.details.get("merged", ()))
                    names |= {name for name in said if isinstance(name, str)}
            before = page[-1].number
        return names


def _is_news(one: Given, placed: Sequence[Assignment], had: Mapping[str, frozenset[str]]) -> bool:
    known = at(one.place, placed)
    return known is None or one.name not in had.get(known.person_id, frozenset())


def _given(picture: PictureNames) -> tuple[list[Given], list[NameProblem]]:
    """Return the names of a picture's faces, and those of nobody."""
    found = named_faces(picture.found, picture.faces, picture.width, picture.height)
    problems = [
        NameProblem(picture.path, "region_without_face", f"no face was found in the region of {name}")
        for name in found.without_face
    ]
    problems += [
        NameProblem(picture.path, "names_differ", f"one face is {name} and {other}; the first counts")
        for name, other in found.differences
    ]
    names = dict(found.names)
    if picture.folder and not picture.found:
        if len(picture.faces) == 1:
            names[0] = picture.folder
        elif picture.faces:
            message = f"{len(picture.faces)} faces; which one is {picture.folder} is not known"
            problems.append(NameProblem(picture.path, "folder_unsure", message))
    given = []
    for position, name in names.items():
        try:
            checked = checked_name(name)
        except OceanoError:  # too long
            continue
        if checked:
            given.append(Given(picture.path, Place(picture.image_id, 0, picture.faces[position]), checked))
    return given, problems
