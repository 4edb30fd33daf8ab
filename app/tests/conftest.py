"""Fixtures that several modules' tests share."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from PIL import Image
from qdrant_client import QdrantClient
from starlette.routing import BaseRoute
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling, LoadScopeScheduling

from app.core.config import Settings
from app.core.locks import locked
from app.core.types import ModelPack
from app.demo import write_demo_pack
from app.images import DecoderPool
from app.packs.store import find_pack
from tests.support.catalogs import new_postgresql_database
from tests.support.fake_server import app_of, serving
from tests.support.fakes import FakeEngine, MemoryIndex, decode_here
from tests.support.qdrant_nodes import BINARY, Node

# For tests whose fixture `settings` makes an index of the kind that is asked for.
BOTH = pytest.mark.parametrize("settings", ["embedded", "server"], indirect=True)

_BROWSER = "tests/system/browser/"


def kind_of(request: pytest.FixtureRequest) -> str:
    """Which kind of index a test asks for; embedded, where it does not matter."""
    return str(getattr(request, "param", "embedded"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """With `--dist loadfile`, one process runs all files of tests/system/browser, with one service and one Chromium."""
    return _LoadFileOrBrowser(config, log) if config.getoption("dist") == "loadfile" else None


class _LoadFileOrBrowser(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return _BROWSER if nodeid.startswith(_BROWSER) else super()._split_scope(nodeid)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the browser tests first: one process needs the longest for them."""
    items.sort(key=lambda item: not item.nodeid.startswith(_BROWSER))


def pytest_collection_finish() -> None:
    """What is imported by now stays: to look it over for garbage, again and again, takes a twentieth of a run."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test sees default settings, whatever the shell that runs it has set."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("RUNTIME", "onnxruntime")  # measuring which one is the fastest takes seconds


@pytest.fixture(autouse=True)
def _no_logs_in_folders_that_are_gone() -> None:
    """A command that an earlier test ran in this process logs to its data folder, which is deleted by now."""
    for logger in (logging.getLogger(), logging.getLogger("uvicorn.access")):
        for handler in list(logger.handlers):
            if isinstance(handler, logging.FileHandler) and not Path(handler.baseFilename).parent.exists():
                logger.removeHandler(handler)
                handler.close()


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    """Commands set the umask of their process, which here is that of all tests."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(autouse=True)
def _decode_in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no decoder processes (0.4 s each), except for tests with the mark `decoders`."""
    if request.node.get_closest_marker("decoders"):
        return
    monkeypatch.setattr(DecoderPool, "decode", decode_here)


@pytest.fixture(scope="session", autouse=True)
def _make_routes_once() -> Iterator[None]:
    """All apps of a process share the routes of its first: FastAPI takes 0.1 s to make them, for each of 800 tests."""
    main = sys.modules.get("app.main")
    if main is None:  # no test of this run makes an app
        yield
        return
    pages = ("error_page", "status_page", "people_page", "changes_page")
    first: list[tuple[list[BaseRoute], dict[str, object]]] = []

    def add_routes(app: FastAPI) -> None:
        if not first:
            web.add_routes(app)
            first.append(([*app.router.routes], {name: getattr(app.state, name) for name in pages}))
        else:
            routes, shown = first[0]
            app.router.routes = [*routes]
            for name, page in shown.items():
                setattr(app.state, name, page)

    web = sys.modules["app.web"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main, "add_routes", add_routes)
        yield


@pytest.fixture
def postgresql_url() -> Iterator[str]:
    """The URL of a new, empty PostgreSQL database."""
    with new_postgresql_database() as url:
        yield url


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Default settings over an empty data folder."""
    return Settings(_env_file=None, data_dir=tmp_path / "data")


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def index() -> MemoryIndex:
    return MemoryIndex()


@pytest.fixture
def colour_pictures(tmp_path: Path) -> Path:
    """A folder with eight pictures, each of a colour (a person to the FakeEngine) of its own."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for place in range(8):
        colour = (30 + 28 * place, 250 - 28 * place, 30 + 60 * (place % 4))
        Image.new("RGB", (64 + place, 48), colour).save(folder / f"{place}.png")
    return folder


@pytest.fixture(scope="session")
def demo_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `models` folder with the demo pack in it, drawn once for all processes of a run."""
    base = tmp_path_factory.getbasetemp()
    models = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "models"
    models.mkdir(exist_ok=True)
    with locked(models.with_suffix(".lock")):
        write_demo_pack(models / "demo")
    return models


@pytest.fixture(scope="session")
def demo_pack(demo_models: Path) -> ModelPack:
    return find_pack("demo", demo_models)


@pytest.fixture
def qdrant_url(tmp_path: Path) -> Iterator[str]:
    """An empty Qdrant server: a real one if QDRANT_TEST_BINARY names its program, else the local mode over HTTP."""
    if BINARY:
        with Node(tmp_path / "qdrant") as node:
            yield node.url
    else:
        with serving(app_of(QdrantClient(":memory:"))) as port:
            yield f"http://127.0.0.1:{port}"


def folder_from(variable: str) -> Path:
    """The folder that an environment variable names; skips the test, saying why, if there is none."""
    value = os.environ.get(variable, "")
    if not value:
        pytest.skip(f"{variable} is not set")
    return Path(value)


@pytest.fixture
def real_pack() -> Path:
    return folder_from("REAL_PACK_DIR")


@pytest.fixture
def free_pack() -> Path:
    return folder_from("FREE_PACK_DIR")


@pytest.fixture
def real_faces() -> Path:
    return folder_from("REAL_FACES_DIR")
