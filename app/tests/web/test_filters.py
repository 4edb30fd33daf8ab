"""Filters of a result: read from fields, written as a query string, turned into a query."""

from __future__ import annotations

from urllib.parse import parse_qs, parse_qsl

import pytest

from app.core.errors import OceanoError
from app.core.texts import translator
from app.core.types import FLAWS, FaceFilter
from app.web.pages.filter_words import filter_words
from app.web.pages.filters import WITHOUT_CONDITIONS, Filters, read_filters
from app.web.pages.result_views import Place
from tests.support.fakes import embedding_of

ONE, OTHER = "0" * 8 + "-1111-5111-8111-" + "1" * 12, "0" * 8 + "-2222-5222-8222-" + "2" * 12
EVERYTHING = Filters(
    folders=("/photos/a b", "/photos/ñ&="),
    taken_from="2019-05",
    taken_to="2021",
    undated=True,
    min_face=40,
    clear=True,
    least=0.55,
    sureness=("very_likely", "look_closely"),
    sort="newest",
    group="alike",
    examples=(ONE,),
    together=(OTHER,),
    unlike=(ONE, OTHER),
    photo="ab" * 32,
    named=OTHER,
    unnamed=True,
    after="abc-_1",
    bands="0.41,0.525",
    size="l",
)


def test_a_query_string_is_read_back_as_it_was_written() -> None:
    assert read_filters(parse_qs(EVERYTHING.query_string(after="abc-_1", bands="0.41,0.525"))) == EVERYTHING
    assert Filters().query_string() == ""
    assert read_filters({}) == Filters()


def test_another_filter_begins_at_the_first_match() -> None:
    assert not {"after", "bands"} & parse_qs(EVERYTHING.query_string(clear=False)).keys()
    assert dict(parse_qsl(EVERYTHING.query_string(after="next")))["after"] == "next"


@pytest.mark.parametrize("name", sorted(WITHOUT_CONDITIONS))
def test_each_condition_counts_as_one_and_has_words_for_a_contact_sheet(name: str) -> None:
    filters = Filters(**{name: getattr(EVERYTHING, name)})
    place = Place("", filters)
    assert (place.has_conditions, place.to_all()) == (True, "")
    words = filter_words(filters, translator("en"), together=len(filters.together), names={OTHER: "Ana"})
    assert words
    assert (words == ["Ana"]) == (name == "named")


def test_order_examples_and_the_lowest_similarity_are_no_conditions() -> None:
    place = Place("", Filters(least=0.5, sort="newest", group="day", examples=(ONE,), size="l"))
    assert (place.has_conditions, place.to_all()) == (False, place.to())
    assert Place("", Filters(), 1, (2,)).has_conditions


def test_a_filter_is_removed_by_its_default() -> None:
    without = read_filters(parse_qs(EVERYTHING.query_string(folders=[], unlike=(ONE,), least=None, clear=False)))
    assert (without.folders, without.unlike, without.least, without.clear) == ((), (ONE,), None, False)
    assert without.taken_from == "2019-05"


def test_fields_of_a_form_that_are_blank_or_of_others_are_skipped() -> None:
    assert read_filters({"folder": ["", " "], "from": "", "lang": "es", "query": "x", "sort": ""}) == Filters()


def test_of_a_field_with_one_value_the_last_counts() -> None:
    assert read_filters({"least": ["0.40", "0.62"]}).least == 0.62


def test_the_query_has_what_the_filters_ask_for() -> None:
    person, other, stranger = embedding_of(1), embedding_of(2), embedding_of(3)
    query = EVERYTHING.query(person, threshold=0.4, together=[other], unlike=[stranger])
    assert query.where == FaceFilter(
        person=OTHER,
        unnamed=True,
        folder=("/photos/a b", "/photos/ñ&="),
        image_id="ab" * 32,
        taken_from="2019-05",
        taken_to="2021",
        undated=True,
        without=FLAWS,
    )
    assert (query.threshold, query.sort, query.group_by, query.min_face) == (0.55, "newest", "alike", 40)
    assert query.embedding is person
    assert (len(query.together), len(query.unlike)) == (1, 1)


def test_without_filters_the_query_has_the_models_threshold_and_asks_the_whole_index() -> None:
    query = Filters().query(embedding_of(1), threshold=0.37)
    assert (query.threshold, query.where, query.group_by) == (0.37, None, None)


def test_one_folder_is_a_plain_condition() -> None:
    where = read_filters({"folder": "/photos/2019/"}).where()
    assert where == FaceFilter(folder="/photos/2019")


@pytest.mark.parametrize("group", ["image", "person", "day", "alike"])
def test_every_group_of_the_page_is_one_of_the_service(group: str) -> None:
    query = read_filters({"group": group}).query(embedding_of(1), threshold=0.4)
    assert query.group_by == {"image": "image_id"}.get(group, group)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("folder", "photos"),
        ("folder", "/" + "a" * 5000),
        ("from", "20"),
        ("from", "2021-13"),
        ("to", "2021-02-30"),
        ("min_face", "0"),
        ("min_face", "-3"),
        ("min_face", "9" * 30),
        ("min_face", "²"),
        ("least", "0.1"),
        ("least", "nan"),
        ("least", "much"),
        ("sort", "size"),
        ("sureness", "sure"),
        ("bands", "0.4"),
        ("group", "folder"),
        ("size", "xl"),
        ("example", "x"),
        ("with", "../../etc"),
        ("not", "1"),
    ],
)
def test_a_wrong_value_is_refused_with_its_field(field: str, value: str) -> None:
    with pytest.raises(OceanoError) as caught:
        read_filters({field: value})
    assert (caught.value.code, caught.value.details["field"]) == ("invalid_request", field)


def test_dates_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(OceanoError):
        read_filters({"from": "2021-06", "to": "2021-05-30"})
    assert read_filters({"from": "2021-06-30", "to": "2021"}).taken_to == "2021"


def test_too_many_values_are_refused() -> None:
    for field, values in (
        ("folder", [f"/{number}" for number in range(21)]),
        ("example", [f"{number:032x}" for number in range(10)]),
    ):
        with pytest.raises(OceanoError) as caught:
            read_filters({field: values})
        assert caught.value.details["field"] == field


def test_a_position_that_is_far_too_long_is_refused() -> None:
    with pytest.raises(OceanoError) as caught:
        read_filters({"after": "a" * 20_000})
    assert caught.value.code == "cursor_invalid"
