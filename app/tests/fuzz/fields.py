"""Form fields and filters: a line `name=value` for each field. After a NUL: a cursor, to which a checksum is added."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from typing import Final

import numpy as np

from app.core.errors import OceanoError
from app.core.types import FaceFilter
from app.index.payload import conditions_of, uuid_of
from app.service.cursor import Cursor, Position, decode_cursor, encode_cursor
from app.service.query import Query
from app.web.api.batch import read_batch
from app.web.api.forms import CompareOptions, MoreOptions, SearchOptions, read_options
from app.web.api.people_forms import (
    AssignedFaces,
    DismissedFaces,
    EditedPerson,
    MergedPeople,
    NewPerson,
    Nothing,
    RejectedFaces,
    SplitFaces,
    Version,
)
from app.web.api.requests import read_json

_DIGEST: Final = "d" * 64
_SIZE: Final = 4
_CHECK_BYTES: Final = 8
_BODIES: Final = (
    NewPerson, EditedPerson, Version, AssignedFaces, RejectedFaces, MergedPeople, SplitFaces, DismissedFaces, Nothing,
)  # fmt: skip
_PERSON: Final = "0f9e6f8a-0a9f-5f0c-9d0e-7a0f3a3b1c2d"


def fuzz_one(data: bytes) -> None:
    """Check the fields of every form. What is accepted must be a filter that JSON can hold."""
    if data.startswith(b"\0"):
        with contextlib.suppress(OceanoError):
            _read_cursor(cursor_of(data[1:], _DIGEST))
        return
    if data.startswith(b"{"):
        _read_bodies(data)
        return
    fields: dict[str, str | list[str]] = {}
    for line in data.decode("utf-8", "replace").split("\n"):
        name, _, value = line.partition("=")
        earlier = fields.get(name)
        if earlier is None:
            fields[name] = value
        else:
            fields[name] = [*(earlier if isinstance(earlier, list) else [earlier]), value]
    for kind in (SearchOptions, CompareOptions, MoreOptions):
        try:
            options = read_options(kind, fields)
            if isinstance(options, SearchOptions):
                json.dumps(conditions_of(options.where()), allow_nan=False, ensure_ascii=False).encode("utf-8")
            if isinstance(options, MoreOptions):
                _read_cursor(options.after)
        except OceanoError as failure:
            assert failure.status < 500, failure
            json.dumps(failure.details, allow_nan=False).encode("utf-8")
    try:
        uuid_of(next(iter(fields)))
    except OceanoError as failure:
        assert failure.status < 500, failure


def _read_bodies(data: bytes) -> None:
    with contextlib.suppress(OceanoError):
        for one in read_batch(data, "application/json"):
            if isinstance(one, OceanoError):
                json.dumps(one.details, allow_nan=False).encode("utf-8")
    for body in _BODIES:
        try:
            read_json(body, data).model_dump_json().encode("utf-8")
        except OceanoError as failure:
            assert failure.status < 500, failure
            json.dumps(failure.details, allow_nan=False).encode("utf-8")


def cursor_of(body: bytes, digest: str) -> str:
    """Return a cursor with the right checksum, which anybody can compute."""
    check = hashlib.sha256(digest.encode() + b"\0" + body).digest()[:_CHECK_BYTES]
    return base64.urlsafe_b64encode(check + body).rstrip(b"=").decode()


def body_of(cursor: str) -> bytes:
    """Return a cursor without its checksum."""
    return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[_CHECK_BYTES:]


def _read_cursor(text: str) -> None:
    cursor = decode_cursor(text, _DIGEST, _SIZE)
    conditions_of(cursor.query.where)
    encode_cursor(cursor, _DIGEST)


def _seeds() -> list[bytes]:
    unit = np.array([1, 0, 0, 0], np.float32)
    where = FaceFilter(person="Ada", folder=("/a", "/b"), taken_from="2021", min_quality=0.5, without=("blurred",))
    query = Query(unit, 0.4, where, "newest", "person", 60, (unit,), (unit,))
    cursor = encode_cursor(Cursor(query, Position(20, (0.5, "0" * 32), ("1" * 32,), 7)), _DIGEST)
    times = (
        "2021",
        "2021-06",
        "2021-06-30",
        "2021-06-30T18:00:00.123456+02:00",
        "2021-06-30 18:00Z",
        "9999",
        "0001-01",
    )
    return [
        b"\0" + body_of(cursor),
        f"after={cursor}\nlimit=5".encode(),
        b"threshold=0.5\nall_pairs=true",
        b"embedding=[1, -2.5e3]\nembedding=[0.1]\nface=0:2\nface=1:0\nwith_face=0:1",
        b"sort=newest\nmin_face=40\nundated=true",
        b"face_id=0f9e6f8a-0a9f-5f0c-9d0e-7a0f3a3b1c2d\nnot_face_id=0f9e6f8a-0a9f-5f0c-9d0e-7a0f3a3b1c2d",
        b'{"queries": [{"face_id": "0f9e6f8a-0a9f-5f0c-9d0e-7a0f3a3b1c2d"}, {"embedding": [1, 0.5], "x": 1}]}',
        f"folder=/photos/caf\u00e9\nfolder=/a/../b//c\nperson={_PERSON}\nnamed=1\ngroup_by=person".encode(),
        b"image_id=" + b"a" * 64,
        f'{{"name": "Ada | B", "face_ids": ["{_PERSON}"], "replace": true, "birth_date": "1970-05"}}'.encode(),
        f'{{"version": 3, "others": [{{"id": "{_PERSON}", "version": 1}}]}}'.encode(),
        f'{{"version": 3, "face_ids": ["{_PERSON}"], "source": "confirmed", "kind": null}}'.encode(),
        b"min_det_score=0.5\nmin_quality=1e-3\nwithout=blurred, extreme_pose\nmax_faces=7",
        *(f"taken_from={text}\ntaken_to={text}\ningested_to={text}".encode() for text in times),
        b"b4bcb87b-e13f-525b-af1d-300634da898e",
    ]


SEEDS: Final = _seeds()
