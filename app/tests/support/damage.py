"""Damage to files, as a failing disk does it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_PAGE: Final = 4096
_LEAF: Final = 0x0A  # of an index or a table WITHOUT ROWID
_CELL_COUNT: Final = 3  # offset in a page


def lose_rows(database: Path) -> None:
    """Empty the page in the middle of a SQLite database, so that reads silently lack its rows."""
    pages = range(database.stat().st_size // _PAGE // 2, 0, -1)
    with database.open("r+b") as file:
        for page in pages:
            file.seek(page * _PAGE)
            if file.read(1)[0] == _LEAF:
                file.seek(page * _PAGE + _CELL_COUNT)
                file.write(bytes(2))
                return
    raise AssertionError("no leaf page")


def damage_bytes(file: Path, before: bytes, after: bytes) -> None:
    """Replace bytes of a file by as many others."""
    data = file.read_bytes()
    assert before in data
    assert len(before) == len(after)
    file.write_bytes(data.replace(before, after))
