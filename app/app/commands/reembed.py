"""What `oceano reembed` does: fills a collection of another model from the original files, then switches to it.

The old collection serves until the switch, and stays. Names go over to the face of the same picture that lies where
the named one lay.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Final

from app.commands.console import counted, faces_bar, say
from app.core.config import Settings
from app.core.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED, OceanoError
from app.core.paths import readable
from app.core.protocols import FaceIndex
from app.core.types import BBox, FaceFilter, FaceRecord, ModelPack
from app.images import ThumbStore
from app.index import open_beside, open_index, switch_to
from app.index.transfer import pages
from app.ingest import Ingest, IngestOptions
from app.library import File, Ledger, file_at, only_writer
from app.service.factory import build_engine, find_model, open_ledger

_log = logging.getLogger(__name__)

_PAGE: Final = 500
_MOST_PEOPLE: Final = 1_000_000
_FEW: Final = 10  # pictures that may be gone, or one in a hundred
_POLL_SECONDS: Final = 1.0
_LEAST_OVERLAP: Final = 0.5  # intersection over union: two detectors' boxes of one face have 0.7 and more


@dataclass(slots=True)
class Names:
    """Named faces whose name went over, and those that have no face in the new collection."""

    carried: int = 0
    lost: int = 0


def run_reembed(settings: Settings, there: Settings, stop: Event, *, without_gone: bool = False) -> int:
    """The exit code: 1 if files were gone or failed. `there` are the settings with the new model.

    Raises OceanoError, as where many pictures are gone (`folder_unavailable`, unless `without_gone`); the same call
    goes on where it was interrupted.
    """
    after = find_model(there)
    before = _indexed_model(there, after)
    engine = build_engine(there, many=True)
    with (
        only_writer(settings.state_dir),
        closing(open_index(settings, before, create=False)) as old,
        closing(open_ledger(settings, before)) as known,
        closing(open_beside(there, after)) as new,
        closing(open_ledger(there, after)) as ledger,
        faces_bar(old.count()) as advance,
    ):
        gone: list[str] = []
        run = Ingest(
            engine,
            new,
            ledger,
            ThumbStore(there.thumbs_dir),
            IngestOptions(there.max_image_pixels, enough=there.enough),
            stop=stop,
            on_progress=lambda counts: advance(counts.faces),
        )
        run.take(_originals(known, gone))
        if not without_gone:
            _require_most(gone, run.counts.files)
        new.maintain()
        while new.info().maintaining and not stop.wait(_POLL_SECONDS):
            pass
        if stop.is_set():
            say("interrupted; the same command goes on, the old model serves")
            return EXIT_INTERRUPTED
        _forget_others(known, new, ledger, stop)
        _carry_copies(known, ledger)
        if not without_gone:
            _require_about_as_many(old.count(), new.count())
        names = carry_names(old, new, stop)  # as late as can be: the old model's faces are named meanwhile
        switch_to(there, after)
        faces, before_faces, counts = new.count(), old.count(), run.counts
    for path in gone:
        say(f"gone: {readable(path)}")
    say(
        f"{counted(faces, 'face')} by {after.name}, {before_faces} before; files: {len(gone)} gone, "
        f"{counts.failed} failed; names: {names.carried} went over, {names.lost} found no face"
    )
    say(f"the index now has this model: set MODEL_NAME={there.model_name} and start the service again")
    return EXIT_SOME_FAILED if gone or counts.failed else EXIT_OK


def _indexed_model(settings: Settings, after: ModelPack) -> ModelPack:
    """The model that made the index, which need not be here any more. Raises OceanoError `not_found` without an index,
    and `invalid_request` where it is `after` already.
    """
    try:
        open_index(settings, after, create=False).close()
    except OceanoError as failure:
        if failure.code != "index_model_mismatch":
            raise
        made = failure.details
        nowhere = Path("/nowhere")
        size = int(str(made["index_embedding_size"]))
        return ModelPack(str(made["index_model"]), nowhere, nowhere, nowhere, str(made["index_digest"]), size)
    raise OceanoError("invalid_request", f"--model {settings.model_name!r} is the model that the index has already")


def _require_most(gone: list[str], there: int) -> None:
    """A drive that is not connected must not cost the index its pictures."""
    if len(gone) > max(_FEW, (there + len(gone)) // 100):
        raise OceanoError(
            "folder_unavailable",
            f"{len(gone)} pictures are gone, such as {readable(gone[0])}; the old model goes on serving. Connect the "
            "drive and run the same command again; --without-gone switches without them",
            details={"gone": len(gone)},
        )


def _require_about_as_many(before: int, after: int) -> None:
    """A ledger that was lost knows no pictures; no model misses every second face."""
    if 2 * after < before:
        raise OceanoError(
            "ledger_unavailable",
            f"the new model has {after} faces where the index has {before}; the old one goes on serving. If "
            "the ledger was lost, ingest the folders again first; --without-gone switches all the same",
            details={"before": before, "after": after},
        )


def _forget_others(known: Ledger, new: FaceIndex, ledger: Ledger, stop: Event) -> None:
    """What an earlier reembed left: images that were forgotten since, and names that were taken away or changed."""
    for page in pages(new, stop=stop):
        images = {record.payload.image_id for record in page}
        gone = sorted(image_id for image_id in images if known.image(image_id) is None)
        if gone:
            ledger.forget_images(gone)  # first: what it says is done is not looked at again
            new.delete([record.face_id for record in page if record.payload.image_id in gone])
        named = [one.face_id for one in page if one.payload.person is not None and one.payload.image_id not in gone]
        if named:
            new.set_payload(named, person=None)


def _carry_copies(known: Ledger, ledger: Ledger) -> None:
    """Copies of the pictures that went over are known to the new ledger, too: a picture lives on in them."""
    copies = (
        one
        for one in known.files("/")
        if one.status == "duplicate" and ledger.file(one.path) is None and ledger.image(str(one.image_id)) is not None
    )
    while some := list(islice(copies, _PAGE)):
        ledger.record(some)


def carry_names(old: FaceIndex, new: FaceIndex, stop: Event) -> Names:
    """Give the faces of `new` the names that those of `old` have: same image, and a box that lies on the other."""
    names = Names()
    for person in old.facet("person", limit=_MOST_PEOPLE):
        for page in pages(old, where=FaceFilter(person=person), stop=stop):
            for record in page:
                found = _same_face(record, new)
                if found is None:
                    names.lost += 1
                    _log.warning("no face for %s in %s", person, record.payload.path)
                    continue
                names.carried += 1
                if found.payload.person != person:
                    new.set_payload([found.face_id], person=person)
    return names


def _same_face(record: FaceRecord, new: FaceIndex) -> FaceRecord | None:
    there = new.scroll(limit=_PAGE, where=FaceFilter(image_id=record.payload.image_id)).records
    best = max(there, key=lambda one: overlap(one.payload.bbox, record.payload.bbox), default=None)
    if best is None or overlap(best.payload.bbox, record.payload.bbox) < _LEAST_OVERLAP:
        return None
    return best


def overlap(one: BBox, other: BBox) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2), 0 to 1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (one, other))
    return width * height / (areas - width * height)


def _originals(known: Ledger, gone: list[str]) -> Iterator[File]:
    """The files of all images that have a result; those that are not there any more are noted."""
    for image in known.files("/"):
        if image.status not in ("done", "no_face"):
            continue
        paths = [image.path, *known.paths_of(str(image.image_id))]  # a copy is as good
        file = next((found for path in paths if (found := file_at(path)) is not None), None)
        if file is not None:
            yield file
        elif image.status == "done":
            gone.append(image.path)
