"""The processes of the embedded index: start, exit, and recovery after a kill."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
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
from app.index.embedded import protocol
from tests.index.conftest import (
    children_of,
    collection_folder,
    has_owner,
    ids_of,
    is_gone,
    kill,
    open_quick,
    owner_info,
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
    """Run `code` in another process that has `settings` and the open `index`."""
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


def test_flushed_faces_survive_a_kill_of_the_owner(settings: Settings, index: FaceIndex) -> None:
    faces = points(300)
    index.upsert(faces)
    index.flush()
    kill(owner_pid(settings))
    assert index.count() == 300
    assert [record.payload for record in index.retrieve(ids_of(faces))] == [face.payload for face in faces]


def test_flushed_faces_survive_a_kill_of_owner_and_worker(settings: Settings, index: FaceIndex) -> None:
    index.upsert(points(300))
    index.flush()
    for pid in (owner_pid(settings), worker_pid(settings)):
        os.kill(pid, signal.SIGKILL)
    assert index.count() == 300


def test_a_name_and_a_deletion_are_durable_without_a_flush(settings: Settings, index: FaceIndex) -> None:
    faces = points(3)
    index.upsert(faces)
    index.set_payload([faces[0].face_id], person="Ana")
    index.delete([faces[1].face_id])
    for pid in (owner_pid(settings), worker_pid(settings)):
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


def test_a_busy_client_survives_repeated_kills_of_its_owner(settings: Settings, index: FaceIndex) -> None:
    faces = points(64)
    index.upsert(faces)
    index.flush()
    ended = threading.Event()
    done = [0] * 4

    def search(number: int) -> None:
        while not ended.is_set():
            face = faces[done[number] % 64]
            assert index.search(face.embedding, limit=1)[0].face_id == face.face_id
            done[number] += 1

    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(search, number) for number in range(4)]
        try:
            for _ in range(3):
                before = list(done)
                # Two requests per thread: the previous owner may have handled the first.
                wait_until(lambda: all(now > then + 1 for now, then in zip(done, before, strict=True)))  # noqa: B023
                wait_until(lambda: has_owner(settings))
                kill(owner_pid(settings))
            wait_until(lambda: index.count() == 64)
        finally:
            ended.set()
        assert [search.result() for search in running] == [None] * 4


def test_two_processes_use_the_index_at_once(settings: Settings, index: FaceIndex) -> None:
    writing = """
faces = points(2000, seed=5)
for start in range(0, 2000, 50):
    index.upsert(faces[start : start + 50])
index.flush()
print("done", flush=True)
sys.stdin.read()
"""
    own = points(100, seed=6)
    index.upsert(own)
    with client(settings, writing) as process:
        searches = 0
        while index.count() < 2100:
            face = own[searches % 100]
            assert index.search(face.embedding, limit=1)[0].face_id == face.face_id
            searches += 1
        assert process.stdout is not None and process.stdout.readline() == "done\n"
        assert len(processes_of(settings.data_dir)) == 2  # one owner and its worker
        process.communicate("")
        assert process.returncode == 0
    assert searches > 5
    assert index.count() == 2100


def test_the_owner_exits_after_its_last_client(settings: Settings) -> None:
    first, second = open_quick(settings), open_quick(settings)
    owner, path = owner_pid(settings), Path(owner_info(settings)["socket"])
    first.close()
    assert second.count() == 0
    assert owner_pid(settings) == owner
    second.close()
    wait_until(lambda: not processes_of(settings.data_dir))
    assert not path.exists()
    assert not (collection_folder(settings) / "owner.json").exists()


def test_the_owner_exits_when_its_last_client_is_killed(settings: Settings) -> None:
    with client(settings, "print('open', flush=True); sys.stdin.read()") as process:
        assert process.stdout is not None and process.stdout.readline() == "open\n"
        assert len(processes_of(settings.data_dir)) == 2
        process.kill()
        process.communicate()
    wait_until(lambda: not processes_of(settings.data_dir))


def test_a_client_that_connects_while_the_owner_exits_gets_a_new_owner(settings: Settings) -> None:
    for round_ in range(4):
        index = open_quick(settings, linger_s=0.0)
        index.upsert(points(1, start=round_, seed=round_))
        assert index.count() == round_ + 1
        index.close()


def test_clients_that_start_at_the_same_time_share_one_owner(settings: Settings) -> None:
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(client(settings, "print(owner_pid(settings), flush=True); sys.stdin.read()"))
            for _ in range(4)
        ]
        pids = {process.stdout.readline() for process in processes if process.stdout}
        for process in processes:
            process.communicate("")
    assert len(pids) == 1
    assert all(process.returncode == 0 for process in processes)


def test_the_socket_of_a_killed_owner_is_replaced(settings: Settings) -> None:
    index = open_quick(settings)
    index.upsert(points(5))
    index.flush()
    kill(owner_pid(settings))
    index.close()
    wait_until(lambda: not processes_of(settings.data_dir))
    assert Path(owner_info(settings)["socket"]).exists()
    again = open_quick(settings)
    assert again.count() == 5
    again.close()


def test_the_owner_flushes_and_exits_on_sigterm(settings: Settings, index: FaceIndex) -> None:
    index.upsert(points(500))
    owner = owner_pid(settings)
    os.kill(owner, signal.SIGTERM)
    wait_until(lambda: is_gone(owner))
    assert index.count() == 500
    assert owner_pid(settings) != owner


def test_with_a_long_data_folder_the_socket_is_in_a_private_folder(tmp_path: Path) -> None:
    settings = settings_at(tmp_path / ("long" * 20) / ("longer" * 20))
    index = open_quick(settings)
    path = Path(owner_info(settings)["socket"])
    assert len(os.fsencode(path)) <= 107
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    index.upsert(points(3))
    assert index.count() == 3
    index.close()
    wait_until(lambda: not path.exists())


def test_without_sockets_in_the_index_s_folder_the_private_folder_is_used(tmp_path: Path) -> None:
    """As on some mounted file systems; here a folder has the socket's name."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        settings = settings_at(Path(short))
        (collection_folder(settings) / "owner.sock").mkdir(parents=True)
        index = open_quick(settings)
        assert owner_info(settings)["socket"].startswith(f"{tempfile.gettempdir()}/oceano-")
        index.upsert(points(2))
        assert index.count() == 2
        index.close()
        wait_until(lambda: not processes_of(settings.data_dir))


