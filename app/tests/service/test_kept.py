"""Kept searches: stored with an end date, and gone after it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from app.core.errors import OceanoError
from app.security import LOCAL, Access
from app.service import kept as module
from app.service.kept import MAX_DAYS, MAX_NAME, KeptSearches
from tests.support.fakes import embedding_of

CROP = b"\xff\xd8\xff\xe0 a small picture"


@pytest.fixture
def searches(tmp_path: Path) -> Iterator[KeptSearches]:
    opened = KeptSearches(tmp_path)
    yield opened
    opened.close()


def later(monkeypatch: pytest.MonkeyPatch, **time: float) -> None:
    now = datetime.now(UTC) + timedelta(**time)
    monkeypatch.setattr(module, "_now", lambda: now)


def test_a_kept_search_is_read_back_as_it_was_kept(searches: KeptSearches) -> None:
    given = [embedding_of(1), embedding_of(2)]
    kept = searches.keep(
        "Ana  1998 ", given, access=LOCAL, model_digest="d" * 64, crop=CROP, filters="folder=%2Fa&clear=1", days=7
    )
    read = searches.get(kept.kept_id, LOCAL)
    assert (read.name, read.crop, read.filters) == ("Ana 1998", CROP, "folder=%2Fa&clear=1")
    assert read.ends - read.created == timedelta(days=7)
    assert all(np.array_equal(one, other) for one, other in zip(read.embeddings, given, strict=True))
    assert read.embeddings[0].dtype == np.float32


def test_a_search_ends_on_its_day_and_leaves_no_bytes(searches: KeptSearches, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = searches.keep("short", [embedding_of(1)], access=LOCAL, model_digest="d", crop=CROP, days=1)
    longer = searches.keep("long", [embedding_of(2)], access=LOCAL, model_digest="d", days=30)
    assert CROP in searches.path.read_bytes()
    later(monkeypatch, days=2)
    with pytest.raises(OceanoError) as caught:
        searches.get(kept.kept_id, LOCAL)
    assert caught.value.code == "not_found"
    assert [one.kept_id for one in searches.all(LOCAL)] == [longer.kept_id]
    content = searches.path.read_bytes()
    assert CROP not in content
    gone, there = (embedding_of(number).astype("<f4").tobytes()[:200] for number in (1, 2))  # a page has 4 kB
    assert gone not in content
    assert there in content


def test_what_ended_while_the_service_was_down_is_deleted_at_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = KeptSearches(tmp_path)
    first.keep("gone", [embedding_of(1)], access=LOCAL, model_digest="d", days=1)
    first.close()
    later(monkeypatch, days=3)
    KeptSearches(tmp_path).close()
    with sqlite3.connect(tmp_path / "searches.sqlite3") as connection:
        assert connection.execute("SELECT count(*) FROM searches").fetchone() == (0,)


def test_a_search_can_be_deleted_before_its_end(searches: KeptSearches) -> None:
    kept = searches.keep("one", [embedding_of(1)], access=LOCAL, model_digest="d")
    searches.delete(kept.kept_id, LOCAL)
    searches.delete(kept.kept_id, LOCAL)
    assert searches.all(LOCAL) == []


def test_a_search_can_get_another_name(searches: KeptSearches) -> None:
    kept = searches.keep("Ana", [embedding_of(1)], access=LOCAL, model_digest="d")
    searches.rename(kept.kept_id, "  Ana  Ruiz ", LOCAL)
    searches.rename("unknown", "Eva", LOCAL)
    assert [one.name for one in searches.all(LOCAL)] == ["Ana Ruiz"]
    for wrong in (" ", "x" * (MAX_NAME + 1)):
        with pytest.raises(OceanoError) as caught:
            searches.rename(kept.kept_id, wrong, LOCAL)
        assert caught.value.details["field"] == "name"


def test_the_newest_search_is_first(searches: KeptSearches, monkeypatch: pytest.MonkeyPatch) -> None:
    searches.keep("first", [embedding_of(1)], access=LOCAL, model_digest="d")
    later(monkeypatch, hours=1)
    searches.keep("second", [embedding_of(1)], access=LOCAL, model_digest="d")
    assert [one.name for one in searches.all(LOCAL)] == ["second", "first"]
    assert [one.name for one in searches.all(LOCAL, limit=1)] == ["second"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * (MAX_NAME + 1)}, "name"),
        ({"days": 0}, "days"),
        ({"days": MAX_DAYS + 1}, "days"),
        ({"crop": b"GIF89a"}, "crop"),
        ({"crop": b"\xff\xd8\xff" + bytes(70_000)}, "crop"),
        ({"embeddings": []}, "query"),
    ],
)
def test_a_wrong_value_is_refused(searches: KeptSearches, wrong: dict[str, object], field: str) -> None:
    given: dict[str, object] = {"name": "one", "embeddings": [embedding_of(1)], "access": LOCAL, "model_digest": "d"}
    with pytest.raises(OceanoError) as caught:
        searches.keep(**(given | wrong))  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.details["field"]) == ("invalid_request", field)
    assert searches.all(LOCAL) == []


def test_a_search_of_another_model_is_explained(searches: KeptSearches) -> None:
    kept = searches.keep("one", [embedding_of(1)], access=LOCAL, model_digest="a" * 64)
    kept.require_model("a" * 64)
    with pytest.raises(OceanoError) as caught:
        kept.require_model("b" * 64)
    assert caught.value.code == "index_model_mismatch"


def test_a_backup_has_the_kept_searches(searches: KeptSearches, tmp_path: Path) -> None:
    kept = searches.keep("one", [embedding_of(1)], access=LOCAL, model_digest="d")
    (tmp_path / "copy").mkdir()
    searches.backup(tmp_path / "copy")
    copy = KeptSearches(tmp_path / "copy")
    assert copy.get(kept.kept_id, LOCAL).name == "one"
    copy.close()


def test_a_backup_is_added_to_what_is_there(
    searches: KeptSearches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = searches.keep("one", [embedding_of(1)], access=LOCAL, model_digest="d", crop=CROP)
    searches.keep("short", [embedding_of(1)], access=LOCAL, model_digest="d", days=1)
    (tmp_path / "copy").mkdir()
    assert not KeptSearches.exists(tmp_path / "copy")
    searches.backup(tmp_path / "copy")
    assert KeptSearches.exists(tmp_path / "copy")
    later(monkeypatch, days=2)
    other = KeptSearches(tmp_path / "other")
    mine = other.keep("mine", [embedding_of(2)], access=LOCAL, model_digest="d")
    for _ in range(2):
        other.merge(tmp_path / "copy")
    assert {one.kept_id for one in other.all(LOCAL)} == {kept.kept_id, mine.kept_id}
    assert other.get(kept.kept_id, LOCAL).crop == CROP
    other.close()


def test_only_the_user_of_the_service_may_read_the_file(searches: KeptSearches) -> None:
    assert searches.path.stat().st_mode & 0o077 == 0


def test_searches_are_kept_up_to_a_number(searches: KeptSearches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT", 2)
    kept = [searches.keep(name, [embedding_of(1)], access=LOCAL, model_digest="d") for name in ("one", "two")]
    with pytest.raises(OceanoError, match="invalid_request"):
        searches.keep("three", [embedding_of(1)], access=LOCAL, model_digest="d")
    searches.delete(kept[0].kept_id, LOCAL)
    searches.keep("three", [embedding_of(1)], access=LOCAL, model_digest="d")


def test_a_full_disk_does_not_hide_the_other_searches(searches: KeptSearches, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = searches.keep("short", [embedding_of(1)], access=LOCAL, model_digest="d", days=1)
    kept = searches.keep("long", [embedding_of(2)], access=LOCAL, model_digest="d", days=30)
    later(monkeypatch, days=2)

    def full() -> int:
        raise OceanoError("disk_full", "the disk is full")

    monkeypatch.setattr(searches, "delete_ended", full)
    assert [one.kept_id for one in searches.all(LOCAL)] == [kept.kept_id]
    assert searches.get(kept.kept_id, LOCAL).name == "long"
    with pytest.raises(OceanoError, match="not_found"):
        searches.get(ended.kept_id, LOCAL)


ANA, EVA = Access("user ana", "curate"), Access("user eva", "curate")


def names(searches: KeptSearches, access: Access) -> list[str]:
    return sorted(one.name for one in searches.all(access))


def test_a_search_is_there_for_whoever_kept_it_and_for_admins(searches: KeptSearches) -> None:
    hers = searches.keep("of Ana", [embedding_of(1)], access=ANA, model_digest="d")
    searches.keep("of Eva", [embedding_of(2)], access=EVA, model_digest="d")
    assert names(searches, ANA) == ["of Ana"]
    assert names(searches, LOCAL) == names(searches, Access("key x", "admin")) == ["of Ana", "of Eva"]
    assert searches.get(hers.kept_id, ANA).name == "of Ana"
    for other in (EVA, Access("user ana2", "curate"), Access("key x", "admin", ("/a",))):
        searches.rename(hers.kept_id, "taken", other)
        searches.delete(hers.kept_id, other)
        with pytest.raises(OceanoError) as caught:
            searches.get(hers.kept_id, other)
        with pytest.raises(OceanoError) as unknown:
            searches.get("unknown", other)
        assert (caught.value.code, caught.value.message, caught.value.details) == (
            unknown.value.code, unknown.value.message, unknown.value.details,
        )  # fmt: skip
    assert names(searches, ANA) == ["of Ana"]
    searches.delete(hers.kept_id, ANA)
    assert names(searches, LOCAL) == ["of Eva"]


def test_a_search_kept_with_more_folders_in_sight_is_hidden(searches: KeptSearches) -> None:
    def ana(*folders: str) -> Access:
        return Access("user ana", "search", folders)

    for folders in ((), ("/a",), ("/a/x",), ("/b",), ("/a", "/b")):
        searches.keep(" ".join(folders) or "all", [embedding_of(1)], access=ana(*folders), model_digest="d")
    assert names(searches, ana()) == ["/a", "/a /b", "/a/x", "/b", "all"]
    assert names(searches, ana("/a")) == ["/a", "/a/x"]
    assert names(searches, ana("/a/x/y")) == []
    assert names(searches, ana("/b", "/a")) == ["/a", "/a /b", "/a/x", "/b"]
    assert names(searches, ana("/")) == ["/a", "/a /b", "/a/x", "/b"]


_VERSION_1 = """
CREATE TABLE searches (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, embeddings BLOB NOT NULL, size INTEGER NOT NULL, crop BLOB,
    model_digest TEXT NOT NULL, filters TEXT NOT NULL, created TEXT NOT NULL, ends TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX searches_by_end ON searches (ends);
PRAGMA user_version = 1;
"""


def of_version_1(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    row = ("old", "Old", embedding_of(1).tobytes(), 512, None, "d", "", now.isoformat())
    with closing(sqlite3.connect(folder / "searches.sqlite3")) as connection:
        connection.executescript(_VERSION_1)
        ends = (now + timedelta(days=9)).isoformat()
        connection.execute("INSERT INTO searches VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, ends))
        connection.commit()


def test_searches_of_the_first_version_are_those_of_admins(tmp_path: Path) -> None:
    of_version_1(tmp_path)
    for _ in range(2):
        with closing(KeptSearches(tmp_path)) as searches:
            assert names(searches, LOCAL) == ["Old"]
            assert np.array_equal(searches.get("old", LOCAL).embeddings[0], embedding_of(1))
            assert names(searches, ANA) == names(searches, Access("", "search")) == []


def test_a_backup_of_the_first_version_is_added(searches: KeptSearches, tmp_path: Path) -> None:
    of_version_1(tmp_path / "copy")
    searches.keep("of Ana", [embedding_of(1)], access=ANA, model_digest="d")
    searches.merge(tmp_path / "copy")
    assert names(searches, LOCAL) == ["Old", "of Ana"]
    assert names(searches, ANA) == ["of Ana"]
    assert [one.name for one in tmp_path.iterdir() if "merge" in one.name] == []
    with closing(sqlite3.connect(tmp_path / "copy" / "searches.sqlite3")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)  # the backup stays as it is
