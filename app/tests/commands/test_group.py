"""What `oceano group` says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

import pytest

from app.commands import group
from app.core.config import Settings
from app.people import GroupCounts


class _Grouping:
    def __init__(self, counts: GroupCounts) -> None:
        self._counts = counts

    def run(self, **_: object) -> GroupCounts:
        return self._counts


@pytest.mark.parametrize(
    ("faces", "removed", "said"),
    [
        (0, 0, "No new faces to group; "),
        (1, 0, "1 face grouped; "),
        (12, 1, "12 faces grouped, 1 deleted face removed; "),
        (0, 3, "No new faces to group, 3 deleted faces removed; "),
    ],
)
def test_it_says_what_was_grouped(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    faces: int,
    removed: int,
    said: str,
) -> None:
    @contextmanager
    def opened(*_: object) -> Iterator[_Grouping]:
        yield _Grouping(GroupCounts(faces, removed, 0))

    monkeypatch.setattr(group, "open_grouping", opened)
    assert group.run_group(settings, Event(), again=False, as_json=False) == 0
    told = capsys.readouterr()
    assert said in told.out + told.err
