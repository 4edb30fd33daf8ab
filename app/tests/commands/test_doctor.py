"""oceano doctor: what it says and does about images without a perceptual hash."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

import pytest

from app.commands import doctor as command
from app.commands.doctor import run_doctor
from app.core.config import Settings
from app.library import Inconsistencies
from app.service import Repairs


class _Doctor:
    """Finds two images without a hash, of which a repair fills in one."""

    def __init__(self) -> None:
        self.lacking = 2

    def check(self) -> Inconsistencies:
        return Inconsistencies(faces=3, images=3, without_hash=self.lacking)

    def repair(self, found: Inconsistencies) -> Repairs:
        self.lacking = 1
        return Repairs(hashed_images=1, unhashed_images=1)


@pytest.fixture(autouse=True)
def _doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[_Doctor]:
        yield _Doctor()

    monkeypatch.setattr(command, "open_doctor", opened)


def said_by(settings: Settings, capsys: pytest.CaptureFixture[str], *, fix: bool) -> str:
    assert run_doctor(settings, Event(), fix=fix, as_json=False) == 0
    return "".join(capsys.readouterr())


def test_images_without_a_hash_are_reported_but_are_no_fault(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    said = said_by(settings, capsys, fix=False)
    assert "2 images without a perceptual hash" in said
    assert "oceano doctor --fix" in said
    assert "Index, catalog and thumbnails agree." in said


def test_fix_fills_hashes_in_even_if_nothing_else_is_wrong(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    said = said_by(settings, capsys, fix=True)
    assert "1 image got a perceptual hash." in said
    assert "1 image without a perceptual hash: no file with it can be read." in said


def test_the_numbers_are_in_the_json(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_doctor(settings, Event(), fix=True, as_json=True) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["without_hash"], said["repairs"]["hashed_images"], said["repairs"]["unhashed_images"]) == (1, 1, 1)
