"""Languages: the texts of the page, the choice of a language, and translated errors."""

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

_FOLDER: Final = Path(__file__).parents[1] / "locale"


def languages_in(folder: Path) -> tuple[str, ...]:
    """Return the languages that have a file of texts: English, which is the default, then the others by their tag."""
    return tuple(sorted((file.stem for file in folder.glob("*.json")), key=lambda lang: (lang != "en", lang)))


LANGUAGES: Final = languages_in(_FOLDER)


@dataclass(frozen=True, slots=True)
class Translator:
    """The texts of one language, as `str.format` templates; a call with a key and values returns a text.

    Raises:
        KeyError: the key, or a value that the text uses, is missing.
    """

    lang: str
    texts: Mapping[str, str]

    def __call__(self, key: str, **values: object) -> str:
        return self.texts[key].format(**values)

    def count(self, key: str, n: int, **values: object) -> str:
        """Return the singular or plural of a text.

        Args:
            key: the texts are `KEY.one` and `KEY.other`.
            n: the number; the text gets it formatted for the language.
            values: other values of the text.
        """
        return self(f"{key}.{'one' if n == 1 else 'other'}", n=self.number(n), **values)

    def found(self, key: str, n: int, is_more: bool, **values: object) -> str:
        """Return a text for a number of matches: `KEY.more` if there are more, else as `count`."""
        return self(f"{key}.more", n=self.number(n), **values) if is_more else self.count(key, n, **values)

    def number(self, n: int) -> str:
        """Format a number for the language, such as 1,234,567 in English."""
        return f"{n:,}".replace(",", self.texts["number.thousands"])

    def decimal(self, number: str) -> str:
        """Write a number such as "0.47" with the decimal sign of the language, such as "0,47" in Spanish."""
        return number.replace(".", self.texts["number.decimal"])

    def size(self, size: float) -> str:
        """Format a number of bytes with its unit, in powers of 1000, such as "4.1 GB" in English."""
        for unit in ("bytes", "kB", "MB"):
            if size < 1000:
                return f"{size:.0f} {unit}"
            size /= 1000
        return self.decimal(f"{size:.1f} GB" if size < 1000 else f"{size / 1000:.1f} TB")


@cache
def translator(lang: str) -> Translator:
    """Return the translator of one of `LANGUAGES`; reads its file on the first call.

    Raises:
        KeyError: another language.
    """
    if lang not in LANGUAGES:
        raise KeyError(lang)
    return Translator(lang, json.loads((_FOLDER / f"{lang}.json").read_text(encoding="utf-8")))


def pick_language(query: str | None, cookie: str | None, accept_language: str | None) -> str:
    """Choose one of `LANGUAGES`: by the URL, else the cookie, else the browser's preferences, else English.

    Args:
        query: `lang` of the URL.
        cookie: `lang` of the cookie.
        accept_language: the header.
    """
    for tag in (query, cookie):
        if tag and (lang := _available(tag)):
            return lang
    for tag in _accepted_tags(accept_language or ""):
        if lang := (LANGUAGES[0] if tag == "*" else _available(tag)):
            return lang
    return LANGUAGES[0]


def _available(tag: str) -> str | None:
    """Return the language of a tag: that of the region, such as pt-BR, else es for es-MX; None if there is none."""
    wanted = tag.strip().lower().replace("_", "-")
    known = {lang.lower(): lang for lang in LANGUAGES}
    return known.get(wanted) or known.get(wanted.split("-", 1)[0])


def _accepted_tags(header: str) -> list[str]:
    """Return the tags of an Accept-Language header by quality (RFC 9110, 12.5.4), without malformed ones."""
    tags: list[tuple[float, str]] = []
    for item in header.split(","):
        tag, _, parameter = item.partition(";")
        name, _, value = parameter.partition("=")
        try:
            quality = float(value) if name.strip().lower() == "q" else 1.0
        except ValueError:
            continue
        if tag.strip() and 0 < quality <= 1:
            tags.append((quality, tag.strip()))
    return [tag for _, tag in sorted(tags, key=lambda pair: -pair[0])]


def error_message(error: OceanoError, lang: str) -> str:
    """Return the message of an error in a language: its own in English, else the text of its code.

    A code may have specific texts: `cause.CAUSE` for the `cause` in the error's details, else the first
    `error.CODE.NAME` whose values are all in the details, else `error.CODE`.
    """
    if lang == "en":
        return error.message
    texts = translator(lang).texts
    details = {key: _as_text(value, translator(lang)) for key, value in error.details.items()}
    details |= {name: texts.get(f"role.{details[name]}", "") for name in ("needed", "role") if name in details}
    if placeholders(text := texts.get(f"cause.{details.get('cause')}", "")) <= details.keys() and text:
        return text.format(**details)
    for key, text in texts.items():
        if key.startswith(f"error.{error.code}.") and placeholders(text) <= details.keys():
            return text.format(**details)
    return texts[f"error.{error.code}"]


def placeholders(text: str) -> frozenset[str]:
    """Return the names of the values in a text."""
    return frozenset(name for _, name, _, _ in string.Formatter().parse(text) if name)


def _as_text(value: JsonValue, t: Translator) -> str:
    if isinstance(value, list):
        return ", ".join(_as_text(part, t) for part in value)
    return t.decimal(f"{value:g}") if isinstance(value, float) else str(value)


def language_of(request: Request) -> str:
    """Return the language of a request, by `?lang=`, the cookie or Accept-Language."""
    return pick_language(
        request.query_params.get("lang"), request.cookies.get("lang"), request.headers.get("accept-language")
    )
