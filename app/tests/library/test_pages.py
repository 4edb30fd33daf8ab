"""Ingest of all pages of a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.core.config import Settings
from app.core.types import face_id_of
from app.images import DecoderPool
from app.ingest import Ingest, IngestCounts, IngestOptions
from app.library import redrawn_thumbnail
from tests.library.test_ingest import Bench as AnyBench
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex

_COLOURS = ((200, 30, 30), (30, 200, 30), (30, 30, 200))


class Bench(AnyBench):
    """The same, with all pages on demand."""

    def run(self, folder: Path, *, all_pages: bool = False) -> IngestCounts:  # type: ignore[override]
        options = IngestOptions(max_pixels=100_000, all_pages=all_pages, retry_seconds=0.1)
        return Ingest(self.engine, self.index, self.ledger, self.thumbs, options).run(folder)

    def faces(self) -> list[tuple[int, str]]:
        """Page and id of every face, in the order of their positions."""
        ids = {
            face_id_of(point.payload.image_id, FAKE_PACK.digest, position): position
            for point in self.index.points.values()
            for position in range(10)
        }
        return [
            (self.index.points[face_id].payload.page, face_id) for face_id in sorted(self.index.points, key=ids.get)
        ]


@pytest.fixture
def bench(settings: Settings, engine: FakeEngine, index: MemoryIndex) -> Bench:
    return Bench(settings, engine, index)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    return folder


def _write_tiff(path: Path, *colours: tuple[int, int, int], width: int = 80) -> None:
    pages = [Image.new("RGB", (width, 60), colour) for colour in colours]
    pages[0].save(path, save_all=True, append_images=pages[1:])


def test_all_pages_are_one_image_with_the_faces_of_each(bench: Bench, scans: Path) -> None:
    _write_tiff(scans / "three.tif", *_COLOURS)
    counts = bench.run(scans, all_pages=True)
    assert (counts.done, counts.faces, counts.pages, counts.failed_pages) == (1, 3, 2, 0)
    assert [page for page, _ in bench.faces()] == [0, 1, 2]
    assert len({point.payload.image_id for point in bench.index.points.values()}) == 1
    assert bench.ledger.totals().faces == 3
    assert bench.run(scans, all_pages=True).skipped == 1


def test_a_file_of_which_the_first_page_was_read_is_read_again(bench: Bench, scans: Path) -> None:
    _write_tiff(scans / "three.tif", *_COLOURS)
    _write_tiff(scans / "one.tif", (90, 90, 90))
    counts = bench.run(scans)
    assert (counts.faces, counts.pages, counts.first_page_only) == (2, 0, 1)
    first = set(bench.index.points)
    assert bench.run(scans).skipped == 2
    counts = bench.run(scans, all_pages=True)
    assert (counts.skipped, counts.done, counts.pages) == (1, 1, 2)
    assert first < set(bench.index.points)
    assert len(bench.index.points) == 4
    assert bench.run(scans).skipped == 2


def test_a_first_page_without_a_face_does_not_hide_the_others(bench: Bench, scans: Path) -> None:
    _write_tiff(scans / "cover.tif", (0, 0, 0), _COLOURS[0])
    assert bench.run(scans).no_face == 1
    counts = bench.run(scans, all_pages=True)
    assert (counts.done, counts.no_face, counts.faces) == (1, 0, 1)
    assert [page for page, _ in bench.faces()] == [1]


def test_a_page_that_fails_is_counted_and_the_others_stay(
    bench: Bench, scans: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pages = [Image.new("RGB", (width, 60), colour) for width, colour in zip((80, 5000, 80), _COLOURS, strict=True)]
    pages[0].save(scans / "three.tif", save_all=True, append_images=pages[1:])
    counts = bench.run(scans, all_pages=True)
    assert (counts.done, counts.failed, counts.faces, counts.pages, counts.failed_pages) == (1, 0, 2, 1, 1)
    assert [page for page, _ in bench.faces()] == [0, 2]
    assert "three.tif, page 2: 5000 x 60" in caplog.text


def test_limits_end_the_pages_of_a_file(
    bench: Bench, scans: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _write_tiff(scans / "three.tif", *_COLOURS)
    monkeypatch.setattr("app.library.batches.MAX_PAGES", 2)
    assert bench.run(scans, all_pages=True).pages == 1
    assert "the pages after page 2 exceed the limits" in caplog.text


@pytest.mark.parametrize("limit", ["MAX_PAGES_PIXELS", "MAX_PAGES_FACES"])
def test_limits_of_pixels_and_faces_end_the_pages_of_a_file(
    bench: Bench, scans: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    _write_tiff(scans / "three.tif", *_COLOURS)
    monkeypatch.setattr(f"app.library.batches.{limit}", 1)
    assert bench.run(scans, all_pages=True).faces == (2 if limit == "MAX_PAGES_FACES" else 1)


def test_a_thumbnail_is_drawn_again_from_its_page(bench: Bench, scans: Path) -> None:
    _write_tiff(scans / "three.tif", *_COLOURS)
    bench.run(scans, all_pages=True)
    decoders = DecoderPool(1, seconds=20)
    for page, face_id in bench.faces():
        before = bench.thumbs.read(face_id)
        bench.thumbs.delete([face_id])
        (record,) = bench.index.retrieve([face_id])
        assert record.payload.page == page
        redrawn = redrawn_thumbnail(record, bench.ledger, bench.thumbs, decoders, max_pixels=100_000)
        assert redrawn == before
        colour = np.asarray(Image.open(bench.thumbs.path(face_id))).mean(axis=(0, 1))
        assert np.abs(colour - np.array(_COLOURS[page])).max() < 5
    decoders.close()
