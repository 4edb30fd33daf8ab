"""Which face stands for each person: chosen once, so that it does not change by itself as faces are added."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, exists, select

from app.catalog.people import Place, place_in
from app.catalog.tables import ASSIGNMENTS, PEOPLE
from app.core.boxes import area
from app.core.iteration import chunks

_AT_ONCE: Final = 500
_FACE: Final = ASSIGNMENTS.c


def choose_covers(
    connection: Connection,
    person_ids: Collection[str],
    assigned: Sequence[Mapping[str, Any]],
    ratings: Mapping[Place, float],
) -> list[tuple[str, str | None, str]]:
    """Choose a cover for people who have none, or whose cover is not their face any more.

    The best of the faces that they have just got; else the one that they have had for the longest time, and of several
    the largest. Somebody without a face keeps what was chosen: the face may come back.

    Args:
        connection: in the transaction of a change.
        person_ids: the people.
        assigned: the rows of assignments that the change has put.
        ratings: how well faces stand for a person; faces without one are compared by their size.

    Returns:
        The people with their covers before and after.
    """
    lacking = _without_cover(connection, person_ids)
    best: dict[str, tuple[tuple[float, float], str]] = {}
    for row in assigned:
        if row["person_id"] in lacking:
            place = place_in(row)
            found = ((ratings.get(place, 0.0), area(place.bbox)), str(row["id"]))
            best[row["person_id"]] = max(found, best.get(row["person_id"], found))
    chosen = []
    for person_id, before in sorted(lacking.items()):
        cover = best[person_id][1] if person_id in best else _first(connection, person_id)
        if cover is not None:
            chosen.append((person_id, before, cover))
    return chosen


def _without_cover(connection: Connection, person_ids: Collection[str]) -> dict[str, str | None]:
    """Return the people whose cover is not their face, with this cover."""
    own = exists().where(_FACE.id == PEOPLE.c.cover, _FACE.person_id == PEOPLE.c.id)
    found: dict[str, str | None] = {}
    for some in chunks(sorted(person_ids), _AT_ONCE):
        lacking = connection.execute(select(PEOPLE.c.id, PEOPLE.c.cover).where(PEOPLE.c.id.in_(some), ~own))
        found |= {row.id: row.cover for row in lacking}
    return found


def _first(connection: Connection, person_id: str) -> str | None:
    larger = ((_FACE.x2 - _FACE.x1) * (_FACE.y2 - _FACE.y1)).desc()
    query = select(_FACE.id).where(_FACE.person_id == person_id).order_by(_FACE.assigned_at, larger, _FACE.id)
    return connection.execute(query.limit(1)).scalar_one_or_none()
