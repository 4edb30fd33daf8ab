"""`GET /help/similarity`: what a similarity means with this model and this index."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.core.errors import OceanoError
from app.core.texts import Translator, translator
from app.service import Bands, Services, Sureness, two_decimals
from app.web.api.faces import face_id_from
from app.web.deps import ServicesDep
from app.web.i18n import language_of
from app.web.pages.form_fields import last_of, query_fields
from app.web.pages.templating import render

_NUMBER: Final = re.compile(r"-?[01]?([.,][0-9]{1,6})?")
_STEPS: Final = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)  # rows of the table, above the threshold
_ONE: Final = 2 / 3  # expected strangers; more of them are told as a number, fewer as one in so many searches
_RAREST: Final = 1e-6  # expected strangers; below it, numbers say nothing more


@dataclass(frozen=True, slots=True)
class Answer:
    """What one similarity means.

    Attributes:
        similarity: rounded down to two decimals, such as "0.47", in the form of the language.
        sureness: None below the threshold, where results end.
        strangers: how many strangers in the index are expected to reach it, such as "about 3".
        sentence: the same as a sentence.
    """

    similarity: str
    sureness: Sureness | None
    strangers: str
    sentence: str


@dataclass(frozen=True, slots=True)
class BandRow:
    """A word, and the lowest similarity that has it."""

    sureness: Sureness
    least: str


@dataclass(frozen=True, slots=True)
class SimilarityHelp:
    """Contents of the page.

    Attributes:
        asked: the similarity that was sent, or that of the pair; empty if there is none.
        answer: what it means; None if nothing was asked.
        pair: face_id of the two faces to show side by side; empty if there are none.
        bands: the words in use, highest first.
        steps: similarities from the threshold upwards.
        numbers: of the model and the index.
    """

    asked: str
    answer: Answer | None
    pair: tuple[str, ...]
    bands: tuple[BandRow, ...]
    steps: tuple[Answer, ...]
    numbers: Bands


def router() -> APIRouter:
    """Return the route, which is not in the schema of the API."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    routes.add_api_route("/help/similarity", _similarity, methods=["GET"])
    return routes


async def _similarity(request: Request, services: ServicesDep) -> HTMLResponse:
    fields = query_fields(request)
    similarity = similarity_of(last_of(fields, "s"))
    pair = tuple(face_id_from(sent) for name in ("a", "b") if (sent := last_of(fields, name)))
    if len(pair) == 2:
        similarity = await _similarity_of(services, pair)
    else:
        pair = ()
    view = similarity_help(services.bands, translator(language_of(request)), similarity, pair)
    return render(request, "help_similarity.html", {"help": view})


async def _similarity_of(services: Services, pair: Sequence[str]) -> float:
    """Compare two indexed faces.

    Raises:
        OceanoError: `face_unknown`, `index_unavailable`.
    """
    one, other = await services.results.embeddings_of(pair)
    return float(one @ other)


def similarity_of(text: str) -> float | None:
    """Read a similarity, with a decimal point or comma; None if the text is empty.

    Raises:
        OceanoError: `invalid_request` if it is not a number from -1 to 1.
    """
    if not text:
        return None
    if _NUMBER.fullmatch(text) and any(map(str.isdecimal, text)) and abs(value := float(text.replace(",", "."))) <= 1:
        return value
    raise OceanoError("invalid_request", "s must be a similarity from -1 to 1", details={"field": "s"})


def similarity_help(bands: Bands, t: Translator, similarity: float | None, pair: tuple[str, ...]) -> SimilarityHelp:
    """Make the contents of the page.

    Args:
        bands: of the model and the index.
        t: the language.
        similarity: what was asked for; None for nothing.
        pair: face_id of two faces, or nothing.
    """
    above = [round(bands.threshold + step, 2) for step in _STEPS]
    return SimilarityHelp(
        asked="" if similarity is None else t.decimal(two_decimals(similarity)),
        answer=None if similarity is None else _answer(bands, t, similarity),
        pair=pair,
        bands=tuple(_rows(bands, t)),
        steps=tuple(_answer(bands, t, step) for step in above if step < 1),
        numbers=bands,
    )


def _answer(bands: Bands, t: Translator, similarity: float) -> Answer:
    shown = t.decimal(two_decimals(similarity))
    sureness = bands.of(similarity) if similarity >= bands.threshold else None
    expected = bands.expected_strangers(similarity)  # of the real number of faces; the words count at least 10,000
    if expected > _ONE:
        n = _one_digit(max(1.0, expected))
        return Answer(shown, sureness, t.count("help.strangers", n), t.count("help.reach", n, similarity=shown))
    if expected >= _RAREST:
        number = t.number(_one_digit(1 / expected))
        return Answer(shown, sureness, t("help.one_in", n=number), t("help.reach_one_in", n=number, similarity=shown))
    return Answer(shown, sureness, t("help.almost_none"), t("help.reach_none", similarity=shown))


def _rows(bands: Bands, t: Translator) -> Sequence[BandRow]:
    """Return the bands, highest first, without one that is empty: a high threshold can be above a band."""
    least: dict[Sureness, float] = {
        "very_likely": bands.very_likely,
        "likely": bands.likely,
        "look_closely": bands.threshold,
    }
    highest = math.inf
    rows: list[BandRow] = []
    for sureness, value in least.items():
        if value < highest:
            rows.append(BandRow(sureness, t.decimal(two_decimals(value))))
        highest = value
    return rows


def _one_digit(number: float) -> int:
    """Round a number to one digit, as the estimate has no more; one below 20 to a whole number."""
    if number < 20:
        return round(number)
    size: int = 10 ** math.floor(math.log10(number))
    return round(number / size) * size
