"""`oceano migrate`, from an embedded index to a server and back."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest

from app.cli import main
from app.core.config import Settings, load_settings
from app.core.types import FaceFilter
from app.index import open_index
from app.service.factory import find_model
from tests.index.conftest import ids_of, points
from tests.support.packs import put
from tests.support.qdrant_nodes import BINARY, Node


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    put(tmp_path / "models" / "small")
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("MODEL_NAME", "small")
    monkeypatch.setattr("app.core.config.REPOSITORY", tmp_path)
    return tmp_path


def test_an_index_is_migrated_to_a_server_and_back(
    data: Path, qdrant_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load_settings()
    pack = find_model(settings)
    faces = points(520, seed=3)
    index = open_index(settings, pack)
    index.upsert(faces)
    index.set_payload(ids_of(faces[:2]), person="Ana")
    index.close()

    assert main(["migrate", "--to", qdrant_url]) == 0
    output = capsys.readouterr().out
    assert "both indexes have 520 faces (520 copied" in output
    assert f"QDRANT_URL={qdrant_url}" in output
    assert main(["migrate", "--to", qdrant_url]) == 0
    assert "(0 copied, 0 updated)" in capsys.readouterr().out

    monkeypatch.setenv("QDRANT_URL", qdrant_url)
    served = open_index(load_settings(), pack, create=False)
    assert served.info().kind == "server"
    assert served.count(FaceFilter(person="Ana")) == 2
    (match,) = served.search(faces[9].embedding, limit=1)
    assert (match.face_id, match.payload) == (faces[9].face_id, faces[9].payload)
    served.set_payload(ids_of(faces[:1]), person="Eva")
    served.close()

    assert main(["migrate", "--to", "embedded"]) == 0
    assert "(0 copied, 1 updated)" in capsys.readouterr().out
    monkeypatch.delenv("QDRANT_URL")
    back = open_index(load_settings(), pack, create=False)
    assert back.count(FaceFilter(person="Eva")) == 1
    back.close()


@pytest.mark.parametrize(
    ("to", "code", "output"),
    [
        ("embedded", 2, "the target is the current index"),
        ("somewhere", 2, "--to 'somewhere': must be like http://host:6333"),
        ("http://me:secret@host:6333", 2, "--to '***@host:6333': must not contain a user"),
        ("http://127.0.0.1:9", 2, "no index"),
    ],
)
def test_invalid_targets_are_reported(
    data: Path, to: str, code: int, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate", "--to", to]) == code
    assert output in capsys.readouterr().err


def test_the_same_server_by_another_name_is_refused(
    data: Path, qdrant_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QDRANT_URL", qdrant_url)
    settings = load_settings()
    with closing(open_index(settings, find_model(settings))) as index:
        index.upsert(points(3))
    assert main(["migrate", "--to", qdrant_url.replace("127.0.0.1", "localhost")]) == 2
    assert "is the current index under another address" in capsys.readouterr().err


@pytest.mark.parametrize(("own", "used"), [(None, "the key here"), ("the key there", "the key there")])
def test_the_target_server_may_have_another_key(
    data: Path, own: str | None, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[Settings] = []

    def record(settings: Settings, there: Settings, stop: Event, *, exact: bool) -> int:
        received.extend((settings, there))
        return 0

    monkeypatch.setattr("app.commands.migrate.run_migrate", record)
    monkeypatch.setenv("QDRANT_API_KEY", "the key here")
    if own:
        monkeypatch.setenv("MIGRATE_API_KEY", own)
    assert main(["migrate", "--to", "http://127.0.0.1:9"]) == 0
    assert [settings.qdrant_api_key for settings in received] == ["the key here", used]


@pytest.mark.server
def test_a_server_s_index_is_migrated_to_a_server_with_another_key(
    data: Path, qdrant_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not BINARY:
        pytest.skip("QDRANT_TEST_BINARY is not set")
    monkeypatch.setenv("QDRANT_URL", qdrant_url)
    settings = load_settings()
    with closing(open_index(settings, find_model(settings))) as index:
        index.upsert(points(3))
    with Node(tmp_path / "there", service__api_key="a key of sixteen or more") as there:
        arguments = ["migrate", "--to", there.url, "--grpc-port", str(there.grpc)]
        assert main(arguments) == 2
        assert "QDRANT_API_KEY" in capsys.readouterr().err
        assert main([*arguments, "--api-key", "a key of sixteen or more"]) == 0
    assert "both indexes have 3 faces" in capsys.readouterr().out


def test_a_migration_is_logged(data: Path, qdrant_url: str) -> None:
    settings = load_settings()
    with closing(open_index(settings, find_model(settings))) as index:
        index.upsert(points(3))
    assert main(["migrate", "--to", qdrant_url]) == 0
    for handler in logging.getLogger().handlers:
        handler.flush()
    assert "both indexes have 3 faces" in (settings.logs_dir / "migrate.log").read_text()
