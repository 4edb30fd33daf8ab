"""The house: a module imports only from floors below its own. Read from the source, nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "app"

# Lowest first; modules of one floor do not know each other. A package (demo, index) counts as one module.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset(
        {
            "config",
            "cuda",
            "formats",
            "graphs",
            "i18n",
            "locks",
            "metrics",
            "mounts",
            "patience",
            "pipeline",
            "sizing",
            "threads",
            "types",
        }
    ),
    frozenset(
        {
            "alignment",
            "demo",
            "detection",
            "downloads",
            "folders",
            "images",
            "index",
            "known_packs",
            "ledger",
            "logs",
            "manifest",
            "options",
            "rewriting",
        }
    ),
    frozenset({"ladder", "quality", "reading", "scrfd", "sessions", "thumbs", "watching", "weights", "yunet"}),
    frozenset({"batches", "finding", "installing", "migration", "pruning"}),
    frozenset({"embeddings"}),
    frozenset({"answers", "ingest", "parts", "search", "views"}),
    frozenset({"middleware", "progress", "security", "services"}),
    frozenset({"backup_command", "ingest_command", "migrate_command", "reembed_command", "uploads"}),
    frozenset({"api", "pages"}),
    frozenset({"main"}),
    frozenset({"cli"}),
)

# `python app/app/ingest.py` is `oceano ingest`: run as a script it hands over to the command line.
SCRIPT = ("ingest", "cli")

ONLY_IN = {
    "onnxruntime": {"sessions"},
    "insightface": {"sessions"},
    "qdrant_edge": {"index"},
    "qdrant_client": {"index"},
    "sqlite3": {"ledger"},
    "fastapi": {"api", "main", "middleware", "pages", "security", "uploads"},
    "starlette": {"api", "main", "middleware", "pages", "security", "uploads"},
    "typer": {"cli"},
    "watchfiles": {"watching"},
}


def module_of(path: Path) -> str:
    """api for app/api.py, index for anything in app/index."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
MODULES = sorted({module_of(path) for path in SOURCES})


def floor_of(module: str) -> int:
    return next(number for number, floor in enumerate(FLOORS) if module in floor)


def imports(path: Path) -> Iterator[str]:
    """Full names of all that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute here"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def neighbours(module: str) -> set[str]:
    """The modules of ours that one imports."""
    found = set()
    for path in SOURCES:
        if module_of(path) == module:
            names = [name.split(".") for name in imports(path)]
            found |= {name[1] for name in names if name[0] == "app" and len(name) > 1}
    return (found & set(MODULES)) - {module}


def test_every_module_stands_on_exactly_one_floor() -> None:
    assert sorted(module for floor in FLOORS for module in floor) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_floors_below(module: str) -> None:
    higher = {one for one in neighbours(module) if floor_of(one) >= floor_of(module)}
    assert higher <= ({SCRIPT[1]} if module == SCRIPT[0] else set())


def test_the_script_hands_over_only_when_it_is_run() -> None:
    tree = ast.parse((PACKAGE / "ingest.py").read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)]
    assert [ast.unparse(node) for block in blocks for node in ast.walk(block) if isinstance(node, ast.ImportFrom)] == [
        "from app.cli import main"
    ]
    assert ast.unparse(tree).count("app.cli") == 1


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_is_known_only_where_it_belongs(library: str) -> None:
    who = {module_of(path) for path in SOURCES for name in imports(path) if name.split(".")[0] == library}
    assert who <= ONLY_IN[library]
    if library != "qdrant_client":  # comes with the server index
        assert who, f"nobody imports {library} any more: take it off the list"
