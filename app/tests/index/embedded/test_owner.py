"""The embedded index's processes: who starts, who ends, and what a kill leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import AuthenticationError
from pathlib import Path

import psutil
import pytest

from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.protocols import FaceIndex
from app.core.types import FaceFilter
from app.index.embedded import protocol as wire
from tests.index.conftest import (
    about_owner,
    children_of,
    collection_folder,
    has_owner,
    ids_of,
    is_gone,
    kill,
    open_quick,
    owner_pid,
    points,
    processes_of,
    settings_at,
    wait_until,
)

APP = Path(__file__).resolve().parents[3]
CLIENT = """
import sys
from pathlib import Path
from tests.index.conftest import *
settings = settings_at(Path(sys.argv[1]))
index = open_quick(settings)
"""


@contextlib.contextmanager
def client(settings: Settings, code: str) -> Iterator[subprocess.Popen[str]]:
    """Another process with the index open; it has `settings` and `index`, and runs `code`."""
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT + code, str(settings.data_dir)],
        cwd=APP,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


def worker_pid(settings: Settings) -> int:
    (worker,) = children_of(owner_pid(settings))
    return worker


def test_what_was_flushed_is_there_after_the_owner_is_killed(settings: Settings, index: FaceIndex) -> None:
    faces = points(300)
    index.upsert(faces)
    index.flush()
    kill(owner_pid(settings))
    assert index.count() == 300
    assert [record.payload for record in index.retrieve(ids_of(faces))] == [face.payload for face in faces]


def test_what_was_flushed_is_there_after_owner_and_worker_are_killed(settings: Settings, index: FaceIndex) -> None:
    index.upsert(points(300))
    index.flush()
    both = (owner_pid(settings), worker_pid(settings))
    for pid in both:
        os.kill(pid, signal.SIGKILL)
    assert index.count() == 300


def test_a_name_and_a_deletion_are_durable_without_a_flush(settings: Settings, index: FaceIndex) -> None:
    faces = points(3)
    index.upsert(faces)
    index.set_payload([faces[0].face_id], person="Ana")
    index.delete([faces[1].face_id])
    both = (owner_pid(settings), worker_pid(settings))
    for pid in both:
        os.kill(pid, signal.SIGKILL)
    assert index.count(FaceFilter(person="Ana")) == 1
    assert index.count() == 2


def test_a_killed_worker_is_replaced_and_the_request_repeated(settings: Settings, index: FaceIndex) -> None:
    faces = points(50)
    index.upsert(faces)
    owner = owner_pid(settings)
    for _ in range(3):
        kill(worker_pid(settings))
        assert index.count() == 50
    assert owner_pid(settings) == owner


def test_a_client_in_use_survives_the_death_of_its_owner_again_and_again(settings: Settings, index: FaceIndex) -> None:
    faces = points(64)
    index.upsert(faces)
    index.flush()
    ended = threading.Event()
    done = [0] * 4

    def search(place: int) -> None:
        while not ended.is_set():
            face = faces[done[place] % 64]
            assert index.search(face.embedding, limit=1)[0].face_id == face.face_id
            done[place] += 1

    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(search, place) for place in range(4)]
        try:
            for _ in range(3):
                before = list(done)
                # two each: the first may be of the owner before, counted late, and its next request lost with that one
                wait_until(lambda: all(now > then + 1 for now, then in zip(done, before, strict=True)))  # noqa: B023
                wait_until(lambda: has_owner(settings))
                kill(owner_pid(settings))
            wait_until(lambda: index.count() == 64)
        finally:
            ended.set()
        assert [one.result() for one in running] == [None] * 4


def test_two_processes_use_the_index_at_once(settings: Settings, index: FaceIndex) -> None:
    writing = """
faces = points(2000, seed=5)
for at in range(0, 2000, 50):
    index.upsert(faces[at : at + 50])
