"""The whole way through, with real processes: a folder in, a face found."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import httpx
import psutil
import pytest

from app.catalog import open_ledger
from app.core.config import Settings
from app.core.types import ModelPack, collection_name, face_id_of
from app.demo import draw_portrait, person_name, write_demo_gallery
from app.index import open_index
from tests.index.conftest import wait_until
from tests.support.running import environment, ingest, oceano, service

PEOPLE = 6
PICTURES = 400
KILLS = int(os.environ.get("OCEANO_TEST_KILLS", "20"))


def _search(client: httpx.Client, path: Path, **fields: object) -> httpx.Response:
    return client.post("/search", files={"image": (path.name, path.read_bytes())}, data=fields)


def _first_folder(face: dict) -> str:  # type: ignore[type-arg]
    return Path(face["matches"][0]["path"]).parent.name


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    write_demo_gallery(folder, people=PEOPLE, portraits=3, groups=2)
    return folder


@pytest.fixture
def demo_env(demo_models: Path, tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path / "data", MODEL_NAME=demo_models / "demo", DET_SIZE="320,320")


def test_an_ingest_beside_a_running_service_is_searchable_at_once_and_still_there_after_a_restart(
    gallery: Path, demo_env: dict[str, str], tmp_path: Path
) -> None:
    query = tmp_path / "query.png"
    cv2.imwrite(str(query), draw_portrait(0, 101))
    with service(demo_env) as client:
        assert _search(client, query).json()["faces"][0]["matches"] == []
        counts = ingest(gallery, demo_env)
        assert counts["exit_code"] == 0
        assert (counts["images"], counts["failed"], counts["no_face"]) == (PEOPLE * 3 + 2, 0, 0)
        _require_all_people(client, counts["faces"], query)
        again = ingest(gallery, demo_env)
        assert (again["skipped"], again["images"]) == (PEOPLE * 3 + 2, 0)
    with service(demo_env) as client:
        _require_all_people(client, counts["faces"], query)


def _require_all_people(client: httpx.Client, faces: int, query: Path) -> None:
    wait_until(lambda: client.get("/status").json()["index"]["points"] == faces)  # counted every few seconds
    for person in range(PEOPLE):
        cv2.imwrite(str(query), draw_portrait(person, 101))
        answer = _search(client, query)
        assert answer.status_code == 200, answer.text
        (face,) = answer.json()["faces"]
        assert _first_folder(face) in (person_name(person), "groups")
        own = [match for match in face["matches"] if person_name(person) in match["path"]]
        assert len(own) == 3
        thumb = client.get(own[0]["thumb_url"])
        assert (thumb.status_code, thumb.headers["content-type"]) == (200, "image/jpeg")
        known = client.get(f"/faces/{own[0]['face_id']}").json()
        assert known["paths"] == [own[0]["path"]]


def test_a_broken_file_is_exit_code_1_and_stands_in_the_report(
    gallery: Path, demo_env: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(gallery / person_name(1), folder)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    report = tmp_path / "report.csv"
    counts = ingest(folder, demo_env, "--report", str(report))
    assert (counts["exit_code"], counts["done"], counts["failed"]) == (1, 3, 1)
    lines = report.read_text().splitlines()
    assert lines[0] == "path,status,reason,message"
    assert lines[1].startswith(f"{folder}/broken.jpg,failed,invalid_image,")
    assert len(lines) == 2


def test_ctrl_c_finishes_what_is_in_work_and_exits_130(gallery: Path, demo_env: dict[str, str]) -> None:
    command = [sys.executable, "-P", "-m", "app.cli", "ingest", str(gallery), "--json"]
    ledger_file = Path(demo_env["DATA_DIR"]) / "state" / "catalog.sqlite3"
    process = subprocess.Popen(command, env=demo_env, stdout=subprocess.PIPE, text=True)
    while process.poll() is None and not ledger_file.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert '"interrupted": true' in out
    rest = ingest(gallery, demo_env)
    assert rest["skipped"] + rest["images"] == PEOPLE * 3 + 2


def test_the_ingest_script_is_the_ingest_command(gallery: Path, demo_env: dict[str, str]) -> None:
    script = Path(__file__).parents[2] / "app" / "ingest.py"
    command = [sys.executable, str(script), str(gallery / person_name(2))]
    done = subprocess.run(command, env=demo_env, text=True, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "3 images, 3 faces" in done.stdout


def test_what_is_wrong_is_said_in_a_line_with_its_exit_code(demo_env: dict[str, str], tmp_path: Path) -> None:
    gone = oceano("ingest", tmp_path / "gone", env=demo_env)
    assert (gone.returncode, "not_found" in gone.stderr) == (2, True)
    setting = oceano("ingest", tmp_path, env=demo_env | {"GPU_CONCURRENCY": "none"})
    assert (setting.returncode, "GPU_CONCURRENCY='none'" in setting.stderr) == (2, True)
    model = oceano("ingest", tmp_path, env=demo_env | {"MODEL_NAME": "nowhere"})
    assert (model.returncode, "model_not_found" in model.stderr) == (3, True)
    word = oceano("nonsense", env=demo_env)
    assert word.returncode == 2
    for done in (gone, setting, model, word):
        assert "Traceback" not in done.stderr


def test_a_port_in_use_is_said_before_the_model_is_loaded(demo_env: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        second = oceano("serve", env=demo_env | {"UVICORN_PORT": str(port)})
    assert (second.returncode, f"UVICORN_PORT={port}" in second.stderr) == (2, True)


def _run_ingest(folder: str, env: dict[str, str]) -> None:
    """In a child process that has the libraries loaded: what is killed is the work, not the imports."""
    from app.cli import main

    os.environ.update(env)
    os.setsid()
    sys.exit(main(["ingest", folder, "--json"]))


def _kill_owner(data_dir: Path) -> None:
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(word.startswith("app.index") for word in words) and any(str(data_dir) in word for word in words):
            process.kill()


def _known(settings: Settings, pack: ModelPack) -> tuple[set[str], set[tuple[str, str, int]]]:
    """Face ids in the index, and the ledger's results without times."""
    index = open_index(settings, pack)
    faces: set[str] = set()
    offset = None
    while True:
        page = index.scroll(limit=500, offset=offset)
        faces |= {record.face_id for record in page.records}
        offset = page.next_offset
        if offset is None:
            break
    index.close()
    ledger = open_ledger(settings.state_dir / "catalog.sqlite3", collection_name("faces", pack))
    results = {(Path(record.path).name, str(record.image_id), record.faces) for record in ledger.images()}
    ledger.close()
    return faces, results


