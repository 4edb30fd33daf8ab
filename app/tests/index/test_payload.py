"""Payloads as an index stores them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from app.index.payload import from_stored, payload_of, to_stored
from tests.support.pictures import point


@pytest.mark.parametrize("page", [0, 7])
def test_a_payload_is_the_same_after_storing(page: int) -> None:
    payload = dataclasses.replace(point(1).payload, page=page)
    assert from_stored(to_stored(payload)) == payload


def test_a_first_page_is_not_stored() -> None:
    assert "page" not in to_stored(point(1).payload)


@pytest.mark.parametrize("phash", [None, "0" * 16, "0123456789abcdef"])
def test_a_perceptual_hash_is_the_same_after_storing(phash: str | None) -> None:
    payload = dataclasses.replace(point(1).payload, phash=phash)
    stored = to_stored(payload)
    assert ("phash" in stored) == (phash is not None)
    assert from_stored(stored) == payload


def test_a_face_that_was_stored_before_there_were_hashes_has_none() -> None:
    assert from_stored(to_stored(point(1).payload) | {"phash": None}).phash is None


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "0" * 15,
        "0" * 17,
        "g" * 16,
        5,
        ["0"] * 16,
        {"a": 1},
        " 123456789abcde ",
        "0x123456789abcde",
        "1_2" * 5 + "1",
        "-" + "1" * 15,
    ],
)
def test_a_damaged_perceptual_hash_is_a_damaged_payload(damaged: Any) -> None:
    assert payload_of(to_stored(point(1).payload) | {"phash": damaged}) is None
