"""The doctor: compares index, ledger and thumbnails, and repairs what the pictures allow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Final

from app.catalog import Ledger
from app.core.concurrency import processors
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.iteration import chunks
from app.core.protocols import Engine, FaceIndex
from app.core.types import File, ModelPack, face_ids_of
from app.images import DecoderPool
from app.index import damaged_files, open_index, rebuild_index
from app.ingest import DECODE_SECONDS, Ingest, IngestOptions
from app.library import (
    ConsistencyCheck,
    Inconsistencies,
    Locations,
    MissingHashes,
    PresenceCheck,
    file_at,
    only_writer,
    redrawn_thumbnail,
)
from app.people import NamesCopy
from app.service.factory import find_model, open_for_ingest, open_without_engine
from app.service.jobs import this_user
from app.service.names import people_names
from app.service.thumbs import open_thumbs

_BATCH: Final = 200


@dataclass(slots=True)
class Repairs:
    """What a repair did.

    Attributes:
        images: images that were embedded again.
        images_without_file: images that lack faces, and whose files are missing or failed.
        recorded_images: images of unknown faces that the ledger has now.
        placed_images: images whose paths were corrected in the index.
        named_images: images whose names in the index are those of the catalog now.
        drawn_thumbnails: thumbnails that were drawn again.
        deleted_thumbnails: thumbnails of faces that are not in the index.
        hashed_images: images that have a perceptual hash now.
        unhashed_images: images that have none, because no file with them can be read.
    """

    images: int = 0
    images_without_file: int = 0
    recorded_images: int = 0
    placed_images: int = 0
    named_images: int = 0
    drawn_thumbnails: int = 0
    deleted_thumbnails: int = 0
    hashed_images: int = 0
    unhashed_images: int = 0


class Doctor:
    """Checks and repairs one collection; `open_doctor` makes it.

    Args:
        settings: limits and folders.
        index: the faces.
        ledger: the known files.
        digest: the digest of the model.
        engine: embeds faces again; None if only checks are wanted.
        stop: once set, a check or a repair ends early.
    """

    def __init__(
        self, settings: Settings, index: FaceIndex, ledger: Ledger, digest: str, engine: Engine | None, stop: Event
    ) -> None:
        self._settings = settings
        self._index = index
        self._ledger = ledger
        self._digest = digest
        self._engine = engine
        self._stop = stop
        self._thumbs = open_thumbs(settings)
        self._names = NamesCopy(ledger.database, index, ledger.collection)

    def check(self) -> Inconsistencies:
        """Compare index, catalog and thumbnails.

        Raises:
            OceanoError: `index_unavailable`, `ledger_unavailable`, `thumbs_unavailable`.
        """
        self._ledger.check()
        check = ConsistencyCheck(self._index, self._ledger, self._thumbs, digest=self._digest, stop=self._stop)
        found = check.run()
        for image_id in self._names.wrong_images():
            found.misnamed_images.add(image_id)
            if self._stop.is_set():
                break
        return found

    def repair(self, found: Inconsistencies) -> Repairs:
        """Repair what a check found, as far as the pictures exist. It can be killed and run again.

        Faces of unknown images stay in the index if no file contains their image: the file may be on a drive that is
        not connected.

        Raises:
            OceanoError: as `Ingest.ingest_files` does.
        """
        repairs = Repairs()
        steps: Sequence[Callable[[Inconsistencies, Repairs], None]] = (
            self._replace_damaged,
            self._embed_again,
            self._record_unknown,
            self._place,
            self._name,
            self._draw_thumbnails,
            self._delete_thumbnails,
            self._fill_hashes,
        )
        for step in steps:
            if self._stop.is_set():
                break
            step(found, repairs)
        return repairs

    def _replace_damaged(self, found: Inconsistencies, repairs: Repairs) -> None:
        """Delete damaged faces whose picture exists, and ingest it again; names that can be read stay."""
        for face_ids in chunks(sorted(found.damaged_faces), _BATCH):
            if self._stop.is_set():
                return
            readable = {record.face_id: record.payload for record in self._index.retrieve(face_ids)}
            images = {payload.image_id for payload in readable.values()} | found.incomplete_images
            lost = {
                face_id: image_id
                for image_id in images
                for face_id in self._face_ids(image_id)
                if face_id in face_ids and _existing(self._ledger.paths_of(image_id))
            }
            self._index.delete(list(lost))
            self._embed_again(Inconsistencies(incomplete_images=set(lost.values())), repairs)
            found.incomplete_images -= set(lost.values())
            for face_id, payload in readable.items():
                if face_id in lost and payload.person is not None:
                    self._index.set_payload([face_id], person=payload.person)

    def _face_ids(self, image_id: str) -> list[str]:
        image = self._ledger.image(image_id)
        return face_ids_of(image_id, self._digest, image.faces if image else 0)

    def _embed_again(self, found: Inconsistencies, repairs: Repairs) -> None:
        """Ingest images again that lack faces; the faces that they still have stay as they are, with their names."""
        for image_ids in chunks(sorted(found.incomplete_images), _BATCH):
            if self._stop.is_set():
                return
            paths = {image_id: self._ledger.paths_of(image_id) for image_id in image_ids}
            files = {image_id: _existing(some) for image_id, some in paths.items()}
            there = [image_id for image_id in image_ids if files[image_id]]
            self._ledger.delete_images(there)
            self._ingest(file for image_id in there for file in files[image_id])
            done = sum(self._ledger.image(image_id) is not None for image_id in there)
            repairs.images += done
            repairs.images_without_file += len(image_ids) - done

    def _record_unknown(self, found: Inconsistencies, repairs: Repairs) -> None:
        """Ingest the files of faces whose image the ledger does not know; their faces are in the index already."""
        for face_ids in chunks(sorted(found.unknown_faces), _BATCH):
            if self._stop.is_set():
                return
            records = self._index.retrieve(face_ids)
            images = {record.payload.image_id for record in records}
            unknown = {image_id for image_id in images if self._ledger.image(image_id) is None}
            self._ingest(_existing(sorted({record.payload.path for record in records})))
            repairs.recorded_images += sum(self._ledger.image(image_id) is not None for image_id in unknown)

    def _place(self, found: Inconsistencies, repairs: Repairs) -> None:
        locations = Locations(self._index, self._ledger, self._thumbs, PresenceCheck(self._ledger), digest=self._digest)
        for image_ids in chunks(sorted(found.misplaced_images - found.incomplete_images), _BATCH):
            if self._stop.is_set():
                return
            locations.settle(image_ids)
            repairs.placed_images += len(image_ids)

    def _name(self, found: Inconsistencies, repairs: Repairs) -> None:
        for image_ids in chunks(sorted(found.misnamed_images), _BATCH):
            if self._stop.is_set():
                return
            repairs.named_images += self._names.copy_images(image_ids)

    def _draw_thumbnails(self, found: Inconsistencies, repairs: Repairs) -> None:
        with closing(DecoderPool(processors(), seconds=DECODE_SECONDS)) as decoders:
            for face_ids in chunks(sorted(found.without_thumbnail), _BATCH):
                for record in self._index.retrieve(face_ids):
                    if self._stop.is_set():
                        return
                    try:
                        redrawn_thumbnail(
                            record, self._ledger, self._thumbs, decoders, max_pixels=self._settings.max_image_pixels
                        )
                    except OceanoError as failure:
                        if failure.code != "thumbnail_missing":
                            raise
                    repairs.drawn_thumbnails += not self._thumbs.missing([record.face_id])

    def _delete_thumbnails(self, found: Inconsistencies, repairs: Repairs) -> None:
        """Delete unused thumbnails, except those of faces that were embedded again."""
        for face_ids in chunks(sorted(found.unused_thumbnails), _BATCH):
            used = {record.face_id for record in self._index.retrieve(face_ids)}
            unused = [face_id for face_id in face_ids if face_id not in used]
            self._thumbs.delete(unused)
            repairs.deleted_thumbnails += len(unused)

    def _fill_hashes(self, found: Inconsistencies, repairs: Repairs) -> None:
        if not found.without_hash:
            return
        with closing(DecoderPool(processors(), seconds=DECODE_SECONDS)) as decoders:
            hashed = MissingHashes(
                self._index,
                self._ledger,
                decoders,
                max_pixels=self._settings.max_image_pixels,
                min_decoded_side=self._settings.min_decoded_side,
                digest=self._digest,
                stop=self._stop,
            ).fill()
        repairs.hashed_images, repairs.unhashed_images = hashed.images, hashed.without_file

    def _ingest(self, files: Iterable[File]) -> None:
        if self._engine is None:
            raise ValueError("a repair needs an engine")
        options = IngestOptions(
            self._settings.max_image_pixels,
            min_decoded_side=self._settings.min_decoded_side,
            retry=True,
            read_names=self._settings.read_names,
        )
        names = people_names(self._ledger, self._index, this_user())
        ingest = Ingest(self._engine, self._index, self._ledger, self._thumbs, options, stop=self._stop, names=names)
        ingest.ingest_files(files)


@contextmanager
def open_doctor(
    settings: Settings, stop: Event, *, fix: bool, on_rebuilt: Callable[[int], None] = lambda _: None
) -> Iterator[Doctor]:
    """Take the lock of the ledger and open the parts that a check needs, and the engine that a repair needs.

    Args:
        settings: name the index and the data folder.
        stop: once set, checks and repairs end early.
        fix: build an index with damaged files again, and load the engine.
        on_rebuilt: called with the number of faces that were kept, if the index was built again.

    Raises:
        OceanoError: `ingest_in_progress`, `index_unavailable` if files are damaged and not `fix`, and as
            `open_for_ingest` or `open_without_engine` does.
    """
    with only_writer(settings.state_dir):
        pack = find_model(settings)
        if damaged := _damaged_files(settings, pack):
            if not fix:
                raise OceanoError(
                    "index_unavailable",
                    f"files of the index were damaged on the disk: {', '.join(damaged[:3])}; restore a backup, or run "
                    "`oceano doctor --fix`",
                    details={"damaged": [*damaged]},
                )
            on_rebuilt(rebuild_index(settings, pack))
        if fix:
            with open_for_ingest(settings) as (engine, index, ledger), ledger.exclusive():
                yield Doctor(settings, index, ledger, engine.pack.digest, engine, stop)
        else:
            with open_without_engine(settings) as (pack, index, ledger):
                yield Doctor(settings, index, ledger, pack.digest, None, stop)


def _damaged_files(settings: Settings, pack: ModelPack) -> list[str]:
    """The damaged files of the index: those that were built, and those that opening it compares."""
    if damaged := damaged_files(settings, pack):
        return damaged
    try:
        with closing(open_index(settings, pack)) as index:
            index.count()
    except OceanoError as failure:
        names = failure.details.get("damaged")
        if not isinstance(names, list):
            raise
        return [str(name) for name in names]
    return []


def _existing(paths: Iterable[str]) -> list[File]:
    return [file for path in paths if (file := file_at(path)) is not None]
