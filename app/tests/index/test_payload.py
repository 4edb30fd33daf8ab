"""Payloads as an index stores them."""

from __future__ import annotations

import dataclasses

import pytest

from app.index.payload import from_stored, to_stored
from tests.support.pictures import point


@pytest.mark.parametrize("page", [0, 7])
def test_a_payload_is_the_same_after_storing(page: int) -> None:
    payload = dataclasses.replace(point(1).payload, page=page)
    assert from_stored(to_stored(payload)) == payload


def test_a_first_page_is_not_stored() -> None:
    assert "page" not in to_stored(point(1).payload)
