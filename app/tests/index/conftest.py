"""Indexes in temporary folders, seeded vectors, and a watch over processes that stay behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from app.core.config import Settings
from app.core.protocols import FaceIndex
from app.core.types import FaceFilter, FacePayload, FacePoint, Floats, ModelPack, face_id_of
from app.index import open_index
from app.index.embedded.alias import open_embedded
from app.index.server.connect import collection_of, connect, open_server
from tests.support.running import free_port

PACK = ModelPack("testpack", Path("/none"), Path("/none"), Path("/none"), "4ab1d643" + "0" * 56, 512)
OTHER_PACK = ModelPack("otherpack", Path("/none"), Path("/none"), Path("/none"), "5b7d0001" + "0" * 56, 512)
SMALL_PACK = ModelPack("smallpack", Path("/none"), Path("/none"), Path("/none"), "6c8e0002" + "0" * 56, 128)
QUICK: dict[str, Any] = {"linger_s": 0.1, "build_min": 1_000_000}
SERVER = os.environ.get("QDRANT_TEST_URL", "")
WAYS = [pytest.param(way, marks=pytest.mark.server) for way in ("server-grpc", "server-http")]
IMPLEMENTATIONS = ["embedded", "local", *(WAYS if SERVER else [])]


def unit_vectors(count: int, seed: int, size: int = PACK.embedding_size) -> Floats:
    rows = np.random.default_rng(seed).standard_normal((count, size)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def payload(place: int, **changed: Any) -> FacePayload:
    values: dict[str, Any] = {
        "image_id": f"{place // 2:064x}",
        "path": f"/photos/{place % 4}/img {place // 2}.jpg",
        "folder": ("/", "/photos", f"/photos/{place % 4}"),
        "bbox": (1.5, 2.0, 30.25, 40.0),
        "kps": ((10.0, 10.5), (20.0, 10.0), (15.0, 15.0), (11.0, 20.0), (19.0, 20.0)),
        "width": 640,
        "height": 480,
        "det_score": 0.5 + place % 5 / 10,
        "quality": place % 10 / 10,
        "person": None,
        "taken_at": f"2020-01-{1 + place % 28:02d}T12:00:00",
        "ingested_at": "2024-05-01T10:00:00+00:00",
        "flaws": (("blurred", "face_too_small"), ("extreme_pose",), ())[place % 3],
    }
    return FacePayload(**{**values, **changed})


def points(count: int, *, seed: int = 0, start: int = 0, pack: ModelPack = PACK, **changed: Any) -> list[FacePoint]:
    vectors = unit_vectors(count, seed, pack.embedding_size)
    return [
        FacePoint(face_id_of(f"seed{seed}", pack.digest, start + at), vectors[at], payload(start + at, **changed))
        for at in range(count)
    ]


def settings_at(folder: Path) -> Settings:
    return Settings(_env_file=None, data_dir=folder)  # type: ignore[call-arg]


def collection_folder(settings: Settings) -> Path:
    return settings.index_dir / "embedded" / "faces__testpack__4ab1d643"


def about_owner(settings: Settings) -> dict[str, Any]:
    """What the owner says of itself: protocol, pid, socket, embedding size."""
    found: dict[str, Any] = json.loads((collection_folder(settings) / "owner.json").read_text())
    return found


def owner_pid(settings: Settings) -> int:
    return int(about_owner(settings)["pid"])


def has_owner(settings: Settings) -> bool:
    try:
        return not is_gone(owner_pid(settings))
    except FileNotFoundError:
        return False


def processes_of(folder: Path) -> list[int]:
    """Owners, workers and builders of indexes below a folder; straight from /proc, for it is asked often."""
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
    """Ended, though perhaps nobody has taken note yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_until(true: Callable[[], Any], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "did not come true in time"
        time.sleep(0.02)


def open_quick(settings: Settings, pack: ModelPack = PACK, **options: Any) -> FaceIndex:
    return open_embedded(settings, pack, **{**QUICK, **options})


def ids_of(some: list[FacePoint]) -> list[str]:
    return [point.face_id for point in some]


def everything(index: FaceIndex, where: FaceFilter | None = None) -> set[str]:
    """All face_ids, page by page."""
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
    """Where these tests keep their indexes: in memory if there is room, for a new index is a hundred fsyncs."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2_000_000_000:
        with tempfile.TemporaryDirectory(prefix="oceano-", dir=memory) as folder:
            yield Path(folder)
    else:
        yield tmp_path_factory.mktemp("index")


@pytest.fixture(scope="session", autouse=True)
def _nobody_stays_behind(base: Path) -> Iterator[None]:
    yield
    wait_until(lambda: not processes_of(base))


@pytest.fixture
def tmp_path(base: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=base))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_at(tmp_path / "data")


@pytest.fixture
def index(settings: Settings) -> Iterator[FaceIndex]:
    """An empty embedded index of its own."""
    opened = open_quick(settings)
    yield opened
    opened.close()


@pytest.fixture(scope="module", params=IMPLEMENTATIONS)
def shared(request: pytest.FixtureRequest, base: Path) -> Iterator[FaceIndex]:
    """An index that a module's tests share: each uses a seed, thus ids, of its own.

    Embedded; on qdrant-client's local mode; on the Qdrant server at QDRANT_TEST_URL, over gRPC and over HTTP.
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
    """A new index on the server at QDRANT_TEST_URL; nothing of it stays there."""
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
    """The server's index on qdrant-client's local mode, which stands in for a server."""
    settings = Settings(_env_file=None, qdrant_url="http://in.memory:1")  # type: ignore[call-arg]
    return open_server(settings, pack, client=client or QdrantClient(":memory:"), streams=1, **options)


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_gone(pid))
