"""Folders that a text names."""

from __future__ import annotations

import pytest

from app.core.paths import folders_of
from app.service.folders import find_folders
from tests.support.fakes import MemoryIndex
from tests.support.pictures import point


@pytest.fixture(scope="module")
def index() -> MemoryIndex:
    index = MemoryIndex()
    paths = ["/p/2019/Paris/1.jpg", "/p/2021/Paris/2.jpg", "/p/2021/Comparison/3.jpg", "/p/Family/Ägypten/4.jpg"]
    index.upsert([point(n, path=path, folder=folders_of(path)) for n, path in enumerate(paths)])
    return index


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("Family", ["/p/Family"]),
        ("family/", ["/p/Family"]),
        ("äg", ["/p/Family/Ägypten"]),
        ("2021/paris", ["/p/2021/Paris"]),
        ("paris", ["/p/2019/Paris", "/p/2021/Paris"]),
        ("par", ["/p/2019/Paris", "/p/2021/Paris", "/p/2021/Comparison"]),
        ("compar", ["/p/2021/Comparison"]),
    ],
)
def test_the_end_of_a_path_or_a_part_of_a_name_finds_folders(index: MemoryIndex, text: str, paths: list[str]) -> None:
    found = find_folders(index, text)
    assert sorted(found.paths[:2]) == sorted(paths[:2])
    assert (len(found.paths), found.is_named, found.is_sure) == (len(paths), True, len(paths) == 1)


def test_a_misspelt_name_finds_similar_ones_and_is_never_sure(index: MemoryIndex) -> None:
    found = find_folders(index, "Famly")
    assert (found.paths, found.is_named, found.is_sure) == (("/p/Family",), False, False)
    assert find_folders(index, "qqqq").paths == ()
    assert find_folders(MemoryIndex(), "x").paths == ()


def test_few_folders_are_offered(index: MemoryIndex) -> None:
    many = MemoryIndex()
    many.upsert([point(n, path=f"/x{n}/1.jpg", folder=("/", f"/x{n}")) for n in range(20)])
    assert len(find_folders(many, "x").paths) == 6
