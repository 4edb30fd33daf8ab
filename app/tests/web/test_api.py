from __future__ import annotations

import asyncio
import io
import json
import math
import os
import random
import re
import threading
import time
import unicodedata
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from app.catalog import FileRecord, open_ledger
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.types import EngineHealth, Face, FaceFilter, FacePoint, Floats, IndexInfo, Match, Picture, collection_name
from app.images.decoding import decode, image_id_of
from app.images.thumbnails import ThumbStore, face_thumbnail
from app.main import create_app
from app.service import monitor as monitor_module
from app.service.factory import LOOKUP_THREADS
from app.web.api.forms import SearchOptions
from tests.support.clients import TestClient
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex, embedding_of
from tests.support.jobs import FixedSnapshot, job
from tests.support.pictures import BLACK, BLUE, GREEN, KPS, RED, encoded, point
from tests.web.test_metrics import OWN as OWN_METRICS

UNKNOWN = "0f9e6f8a-0a9f-5f0c-9d0e-7a0f3a3b1c2d"
ADA, BOB = "5a1c6f36-27a0-4d4e-8d7e-0d2f6e1f4a11", "7f0b1f1e-3c55-4d0e-9b1c-6a4a0f6d2b22"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
HEX = re.compile(r"[0-9a-f]{64}")


