"""With a million faces, a query that reads all of them takes a second: a page of groups asks dozens."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from app.catalog import ChangeLog, CopiedNames, DismissedFaces, FaceTable, PeopleStore, UnnamedGroups, open_sqlite
from tests.support.plans import selects_of, whole_reads

ONE, OTHER = "0f9e6f8a-0a9f-5f0c-9d0e-7a0f3a3b1c2d", "1f9e6f8a-0a9f-5f0c-9d0e-7a0f3a3b1c2d"
IMAGES: Final = ["a" * 64, "b" * 64]
LOOK_UPS: Final[dict[str, Callable[..., Any]]] = {
    "the faces of a group": lambda groups, **_: groups.faces(ONE, limit=8),
    "more faces of a group": lambda groups, **_: groups.faces(ONE, after=OTHER, limit=8),
    "the size of a group": lambda groups, **_: groups.size(ONE),
    "the sizes of groups": lambda groups, **_: groups.sizes([ONE, OTHER]),
    "faces that wait for an answer": lambda groups, **_: groups.waiting(),
    "the groups of faces": lambda groups, **_: groups.of_faces([ONE, OTHER]),
    "faces to be grouped again": lambda groups, **_: groups.ungrouped(clear=True, after=ONE, limit=8),
    "covers": lambda copied, **_: copied.covers({ONE: None, OTHER: ONE}),
    "faces of people": lambda copied, **_: copied.counts([ONE, OTHER]),
    "unnamed faces beside named ones": lambda copied, **_: copied.unnamed_beside(ONE, limit=8),
    "what is known of faces": lambda table, **_: table.known([ONE, OTHER]),
    "the members of groups": lambda table, **_: list(table.members([ONE, OTHER])),
    "which groups there are": lambda table, **_: table.groups_among([ONE, OTHER]),
    "a person": lambda store, **_: store.person(ONE),
    "people": lambda store, **_: store.persons([ONE, OTHER]),
    "people of a name": lambda store, **_: store.named("Ada"),
    "assignments in images": lambda store, **_: store.assignments_in(IMAGES),
    "dismissals in images": lambda store, **_: store.dismissals_in(IMAGES),
    "rejections in images": lambda store, **_: store.rejections_in(IMAGES),
    "assignments of a person": lambda store, **_: store.assignments_of(ONE),
    "rejections of a person": lambda store, **_: store.rejections_of(ONE),
    "who is beside a person": lambda store, **_: store.together(ONE),
    "changes": lambda log, **_: log.find(before=9, limit=8),
    "changes of a person": lambda log, **_: log.find(person_id=ONE, limit=8),
    "the newest change": lambda log, **_: log.newest_number(),
    "images of later changes": lambda log, **_: log.images_after(9),
    "who removed a person": lambda log, **_: log.removal_of(ONE),
    "people of changes": lambda log, **_: log.people_of([9], 3),
    "a later change of the same rows": lambda log, **_: log.later(9),
    "dismissed faces": lambda dismissed, **_: dismissed.newest("set_aside", after=("2026", ONE), limit=8),
}


@pytest.mark.parametrize("name", LOOK_UPS)
def test_no_look_up_of_people_reads_a_whole_table(tmp_path: Path, name: str) -> None:
    with closing(open_sqlite(tmp_path / "catalog.sqlite3")) as database:
        parts = {
            "store": PeopleStore(database),
            "log": ChangeLog(database),
            "dismissed": DismissedFaces(database),
            "table": FaceTable(database, "faces"),
            "copied": CopiedNames(database, "faces"),
            "groups": UnnamedGroups(database, "faces"),
        }
        with selects_of(database) as asked:
            LOOK_UPS[name](**parts)
        assert asked
        for statement, values in asked:
            assert whole_reads(database, statement, values) == [], statement
