"""The filters of a result in words, for a contact sheet."""

from __future__ import annotations

from collections.abc import Mapping

from app.core.texts import Translator
from app.service import two_decimals
from app.web.pages.filters import Filters
from app.web.pages.names import printable


def filter_words(filters: Filters, t: Translator, *, together: int, names: Mapping[str, str]) -> list[str]:
    """Return the conditions and the order of a result, each in words of the language; none for all matches.

    Args:
        filters: the filters.
        t: the language.
        together: number of further people in the same image, of the filters and of a photograph that was sent.
        names: of the person in the filters, by id.
    """
    start, end = filters.taken_from, filters.taken_to
    words = [printable(folder) for folder in filters.folders]
    if start or end:
        words.append(start if start == end else " \N{EN DASH} ".join((start, end)).strip())
    if filters.undated:
        words.append(t("filter.undated"))
    if filters.clear:
        words.append(t("page.clear"))
    if filters.min_face:
        words.append(t("filter.min_face_chip", n=t.number(filters.min_face)))
    if filters.least is not None:
        words.append(t("filter.least_chip", least=t.decimal(two_decimals(filters.least))))
    if filters.sureness:
        words.append(", ".join(t(f"sureness.{one}") for one in filters.sureness))
    words += _people(filters, t, together, names)
    if filters.sort != "similarity":
        words.append(t(f"sort.{filters.sort}"))
    if filters.group:
        words.append(t(f"group.{filters.group}"))
    return words


def _people(filters: Filters, t: Translator, together: int, names: Mapping[str, str]) -> list[str]:
    """Return the conditions on the photograph and on who is in it."""
    words = [t("filter.photo")] if filters.photo else []
    if filters.named:
        words.append(names.get(filters.named, t("person.no_name")))
    if filters.unnamed:
        words.append(t("filter.unnamed"))
    if together:
        words.append(t.count("filter.with_people", together))
    if filters.unlike:
        words.append(t.count("filter.not_people", len(filters.unlike)))
    return words
