"""quick-start.sh: its words, and the choices it makes before it installs anything."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.catalog import open_ledger

TOP = Path(__file__).parents[3]
SCRIPTS = (TOP / "quick-start.sh", TOP / ".ci" / "run")


def run(*words: str, script: Path = SCRIPTS[0], **variables: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("OCEANO_")} | variables
    return subprocess.run([script, *words], env=env, text=True, capture_output=True, timeout=60, check=False, cwd="/")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_executable_and_bash(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", script], capture_output=True, text=True, check=False)
    assert done.stdout == ""


@pytest.mark.parametrize("word", ["help", "-h", "--help"])
def test_help_says_what_it_does_and_does_nothing(word: str) -> None:
    done = run(word)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "./quick-start.sh test" in done.stdout
    assert "OCEANO_VARIANT" in done.stdout


def test_an_unknown_word_is_wrong_use() -> None:
    done = run("halp")
    assert done.returncode == 2
    assert "unknown command 'halp'" in done.stderr
    assert "./quick-start.sh ingest FOLDER" in done.stderr


def test_an_ingest_without_a_folder_is_wrong_use() -> None:
    done = run("ingest")
    assert done.returncode == 2
    assert "no folder given" in done.stderr


def test_containers_without_docker_are_refused_with_what_goes_without(tmp_path: Path) -> None:
    for tool in ("bash", "env", "readlink", "dirname"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    done = run("docker", PATH=str(tmp_path))
    assert done.returncode == 3
    assert "Docker is not installed" in done.stderr


# --- what it would install: its functions alone


def ask(question: str, path: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Ask the functions of quick-start; `path` goes before PATH, and there is no environment yet."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OCEANO_")} | variables
    env["PATH"] = f"{path}:{env['PATH']}" if path else env["PATH"]
    command = f"source '{SCRIPTS[0]}'\nvenv=/nowhere\n{question}"
    return subprocess.run(["bash", "-c", command], env=env, text=True, capture_output=True, timeout=60, check=False)


def test_a_python_that_fits_is_found_and_it_is_no_environments() -> None:
    done = ask("find_python 14", path=str(Path(sys.executable).parent))
    assert done.returncode == 0
    found = Path(done.stdout.strip())
    assert found.is_file()
    assert found == found.resolve()
    assert not (found.parents[1] / "pyvenv.cfg").exists()


def test_a_python_that_does_not_fit_is_passed_over(tmp_path: Path) -> None:
    for name in ("python3", *(f"python3.{minor}" for minor in range(11, 15))):
        _executable(tmp_path / name, "exit 1")
    done = ask("find_python 14", path=str(tmp_path))
    assert done.returncode == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("cuda", "capability", "variant"),
    [
        ("13000", "9.0", "cu13"),
        ("13000", "6.1", "cu12"),  # the driver knows CUDA 13, the GPU does not
        ("13000", "9.0\n7.0", "cu12"),
        ("12040", "9.0", "cu12"),
        ("11080", "7.5", "cu118"),
        ("11040", "7.5", "cpu"),
        ("0", "7.5", "cpu"),
    ],
)
def test_the_packages_fit_the_driver_and_the_gpu(tmp_path: Path, cuda: str, capability: str, variant: str) -> None:
    _executable(tmp_path / "nvidia-smi", f"printf '%s\\n' '{capability}'")
    question = f"cuda_of_driver() {{ echo {cuda}; }}\nfind_python() {{ echo python3; }}\nchoose_variant python3"
    assert ask(question, path=str(tmp_path)).stdout == f"{variant}\n"


def test_without_a_working_driver_it_is_the_cpu(tmp_path: Path) -> None:
    _executable(tmp_path / "nvidia-smi", "exit 9")
    assert ask("choose_variant python3", path=str(tmp_path)).stdout == "cpu\n"


def test_a_variant_that_is_asked_for_is_taken() -> None:
    assert ask("choose_variant python3", OCEANO_VARIANT="cu12").stdout == "cu12\n"


def test_a_variant_that_does_not_exist_is_wrong_use() -> None:
    done = ask("choose_variant python3", OCEANO_VARIANT="cu9")
    assert done.returncode == 2
    assert "cpu, cu118, cu12 or cu13" in done.stderr


@pytest.mark.parametrize("name", ["cpu", "cu118", "cu12", "cu13", "dev"])
def test_every_set_has_its_list(name: str) -> None:
    done = ask(f"here='{TOP}'\nrequirements_of {name}")
    assert Path(done.stdout.strip()).is_file()


def test_what_is_stamped_changes_with_the_lists(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    for name in ("pyproject.toml", "requirements-cpu.txt"):
        (tmp_path / "app" / name).write_text("one")
    question = f"here='{tmp_path}'\nstamp_of cpu '{sys.executable}'"
    before = ask(question).stdout
    assert before == ask(question).stdout
    (tmp_path / "app" / "requirements-cpu.txt").write_text("two")
    assert ask(question).stdout != before


def test_before_a_download_it_looks_whether_there_is_a_way() -> None:
    """Where there is none, the demo starts in seconds: `oceano models install` itself tries for longer."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(30)
        heard = []

        def refuse() -> None:
            connection, _ = proxy.accept()
            with connection:
                heard.append(connection.recv(4096).decode())

        thread = threading.Thread(target=refuse)
        thread.start()
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        done = ask(f"venv='{sys.prefix}'\ncan_download && echo yes", HTTPS_PROXY=address, https_proxy=address)
        thread.join()
    assert done.stdout == ""
    assert heard[0].startswith("CONNECT github.com:443 ")


