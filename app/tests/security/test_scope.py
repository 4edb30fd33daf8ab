"""Scopes: which paths are in one, and what they make of a filter."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import replace
from pathlib import Path, PurePosixPath
from random import Random

import pytest

from app.core.paths import absolute, folders_of, readable
from app.core.types import FaceFilter
from app.security import Scope, scope_of
from tests.support.fakes import MemoryIndex
from tests.support.pictures import point

NFC, NFD = (unicodedata.normalize(form, "/photos/Café/Ñandú") for form in ("NFC", "NFD"))
BYTES = os.fsdecode(b"/photos/caf\xe9")


@pytest.mark.parametrize(
    ("folders", "inside", "outside"),
    [
        (["/photos"], ["/photos/1.jpg", "/photos/a/b/1.jpg"], ["/photos-private/1.jpg", "/photo/1.jpg", "/1.jpg"]),
        (["/photos/"], ["/photos/1.jpg"], ["/photos-private/1.jpg", "/photos.jpg"]),
        (["//photos//a/../b/."], ["/photos/b/1.jpg"], ["/photos/a/1.jpg", "/photos/b.jpg"]),
        (["/photos/.."], ["/photos/1.jpg", "/1.jpg"], []),
        (["/"], ["/1.jpg", "/a/b.jpg"], []),
        (["/Photos"], ["/Photos/1.jpg"], ["/photos/1.jpg", "/PHOTOS/1.jpg"]),
        (["/photos/1.jpg"], [], ["/photos/1.jpg", "/photos/2.jpg"]),
        ([NFC], [f"{NFC}/1.jpg", f"{NFD}/1.jpg"], ["/photos/Cafe/Nandu/1.jpg"]),
        ([NFD], [f"{NFC}/1.jpg", f"{NFD}/1.jpg"], []),
        ([BYTES], [f"{BYTES}/1.jpg"], ["/photos/caf\\xe9/1.jpg", "/photos/café/1.jpg"]),
        (["/photos/caf\\xe9"], ["/photos/caf\\xe9/1.jpg"], [f"{BYTES}/1.jpg"]),
        (["/a", "/b/c"], ["/a/1.jpg", "/b/c/1.jpg"], ["/b/1.jpg", "/b/cc/1.jpg"]),
        ([], [], ["/1.jpg", "/a/1.jpg"]),
        (["", "photos", "./photos", "../photos"], [], ["/1.jpg", "/photos/1.jpg", f"{Path.cwd()}/photos/1.jpg"]),
        (["/not there"], [], ["/photos/1.jpg"]),
        (["/a%"], ["/a%/1.jpg"], ["/ab/1.jpg"]),
        (["/a\nb"], ["/a\nb/1.jpg"], ["/a/1.jpg"]),
    ],
)
def test_files_are_in_a_scope_by_the_names_of_their_folders(
    folders: list[str], inside: list[str], outside: list[str]
) -> None:
    scope = scope_of(folders)
    assert [path for path in [*inside, *outside] if scope.has_file(path)] == inside


def test_a_folder_is_in_the_scope_that_it_is() -> None:
    scope = scope_of(["/photos/a"])
    assert scope.has_folder("/photos/a") and scope.has_folder("/photos/a/b")
    assert not scope.has_folder("/photos") and not scope.has_folder("/photos/ab")


def test_folders_below_others_and_other_spellings_add_nothing() -> None:
    scope = scope_of(["/b/c/d", "/b", "/b/", "/a", "/b-c", NFC, NFD])
    assert len(scope.folders) == 4
    assert {"/a", "/b", "/b-c"} < set(scope.folders)
    assert scope_of(["/", "/a"]).folders == ("/",)


def test_scopes_of_the_same_folders_are_one() -> None:
    assert scope_of(["/b", "/a/"]) == scope_of(["/a", "/b", "/b/x"])
    assert scope_of(["/b", "/a/"]).key == scope_of(["/a", "/b"]).key
    keys = {scope_of(folders).key for folders in ([], ["/"], ["/a"], ["/a", "/b"], ["/ab"], [BYTES], [readable(BYTES)])}
    assert len(keys) == 7


def test_bytes_that_are_not_utf8_are_compared_as_the_index_and_as_the_ledger_have_them() -> None:
    scope = scope_of([BYTES])
    assert scope.shows_file("/photos/caf\\xe9/1.jpg")
    assert not scope.has_file("/photos/caf\\xe9/1.jpg")
    assert not scope.is_exact  # a folder with this very name looks the same in the index
    assert scope_of(["/photos", NFC]).is_exact


def test_a_scope_contains_what_is_below_it() -> None:
    scope = scope_of(["/a", "/b"])
    assert scope.contains(["/a/x", "/b"]) and scope.contains([])
    assert not scope.contains(["/a", "/"])
    assert not scope.contains(["/a/../c"])


@pytest.mark.parametrize(
    ("wanted", "narrowed"),
    [
        (None, ("/a", "/b/c")),
        ("/a/x", "/a/x"),
        ("/a", "/a"),
        ("/a/", "/a"),
        ("/", ("/a", "/b/c")),
        ("/b", "/b/c"),
        ("/b/x", None),
        ("/b/cc", None),
        ("/ab", None),
        ("/a/../b/x", None),
        ("/a/../../etc", None),
        ("/none/../a/x", "/a/x"),
        (("/a/x", "/b"), ("/a/x", "/b/c")),
        (("/b/x", "/a"), "/a"),
        (("/b/x", "/d"), None),
        (("/", "/a/x"), ("/a", "/b/c", "/a/x")),
        ((), None),
    ],
)
def test_a_filter_is_narrowed_to_folders_of_the_scope(
    wanted: str | tuple[str, ...] | None, narrowed: str | tuple[str, ...] | None
) -> None:
    found = scope_of(["/a", "/b/c"]).narrowed(FaceFilter(person="Ana", folder=wanted))
    assert found == (None if narrowed is None else FaceFilter(person="Ana", folder=narrowed))


def test_nothing_is_in_a_scope_without_folders() -> None:
    assert scope_of([]).narrowed(None) is None
    assert scope_of(["photos"]).narrowed(FaceFilter(folder="/")) is None


def test_a_filter_by_another_spelling_stays_in_the_scope() -> None:
    assert scope_of([NFC]).narrowed(FaceFilter(folder=NFD)) == FaceFilter(folder=NFD)
    assert scope_of([NFD]).narrowed(FaceFilter(folder=NFC.rpartition("/")[0])) == FaceFilter(folder=NFD)


NAMES = ("a", "b", "ab", "a-b", "A", "é", "e\u0301", "..", ".", "", "%", "caf\\xe9")


def _paths(random: Random, least: int, most: int) -> list[str]:
    return ["/" + "/".join(random.choices(NAMES, k=random.randint(0, 4))) for _ in range(random.randint(least, most))]


def _is_below(path: str, folder: str) -> bool:
    """A second definition: part by part, after `..` is resolved."""
    one, other = (
        PurePosixPath(os.path.normpath("/" + unicodedata.normalize("NFC", text).lstrip("/"))) for text in (path, folder)
    )
    return other in one.parents


@pytest.mark.parametrize("seed", range(300))
def test_an_index_finds_what_is_in_the_filter_and_in_the_scope(seed: int) -> None:
    random = Random(seed)
    folders, wanted, files = _paths(random, 0, 3), _paths(random, 0, 3), _paths(random, 1, 4)
    index = MemoryIndex()
    paths = [absolute(Path(file, f"{number}.jpg")) for number, file in enumerate(files)]
    index.upsert([point(number, path=path, folder=folders_of(path)) for number, path in enumerate(paths)])
    scope = scope_of(folders)
    where = FaceFilter(folder=tuple(wanted)) if wanted else None
    narrowed = scope.narrowed(where)
    found = [] if narrowed is None else [one.payload.path for one in index.scroll(limit=9, where=narrowed).records]
    expected = [
        path
        for path in paths
        if any(_is_below(path, one) for one in folders) and (not wanted or any(_is_below(path, one) for one in wanted))
    ]
    assert sorted(found) == sorted(expected)
    assert [path for path in paths if scope.has_file(path)] == [
        path for path in paths if any(_is_below(path, one) for one in folders)
    ]


def test_other_conditions_of_a_filter_stay() -> None:
    where = FaceFilter(person="Ana", taken_from="2019", undated=True, min_quality=0.5, without=("blurred",))
    narrowed = scope_of(["/a"]).narrowed(where)
    assert narrowed is not None
    assert replace(narrowed, folder=None) == where


def test_a_scope_is_made_of_plain_values() -> None:
    scope = scope_of(["/a"])
    assert isinstance(scope, Scope) and hash(scope) == hash(scope_of(["/a/"]))
