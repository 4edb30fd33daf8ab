from __future__ import annotations

import json
import pickle
from typing import get_args

import pytest

from app.core.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED, STATUS, ErrorCode, OceanoError
from app.core.texts import LANGUAGES
from app.web.i18n import error_message


def test_an_error_knows_its_status_and_says_its_code() -> None:
    error = OceanoError("face_not_found", "no face was found", details={"width": 3})
    assert (error.code, error.message, error.status) == ("face_not_found", "no face was found", 422)
    assert str(error) == "face_not_found: no face was found"
    assert error.details == {"width": 3}
    assert error.retry_after is None


def test_a_code_that_nobody_knows_cannot_be_raised() -> None:
    with pytest.raises(KeyError):
        OceanoError("no_such_code", "?")


def test_details_are_a_copy() -> None:
    details = {"a": 1}
    error = OceanoError("internal", "?", details=details)
    details["a"] = 2
    assert error.details == {"a": 1}


def test_an_error_crosses_a_process_border_whole() -> None:
    error = OceanoError("index_unavailable", "gone", details={"tries": [1, 2]}, retry_after=2.5)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is OceanoError
    assert (again.code, again.message, again.status, again.details, again.retry_after) == (
        "index_unavailable", "gone", 503, {"tries": [1, 2]}, 2.5,
    )  # fmt: skip
    assert again.args == error.args


def test_every_code_has_a_status_and_every_status_a_code() -> None:
    assert list(get_args(ErrorCode)) == list(STATUS)


def test_every_status_is_one_of_an_error() -> None:
    assert len(STATUS) > 20
    assert all(400 <= status < 600 for status in STATUS.values())


def test_the_statuses_of_the_design_hold() -> None:
    expected = {
        "invalid_image": 400, "unauthorized": 401, "forbidden": 403, "not_found": 404, "index_model_mismatch": 409,
        "image_too_large": 413, "unsupported_image": 415, "face_not_found": 422, "too_many_requests": 429,
        "index_unavailable": 503, "timeout": 504,
    }  # fmt: skip
    assert {code: STATUS[code] for code in expected} == expected


def test_the_table_of_statuses_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        STATUS["internal"] = 200  # type: ignore[index]


def test_exit_codes_tell_wrong_use_from_a_part_that_is_not_to_be_had() -> None:
    assert (EXIT_OK, EXIT_SOME_FAILED, EXIT_INTERRUPTED) == (0, 1, 130)
    assert {code: OceanoError(code, "?").exit_code for code in ("invalid_setting", "invalid_request", "not_found")} == {
        "invalid_setting": 2, "invalid_request": 2, "not_found": 2,
    }  # fmt: skip
    for code in ("invalid_image", "unsupported_image", "image_too_large", "face_not_found", "face_unknown"):
        assert OceanoError(code, "?").exit_code == 2
    assert OceanoError("folder_unknown", "?").exit_code == 2
    for code in ("model_not_found", "index_unavailable", "index_model_mismatch", "disk_full", "device_unavailable"):
        assert OceanoError(code, "?").exit_code == 3


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_code_can_be_told_in_every_language(lang: str) -> None:
    assert STATUS
    for code in STATUS:
        assert error_message(OceanoError(code, "a message"), lang).strip(), code


def test_details_are_json() -> None:
    error = OceanoError("invalid_request", "?", details={"a": [1, None, {"b": 0.5}], "c": True})
    assert json.loads(json.dumps(error.details)) == error.details
