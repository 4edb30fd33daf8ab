"""An ingest that is killed at any point loses no face, stores none twice, and repeats at most one batch.

Index, ledger and thumbnails are real. The engine is a fake: kills are to hit the ingest, not the loading of a model.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from app.catalog import Ledger, open_ledger
from app.core.config import Settings
from app.core.protocols import FaceIndex
from app.core.types import Face, Picture, collection_name, face_id_of
from app.images import DecoderPool, ThumbStore, image_id_of
from app.index import open_index
from app.index.embedded.client import EmbeddedIndex
from app.ingest import WRITE_BATCH_FILES, Ingest, IngestOptions
from app.library import reader as reading
from app.library.batches import BatchProcessor
from tests.support import memory
from tests.support.dying import die_at
from tests.support.fakes import FAKE_PACK, FakeEngine, decode_here
from tests.system.test_end_to_end import _kill_owner

FEW, MANY = 15 * WRITE_BATCH_FILES, 1500
KILLS = int(os.environ.get("OCEANO_TEST_KILLS", "100"))

# The steps of an ingest: the object that holds the function, and its name.
POINTS: dict[str, tuple[Any, str]] = {
    "scan": (Ingest, "_unfinished"),
    "read": (reading, "contents"),
    "decode": (DecoderPool, "decode"),
    "analyze": (FakeEngine, "analyze"),
    "thumbnail": (ThumbStore, "write"),
    "batch": (BatchProcessor, "process"),
    "upsert": (EmbeddedIndex, "upsert"),
    "flush": (EmbeddedIndex, "flush"),
    "ledger": (Ledger, "record"),
}
base, tmp_path = memory.base, memory.tmp_path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["app.cli", "app.index.embedded.alias", "app.ingest", "tests.support.fakes", "tests.system.test_kills"]
)


def _open(data: Path) -> tuple[FaceIndex, Ledger, Settings]:
    settings = Settings(_env_file=None, data_dir=data)
    index = open_index(settings, FAKE_PACK)
    return index, open_ledger(settings.state_dir / "catalog.sqlite3", collection_name("faces", FAKE_PACK)), settings


class SlowEngine(FakeEngine):
    """A fake engine as slow as a real one: 50 ms per batch."""

    def analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
        time.sleep(0.05)
        return super().analyze(pictures, timings)


def _ingest(folder: Path, data: Path, engine: type[FakeEngine] = FakeEngine) -> int:
    index, ledger, settings = _open(data)
    with closing(index), closing(ledger):
        options = IngestOptions(10**6, retry_seconds=20)
        return Ingest(engine(), index, ledger, ThumbStore(settings.thumbs_dir), options).run(folder).images


def _ingest_and_die(folder: Path, data: Path, point: str, border: str, times: int) -> None:
    """Ingest, and kill this process before or after the given call of the function at `point`."""
    if point != "decode":  # else with decoder processes, as in the test of random kills
        setattr(DecoderPool, "decode", decode_here)  # noqa: B010
    holder, name = POINTS[point]
    die_at(holder, name, border, times)
    _ingest(folder, data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _pictures(tmp_path_factory.mktemp("pictures"), FEW)


def _pictures(folder: Path, count: int) -> Path:
    """Write pictures with one face each, and a copy of every tenth."""
    rng = np.random.default_rng(5)
    for number in range(count):
        pixels = rng.integers(40, 255, (8, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number:03}.png"), cv2.resize(pixels, (64, 48)))
        if number % 10 == 0:
            (folder / f"{number:03}-copy.png").write_bytes((folder / f"{number:03}.png").read_bytes())
    return folder


def _faces(index: FaceIndex) -> set[str]:
    return {record.face_id for record in index.scroll(limit=10_000).records}


def _require_at_most_one_batch_unrecorded(data: Path) -> None:
    index, ledger, _ = _open(data)
    with closing(index), closing(ledger):
        recorded = {face_id_of(str(image.image_id), FAKE_PACK.digest, 0) for image in ledger.images()}
        written = _faces(index)
    assert recorded <= written, "the ledger has faces that the index lacks"
    assert len(written - recorded) <= WRITE_BATCH_FILES


def _require_whole(folder: Path, data: Path, count: int) -> None:
    index, ledger, settings = _open(data)
    with closing(index), closing(ledger):
        ids = {image_id_of(path.read_bytes()) for path in folder.iterdir()}
        assert len(ids) == count
        assert _faces(index) == {face_id_of(image_id, FAKE_PACK.digest, 0) for image_id in ids}
        assert index.count() == count
        totals = ledger.totals()
        assert (totals.done, totals.duplicate, totals.failed, totals.faces) == (count, count // 10, 0, count)
        thumbs = ThumbStore(settings.thumbs_dir)
        assert all(thumbs.read(face_id) for face_id in _faces(index))


@pytest.mark.parametrize("border", ["before", "after"])
@pytest.mark.parametrize("point", POINTS)
def test_an_ingest_killed_at_any_stage_continues(folder: Path, tmp_path: Path, point: str, border: str) -> None:
    data = tmp_path / "data"
    for times in (1, 2, 7) if point != "scan" else (1,):
        child = CONTEXT.Process(target=_ingest_and_die, args=(folder, data, point, border, times))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        _require_at_most_one_batch_unrecorded(data)
    _ingest(folder, data)
    _require_whole(folder, data, FEW)
    assert _ingest(folder, data) == 0


def test_an_ingest_killed_at_random_many_times_ends_with_every_face_once(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    _pictures(folder, MANY)
    data = tmp_path / "data"
    chance = random.Random(3)
    killed = 0
    for turn in range(KILLS):
        child = CONTEXT.Process(target=_ingest, args=(folder, data, SlowEngine))
        child.start()
        child.join(chance.uniform(0.03, 0.2))
        if child.is_alive():
            killed += 1
            child.kill()
        child.join()
        if turn % 20 == 19:
            _kill_owner(data)
        if turn % 10 == 9:
            _require_at_most_one_batch_unrecorded(data)
    assert killed >= KILLS // 2, "most kills must hit a running ingest"
    _ingest(folder, data)
    _require_whole(folder, data, MANY)
