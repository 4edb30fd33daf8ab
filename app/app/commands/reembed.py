"""`oceano reembed`: embed all pictures with another model into a new collection, then activate it.

The old collection stays in use until then, and is kept. Names are in the catalog; each goes to the face of the picture
whose box overlaps most.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Final

from app.catalog import Ledger
from app.commands.audit import record_command
from app.commands.console import counted, faces_bar, say
from app.core.config import Settings
from app.core.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED, OceanoError
from app.core.paths import readable
from app.core.protocols import FaceIndex
from app.core.types import File, ModelPack
from app.images import Thumbs
from app.index import activate_collection, open_index, open_model_collection
from app.index.transfer import pages
from app.ingest import Ingest, IngestOptions
from app.library import Locations, PresenceCheck, file_at, has_read_pages, only_writer
from app.people import NamesCopy
from app.service import Grouping, build_engine, find_model, open_ledger, open_thumbs

_PAGE: Final = 500
_MAX_MISSING: Final = 10  # pictures, or one in a hundred
_POLL_SECONDS: Final = 1.0


def run_reembed(settings: Settings, new_settings: Settings, stop: Event, *, without_gone: bool = False) -> int:
    """Embed all pictures with another model and activate its collection; continues where an earlier call ended.

    Args:
        settings: the current settings.
        new_settings: the settings with the new model.
        stop: once set, ends the work; the old model stays in use.
        without_gone: activate the new collection even if many pictures are missing.

    Returns:
        The exit code: 0, 1 if files were missing or failed, 130 if interrupted.

    Raises:
        OceanoError: `folder_unavailable` if many pictures are missing, `ledger_unavailable` if it is lost or damaged,
            `not_found` without an index, `invalid_request` if it already uses the model, `ingest_in_progress`, and as
            `Ingest.run` and `build_engine` do.
    """
    new_pack = find_model(new_settings)
    old_pack = _indexed_model(new_settings, new_pack)
    engine = build_engine(new_settings, many=True)
    with (
        only_writer(settings.state_dir),
        closing(open_index(settings, old_pack, create=False)) as old_index,
        closing(open_ledger(settings, old_pack)) as old_ledger,
        closing(open_model_collection(new_settings, new_pack)) as new_index,
        closing(open_ledger(new_settings, new_pack)) as new_ledger,
        new_ledger.exclusive(),
        faces_bar(old_index.count()) as advance,
    ):
        old_ledger.check()
        record_command(settings, "command.reembed", {"model": new_pack.name})
        missing_paths: list[str] = []
        not_grouped = ""
        ingest = Ingest(
            engine,
            new_index,
            new_ledger,
            open_thumbs(new_settings),
            IngestOptions(
                new_settings.max_image_pixels,
                min_decoded_side=new_settings.min_decoded_side,
                all_pages=any(map(has_read_pages, old_ledger.images())),
            ),
            stop=stop,
            on_progress=lambda counts: advance(counts.faces),
        )
        ingest.ingest_files(_originals(old_ledger, missing_paths))
        if not without_gone:
            _require_most_files(missing_paths, ingest.counts.files)
        new_index.maintain()
        while new_index.info().maintaining and not stop.wait(_POLL_SECONDS):
            pass
        if stop.is_set():
            say("interrupted; run the same command again to continue. The old model stays in use")
            return EXIT_INTERRUPTED
        _remove_outdated(old_ledger, new_index, new_ledger, stop)
        _record_copies(old_ledger, new_ledger)
        _settle_copies(new_index, new_ledger, open_thumbs(new_settings), new_pack.digest, stop)
        if not without_gone:
            _require_most_faces(old_index.count(), new_index.count())
        # last, because names can change meanwhile
        names = NamesCopy(new_ledger.database, new_index, new_ledger.collection).copy_all()
        activate_collection(new_settings, new_pack)
        faces, old_faces, counts = new_index.count(), old_index.count(), ingest.counts
        if new_settings.group_after_ingest:
            not_grouped = Grouping(new_pack, new_index, new_ledger, stop).after_ingest()
    for path in missing_paths:
        say(f"missing: {readable(path)}")
    say(
        f"{counted(faces, 'face')} with {new_pack.name}, {old_faces} before; files: {len(missing_paths)} missing, "
        f"{counts.failed} failed; names: {names.kept} kept, {names.lost} lost"
    )
    if not_grouped:
        say(not_grouped)
    say(f"the index now uses this model: set MODEL_NAME={new_settings.model_name} and restart the service")
    return EXIT_SOME_FAILED if missing_paths or counts.failed else EXIT_OK


def _indexed_model(settings: Settings, new_pack: ModelPack) -> ModelPack:
    """Return the model that made the index; its files need not exist, so the pack has no valid paths.

    Raises:
        OceanoError: `not_found` without an index, `invalid_request` if `new_pack` made it.
    """
    try:
        open_index(settings, new_pack, create=False).close()
    except OceanoError as failure:
        if failure.code != "index_model_mismatch":
            raise
        details = failure.details
        nowhere = Path("/nowhere")
        size = int(str(details["index_embedding_size"]))
        return ModelPack(str(details["index_model"]), nowhere, nowhere, nowhere, str(details["index_digest"]), size)
    raise OceanoError("invalid_request", f"--model {settings.model_name!r}: the index already uses this model")


def _require_most_files(missing_paths: list[str], found: int) -> None:
    """Refuse to drop many pictures: their drive may be disconnected."""
    missing = len(missing_paths)
    if missing > max(_MAX_MISSING, (found + missing) // 100):
        raise OceanoError(
            "folder_unavailable",
            f"{missing} pictures are missing, such as {readable(missing_paths[0])}; the old model stays in use. "
            "Connect the drive and run the same command again, or add --without-gone to continue without them",
            details={"gone": missing},
        )


def _require_most_faces(before: int, after: int) -> None:
    """Refuse to drop half of the faces: the ledger was probably lost, and with it the list of pictures."""
    if 2 * after < before:
        raise OceanoError(
            "ledger_unavailable",
            f"the new model found {after} faces, but the index has {before}; the old model stays in use. If the ledger "
            "was lost, ingest the folders again first, or add --without-gone to continue all the same",
            details={"before": before, "after": after},
        )


def _remove_outdated(old_ledger: Ledger, new_index: FaceIndex, new_ledger: Ledger, stop: Event) -> None:
    """Remove images that an earlier reembed wrote and that were removed since."""
    for page in pages(new_index, stop=stop):
        image_ids = {record.payload.image_id for record in page}
        removed = sorted(image_id for image_id in image_ids if old_ledger.image(image_id) is None)
        if removed:
            new_ledger.delete_images(removed)  # before the faces: an image that is done in the ledger is skipped
            new_index.delete([record.face_id for record in page if record.payload.image_id in removed])


def _record_copies(old_ledger: Ledger, new_ledger: Ledger) -> None:
    """Record the copies of the pictures in the new ledger, too, so that a prune finds a surviving copy."""
    copies = (
        record
        for record in old_ledger.files("/")
        if record.status == "duplicate"
        and new_ledger.file(record.path) is None
        and new_ledger.image(str(record.image_id)) is not None
    )
    while batch := list(islice(copies, _PAGE)):
        new_ledger.record(batch)


def _settle_copies(index: FaceIndex, ledger: Ledger, thumbs: Thumbs, digest: str, stop: Event) -> None:
    """Give the new faces the folders of all copies; those of an earlier reembed may have moved since."""
    ledger.unsettle_copies()
    Locations(index, ledger, thumbs, PresenceCheck(ledger), digest=digest).settle_all(stop)


def _originals(old_ledger: Ledger, missing_paths: list[str]) -> Iterator[File]:
    """Yield a file of each image, the original or a copy; add images with faces but no file to `missing_paths`."""
    for image in old_ledger.files("/"):
        if image.status not in ("done", "no_face"):
            continue
        paths = [image.path, *old_ledger.paths_of(str(image.image_id))]
        file = next((found for path in paths if (found := file_at(path)) is not None), None)
        if file is not None:
            yield file
        elif image.status == "done":
            missing_paths.append(image.path)
