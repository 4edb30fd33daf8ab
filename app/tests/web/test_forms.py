from __future__ import annotations

import pytest

from app.core.errors import OceanoError
from app.core.types import FaceFilter
from app.web.api.forms import DETECT_FORM, SEARCH_FORM, CompareOptions, DetectOptions, SearchOptions, read_options

PERSON = "5a1c6f36-27a0-4d4e-8d7e-0d2f6e1f4a11"


def _wrong(**fields: str) -> dict[str, str]:
    with pytest.raises(OceanoError) as caught:
        read_options(SearchOptions, fields)
    assert caught.value.code == "invalid_request"
    return caught.value.details["fields"]  # type: ignore[return-value]


def test_the_defaults_of_the_design_hold() -> None:
    options = read_options(SearchOptions, {})
    assert (options.limit, options.threshold, options.max_faces, options.group_by) == (20, None, None, None)
    assert options.where() is None
    assert read_options(CompareOptions, {}).threshold is None  # the model's


def test_every_filter_becomes_a_condition() -> None:
    given = {
        "person": PERSON, "named": "true", "unnamed": "true", "folder": "/photos/2024", "image_id": "a" * 64,
        "taken_from": "2024-01-01",
        "taken_to": "2024-12-31T23:59:59", "ingested_from": "2025-01-01T00:00:00Z",
        "ingested_to": "2025-06-01 12:00:00+02:00", "min_det_score": "0.6", "min_quality": "0.5",
        "without": "blurred, extreme_pose",
    }  # fmt: skip
    where = read_options(SearchOptions, given | {"limit": "5"}).where()
    meant = {
        "named": True, "unnamed": True, "min_det_score": 0.6, "min_quality": 0.5,
        "without": ("blurred", "extreme_pose"),
    }  # fmt: skip
    assert where == FaceFilter(**(given | meant))  # type: ignore[arg-type]
    not_asked_for = {"undated", "not_person"}
    assert set(given) == set(FaceFilter.__dataclass_fields__) - not_asked_for, "every condition can be asked for"


def test_a_flaw_that_does_not_exist_is_refused() -> None:
    assert list(_wrong(without="blurred,ugly")) == ["without.1"]


@pytest.mark.parametrize(("given", "meant"), [("/a/b", "/a/b"), ("/a/b/", "/a/b"), ("/a//b/.", "/a/b"), ("/", "/")])
def test_a_folder_is_meant_as_it_is_stored(given: str, meant: str) -> None:
    where = read_options(SearchOptions, {"folder": given}).where()
    assert where == FaceFilter(folder=meant)


@pytest.mark.parametrize(
    "text",
    [
        "2024-02-29",
        "2024-02-29T10:11",
        "2024-02-29 10:11:12",
        "2024-02-29T10:11:12.123456Z",
        "2024-02-29T10:11:12-05:30",
    ],
)
def test_a_time_is_taken_in_iso_8601(text: str) -> None:
    assert read_options(SearchOptions, {"taken_from": text}).taken_from == text


@pytest.mark.parametrize(
    "text",
    [
        "2023-02-29",
        "24-01-01",
        "2024-1-1",
        "20240101",
        "2024-W01-1",
        "2024-01-01T24:61",
        "٢٠٢٤-٠١-٠١",
        "2024-01-01\n",
        "now",
        "2024-01-01T10:11:12+99:00",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    assert set(_wrong(taken_from=text)) == {"taken_from"}


def test_numbers_at_their_bounds_are_taken() -> None:
    options = read_options(SearchOptions, {"limit": "1000", "threshold": "-1", "max_faces": "1", "min_quality": "0"})
    assert (options.limit, options.threshold, options.max_faces, options.min_quality) == (1000, -1.0, 1, 0.0)
    assert read_options(SearchOptions, {"limit": "1", "threshold": "1", "min_det_score": "1"}).threshold == 1.0
    assert set(_wrong(limit="1001", threshold="1.1", max_faces="0")) == {"limit", "threshold", "max_faces"}


def test_blank_fields_and_the_language_are_left_out() -> None:
    assert read_options(DetectOptions, {"lang": "es", "limit": " ", "person": ""}) == DetectOptions()
    assert set(_wrong(language="es")) == {"language"}


def test_the_body_for_openapi_names_every_file_and_field() -> None:
    schema = SEARCH_FORM["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert schema["properties"]["image"]["items"] == {"type": "string", "format": "binary"}
    assert set(schema["properties"]) == {"image", *SearchOptions.model_fields}
    for name in SearchOptions.model_fields:
        assert schema["properties"][name]["description"], name
    schema = DETECT_FORM.openapi["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert schema == {
        "type": "object", "required": ["image"], "properties": {"image": {"type": "string", "format": "binary"}},
    }  # fmt: skip
