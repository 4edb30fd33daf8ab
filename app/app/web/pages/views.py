"""View models of the page: texts, numbers and shapes, ready for the templates."""

from __future__ import annotations

import base64
import math
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from app.core.errors import OceanoError
from app.core.types import BBox, Flaw, Match, Picture
from app.images import preview_webp
from app.service import DEFAULT_LIMIT, FaceMatches, MatchPage, SearchResult
from app.web.i18n import Translator, error_message

THRESHOLD_MIN: Final = 0.2
THRESHOLD_MAX: Final = 0.9
LIMITS: Final = (DEFAULT_LIMIT, 50, 100, 200)

_PREVIEW_SIDE: Final = 1024
_RETRY_STATUSES: Final = frozenset({429, 500, 503, 504})
_NAME_PART: Final = re.compile(r"[^_.\s-]*[_.\s-]+|[^_.\s-]+")  # a long file name may wrap after each part
_SURROGATES: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class SearchForm:
    """Values of the search form.

    Attributes:
        threshold: lowest similarity (cosine).
        limit: matches per face.
        clear: leave out faces with a flaw.
    """

    threshold: float
    limit: int = DEFAULT_LIMIT
    clear: bool = False


@dataclass(frozen=True, slots=True)
class PreviewView:
    """The uploaded picture, reduced for the page.

    Attributes:
        uri: a data: URL.
        width: of the upright original in pixels; the outlines of faces use its coordinates.
        height: the same.
        shown_width: maximum width on the page in CSS pixels.
        shown_height: maximum height on the page in CSS pixels.
    """

    uri: str
    width: int
    height: int
    shown_width: int
    shown_height: int


@dataclass(frozen=True, slots=True)
class MatchView:
    """The card of a match.

    Attributes:
        face_id: the stored face.
        similarity: rounded down to two decimals, so that 0.40 on the page always meets a threshold of 0.40.
        name_parts: the file name, split where it may wrap.
        folder: the folder of the file.
        path: the path of the file.
        person: the person's name, if known.
        hidden: whether the similarity is below the threshold.
        page: number of the page of the file, from 1; None for a first page.
    """

    face_id: str
    similarity: float
    name_parts: tuple[str, ...]
    folder: str
    path: str
    person: str | None
    hidden: bool
    page: int | None = None


@dataclass(frozen=True, slots=True)
class FaceView:
    """A face of the uploaded picture. Shapes are SVG attributes in pixels of the upright picture.

    Attributes:
        number: counts from 1.
        box: x, y, width and height.
        corners: a path that marks the corners of the box.
        badge: centre x, centre y and radius of the circle with the number.
        crop: a view box around the face.
        score: detection score, 0 to 1.
        quality: 0 to 1.
        flaws: reasons for a low quality.
        matches: all matches that were found.
        shown: number of matches that are not hidden.
        next: cursor of the matches after these; None if there are no more.
        more_shown: whether all matches are shown, and the index has more.
    """

    number: int
    box: BBox
    corners: str
    badge: tuple[float, float, float]
    crop: str
    score: float
    quality: float
    flaws: tuple[Flaw, ...]
    matches: tuple[MatchView, ...]
    shown: int
    next: str | None
    more_shown: bool


@dataclass(frozen=True, slots=True)
class FurtherView:
    """A page of a face's matches after the first.

    Attributes:
        number: of the face, from 1.
        first: position of the first match among all, from 1.
        last: position of the last match.
        total: number of all matches that reach the threshold; None if it is not known.
        matches: of this page.
        next: cursor of the matches after these; None if there are no more.
    """

    number: int
    first: int
    last: int
    total: int | None
    matches: tuple[MatchView, ...]
    next: str | None

    def range(self, t: Translator) -> str:
        """Return which matches these are."""
        if self.total is None:
            return t("results.range", first=t.number(self.first), last=t.number(self.last))
        return t("results.range_of", first=t.number(self.first), last=t.number(self.last), total=t.number(self.total))


@dataclass(frozen=True, slots=True)
class ErrorView:
    """An error as the page shows it; `retry` tells whether a new attempt may succeed."""

    code: str
    title: str
    message: str
    request_id: str
    retry: bool


@dataclass(frozen=True, slots=True)
class SearchPage:
    """Contents of the page: the form, and perhaps an error, faces, or further matches of one face.

    `live` if page.js filters by the threshold.
    """

    form: SearchForm
    preview: PreviewView | None = None
    faces: tuple[FaceView, ...] = ()
    error: ErrorView | None = None
    took_ms: float = 0.0
    live: bool = False
    further: FurtherView | None = None


