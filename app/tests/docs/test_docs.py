"""The docs name everything there is, and nothing there is not."""

from __future__ import annotations

import inspect
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import typer
from fastapi import FastAPI
from fastapi.routing import APIRoute
from PIL import Image

from app import __version__
from app.cli import cli, main
from app.core.config import Settings, load_settings
from app.core.errors import STATUS
from app.core.types import Face, FacePayload, FacePoint
from app.images.decoding import decode
from app.main import create_app
from app.metrics import Metrics
from app.packs.known import KNOWN_PACKS
from app.web import api
from app.web.api.forms import CompareOptions, DetectOptions, MoreOptions, SearchOptions
from app.web.pages import search as pages
from tests.support.clients import TestClient
from tests.support.fakes import FakeEngine, MemoryIndex

APP = Path(__file__).parents[2]
TOP = APP.parent
PACKAGE = APP / "app"
PAGES = sorted([*TOP.glob("*.md"), *TOP.glob("docs/**/*.md")])
DOCS = {str(path.relative_to(TOP)): path.read_text(encoding="utf-8") for path in PAGES}
EXAMPLE = (TOP / ".env.example").read_text(encoding="utf-8")
ALL = "\n".join(DOCS.values())
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}


def code_spans(text: str) -> list[str]:
    """What stands in backticks, and the lines of code blocks."""
    return [line for span in CODE.findall(text) for line in span.strip("`").splitlines()]


def test_there_are_docs() -> None:
    assert set(DOCS) >= {"README.md", "INSTALL.md", "FAQ.md", "STRUCTURE.md", "CHANGELOG.md"}
    assert len(code_spans(ALL)) > 100


# --- settings


def test_the_example_names_every_setting_once() -> None:
    names = re.findall(r"^([A-Z_0-9]+)=", EXAMPLE, re.MULTILINE)
    assert sorted(names) == sorted(name.upper() for name in Settings.model_fields)


def test_the_example_holds_the_defaults() -> None:
    assert load_settings(TOP / ".env.example") == load_settings(None)


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_a_default_is_written_out_unless_it_is_empty(name: str) -> None:
    """So that reading the example tells what counts, without starting anything."""
    value = re.search(rf"^{name.upper()}=(.*)$", EXAMPLE, re.MULTILINE)
    assert value is not None
    default = Settings.model_fields[name].default
    if default in ("", (), None) or name == "data_dir":
        assert value[1] == ""
    else:
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else f"{default}"
        assert value[1] == shown


def test_every_setting_of_the_example_is_explained() -> None:
    for block in re.split(r"\n\n+", EXAMPLE):
        lines = block.splitlines()
        settings = [line for line in lines if not line.startswith("#")]
        assert len(settings) <= 1
        if settings:
            assert lines[0].startswith("# "), settings


def test_the_docs_name_only_settings_that_exist() -> None:
    known = {name.upper() for name in Settings.model_fields}
    others = {
        "OCEANO_VARIANT",
        "OCEANO_DEMO",
        "FREE_PACK_DIR",
        "OCEANO_UID",
        "OCEANO_GID",
        "CUDA_VERSION",
        "MONITORING_API_KEY",
        "REAL_PACK_DIR",
        "REAL_FACES_DIR",
        "QDRANT_TEST_URL",
        "QDRANT_TEST_BINARY",
        "DOCKER_TEST",
        "MIGRATE_API_KEY",
        "MIGRATE_CATALOG_URL",
        "POSTGRES_PASSWORD",
        "COMPOSE_FILE",
        "ORT_DISABLE_TELEMETRY",
        "WATCHFILES_FORCE_POLLING",
    }
    named = {word for span in code_spans(ALL) for word in re.findall(r"\b[A-Z]{2,}(?:_[A-Z]+)+\b", span)}
    assert named - others <= known
    assert others <= named


# --- routes


def app_routes(settings: Settings) -> set[tuple[str, str]]:
    """(method, path) of every route that handlers answer."""
    app = create_app(settings, FakeEngine(), MemoryIndex())
    return set(_routes(app))


def _routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    routers = [api.router(), pages.router()]
    waiting = [*app.routes, *(route for router in routers for route in router.routes)]
    while waiting:
        route = waiting.pop()
        if isinstance(route, APIRoute):
            yield from ((method, route.path) for method in route.methods)
        included = getattr(route, "original_router", None)  # how FastAPI keeps an included router
        waiting += included.routes if included is not None else []


def named_routes() -> set[tuple[str, str]]:
    found = [re.match(r"([A-Z]+) (/[^\s?]*)$", span) for span in code_spans(ALL)]
    return {(match[1], match[2]) for match in found if match and match[1] in METHODS}


def test_every_route_is_in_the_docs(settings: Settings) -> None:
    routes = app_routes(settings)
    assert len(routes) > 8
    with_get = {("HEAD", path) for method, path in routes if method == "GET"}  # HEAD beside GET goes without saying
    assert routes - with_get <= named_routes()


