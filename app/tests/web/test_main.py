from __future__ import annotations

import asyncio
import builtins
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app import main
from app.catalog import Ledger
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.types import EngineHealth, ModelPack
from app.main import create_app
from app.service import factory, monitor
from tests.support.clients import TestClient
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex
from tests.support.pictures import RED, encoded, point

ROOT = Path(__file__).parents[2]


class Closing(MemoryIndex):
    def __init__(self) -> None:
        super().__init__()
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_making_the_app_touches_no_disk_and_opens_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    really = builtins.open

    def never(*given: Any, **__: Any) -> Any:
        if given and str(given[0]) == "/proc/stat":  # Prometheus asks the kernel when the machine was started
            return really(*given)
        raise AssertionError(f"create_app did something: {given}")

    create_app(settings)  # what is imported late is imported now
    for module, name in (
        (builtins, "open"), (os, "mkdir"), (os, "makedirs"), (sqlite3, "connect"), (threading.Thread, "start"),
        (factory, "build_engine"), (factory, "open_index"), (factory, "open_ledger"), (Path, "open"),
        (Path, "read_text"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, never)
    app = create_app(settings)
    monkeypatch.undo()
    assert app.title == "Oceano"
    assert not settings.data_dir.exists()


def test_importing_the_app_starts_nothing_and_reads_no_environment(tmp_path: Path) -> None:
    code = (
        "import threading, app.main, app.cli, sys;"
        "assert threading.active_count() == 1;"
        "assert 'onnxruntime' not in sys.modules and 'insightface' not in sys.modules;"
        "print('fine')"
    )
    env = {"PATH": os.environ["PATH"], "UVICORN_PORT": "wrong", "DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, text=True, capture_output=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_settings_the_environment_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    assert create_app().state.settings.data_dir == tmp_path
    monkeypatch.setenv("UVICORN_WORKERS", "4")
    with pytest.raises(OceanoError, match="UVICORN_WORKERS='4'"):
        create_app()


def test_what_is_not_handed_in_is_built_at_the_start_and_closed_at_the_end(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, engine, built = Closing(), FakeEngine(), []

    def build_engine(given: Settings) -> FakeEngine:
        built.append(("engine", given is settings, threading.current_thread() is threading.main_thread()))
        return engine

    def open_index(given: Settings, pack: ModelPack) -> Closing:
        built.append(("index", given is settings, pack is FAKE_PACK))
        return index

    monkeypatch.setattr(factory, "build_engine", build_engine)
    monkeypatch.setattr(factory, "open_index", open_index)
    app = create_app(settings)
    assert built == []
    with TestClient(app) as client:
        assert built == [("engine", True, False), ("index", True, True)]
        assert client.get("/health").status_code == 200
        assert app.state.services.engine is engine
        assert app.state.services.index is index
        ledger: Ledger = app.state.services.ledger
        assert index.closed == 0
    assert index.closed == 1
    with pytest.raises(OceanoError, match="closed"):
        ledger.totals()


def test_nothing_is_left_running_when_the_service_ends(settings: Settings) -> None:
    before = {thread.ident for thread in threading.enumerate()}
    with TestClient(create_app(settings, engine=FakeEngine(), index=MemoryIndex())) as client:
        client.post("/search", files={"image": encoded()})
        client.post("/detect", files={"image": encoded()})
    end = time.monotonic() + 5
    while {thread.ident for thread in threading.enumerate()} - before:
        assert time.monotonic() < end, threading.enumerate()
        time.sleep(0.01)


def test_runtimes_are_measured_beside_the_service_which_neither_starts_nor_ends_later(settings: Settings) -> None:
    class Measuring(FakeEngine):
        began, release = threading.Event(), threading.Event()

        def measure_runtimes(self) -> None:
            self.began.set()
            self.release.wait(30)

    engine = Measuring()
    with TestClient(create_app(settings, engine=engine, index=MemoryIndex())) as client:
        assert engine.began.wait(10)
        assert client.get("/health").status_code == 200
    assert not engine.release.is_set()
    engine.release.set()


def _start_fails(app: Any) -> OceanoError:
    with pytest.raises(OceanoError) as caught, TestClient(app):
        raise AssertionError("it started")
    return caught.value


@pytest.mark.parametrize("part", ["build_engine", "open_index", "open_ledger"])
def test_a_part_that_cannot_be_had_ends_the_start_with_its_own_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def fails(*_: Any) -> Any:
        raise OceanoError("index_model_mismatch", "made by another model", details={"index": "a", "model": "b"})

    index = Closing()
    monkeypatch.setattr(factory, "build_engine", lambda settings: FakeEngine())
    monkeypatch.setattr(factory, "open_index", lambda settings, pack: index)
    monkeypatch.setattr(factory, part, fails)
    error = _start_fails(create_app(settings))
    assert (error.code, error.details) == ("index_model_mismatch", {"index": "a", "model": "b"})
    assert index.closed == (1 if part == "open_ledger" else 0), "what was opened is closed again"


def test_an_index_that_is_down_at_the_start_does_not_keep_the_service_from_starting(settings: Settings) -> None:
    class Down(Closing):
        def info(self) -> Any:
            raise OceanoError("index_unavailable", "not yet")

    index = Down()
    with TestClient(create_app(settings, engine=FakeEngine(), index=index)) as client:
        assert client.get("/health").status_code == 503
    assert index.closed == 1


def test_parts_are_closed_when_the_first_look_fails(settings: Settings) -> None:
    class Odd(Closing):
        def info(self) -> Any:
            raise ZeroDivisionError

    index = Odd()
    with pytest.raises(ZeroDivisionError), TestClient(create_app(settings, engine=FakeEngine(), index=index)):
        raise AssertionError("it started")
    assert index.closed == 1


def test_the_ledger_is_that_of_the_model_s_collection(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"qdrant_collection": "people"}), FakeEngine(), MemoryIndex())
    with TestClient(app):
        assert app.state.services.ledger.collection == "people__fake__ffffffff"
        assert (settings.state_dir / "catalog.sqlite3").exists()


def test_a_service_ends_while_an_index_hangs(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(monitor, "INDEX_TIMEOUT_SECONDS", 0.05)
    release = threading.Event()

    class Hanging(MemoryIndex):
        def info(self) -> Any:
            release.wait(10)
            return super().info()

    start = time.perf_counter()
    with TestClient(create_app(settings, engine=FakeEngine(), index=Hanging())) as client:
        assert client.get("/health").status_code == 503
    assert time.perf_counter() - start < 3
    release.set()


def test_a_monitor_that_fails_does_not_keep_the_parts_open(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(self: Any) -> None:
        raise OceanoError("internal", "the monitor ended")

    monkeypatch.setattr(monitor.Monitor, "run", run)
    index = Closing()
    with (
        pytest.raises(OceanoError, match="the monitor ended"),
        TestClient(create_app(settings, FakeEngine(), index)) as client,
    ):
        assert client.get("/health").status_code == 200
        time.sleep(0.05)
    assert index.closed == 1


def test_two_services_live_in_one_process(settings: Settings, tmp_path: Path) -> None:
    other = settings.model_copy(update={"data_dir": tmp_path / "other"})
    index = MemoryIndex()
    index.upsert([point(1, RED)])
    with (
        TestClient(create_app(settings, FakeEngine(), index)) as one,
        TestClient(create_app(other, FakeEngine(), MemoryIndex())) as two,
    ):
        assert one.get("/status").json()["index"]["points"] == 1
        assert two.get("/status").json()["index"]["points"] == 0
        one.get("/nowhere")
        assert 'status="404"' not in two.get("/metrics").text


def test_an_app_can_be_started_again_after_it_ended(settings: Settings) -> None:
    app = create_app(settings, FakeEngine(), MemoryIndex())
    for _ in range(2):
        with TestClient(app) as client:
            assert client.post("/search", files={"image": encoded()}).status_code == 200


def test_a_failing_engine_check_is_seen_by_health(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "ENGINE_POLL_SECONDS", 0.01)
    engine = FakeEngine()

    def check() -> EngineHealth:
        engine.health = EngineHealth(False, 0.3, "cosine 0.3")
        return engine.health

    engine.check = check  # type: ignore[method-assign]
    with TestClient(create_app(settings, engine, MemoryIndex())) as client:
        end = time.monotonic() + 5
        while client.get("/health").status_code != 503:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_the_page_and_its_files_are_there(settings: Settings) -> None:
    with TestClient(create_app(settings, FakeEngine(), MemoryIndex())) as client:
        page = client.get("/")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        assert client.get("/static/results.js").status_code == 200
        assert client.get("/static/../main.py").status_code == 404
        assert client.get("/static/%2e%2e/main.py").status_code == 404
        assert client.get("/static/").status_code == 404
        found = client.post("/", files={"image": encoded()})
        assert (found.status_code, found.headers["content-type"].startswith("text/html")) == (200, True)
        assert client.post("/", files={"image": encoded((0, 0, 0))}).status_code == 422


def test_the_service_logs_to_its_folder_where_nobody_else_set_up_logging(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, str]] = []
    monkeypatch.setattr(main.logs, "configure_logging", lambda folder, process: asked.append((folder, process)))
    with TestClient(create_app(settings, FakeEngine(), MemoryIndex())):
        pass
    assert asked == [], "pytest has set it up"
    root = main.logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    with TestClient(create_app(settings, FakeEngine(), MemoryIndex())):
        pass
    assert asked == [(settings.logs_dir, "service")]


def _lifespan(app: Any, inside: Callable[[], None]) -> None:
    async def run() -> None:
        async with app.router.lifespan_context(app):
            inside()

    asyncio.run(run())


def test_parts_are_closed_when_the_service_is_interrupted(settings: Settings) -> None:
    index = Closing()

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _lifespan(create_app(settings, FakeEngine(), index), interrupted)
    assert index.closed == 1
