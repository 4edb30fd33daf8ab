"""An index has a random id, which stays with it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from app.core.config import Settings
from app.index import identity_of, open_index
from tests.support.fakes import FAKE_PACK, MemoryIndex


def _identity(data: Path) -> tuple[str, str]:
    settings = Settings(_env_file=None, data_dir=data)
    with closing(open_index(settings, FAKE_PACK)) as index:
        found = identity_of(settings, FAKE_PACK, index)
    assert found is not None
    return found


def test_an_embedded_index_keeps_its_id_and_others_have_another(tmp_path: Path) -> None:
    first = _identity(tmp_path / "a")
    assert _identity(tmp_path / "a") == first
    assert _identity(tmp_path / "b")[0] != first[0]
    assert str(tmp_path / "a") in first[1]


def test_processes_that_ask_at_once_get_the_same_id(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path)
    with closing(open_index(settings, FAKE_PACK)) as index, ThreadPoolExecutor(16) as threads:
        found = set(threads.map(lambda _: identity_of(settings, FAKE_PACK, index), range(64)))
    assert len(found) == 1


def test_an_index_in_memory_has_none(tmp_path: Path) -> None:
    assert identity_of(Settings(_env_file=None, data_dir=tmp_path), FAKE_PACK, MemoryIndex()) is None
