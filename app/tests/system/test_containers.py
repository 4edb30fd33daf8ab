"""The containers, as far as that goes without an engine: schemas, linters, scripts run for real, names that match."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from check_jsonschema import main as check_jsonschema
from click.testing import CliRunner, Result
from psycopg.pq import Conninfo

from app.core.config import Settings
from tests.support.packs import PACK_DIGEST, put

TOP = Path(__file__).parents[3]
COMPOSE = sorted(TOP.glob("docker-compose*.yml"))
TOOLS = Path(sys.executable).parent


class _Loader(yaml.SafeLoader):
    """Knows !reset, by which one compose file takes back what another says."""


_Loader.add_constructor("!reset", lambda *_: None)
_Loader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))


def compose(name: str = "docker-compose.yml") -> dict[str, Any]:
    found: dict[str, Any] = yaml.load((TOP / name).read_text(encoding="utf-8"), _Loader)
    return found


def checked(path: Path) -> Result:
    return CliRunner().invoke(check_jsonschema, ["--builtin-schema", "vendor.compose-spec", str(path)])


def test_there_are_compose_files() -> None:
    assert [path.name for path in COMPOSE] == [
        "docker-compose.cluster.yml", "docker-compose.cpu.yml", "docker-compose.yml",
    ]  # fmt: skip


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_a_compose_file_meets_the_compose_specification(path: Path, tmp_path: Path) -> None:
    plain = tmp_path / path.name
    plain.write_text(json.dumps({key: value for key, value in compose(path.name).items() if value is not None}))
    without_reset = json.loads(
        plain.read_text(), object_hook=lambda one: {k: v for k, v in one.items() if v is not None}
    )
    plain.write_text(yaml.safe_dump(without_reset))
    done = checked(plain)
    assert done.exit_code == 0, done.output


def test_a_wrong_compose_file_would_be_found(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yml"
    wrong.write_text("services:\n  a:\n    image: x\n    portz: [1]\n")
    done = checked(wrong)
    assert done.exit_code == 1
    assert "portz" in done.output


def test_the_dockerfile_linter_has_nothing_to_say() -> None:
    linter = TOOLS / "hadolint"
    if not linter.exists():
        pytest.skip("hadolint is for x86_64 only")
    done = subprocess.run([linter, TOP / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_image_has_its_list_of_packages_and_is_not_root() -> None:
    text = (TOP / "Dockerfile").read_text(encoding="utf-8")
    bases = re.findall(r"^FROM (\S+) AS base-(\S+)\nENV OCEANO_REQUIREMENTS=(\S+)$", text, re.MULTILINE)
    assert [(version, file) for _, version, file in bases] == [
        ("11.8", "requirements.txt"),
        ("12", "requirements-cu12.txt"),
        ("13", "requirements-cu13.txt"),
        ("cpu", "requirements-cpu.txt"),
    ]
    for image, version, file in bases:
        assert (TOP / "app" / file).is_file()
        assert version == "cpu" or image.startswith(f"nvidia/cuda:{version}")
    assert "ARG CUDA_VERSION=11.8\n" in text
    assert text.rindex("USER 10001:10001") > text.rindex("FROM ")


def test_what_the_dockerfile_copies_is_there_and_not_ignored() -> None:
    text = (TOP / "Dockerfile").read_text(encoding="utf-8")
    copied = re.findall(r"^COPY (?!--from)(?:--\S+ )?(\S+)", text, re.MULTILINE)
    assert len(copied) == 4
    allowed = [line[1:] for line in (TOP / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for path in copied:
        assert list(TOP.glob(path)), path
        assert path in allowed


def test_services_are_locked_down_and_gated_and_on_the_ports_they_should_be() -> None:
    services = compose()["services"]
    oceano = services["oceano"]
    assert oceano["read_only"]
    assert oceano["cap_drop"] == ["ALL"]
    assert oceano["depends_on"]["qdrant"]["condition"] == "service_healthy"
    assert oceano["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert services["ingest"]["profiles"] == ["ingest"]
    assert services["ingest-worker"]["profiles"] == ["worker"]
    assert services["ingest-worker"]["command"] == ["worker"]
    assert services["ingest-worker"]["healthcheck"] == {"disable": True}  # that of the image asks the service
    ports = [port for name in ("oceano", "qdrant") for port in services[name]["ports"]]
    assert ports == ["127.0.0.1:9100:9100", "127.0.0.1:9101:6333", "127.0.0.1:9102:6334"]
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    for key in ("API_KEYS", "QDRANT_API_KEY"):
        assert oceano["environment"][key].startswith(f"${{{key}:?")


def test_without_a_gpu_no_service_asks_for_one() -> None:
    over = compose("docker-compose.cpu.yml")["services"]
    asking = [name for name, one in compose()["services"].items() if "devices" in str(one.get("deploy"))]
    assert sorted(over) == sorted(asking) == ["ingest", "ingest-worker", "oceano"]
    assert all("deploy" in one and one["deploy"] is None for one in over.values())
    text = (TOP / "docker-compose.cpu.yml").read_text(encoding="utf-8")
    assert text.count("deploy: !reset null") == len(over)  # Compose forgets it in what is used again by an anchor


def test_the_images_of_qdrant_are_of_one_version_in_all_files() -> None:
    images = {
        service["image"]
        for path in COMPOSE
        for service in compose(path.name)["services"].values()
        if "qdrant/" in service.get("image", "")
    }
    assert len(images) == 1


def test_the_cluster_has_three_nodes_two_copies_and_two_services() -> None:
    services = compose("docker-compose.cluster.yml")["services"]
    nodes = [name for name, service in services.items() if name.startswith("qdrant")]
    assert len(nodes) == 3
    assert all("qdrant-nodes" in services[name]["networks"]["default"]["aliases"] for name in nodes)
    assert services["oceano"]["deploy"]["replicas"] >= 2
    assert int(services["oceano"]["environment"]["REPLICATION_FACTOR"]) >= 2
    assert services["oceano"]["depends_on"].keys() == {*nodes, "postgres"}


def test_the_cluster_has_workers_and_one_postgresql_that_only_they_and_the_services_reach() -> None:
    services = compose("docker-compose.cluster.yml")["services"]
    assert services["ingest-worker"]["deploy"]["replicas"] >= 2
    assert services["ingest-worker"]["profiles"] is None  # taken back: the cluster starts them
    for name in ("oceano", "ingest", "ingest-worker"):
        assert all(one["condition"] == "service_healthy" for one in services[name]["depends_on"].values())
        assert "postgres" in services[name]["depends_on"]
        assert services[name]["environment"]["CATALOG_URL"] == "postgresql+psycopg://oceano@postgres:5432/oceano"
    postgres = services["postgres"]
    assert "ports" not in postgres
    assert postgres["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]
    (volume,) = postgres["volumes"]
    assert volume.split(":")[0] in compose("docker-compose.cluster.yml")["volumes"]


def test_the_password_of_postgresql_is_required_and_in_no_command_or_url() -> None:
    """`ps` shows commands, and messages show URLs."""
    services = compose("docker-compose.cluster.yml")["services"]
    required = "${POSTGRES_PASSWORD:?"
    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"].startswith(required)
    for name in ("oceano", "ingest", "ingest-worker"):
        assert services[name]["environment"]["PGPASSWORD"].startswith(required)
    elsewhere = [
        text for service in services.values() for key, value in service.items() if key != "environment"
        for text in [str(value)] if "PASSWORD" in text
    ]  # fmt: skip
    assert elsewhere == []


def test_the_password_of_postgresql_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """CATALOG_URL has none: libpq reads PGPASSWORD."""
    monkeypatch.setenv("PGPASSWORD", "a/long@random")
    defaults = {option.keyword: option.val for option in Conninfo.get_defaults()}
    assert defaults[b"password"] == b"a/long@random"


def test_compose_files_set_only_settings_that_exist() -> None:
    known = {name.upper() for name in Settings.model_fields}
    set_here = {
        key for path in COMPOSE for name, one in compose(path.name)["services"].items()
        if name in ("oceano", "ingest", "ingest-worker")
        for key in one.get("environment", {})
    }  # fmt: skip
    assert len(set_here) > 5
    assert set_here - {"PGPASSWORD"} <= known  # that of the catalog's driver


def test_every_volume_is_one_place_in_one_other() -> None:
    volumes = [
        volume for path in COMPOSE for service in compose(path.name)["services"].values()
        for volume in service.get("volumes", []) if isinstance(volume, str)
    ]  # fmt: skip
    assert len(volumes) > 10
    assert [volume for volume in volumes if not re.fullmatch(r"(\./[\w/.-]+|\w+):/[\w/.-]+(:ro)?", volume)] == []


def test_pictures_are_mounted_under_their_own_name_and_never_made() -> None:
    for name in ("ingest", "ingest-worker", "oceano"):  # the service draws thumbnails anew
        (pictures,) = [volume for volume in compose()["services"][name]["volumes"] if isinstance(volume, dict)]
        assert pictures["source"] == "${PICTURES:-./pictures}"
        assert pictures["target"] == "${PICTURES:-/data/pictures}"
        assert pictures["read_only"] is True
        assert pictures["bind"] == {"create_host_path": False}
    assert (TOP / "pictures" / ".gitkeep").exists()


def test_nobody_reports_to_qdrant_s_maker() -> None:
    nodes = [
        one for path in COMPOSE for one in compose(path.name)["services"].values() if "qdrant/" in one.get("image", "")
    ]
    assert len(nodes) == 3
    assert all(one["environment"]["QDRANT__TELEMETRY_DISABLED"] == "true" for one in nodes)


def test_every_file_that_is_mounted_is_there() -> None:
    mounts = [
        volume.split(":")[0] for path in COMPOSE for service in compose(path.name)["services"].values()
        for volume in service.get("volumes", []) if isinstance(volume, str) and volume.startswith("./docker/")
    ]  # fmt: skip
    assert len(mounts) >= 5
    assert all((TOP / path).is_file() for path in mounts)


def test_the_dashboard_asks_for_every_metric_and_for_none_that_does_not_exist() -> None:
    board = json.loads((TOP / "docker" / "grafana" / "oceano.json").read_text(encoding="utf-8"))
    asked = " ".join(target["expr"] for panel in board["panels"] for target in panel["targets"])
    known = set(re.findall(r"^\| `(oceano_\w+)`", (TOP / "STRUCTURE.md").read_text(encoding="utf-8"), re.MULTILINE))
    words = set(re.findall(r"oceano_\w+", asked))
    named = {name if name in known else re.sub(r"_(bucket|sum|count)$", "", name) for name in words}
    assert len(known) > 10
    assert named == known


def test_prometheus_and_nginx_know_the_services_by_their_names() -> None:
    services = compose()["services"]
    jobs = yaml.safe_load((TOP / "docker" / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    assert {job["dns_sd_configs"][0]["names"][0] for job in jobs} <= {
        "oceano",
        *services["qdrant"]["networks"]["default"]["aliases"],
    }
    assert "server oceano:9100" in (TOP / "docker" / "nginx.conf").read_text(encoding="utf-8")


# --- entrypoint.sh, run for real


@pytest.fixture
def data(tmp_path: Path) -> Path:
    put(tmp_path / "data" / "models" / "small")
    return tmp_path / "data"


def entry(data: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ, "PATH": f"{TOOLS}:{os.environ['PATH']}", "DATA_DIR": str(data), "MODEL_NAME": "small",
        "DEVICE": "cpu", **variables,
    }  # fmt: skip
    words = (str(TOP / "entrypoint.sh"), *words)
    return subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=60)


def test_it_makes_the_folders_looks_at_the_device_and_goes_on(data: Path) -> None:
    done = entry(data, "ingest", "/not/there")
    assert done.returncode == 2
    assert "the model will run on cpu" in done.stderr
    assert "/not/there is not a folder" in done.stderr
    assert {path.name for path in data.iterdir()} == {"logs", "state", "thumbs", "models", "qdrant_storage"}


def test_other_words_go_to_oceano_as_they_are(data: Path) -> None:
    done = entry(data, "plan", "--faces", "1M")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1,000,000 faces" in done.stdout


@pytest.mark.parametrize("own", [False, True])
def test_the_free_pack_of_the_image_is_used_unless_there_is_one_in_the_data(
    data: Path, tmp_path: Path, own: bool
) -> None:
    put((data / "models" if own else tmp_path / "packs") / "opencv")
    done = entry(data, "models", "verify", MODEL_NAME="opencv", OCEANO_PACKS=str(tmp_path / "packs"))
    if own:  # these are not the published files, which are looked for under this name
        assert f"no model pack in {data / 'models' / 'opencv'}" in done.stderr
    else:
        assert f"opencv {PACK_DIGEST[:8]}" in done.stdout


def test_more_workers_are_taken_as_one_and_that_is_said(data: Path) -> None:
    done = entry(data, "plan", "--faces", "1M", UVICORN_WORKERS="4")
    assert done.returncode == 0
    assert "UVICORN_WORKERS=4 is ignored" in done.stderr


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_gpu_that_was_asked_for_and_is_not_there_ends_it_with_what_to_change(data: Path, command: str) -> None:
    done = entry(data, command, DEVICE="cuda")
    assert done.returncode == 3
    assert "DEVICE=cuda" in done.stderr
    assert "--gpus all" in done.stderr
    assert "CUDA_VERSION=" in done.stderr


def test_a_wrong_setting_is_said_without_advice_on_gpus(data: Path) -> None:
    done = entry(data, "serve", API_KEYS="short")
    assert done.returncode == 2
    assert "at least 16 characters" in done.stderr
    assert "GPU" not in done.stderr


def test_a_folder_that_cannot_be_written_is_named_with_the_command_that_helps(data: Path) -> None:
    (data / "qdrant_storage").symlink_to("/nowhere/at/all")  # not even root may write there
    done = entry(data, "serve")
    assert done.returncode == 3
    assert "sudo chown -R" in done.stderr
    assert "qdrant_storage" in done.stderr


def test_a_folder_for_an_index_that_is_elsewhere_is_not_looked_at(data: Path) -> None:
    (data / "qdrant_storage").symlink_to("/nowhere/at/all")
    done = entry(data, "ingest", "--help", QDRANT_URL="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr


def test_shellcheck_has_nothing_to_say_of_the_entrypoint() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", TOP / "entrypoint.sh"], capture_output=True, text=True, check=False)
    assert done.stdout == ""
