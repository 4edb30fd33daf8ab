"""What names from outside do to the rows of the catalog, within the transaction of one change."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from app.catalog import (
    ASSIGNMENTS,
    DISMISSALS,
    PEOPLE,
    REJECTIONS,
    Making,
    Place,
    Row,
    is_same_face,
    name_key,
    place_in,
    place_values,
    timestamp,
)
from app.core.boxes import overlap
from app.images import NameProblem, NameReason
from app.people.edits import add_person
from app.people.profile import Profile


@dataclass(frozen=True, slots=True)
class Given:
    """A name for a face: the file that it is from, the face, and the name, which is not empty."""

    path: str
    place: Place
    name: str


@dataclass(slots=True)
class GivenRows:
    """What a change did.

    Attributes:
        faces: number of faces that got a name, or another one.
        names: the names, each once.
        added: ids of new people.
        problems: names that no face got.
    """

    faces: int = 0
    names: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    problems: tuple[NameProblem, ...] = ()


def give_names(making: Making, given: Sequence[Given], had: Mapping[str, frozenset[str]], who: str) -> GivenRows:
    """Name faces; see `app.people.metadata_names` for the rules.

    Args:
        making: the change.
        given: names and faces.
        had: the names that people have had, by id; a face of somebody who has had its name stays theirs.
        who: asks for it.
    """
    giving = _Giving(making, given, had, who)
    for one in given:
        if (problem := giving.give(one)) is not None:
            giving.problems.append(problem)
    making.put(ASSIGNMENTS, giving.pairs)
    names = [*dict.fromkeys(giving.names)]
    return GivenRows(len(giving.pairs), names, giving.added, tuple(giving.problems))


class _Giving:
    """The names of one change."""

    def __init__(self, making: Making, given: Sequence[Given], had: Mapping[str, frozenset[str]], who: str) -> None:
        images = [one.place.image_id for one in given]
        self._making, self._had, self._who = making, had, who
        self._assigned = making.by_image(ASSIGNMENTS, images)
        self._rejected = making.by_image(REJECTIONS, images)
        self._dismissed = making.by_image(DISMISSALS, images)
        self._people: dict[str, Row] = {}
        for row in making.rows(PEOPLE, "name_key", [name_key(one.name) for one in given]):
            best = self._people.get(row["name"])
            if best is None or _age(row) < _age(best):
                self._people[row["name"]] = row
        self.pairs: list[tuple[Row | None, Row]] = []
        self.names: list[str] = []
        self.added: list[str] = []
        self.problems: list[NameProblem] = []
        self._given: set[str] = set()  # ids of the rows that this change has put

    def give(self, one: Given) -> NameProblem | None:
        """Name a face; return why not."""
        rows = self._assigned[one.place.image_id]
        before, person = _at(one.place, rows), self._people.get(one.name)
        if before is not None and self._has_name(before, one.name):
            return None
        if (found := self._objection(one, rows, before)) is not None:
            return NameProblem(one.path, *found)
        self._assign(one, rows, before, self._person_id(one.name) if person is None else str(person["id"]))
        return None

    def _has_name(self, before: Row, name: str) -> bool:
        """Return whether a face is that of somebody who has, or has had, a name."""
        person = self._people.get(name)
        is_theirs = person is not None and before["person_id"] == person["id"]
        return is_theirs or name in self._had.get(before["person_id"], frozenset())

    def _objection(self, one: Given, rows: Sequence[Row], before: Row | None) -> tuple[NameReason, str] | None:
        """Return what speaks against a name."""
        image_id, person = one.place.image_id, self._people.get(one.name)
        if before is not None and before["id"] in self._given:
            return (
                "names_differ",
                f"the picture gives the face another name, which comes first; {one.name} was not used",
            )
        if before is not None and before["source"] != "metadata":
            return "named_by_hand", f"the face has a name that was given by hand; {one.name} was not used"
        if _at(one.place, self._dismissed[image_id]) is not None:
            return "name_rejected", f"the face of {one.name} was set aside, or is not a face"
        person_id = None if person is None else person["id"]
        if _at(one.place, [row for row in self._rejected[image_id] if row["person_id"] == person_id]) is not None:
            return "name_rejected", f"somebody said that this face is not {one.name}"
        is_twice = any(row["person_id"] == person_id and row is not before for row in rows)
        return ("name_twice", f"another face of the image is {one.name}") if is_twice else None

    def _assign(self, one: Given, rows: list[Row], before: Row | None, person_id: str) -> None:
        after = before or {"id": str(uuid.uuid4()), **place_values(one.place)}
        after = after | {
            "person_id": person_id, "source": "metadata", "assigned_by": self._who, "assigned_at": timestamp()
        }  # fmt: skip
        self.pairs.append((before, after))
        self.names.append(one.name)
        self._given.add(after["id"])
        if before is not None:
            rows.remove(before)
        rows.append(after)

    def _person_id(self, name: str) -> str:
        person_id = add_person(self._making, Profile(name=name))
        self._people[name] = {"id": person_id}
        self.added.append(person_id)
        return person_id


def _at(place: Place, rows: Sequence[Row]) -> Row | None:
    """Return the row about a face; None if there is none."""
    same = [row for row in rows if is_same_face(place, place_in(row))]
    return max(same, key=lambda row: (place_in(row) == place, overlap(place_in(row).bbox, place.bbox)), default=None)


def _age(row: Row) -> tuple[bool, str, str]:
    """Return what sorts people of one name: those who are not hidden first, then the oldest."""
    return bool(row["hidden"]), str(row["created_at"]), str(row["id"])