# --- which model


@pytest.fixture
def oceano(tmp_path: Path) -> Path:
    """A folder with an `oceano` that has no model, and writes down its words."""
    program = tmp_path / "oceano"
    _executable(
        program,
        f'echo "$*" >> {tmp_path}/words\n'
        'case "$*" in\n'
        '  "models verify "*) echo "oceano: no model pack (model_not_found)" >&2; exit 3 ;;\n'
        '  "models install antelopev2") exit "${DOWNLOAD:-3}" ;;\n'
        '  "models install opencv") exit "${FREE:-0}" ;;\n'
        "esac",
    )
    return tmp_path


def choose(place: Path, model: str = "antelopev2", **variables: str) -> subprocess.CompletedProcess[str]:
    question = (
        f"here='{place}' venv='{sys.prefix}' oceano='{place}/oceano' model={model}\n"
        'can_download() { [[ -n ${DOWNLOAD:-} ]]; }\nhave_model && echo "$model" "${MODEL_NAME:-}"'
    )
    return ask(question, **{"DATA_DIR": str(place / "data"), **variables})


def test_where_antelopev2_cannot_be_downloaded_the_free_model_is_installed_and_remembered(oceano: Path) -> None:
    (oceano / ".env").write_text("UVICORN_PORT=9200\nMODEL_NAME=antelopev2")
    done = choose(oceano)
    assert (done.returncode, done.stdout) == (0, "opencv opencv\n"), done.stderr
    assert (oceano / ".env").read_text() == "UVICORN_PORT=9200\nMODEL_NAME=opencv"
    for part in (
        "cannot be downloaded",
        "free model opencv",
        "used commercially",
        "models install antelopev2 (non-commercial)",
        "add --archive antelopev2.zip",
        "reembed --model antelopev2. It embeds all pictures again",
    ):
        assert part in done.stderr


def test_antelopev2_is_taken_where_it_can_be_downloaded(oceano: Path) -> None:
    done = choose(oceano, DOWNLOAD="0")
    assert (done.returncode, done.stdout) == (0, "antelopev2 \n")
    assert not (oceano / ".env").exists()


def test_a_download_that_fails_ends_with_the_free_model_too(oceano: Path) -> None:
    assert choose(oceano, DOWNLOAD="3").stdout == "opencv opencv\n"


def test_the_free_model_that_was_remembered_is_installed_again_without_a_word_on_another(oceano: Path) -> None:
    done = choose(oceano, "opencv")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (oceano / ".env").exists()


def _index(embedded: Path, model: str) -> None:
    embedded.mkdir(parents=True)
    alias = {"collection": "faces__x__y", "model": model, "digest": "y" * 64}
    (embedded / "faces.alias.json").write_text(json.dumps(alias))


