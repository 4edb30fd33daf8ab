"""What changes of people do to the rows of the catalog, within the transaction of one change."""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from app.catalog import (
    ASSIGNMENTS,
    DISMISSALS,
    PEOPLE,
    REJECTIONS,
    DismissalKind,
    Making,
    Place,
    Row,
    Source,
    is_same_face,
    name_key,
    place_in,
    place_values,
    timestamp,
    unknown_person,
)
from app.core.boxes import overlap
from app.core.errors import OceanoError
from app.people.profile import Profile, checked_birth_date, checked_name, checked_notes
from app.people.twins import beside


class _Rows:
    """The rows of a table that are about some images."""

    def __init__(self, making: Making, table: Any, places: Sequence[Place]) -> None:
        self._by_image = making.by_image(table, [place.image_id for place in places])

    def of(self, person_id: str) -> dict[str, list[Place]]:
        """Return the places of a person's rows by image."""
        own = {
            image_id: [place_in(row) for row in found if row["person_id"] == person_id]
            for image_id, found in self._by_image.items()
        }
        return {image_id: places for image_id, places in own.items() if places}

    def at(self, place: Place, person_id: str | None = None) -> list[Row]:
        """Return the rows about a face, and of a person if one is given; the one with its exact box is first."""
        found = [
            row
            for row in self._by_image.get(place.image_id, ())
            if is_same_face(place, place_in(row)) and person_id in (None, row.get("person_id"))
        ]
        return sorted(found, key=lambda row: (place_in(row) != place, -overlap(place_in(row).bbox, place.bbox)))


def add_person(making: Making, profile: Profile) -> str:
    """Add a person; return the id."""
    name = checked_name(profile.name or "")
    now = timestamp()
    row: Row = {
        "id": str(uuid.uuid4()), "name": name, "name_key": name_key(name), "hidden": int(profile.hidden or False),
        "cover": None, "birth_date": checked_birth_date(profile.birth_date or ""),
        "notes": checked_notes(profile.notes or ""), "faces": 0, "created_at": now, "changed_at": now, "version": 0,
    }  # fmt: skip
    making.put(PEOPLE, [(None, row)])
    return str(row["id"])


def edit_person(making: Making, person_id: str, profile: Profile, cover: Place | None) -> None:
    """Change what a profile says about a person."""
    row = _person(making, person_id)
    after = dict(row)
    if profile.name is not None:
        name = checked_name(profile.name)
        after |= {"name": name, "name_key": name_key(name)}
    if profile.hidden is not None:
        after["hidden"] = int(profile.hidden)
    if profile.birth_date is not None:
        after["birth_date"] = checked_birth_date(profile.birth_date)
    if profile.notes is not None:
        after["notes"] = checked_notes(profile.notes)
    if cover is not None:
        after["cover"] = _cover(making, person_id, cover)
    making.details.update(
        name=row["name"], **{key: after[key] for key in ("name", "hidden") if after[key] != row[key] and key != "name"}
    )
    if after["name"] != row["name"]:
        making.details["new"] = after["name"]
    making.details["changed"] = [key for key in ("hidden", "birth_date", "notes", "cover") if after[key] != row[key]]
    making.put(PEOPLE, [(row, after)])


def remove_person(making: Making, person_id: str) -> None:
    """Delete a person with assignments and rejections."""
    row = _person(making, person_id)
    making.details.update(name=row["name"])
    for table in (ASSIGNMENTS, REJECTIONS):
        making.delete(table, making.rows(table, "person_id", [person_id]))
    making.delete(PEOPLE, [row])


def assign(
    making: Making,
    person_id: str,
    places: Sequence[Place],
    source: Source,
    who: str,
    *,
    replace: bool | Sequence[str] = False,
    same_image: bool = False,
) -> None:
    """Give a person faces; what was said against that is forgotten."""
    assigned, rejected, dismissed = (_Rows(making, table, places) for table in (ASSIGNMENTS, REJECTIONS, DISMISSALS))
    pairs: list[tuple[Row | None, Row]] = []
    others: Counter[str] = Counter()
    for place in places:
        before = next(iter(assigned.at(place)), None)
        if before is not None and before["person_id"] != person_id:
            others[before["person_id"]] += 1
        elif before is not None and (before["source"] != "metadata" or source == "metadata"):
            continue
        pairs.append((before, _assignment(person_id, place, source, who, before)))
    if replace is not True:
        _require_unnamed(others, replace or ())
    if not same_image:
        _require_no_other(places, assigned.of(person_id))
    making.put(ASSIGNMENTS, pairs)
    making.delete(REJECTIONS, _unique(row for place in places for row in rejected.at(place, person_id)))
    making.delete(DISMISSALS, _unique(row for place in places for row in dismissed.at(place)))


def reject(making: Making, person_id: str, places: Sequence[Place], who: str) -> None:
    """Say that faces do not show a person."""
    assigned, rejected = (_Rows(making, table, places) for table in (ASSIGNMENTS, REJECTIONS))
    making.delete(ASSIGNMENTS, _unique(row for place in places for row in assigned.at(place, person_id)))
    new = [place for place in places if not rejected.at(place, person_id)]
    making.put(REJECTIONS, [(None, _rejection(person_id, place, who)) for place in new])


