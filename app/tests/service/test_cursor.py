from __future__ import annotations

import base64
import random
from dataclasses import replace

import numpy as np
import pytest

from app.core.errors import OceanoError
from app.core.types import FaceFilter
from app.service.cursor import MAX_CURSOR_CHARS, Cursor, decode_cursor, encode_cursor
from tests.support.fakes import FAKE_PACK, embedding_of

IDS = tuple(f"{n:08x}-0a9f-5f0c-9d0e-7a0f3a3b1c2d" for n in range(3))
FIRST = Cursor(embedding_of(1), 0.4, None, None, 3, None, IDS)
LATER = Cursor(
    embedding_of(2),
    -1.0,
    FaceFilter(folder=("/photos", "/añade"), person="Ana", without=("blurred",), min_quality=0.5, taken_to="2021"),
    "image_id",
    120,
    (0.512345, IDS[0]),
    (),
    (0.4, 1311),
)
SIZE = FAKE_PACK.embedding_size


def _read(text: str, digest: str = FAKE_PACK.digest, size: int = SIZE) -> Cursor:
    return decode_cursor(text, digest, size)


@pytest.mark.parametrize("cursor", [FIRST, LATER], ids=["first", "later"])
def test_a_cursor_keeps_the_query_exactly(cursor: Cursor) -> None:
    text = encode_cursor(cursor, FAKE_PACK.digest)
    assert text.replace("-", "").replace("_", "").isalnum()
    read = _read(text)
    assert np.array_equal(read.embedding, cursor.embedding)
    assert replace(read, embedding=cursor.embedding) == cursor


def test_a_cursor_of_another_model_is_refused() -> None:
    text = encode_cursor(FIRST, FAKE_PACK.digest)
    for digest, size in (("0" * 64, SIZE), (FAKE_PACK.digest, SIZE // 2), (FAKE_PACK.digest, 2 * SIZE)):
        with pytest.raises(OceanoError, match="cursor_invalid"):
            _read(text, digest, size)


def test_damaged_and_foreign_texts_are_refused() -> None:
    text = encode_cursor(LATER, FAKE_PACK.digest)
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
                _read(one)


@pytest.mark.parametrize(
    "wrong",
    [
        {"embedding": np.zeros(SIZE, np.float32)},
        {"embedding": np.full(SIZE, np.nan, np.float32)},
        {"threshold": float("nan")},
        {"threshold": "much"},
        {"shown": -1},
        {"shown": 10**10},
        {"group_by": "path"},
        {"where": FaceFilter(person=5)},  # type: ignore[arg-type]
        {"position": (0.5, "no id")},
    ],
    ids=str,
)
def test_a_forged_cursor_is_refused_even_with_a_correct_checksum(wrong: dict[str, object]) -> None:
    forged = encode_cursor(replace(FIRST, **wrong), FAKE_PACK.digest)  # type: ignore[arg-type]
    with pytest.raises(OceanoError, match="cursor_invalid"):
        _read(forged)
