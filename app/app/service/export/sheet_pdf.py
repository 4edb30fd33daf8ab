"""The PDF of a contact sheet: a grid of thumbnails with lines of text below each."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from fpdf import FPDF
from fpdf.enums import XPos, YPos

_COLUMNS: Final = 5
_GAP: Final = 4.0  # mm
_TEXT: Final = 11.0  # mm below a thumbnail
_TITLE: Final = 8.0  # mm of the title
_CROP: Final = 16.0  # mm, side of the crops of the person
_MAX_CROPS: Final = 10
_CHARS: Final = 28
# Fonts of the system with the letters of most languages; the fonts of PDF itself have Latin letters only.
_FONTS: Final = (
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/TTF/DejaVuSans.ttf",
    "/usr/share/fonts/dejavu-sans-fonts/DejaVuSans.ttf",
    "/usr/share/fonts/truetype/noto/NotoSans-Regular.ttf",
    "/usr/share/fonts/truetype/liberation/LiberationSans-Regular.ttf",
)


class SheetPdf(FPDF):
    """A PDF of A4 pages that fills a grid from left to right.

    Args:
        title: at the top of each page.
        crops: JPEG files of the person, at the top of the first page.
        lines: below them, such as the filters.
    """

    def __init__(self, title: str, crops: Sequence[bytes] = (), lines: Sequence[str] = ()) -> None:
        super().__init__(format="A4")
        font = next((path for path in _FONTS if Path(path).is_file()), None)
        self._is_latin = font is None
        self._name = "Helvetica" if font is None else "Sheet"
        if font is not None:
            self.add_font(self._name, fname=font)
        self._title, self._crops, self._lines = title, crops[:_MAX_CROPS], lines
        self._cell = 0  # of the page
        self._top = 0.0  # mm, of its grid
        self.set_auto_page_break(auto=False)
        self.set_margins(12, 12)
        self._side = (self.epw - (_COLUMNS - 1) * _GAP) / _COLUMNS
        self.add_page()

    def header(self) -> None:
        """Print the title; FPDF calls it for each page."""
        self.set_font(self._name, size=9)
        self.cell(self.epw, 6, self._shown(self._title, 110), new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self._cell, self._top = 0, self.t_margin + _TITLE
        if self.page_no() == 1:
            self._top += self._head(self._top)

    def _head(self, y: float) -> float:
        """Print the crops and the lines, and return their height in mm."""
        height = 0.0
        for number, crop in enumerate(self._crops):
            self.image(io.BytesIO(crop), self.l_margin + number * (_CROP + 2), y, _CROP, _CROP)
            height = _CROP + 2
        self.set_font(self._name, size=8)
        for line in self._lines:
            self.set_xy(self.l_margin, y + height)
            self.multi_cell(self.epw, 4, self._shown(line, 500), new_x=XPos.LMARGIN, new_y=YPos.NEXT)
            height = self.get_y() - y
        return height + 3 if height else 0.0

    def footer(self) -> None:
        """Print the number of the page; FPDF calls it for each page."""
        self.set_font(self._name, size=7)
        self.set_y(-12)
        self.cell(self.epw, 5, str(self.page_no()), align="R")

    def add(self, jpeg: bytes | None, lines: Iterable[str]) -> None:
        """Add a thumbnail with lines below it."""
        rows = int((self.h - self._top - 14) // (self._side + _TEXT))
        if self._cell >= rows * _COLUMNS:
            self.add_page()
        row, column = divmod(self._cell, _COLUMNS)
        x, y = self.l_margin + column * (self._side + _GAP), self._top + row * (self._side + _TEXT)
        self._cell += 1
        if jpeg:
            self.image(io.BytesIO(jpeg), x, y, self._side, self._side)
        else:
            self.rect(x, y, self._side, self._side)
        self.set_font(self._name, size=6)
        for number, line in enumerate(lines):
            self.set_xy(x, y + self._side + 0.5 + number * 3)
            self.cell(self._side, 3, self._shown(line, _CHARS))

    def _shown(self, text: str, length: int) -> str:
        text = text if len(text) <= length else text[: length - 1] + "…"
        if self._is_latin:
            return text.replace("…", "...").encode("latin-1", "replace").decode("latin-1")
        return text