index.flush()
print("done", flush=True)
sys.stdin.read()
"""
    mine = points(100, seed=6)
    index.upsert(mine)
    with client(settings, writing) as other:
        searches = 0
        while index.count() < 2100:
            assert index.search(mine[searches % 100].embedding, limit=1)[0].face_id == mine[searches % 100].face_id
            searches += 1
        assert other.stdout is not None and other.stdout.readline() == "done\n"
        assert len(processes_of(settings.data_dir)) == 2  # one owner and its worker
        other.communicate("")
        assert other.returncode == 0
    assert searches > 5
    assert index.count() == 2100


def test_the_owner_ends_with_its_last_client(settings: Settings) -> None:
    first, second = open_quick(settings), open_quick(settings)
    owner, path = owner_pid(settings), Path(about_owner(settings)["socket"])
    first.close()
    assert second.count() == 0
    assert owner_pid(settings) == owner
    second.close()
    wait_until(lambda: not processes_of(settings.data_dir))
    assert not path.exists()
    assert not (collection_folder(settings) / "owner.json").exists()


def test_the_owner_ends_also_when_its_last_client_was_killed(settings: Settings) -> None:
    with client(settings, "print('open', flush=True); sys.stdin.read()") as other:
        assert other.stdout is not None and other.stdout.readline() == "open\n"
        assert len(processes_of(settings.data_dir)) == 2
        other.kill()
        other.communicate()
    wait_until(lambda: not processes_of(settings.data_dir))


def test_an_owner_about_to_leave_is_no_trouble_for_a_client_that_comes(settings: Settings) -> None:
    for round_ in range(4):
        index = open_quick(settings, linger_s=0.0)
        index.upsert(points(1, start=round_, seed=round_))
        assert index.count() == round_ + 1
        index.close()


def test_many_who_start_at_once_get_one_owner(settings: Settings) -> None:
    with contextlib.ExitStack() as stack:
        others = [
            stack.enter_context(client(settings, "print(owner_pid(settings), flush=True); sys.stdin.read()"))
            for _ in range(4)
        ]
        pids = {other.stdout.readline() for other in others if other.stdout}
        for other in others:
            other.communicate("")
    assert len(pids) == 1
    assert all(other.returncode == 0 for other in others)


def test_a_socket_left_behind_by_a_killed_owner_does_not_matter(settings: Settings) -> None:
    index = open_quick(settings)
    index.upsert(points(5))
    index.flush()
    kill(owner_pid(settings))
    index.close()
    wait_until(lambda: not processes_of(settings.data_dir))
    assert Path(about_owner(settings)["socket"]).exists()
    again = open_quick(settings)
    assert again.count() == 5
    again.close()


def test_sigterm_ends_the_owner_with_everything_flushed(settings: Settings, index: FaceIndex) -> None:
    index.upsert(points(500))
    owner = owner_pid(settings)
    os.kill(owner, signal.SIGTERM)
    wait_until(lambda: is_gone(owner))
    assert index.count() == 500
    assert owner_pid(settings) != owner


def test_a_long_data_folder_puts_the_socket_into_a_private_folder(tmp_path: Path) -> None:
    settings = settings_at(tmp_path / ("long" * 20) / ("longer" * 20))
    index = open_quick(settings)
    path = Path(about_owner(settings)["socket"])
    assert len(os.fsencode(path)) <= 107
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    index.upsert(points(3))
    assert index.count() == 3
    index.close()
    wait_until(lambda: not path.exists())


def test_where_no_socket_can_be_made_beside_the_index_the_private_folder_serves(tmp_path: Path) -> None:
    """As on some mounted file systems; here a folder stands where the socket should."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        settings = settings_at(Path(short))
        (collection_folder(settings) / "owner.sock").mkdir(parents=True)
        index = open_quick(settings)
        assert about_owner(settings)["socket"].startswith(f"{tempfile.gettempdir()}/oceano-")
        index.upsert(points(2))
        assert index.count() == 2
        index.close()
        wait_until(lambda: not processes_of(settings.data_dir))


def test_a_private_folder_that_others_may_write_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "gettempdir", lambda: short)
        private = Path(short) / f"oceano-{os.getuid()}"
        private.mkdir()
        private.chmod(0o777)
        with pytest.raises(OceanoError, match="mode 0700"):
            list(wire.socket_places(Path("/" + "x" * 200)))
        private.rmdir()
        private.symlink_to("/tmp")
        with pytest.raises(OceanoError, match="mode 0700"):
            list(wire.socket_places(Path("/" + "x" * 200)))


def test_socket_and_key_are_for_this_user_alone(settings: Settings, index: FaceIndex) -> None:
    folder = collection_folder(settings)
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "owner.key")}
    assert list(found.values()) == [0o700, 0o600]
    listening = Path(about_owner(settings)["socket"])
    assert stat.S_IMODE(listening.stat().st_mode) == 0o600
    assert stat.S_IMODE(listening.parent.stat().st_mode) == 0o700
    assert len((folder / "owner.key").read_bytes()) == 32


