"""ingest: nothing lost, nothing twice."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock
from typing import Any

import psutil
import pytest
import tenacity
from PIL import Image

from app.catalog import Totals, open_ledger
from app.core.concurrency import Budget
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.types import Face, FacePoint, File, Picture, face_id_of
from app.images.decoder_pool import _DecoderProcess
from app.images.decoding import decode, image_id_of
from app.images.perceptual import ALIKE_DISTANCE, distance, phash_of
from app.images.thumbnails import ThumbStore
from app.ingest import Ingest, IngestCounts, IngestOptions
from app.library.scan import contents, file_at
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex
from tests.support.pictures import encoded

SCANDIR = os.scandir


class Bench:
    """An ingest with all its parts."""

    def __init__(self, settings: Settings, engine: FakeEngine, index: MemoryIndex) -> None:
        self.engine, self.index = engine, index
        self.ledger = open_ledger(settings.state_dir / "catalog.sqlite3", "faces__fake__ffffffff")
        self.thumbs = ThumbStore(settings.thumbs_dir)

    def run(
        self, folder: Path, *, retry: bool = False, stop: Event | None = None, retry_seconds: float = 0.1
    ) -> IngestCounts:
        options = IngestOptions(max_pixels=1_000_000, retry=retry, retry_seconds=retry_seconds)
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


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_copy_any_number_of_files_behind_its_picture_is_a_duplicate(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """However far the picture is by then: read, in a worker thread, waiting to be written, or just recorded."""
    analyze = bench.engine.analyze

    def slowly(pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
        time.sleep(0.003)  # so that all that can be ahead of the worker threads is
        return analyze(pictures, timings)

    monkeypatch.setattr(bench.engine, "batch", at_once)
    monkeypatch.setattr(bench.engine, "analyze", slowly)
    distances, copies = deque(range(1, 100, 2)), dict[int, int]()
    for place in range(700):  # a picture of its own, or the copy of one so many files before
        if place % 10 == 0 and place not in copies and distances:
            copies[place + distances.popleft()] = place
        number = copies.get(place, place)
        folder = tmp_path / "pictures" / f"{place:03}"  # folders come in the order of their names
        folder.mkdir(parents=True)
        (folder / "x.png").write_bytes(encoded((number % 256, number // 256, 200)))
    counts = bench.run(tmp_path / "pictures")
    assert (counts.done, counts.duplicate) == (650, 50)
    assert bench.run(tmp_path / "pictures").skipped == 700


def test_a_copy_a_rename_and_a_moved_folder_are_the_same_image(bench: Bench, colour_pictures: Path) -> None:
    bench.run(colour_pictures)
    before = dict(bench.index.points)
    shutil.copy(colour_pictures / "0.png", colour_pictures / "copy.png")
    moved = colour_pictures.with_name("moved")
    colour_pictures.rename(moved)
    counts = bench.run(moved)
    assert (counts.moved, counts.duplicate, counts.done, counts.images) == (8, 1, 0, 9)
    assert bench.index.points.keys() == before.keys()
    assert {Path(point.payload.path).parent for point in bench.index.points.values()} == {moved}
    assert sorted(Path(one.path).parent for one in bench.ledger.files("/")) == [moved] * 9


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
        patch.setattr("app.library.reader.contents", refuse)
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
    monkeypatch.setattr("app.ingest.WRITE_BATCH_FILES", 4)
    monkeypatch.setattr("app.ingest.WRITE_SECONDS", 3600)
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
    bench.ledger.record = lambda records, **_: (events.append("ledger"), record(records))[1]  # type: ignore[method-assign]
    bench.run(colour_pictures)
    assert events == ["upsert", "flush", "ledger"] * 2  # two batches


def test_with_a_slow_model_files_are_recorded_every_second(
    bench: Bench, colour_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ingest.WRITE_SECONDS", 0)  # as if every picture took that long
    bench.engine.batch = 1
    sizes: list[int] = []
    record = bench.ledger.record
    bench.ledger.record = lambda records, **more: (sizes.append(len(records)), record(records, **more))[1]  # type: ignore[method-assign]
    assert bench.run(colour_pictures).done == 8
    assert sizes == [1] * 8


def test_names_given_by_people_survive_another_ingest(bench: Bench, colour_pictures: Path) -> None:
    bench.run(colour_pictures)
    face_id = next(iter(bench.index.points))
    bench.index.set_payload([face_id], person="Ada")
    bench.ledger.delete_images([bench.index.points[face_id].payload.image_id])
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


class Contents:
    """In the place of `reading.contents`: before it reads, `happens` is told which file and how often it came."""

    def __init__(self, happens: Callable[[Path, int], None]) -> None:
        self._happens = happens
        self._times: Counter[str] = Counter()
        self._lock = Lock()

    def __call__(self, file: File) -> bytes | None:
        with self._lock:
            self._times[file.path] += 1
            self._happens(Path(file.path), self._times[file.path])
        return contents(file)


def _reasons(bench: Bench) -> list[tuple[str, str | None]]:
    return [(Path(one.path).name, one.reason) for one in bench.ledger.without_faces("/")]


def test_a_file_that_vanishes_before_it_is_read_goes_again_by_itself_once_it_is_back(
    bench: Bench, colour_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = colour_pictures.with_name("away.png")

    def vanish(path: Path, _: int) -> None:
        if path.name == "3.png":
            path.rename(away)

    with monkeypatch.context() as patch:
        patch.setattr("app.library.reader.contents", Contents(vanish))
        counts = bench.run(colour_pictures)
    assert (counts.done, counts.failed) == (7, 1)
    assert _reasons(bench) == [("3.png", "vanished")]
    away.rename(colour_pictures / "3.png")  # with the size and time that the ledger has
    again = bench.run(colour_pictures)
    assert (again.done, again.skipped) == (1, 7)
    assert bench.ledger.totals() == Totals(done=8, faces=8)


def test_a_file_that_changes_while_it_is_read_is_read_again(
    bench: Bench, colour_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(path: Path, times: int) -> None:
        if (path.name, times) == ("3.png", 1):
            path.write_bytes(encoded(size=(90, 48)))

    monkeypatch.setattr("app.library.reader.contents", Contents(change))
    assert bench.run(colour_pictures).done == 8
    path = colour_pictures / "3.png"
    known, now = bench.ledger.file(str(path)), file_at(str(path))
    assert known is not None
    assert now is not None
    assert known.image_id == image_id_of(path.read_bytes())
    assert (known.size, known.mtime_ns) == (now.size, now.mtime_ns)
    assert bench.run(colour_pictures).skipped == 8


def test_a_file_that_keeps_changing_is_left_to_the_next_run(
    bench: Bench, colour_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(path: Path, times: int) -> None:
        if path.name == "3.png":
            path.write_bytes(encoded(size=(90 + times, 48)))

    with monkeypatch.context() as patch:
        patch.setattr("app.library.reader.contents", Contents(change))
        counts = bench.run(colour_pictures)
    assert (counts.done, counts.failed) == (7, 1)
    assert _reasons(bench) == [("3.png", "changed_while_read")]
    assert (bench.run(colour_pictures).done, bench.ledger.totals()) == (1, Totals(done=8, faces=8))


@pytest.mark.parametrize("left_behind", [False, True], ids=["nothing", "an-empty-folder"])
def test_a_drive_that_goes_away_half_way_ends_the_run_and_blames_no_file(
    bench: Bench, colour_pictures: Path, monkeypatch: pytest.MonkeyPatch, left_behind: bool
) -> None:
    bench.run(colour_pictures)
    for place in range(8):
        (colour_pictures / f"later{place}.png").write_bytes(encoded(size=(80 + place, 48)))
    away = colour_pictures.with_name("away")

    def go_away(path: Path, _: int) -> None:
        if path.name == "later4.png":
            colour_pictures.rename(away)
            if left_behind:
                colour_pictures.mkdir()

    with monkeypatch.context() as patch:
        patch.setattr("app.library.reader.contents", Contents(go_away))
        with pytest.raises(OceanoError) as raised:
            bench.run(colour_pictures)
    assert raised.value.code == "folder_unavailable"
    assert _reasons(bench) == []
    assert bench.ledger.totals().done >= 8
    if left_behind:
        colour_pictures.rmdir()
    away.rename(colour_pictures)
    counts = bench.run(colour_pictures)
    assert (counts.skipped + counts.done, counts.failed) == (16, 0)
    assert bench.ledger.totals() == Totals(done=16, faces=16)
    assert len(bench.index.points) == 16


def test_a_drive_that_goes_away_while_it_is_listed_is_not_the_end_of_its_files(
    bench: Bench, colour_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run(colour_pictures)
    listed: list[str] = []

    def looked_at(path: str) -> File | None:
        listed.append(path)
        if len(listed) == 3:
            colour_pictures.rename(colour_pictures.with_name("away"))
        return file_at(path)

    monkeypatch.setattr("app.library.scan.file_at", looked_at)
    with pytest.raises(OceanoError) as raised:  # two are skipped, six only seem to be gone
        bench.run(colour_pictures)
    assert raised.value.code == "folder_unavailable"


def test_an_index_that_is_gone_for_a_while_is_waited_for(
    bench: Bench, colour_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(MemoryIndex):
        times = 3

        def upsert(self, points: Sequence[FacePoint]) -> None:
            if self.times:
                self.times -= 1
                raise OceanoError("index_unavailable", "gone")
            super().upsert(points)

    monkeypatch.setattr("app.core.retry.tenacity.wait_exponential", lambda **_: tenacity.wait_none())
    monkeypatch.setattr("app.core.retry.tenacity.wait_random", lambda *_: tenacity.wait_fixed(0.01))
    bench.index = index = Gone()
    assert bench.run(colour_pictures, retry_seconds=60).done == 8
    assert index.times == 0
    assert len(index.flushed) == bench.ledger.totals().faces == 8


def test_a_stop_ends_the_wait_for_an_index_that_is_gone(bench: Bench, colour_pictures: Path) -> None:
    stop = Event()

    class Gone(MemoryIndex):
        def upsert(self, points: Sequence[FacePoint]) -> None:
            stop.set()
            raise OceanoError("index_unavailable", "gone")

    bench.index = Gone()
    began = time.monotonic()
    with pytest.raises(OceanoError) as raised:
        bench.run(colour_pictures, stop=stop, retry_seconds=60)
    assert raised.value.code == "index_unavailable"
    assert time.monotonic() - began < 10
    assert bench.ledger.totals() == Totals()


def test_a_disk_that_is_full_ends_the_run_and_what_was_recorded_stays(
    bench: Bench, colour_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ingest.WRITE_BATCH_FILES", 4)
    monkeypatch.setattr("app.ingest.WRITE_SECONDS", 3600)
    last = (max(colour_pictures.iterdir(), key=lambda path: path.name)).read_bytes()
    no_room_for = face_id_of(image_id_of(last), FAKE_PACK.digest, 0)
    write = bench.thumbs.write

    def fill(face_id: str, jpeg: bytes) -> None:
        if face_id == no_room_for:
            raise OceanoError("disk_full", "no room for thumbnails")
        write(face_id, jpeg)

    with monkeypatch.context() as patch:
        patch.setattr(bench.thumbs, "write", fill)
        patch.setattr("app.library.scan.os.scandir", _by_name)
        with pytest.raises(OceanoError) as raised:
            bench.run(colour_pictures)
    assert raised.value.code == "disk_full"
    assert bench.ledger.totals() == Totals(done=4, faces=4)
    assert _reasons(bench) == []
    counts = bench.run(colour_pictures)
    assert (counts.done, counts.skipped) == (4, 4)
    assert bench.ledger.totals() == Totals(done=8, faces=8)
    assert all(bench.thumbs.read(face_id) for face_id in bench.index.points)


@contextmanager
def _by_name(path: str) -> Iterator[list[os.DirEntry[str]]]:
    """A listing in the order of names, as some file systems give it."""
    with SCANDIR(path) as listing:
        yield sorted(listing, key=lambda entry: entry.name)


def test_a_file_that_cannot_be_read_just_now_keeps_its_faces_and_their_names(
    bench: Bench, colour_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run(colour_pictures)
    path = colour_pictures / "0.png"
    (known,) = [one for one in bench.ledger.images() if one.path == str(path)]
    os.utime(path, ns=(1, 1))

    def refuse(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("app.library.reader.contents", refuse)
        assert bench.run(colour_pictures).failed == 1
    assert bench.ledger.file(str(path)) == known
    assert bench.ledger.replaced() == []
    assert bench.run(colour_pictures).failed == 0
    again = bench.ledger.file(str(path))
    assert again is not None
    assert (again.status, again.mtime_ns) == ("done", 1)


def test_large_files_wait_until_there_is_room(
    bench: Bench, colour_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many may be read ahead, few are held: here, one is more than there is room for."""
    for path in colour_pictures.iterdir():
        path.write_bytes(path.read_bytes() + b"\0" * 100_000)
    monkeypatch.setattr("app.ingest.MAX_READ_AHEAD_BYTES", 100_000)
    most = [0]
    change = Budget.change

    def watched(self: Budget, by: int) -> None:
        change(self, by)
        most[0] = max(most[0], self._held)

    monkeypatch.setattr(Budget, "change", watched)
    assert bench.run(colour_pictures).done == 8
    assert 100_000 < most[0] < 350_000