def test_an_index_of_the_free_model_is_said_where_the_settings_forgot_it(oceano: Path) -> None:
    _index(oceano / "data" / "qdrant_storage" / "embedded", "opencv")
    done = choose(oceano)
    assert done.returncode == 3
    assert "the index was made by the model opencv: set MODEL_NAME=opencv" in done.stderr


def test_an_index_of_another_model_stops_quick_start_before_it_downloads_antelopev2(oceano: Path) -> None:
    _index(oceano / "data" / "qdrant_storage" / "embedded", "opencv")
    done = choose(oceano, DOWNLOAD="0")
    assert done.returncode == 3
    assert "set MODEL_NAME=opencv" in done.stderr
    assert "reembed --model antelopev2" in done.stderr
    assert "models install antelopev2" not in (oceano / "words").read_text()


def test_two_quick_starts_at_once_choose_one_after_the_other(oceano: Path) -> None:
    """The second reads what the first has written into .env."""
    script = oceano / "oceano"
    script.write_text(
        script.read_text()
        .replace('"models verify "*)', '"models verify antelopev2")')
        .replace('"models install opencv")', '"models install opencv") sleep 0.5;')
    )
    shutil.copy(SCRIPTS[0], oceano / "quick-start.sh")
    question = (
        f"here='{oceano}' venv='{sys.prefix}' oceano='{script}' script='{oceano}/quick-start.sh'\n"
        f"read_model_name() {{ model=$(setting MODEL_NAME); model=${{model:-antelopev2}}; }}\n"
        'can_download() { false; }\nchoose_model && echo "$model"'
    )
    with ThreadPoolExecutor(2) as threads:
        done = [*threads.map(lambda _: ask(question, DATA_DIR=str(oceano / "data")), range(2))]
    assert [one.stdout for one in done] == ["opencv\n"] * 2, [one.stderr for one in done]
    assert (oceano / ".env").read_text() == "MODEL_NAME=opencv\n"
    assert (oceano / "words").read_text().count("models install opencv") == 1


def test_no_demo_is_started_where_the_model_of_an_index_cannot_be_had(oceano: Path) -> None:
    _index(oceano / "data" / "qdrant_storage" / "embedded", "opencv")
    done = choose(oceano, "opencv", FREE="3")
    assert done.returncode == 3
    assert "an index exists, but its model opencv cannot be installed" in done.stderr


def test_an_index_without_faces_does_not_keep_its_model(oceano: Path) -> None:
    _index(oceano / "data" / "qdrant_storage" / "embedded", "antelopev2")
    (oceano / "data" / "state").mkdir()
    open_ledger(oceano / "data" / "state" / "catalog.sqlite3", "faces__x__y").close()
    assert choose(oceano).stdout == "opencv opencv\n"


def test_a_choice_that_cannot_be_kept_is_said(oceano: Path) -> None:
    (oceano / ".env").mkdir()
    done = choose(oceano)
    assert done.stdout == "opencv opencv\n"
    assert "cannot be written: set MODEL_NAME=opencv there" in done.stderr


@pytest.mark.parametrize("why", ["asked for", "an index", "a server"])
def test_a_model_that_was_asked_for_or_has_an_index_is_not_replaced(oceano: Path, why: str) -> None:
    variables = {"asked for": {"MODEL_NAME": "antelopev2"}, "a server": {"QDRANT_URL": "http://127.0.0.1:9"}}
    embedded = oceano / "data" / "qdrant_storage" / "embedded"
    if why == "an index":
        _index(embedded, "antelopev2")
    done = choose(oceano, **variables.get(why, {}))
    assert done.returncode == 3
    assert "models install antelopev2 --archive antelopev2.zip" in done.stderr
    assert "MODEL_NAME=opencv" in done.stderr
    assert not (oceano / ".env").exists()


def test_only_the_demo_is_left_where_not_even_the_free_model_can_be_had(oceano: Path) -> None:
    done = choose(oceano, FREE="3")
    assert done.returncode == 1
    assert "OCEANO_DEMO=1 ./quick-start.sh" in done.stderr
    assert not (oceano / ".env").exists()