def test_the_docs_name_only_routes_that_exist(settings: Settings) -> None:
    assert named_routes() <= app_routes(settings)


@pytest.mark.parametrize("options", [SearchOptions, DetectOptions, CompareOptions, MoreOptions])
def test_every_field_of_a_route_is_in_the_readme(options: type) -> None:
    fields = options.model_fields  # type: ignore[attr-defined]
    assert {name for name in fields if f"`{name}`" not in DOCS["README.md"]} == set()


def test_the_answer_in_the_readme_has_the_keys_of_an_answer(settings: Settings) -> None:
    blocks = re.findall(r"```json\n(.*?)```", DOCS["README.md"], re.DOTALL)
    assert len(blocks) == 1
    shown = json.loads(blocks[0])
    index = MemoryIndex()
    index.upsert([FacePoint(str(UUID(int=place)), _face().embedding, _payload()) for place in range(2)])
    with TestClient(create_app(settings, FakeEngine(), index)) as client:
        answer = client.post("/search", files={"image": _picture()}).json()
    assert len(shown["faces"][0]["matches"]) == len(answer["faces"][0]["matches"]) == 2
    assert _keys(shown) == _keys(answer)


def _picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 30, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def _face() -> Face:
    return FakeEngine().analyze([decode(_picture(), max_pixels=10_000)])[0][0]


def _payload() -> FacePayload:
    face = _face()
    return FacePayload(
        "a" * 64, "/a.png", ("/",), face.bbox, face.kps, 64, 48, face.det_score, face.quality, None, None, "2026-01-01"
    )


def _keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _keys(one) for key, one in value.items()}
    return [_keys(value[0])] if isinstance(value, list) and value else None


@pytest.mark.parametrize("code", sorted(STATUS))
def test_every_error_code_is_explained_with_its_status(code: str) -> None:
    assert re.search(rf"^\| `{code}` \| {STATUS[code]} \| \S", DOCS["INSTALL.md"], re.MULTILINE)


def test_the_docs_explain_only_error_codes_that_exist() -> None:
    named = set(re.findall(r"^\| `([a-z_]+)` \| \d{3} \|", DOCS["INSTALL.md"], re.MULTILINE))
    assert named == set(STATUS)


# --- commands


def commands() -> dict[str, Any]:
    """Full name of a command, without `oceano` -> the command."""
    found: dict[str, Any] = {}

    def collect(command: Any, name: str) -> None:
        for word, one in getattr(command, "commands", {}).items():
            collect(one, f"{name} {word}".strip())
        if not hasattr(command, "commands"):
            found[name] = command

    collect(typer.main.get_command(cli), "")
    return found


def test_every_command_is_in_the_docs() -> None:
    assert {"serve", "ingest", "models install"} <= set(commands())
    text = "\n".join(code_spans(DOCS["README.md"] + DOCS["INSTALL.md"]))
    assert [name for name in commands() if not re.search(rf"\boceano {name}\b", text)] == []