def test_a_client_with_a_wrong_key_is_refused_and_harms_nobody(settings: Settings, index: FaceIndex) -> None:
    path = about_owner(settings)["socket"]
    owner = owner_pid(settings)
    for _ in range(3):
        with pytest.raises(AuthenticationError):
            wire.dial(path, b"x" * 32)
    assert index.count() == 0
    assert owner_pid(settings) == owner


def test_a_connection_that_says_nothing_holds_up_nobody(settings: Settings) -> None:
    index = open_quick(settings)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(about_owner(settings)["socket"])
        assert index.count() == 0
        index.close()
        wait_until(lambda: not processes_of(settings.data_dir), 8)


def test_an_owner_with_a_wrong_key_is_not_believed(settings: Settings, index: FaceIndex) -> None:
    (collection_folder(settings) / "owner.key").write_bytes(b"y" * 32)
    with pytest.raises(OceanoError, match="key") as caught:
        open_quick(settings)
    assert caught.value.code == "index_unavailable"


def test_64_threads_at_once_are_all_answered(settings: Settings, index: FaceIndex) -> None:
    faces = points(64)

    def work(at: int) -> bool:
        index.upsert([faces[at]])
        found = index.search(faces[at].embedding, limit=1)
        return found[0].face_id == faces[at].face_id and index.count() >= 1

    with ThreadPoolExecutor(64) as threads:
        assert all(threads.map(work, range(64)))
    assert index.count() == 64
    connections = [one for one in psutil.Process().net_connections("unix") if "owner" in str(one.raddr)]
    assert len(connections) <= 8


def test_a_forked_child_uses_connections_of_its_own(settings: Settings, index: FaceIndex) -> None:
    faces = points(32)
    index.upsert(faces)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and up warn of threads and fork
        child = os.fork()
    for face in faces:
        good = index.search(face.embedding, limit=1)[0].face_id == face.face_id
        if not good:
            break
    if child == 0:
        os._exit(0 if good else 1)
    assert good
    assert os.waitpid(child, 0)[1] == 0


def test_a_closed_index_says_so(settings: Settings) -> None:
    index = open_quick(settings)
    index.close()
    index.close()
    with pytest.raises(OceanoError, match="closed") as caught:
        index.count()
    assert caught.value.code == "index_unavailable"


def test_a_disk_that_is_nearly_full_refuses_writes_and_goes_on_searching(settings: Settings) -> None:
    index = open_quick(settings, min_free_mb=10**9)
    with pytest.raises(OceanoError) as caught:
        index.upsert(points(1))
    assert caught.value.code == "disk_full"
    assert index.count() == 0
    index.delete(ids_of(points(1)))
    index.close()


def test_an_owner_of_another_version_is_not_talked_to(settings: Settings, index: FaceIndex) -> None:
    path = collection_folder(settings) / "owner.json"
    path.write_text(json.dumps(about_owner(settings) | {"protocol": 99}))
    with pytest.raises(OceanoError) as caught:
        open_quick(settings)
    assert caught.value.code == "index_in_use"


def test_a_pointer_to_a_shard_that_is_gone_is_said_and_nothing_is_removed(settings: Settings) -> None:
    open_quick(settings).close()
    wait_until(lambda: not processes_of(settings.data_dir))
    folder = collection_folder(settings)
    (folder / "current").write_text("shard-gone\n")
    before = sorted(folder.glob("shard-*"))
    with pytest.raises(OceanoError, match="restore the index") as caught:
        open_quick(settings)
    assert caught.value.code == "index_unavailable"
    assert sorted(folder.glob("shard-*")) == before != []


def test_leftovers_of_a_kill_are_removed_and_the_current_shard_is_not(settings: Settings) -> None:
    index = open_quick(settings)
    index.upsert(points(7))
    index.close()
    wait_until(lambda: not processes_of(settings.data_dir))
    folder = collection_folder(settings)
    for name in ("shard-00000000", "build-00000000", "backup-00000000"):
        (folder / name).mkdir()
        (folder / name / "edge_config.json").write_text("{}")
    (folder / ".current.1.aa").touch()
    again = open_quick(settings)
    assert again.count() == 7
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 1
    assert not (folder / ".current.1.aa").exists()
    again.close()


def test_an_index_whose_creation_was_cut_off_before_its_pointer_opens(settings: Settings) -> None:
    open_quick(settings).close()
    wait_until(lambda: not processes_of(settings.data_dir))
    (collection_folder(settings) / "current").unlink()
    index = open_quick(settings)
    assert index.count() == 0
    assert (collection_folder(settings) / "current").exists()
    index.close()
