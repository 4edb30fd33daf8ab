"""Catalogues that match, the language a visitor gets, and errors in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.core.errors import STATUS, OceanoError
from app.core.texts import LANGUAGES, Translator, languages_in, translator
from app.web import i18n
from app.web.i18n import error_message, pick_language, placeholders


def test_a_file_is_a_language_and_english_is_the_first(tmp_path: Path) -> None:
    for name in ("ar.json", "en.json", "pt-BR.json", "de.json", "notes.txt"):
        (tmp_path / name).write_text("{}")
    assert languages_in(tmp_path) == ("en", "ar", "de", "pt-BR")
    assert LANGUAGES[0] == "en"
    assert "es" in LANGUAGES


def test_a_language_of_a_region_is_chosen_before_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(i18n, "LANGUAGES", ("en", "pt", "pt-BR"))
    assert pick_language("pt_br", None, None) == "pt-BR"
    assert pick_language(None, None, "pt-PT, en;q=0.5") == "pt"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_language_says_its_name_and_its_direction(lang: str) -> None:
    texts = translator(lang).texts
    assert texts["language.name"]
    assert texts["language.dir"] in ("ltr", "rtl")
    assert len(texts["date.months"].split()) == 12


def test_all_catalogues_have_the_same_keys_and_placeholders() -> None:
    english, *others = [translator(lang).texts for lang in LANGUAGES]
    assert english
    assert others
    for texts in others:
        assert texts.keys() == english.keys()
        assert {key: placeholders(text) for key, text in texts.items()} == {
            key: placeholders(text) for key, text in english.items()
        }


def test_spanish_addresses_the_reader_in_one_way() -> None:
    """With tú: no command to usted, no `su` for what belongs to the reader."""
    commands = (
        "abra|busque|compruebe|consulte|copie|cambie|elija|envíe|envíela|escriba|espere|guarde|guárdela|haga|"
        "incorpore|instale|intente|inténtelo|mire|pegue|pruebe|pruébelo|pulse|quite|reinicie|revise|"
        "suelte|use|vea|vuelva|usted"
    )
    formal = re.compile(
        rf"\b(?<!que )({commands}|sus? (fotos?|fotografías?|clave|navegador|búsquedas?))\b", re.IGNORECASE
    )
    assert {key: text for key, text in translator("es").texts.items() if formal.search(text)} == {}
    assert formal.search("Elija la foto")
    assert formal.search("Sus fotos")


def test_a_number_has_the_decimal_sign_of_the_language() -> None:
    assert (translator("en").decimal("0.47"), translator("es").decimal("4.1 GB")) == ("0.47", "4,1 GB")
    large = OceanoError("image_too_large", "too large", details={"max_megabytes": 0.5})
    assert error_message(large, "es") == "El archivo pesa más de 0,5 MB. Redúcelo o elige otro."
    fixed = {key: text for key, text in translator("es").texts.items() if re.search(r"(?<!v)\d\.\d", text)}
    assert fixed == {}


def test_no_text_is_empty_or_left_untranslated() -> None:
    english, spanish = (translator(lang).texts for lang in ("en", "es"))
    assert all(english.values())
    assert all(spanish.values())
    alike = {key for key, text in english.items() if spanish[key] == text and len(text) > 3}
    assert alike <= {"results.size", "results.took", "export.json", "date.day"}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_error_code_has_a_text_and_every_status_a_title(lang: str) -> None:
    texts = translator(lang).texts
    assert STATUS
    assert [code for code in STATUS if f"error.{code}" not in texts] == []
    assert [status for status in STATUS.values() if f"title.{status}" not in texts] == []


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_plain_text_of_an_error_asks_for_no_value(lang: str) -> None:
    texts = translator(lang).texts
    assert {code: placeholders(texts[f"error.{code}"]) for code in STATUS} == dict.fromkeys(STATUS, frozenset())


def test_a_missing_key_and_a_missing_value_are_errors() -> None:
    t = translator("en")
    with pytest.raises(KeyError):
        t("no.such.key")
    with pytest.raises(KeyError):
        t("page.limits")


def test_there_is_no_translator_for_another_language() -> None:
    with pytest.raises(KeyError):
        translator("../../etc/passwd")


def test_counts_choose_the_plural_and_the_thousands() -> None:
    english, spanish = translator("en"), translator("es")
    assert english.count("result.count.face", 1) == "1 match"
    assert english.count("result.count.face", 0) == "0 matches"
    assert english.count("footer.faces", 1234567) == "1,234,567 faces indexed"
    assert spanish.count("footer.faces", 1234567) == "1\N{NO-BREAK SPACE}234\N{NO-BREAK SPACE}567 rostros en el índice"


@pytest.mark.parametrize(
    ("query", "cookie", "header", "wanted"),
    [
        (None, None, None, "en"),
        ("es", "en", "en", "es"),
        (None, "es", "en", "es"),
        ("fr", "es", "en", "es"),
        ("fr", "fr", "fr", "en"),
        (None, None, "es-MX,es;q=0.9,en;q=0.8", "es"),
        (None, None, "en;q=0.5, es;q=0.9", "es"),
        (None, None, "fr-CH, fr;q=0.9, es;q=0.4, *;q=0.1", "es"),
        (None, None, "fr, *;q=0.5", "en"),
        (None, None, "es;q=0, en;q=0.1", "en"),
        (None, None, "es;q=0", "en"),
        (None, None, "es;q=two, en;q=0.1", "en"),
        (None, None, "es;q=nan", "en"),
        (None, None, "ES", "es"),
        (None, None, ";;,,=;q=1", "en"),
        ("es_AR", None, None, "es"),
        ("", "", "", "en"),
    ],
)
def test_the_language_is_asked_for_then_remembered_then_preferred(
    query: str | None, cookie: str | None, header: str | None, wanted: str
) -> None:
    assert pick_language(query, cookie, header) == wanted


def test_english_gives_the_errors_own_message() -> None:
    error = OceanoError("invalid_image", "the PNG file is damaged: line 3")
    assert error_message(error, "en") == "the PNG file is damaged: line 3"


def test_spanish_fills_in_what_the_details_hold() -> None:
    details = {"width": 12000, "height": 9000, "max_megapixels": 64.0}
    error = OceanoError("image_too_large", "12000 x 9000 is too large", details=details)
    assert error_message(error, "es") == "La imagen tiene 12000 × 9000 píxeles; se admiten como máximo 64 megapíxeles."
    error = OceanoError("image_too_large", "the upload is too large", details={"max_megabytes": 15.0})
    assert "15 MB" in error_message(error, "es")
    error = OceanoError("unsupported_image", "not a picture", details={"supported": ["JPEG", "PNG"]})
    assert "(JPEG, PNG)" in error_message(error, "es")


def test_spanish_does_without_details_that_are_missing() -> None:
    assert STATUS
    for code in STATUS:
        text = error_message(OceanoError(code, "in English", details={"width": 3}), "es")
        assert text == translator("es").texts[f"error.{code}"]


def test_braces_in_details_are_text() -> None:
    error = OceanoError("unsupported_image", "x", details={"supported": ["{0.__class__}"]})
    assert "{0.__class__}" in error_message(error, "es")


def test_a_translator_formats_only_its_own_texts() -> None:
    assert Translator("en", {"greeting": "Hello {name}"})("greeting", name="{evil}") == "Hello {evil}"
