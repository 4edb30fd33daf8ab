from __future__ import annotations

import base64
import random
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from app.core.errors import OceanoError
from app.core.types import FaceFilter
from app.service.cursor import (
    MAX_CURSOR_CHARS,
    Cursor,
    Position,
    decode_cursor,
    decode_position,
    decode_query,
    encode_cursor,
    encode_position,
    encode_query,
)
from app.service.query import Query
from tests.support.fakes import FAKE_PACK, embedding_of

IDS = tuple(f"{n:08x}-0a9f-5f0c-9d0e-7a0f3a3b1c2d" for n in range(3))
DIGEST = FAKE_PACK.digest
SIZE = FAKE_PACK.embedding_size
PLAIN = Query(embedding_of(1), 0.4)
RICH = Query(
    embedding_of(2),
    -1.0,
    FaceFilter(folder=("/photos", "/añade"), person="Ana", without=("blurred",), min_quality=0.5, taken_to="2021"),
    "newest",
    "alike",
    60,
    (embedding_of(3),),
    (embedding_of(4), embedding_of(5)),
    ((0.5, 0.6), (-2.0, 0.4)),
)
FIRST = Position(3, None, IDS)
LATER = Position(120, (0.512345, IDS[0]), (), 1311)


def _values(query: Query) -> list[Any]:
    """The fields of a query, comparable."""
    values = (getattr(query, field.name) for field in fields(query))
    return [
        value.tobytes()
        if isinstance(value, np.ndarray)
        else [one.tobytes() if isinstance(one, np.ndarray) else one for one in value]
        if isinstance(value, tuple)
        else value
        for value in values
    ]


@pytest.mark.parametrize("query", [PLAIN, RICH], ids=["plain", "rich"])
def test_a_query_is_kept_exactly(query: Query) -> None:
    text = encode_query(query, DIGEST)
    assert text.replace("-", "").replace("_", "").isalnum()
    assert _values(decode_query(text, DIGEST, SIZE)) == _values(query)


@pytest.mark.parametrize("position", [FIRST, LATER], ids=["first", "later"])
@pytest.mark.parametrize("query", [PLAIN, RICH], ids=["plain", "rich"])
def test_a_cursor_keeps_query_and_position(query: Query, position: Position) -> None:
    read = decode_cursor(encode_cursor(Cursor(query, position), DIGEST), DIGEST, SIZE)
    assert (_values(read.query), read.position) == (_values(query), position)


def test_a_position_is_short_and_belongs_to_one_query() -> None:
    text = encode_position(LATER, RICH, DIGEST)
    assert len(text) < 200
    assert decode_position(text, RICH, DIGEST) == LATER
    others = [
        replace(RICH, embedding=embedding_of(9)),
        replace(RICH, threshold=0.41),
        replace(RICH, where=None),
        replace(RICH, sort="oldest"),
        replace(RICH, group_by=None),
        replace(RICH, min_face=61),
        replace(RICH, unlike=()),
        replace(RICH, unlike=RICH.together, together=RICH.unlike),
    ]
    for other in others:
        with pytest.raises(OceanoError, match="cursor_invalid"):
            decode_position(text, other, DIGEST)
    with pytest.raises(OceanoError, match="cursor_invalid"):
        decode_position(text, RICH, "0" * 64)


def test_queries_positions_and_cursors_are_not_taken_for_each_other() -> None:
    query, position = encode_query(PLAIN, DIGEST), encode_position(FIRST, PLAIN, DIGEST)
    cursor = encode_cursor(Cursor(PLAIN, FIRST), DIGEST)
    reads: list[tuple[Callable[[str], object], list[str]]] = [
        (lambda text: decode_query(text, DIGEST, SIZE), [position, cursor]),
        (lambda text: decode_cursor(text, DIGEST, SIZE), [query, position]),
        (lambda text: decode_position(text, PLAIN, DIGEST), [query, cursor]),
    ]
    for read, texts in reads:
        for text in texts:
            with pytest.raises(OceanoError, match="cursor_invalid"):
                read(text)


def test_a_cursor_of_another_model_is_refused() -> None:
    text = encode_cursor(Cursor(PLAIN, FIRST), DIGEST)
    for digest, size in (("0" * 64, SIZE), (DIGEST, SIZE // 2), (DIGEST, 2 * SIZE)):
        with pytest.raises(OceanoError, match="cursor_invalid"):
            decode_cursor(text, digest, size)


def test_damaged_and_foreign_texts_are_refused() -> None:
    text = encode_cursor(Cursor(RICH, LATER), DIGEST)
    chance = random.Random(5)
    texts = ["", "x", "=", "null", "\0", "é" * 50, "A" * 4000, "A" * (MAX_CURSOR_CHARS + 1), text + "A", " " + text]
    texts += [text[:length] for length in (1, 2, 11, 12, 40, len(text) // 2, len(text) - 1)]
    for _ in range(300):
        at = chance.randrange(len(text))
        texts.append(text[:at] + chance.choice("AbZ9-_") + text[at + 1 :])
        texts.append(base64.urlsafe_b64encode(chance.randbytes(chance.randrange(3000))).decode())
    for one in texts:
        if one != text:
            with pytest.raises(OceanoError, match="cursor_invalid"):
                decode_cursor(one, DIGEST, SIZE)


@pytest.mark.parametrize(
    "wrong",
    [
        {"embedding": np.zeros(SIZE, np.float32)},
        {"embedding": np.full(SIZE, np.nan, np.float32)},
        {"threshold": float("nan")},
        {"threshold": "much"},
        {"group_by": "path"},
        {"sort": "random"},
        {"within": ((float("nan"), 0.5),)},
        {"within": ((0.5,),)},
        {"min_face": "small"},
        {"where": FaceFilter(person=5)},  # type: ignore[arg-type]
        {"unlike": (np.zeros(SIZE, np.float32),)},
        {"together": (embedding_of(1),) * 11},
    ],
    ids="-".join,
)
def test_a_forged_query_is_refused_even_with_a_correct_checksum(wrong: dict[str, Any]) -> None:
    forged = replace(PLAIN, **wrong)
    with pytest.raises(OceanoError, match="cursor_invalid"):
        decode_query(encode_query(forged, DIGEST), DIGEST, SIZE)


@pytest.mark.parametrize(
    "wrong",
    [{"shown": -1}, {"shown": 10**10}, {"rank": (0.5, "no id")}, {"rank": (float("inf"), IDS[0])}],
    ids=str,
)
def test_a_forged_position_is_refused_even_with_a_correct_checksum(wrong: dict[str, Any]) -> None:
    forged = encode_position(replace(FIRST, **wrong), PLAIN, DIGEST)
    with pytest.raises(OceanoError, match="cursor_invalid"):
        decode_position(forged, PLAIN, DIGEST)
