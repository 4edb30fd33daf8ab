"""Languages: the catalogues, which one a visitor gets, and errors in it."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from starlette.requests import Request

from app.core.errors import JsonValue, OceanoError

LANGUAGES: Final = ("en", "es")
_FOLDER: Final = Path(__file__).parents[1] / "locale"


@dataclass(frozen=True, slots=True)
class Translator:
    """The texts of one language; calling it with a key gives the text.

    Texts are `str.format` templates. Raises KeyError when the key, or a value that the text names, is missing.
    """

    lang: str
    texts: Mapping[str, str]

    def __call__(self, key: str, **values: object) -> str:
        return self.texts[key].format(**values)

    def count(self, key: str, n: int, **values: object) -> str:
        """The text `KEY.one` or `KEY.other`, with `n` as a number written the language's way."""
        return self(f"{key}.{'one' if n == 1 else 'other'}", n=self.number(n), **values)

    def number(self, n: int) -> str:
        """1234567 -> 1,234,567 in English."""
        return f"{n:,}".replace(",", self.texts["number.thousands"])


@cache
def translator(lang: str) -> Translator:
    """The Translator of one of LANGUAGES, read from `locale/` on first use. Raises KeyError for another language."""
    if lang not in LANGUAGES:
        raise KeyError(lang)
    return Translator(lang, json.loads((_FOLDER / f"{lang}.json").read_text(encoding="utf-8")))


def pick_language(query: str | None, cookie: str | None, accept_language: str | None) -> str:
    """One of LANGUAGES: what the address asks for, else the cookie, else what the browser prefers, else English."""
    for wish in (query, cookie):
        if wish and (lang := _known(wish)):
            return lang
    for tag in _preferred(accept_language or ""):
        if lang := (LANGUAGES[0] if tag == "*" else _known(tag)):
            return lang
    return LANGUAGES[0]


def _known(tag: str) -> str | None:
    """es-MX -> es; None for a language that has no catalogue."""
    primary = tag.strip().lower().replace("_", "-").split("-", 1)[0]
    return primary if primary in LANGUAGES else None


def _preferred(header: str) -> list[str]:
    """The tags of an Accept-Language header, most wanted first (RFC 9110, 12.5.4); malformed ones are left out."""
    wanted: list[tuple[float, str]] = []
    for item in header.split(","):
        tag, _, parameter = item.partition(";")
        name, _, value = parameter.partition("=")
        try:
            quality = float(value) if name.strip().lower() == "q" else 1.0
        except ValueError:
            continue
        if tag.strip() and 0 < quality <= 1:
            wanted.append((quality, tag.strip()))
    return [tag for _, tag in sorted(wanted, key=lambda pair: -pair[0])]


def error_message(error: OceanoError, lang: str) -> str:
    """What to tell a person: in English the error's own message, else the catalogue's text for its code.

    A code may have more exact texts, `error.CODE.SOMETHING`; the first whose values all stand in the error's
    details is taken, `error.CODE` otherwise.
    """
    if lang == "en":
        return error.message
    texts = translator(lang).texts
    details = {key: _plain(value) for key, value in error.details.items()}
    for key, text in texts.items():
        if key.startswith(f"error.{error.code}.") and placeholders(text) <= details.keys():
            return text.format(**details)
    return texts[f"error.{error.code}"]


def placeholders(text: str) -> frozenset[str]:
    """The names of the values a text asks for."""
    return frozenset(name for _, name, _, _ in string.Formatter().parse(text) if name)


def _plain(value: JsonValue) -> str:
    if isinstance(value, list):
        return ", ".join(_plain(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def language_of(request: Request) -> str:
    """The language of a request: `?lang=`, the cookie, or Accept-Language."""
    return pick_language(
        request.query_params.get("lang"), request.cookies.get("lang"), request.headers.get("accept-language")
    )