def test_a_private_folder_with_another_mode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "gettempdir", lambda: short)
        private = Path(short) / f"oceano-{os.getuid()}"
        private.mkdir()
        private.chmod(0o777)
        with pytest.raises(OceanoError, match="mode 0700"):
            list(protocol.socket_paths(Path("/" + "x" * 200)))
        private.rmdir()
        private.symlink_to("/tmp")
        with pytest.raises(OceanoError, match="mode 0700"):
            list(protocol.socket_paths(Path("/" + "x" * 200)))


def test_socket_and_key_are_for_this_user_alone(settings: Settings, index: FaceIndex) -> None:
    folder = collection_folder(settings)
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "owner.key")}
    assert list(found.values()) == [0o700, 0o600]
    listening = Path(owner_info(settings)["socket"])
    assert stat.S_IMODE(listening.stat().st_mode) == 0o600
    assert stat.S_IMODE(listening.parent.stat().st_mode) == 0o700
    assert len((folder / "owner.key").read_bytes()) == 32


def test_a_client_with_a_wrong_key_is_rejected_and_others_are_served(settings: Settings, index: FaceIndex) -> None:
    path = owner_info(settings)["socket"]
    owner = owner_pid(settings)
    for _ in range(3):
        with pytest.raises(AuthenticationError):
            protocol.connect(path, b"x" * 32)
    assert index.count() == 0
    assert owner_pid(settings) == owner


@pytest.mark.parametrize("message", [b"", b"\x01", b"\xff" * 40, b"\x01\xff\xff\xff\x00"])
def test_a_message_that_is_no_request_is_an_error_with_a_code(message: bytes) -> None:
    with pytest.raises(OceanoError, match="invalid request") as caught:
        protocol.unpack(message)
    assert caught.value.code == "index_unavailable"


