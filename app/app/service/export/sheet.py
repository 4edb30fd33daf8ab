"""Contact sheets: a PDF with the thumbnail of each match."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import PurePosixPath
from typing import Final

from app.core.iteration import chunks
from app.core.paths import readable
from app.images import Thumbs
from app.service.query import ListedMatch
from app.service.sureness import Bands, Sureness, two_decimals

MAX_ON_SHEET: Final = 2000
_READ_AT_ONCE: Final = 100


def contact_sheet(
    matches: Iterable[ListedMatch],
    thumbs: Thumbs,
    bands: Bands,
    words: Mapping[Sureness, str],
    title: str,
    *,
    crops: Sequence[bytes] = (),
    lines: Sequence[str] = (),
    decimal: Callable[[str], str] = str,
) -> bytes:
    """Return a PDF of A4 pages with the thumbnail, file name, date, folder and word for the similarity of each match.

    Args:
        matches: the matches; at most `MAX_ON_SHEET` are shown.
        thumbs: the thumbnails; a missing one leaves an empty frame.
        bands: what similarities mean.
        words: for each of them, in the language of the sheet.
        title: at the top of each page.
        crops: JPEG files of the person who was searched for, at the top of the first page.
        lines: below them: what was searched for, and the filters.
        decimal: writes a number such as "0.47" in the language of the sheet.
    """
    from app.service.export.sheet_pdf import SheetPdf  # slow to import: half a second

    sheet = SheetPdf(title, crops, lines)
    for some in chunks(islice(matches, MAX_ON_SHEET), _READ_AT_ONCE):
        jpegs = thumbs.read_many([listed.match.face_id for listed in some])
        for listed, jpeg in zip(some, jpegs, strict=True):
            payload = listed.match.payload
            path = PurePosixPath(readable(payload.path))
            below = (
                f"{words[bands.of(listed.match.similarity)]} ({decimal(two_decimals(listed.match.similarity))})",
                path.name,
                " ".join(part for part in ((payload.taken_at or "")[:10], path.parent.name) if part),
            )
            sheet.add(jpeg, below)
    return bytes(sheet.output())