@pytest.mark.decoders
def test_a_decoder_that_crashes_is_one_failed_file_and_no_process_is_left(
    bench: Bench, colour_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashing = (colour_pictures / "3.png").read_bytes()
    decode = _DecoderProcess.decode

    def crash(self: _DecoderProcess, data: bytes, *options: Any) -> Any:
        if data == crashing:
            self._process.kill()
        return decode(self, data, *options)

    monkeypatch.setattr(_DecoderProcess, "decode", crash)
    counts = bench.run(colour_pictures)
    assert (counts.done, counts.failed) == (7, 1)
    assert not [one for one in psutil.Process().children() if "app.images.decoder_process" in one.cmdline()]


def test_other_content_of_the_same_size_and_time_is_read(bench: Bench, colour_pictures: Path) -> None:
    target = colour_pictures / "0.bmp"
    for colour in ((30, 200, 90), (200, 30, 90)):
        Image.new("RGB", (64, 48), colour).save(target)
        os.utime(target, ns=(1, 1))
        assert bench.run(colour_pictures).done > 0
        assert len(bench.index.points) == 9


def test_new_permissions_embed_nothing_again(bench: Bench, colour_pictures: Path) -> None:
    bench.run(colour_pictures)
    seen = bench.engine.pictures
    (colour_pictures / "0.png").chmod(0o600)
    for _ in ("hashed again", "known"):
        counts = bench.run(colour_pictures)
        assert (counts.skipped, counts.images, bench.engine.pictures) == (8, 0, seen)
    known, file = bench.ledger.file(str(colour_pictures / "0.png")), file_at(str(colour_pictures / "0.png"))
    assert known is not None
    assert file is not None
    assert known.ctime_ns == file.ctime_ns


def test_results_without_a_ctime_get_one_and_are_not_read_again(
    bench: Bench, colour_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run(colour_pictures)
    with bench.ledger.database.writing() as connection:
        connection.exec_driver_sql("UPDATE files SET ctime_ns = NULL")
    monkeypatch.setattr("app.library.reader.contents", None)
    monkeypatch.setattr("app.ingest.CTIMES_AT_ONCE", 3)
    assert bench.run(colour_pictures).skipped == 8
    assert all(one.ctime_ns for one in bench.ledger.files("/"))


def test_further_pages_of_a_file_are_logged(bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    pages = [Image.new("RGB", (80, 60), (shade, 0, 0)) for shade in (50, 100)]
    pages[0].save(folder / "two.tif", save_all=True, append_images=pages[1:])
    with caplog.at_level("INFO", "app.library.reader"):
        bench.run(folder)
    assert "two.tif: only the first of its 2 pages is read" in caplog.text


def test_every_face_has_the_perceptual_hash_of_its_image(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    drawn = Image.effect_mandelbrot((640, 480), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    drawn.save(folder / "a.png")
    drawn.resize((320, 240)).save(folder / "b.jpg", quality=60)
    drawn.transpose(Image.Transpose.ROTATE_90).save(folder / "c.png")
    assert bench.run(folder).done == 3
    found = {Path(one.payload.path).name: one.payload.phash or "" for one in bench.index.points.values()}
    assert found["a.png"] == phash_of(decode((folder / "a.png").read_bytes(), max_pixels=10**6).pixels)
    assert distance(found["a.png"], found["b.jpg"]) <= ALIKE_DISTANCE
    assert distance(found["a.png"], found["c.png"]) > ALIKE_DISTANCE
