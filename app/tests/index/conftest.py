"""Indexes in temporary folders, seeded vectors, and a check for leftover processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from app.core.config import Settings
from app.core.protocols import FaceIndex
from app.core.types import FaceFilter, FacePayload, FacePoint, Floats, ModelPack, face_id_of
from app.index import open_index
from app.index.embedded.alias import open_embedded
from tests.support import memory
from tests.support.running import free_port

if TYPE_CHECKING:  # takes a second, and processes of the tests of owners import this module
    from qdrant_client import QdrantClient

PACK = ModelPack("testpack", Path("/none"), Path("/none"), Path("/none"), "4ab1d643" + "0" * 56, 512)
OTHER_PACK = ModelPack("otherpack", Path("/none"), Path("/none"), Path("/none"), "5b7d0001" + "0" * 56, 512)
SMALL_PACK = ModelPack("smallpack", Path("/none"), Path("/none"), Path("/none"), "6c8e0002" + "0" * 56, 128)
QUICK: dict[str, Any] = {"linger_s": 0.1, "build_min": 1_000_000}
SERVER = os.environ.get("QDRANT_TEST_URL", "")
SERVERS = [pytest.param(kind, marks=pytest.mark.server) for kind in ("server-grpc", "server-http")]
IMPLEMENTATIONS = ["embedded", "local", *(SERVERS if SERVER else [])]

tmp_path = memory.tmp_path


def unit_vectors(count: int, seed: int, size: int = PACK.embedding_size) -> Floats:
    rows = np.random.default_rng(seed).standard_normal((count, size)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def payload(number: int, **changed: Any) -> FacePayload:
    values: dict[str, Any] = {
        "image_id": f"{number // 2:064x}",
        "path": f"/photos/{number % 4}/img {number // 2}.jpg",
        "folder": ("/", "/photos", f"/photos/{number % 4}"),
        "bbox": (1.5, 2.0, 30.25, 40.0),
        "kps": ((10.0, 10.5), (20.0, 10.0), (15.0, 15.0), (11.0, 20.0), (19.0, 20.0)),
        "width": 640,
        "height": 480,
        "det_score": 0.5 + number % 5 / 10,
        "quality": number % 10 / 10,
        "person": None,
        "taken_at": f"2020-01-{1 + number % 28:02d}T12:00:00",
        "ingested_at": "2024-05-01T10:00:00+00:00",
        "flaws": (("blurred", "face_too_small"), ("extreme_pose",), ())[number % 3],
    }
    return FacePayload(**{**values, **changed})


def points(count: int, *, seed: int = 0, start: int = 0, pack: ModelPack = PACK, **changed: Any) -> list[FacePoint]:
    vectors = unit_vectors(count, seed, pack.embedding_size)
    return [
        FacePoint(face_id_of(f"seed{seed}", pack.digest, number), vector, payload(number, **changed))
        for number, vector in enumerate(vectors, start)
    ]


def settings_at(folder: Path) -> Settings:
    return Settings(_env_file=None, data_dir=folder)  # type: ignore[call-arg]


def collection_folder(settings: Settings) -> Path:
    return settings.index_dir / "embedded" / "faces__testpack__4ab1d643"


def owner_info(settings: Settings) -> dict[str, Any]:
    """Read the owner's `owner.json`: protocol, pid, socket, embedding size."""
    found: dict[str, Any] = json.loads((collection_folder(settings) / "owner.json").read_text())
    return found


def owner_pid(settings: Settings) -> int:
    return int(owner_info(settings)["pid"])


def has_owner(settings: Settings) -> bool:
    try:
        return not is_gone(owner_pid(settings))
    except FileNotFoundError:
        return False


def processes_of(folder: Path) -> list[int]:
    """Return the pids of owners, workers and builders of indexes below a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes()
            if b"app.index." in line and os.fsencode(folder) in line:
                found.append(int(path.parent.name))
    return found


def children_of(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, path.read_text().split())
    return found


def is_gone(pid: int) -> bool:
    """Return whether a process has exited; it may still be a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.02)


def open_quick(settings: Settings, pack: ModelPack = PACK, **options: Any) -> FaceIndex:
    return open_embedded(settings, pack, **{**QUICK, **options})


def ids_of(faces: list[FacePoint]) -> list[str]:
    return [face.face_id for face in faces]


def everything(index: FaceIndex, where: FaceFilter | None = None) -> set[str]:
    """Return all face_ids."""
    found: set[str] = set()
    offset: str | None = None
    while True:
        page = index.scroll(limit=1000, offset=offset, where=where)
        found.update(record.face_id for record in page.records)
        if page.next_offset is None:
            return found
        offset = page.next_offset


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of these tests' indexes."""
    with memory.folder_in_memory(tmp_path_factory) as folder:
        yield folder


@pytest.fixture(scope="session", autouse=True)
def _no_process_is_left(base: Path) -> Iterator[None]:
    yield
    wait_until(lambda: not processes_of(base))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_at(tmp_path / "data")


@pytest.fixture
def index(settings: Settings) -> Iterator[FaceIndex]:
    """An empty embedded index."""
    opened = open_quick(settings)
    yield opened
    opened.close()


@pytest.fixture(scope="module", params=IMPLEMENTATIONS)
def shared(request: pytest.FixtureRequest, base: Path) -> Iterator[FaceIndex]:
    """An index that the tests of a module share; each test uses its own seed, and so its own ids.

    Embedded, in qdrant-client's local mode, and on the Qdrant server at QDRANT_TEST_URL with gRPC and with HTTP.
    """
    if request.param in ("embedded", "local"):
        quick = request.param == "embedded"
        opened = open_quick(settings_at(Path(tempfile.mkdtemp(dir=base)))) if quick else open_local()
        yield opened
        opened.close()
    else:
        with index_on_server(over_http=request.param == "server-http") as opened:
            yield opened


@contextlib.contextmanager
def index_on_server(*, over_http: bool = False) -> Iterator[FaceIndex]:
    """A new index on the server at QDRANT_TEST_URL, deleted at the end."""
    from app.index.server.connect import collection_of, connect

    settings = Settings(  # type: ignore[call-arg]
        _env_file=None,
        qdrant_url=SERVER,
        qdrant_grpc_port=free_port() if over_http else 0,
        qdrant_collection=f"test-{uuid.uuid4().hex[:8]}",
    )
    with contextlib.closing(open_index(settings, PACK)) as opened:
        yield opened
    with contextlib.closing(connect(settings)) as client:
        client.delete_collection(str(collection_of(client, settings.qdrant_collection)))


def open_local(client: QdrantClient | None = None, pack: ModelPack = PACK, **options: Any) -> FaceIndex:
    """Open a server index in qdrant-client's local mode, which replaces a server."""
    from qdrant_client import QdrantClient

    from app.index.server.connect import open_server

    settings = Settings(_env_file=None, qdrant_url="http://in.memory:1")  # type: ignore[call-arg]
    return open_server(settings, pack, client=client or QdrantClient(":memory:"), streams=1, **options)


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_gone(pid))
