"""A worker does with a shared job what an ingest does with the same folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event

import pytest

from app.catalog import ChangeLog, ClaimedLedger, FaceTable, FileRecord, Job, Jobs, Ledger, PeopleStore, Worker
from app.catalog.database import Database
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.types import FacePayload, File
from app.images import ThumbStore
from app.ingest import Ingest, IngestOptions
from app.service.jobs import options_of
from app.service.request import IngestRequest
from app.service.worker import IngestWorker, WorkerParts
from tests.support.catalogs import KINDS, new_catalog
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.pictures import BLACK, encoded
from tests.support.shared_jobs import COLLECTION
from tests.support.xmp import mwg, packet, picture_with

COMPARED = ("files", "done", "no_face", "failed", "duplicate", "moved", "skipped", "ignored", "faces", "raw_pairs")


class Shared:
    """A catalog with a worker, and beside it a direct ingest into a catalog of its own."""

    def __init__(self, database: Database, direct: Database, folder: Path, base: Path) -> None:
        self.ledger, self.direct = Ledger(database, COLLECTION), Ledger(direct, COLLECTION)
        self.jobs = Jobs(database, COLLECTION)
        self.index, self.direct_index = MemoryIndex(), MemoryIndex()
        self.folder, self._thumbs = folder, ThumbStore(base / "thumbs")
        self._settings = Settings(_env_file=None, data_dir=base / "data")

    def queue(self, **options: object) -> str:
        return self.jobs.add(str(self.folder), options_of(replace(IngestRequest(self.folder), **options)), "tests")  # type: ignore[arg-type]

    def work(self) -> None:
        parts = WorkerParts(FakeEngine(), self.index, self.ledger, self._thumbs)
        IngestWorker(parts, self._settings, Event()).run(once=True)

    def both(self, **options: object) -> Job:
        """Ingest with a worker and directly, and compare results and counts."""
        job_id = self.queue(**options)
        self.work()
        ingest = Ingest(
            FakeEngine(), self.direct_index, self.direct, self._thumbs,
            IngestOptions(self._settings.max_image_pixels, retry=bool(options.get("retry"))),
        )  # fmt: skip
        ingest.run(self.folder)
        job = self.jobs.get(job_id)
        assert job.state == "done"
        counts = asdict(ingest.counts)
        assert {name: job.counts.get(name, 0) for name in COMPARED} == {name: counts[name] for name in COMPARED}
        assert self.by_image(self.ledger) == self.by_image(self.direct)
        assert self.points(self.index) == self.points(self.direct_index)
        return job

    @staticmethod
    def points(index: MemoryIndex) -> dict[str, tuple[FacePayload, list[float]]]:
        """Payloads and embeddings by face; the time of the ingest differs."""
        return {
            face_id: (replace(point.payload, ingested_at=""), point.embedding.tolist())
            for face_id, point in index.points.items()
        }

    @staticmethod
    def by_image(ledger: Ledger) -> dict[object, list[tuple[str, int, str | None]]]:
        found: dict[object, list[tuple[str, int, str | None]]] = {}
        for one in ledger.files("/"):
            found.setdefault(one.image_id, []).append((one.status, one.faces, one.reason))
        return {image_id: sorted(files, key=str) for image_id, files in found.items()}


@pytest.fixture(params=KINDS)
def shared(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shared]:
    monkeypatch.setattr("app.service.worker.POLL_SECONDS", 0.02)
    folder = tmp_path / "pictures"
    for place in range(5):
        path = folder / f"{place % 2}" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded((200 - 30 * place, 40, 40)))
    shutil.copy(folder / "0" / "0.png", folder / "1" / "copy of 0.png")
    (folder / "nobody.png").write_bytes(encoded(BLACK))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    (folder / "notes.txt").write_text("no picture")
    with (
        new_catalog(request.param, tmp_path / "shared") as database,
        new_catalog("sqlite", tmp_path / "direct") as direct,
    ):
        yield Shared(database, direct, folder, tmp_path)


def test_results_and_counts_are_those_of_a_direct_ingest(shared: Shared) -> None:
    job = shared.both()
    assert job.counts["files"] == 9
    assert [(one.path, one.code) for one in shared.jobs.problems(job.id)] == [
        (str(shared.folder / "broken.jpg"), "invalid_image")
    ]


def test_the_worker_that_ends_a_job_groups_its_faces_and_ends_it_also_if_that_fails(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.both()
    table = FaceTable(shared.ledger.database, shared.ledger.collection)
    assert table.count_new() == 0
    table.forget_all_groups()
    new = table.count_new()
    assert new > 0

    def fail(*_: object, **__: object) -> None:
        raise OceanoError("index_unavailable", "the index is gone")

    monkeypatch.setattr(shared.index, "search_scores", fail)
    job = shared.both()
    assert (job.state, table.count_new()) == ("done", new)


def test_a_second_job_skips_moves_and_replaces_as_an_ingest_does(shared: Shared) -> None:
    shared.both()
    (shared.folder / "0" / "2.png").rename(shared.folder / "moved.png")
    (shared.folder / "1" / "3.png").write_bytes(encoded((10, 200, 10)))
    (shared.folder / "1" / "new.png").write_bytes(encoded((10, 10, 200)))
    job = shared.both()
    assert (job.counts["moved"], job.counts["done"]) == (1, 2)
    assert shared.ledger.replaced() == []
    job = shared.both(retry=True)
    assert job.counts["failed"] == 1


def test_a_raw_file_and_its_jpeg_are_one_image_as_in_an_ingest(shared: Shared) -> None:
    (shared.folder / "pair.dng").write_bytes(encoded((90, 120, 10), size=(96, 64), kind="TIFF"))
    (shared.folder / "pair.jpg").write_bytes(encoded((90, 120, 10), kind="JPEG"))
    (shared.folder / "later.dng").write_bytes(encoded((10, 120, 90), size=(96, 64), kind="TIFF"))
    assert shared.both().counts["raw_pairs"] == 1
    (shared.folder / "later.jpg").write_bytes(encoded((10, 120, 90), kind="JPEG"))
    assert shared.both().counts["raw_pairs"] == 2
    paths = {Path(point.payload.path).name for point in shared.index.points.values()}
    assert paths >= {"pair.jpg", "later.jpg"}
    assert not paths & {"pair.dng", "later.dng"}
    assert shared.ledger.replaced() == []


def test_a_prune_removes_only_what_was_missing_before(shared: Shared) -> None:
    shared.both()
    (shared.folder / "1" / "1.png").unlink()
    job_id = shared.queue(prune=True)
    shared.work()
    assert shared.jobs.get(job_id).counts["pruned"] == 1
    assert shared.ledger.file(str(shared.folder / "1" / "1.png")) is None
    assert len(shared.index.points) == 4


def test_a_limit_ends_the_job_early_and_the_next_one_goes_on(shared: Shared) -> None:
    job_id = shared.queue(limit=2)
    shared.work()
    job = shared.jobs.get(job_id)
    assert (job.state, sum(1 for _ in shared.ledger.files("/"))) == ("done", 2)
    shared.queue()
    shared.work()
    assert sum(1 for _ in shared.ledger.files("/")) == 8


def test_a_folder_that_this_machine_does_not_see_is_left_to_others(shared: Shared) -> None:
    job_id = shared.queue()
    away = shared.folder.rename(shared.folder.with_name("away"))
    stop = Event()
    left: list[str] = []

    def on_job(_: Job, what: str) -> None:
        left.append(what)
        if what == "left":
            stop.set()

    parts = WorkerParts(FakeEngine(), shared.index, shared.ledger, shared._thumbs)
    IngestWorker(parts, shared._settings, stop, on_job).run()
    job = shared.jobs.get(job_id)
    assert (left, job.state, job.error) == (["started", "left"], "queued", "folder_unavailable")
    shared.work()  # returns, though the job is queued: it is nothing for this machine
    assert shared.jobs.get(job_id).state == "queued"
    away.rename(shared.folder)
    shared.work()
    assert shared.jobs.get(job_id).state == "done"


def test_an_empty_folder_at_the_path_marks_no_file_as_failed(shared: Shared) -> None:
    job_id = shared.queue()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("app.service.worker.os.path.lexists", lambda _: False)
        stop = Event()
        parts = WorkerParts(FakeEngine(), shared.index, shared.ledger, shared._thumbs)
        IngestWorker(parts, shared._settings, stop, lambda _, what: what == "left" and stop.set()).run()
    job = shared.jobs.get(job_id)
    assert (job.state, job.error) == ("queued", "folder_unavailable")
    assert list(shared.ledger.files("/")) == []
    shared.work()
    assert shared.jobs.get(job_id).counts["done"] == 5


def test_an_error_of_the_index_ends_the_worker_and_leaves_the_job(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = shared.queue()

    def fails(*_: object) -> None:
        raise OceanoError("disk_full", "no space left")

    with monkeypatch.context() as patched:
        patched.setattr(shared.index, "upsert", fails)
        with pytest.raises(OceanoError, match="no space left"):
            shared.work()
    job = shared.jobs.get(job_id)
    assert (job.state, job.error, job.workers) == ("queued", "disk_full", 0)
    shared.work()
    assert shared.jobs.get(job_id).state == "done"
    assert len(shared.index.points) == 5


def test_a_zombie_writes_nothing_and_counts_nothing(shared: Shared) -> None:
    """A worker that was suspended for longer than its lease."""
    database = shared.ledger.database
    zombie, other = (Worker(database, COLLECTION, name) for name in ("zombie", "other"))
    for worker in (zombie, other):
        worker._register()
    job_id = shared.queue()
    assert zombie.take_job() == job_id
    assert zombie.hold("scan")
    first = ClaimedLedger(zombie, job_id)
    first.add([File("/a", 1, 2, 3)], 1)
    first.end_scan({}, 1)
    assert len(first.take(5)) == 1
    with database.writing(urgent=True) as connection:
        connection.exec_driver_sql(f"UPDATE workers SET leased_until = 1 WHERE id = '{zombie.id}'")
    assert other.take_job() == job_id
    second = ClaimedLedger(other, job_id)
    assert [one.path for one in second.take(5)] == ["/a"]
    old = FileRecord("/a", 1, 2, "i-old", "done", 2, ctime_ns=3)
    assert dict(first.record([old], counts={"done": 1, "faces": 2})) == {"done": 0, "faces": 0}
    assert shared.ledger.file("/a") is None
    second.record([replace(old, image_id="i-new", faces=1)], counts={"done": 1, "faces": 1})
    assert shared.jobs.get(job_id).counts == {"files": 1, "done": 1, "faces": 1}
    assert shared.ledger.replaced() == [("i-old", 2)], "its faces are removed at the end of the job"
    first.record([replace(old, image_id="i-new", faces=1)], counts={"done": 1, "faces": 1})
    assert shared.jobs.get(job_id).counts == {"files": 1, "done": 1, "faces": 1}
    assert shared.ledger.replaced() == [("i-old", 2)], "the other worker has recorded this image"


def test_a_worker_names_faces_as_pictures_say_and_later_as_new_sidecars_say(shared: Shared) -> None:
    (shared.folder / "ana.jpg").write_bytes(picture_with(packet(mwg([("Ana", 0.5, 0.5, 0.4, 0.4)]))))
    job_id = shared.queue()
    shared.work()
    assert shared.jobs.get(job_id).counts["named"] == 1
    (shared.folder / "0" / "2.png.xmp").write_bytes(packet(mwg([("Bob", 0.5, 0.5, 0.4, 0.4)])))
    shared.queue()
    shared.work()
    people = PeopleStore(shared.ledger.database)
    names = {one.id: one.name for one in people.find()}
    named = {Path(one.payload.path).name: names.get(one.payload.person or "") for one in shared.index.points.values()}
    assert {path: name for path, name in named.items() if name} == {"ana.jpg": "Ana", "2.png": "Bob"}
    assert [change.who for change in ChangeLog(shared.ledger.database).find()] == ["tests", "tests"]
