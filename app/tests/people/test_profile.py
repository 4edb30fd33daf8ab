"""What is said about a person besides their faces: birth dates."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import pytest

from app.core.errors import OceanoError
from app.people import profile
from app.people.profile import checked_birth_date

_NOW: Final = datetime(2026, 11, 28, 11, 0, tzinfo=UTC)  # the 29th on Kiritimati


class _Clock(datetime):
    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        return _NOW.astimezone(tz)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "datetime", _Clock)


@pytest.mark.parametrize("given", ["2026-11-29", "2026-11-28", "2026-11", "2026", " 1970-05-17 ", "1452-04", "0001"])
def test_a_birth_date_may_be_today_wherever_that_is(given: str) -> None:
    assert checked_birth_date(given) == given.strip()


@pytest.mark.parametrize("given", ["2026-11-30", "2026-12", "2027", "2199-05-17", "9999"])
def test_a_birth_date_in_the_future_is_refused(given: str) -> None:
    with pytest.raises(OceanoError, match=f"the birth date {given} is in the future") as caught:
        checked_birth_date(given)
    assert caught.value.code == "invalid_request"
    assert caught.value.details == {"field": "birth_date", "value": given, "cause": "birth_date_future"}
