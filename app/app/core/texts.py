"""The texts of the pages, which commands use, too: one file per language."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

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
        """Return a text with its values."""
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