class Index(MemoryIndex):
    """A MemoryIndex that can fail, hang, and remembers how it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.failure: OceanoError | None = None
        self.hang: threading.Event | None = None
        self.asked: list[dict[str, Any]] = []

    def _come(self) -> None:
        if self.hang is not None:
            self.hang.wait(20)
        if self.failure is not None:
            raise self.failure

    def search_batch(self, embeddings: Sequence[Floats], **how: Any) -> list[list[Match]]:
        self._come()
        self.asked.append(how)
        return super().search_batch(embeddings, **how)

    def retrieve(self, face_ids: Sequence[str], *, with_embedding: bool = False) -> list[Any]:
        self._come()
        assert all(UUID.fullmatch(face_id) for face_id in face_ids), "an index takes ids in their one spelling"
        return super().retrieve(face_ids, with_embedding=with_embedding)

    def info(self) -> IndexInfo:
        self._come()
        return super().info()


@pytest.fixture
def index() -> Index:
    return Index()


@pytest.fixture
def client(settings: Settings, engine: FakeEngine, index: Index) -> Iterator[TestClient]:
    with TestClient(create_app(settings, engine=engine, index=index), raise_server_exceptions=False) as client:
        yield client


def _post(client: TestClient, path: str = "/search", colour: tuple[int, int, int] = RED, **fields: Any) -> Any:
    return client.post(path, files={"image": encoded(colour)}, data=fields)


def _shape(value: Any) -> Any:
    """The keys and types of a JSON value; of a list, those of its elements."""
    if isinstance(value, dict):
        return {key: _shape(one) for key, one in value.items()}
    if isinstance(value, list):
        shapes = [_shape(one) for one in value]
        return [shapes[0]] if shapes and all(one == shapes[0] for one in shapes) else shapes
    return type(value).__name__


FACE_SHAPE = {
    "face_index": "int", "bbox": ["float"], "kps": [["float"]], "det_score": "float", "quality": "float",
    "flaws": [], "found_by": "str",
}  # fmt: skip
HEAD_SHAPE = {"request_id": "str", "model": {"name": "str", "digest": "str"}}


# POST /search


def test_search_answers_in_the_shape_of_the_design(client: TestClient, index: Index) -> None:
    index.upsert([point(1), point(2), point(3, GREEN)])
    answer = _post(client)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert _shape(body) == HEAD_SHAPE | {
        "threshold": "float",
        "image": {"width": "int", "height": "int"},
        "faces": [
            FACE_SHAPE
            | {
                "matches": [
                    {
                        "face_id": "str", "image_id": "str", "similarity": "float", "sureness": "str",
                        "person": "NoneType", "path": "str", "page": "int", "width": "int", "height": "int",
                        "taken_at": "NoneType", "bbox": ["float"], "quality": "float", "flaws": [],
                        "group_size": "int", "together": [], "thumb_url": "str", "image_url": "str",
                    }
                ],
                "more": "bool", "next": "NoneType", "identified": "NoneType",
            }
        ],
        "combined": "NoneType",
        "undated_left_out": "NoneType",
        "took_ms": {"decode": "float", "detect": "float", "embed": "float", "search": "float", "total": "float"},
    }  # fmt: skip
    assert list(body) == [
        "request_id", "model", "threshold", "image", "faces", "combined", "undated_left_out", "took_ms",
    ]  # fmt: skip
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["model"] == {"name": "fake", "digest": "ffffffff"}
    assert body["threshold"] == 0.4
    assert body["image"] == {"width": 64, "height": 48}
    (face,) = body["faces"]
    assert face["bbox"] == [16.0, 12.0, 48.0, 36.0]
    assert len(face["kps"]) == 5
    assert (face["face_index"], face["det_score"], face["quality"], face["found_by"]) == (0, 0.9, 0.8, "direct")
    assert len(face["matches"]) == 2
    for match in face["matches"]:
        assert UUID.fullmatch(match["face_id"])
        assert HEX.fullmatch(match["image_id"])
        assert match["thumb_url"] == f"/thumbs/{match['face_id']}"
        assert match["path"].startswith("/photos/")
        assert len(match["bbox"]) == 4


def test_the_order_of_the_stages_is_that_of_the_work_and_they_add_up(client: TestClient) -> None:
    took = _post(client).json()["took_ms"]
    assert list(took) == ["decode", "detect", "embed", "search", "total"]
    assert all(value >= 0 for value in took.values())
    # the fake says 1 ms for detect and embed each, and takes less
    assert took["total"] >= took["decode"] + took["search"] - 0.02


def test_similarity_is_the_raw_cosine(client: TestClient, index: Index) -> None:
    query = point(0).embedding
    stored = []
    for number in range(20):
        mixed = query + (number - 10) / 5 * embedding_of(number)
        stored.append(replace(point(number), embedding=np.asarray(mixed / np.linalg.norm(mixed), np.float32)))
    index.upsert(stored)
    expected = {one.face_id: float(query.astype(np.float64) @ one.embedding.astype(np.float64)) for one in stored}
    matches = _post(client, threshold="-1", limit="50").json()["faces"][0]["matches"]
    assert len(matches) == 20
    for match in matches:
        assert match["similarity"] == pytest.approx(expected[match["face_id"]], abs=2e-6)
    similarities = [match["similarity"] for match in matches]
    assert similarities == sorted(similarities, reverse=True)


def test_the_threshold_is_the_models_where_none_is_asked_for(
    client: TestClient, engine: FakeEngine, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "pack", replace(FAKE_PACK, threshold=0.55), raising=False)
    assert _post(client).json()["threshold"] == 0.55
    assert index.asked[-1]["threshold"] == pytest.approx(0.55, abs=2e-6)
    assert _compare(client, RED, RED).json()["threshold"] == 0.55
    assert client.get("/status").json()["threshold"] == 0.55


def test_the_threshold_decides_what_is_a_match(client: TestClient, index: Index) -> None:
    index.upsert([point(1), point(2, GREEN)])
    similarity = _post(client, threshold="-1").json()["faces"][0]["matches"][1]["similarity"]
    assert -0.5 < similarity < 0.5
    for threshold, count in ((similarity - 0.01, 2), (similarity + 0.01, 1), (0.99, 1)):
        body = _post(client, threshold=str(threshold)).json()
        assert body["threshold"] == pytest.approx(threshold)
        assert len(body["faces"][0]["matches"]) == count


def test_nothing_above_the_threshold_is_200_and_an_empty_list(client: TestClient) -> None:
    answer = _post(client, colour=BLUE)
    assert answer.status_code == 200
    assert [face["matches"] for face in answer.json()["faces"]] == [[]]


def test_no_face_in_the_query_is_422_face_not_found(client: TestClient, index: Index) -> None:
    answer = _post(client, colour=BLACK)
    assert answer.status_code == 422
    assert answer.json()["error"] == {
        "code": "face_not_found",
        "message": "no face was found in the picture",
        "details": {"width": 64, "height": 48},
    }
    spanish = client.post("/search", files={"image": encoded(BLACK)}, headers={"Accept-Language": "es"})
    assert spanish.json()["error"]["message"] == "No hay ningún rostro en esta imagen, o no se puede reconocer."
    assert index.asked == []


def test_limit_and_threshold_reach_the_index(client: TestClient, index: Index) -> None:
    _post(client)
    _post(client, limit="3", threshold="0.123")
    assert index.asked == [
        {"limit": 21, "threshold": pytest.approx(0.4, abs=2e-6), "where": None},
        {"limit": 4, "threshold": pytest.approx(0.123, abs=2e-6), "where": None},
    ]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("person", ADA.upper(), ADA),
        ("named", "true", True),
        ("unnamed", "true", True),
        ("folder", "/photos/", "/photos"),
        ("image_id", "b" * 64, "b" * 64),
        ("taken_from", "2024-01-01", "2024-01-01"),
        ("taken_to", "2024-01-01T10:00:00", "2024-01-01T10:00:00"),
        ("ingested_from", "2024-01-01T10:00:00Z", "2024-01-01T10:00:00Z"),
        ("ingested_to", "2024-01-01T10:00:00+02:00", "2024-01-01T10:00:00+02:00"),
        ("min_det_score", "0.75", 0.75),
        ("min_quality", "0.25", 0.25),
    ],
)
def test_each_filter_reaches_the_index(client: TestClient, index: Index, field: str, value: str, expected: Any) -> None:
    index.upsert([point(1)])  # in /photos
    assert _post(client, **{field: value}).status_code == 200
    assert client.post("/search", files={"image": encoded()}, params={field: value}).status_code == 200
    assert [asked["where"] for asked in index.asked] == [FaceFilter(**{field: expected})] * 2


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"limit": "many"}, "invalid_request", "limit: must be a whole number from 1 to 1000"),
        ({"threshold": "2"}, "invalid_request", "threshold: must be a number from -1 to 1"),
        ({"taken_from": "last year"}, "invalid_request", "taken_from: must be a year, month, day or time"),
        ({"taken_to": "2021-13"}, "invalid_request", "taken_to: must be a year, month, day or time"),
        ({"group_by": "folder"}, "invalid_request", "group_by: must be image_id, person, day or alike"),
        ({"image_id": "A"}, "invalid_request", "image_id: must be a SHA-256"),
        ({"folder": "photos"}, "invalid_request", "folder: must be an absolute path"),
        ({"limt": "3"}, "invalid_request", "limt: is no field of this request; its fields are: face_id, "),
        ({"folder": "/photo"}, "folder_unknown", "nearest known folders: /photos"),
        ({"folder": ["/photos", "/b"]}, "folder_unknown", "/b"),
    ],
)
def test_a_wrong_field_is_explained_in_plain_words(
    client: TestClient, index: Index, fields: dict[str, Any], code: str, words: str
) -> None:
    index.upsert([point(1)])
    answer = _post(client, **fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    message = answer.json()["error"]["message"]
    assert words in message
    assert not re.search(r"\^|\\d|pattern|[Ii]nput should|Value error|Extra inputs|pydantic", message)


def test_a_year_and_a_month_mean_all_of_it(client: TestClient, index: Index) -> None:
    for number, taken in enumerate(("2020-12-31T23:59:59", "2021-01-01T00:00:00", "2021-02-28T23:59:59", "2021-03-01")):
        index.upsert([point(number, taken_at=taken)])
    for given, count in (
        ({"taken_from": "2021"}, 3),
        ({"taken_to": "2021"}, 4),
        ({"taken_from": "2021-01", "taken_to": "2021-02"}, 2),
        ({"taken_from": "2021", "taken_to": "2021"}, 3),
        ({"taken_to": "2020"}, 1),
    ):
        assert len(_post(client, **given).json()["faces"][0]["matches"]) == count, given


def test_several_folders_mean_any_of_them_in_any_spelling(client: TestClient, index: Index) -> None:
    decomposed = unicodedata.normalize("NFD", "/fotos/Año")
    for number, folder in enumerate(("/a", "/b", "/c", decomposed)):
        index.upsert([point(number, folder=("/", "/fotos", folder), path=f"{folder}/{number}.jpg")])
    for folders, numbers in (
        (["/a", "/b"], "01"),
        (["//a", "/x/../c/"], "02"),
        ([unicodedata.normalize("NFC", decomposed)], "3"),
        ([decomposed + "/"], "3"),
    ):
        answer = _post(client, folder=folders)
        assert answer.status_code == 200, answer.text
        names = {Path(match["path"]).stem for match in answer.json()["faces"][0]["matches"]}
        assert names == set(numbers)


def test_a_shown_similarity_is_a_threshold_that_includes_it(client: TestClient, index: Index) -> None:
    index.upsert([point(1)])
    assert len(_post(client, threshold="1.0").json()["faces"][0]["matches"]) == 1
    body = _compare(client, RED, RED, threshold="1.0", all_pairs="true").json()
    assert (body["similarity"], body["above_threshold"], body["same_person"]) == (1.0, True, True)
    assert body["pairs"] == [
        {"face_a": 0, "face_b": 0, "similarity": 1.0, "above_threshold": True, "sureness": "very_likely"}
    ]
    assert (body["faces_a"], body["faces_b"]) == (1, 1)


def test_filters_hold_together(client: TestClient, index: Index) -> None:
    index.upsert(
        [
            point(1, person=ADA, folder=("/", "/a"), path="/a/1.jpg", taken_at="2024-05-01T10:00:00"),
            point(2, person=ADA, folder=("/", "/b"), path="/b/2.jpg", taken_at="2024-05-01T10:00:00"),
            point(3, person=BOB, folder=("/", "/a"), path="/a/3.jpg", taken_at="2024-05-01T10:00:00"),
            point(4, person=ADA, folder=("/", "/a"), path="/a/4.jpg", taken_at=None),
            point(5, person=ADA, folder=("/", "/a"), path="/a/5.jpg", taken_at="2024-05-01T10:00:00", quality=0.1),
        ]
    )
    fields = {
        "person": ADA,
        "folder": "/a",
        "taken_from": "2024-01-01",
        "taken_to": "2025-01-01",
        "min_quality": "0.5",
    }
    matches = _post(client, **fields).json()["faces"][0]["matches"]
    assert [match["path"] for match in matches] == ["/a/1.jpg"]
    assert matches[0]["person"] is None, "nobody in the catalog has this id"


class ThreeFaces(FakeEngine):
    def analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
        boxes = [(0.0, 0.0, 9.0, 9.0), (10.0, 0.0, 40.0, 30.0), (41.0, 0.0, 61.0, 20.0)]
        return [[Face(box, KPS, 0.9, 0.8, "direct", embedding_of(n)) for n, box in enumerate(boxes)] for _ in pictures]


def test_every_face_has_its_own_matches_and_max_faces_keeps_the_largest(settings: Settings, index: Index) -> None:
    index.upsert([replace(point(n), embedding=embedding_of(n)) for n in range(3)])
    with TestClient(create_app(settings, engine=ThreeFaces(), index=index)) as client:
        faces = _post(client).json()["faces"]
        assert [face["face_index"] for face in faces] == [0, 1, 2]
        assert [[match["path"] for match in face["matches"]] for face in faces] == [
            ["/photos/0.jpg"], ["/photos/1.jpg"], ["/photos/2.jpg"],
        ]  # fmt: skip
        assert [face["face_index"] for face in _post(client, max_faces="1").json()["faces"]] == [1]
        assert [face["face_index"] for face in _post(client, max_faces="2").json()["faces"]] == [1, 2]
        assert [face["face_index"] for face in _post(client, max_faces="9").json()["faces"]] == [0, 1, 2]


def test_group_by_keeps_the_best_match_of_each(client: TestClient, index: Index) -> None:
    index.upsert([point(number) for number in range(1, 5)])
    two = [point(number).face_id for number in (1, 2)]
    ada = client.post("/people", json={"name": "Ada", "face_ids": two}).json()["person"]
    same_image = [replace(point(n), payload=replace(point(n).payload, image_id="c" * 64)) for n in (5, 6)]
    index.upsert(same_image)
    by_person = _post(client, group_by="person").json()["faces"][0]["matches"]
    people = [match["person"] for match in by_person if match["person"] is not None]
    assert (people, len(by_person)) == ([{"id": ada["id"], "name": "Ada", "hidden": False}], 5)
    by_image = _post(client, group_by="image_id").json()["faces"][0]["matches"]
    assert len(by_image) == len({match["image_id"] for match in by_image}) == 5


def test_a_path_that_is_no_text_does_not_break_the_answer(client: TestClient, index: Index) -> None:
    path = b"/photos/caf\xe9.jpg".decode("utf-8", "surrogateescape")
    stored = point(1, path=path, folder=("/", path))
    index.upsert([stored])
    answer = _post(client)
    assert answer.status_code == 200
    assert answer.json()["faces"][0]["matches"][0]["path"] == "/photos/caf\\xe9.jpg"
    assert client.get(f"/faces/{stored.face_id}").json()["paths"] == ["/photos/caf\\xe9.jpg"]


def test_an_index_that_is_gone_is_503_with_retry_after(client: TestClient, index: Index) -> None:
    index.upsert([point(1)])
    index.failure = OceanoError("index_unavailable", "the index does not answer")
    for answer in (_post(client), client.get(f"/faces/{point(1).face_id}"), client.get(f"/thumbs/{point(1).face_id}")):
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "index_unavailable"
        assert int(answer.headers["retry-after"]) >= 1
    index.failure = OceanoError("index_unavailable", "?", retry_after=17)
    assert _post(client).headers["retry-after"] == "17"


def test_an_engine_that_is_unwell_is_503(settings: Settings, index: Index) -> None:
    class Unwell(FakeEngine):
        def analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
            raise OceanoError("engine_unhealthy", "the model is being loaded again", retry_after=10)

    with TestClient(create_app(settings, engine=Unwell(), index=index)) as client:
        for path in ("/search", "/detect"):
            answer = _post(client, path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
            assert answer.json()["error"]["code"] == "engine_unhealthy"


def test_an_index_that_hangs_is_504_in_time(settings: Settings, index: Index, engine: FakeEngine) -> None:
    settings = settings.model_copy(update={"request_timeout_seconds": 0.2})
    with TestClient(create_app(settings, engine=engine, index=index)) as client:
        index.hang = threading.Event()
        start = time.perf_counter()
        answer = _post(client)
        assert time.perf_counter() - start < 3
        index.hang.set()
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")


# POST /detect, POST /compare


def test_detect_tells_the_faces_of_a_picture(client: TestClient, index: Index) -> None:
    body = _post(client, "/detect").json()
    assert _shape(body) == HEAD_SHAPE | {
        "image": {"width": "int", "height": "int"},
        "faces": [FACE_SHAPE],
        "took_ms": {"decode": "float", "detect": "float", "embed": "float", "total": "float"},
    }
    took = body["took_ms"]
    assert took["total"] == pytest.approx(took["decode"] + took["detect"] + took["embed"], abs=0.02)
    assert index.asked == []


# POST /search/more


def _all_pages(client: TestClient, first: Any, limit: int) -> list[Any]:
    pages = [first]
    while pages[-1]["next"]:
        answer = client.post("/search/more", data={"after": pages[-1]["next"], "limit": limit})
        assert answer.status_code == 200
        pages.append(answer.json())
    return pages


def test_pages_lead_to_the_last_match_without_gaps_or_doubles(client: TestClient, index: Index) -> None:
    index.upsert([point(number) for number in range(250)] + [point(1000 + n, GREEN) for n in range(9)])
    (face,) = _post(client, limit=20).json()["faces"]
    assert face["more"] is True
    pages = _all_pages(client, face, 100)
    shown = [match["face_id"] for page in pages for match in page["matches"]]
    assert sorted(shown) == sorted(point(number).face_id for number in range(250))
    assert [(page["first"], page["total"]) for page in pages[1:]] == [(21, 250), (121, 250), (221, 250)]
    assert _shape(pages[-1]) == HEAD_SHAPE | {
        "threshold": "float", "matches": [_shape(face["matches"][0])], "first": "int", "total": "int",
        "next": "NoneType", "took_ms": {"search": "float", "total": "float"},
    }  # fmt: skip
    as_multipart = client.post("/search/more", files={"after": (None, face["next"]), "limit": (None, "100")})
    assert as_multipart.json()["matches"] == pages[1]["matches"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "invalid_request"),
        ({"after": "x" * 5000}, "cursor_invalid"),
        ({"after": "\0\xff"}, "cursor_invalid"),
        ({"after": "x", "limit": "0"}, "invalid_request"),
        ({"after": "x", "threshold": "0.1"}, "invalid_request"),
        ({"after": ["x", "y"]}, "invalid_request"),
    ],
    ids=str,
)
def test_a_page_that_cannot_be_read_is_refused(client: TestClient, fields: dict[str, Any], code: str) -> None:
    answer = client.post("/search/more", data=fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def test_other_bodies_are_no_form(client: TestClient) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    bodies: list[tuple[bytes, dict[str, str]]] = [
        (b'{"after": "x"}', {"Content-Type": "application/json"}),
        (b"\xff\0", {}),
        (b"--x\r\nrubbish", kind),
    ]
    for body, headers in bodies:
        answer = client.post("/search/more", content=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert client.post("/search/more", files={"after": encoded()}).status_code == 400


def test_detect_of_a_picture_without_faces_is_an_empty_list(client: TestClient) -> None:
    answer = _post(client, "/detect", colour=BLACK)
    assert (answer.status_code, answer.json()["faces"]) == (200, [])


def _compare(client: TestClient, a: tuple[int, int, int], b: tuple[int, int, int], **fields: Any) -> Any:
    return client.post("/compare", files={"image_a": encoded(a), "image_b": encoded(b, (30, 20))}, data=fields)


def test_compare_tells_the_same_from_different(client: TestClient) -> None:
    body = _compare(client, RED, RED).json()
    assert _shape(body) == HEAD_SHAPE | {
        "threshold": "float",
        "similarity": "float",
        "above_threshold": "bool",
        "sureness": "str",
        "same_person": "bool",
        "a": {"image": {"width": "int", "height": "int"}, "face": FACE_SHAPE},
        "b": {"image": {"width": "int", "height": "int"}, "face": FACE_SHAPE},
        "faces_a": "int",
        "faces_b": "int",
        "pairs": "NoneType",
        "took_ms": {"decode": "float", "detect": "float", "embed": "float", "total": "float"},
    }
    assert (body["similarity"], body["same_person"], body["threshold"]) == (pytest.approx(1, abs=1e-5), True, 0.4)
    assert body["took_ms"]["detect"] == 2.0
    assert (body["a"]["image"], body["b"]["image"]) == ({"width": 64, "height": 48}, {"width": 30, "height": 20})
    other = _compare(client, RED, GREEN).json()
    assert (other["same_person"], other["sureness"]) == (False, None)
    assert other["similarity"] == pytest.approx(float(point(1, RED).embedding @ point(1, GREEN).embedding), abs=2e-6)
    assert _compare(client, RED, GREEN, threshold="-1").json()["same_person"] is True


@pytest.mark.parametrize(
    ("a", "b", "named"), [(BLACK, RED, "image_a"), (RED, BLACK, "image_b"), (BLACK, BLACK, "image_a")]
)
def test_compare_says_in_which_picture_there_is_no_face(
    client: TestClient, a: tuple[int, int, int], b: tuple[int, int, int], named: str
) -> None:
    answer = _compare(client, a, b)
    assert answer.status_code == 422
    assert answer.json()["error"]["details"] == {"image": named}
    assert named in answer.json()["error"]["message"]


def test_compare_takes_the_largest_face_of_each(settings: Settings, index: Index) -> None:
    with TestClient(create_app(settings, engine=ThreeFaces(), index=index)) as client:
        body = _compare(client, RED, GREEN).json()
    assert (body["a"]["face"]["face_index"], body["b"]["face"]["face_index"]) == (1, 1)


# GET /faces, GET /thumbs


def test_a_stored_face_is_told_with_every_path_of_its_image(client: TestClient, index: Index) -> None:
    stored = point(1)
    index.upsert([stored])
    ada = client.post("/people", json={"name": "Ada", "face_ids": [stored.face_id]}).json()["person"]
    body = client.get(f"/faces/{stored.face_id}").json()
    assert body["face_id"] == stored.face_id
    assert body["paths"] == ["/photos/1.jpg"], "without a ledger's entry at least the first path is known"
    assert body["person"] == {"id": ada["id"], "name": "Ada", "hidden": False}
    assert (body["image_id"], body["width"]) == (stored.payload.image_id, 640)
    assert "embedding" not in body
    ledger = client.app.state.services.ledger  # type: ignore[attr-defined]
    records = [FileRecord(path, 1, 1, stored.payload.image_id, "done") for path in ("/z/copy.jpg", "/photos/1.jpg")]
    ledger.record([records[0], replace(records[1], status="duplicate")])
    assert client.get(f"/faces/{stored.face_id}").json()["paths"] == ["/photos/1.jpg", "/z/copy.jpg"]


def test_an_unknown_face_is_404(client: TestClient) -> None:
    answer = client.get(f"/faces/{UNKNOWN}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "face_unknown")
    assert answer.json()["error"]["details"] == {"face_id": UNKNOWN}


@pytest.mark.parametrize(
    "face_id", ["x", "1", "%2e%2e", "%00", "0" * 31, "g" * 32, "é", "x" * 5000, UNKNOWN + "0", "' OR 1=1"]
)
def test_what_is_no_face_id_is_404(client: TestClient, face_id: str) -> None:
    for route in ("faces", "thumbs"):
        answer = client.get(f"/{route}/{face_id}")
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] in ("face_unknown", "not_found")
        assert len(answer.text) < 500


def test_every_spelling_of_a_face_id_finds_the_face(client: TestClient, index: Index) -> None:
    stored = point(1)
    index.upsert([stored])
    for spelling in (stored.face_id.upper(), stored.face_id.replace("-", ""), f"urn:uuid:{stored.face_id}"):
        assert client.get(f"/faces/{spelling}").json()["face_id"] == stored.face_id


def _photograph(folder: Path, size: tuple[int, int] = (200, 100)) -> tuple[Path, bytes]:
    noise = np.random.default_rng(4).integers(0, 256, (size[1] // 10, size[0] // 10, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize(size).save(out, "PNG")
    path = folder / "photograph.png"
    path.write_bytes(out.getvalue())
    return path, out.getvalue()


def _stored(path: Path, data: bytes) -> FacePoint:
    return point(1, path=str(path), image_id=image_id_of(data), bbox=(20.0, 20.0, 80.0, 80.0))


def test_a_thumbnail_is_served_as_it_was_stored(client: TestClient, settings: Settings) -> None:
    ThumbStore(settings.thumbs_dir).write(UNKNOWN, b"not really a JPEG")
    answer = client.get(f"/thumbs/{UNKNOWN}")
    assert answer.status_code == 200
    assert answer.content == b"not really a JPEG"
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "private, max-age=86400"
    assert client.get(f"/thumbs/{UNKNOWN.upper()}").status_code == 200


def test_a_lost_thumbnail_is_drawn_anew_from_the_original(
    client: TestClient, settings: Settings, index: Index, tmp_path: Path
) -> None:
    path, data = _photograph(tmp_path)
    stored = _stored(path, data)
    index.upsert([stored])
    answer = client.get(f"/thumbs/{stored.face_id}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert answer.content == face_thumbnail(decode(data, max_pixels=10**6), stored.payload.bbox)
    assert ThumbStore(settings.thumbs_dir).read(stored.face_id) == answer.content
    path.unlink()
    assert client.get(f"/thumbs/{stored.face_id}").content == answer.content, "it is kept"


@pytest.mark.parametrize("name", ["copy.png", os.fsdecode(b"c\xf3pia.png")])
def test_a_lost_thumbnail_is_drawn_anew_from_a_copy_whatever_its_name(
    client: TestClient, settings: Settings, index: Index, tmp_path: Path, name: str
) -> None:
    path, data = _photograph(tmp_path)
    stored = _stored(path, data)
    index.upsert([stored])
    (tmp_path / "changed.png").write_bytes(encoded(GREEN))
    path.rename(tmp_path / name)
    with closing(open_ledger(settings.state_dir / "catalog.sqlite3", collection_name("faces", FAKE_PACK))) as ledger:
        image_id = stored.payload.image_id
        copies = [FileRecord(str(tmp_path / one), len(data), 2, image_id, "duplicate") for one in ("changed.png", name)]
        ledger.record([FileRecord(str(path), len(data), 2, image_id, "done", 1), *copies])
    answer = client.get(f"/thumbs/{stored.face_id}")
    assert answer.content == face_thumbnail(decode(data, max_pixels=10**6), stored.payload.bbox)


@pytest.mark.parametrize("fate", ["deleted", "changed", "damaged", "a folder", "a pipe", "too large now"])
def test_a_lost_thumbnail_whose_original_is_not_what_it_was_is_404(
    settings: Settings, engine: FakeEngine, index: Index, tmp_path: Path, fate: str
) -> None:
    path, data = _photograph(tmp_path)
    stored = _stored(path, data)
    if fate == "deleted":
        path.unlink()
    elif fate == "changed":
        path.write_bytes(encoded(GREEN))
    elif fate == "damaged":
        path.write_bytes(data[:200])
        stored = replace(stored, payload=replace(stored.payload, image_id=image_id_of(data[:200])))
    elif fate == "a folder":
        path.unlink()
        path.mkdir()
    elif fate == "a pipe":
        path.unlink()
        os.mkfifo(path)
    else:
        settings = settings.model_copy(update={"max_image_megapixels": 0.01})
    index.upsert([stored])
    with TestClient(create_app(settings, engine=engine, index=index)) as client:
        answer = client.get(f"/thumbs/{stored.face_id}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "thumbnail_missing"
    assert answer.json()["error"]["details"] == {"face_id": stored.face_id}
    assert ThumbStore(settings.thumbs_dir).read(stored.face_id) is None


def test_a_thumbnail_that_cannot_be_kept_is_shown_all_the_same(
    client: TestClient, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, data = _photograph(tmp_path)
    stored = _stored(path, data)
    index.upsert([stored])

    def full(self: ThumbStore, face_id: str, jpeg: bytes) -> None:
        raise OceanoError("disk_full", "no room for thumbnails")

    monkeypatch.setattr(ThumbStore, "write", full)
    assert client.get(f"/thumbs/{stored.face_id}").status_code == 200
    assert "no room for thumbnails" in caplog.text


def test_the_thumbnail_of_an_unknown_face_is_404(client: TestClient) -> None:
    answer = client.get(f"/thumbs/{UNKNOWN}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "face_unknown")


# GET /health, GET /status, GET /metrics


def test_health_is_200_when_all_is_well(client: TestClient) -> None:
    answer = client.get("/health")
    assert answer.status_code == 200
    body = answer.json()
    assert body.pop("request_id") == answer.headers["x-request-id"]
    assert body == {
        "status": "ok",
        "checks": {"engine": {"ok": True, "message": ""}, "index": {"ok": True, "message": ""}},
    }
    head = client.head("/health")
    assert (head.status_code, head.content) == (200, b"")


def test_health_is_503_while_the_engine_is_unwell(client: TestClient, engine: FakeEngine) -> None:
    engine.health = EngineHealth(False, math.nan, "the reference embedding is NaN")
    answer = client.get("/health")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert answer.json()["status"] == "unavailable"
    assert answer.json()["checks"]["engine"] == {"ok": False, "message": "the reference embedding is NaN"}
    status = client.get("/status")
    assert status.status_code == 200
    assert status.json()["engine"] == {
        "healthy": False, "cosine": None, "message": "the reference embedding is NaN",
    }  # fmt: skip


def test_health_is_503_while_the_index_is_gone_and_the_service_starts_all_the_same(
    settings: Settings, engine: FakeEngine, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor_module, "POLL_SECONDS", 0.01)
    index.failure = OceanoError("index_unavailable", "the index does not answer")
    with TestClient(create_app(settings, engine=engine, index=index)) as client:
        answer = client.get("/health")
        assert answer.status_code == 503
        assert answer.json()["checks"]["index"] == {"ok": False, "message": "the index does not answer"}
        assert client.get("/status").json()["index"] == {"ok": False, "message": "the index does not answer"}
        assert client.get("/").status_code == 200
        index.failure = None
        end = time.monotonic() + 5
        while client.get("/health").status_code != 200:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_health_answers_at_once_while_the_index_hangs(
    settings: Settings, engine: FakeEngine, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor_module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(monitor_module, "INDEX_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(monitor_module, "STALE_SECONDS", 0.3)

    def timed(client: TestClient, path: str) -> Any:
        start = time.perf_counter()
        answer = client.get(path)
        assert time.perf_counter() - start < 3, "the index hangs for 20 s"
        return answer

    index.hang = threading.Event()
    with TestClient(create_app(settings, engine=engine, index=index)) as client:  # the start does not hang either
        answer = timed(client, "/health")
        assert answer.status_code == 503
        assert answer.json()["checks"]["index"]["message"] == "the index has not answered within 0.05 s"
        index.hang.set()
        end = time.monotonic() + 5
        while timed(client, "/health").status_code != 200:
            assert time.monotonic() < end
        index.hang = threading.Event()
        while timed(client, "/health").status_code == 200:
            assert time.monotonic() < end
        for path in ("/health", "/status", "/metrics", "/"):
            timed(client, path)
        index.hang.set()


def test_lookups_that_hang_hold_up_neither_the_page_nor_the_metrics(
    settings: Settings, engine: FakeEngine, index: Index
) -> None:
    app = create_app(settings.model_copy(update={"request_timeout_seconds": 2}), engine=engine, index=index)

    async def run() -> None:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
                index.hang = threading.Event()
                paths = [f"/{route}/{point(number).face_id}" for number in range(50) for route in ("faces", "thumbs")]
                hanging = [asyncio.create_task(client.get(path)) for path in paths]
                await asyncio.sleep(0.1)
                for path in ("/", "/metrics", "/status", "/health"):
                    assert (await asyncio.wait_for(client.get(path), 5)).status_code == 200
                detected = await client.post("/detect", files={"image": encoded()})
                assert detected.status_code == 200
                assert {answer.status_code for answer in await asyncio.gather(*hanging)} == {504}
                index.hang.set()

    asyncio.run(run())
    assert sum(thread.name.startswith("lookup") for thread in threading.enumerate()) <= LOOKUP_THREADS


def test_status_tells_model_device_index_ingest_versions_and_uptime(client: TestClient, index: Index) -> None:
    end = time.monotonic() + 5
    while (body := client.get("/status").json())["ingest"] == {"message": "not checked yet"} or body["jobs"] is None:
        assert time.monotonic() < end
    uptime = body.pop("uptime_seconds")
    started = body.pop("started_at")
    versions = body.pop("versions")
    assert 0 <= uptime < 60
    assert abs(time.time() - started) < 60
    assert set(versions) == {"oceano", "python"}
    body.pop("request_id")
    assert body == {
        "model": {"name": "fake", "digest": "ffffffff"},
        "demo": False, "embedding_size": 512, "threshold": 0.4,
        "bands": {
            "very_likely": 0.5, "likely": 0.4, "mean": 0.02, "deviation": 0.1, "faces": 0, "source": "default",
        },
        "device": {"device": "cpu", "provider": "CPUExecutionProvider", "reason": "a fake", "runtimes": {}, "gpus": []},
        "engine": {"healthy": True, "cosine": 1.0, "message": ""},
        "index": {
            "ok": True, "kind": "embedded", "collection": "faces__fake__ffffffff", "points": 0, "indexed": 0,
            "segments": 1, "maintaining": False, "disk_bytes": 0, "copies_missing": 0, "damaged_files": 0,
        },
        "ingest": {"done": 0, "no_face": 0, "failed": 0, "duplicate": 0, "faces": 0},
        "jobs": [], "jobs_left_out": 0,
    }  # fmt: skip


def test_status_has_the_jobs_that_have_not_ended(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    services = client.app.state.services  # type: ignore[attr-defined]
    started = (datetime.now(UTC) - timedelta(seconds=100)).isoformat(timespec="seconds")
    shared = job(
        folder="/photos/caf\udce9", state="running", shared=True, phase="files", workers=3, problems=2,
        counts={"files": 2000, "done": 700, "no_face": 40, "failed": 3, "skipped": 117},
        started_at=started, error="index_unavailable", message="no connection",
    )  # fmt: skip
    monkeypatch.setattr(services.monitor, "snapshot", FixedSnapshot(jobs=(shared, job())))
    first, second = client.get("/status").json()["jobs"]
    assert 5 < first.pop("rate") <= 7.43
    assert first == {
        "id": shared.id, "folder": "/photos/caf\\xe9", "state": "running", "files": 2000, "finished": 860,
        "images": 743, "failed": 3, "problems": 2, "workers": 3, "started_by": "ann@one",
        "created_at": "2026-05-01T09:00:00+00:00", "started_at": started,
        "error": "index_unavailable", "message": "no connection",
    }  # fmt: skip
    assert (second["state"], second["files"], second["rate"], second["started_at"]) == ("queued", None, None, None)
    waiting = tuple(job(folder=f"/{number}") for number in range(60))
    monkeypatch.setattr(services.monitor, "snapshot", FixedSnapshot(jobs=(*waiting, shared)))
    body = client.get("/status").json()
    assert [one["id"] for one in body["jobs"]] == [shared.id, *(one.id for one in waiting[:49])]
    assert body["jobs_left_out"] == 11
    monkeypatch.setattr(services.monitor, "snapshot", FixedSnapshot(jobs=None))
    assert client.get("/status").json()["jobs"] is None, "they cannot be read"


def test_metrics_have_every_metric_and_count_what_happened(client: TestClient, index: Index) -> None:
    index.upsert([point(1)])
    _post(client)
    _post(client, colour=BLACK)
    client.get(f"/faces/{point(1).face_id}")
    answer = client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert set(families) >= OWN_METRICS
    requests = {
        (one.labels["method"], one.labels["route"], one.labels["status"]): one.value
        for one in families["oceano_requests"].samples
        if one.name == "oceano_requests_total"
    }
    assert requests[("POST", "/search", "200")] == 1
    assert requests[("POST", "/search", "422")] == 1
    assert requests[("GET", "/faces/{face_id}", "200")] == 1
    stages = {one.labels["stage"] for one in families["oceano_stage_seconds"].samples}
    assert stages == {"decode", "detect", "embed", "search"}
    errors = {one.labels["code"]: one.value for one in families["oceano_errors"].samples if one.name.endswith("_total")}
    assert errors == {"face_not_found": 1.0}
    in_flight = families["oceano_requests_in_flight"].samples[0].value
    assert in_flight == 1, "the one that asks"


# the document, and everything at once


def test_the_openapi_document_names_every_route_with_its_fields(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    routes = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert routes == {
        ("POST", "/search"), ("POST", "/search/more"), ("POST", "/search/batch"), ("POST", "/faces/{face_id}/search"),
        ("POST", "/detect"), ("POST", "/compare"), ("GET", "/faces/{face_id}"), ("GET", "/images/{image_id}"),
        ("GET", "/images/{image_id}/preview"), ("GET", "/images/{image_id}/file"),
        ("GET", "/thumbs/{face_id}"), ("GET", "/status"), ("GET", "/metrics"), ("GET", "/health"),
        ("GET", "/people"), ("POST", "/people"), ("GET", "/people/{person_id}"), ("PATCH", "/people/{person_id}"),
        ("DELETE", "/people/{person_id}"), ("GET", "/people/{person_id}/faces"), ("POST", "/people/{person_id}/faces"),
        ("POST", "/people/{person_id}/reject"), ("POST", "/people/{person_id}/merge"),
        ("POST", "/people/{person_id}/split"), ("GET", "/people/{person_id}/suggestions"),
        ("GET", "/people/{person_id}/together"), ("GET", "/people/unnamed"), ("GET", "/people/dismissed"),
        ("GET", "/people/groups"), ("GET", "/people/groups/{group_id}"),
        ("POST", "/faces/dismiss"), ("GET", "/changes"), ("POST", "/changes/{number}/undo"),
    }  # fmt: skip
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))
    forms = {
        "/search": {"image", *SearchOptions.model_fields},
        "/detect": {"image"},
        "/compare": {"image_a", "image_b", "threshold", "all_pairs"},
    }
    for path, fields in forms.items():
        operation = document["paths"][path]["post"]
        assert operation["description"] or operation["summary"]
        schema = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert set(schema["properties"]) == fields
        if path == "/search":
            assert set(FaceFilter.__dataclass_fields__) - {"not_person"} <= fields
            continue
        files = {name for name, one in schema["properties"].items() if one.get("format") == "binary"}
        assert files == set(schema["required"]) == {name for name in fields if name.startswith("image")}
    for path in ("/search", "/search/batch", "/faces/{face_id}/search"):
        assert "$ref" not in json.dumps(document["paths"][path]["post"]["requestBody"])


def test_256_clients_at_once_are_all_answered_and_health_all_the_while(settings: Settings, index: Index) -> None:
    """As many as there may be, and some more: each gets its own person or is told to come again, none is lost."""

    class Working(FakeEngine):
        def analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
            time.sleep(0.002)
            return super().analyze(pictures, timings)

    colours = {"red": RED, "green": GREEN, "blue": BLUE}
    index.upsert([point(n, colour, path=f"/photos/{name}.jpg") for n, (name, colour) in enumerate(colours.items())])
    pictures = {name: encoded(colour) for name, colour in colours.items()}
    app = create_app(settings, engine=Working(), index=index)
    chance = random.Random(6)
    names = [chance.choice(list(colours)) for _ in range(300)]

    async def run() -> tuple[list[httpx.Response], list[tuple[int, float]]]:
        healths: list[tuple[int, float]] = []
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
                work = [
                    asyncio.create_task(
                        client.post("/search", files={"image": pictures[name]}, headers={"X-Request-ID": f"r{n}"})
                    )
                    for n, name in enumerate(names)
                ]
                while not all(one.done() for one in work):
                    start = time.perf_counter()
                    healths.append(((await client.get("/health")).status_code, time.perf_counter() - start))
                    await asyncio.sleep(0.02)
                return await asyncio.gather(*work), healths

    answers, healths = asyncio.run(run())
    assert len(answers) == 300
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 256
    assert statuses.count(503) == 300 - statuses.count(200)
    for number, (name, answer) in enumerate(zip(names, answers, strict=True)):
        assert answer.json()["request_id"] == f"r{number}"
        if answer.status_code == 200:
            assert [match["path"] for match in answer.json()["faces"][0]["matches"]] == [f"/photos/{name}.jpg"]
        else:
            assert answer.json()["error"]["code"] == "overloaded"
            assert answer.headers["retry-after"] == "1"
    assert healths
    assert {status for status, _ in healths} == {200}
    assert max(seconds for _, seconds in healths) < 2
    text = app.state.metrics.exposition().decode()
    assert "oceano_requests_in_flight 0.0" in text
    assert "oceano_pictures_in_work 0.0" in text


def test_few_decoded_pictures_wait_for_the_model_at_once(settings: Settings, index: Index) -> None:
    """Each can take 200 MB: however many clients there are, the memory is that of a few."""
    release = threading.Event()

    class Waiting(FakeEngine):
        def analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
            release.wait(20)
            return super().analyze(pictures, timings)

    app = create_app(settings, engine=Waiting(), index=index)

    async def run() -> tuple[int, int, list[int]]:
        async with app.router.lifespan_context(app):
            places = app.state.decoding.slots._value

            def decoded() -> int:
                samples = [one for family in app.state.metrics.stage.collect() for one in family.samples]
                counts = [one for one in samples if one.name.endswith("_count") and one.labels["stage"] == "decode"]
                return int(sum(one.value for one in counts))

            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
                work = [asyncio.create_task(client.post("/search", files={"image": encoded()})) for _ in range(60)]
                while decoded() < places:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.1)
                count = decoded()
                release.set()
                answers = await asyncio.gather(*work)
                assert app.state.decoding.slots._value == places, "every place was given back"
                return count, places, [answer.status_code for answer in answers]

    count, places, statuses = asyncio.run(run())
    assert count == places < 60
    assert statuses == [200] * 60


def test_request_ids_are_made_up_where_none_is_given(client: TestClient) -> None:
    ids = {_post(client).json()["request_id"] for _ in range(5)}
    assert len(ids) == 5
    assert all(uuid.UUID(one).version == 4 for one in ids)
