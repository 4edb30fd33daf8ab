"""`oceano changes` and `oceano undo`: the changes of people, and undoing one."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from app.catalog import Change, ChangeLog, PeopleStore
from app.commands.audit import record_command
from app.commands.console import plain
from app.core.config import Settings
from app.core.errors import EXIT_OK, OceanoError
from app.core.paths import readable
from app.core.texts import translator
from app.people import Author, NamesCopy, Naming, checked_name
from app.service import change_words, open_catalog, open_without_engine, this_user

_SAME_NAME: Final = 200  # people
_RECORDED: Final = 100  # ids of people in the audit log


def run_changes(settings: Settings, person: str, limit: int, *, as_json: bool) -> int:
    """Print the newest changes, newest first: a line each, or as a JSON array.

    Args:
        settings: name the catalog.
        person: name or id of a person, who may be deleted; empty: all changes.
        limit: the largest number of them.
        as_json: print a JSON array.

    Raises:
        OceanoError: `person_unknown`, `ledger_unavailable`, `disk_full`.
    """
    with open_catalog(settings) as database:
        log = ChangeLog(database)
        ids = _ids(PeopleStore(database), person) if person else []
        found = _of_people(log, ids, limit + 1) if person else log.find(limit=limit + 1)
    if person and not found:
        raise OceanoError(
            "person_unknown", f"nobody has the name or id {readable(person)}", details={"person": readable(person)}
        )
    shown = found[:limit]
    record_command(settings, "changes.list", {"person_ids": ids[:_RECORDED] or None, "changes": len(shown)})
    if as_json:
        _print(json.dumps([_as_json(one) for one in shown]))
        return EXIT_OK
    for line in _table(shown):
        _print(line)
    if len(found) > limit:
        _print(f"These are the newest {limit}; --limit shows more.")
    return EXIT_OK


def run_undo(settings: Settings, number: int, *, as_json: bool) -> int:
    """Undo a change, also one that undid another, and print what was undone.

    Raises:
        OceanoError: `change_unknown`, `change_conflict`, and as `open_without_engine` and `record_command` do.
    """
    with open_without_engine(settings) as (_, index, ledger):
        database = ledger.database
        naming = Naming(database, index, NamesCopy(database, index, ledger.collection))
        try:
            change = naming.undo(number, Author(this_user())).change
        except OceanoError as failure:
            raise _explained(failure, ChangeLog(database), number) from failure
    assert change is not None  # noqa: S101 - a change has rows, which were changed
    record_command(settings, "change.undo", {"change": change.number, "undone": number, "faces": change.faces})
    if as_json:
        _print(json.dumps(_as_json(change)))
    else:
        back = "Undo" if change.details.get("again") else "Redo"
        _print(f"{_words(change)}. {back} with: oceano undo {change.number}")
    return EXIT_OK


def _ids(store: PeopleStore, person: str) -> list[str]:
    """Return the ids of all people with a name, whatever its case and accents, or the id that the text is.

    The id may be that of somebody deleted.
    """
    if named := store.alike(checked_name(person), _SAME_NAME):
        return [one.id for one in named]
    try:
        return [str(uuid.UUID(person))]
    except ValueError:
        return []


def _of_people(log: ChangeLog, ids: Sequence[str], limit: int) -> list[Change]:
    """Return the newest changes that are about one of some people."""
    changes = {one.number: one for person_id in ids for one in log.find(person_id=person_id, limit=limit)}
    return [changes[number] for number in sorted(changes, reverse=True)][:limit]


def _explained(failure: OceanoError, log: ChangeLog, number: int) -> OceanoError:
    """Return the error with what stands in the way of an undo, and what to do."""
    change = log.get(number)
    if failure.code != "change_conflict" or change is None:
        return failure
    if change.undone_by is not None:
        message = f"change {number} was undone already, by change {change.undone_by}. To redo it: oceano undo "
        return OceanoError("change_conflict", f"{message}{change.undone_by}", details=failure.details)
    if (later := log.later(number)) is None:
        return failure
    message = (
        f"change {number} cannot be undone, because change {later.number} ({_words(later)}) is about the same faces or "
        f"the same person. First undo that one: oceano undo {later.number}"
    )
    return OceanoError("change_conflict", message, details={**failure.details, "later": later.number})


def _table(changes: Sequence[Change]) -> list[str]:
    if not changes:
        return ["There are no changes yet."]
    cells = [("CHANGE", "TIME (UTC)", "BY", "FACES", "WHAT"), *(_cells(one) for one in changes)]
    number, at, who, faces, _ = (max(map(len, column)) for column in zip(*cells, strict=True))
    return [f"{row[0]:>{number}}  {row[1]:{at}}  {row[2]:{who}}  {row[3]:>{faces}}  {row[4]}" for row in cells]


def _cells(change: Change) -> tuple[str, str, str, str, str]:
    undone = "" if change.undone_by is None else f" (undone by {change.undone_by})"
    at = change.at[:19].replace("T", " ")
    return str(change.number), at, plain(change.who), str(change.faces), f"{_words(change)}{undone}"


def _as_json(change: Change) -> dict[str, Any]:
    return asdict(change) | {"text": _words(change)}


def _words(change: Change) -> str:
    t = translator("en")
    return change_words(
        change.kind, change.details, change.faces, t, lambda name: plain(str(name)) if name else t("person.no_name")
    )


def _print(line: str) -> None:
    print(line)  # noqa: T201 - names are not logged