def test_killed_again_and_again_and_run_to_the_end_it_has_exactly_the_faces_of_an_undisturbed_run(
    demo_pack: ModelPack, demo_env: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(PICTURES):
        cv2.imwrite(str(folder / f"{number:03}.jpg"), draw_portrait(number % 40, number // 40, (200, 200)))
    undisturbed = demo_env | {"DATA_DIR": str(tmp_path / "undisturbed")}
    ingest(folder, undisturbed)

    chance = random.Random(2)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["app.cli", "app.embeddings", "app.index", "app.main", "app.ingest"])
    killed = 0
    for turn in range(KILLS):
        process = context.Process(target=_run_ingest, args=(str(folder), demo_env))
        process.start()
        process.join(chance.uniform(0.2, 0.8))
        if process.is_alive():
            killed += 1
            process.kill()
        process.join()
        if turn % 3 == 2:
            _kill_owner(Path(demo_env["DATA_DIR"]))
    assert killed >= KILLS // 2, "most kills must hit a run at work, else this proves nothing"
    last = ingest(folder, demo_env)
    assert last["exit_code"] == 0

    data = Settings(_env_file=None, data_dir=Path(demo_env["DATA_DIR"]))
    other = Settings(_env_file=None, data_dir=Path(undisturbed["DATA_DIR"]))
    pack = demo_pack
    faces, results = _known(data, pack)
    expected_faces, expected_results = _known(other, pack)
    assert len(expected_faces) >= PICTURES * 0.975
    assert faces == expected_faces
    assert results == expected_results
    assert faces == {
        face_id_of(image_id, pack.digest, place) for _, image_id, count in results for place in range(count)
    }


@dataclass(frozen=True)
class Real:
    """A service over photographs of real people, and its environment."""

    client: httpx.Client
    env: dict[str, str]


@pytest.fixture(scope="module", params=["REAL_PACK_DIR", "FREE_PACK_DIR"])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    if not os.environ.get(request.param) or not os.environ.get("REAL_FACES_DIR"):
        pytest.skip(f"{request.param} and REAL_FACES_DIR are not set")
    data = tmp_path_factory.mktemp("real-data")
    env = environment(data, MODEL_NAME=os.environ[request.param])
    people = Path(os.environ["REAL_FACES_DIR"]) / "people"
    counts = ingest(people, env)
    assert (counts["images"], counts["faces"], counts["exit_code"]) == (40, 40, 0)
    with service(env) as client:
        yield Real(client, env)


@pytest.mark.real
def test_real_people_are_found_in_groups_and_among_themselves_and_groups_join_them(
    real: Real, real_faces: Path
) -> None:
    truth = {
        "bbt3": ["sheldon", "howard", "penny", "raj", "leonard"],
        "bbt4": ["leonard", "amy", "raj", "penny", "sheldon", "bernadette"],
        "bbt5": ["raj", "penny", "sheldon", "leonard", "howard"],
    }
    crops = sorted(real_faces.glob("people/*/*"))
    assert len(crops) == 40
    for name, people in truth.items():
        answer = _search(real.client, real_faces / "groups" / f"{name}.jpg").json()
        assert [_first_folder(face) for face in answer["faces"]] == people
    for crop in crops:
        (face,) = _search(real.client, crop).json()["faces"]
        others = [match for match in face["matches"] if Path(match["path"]) != crop]
        assert Path(others[0]["path"]).parent == crop.parent
    nobody = _search(real.client, real_faces / "hard" / "no_face.png")
    assert (nobody.status_code, nobody.json()["error"]["code"]) == (422, "face_not_found")
    assert ingest(real_faces / "groups", real.env)["faces"] == 4 + 3 + 5 + 6 + 5
    (face, *_) = _search(real.client, real_faces / "groups" / "bbt3.jpg").json()["faces"]
    assert Path(face["matches"][0]["path"]).name == "bbt3.jpg"
    assert face["matches"][0]["similarity"] > 0.999


@pytest.mark.real
def test_the_same_real_ingest_again_skips_all(real: Real, real_faces: Path) -> None:
    again = ingest(real_faces / "people", real.env)
    assert (again["skipped"], again["images"], again["faces"]) == (40, 0, 0)
