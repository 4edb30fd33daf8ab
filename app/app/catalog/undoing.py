"""What undoing a change does to the rows of the catalog, and when it is refused."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import Table, select

from app.catalog.people import is_same_face, place_in
from app.catalog.tables import ASSIGNMENTS, CHANGED_ROWS, DISMISSALS, PEOPLE, REJECTIONS
from app.core.errors import OceanoError

if TYPE_CHECKING:
    from app.catalog.changes import Making, Row

_TABLES: Final = {table.name: table for table in (PEOPLE, ASSIGNMENTS, REJECTIONS, DISMISSALS)}
_COUNTED: Final = frozenset({"faces", "version", "changed_at"})  # columns that follow from others
_CHOSEN: Final = "cover"  # follows from the faces unless somebody has chosen it
COVERS: Final = "covers"
"""Stands for the table in the journal's rows about covers that nobody chose."""


@dataclass(frozen=True, slots=True)
class _Changed:
    """A row of a change: None before if it was new, None after if it was deleted."""

    row_id: str
    before: Row | None
    after: Row | None

    @property
    def chose_cover(self) -> bool:
        """Whether somebody chose another cover."""
        both = self.before is not None and self.after is not None
        return both and _cover(self.before) != _cover(self.after)


def put_back(making: Making, number: int) -> None:
    """Put back what the rows of a change were before it.

    Args:
        making: the change that undoes it.
        number: of the change.

    Raises:
        OceanoError: `change_conflict` if one of the rows has changed since, or if something contradicts it now.
    """
    of_table: dict[str, list[_Changed]] = defaultdict(list)
    query = select(CHANGED_ROWS).where(CHANGED_ROWS.c.change == number).order_by(CHANGED_ROWS.c.place)
    for row in making.connection.execute(query):
        of_table[row.table_name].append(_Changed(row.row_id, _read(row.before), _read(row.after)))
    covers = {one.row_id: (_cover(one.before), _cover(one.after)) for one in of_table[COVERS]}
    removed: list[Row] = []  # people, whose faces must be gone first
    restored: dict[Table, list[Row]] = {}
    for name, table in _TABLES.items():
        put, gone = _steps(making, number, table, of_table[name], covers)
        restored[table] = [after for _, after in put]
        _require_people(making, number, restored[table])
        making.put(table, put)
        if table is PEOPLE:
            removed = gone
        else:
            making.delete(table, gone)
    chosen = {one.row_id for one in of_table[PEOPLE.name] if one.chose_cover}
    _put_covers_back(making, {person_id: cover for person_id, cover in covers.items() if person_id not in chosen})
    _require_no_contradiction(making, number, restored)
    _remove_people(making, number, removed)


def conflict(number: int, message: str, cause: str) -> OceanoError:
    """Return the error for a change that cannot be undone."""
    return OceanoError("change_conflict", message, details={"change": number, "cause": cause})


def _steps(
    making: Making,
    number: int,
    table: Table,
    changed: Sequence[_Changed],
    covers: Mapping[str, tuple[str | None, str | None]],
) -> tuple[list[tuple[Row | None, Row]], list[Row]]:
    """Return the rows to put, each as it is and as it was, and those to delete."""
    now = {row["id"]: row for row in making.rows(table, "id", [one.row_id for one in changed])}
    put: list[tuple[Row | None, Row]] = []
    gone: list[Row] = []
    for one in changed:
        current, before, after = now.get(one.row_id), one.before, one.after
        follows = _COUNTED if one.chose_cover else _COUNTED | {_CHOSEN}
        if after is not None and one.row_id in covers:
            after = after | {_CHOSEN: covers[one.row_id][1]}
        if not _is_same(current, after, follows):
            raise conflict(number, f"what change {number} did was changed again since", "changed")
        if before is not None:
            put.append((current, before if current is None else current | _own(before, follows)))
        elif current is not None:
            gone.append(current)
    return put, gone


def _put_covers_back(making: Making, covers: Mapping[str, tuple[str | None, str | None]]) -> None:
    """Give people the covers back that they lost by a change, unless they have another one since."""
    for person in making.rows(PEOPLE, "id", sorted(covers)):
        before, after = covers[person["id"]]
        if person[_CHOSEN] == after:
            making.set_cover(person["id"], after, before)


def _require_people(making: Making, number: int, restored: Sequence[Row]) -> None:
    """Refuse to give faces back to somebody who was deleted since; people are put back before their faces."""
    ids = {row["person_id"] for row in restored if "person_id" in row}
    if len(making.rows(PEOPLE, "id", sorted(ids))) < len(ids):
        raise conflict(number, f"a person whose faces change {number} took was deleted since", "person_deleted")


def _require_no_contradiction(making: Making, number: int, restored: dict[Table, list[Row]]) -> None:
    """Refuse to put back what was said about a face if the contrary was said since."""
    named, rejected, dismissed = (restored[table] for table in (ASSIGNMENTS, REJECTIONS, DISMISSALS))
    if _is_about_same_face(making, ASSIGNMENTS, [*named, *dismissed], _differ):
        raise conflict(number, f"a face of change {number} has got another name since", "named")
    if _is_about_same_face(making, ASSIGNMENTS, rejected, _same_person):
        raise conflict(number, f"a face of change {number} has got the rejected name since", "named")
    if _is_about_same_face(making, DISMISSALS, [*named, *dismissed], _differ):
        raise conflict(number, f"a face of change {number} was dismissed since", "dismissed")
    if _is_about_same_face(making, REJECTIONS, named, _same_person):
        raise conflict(number, f"a name of change {number} was rejected since", "rejected")


def _is_about_same_face(
    making: Making, table: Table, restored: Sequence[Row], contradicts: Callable[[Row, Row], bool]
) -> bool:
    by_image = making.by_image(table, [row["image_id"] for row in restored])
    return any(
        contradicts(row, other) and is_same_face(place_in(row), place_in(other))
        for row in restored
        for other in by_image[row["image_id"]]
    )


def _differ(row: Row, other: Row) -> bool:
    return bool(row["id"] != other["id"])


def _same_person(row: Row, other: Row) -> bool:
    return bool(row["person_id"] == other["person_id"])


def _remove_people(making: Making, number: int, removed: Sequence[Row]) -> None:
    ids = [row["id"] for row in removed]
    if any(making.rows(table, "person_id", ids) for table in (ASSIGNMENTS, REJECTIONS)):
        raise conflict(number, f"the person that change {number} added has got faces since", "has_faces")
    making.delete(PEOPLE, removed)


def _read(stored: str | None) -> Row | None:
    return None if stored is None else dict(json.loads(stored))


def _cover(row: Row | None) -> str | None:
    return None if row is None else row.get(_CHOSEN)


def _own(row: Row, follows: frozenset[str]) -> Row:
    """Return the values that were set, without those that follow from others."""
    return {name: value for name, value in row.items() if name not in follows}


def _is_same(one: Row | None, other: Row | None, follows: frozenset[str]) -> bool:
    return one is other if one is None or other is None else _own(one, follows) == _own(other, follows)