def test_a_model_that_is_damaged_or_unknown_is_said_and_not_replaced(oceano: Path) -> None:
    assert choose(oceano, "mine").returncode == 3
    _executable(oceano / "oceano", 'echo "oceano: altered (model_corrupt)" >&2; exit 3')
    done = choose(oceano)
    assert done.returncode == 3
    assert done.stderr == "oceano: altered (model_corrupt)\n"


def _executable(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """A folder for PATH with a docker that writes down its words, and what the containers need copied beside it."""
    place = tmp_path / "oceano"
    place.mkdir()
    for name in ("quick-start.sh", "docker-compose.yml", "docker-compose.cpu.yml"):
        shutil.copy(TOP / name, place / name)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "docker").write_text(f'#!/bin/sh\necho "$CUDA_VERSION $*" >> {tmp_path}/words\n')
    (tools / "docker").chmod(0o755)
    return place


def containers(place: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    path = f"{place.parent / 'bin'}:{os.environ['PATH']}"
    return run("docker", script=place / "quick-start.sh", **{"PATH": path, "OCEANO_VARIANT": "cpu", **variables})


def test_the_containers_are_built_given_a_model_and_started(docker: Path) -> None:
    (docker / ".env").write_text("QDRANT_API_KEY=abc\nAPI_KEYS=def\n")
    done = containers(docker)
    assert done.returncode == 0, done.stderr
    words = (docker.parent / "words").read_text().splitlines()
    assert words[-3:] == [
        "cpu compose build oceano",
        "cpu compose run --rm --no-deps oceano models install antelopev2",
        "cpu compose up --detach --wait",
    ]
    assert (docker / "qdrant_storage" / "server").is_dir()


def test_what_was_chosen_is_remembered_for_a_plain_docker_compose(docker: Path) -> None:
    (docker / ".env").write_text("QDRANT_API_KEY=abc\nAPI_KEYS=def\nCUDA_VERSION=12\n")
    for _ in range(2):
        assert containers(docker).returncode == 0
        assert (docker / ".env").read_text().splitlines() == [
            "QDRANT_API_KEY=abc",
            "API_KEYS=def",
            "CUDA_VERSION=cpu",
            f"OCEANO_UID={os.geteuid()}",
            f"OCEANO_GID={os.getegid()}",
            "COMPOSE_FILE=docker-compose.yml:docker-compose.cpu.yml",
        ]


def test_containers_without_antelopev2_use_the_free_model_of_their_image_and_remember_it(docker: Path) -> None:
    script = '#!/bin/sh\ncase "$*" in *install*) exit 3 ;; esac\n'
    (docker.parent / "bin" / "docker").write_text(script + f'echo "$*" >> {docker.parent}/words\n')
    for _ in range(2):
        done = containers(docker, QDRANT_API_KEY="abc", API_KEYS="def")
        assert done.returncode == 0, done.stderr
        assert (docker / ".env").read_text().splitlines()[-1] == "MODEL_NAME=opencv"
    assert "models install" not in (docker.parent / "words").read_text()
    assert "free model" not in done.stderr  # it was said the first time


def test_containers_with_an_index_keep_its_model(docker: Path) -> None:
    script = '#!/bin/sh\ncase "$*" in *install*) exit 3 ;; esac\n'
    (docker.parent / "bin" / "docker").write_text(script)
    (docker / "qdrant_storage" / "server" / "collections" / "faces__antelopev2__4ab1d643").mkdir(parents=True)
    done = containers(docker, QDRANT_API_KEY="abc", API_KEYS="def")
    assert done.returncode == 3
    assert "for a new index, use the free model that the image contains: set MODEL_NAME=opencv" in done.stderr
    assert "MODEL_NAME" not in (docker / ".env").read_text()


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("", "antelopev2"),
        ("MODEL_NAME=mine", "mine"),
        ('MODEL_NAME="mine" # so', "mine"),
        ("MODEL_NAME=mine\r", "mine"),
    ],
)
def test_a_model_that_is_there_is_not_fetched(docker: Path, line: str, name: str) -> None:
    (docker / "models" / name).mkdir(parents=True)
    (docker / "models" / name / "det.onnx").touch()
    (docker / ".env").write_text(f"{line}\n")
    assert containers(docker, QDRANT_API_KEY="abc", API_KEYS="def").returncode == 0
    assert "models install" not in (docker.parent / "words").read_text()


