"""Grouping after an ingest: what it says, and that it never makes the ingest fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

from app.catalog import UnnamedGroups, only_grouping
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.types import collection_name
from app.service import IngestJob, IngestRequest, open_ledger
from app.service.grouping import Grouping
from bench.faces import People
from tests.people.grouped import World
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex

COLLECTION = collection_name("faces", FAKE_PACK)


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    with closing(open_ledger(settings, FAKE_PACK)) as ledger:
        yield World(ledger.database, collection=COLLECTION)


def _grouping(world: World, stop: Event | None = None) -> Grouping:
    return Grouping(FAKE_PACK, world.index, world.ledger, stop or Event())


def test_new_faces_are_grouped_without_a_word(world: World) -> None:
    people = People(512, seed=7)
    world.add(people.faces(people.identities(4), 5))
    assert _grouping(world).after_ingest() == ""
    assert [size for _, size in UnnamedGroups(world.database, COLLECTION).all()] == [5] * 4


def test_the_cut_follows_the_strangers_of_the_index(world: World) -> None:
    people = People(128, seed=7)  # their strangers spread more than those of a model without figures
    rows = people.faces(people.identities(400), 6)
    world.add(rows)
    _grouping(world).run()
    assert len(world.partition()) == 400
    assert all(len(members) == 6 for members in world.partition())


def test_a_failure_is_told_and_not_raised(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add([np.eye(512, dtype=np.float32)[0]])

    def fail(*_: object, **__: object) -> None:
        raise OceanoError("index_unavailable", "the index is gone")

    monkeypatch.setattr(world.index, "search_scores", fail)
    line = _grouping(world).after_ingest()
    assert "not grouped: the index is gone (index_unavailable)" in line
    assert world.places() == {}


def test_another_grouping_is_waited_for_by_nobody(world: World) -> None:
    with only_grouping(world.database, COLLECTION):
        assert "another process groups" in _grouping(world).after_ingest()
        with pytest.raises(OceanoError, match="another process groups"):
            _grouping(world).run()


def test_a_stop_is_told(world: World) -> None:
    world.add([np.eye(512, dtype=np.float32)[0]])
    stop = Event()
    stop.set()
    assert "1 faces are not grouped yet" in _grouping(world, stop).after_ingest()


def test_all_faces_are_grouped_again_if_asked(world: World) -> None:
    world.add([np.eye(512, dtype=np.float32)[number] for number in range(3)])
    assert _grouping(world).run().faces == 3
    assert _grouping(world).run().faces == 0
    assert _grouping(world).run(again=True).faces == 3


def _job(
    settings: Settings, index: MemoryIndex, folder: Path, notes: list[str], stop: Event
) -> tuple[IngestJob, ExitStack]:
    opened = ExitStack()
    ledger = opened.enter_context(closing(open_ledger(settings, FAKE_PACK)))
    request = IngestRequest(folder, watch=True)
    return IngestJob(request, settings, (FakeEngine(), index, ledger), stop, notes.append), opened


def test_a_watched_folder_is_grouped_when_it_is_quiet(
    settings: Settings, index: MemoryIndex, colour_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.service.ingest_job.QUIET_SECONDS", 0.5)
    grouped, stop = Event(), Event()
    monkeypatch.setattr(Grouping, "after_ingest", lambda _: grouped.set() or "a note")
    notes: list[str] = []
    job, opened = _job(settings, index, colour_pictures, notes, stop)
    with opened:
        running = Thread(target=job.run)
        running.start()
        assert grouped.wait(30)
        grouped.clear()
        assert not grouped.wait(2)  # nothing is new
        stop.set()
        running.join(30)
    assert notes == ["a note"]


@pytest.mark.parametrize("groups", [True, False])
def test_an_ingest_groups_faces_if_the_settings_say_so(
    settings: Settings, index: MemoryIndex, colour_pictures: Path, groups: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Grouping] = []
    monkeypatch.setattr(Grouping, "after_ingest", lambda grouping: calls.append(grouping) or "")
    chosen = settings.model_copy(update={"group_after_ingest": groups})
    job, opened = _job(chosen, index, colour_pictures, [], Event())
    with opened:
        job.group()
    assert len(calls) == groups
