"""`oceano doctor`: check index, ledger and thumbnails, and repair them."""

from __future__ import annotations

import json
from dataclasses import asdict
from threading import Event
from typing import Any

from app.commands.audit import record_command
from app.commands.console import counted, say
from app.core.config import Settings
from app.core.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED
from app.library import Inconsistencies
from app.service import Repairs, open_doctor


def run_doctor(settings: Settings, stop: Event, *, fix: bool, as_json: bool) -> int:
    """Check, repair if asked to, and check again.

    Args:
        settings: name the index and the data folder.
        stop: once set, the check or repair ends early.
        fix: repair what was found.
        as_json: print one JSON line.

    Returns:
        The exit code: 0 all is well now, 1 something is not, 130 interrupted.

    Raises:
        OceanoError: as `open_doctor`, `Doctor.check` and `Doctor.repair` do.
    """
    repairs: Repairs | None = None
    with open_doctor(settings, stop, fix=fix, on_rebuilt=lambda faces: _say_rebuilt(faces, as_json=as_json)) as doctor:
        found = doctor.check()
        if not as_json:
            _say_found(found)
        if fix and found.is_repairable and not stop.is_set():
            record_command(settings, "command.doctor", {"fix": True})
            repairs = doctor.repair(found)
            if not as_json:
                _say_repairs(repairs)
            found = doctor.check()
            if not as_json and not found.is_empty:
                say("Not repaired:")
                _say_found(found)
    if as_json:
        print(json.dumps(_counts(found) | {"repairs": asdict(repairs) if repairs else None}))  # noqa: T201
    elif found.is_repairable and not fix:
        say("Run `oceano doctor --fix` to repair this; it needs the picture files.")
    if stop.is_set():
        return EXIT_INTERRUPTED
    return EXIT_OK if found.is_empty else EXIT_SOME_FAILED


def _counts(found: Inconsistencies) -> dict[str, Any]:
    return {name: len(value) if isinstance(value, set) else value for name, value in asdict(found).items()}


def _say_rebuilt(faces: int, *, as_json: bool) -> None:
    if not as_json:
        say(f"Files of the index were damaged. It was built again with {counted(faces, 'face')} that could be read.")


def _say_found(found: Inconsistencies) -> None:
    say(f"The index has {counted(found.faces, 'face')}, the ledger {counted(found.images, 'image')} with faces.")
    for names, one, many in (
        (found.damaged_faces, "face is damaged in the index", "faces are damaged in the index"),
        (found.incomplete_images, "image lacks faces in the index", "images lack faces in the index"),
        (found.unknown_faces, "face belongs to no file of the ledger", "faces belong to no file of the ledger"),
        (found.misplaced_images, "image has outdated paths in the index", "images have outdated paths in the index"),
        (found.misnamed_images, "image has outdated names in the index", "images have outdated names in the index"),
        (found.without_thumbnail, "face has no thumbnail", "faces have no thumbnail"),
        (found.unused_thumbnails, "thumbnail belongs to no face", "thumbnails belong to no face"),
    ):
        if names:
            say(f"- {len(names)} {one if len(names) == 1 else many}")
    if found.without_hash:
        say(
            f"- {counted(found.without_hash, 'image')} without a perceptual hash, which older versions did not store; "
            "near-identical photographs of them are not recognized"
        )
    if found.is_empty:
        say("Index, catalog and thumbnails agree.")


def _say_repairs(repairs: Repairs) -> None:
    say(
        f"Repaired: {counted(repairs.images, 'image')} embedded again, {repairs.recorded_images} recorded, "
        f"paths of {repairs.placed_images} and names of {repairs.named_images} corrected; "
        f"{counted(repairs.drawn_thumbnails, 'thumbnail')} drawn, {repairs.deleted_thumbnails} deleted."
    )
    if repairs.hashed_images:
        say(f"{counted(repairs.hashed_images, 'image')} got a perceptual hash.")
    if count := repairs.unhashed_images:
        them = "it" if count == 1 else "them"
        say(f"{counted(count, 'image')} without a perceptual hash: no file with {them} can be read.")
    if repairs.images_without_file:
        say(f"{counted(repairs.images_without_file, 'image')} without a readable file: connect the drive, then repeat.")