def test_somebody_s_own_files_and_user_stay(docker: Path) -> None:
    files = "docker-compose.yml:docker-compose.cpu.yml:docker-compose.cluster.yml"
    before = (
        f'QDRANT_API_KEY = "abc"\r\nAPI_KEYS=def # mine\nCOMPOSE_FILE={files}\nOCEANO_UID=1234\nPICTURES=/my photos'
    )
    (docker / ".env").write_bytes(before.encode())
    assert containers(docker).returncode == 0
    lines = (docker / ".env").read_bytes().decode().split("\n")
    assert lines[2:] == [
        f"COMPOSE_FILE={files}",
        "OCEANO_UID=1234",
        "PICTURES=/my photos",
        f"OCEANO_GID={os.getegid()}",
        "CUDA_VERSION=cpu",
        "",
    ]


def test_files_of_somebody_s_own_that_ask_for_a_gpu_are_not_started_without_one(docker: Path) -> None:
    (docker / ".env").write_text("QDRANT_API_KEY=a\nAPI_KEYS=b\nCOMPOSE_FILE=docker-compose.yml:mine.yml\n")
    done = containers(docker)
    assert done.returncode == 3
    assert "add docker-compose.cpu.yml as the second file" in done.stderr


def test_what_does_not_come_up_or_cannot_be_fetched_is_said_with_what_to_do(docker: Path) -> None:
    keys = {"QDRANT_API_KEY": "abc", "API_KEYS": "def"}
    for words, said in (
        ("*install*", "oceano models install mine --archive /mine.zip"),
        ("*install*", "MODEL_NAME=opencv in .env"),
        ("*up*", "docker compose logs"),
    ):
        script = f'#!/bin/sh\ncase "$*" in *info*|*version*|*build*) ;; {words}) exit 1 ;; esac\n'
        (docker.parent / "bin" / "docker").write_text(script)
        done = containers(docker, MODEL_NAME="mine", **keys)
        assert done.returncode == 3
        assert said in done.stderr


def test_missing_keys_are_said_with_a_way_to_make_them(docker: Path) -> None:
    (docker / ".env").write_text("API_KEYS=def\nQDRANT_API_KEY=\n")
    done = containers(docker)
    assert done.returncode == 2
    assert "missing in .env: QDRANT_API_KEY." in done.stderr
    assert "urandom" in done.stderr


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ('[ "$1" != info ]', "engine does not respond"),
        ('[ "$1 $2" != "compose version" ]', "docker-compose-plugin"),
    ],
)
def test_what_docker_lacks_is_said(docker: Path, script: str, said: str) -> None:
    (docker.parent / "bin" / "docker").write_text(f"#!/bin/sh\n{script}\n")
    done = containers(docker)
    assert done.returncode == 3
    assert said in done.stderr


def test_a_gpu_that_docker_cannot_hand_on_is_said_and_done_without(docker: Path) -> None:
    done = containers(docker, OCEANO_VARIANT="cu12", QDRANT_API_KEY="abc", API_KEYS="def")
    assert done.returncode == 0
    assert "NVIDIA Container Toolkit" in done.stderr
    assert "cpu compose" in (docker.parent / "words").read_text()


def test_a_gpu_chooses_the_image_of_its_cuda(docker: Path) -> None:
    (docker.parent / "bin" / "docker").write_text(
        '#!/bin/sh\n[ "$1" = info ] && echo " Runtimes: nvidia runc"\n'
        f'echo "$CUDA_VERSION $*" >> {docker.parent}/words\n'
    )
    assert containers(docker, OCEANO_VARIANT="cu12", QDRANT_API_KEY="a", API_KEYS="d").returncode == 0
    last = (docker.parent / "words").read_text().splitlines()[-1]
    assert last == "12 compose up --detach --wait"