def merge(making: Making, person_id: str, others: Sequence[str]) -> None:
    """Give a person what others have, and delete them."""
    stays = _person(making, person_id)
    gone = making.rows(PEOPLE, "id", others)
    making.details.update(name=stays["name"], merged=[row["name"] for row in gone][:10])
    moved = making.rows(ASSIGNMENTS, "person_id", others)
    making.put(ASSIGNMENTS, [(row, row | {"person_id": person_id}) for row in moved])
    rejected = making.rows(REJECTIONS, "person_id", [person_id, *others])
    own = making.rows(ASSIGNMENTS, "person_id", [person_id])
    faces: dict[str, list[Place]] = defaultdict(list)
    for row in own:
        faces[row["image_id"]].append(place_in(row))
    contradicted = [row for row in rejected if any(is_same_face(place_in(row), one) for one in faces[row["image_id"]])]
    making.delete(REJECTIONS, contradicted)
    left = {row["id"] for row in contradicted}
    kept = [row for row in rejected if row["id"] not in left and row["person_id"] != person_id]
    making.put(REJECTIONS, [(row, row | {"person_id": person_id}) for row in kept])
    filled = {
        key: next((row[key] for row in gone if row[key]), None) for key in ("birth_date", "notes") if not stays[key]
    }
    making.put(PEOPLE, [(stays, stays | filled)])
    making.delete(PEOPLE, gone)


def split(making: Making, person_id: str, places: Sequence[Place], name: str, who: str) -> str:
    """Move faces of a person to a new one; return the id of the new one."""
    assigned = _Rows(making, ASSIGNMENTS, places)
    moved = _unique(row for place in places for row in assigned.at(place, person_id)[:1])
    if len(moved) < len(places):
        raise OceanoError(
            "invalid_request",
            f"{_some(len(places) - len(moved), 'is', 'are')} not this person's",
            details={"field": "face_ids", "person_id": person_id},
        )
    new_id = add_person(making, Profile(name=name))
    making.put(ASSIGNMENTS, [(row, row | _by("manual", who) | {"person_id": new_id}) for row in moved])
    making.put(REJECTIONS, [(None, _rejection(person_id, place_in(row), who)) for row in moved])
    return new_id


def dismiss(making: Making, places: Sequence[Place], kind: DismissalKind | None, who: str) -> None:
    """Dismiss faces, or with None take that back."""
    assigned, dismissed = (_Rows(making, table, places) for table in (ASSIGNMENTS, DISMISSALS))
    if kind is None:
        making.delete(DISMISSALS, _unique(row for place in places for row in dismissed.at(place)))
        return
    named = _unique(row for place in places for row in assigned.at(place))
    if named and kind == "set_aside":
        raise OceanoError(
            "face_named",
            f"{_some(len(named), 'has', 'have')} a name",
            details={"faces": len(named), "cause": "set_aside"},
        )
    making.delete(ASSIGNMENTS, named)
    pairs = []
    for place in places:
        before = next(iter(dismissed.at(place)), None)
        if before is None or before["kind"] != kind:
            own = {"kind": kind, "dismissed_by": who, "dismissed_at": timestamp()}
            pairs.append((before, (before or {"id": str(uuid.uuid4()), **place_values(place)}) | own))
    making.put(DISMISSALS, pairs)


def _some(faces: int, one: str, other: str) -> str:
    return f"{faces} of the faces {one if faces == 1 else other}"


def name_of(making: Making, person_id: str) -> str:
    """Return the name of a person, for the journal."""
    return str(_person(making, person_id)["name"])


def _person(making: Making, person_id: str) -> Row:
    found = making.rows(PEOPLE, "id", [person_id])
    if not found:
        raise unknown_person(person_id)
    return found[0]


def _require_unnamed(others: Counter[str], taken: Sequence[str]) -> None:
    """Refuse to take faces of other people than those of whom that was said."""
    named = {person_id: n for person_id, n in others.items() if person_id not in taken}
    if named:
        raise OceanoError(
            "face_named",
            f"{_some(sum(named.values()), 'has', 'have')} another name; send `replace` to take them",
            details={"faces": sum(named.values()), "person_ids": [*sorted(named)[:100]]},
        )


def _require_no_other(places: Sequence[Place], own: dict[str, list[Place]]) -> None:
    """Refuse to name two faces of one picture alike without being told so."""
    if found := beside(places, own):
        raise OceanoError(
            "person_in_image",
            f"{_some(len(found), 'is', 'are')} in an image with another face of this person; send `same_image` if they "
            "show the same person",
            details={"faces": len(found), "image_ids": [*sorted({one.image_id for one in found})[:100]]},
        )


def _cover(making: Making, person_id: str, place: Place) -> str:
    found = _Rows(making, ASSIGNMENTS, [place]).at(place, person_id)
    if not found:
        raise OceanoError("face_unknown", "the cover must be a face of this person", details={"field": "cover"})
    return str(found[0]["id"])


def _assignment(person_id: str, place: Place, source: Source, who: str, before: Row | None) -> Row:
    new = before or {"id": str(uuid.uuid4()), **place_values(place)}
    return new | {"person_id": person_id} | _by(source, who)


def _by(source: Source, who: str) -> Row:
    return {"source": source, "assigned_by": who, "assigned_at": timestamp()}


def _rejection(person_id: str, place: Place, who: str) -> Row:
    own = {"person_id": person_id, "rejected_by": who, "rejected_at": timestamp()}
    return {"id": str(uuid.uuid4()), **place_values(place)} | own


def _unique(found: Any) -> list[Row]:
    return [*{row["id"]: row for row in found}.values()]