def test_a_listener_that_sends_no_challenge_is_rejected(tmp_path: Path) -> None:
    """Python 3.11 raises AssertionError for it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b"\x00\x00\x00\x05hello")
                peer.recv(100)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises((AuthenticationError, EOFError)):
            protocol.connect(str(tmp_path / "s"), b"k" * 32)
        thread.join()


def test_a_silent_connection_blocks_no_client(settings: Settings) -> None:
    index = open_quick(settings)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(owner_info(settings)["socket"])
        assert index.count() == 0
        index.close()
        wait_until(lambda: not processes_of(settings.data_dir), 8)


def test_an_owner_with_a_wrong_key_is_rejected(settings: Settings, index: FaceIndex) -> None:
    (collection_folder(settings) / "owner.key").write_bytes(b"y" * 32)
    with pytest.raises(OceanoError, match="key") as caught:
        open_quick(settings)
    assert caught.value.code == "index_unavailable"


def test_64_threads_share_the_connections(settings: Settings, index: FaceIndex) -> None:
    faces = points(64)

    def work(number: int) -> bool:
        face = faces[number]
        index.upsert([face])
        found = index.search(face.embedding, limit=1)
        return found[0].face_id == face.face_id and index.count() >= 1

    with ThreadPoolExecutor(64) as threads:
        assert all(threads.map(work, range(64)))
    assert index.count() == 64
    connections = [sock for sock in psutil.Process().net_connections("unix") if "owner" in str(sock.raddr)]
    assert len(connections) <= 8


def test_a_forked_child_opens_its_own_connections(settings: Settings, index: FaceIndex) -> None:
    faces = points(32)
    index.upsert(faces)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12 on, fork warns about threads
        child = os.fork()
    for face in faces:
        found = index.search(face.embedding, limit=1)[0].face_id == face.face_id
        if not found:
            break
    if child == 0:
        os._exit(0 if found else 1)
    assert found
    assert os.waitpid(child, 0)[1] == 0


def test_a_closed_index_says_so(settings: Settings) -> None:
    index = open_quick(settings)
    index.close()
    index.close()
    with pytest.raises(OceanoError, match="closed") as caught:
        index.count()
    assert caught.value.code == "index_unavailable"


def test_on_a_nearly_full_disk_writes_fail_and_searches_work(settings: Settings) -> None:
    index = open_quick(settings, min_free_mb=10**9)
    with pytest.raises(OceanoError) as caught:
        index.upsert(points(1))
    assert caught.value.code == "disk_full"
    assert index.count() == 0
    index.delete(ids_of(points(1)))
    index.close()


def test_an_owner_of_another_version_is_refused(settings: Settings, index: FaceIndex) -> None:
    path = collection_folder(settings) / "owner.json"
    path.write_text(json.dumps(owner_info(settings) | {"protocol": 99}))
    with pytest.raises(OceanoError) as caught:
        open_quick(settings)
    assert caught.value.code == "index_in_use"


def test_a_pointer_to_a_missing_shard_is_reported_and_nothing_is_removed(settings: Settings) -> None:
    open_quick(settings).close()
    wait_until(lambda: not processes_of(settings.data_dir))
    folder = collection_folder(settings)
    (folder / "current").write_text("shard-gone\n")
    before = sorted(folder.glob("shard-*"))
    with pytest.raises(OceanoError, match="restore the index") as caught:
        open_quick(settings)
    assert caught.value.code == "index_unavailable"
    assert sorted(folder.glob("shard-*")) == before != []


def test_leftovers_of_a_kill_are_removed_and_the_current_shard_is_kept(settings: Settings) -> None:
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


def test_an_index_whose_creation_was_interrupted_before_its_pointer_opens(settings: Settings) -> None:
    open_quick(settings).close()
    wait_until(lambda: not processes_of(settings.data_dir))
    (collection_folder(settings) / "current").unlink()
    index = open_quick(settings)
    assert index.count() == 0
    assert (collection_folder(settings) / "current").exists()
    index.close()


def test_a_copy_of_a_folder_in_use_is_an_index_of_its_own(settings: Settings, index: FaceIndex, tmp_path: Path) -> None:
    """The copied `owner.json` names the socket of the original's owner, and the copied key opens it."""
    index.upsert(points(3))
    index.flush()
    copy = settings.model_copy(update={"data_dir": tmp_path / "copy"})
    shutil.copytree(settings.data_dir, copy.data_dir, ignore=shutil.ignore_patterns("*.sock"))
    assert (collection_folder(copy) / "owner.json").exists()
    with contextlib.closing(open_quick(copy)) as other:
        assert other.count() == 3
        other.upsert(points(5, seed=9))
        other.flush()
        assert other.count() == 8
        assert index.count() == 3


def test_a_folder_that_cannot_be_read_is_reported_to_the_client(settings: Settings) -> None:
    open_quick(settings).close()
    wait_until(lambda: not processes_of(settings.data_dir))
    (collection_folder(settings) / "owner.key").unlink()
    (collection_folder(settings) / "owner.key").mkdir()
    with pytest.raises(OceanoError, match="Is a directory") as caught:
        open_quick(settings)
    assert caught.value.code == "index_unavailable"
