"""ingest: nothing lost, nothing twice."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import pytest
from PIL import Image

from app.config import Settings
from app.errors import OceanoError
from app.ingest import Ingest, IngestCounts, IngestOptions
from app.ledger import Ledger, Totals
from app.thumbs import ThumbStore
from app.types import Face, FacePoint, Picture
from tests.fakes import FakeEngine, MemoryIndex


class Bench:
    """An ingest with all its parts."""

    def __init__(self, settings: Settings, engine: FakeEngine, index: MemoryIndex) -> None:
        self.engine, self.index = engine, index
        self.ledger = Ledger(settings.state_dir / "ledger.sqlite3", "faces__fake__ffffffff")
        self.thumbs = ThumbStore(settings.thumbs_dir)

    def run(self, folder: Path, *, retry: bool = False, stop: Event | None = None) -> IngestCounts:
        options = IngestOptions(max_pixels=1_000_000, retry=retry, patience=0.1)
        return Ingest(self.engine, self.index, self.ledger, self.thumbs, options, stop=stop).run(folder)


@pytest.fixture
def bench(settings: Settings, engine: FakeEngine, index: MemoryIndex) -> Bench:
    return Bench(settings, engine, index)


def test_every_picture_is_in_the_index_the_ledger_and_the_thumbnails(bench: Bench, colour_pictures: Path) -> None:
    counts = bench.run(colour_pictures)
    assert (counts.files, counts.done, counts.faces) == (8, 8, 8)
    assert len(bench.index.flushed) == 8
    assert bench.ledger.totals().faces == 8
    for face_id, point in bench.index.points.items():
        assert bench.thumbs.read(face_id)
        assert Path(point.payload.path).parent == colour_pictures
        assert point.payload.folder[0] == "/"
        assert point.payload.folder[-1] == str(colour_pictures)


def test_the_second_run_skips_everything_without_reading_it(bench: Bench, colour_pictures: Path) -> None:
    bench.run(colour_pictures)
    seen = bench.engine.pictures
    counts = bench.run(colour_pictures)
    assert (counts.skipped, counts.done, counts.images) == (8, 0, 0)
    assert bench.engine.pictures == seen


def test_a_copy_a_rename_and_a_moved_folder_are_the_same_image(bench: Bench, colour_pictures: Path) -> None:
    bench.run(colour_pictures)
    before = dict(bench.index.points)
    shutil.copy(colour_pictures / "0.png", colour_pictures / "copy.png")
    moved = colour_pictures.with_name("moved")
    colour_pictures.rename(moved)
    counts = bench.run(moved)
    assert (counts.duplicate, counts.done) == (9, 0)
    assert bench.index.points == before
    image_id = next(iter(before.values())).payload.image_id
    assert len(bench.ledger.paths_of(image_id)) >= 2


def test_copies_within_one_batch_are_embedded_once(bench: Bench, colour_pictures: Path) -> None:
    for place in range(5):
        shutil.copy(colour_pictures / "0.png", colour_pictures / f"copy{place}.png")
    counts = bench.run(colour_pictures)
    assert (counts.done, counts.duplicate) == (8, 5)
    assert bench.engine.pictures == 8
    assert len(bench.index.points) == 8


def test_a_bad_file_is_a_record_with_its_reason_and_not_the_end(bench: Bench, colour_pictures: Path) -> None:
    (colour_pictures / "rubbish.jpg").write_bytes(b"no picture at all")
    whole = (colour_pictures / "1.png").read_bytes()
    (colour_pictures / "half.png").write_bytes(whole[: len(whole) // 2])
    (colour_pictures / "notes.txt").write_text("not ours")
    Image.new("RGB", (2000, 1000)).save(colour_pictures / "large.png")
    Image.new("RGB", (64, 64)).save(colour_pictures / "black.png")
    counts = bench.run(colour_pictures)
    assert (counts.done, counts.failed, counts.no_face, counts.ignored) == (8, 3, 1, 1)
    reasons = {Path(one.path).name: (one.status, one.reason) for one in bench.ledger.without_faces("/")}
    assert reasons == {
        "rubbish.jpg": ("failed", "unsupported_image"),
        "half.png": ("failed", "invalid_image"),
        "large.png": ("failed", "image_too_large"),
        "black.png": ("no_face", "face_not_found"),
    }
    again = bench.run(colour_pictures)
    assert (again.skipped, again.failed_before, again.images) == (12, 3, 0)


def test_failed_files_go_again_with_retry_or_when_they_changed(bench: Bench, colour_pictures: Path) -> None:
    bad = colour_pictures / "bad.png"
    bad.write_bytes(b"rubbish")
    bench.run(colour_pictures)
    assert bench.run(colour_pictures, retry=True).failed == 1
    shutil.copy(colour_pictures / "0.png", bad)
    assert bench.run(colour_pictures).duplicate == 1


def test_a_file_of_which_only_the_time_changed_keeps_its_result(bench: Bench, colour_pictures: Path) -> None:
    bench.run(colour_pictures)
    seen = bench.engine.pictures
    os.utime(colour_pictures / "0.png", ns=(1, 1))
    counts = bench.run(colour_pictures)
    assert (counts.skipped, counts.duplicate, counts.done) == (8, 0, 0)
    assert bench.engine.pictures == seen
    assert bench.ledger.totals() == Totals(done=8, faces=8)
    known = bench.ledger.file(str(colour_pictures / "0.png"))
    assert known is not None
    assert known.mtime_ns == 1


def test_a_picture_without_a_face_goes_again_with_retry(bench: Bench, colour_pictures: Path) -> None:
    Image.new("RGB", (64, 64)).save(colour_pictures / "black.png")
    bench.run(colour_pictures)
    seen = bench.engine.pictures
    again = bench.run(colour_pictures, retry=True)
    assert (again.no_face, again.duplicate, again.skipped) == (1, 0, 8)
    assert bench.engine.pictures == seen + 1


def test_a_file_that_cannot_be_read_is_tried_again_without_being_asked(
    bench: Bench, colour_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("app.reading.contents", refuse)
        assert bench.run(colour_pictures).failed == 8
    assert bench.run(colour_pictures).done == 8


def test_a_picture_that_breaks_the_engine_is_the_only_one_that_fails(bench: Bench, colour_pictures: Path) -> None:
    class Breaks(FakeEngine):
        def analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
            if any(picture.width == 67 for picture in pictures):
                raise RuntimeError("a bug in some library")
            return super().analyze(pictures, timings)

    bench.engine = Breaks()
    counts = bench.run(colour_pictures)
    assert (counts.done, counts.failed) == (7, 1)
    (record,) = bench.ledger.without_faces("/")
    assert (Path(record.path).name, record.reason) == ("3.png", "internal")


@pytest.mark.parametrize("code", ["index_unavailable", "disk_full", "engine_unhealthy"])
def test_what_no_file_is_to_blame_for_ends_the_run_and_blames_no_file(
    bench: Bench, colour_pictures: Path, code: str
) -> None:
    class Fails(MemoryIndex):
        def flush(self) -> None:
            raise OceanoError(code, "gone")

    bench.index = Fails()
    with pytest.raises(OceanoError) as raised:
        bench.run(colour_pictures)
    assert raised.value.code == code
    assert bench.ledger.totals().done == 0
    assert list(bench.ledger.without_faces("/")) == []


def test_a_file_is_done_only_after_its_faces_are_durable(
    bench: Bench, colour_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ingest.LEAST_BATCH", 4)
    events: list[str] = []

    class Watched(MemoryIndex):
        def upsert(self, points: Sequence[FacePoint]) -> None:
            events.append("upsert")
            super().upsert(points)

        def flush(self) -> None:
            events.append("flush")
            super().flush()

    bench.index = Watched()
    record = bench.ledger.record
    bench.ledger.record = lambda records: (events.append("ledger"), record(records))[1]  # type: ignore[method-assign]
    bench.run(colour_pictures)
    assert events == ["upsert", "flush", "ledger"] * 2  # two batches


def test_names_given_by_people_survive_another_ingest(bench: Bench, colour_pictures: Path) -> None:
    bench.run(colour_pictures)
    face_id = next(iter(bench.index.points))
    bench.index.set_payload([face_id], person="Ada")
    bench.ledger.forget_images([bench.index.points[face_id].payload.image_id])
    assert bench.run(colour_pictures).done == 1
    assert bench.index.points[face_id].payload.person == "Ada"


def test_faces_that_the_index_lost_are_ingested_again(bench: Bench, colour_pictures: Path) -> None:
    bench.run(colour_pictures)
    lost = next(iter(bench.index.points))
    before = set(bench.index.points)
    del bench.index.points[lost]
    counts = bench.run(colour_pictures)
    assert (counts.done, counts.skipped) == (1, 7)
    assert set(bench.index.points) == before


def test_a_stop_finishes_and_records_what_is_in_work(bench: Bench, colour_pictures: Path) -> None:
    stop = Event()
    stop.set()
    counts = bench.run(colour_pictures, stop=stop)
    assert counts.images == len(bench.index.flushed) == bench.ledger.totals().done < 8
    assert bench.run(colour_pictures).done + counts.done == 8