def preview(picture: Picture) -> PreviewView:
    """Reduce an uploaded picture for the page."""
    webp, _ = preview_webp(picture.pixels, _PREVIEW_SIDE)
    enlarged = _PREVIEW_SIDE / max(picture.width, picture.height)
    return PreviewView(
        uri=f"data:image/webp;base64,{base64.b64encode(webp).decode('ascii')}",
        width=picture.width,
        height=picture.height,
        shown_width=max(1, round(picture.width * enlarged)),
        shown_height=max(1, round(picture.height * enlarged)),
    )


def face_view(found: FaceMatches, result: SearchResult, form: SearchForm) -> FaceView:
    """Make the view of a face and its matches.

    Args:
        found: the face.
        result: the result that it belongs to.
        form: the threshold hides matches.
    """
    matches = tuple(_match_view(listed.match, form.threshold) for listed in found.matches)
    x1, y1, x2, y2 = found.face.bbox
    longest = max(result.width, result.height)
    # the badge scales with the picture, but does not cover a small face
    radius = max(0.016 * longest, min(0.028 * longest, 0.35 * min(x2 - x1, y2 - y1)))
    side = 1.3 * max(x2 - x1, y2 - y1)
    crop = ((x1 + x2 - side) / 2, (y1 + y2 - side) / 2, side, side)
    return FaceView(
        number=found.face_index + 1,
        box=(round(x1, 1), round(y1, 1), round(x2 - x1, 1), round(y2 - y1, 1)),
        corners=_corners(found.face.bbox),
        badge=(
            round(min(max(x1, radius), result.width - radius), 1),
            round(min(max(y1, radius), result.height - radius), 1),
            round(radius, 1),
        ),
        crop=" ".join(f"{value:.1f}" for value in crop),
        score=found.face.det_score,
        quality=found.face.quality,
        flaws=found.face.flaws,
        matches=matches,
        shown=(shown := sum(not match.hidden for match in matches)),
        next=found.next,
        more_shown=found.more and shown == len(matches),
    )


def further_view(found: MatchPage, number: int, form: SearchForm) -> FurtherView:
    """Make the view of a page after the first; `number` is the face's."""
    return FurtherView(
        number=number,
        first=found.first,
        last=found.first + len(found.matches) - 1,
        total=found.total,
        matches=tuple(_match_view(listed.match, form.threshold) for listed in found.matches),
        next=found.next,
    )


def _corners(box: BBox) -> str:
    """Return an SVG path of the four corners of a box, as in a viewfinder."""
    x1, y1, x2, y2 = box
    leg = 0.24 * min(x2 - x1, y2 - y1)
    ends = ((x1, y1, leg, leg), (x2, y1, -leg, leg), (x2, y2, -leg, -leg), (x1, y2, leg, -leg))
    return "".join(f"M{x + dx:.1f} {y:.1f}H{x:.1f}V{y + dy:.1f}" for x, y, dx, dy in ends)


def _match_view(match: Match, threshold: float) -> MatchView:
    # similarities have six decimals; without `round`, 0.29 * 100 = 28.999999999999996 would become 0.28
    similarity = math.floor(round(match.similarity * 100, 4)) / 100
    path = PurePosixPath(_printable(match.payload.path))
    return MatchView(
        face_id=match.face_id,
        similarity=similarity,
        name_parts=tuple(_NAME_PART.findall(path.name or str(path))),
        folder=str(path.parent),
        path=str(path),
        person=_printable(match.payload.person) if match.payload.person else None,
        hidden=similarity < threshold - 1e-9,
        page=match.payload.page + 1 if match.payload.page else None,
    )


def _printable(text: str) -> str:
    """Replace lone surrogates, which stand for bytes of a file name that are not UTF-8 and cannot be encoded."""
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


def error_view(error: OceanoError, t: Translator, request_id: str) -> ErrorView:
    """Make the view of an error in the translator's language."""
    message = error_message(error, t.lang).strip()
    sentence = message[:1].upper() + message[1:]
    return ErrorView(
        code=error.code,
        title=t(f"title.{error.status}"),
        message=sentence if sentence.endswith((".", "!", "?")) else f"{sentence}.",
        request_id="" if request_id == "-" else request_id,
        retry=error.status in _RETRY_STATUSES,
    )
