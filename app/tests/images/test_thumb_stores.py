"""What every store of thumbnails does, in a folder and on an S3 server."""

from __future__ import annotations

import random
import threading
import uuid
from pathlib import Path

import pytest

from app.core.errors import OceanoError
from app.images import S3Location, S3ThumbStore, Thumbs, ThumbStore, copy_thumbs

FACE_ID = "0f9e6f8a-0a9f-5f0c-9d0e-7a0f3a3b1c2d"


def face_ids(count: int, seed: int = 1) -> list[str]:
    chance = random.Random(seed)
    return [str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(count)]


def filled(thumbs: Thumbs, count: int) -> list[str]:
    """Store thumbnails, each with the id of its face; the ids in no order."""
    ids = face_ids(count)
    for face_id in ids:
        thumbs.write_soon(face_id, face_id.encode())
    thumbs.flush()
    return ids


def test_a_thumbnail_is_read_as_it_was_written_until_it_is_replaced_or_deleted(thumbs: Thumbs) -> None:
    assert thumbs.read(FACE_ID) is None
    for jpeg in (b"jpeg", b"newer"):
        thumbs.write(FACE_ID, jpeg)
        assert thumbs.read(FACE_ID) == jpeg
    thumbs.delete([FACE_ID])
    assert thumbs.read(FACE_ID) is None


def test_every_spelling_of_a_face_id_is_the_same_thumbnail(thumbs: Thumbs) -> None:
    thumbs.write(FACE_ID.upper(), b"jpeg")
    assert thumbs.read(FACE_ID.replace("-", "")) == b"jpeg"
    assert list(thumbs.face_ids()) == [FACE_ID]


@pytest.mark.parametrize("face_id", ["", "..", "../../etc/passwd", FACE_ID[:-1], f"{FACE_ID}/..", "\0", "é" * 32])
def test_what_is_no_face_id_is_face_unknown(thumbs: Thumbs, face_id: str) -> None:
    for use in (
        lambda: thumbs.read(face_id),
        lambda: thumbs.write(face_id, b"x"),
        lambda: thumbs.write_soon(face_id, b"x"),
        lambda: thumbs.missing([face_id]),
        lambda: thumbs.delete([face_id]),
    ):
        with pytest.raises(OceanoError) as caught:
            use()
        assert caught.value.code == "face_unknown"
    assert list(thumbs.face_ids()) == []


def test_an_empty_thumbnail_is_missing(thumbs: Thumbs) -> None:
    thumbs.write(FACE_ID, b"")
    assert thumbs.read(FACE_ID) is None
    assert thumbs.missing([FACE_ID]) == {FACE_ID}
    others = filled(thumbs, 8)
    assert thumbs.missing([*others, FACE_ID]) == {FACE_ID}, "in a listing, too"


@pytest.mark.parametrize("order", [sorted, list], ids=["sorted", "in no order"])
def test_the_faces_without_a_thumbnail_are_found_in_any_order(thumbs: Thumbs, order: type[list[str]]) -> None:
    ids = filled(thumbs, 60)
    lost = set(ids[10:20])
    thumbs.delete(lost)
    assert thumbs.missing(order(ids)) == lost
    assert thumbs.missing(order(ids)[:3]) == lost & set(order(ids)[:3])
    assert thumbs.missing([]) == set()


def test_thumbnails_are_read_together_in_the_order_of_the_faces(thumbs: Thumbs) -> None:
    ids = filled(thumbs, 30)
    thumbs.delete(ids[5:6])
    expected: list[bytes | None] = [face_id.encode() for face_id in ids]
    expected[5] = None
    assert thumbs.read_many(ids) == expected
    assert thumbs.read_many([]) == []


def test_all_thumbnails_are_listed_in_the_order_of_their_faces(thumbs: Thumbs) -> None:
    assert sorted(filled(thumbs, 40)) == list(thumbs.face_ids())


def test_thousands_are_deleted_whether_they_exist_or_not(thumbs: Thumbs) -> None:
    ids = filled(thumbs, 20)
    thumbs.delete(iter([*ids[:5], *face_ids(2000, seed=2), *ids[5:19]]))
    assert list(thumbs.face_ids()) == ids[19:]
    thumbs.delete([])


def test_threads_that_write_soon_have_all_written_after_a_flush(thumbs: Thumbs) -> None:
    ids = face_ids(120)
    problems: list[BaseException] = []

    def write(some: list[str]) -> None:
        try:
            for face_id in some:
                thumbs.write_soon(face_id, face_id.encode())
            thumbs.flush()
            assert thumbs.missing(some) == set()
        except BaseException as failure:  # noqa: BLE001
            problems.append(failure)

    threads = [threading.Thread(target=write, args=(ids[at::4],)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert thumbs.read_many(ids) == [face_id.encode() for face_id in ids]


def test_a_copy_adds_what_the_other_store_lacks(thumbs: Thumbs, s3_location: S3Location, tmp_path: Path) -> None:
    ids = filled(thumbs, 30)
    copies = (
        ThumbStore(tmp_path / "copy"),
        S3ThumbStore(S3Location(s3_location.bucket, "copy", s3_location.endpoint, "key", "secret"), tmp_path),
    )
    for copy in copies:
        copy.write(ids[0], b"was there")
        assert copy_thumbs(thumbs, copy) == 30
        assert copy.read_many(ids) == [b"was there", *(face_id.encode() for face_id in ids[1:])]


def test_a_copy_that_is_stopped_ends_early(thumbs: Thumbs, s3_location: S3Location, tmp_path: Path) -> None:
    filled(thumbs, 3)
    target = S3ThumbStore(S3Location(s3_location.bucket, "copy", s3_location.endpoint, "key", "secret"), tmp_path)
    assert copy_thumbs(thumbs, target, lambda: True) == 0
    assert list(target.face_ids()) == []
