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
        (0, 0, "There are no new faces to group. It took "),
        (1, 0, "Looked at 1 face, and grouped those that show the same person. It took "),
        (12, 1, "that show the same person. Removed 1 deleted face from the groups. It took "),
        (0, 3, "There are no new faces to group. Removed 3 deleted faces from the groups. It took "),
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


def test_it_says_how_to_go_on_after_an_interruption(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def opened(*_: object) -> Iterator[_Grouping]:
        yield _Grouping(GroupCounts(5, 0, 1))

    monkeypatch.setattr(group, "open_grouping", opened)
    stop = Event()
    stop.set()
    assert group.run_group(settings, stop, again=False, as_json=False) == 130
    said = "Interrupted: looked at 5 faces, 1 is left. Run `oceano group` again to go on."
    assert said in capsys.readouterr().out
