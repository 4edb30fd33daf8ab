"""`/help/similarity`: what a similarity means, in numbers of the model and the index."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.texts import translator
from app.main import create_app
from app.service import Bands, Services
from app.service.sureness import Source
from app.web.pages.help import similarity_help, similarity_of
from tests.support.clients import TestClient
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.html import elements
from tests.support.pictures import point

MILLION = Bands(threshold=0.4, likely=0.5, very_likely=0.58, mean=0.02, deviation=0.1, source="model", faces=1_000_000)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    index = MemoryIndex()
    index.upsert([point(1), point(2)])
    settings = Settings(_env_file=None, data_dir=tmp_path_factory.mktemp("data"))
    with TestClient(create_app(settings, FakeEngine(), index)) as running:
        yield running


def test_the_page_explains_in_both_languages_without_a_percentage(client: TestClient) -> None:
    for lang, hint in (("en", "a hint, never proof"), ("es", "un indicio, nunca una prueba")):
        html = client.get("/help/similarity", params={"lang": lang}).text
        assert hint in html
        assert re.findall(r"\d\s*%", html) == []
        assert elements(html, of_class="verdict") == []


@pytest.mark.parametrize(
    ("similarity", "word"), [(0.6, "very_likely"), (0.5, "likely"), (0.4, "look_closely"), (0.39, None), (-0.2, None)]
)
def test_a_number_gets_its_word(similarity: float, word: str | None) -> None:
    answer = similarity_help(MILLION, translator("en"), similarity, ()).answer
    assert answer is not None
    assert answer.sureness == word
    assert f"{similarity:.2f}" in answer.sentence


@pytest.mark.parametrize(
    ("similarity", "told"),
    [(-1.0, "about 1,000,000"), (0.4, "about 70"), (0.47, "about 3"), (0.55, "1 in 17 searches"), (0.9, "almost none")],
)
def test_strangers_are_told_with_as_many_digits_as_the_estimate_has(similarity: float, told: str) -> None:
    answer = similarity_help(MILLION, translator("en"), similarity, ()).answer
    assert answer is not None
    assert answer.strangers == told


def test_one_stranger_is_told_in_the_singular() -> None:
    answer = similarity_help(MILLION, translator("en"), 0.495, ()).answer
    assert answer is not None
    assert (answer.strangers, answer.sentence) == (
        "about 1",
        "About 1 stranger in this index is expected to reach 0.49.",
    )


def test_fewer_strangers_are_expected_from_row_to_row_and_the_words_grow() -> None:
    shown = similarity_help(MILLION, translator("en"), None, ())
    assert [row.least for row in shown.bands] == ["0.58", "0.50", "0.40"]
    assert [step.similarity for step in shown.steps] == ["0.40", "0.45", "0.50", "0.55", "0.60", "0.65", "0.70"]
    assert [step.sureness for step in shown.steps] == ["look_closely"] * 2 + ["likely"] * 2 + ["very_likely"] * 3
    assert shown.answer is None


def test_strangers_are_those_of_the_real_number_of_faces_and_the_page_says_how_many_the_words_count(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(MILLION, threshold=0.37, faces=87)
    assert similarity_help(small, translator("en"), None, ()).steps[0].strangers == "1 in 50 searches"
    empty = similarity_help(replace(small, faces=0), translator("en"), 0.4, ()).answer
    assert empty is not None
    assert empty.strangers == "almost none"
    monkeypatch.setattr(Services, "bands", small)
    html = client.get("/help/similarity", params={"lang": "en"}).text
    assert "Strangers expected in this index of 87 faces" in html
    assert "87 faces in this index. The words treat it as an index of 10,000 faces" in html
    monkeypatch.setattr(Services, "bands", MILLION)
    assert "For the words it counts" not in client.get("/help/similarity", params={"lang": "en"}).text


def test_numbers_have_the_decimal_sign_of_the_language_only(client: TestClient) -> None:
    for lang, wrong in (("es", r"\d\.\d"), ("en", r"\d,\d\b(?!\d\d)")):
        html = client.get("/help/similarity", params={"s": "0.47", "lang": lang}).text
        (main,) = elements(html, "main")
        assert re.findall(wrong, main.text) == []
        (field,) = [one for one in elements(html, "input") if one.attributes.get("name") == "s"]
        assert field.attributes["value"] == field.attributes["placeholder"] == {"es": "0,47", "en": "0.47"}[lang]


def test_a_word_that_no_similarity_has_is_not_listed() -> None:
    small = Bands(threshold=0.6, likely=0.6, very_likely=0.6, mean=0.02, deviation=0.1, source="default", faces=20)
    assert [row.sureness for row in similarity_help(small, translator("en"), None, ()).bands] == ["very_likely"]


def test_the_form_answers_and_keeps_the_number(client: TestClient) -> None:
    for sent in ("0.47", "0,47", ".47", "0.479999"):
        html = client.get("/help/similarity", params={"s": sent, "lang": "en"}).text
        (verdict,) = elements(html, of_class="verdict")
        assert verdict.words.startswith("0.47")
        (field,) = [one for one in elements(html, "input") if one.attributes.get("name") == "s"]
        assert field.attributes["value"] == "0.47"


def test_two_faces_are_shown_side_by_side_with_their_own_similarity(client: TestClient) -> None:
    one, other = point(1).face_id, point(2).face_id
    similarity = float(point(1).embedding @ point(2).embedding)
    html = client.get("/help/similarity", params={"a": one, "b": other, "s": "-0.99", "lang": "en"}).text
    (pair,) = elements(html, of_class="pair")
    assert pair
    assert [f"/thumbs/{face}" in html for face in (one, other)] == [True, True]
    (verdict,) = elements(html, of_class="verdict")
    assert abs(float(verdict.words.split()[0]) - similarity) <= 0.01


def test_a_face_that_is_not_there_is_told(client: TestClient) -> None:
    sent = {"a": point(1).face_id, "b": point(77).face_id}
    response = client.get("/help/similarity", params=sent)
    assert response.status_code == 404
    assert elements(response.text, "section", "data-code")[0].attributes["data-code"] == "face_unknown"


@pytest.mark.parametrize("sent", ["half", "1.01", "-2", "0.4.7", "1e-1", "nan", "--1", ".", "-", "٠.٤", "<b>"])
def test_what_is_no_similarity_is_refused(client: TestClient, sent: str) -> None:
    response = client.get("/help/similarity", params={"s": sent})
    assert response.status_code == 400
    assert elements(response.text, "section", "data-code")[0].attributes["data-code"] == "invalid_request"
    assert "<b>" not in response.text
    with pytest.raises(OceanoError):
        similarity_of(sent)


def test_a_similarity_is_read_with_point_or_comma() -> None:
    assert [similarity_of(text) for text in ("", "0", "1", "-1", "0,47", ".5", "1.000")] == [
        None, 0.0, 1.0, -1.0, 0.47, 0.5, 1.0
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "told"),
    [("index", "a sample of its faces"), ("model", "with this model, taken"), ("default", "cautious")],
)
def test_the_page_tells_where_its_numbers_come_from(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, source: Source, told: str
) -> None:
    monkeypatch.setattr(Services, "bands", replace(MILLION, source=source))
    html = client.get("/help/similarity", params={"lang": "en"}).text
    assert told in html
    assert "a mean of 0.02" in html or "mean similarity of 0.02" in html
    assert "1,000,000 faces in this index" in html
