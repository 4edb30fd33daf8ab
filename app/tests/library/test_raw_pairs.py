"""Raw files beside the JPEG or HEIC of the same photograph are left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.core.config import Settings
from app.ingest import Ingest, IngestCounts, IngestOptions
from app.library import Folder, PathFilter
from tests.library.test_ingest import Bench as AnyBench
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.pictures import encoded


def _scan(folder: Path, **options: bool) -> tuple[list[str], list[str]]:
    """Return the names that a scan yields, and the raw files that it leaves out."""
    scanned = Folder(folder)
    names = sorted(Path(file.path).name for file in scanned.scan(PathFilter(**options)))
    return names, sorted(Path(path).name for path in scanned.raw_pairs)


@pytest.mark.parametrize(
    ("raw", "other"),
    [
        ("IMG_1.CR2", "IMG_1.JPG"),
        ("img_1.nef", "IMG_1.jpeg"),
        ("a.dng", "a.heic"),
        ("a.ARW", "a.HIF"),
        ("é.cr3", "É.jpg"),
    ],
)
def test_a_raw_file_with_a_jpeg_or_heic_of_the_same_name_is_left_out(tmp_path: Path, raw: str, other: str) -> None:
    (tmp_path / raw).touch()
    (tmp_path / other).touch()
    assert _scan(tmp_path) == ([other], [raw])
    assert _scan(tmp_path, raw_pairs=True) == (sorted([raw, other]), [])
    (tmp_path / other).unlink()
    assert _scan(tmp_path) == ([raw], [])


@pytest.mark.parametrize(
    ("raw", "other"),
    [
        ("IMG_1.CR2", "IMG_2.JPG"),
        ("IMG_1.JPG.CR2", "IMG_1.JPG"),
        ("IMG_1.CR2", "IMG_1.png"),
        ("IMG_1.CR2", "._IMG_1.JPG"),
        ("IMG_1.tif", "IMG_1.JPG"),
        ("IMG_1.CR2", "IMG_1.JPG.part"),
    ],
)
def test_other_files_are_no_pair(tmp_path: Path, raw: str, other: str) -> None:
    (tmp_path / raw).touch()
    (tmp_path / other).touch()
    names, left_out = _scan(tmp_path)
    assert raw in names
    assert left_out == []


def test_a_jpeg_in_another_folder_or_one_that_is_not_wanted_is_no_partner(tmp_path: Path) -> None:
    (tmp_path / "jpeg").mkdir()
    (tmp_path / "1.dng").touch()
    (tmp_path / "jpeg" / "1.jpg").touch()
    (tmp_path / "2.dng").touch()
    (tmp_path / "2.jpg").touch()
    names = [Path(file.path).name for file in Folder(tmp_path).scan(PathFilter(exclude=["2.jpg"]))]
    assert sorted(names) == ["1.dng", "1.jpg", "2.dng"]


def test_a_raw_file_that_is_named_is_taken(tmp_path: Path) -> None:
    (tmp_path / "1.dng").touch()
    (tmp_path / "1.jpg").touch()
    assert [Path(file.path).name for file in Folder(tmp_path / "1.dng").scan()] == ["1.dng"]


def test_a_folder_is_listed_once_for_all_its_raw_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        (tmp_path / f"{number}.dng").touch()
        (tmp_path / f"{number}.jpg").touch()
    listed: list[str] = []
    scandir = os.scandir

    def count(path: str) -> object:
        listed.append(path)
        return scandir(path)

    monkeypatch.setattr("app.library.raw_pairs.os.scandir", count)
    names, left_out = _scan(tmp_path)
    assert (len(names), len(left_out)) == (50, 50)
    assert len(listed) <= 4  # one for the pairs; the others for the scan and its checks


class Bench(AnyBench):
    """The same, with raw pairs on demand."""

    def run(self, folder: Path, *, raw_pairs: bool = False) -> IngestCounts:  # type: ignore[override]
        options = IngestOptions(max_pixels=1_000_000, retry_seconds=0.1)
        ingest = Ingest(self.engine, self.index, self.ledger, self.thumbs, options)
        return ingest.run(folder, PathFilter(raw_pairs=raw_pairs))

    @property
    def names(self) -> list[str]:
        return sorted(Path(point.payload.path).name for point in self.index.points.values())


@pytest.fixture
def bench(settings: Settings, engine: FakeEngine, index: MemoryIndex) -> Bench:
    return Bench(settings, engine, index)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "1.dng").write_bytes(encoded(size=(96, 64), kind="TIFF"))
    return folder


def test_a_pair_is_one_image(bench: Bench, photos: Path) -> None:
    (photos / "1.jpg").write_bytes(encoded(kind="JPEG"))
    counts = bench.run(photos)
    assert (counts.files, counts.done, counts.raw_pairs) == (1, 1, 1)
    assert bench.names == ["1.jpg"]
    assert bench.run(photos, raw_pairs=True).done == 1
    assert bench.names == ["1.dng", "1.jpg"]


def test_a_raw_file_gives_way_to_the_jpeg_that_comes_later(bench: Bench, photos: Path) -> None:
    bench.run(photos)
    assert bench.names == ["1.dng"]
    (raw_face,) = bench.index.points
    (photos / "1.jpg").write_bytes(encoded(kind="JPEG"))
    assert bench.run(photos).raw_pairs == 1
    assert bench.names == ["1.jpg"]
    assert bench.thumbs.read(raw_face) is None
    assert [Path(record.path).name for record in bench.ledger.files("/")] == ["1.jpg"]
    (photos / "1.jpg").unlink()
    bench.run(photos)
    assert "1.dng" in bench.names


def test_a_raw_file_stays_if_its_jpeg_fails(bench: Bench, photos: Path) -> None:
    bench.run(photos)
    (photos / "1.jpg").write_bytes(b"\xff\xd8\xff no picture")
    assert bench.run(photos).failed == 1
    assert bench.names == ["1.dng"]


def test_a_raw_file_with_a_copy_elsewhere_keeps_its_faces(bench: Bench, photos: Path) -> None:
    (photos / "copy").mkdir()
    (photos / "copy" / "only.dng").write_bytes((photos / "1.dng").read_bytes())
    bench.run(photos)
    (photos / "1.jpg").write_bytes(encoded(kind="JPEG"))
    bench.run(photos)
    assert bench.names == ["1.jpg", "only.dng"]


@pytest.mark.parametrize("other", ["1.jpg", "2.jpg"])
def test_in_a_watch_a_jpeg_replaces_the_raw_file_that_came_before(bench: Bench, photos: Path, other: str) -> None:
    options = IngestOptions(max_pixels=1_000_000, retry_seconds=0.1)
    ingest = Ingest(bench.engine, bench.index, bench.ledger, bench.thumbs, options)
    wanted = PathFilter()
    ingest.run(photos, wanted)
    (photos / other).write_bytes(encoded(kind="JPEG"))
    arrived = [file for file in Folder(photos).scan() if file.path.endswith(".jpg")]
    ingest.ingest_files(arrived)
    ingest.replace_raw_files(arrived, wanted)
    assert bench.names == (["1.jpg"] if other == "1.jpg" else ["1.dng", "2.jpg"])
    ingest.count_left_out()
    assert ingest.counts.raw_pairs == (other == "1.jpg")