def test_the_docs_name_only_commands_and_options_that_exist() -> None:
    known = commands()
    groups = {name.split()[0] for name in known if " " in name}
    spans = [span for span in code_spans(ALL) if re.search(r"(^|[\s/])oceano [a-z]", span)]
    assert spans
    for span in spans:
        words = re.split(r"(?:^|[\s/])oceano ", span, maxsplit=1)[1].split()
        name = " ".join(words[:2]) if words[0] in groups and len(words) > 1 else words[0]
        assert name in known or name in groups, span
        if name in known:
            options = {option for parameter in known[name].params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= options, span


def test_the_words_of_quick_start_are_in_its_help() -> None:
    script = (TOP / "quick-start.sh").read_text(encoding="utf-8")
    words = set(re.findall(r"^  ([a-z]+)(?: \| [^)]*)?\) ", script, re.MULTILINE)) - {"cpu"}
    assert words == {"try", "test", "ingest", "docker", "help"}
    named = {match for span in code_spans(ALL) for match in re.findall(r"quick-start\.sh ([a-z]+)", span)}
    assert named <= words
    assert all(f"./quick-start.sh {word} " in script for word in words)


# --- metrics


def test_structure_names_every_metric_and_none_that_does_not_exist() -> None:
    families = [one for one in Metrics().registry.collect() if one.name.startswith("oceano_")]
    metrics = {one.name + ("_total" if one.type == "counter" else "") for one in families}
    assert len(metrics) > 10
    rows = re.findall(r"^\| `(oceano_\w+)` \|", DOCS["STRUCTURE.md"], re.MULTILINE)
    assert sorted(rows) == sorted(metrics)
    assert set(re.findall(r"\boceano_[a-z_]+\b", ALL)) <= metrics


def test_structure_says_where_a_metric_is_set() -> None:
    attributes = {name: value for name, value in vars(Metrics()).items() if name != "registry"}
    rows = {
        name: re.findall(r"`([\w/]+)`", where)
        for name, where in re.findall(r"^\| `(oceano_\w+)` \|.*\| ([^|]+) \|$", DOCS["STRUCTURE.md"], re.MULTILINE)
    }
    for attribute, metric in attributes.items():
        name = next(family.name + ("_total" if family.type == "counter" else "") for family in metric.collect())
        users = {
            path.relative_to(PACKAGE).with_suffix("").as_posix()
            for path in PACKAGE.rglob("*.py")
            if path.stem != "metrics" and re.search(rf"metrics\.{attribute}\b", path.read_text(encoding="utf-8"))
        }
        assert set(rows.pop(name)) == users, name
    assert set(map(tuple, rows.values())) == {("metrics",)}  # those that are read when they are asked for


# --- structure


def tree() -> dict[str, str]:
    """Paths of STRUCTURE's tree below app/, each with what it says."""
    block = re.search(r"```text\napp/\n(.*?)\n```", DOCS["STRUCTURE.md"], re.DOTALL)
    assert block
    found: dict[str, str] = {}
    above: list[str] = []
    for line in block[1].splitlines():
        entry = re.match(r"((?:│   |    )*)[├└]── (\S+)\s*(.*)", line)
        if not entry:
            break  # what lies beside app/
        above = [*above[: len(entry[1]) // 4], entry[2].rstrip("/")]
        found["/".join(above)] = entry[3]
    return found


def test_the_tree_shows_every_package_and_every_module_at_the_top() -> None:
    folders = {path.parent.relative_to(APP).as_posix() for path in PACKAGE.rglob("__init__.py")}
    modules = {path.relative_to(APP).as_posix() for path in PACKAGE.glob("*.py")}
    assert len(folders) > 10
    assert len(modules) <= 15
    shown = {path for path in tree() if path.startswith("app")}
    assert {path for path in shown if path.endswith(".py")} == modules
    assert {path for path in shown if not path.endswith(".py")} == folders | {
        "app/static",
        "app/templates",
        "app/locale",
    }


def test_every_package_says_what_it_is() -> None:
    doors = sorted(PACKAGE.rglob("__init__.py"))
    assert [
        path for path in doors if path.parent != PACKAGE and not path.read_text(encoding="utf-8").startswith('"""')
    ] == []


def test_all_that_the_tree_shows_exists_and_is_explained() -> None:
    assert [path for path in tree() if not any(APP.glob(path))] == []
    assert [path for path, what in tree().items() if not what] == []


def test_links_lead_somewhere() -> None:
    links = [(name, link) for name, text in DOCS.items() for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    inside = [(name, *link.partition("#")[::2]) for name, link in links if not link.startswith("https://")]
    assert len(inside) > 10
    for name, target, anchor in inside:
        path = (TOP / name).parent / target if target else TOP / name
        assert path.exists(), f"{name}: {target}"
        assert not anchor or anchor in _anchors(path.read_text(encoding="utf-8")), f"{name}: {target}#{anchor}"


def test_the_models_page_tells_of_each_known_pack_what_the_code_knows() -> None:
    rows = [re.split(r" *\| *", line) for line in DOCS["docs/models.md"].splitlines() if line.startswith("|")]
    table = {row[1]: row[2:] for row in rows[:12]}
    for column, name in enumerate(KNOWN_PACKS):
        pack = KNOWN_PACKS[name]
        assert table[""][column] == f"`{name}`"
        assert table["embedding"][column] == f"{pack.recogniser.embedding_size} dimensions"
        assert table["default threshold"][column] == f"{pack.recogniser.threshold:.2f}"
        assert f"`{name}`, {pack.recogniser.threshold:.2f}:" in DOCS["docs/models.md"]
        assert table["download"][column] == f"{pack.source.size / 1e6:.{0 if pack.source.size > 1e8 else 1}f} MB"


def _anchors(text: str) -> set[str]:
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_changelog_has_this_version() -> None:
    assert f"## {__version__}" in DOCS["CHANGELOG.md"]


# --- all of it


def test_the_docs_name_no_package_registry() -> None:
    hosts = ("py" + "pi.org", "python" + "hosted.org")
    files = [*TOP.glob("*.md"), *APP.glob("requirements*.txt"), TOP / "quick-start.sh", TOP / ".ci/run"]
    assert [path.name for path in files for host in hosts if host in path.read_text(encoding="utf-8")] == []


def test_exit_codes_in_the_readme_are_those_of_the_command_line() -> None:
    codes = re.findall(r"\b(\d+) ", inspect.getdoc(main) or "")
    assert len(codes) == 5
    readme = re.search(r"Exit codes: (.*)", DOCS["README.md"])
    assert readme and re.findall(r"\b(\d+) ", readme[1]) == codes
