"""Searches for one person: several examples as one query, conditions, stored faces, batches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.types import Face, FacePoint, Floats, Match, Picture
from app.main import create_app
from app.service import combined
from tests.support.clients import TestClient
from tests.support.fakes import FakeEngine, MemoryIndex, embedding_of
from tests.support.pictures import BLACK, BLUE, GREEN, KPS, RED, encoded, point

UNKNOWN = "0f9e6f8a-0a9f-5f0c-9d0e-7a0f3a3b1c2d"


class CountingIndex(MemoryIndex):
    """Remembers how many embeddings each search had; may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.searches: list[int] = []
        self.failure: OceanoError | None = None

    def search_batch(self, embeddings: Sequence[Floats], **how: Any) -> list[list[Match]]:
        if self.failure is not None:
            raise self.failure
        self.searches.append(len(embeddings))
        return super().search_batch(embeddings, **how)


class Crowd(FakeEngine):
    """Sees in every picture the person of its colour, small, to the left of a larger stranger."""

    def analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
        stranger = Face((20.0, 0.0, 60.0, 40.0), KPS, 0.9, 0.8, "direct", embedding_of(7))
        found = super().analyze(pictures, timings)
        return [[replace(face, bbox=(1.0, 1.0, 9.0, 9.0)) for face in faces] + [stranger] for faces in found]


@pytest.fixture
def index() -> CountingIndex:
    return CountingIndex()


@pytest.fixture
def client(settings: Settings, engine: FakeEngine, index: CountingIndex) -> Iterator[TestClient]:
    with TestClient(create_app(settings, engine=engine, index=index), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def crowd(settings: Settings, index: CountingIndex) -> Iterator[TestClient]:
    with TestClient(create_app(settings, engine=Crowd(), index=index), raise_server_exceptions=False) as client:
        yield client


def _images(*colours: tuple[int, int, int]) -> list[tuple[str, bytes]]:
    return [("image", encoded(colour)) for colour in colours]


def _combined(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["faces"] == []
    found: dict[str, Any] = body["combined"]
    return found


def _paths(found: dict[str, Any]) -> list[str]:
    return [match["path"] for match in found["matches"]]


def _error(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def _beside(number: int, other: FacePoint, seed: int) -> FacePoint:
    """A second face in the image of a point."""
    stored = point(number, image_id=other.payload.image_id, path=other.payload.path)
    return replace(stored, face_id=point(1000 + number).face_id, embedding=embedding_of(seed))


# several examples


def test_several_images_are_one_query_with_the_mean_of_their_embeddings(
    client: TestClient, index: CountingIndex
) -> None:
    red, green = point(1), point(2, GREEN)
    index.upsert([red, green])
    found = _combined(client.post("/search", files=_images(RED, GREEN), data={"threshold": "0.1"}))
    both = combined([red.embedding, green.embedding])
    assert {match["face_id"]: match["similarity"] for match in found["matches"]} == {
        stored.face_id: pytest.approx(float(stored.embedding @ both), abs=2e-6) for stored in (red, green)
    }
    cosine = pytest.approx(float(red.embedding @ green.embedding), abs=2e-6)
    assert found["examples"] == [
        {
            "kind": "image", "image_index": place, "face_index": 0, "bbox": [16.0, 12.0, 48.0, 36.0], "face_id": None,
            "similarity": cosine, "doubtful": place == 1,
        }
        for place in range(2)
    ]  # fmt: skip
    assert (found["more"], found["next"]) == (False, None)
    assert index.searches == [1]


def test_images_stored_faces_and_embeddings_are_combined(client: TestClient, index: CountingIndex) -> None:
    red, green, blue = point(1), point(2, GREEN), point(3, BLUE)
    index.upsert([red, green, blue])
    sent = {"face_id": green.face_id.upper(), "embedding": json.dumps([5 * one for one in blue.embedding.tolist()])}
    found = _combined(client.post("/search", files=_images(RED), data=sent | {"threshold": "-1"}))
    both = combined([red.embedding, green.embedding, blue.embedding])
    assert [(example["kind"], example["face_id"]) for example in found["examples"]] == [
        ("image", None), ("face_id", green.face_id), ("embedding", None),
    ]  # fmt: skip
    for match in found["matches"]:
        assert match["similarity"] == pytest.approx(float(index.points[match["face_id"]].embedding @ both), abs=2e-6)


def test_a_search_needs_no_image(client: TestClient, index: CountingIndex) -> None:
    red = point(1)
    index.upsert([red, point(2, GREEN)])
    for data in ({"face_id": red.face_id}, {"embedding": json.dumps(red.embedding.tolist())}):
        answer = client.post("/search", data=data)
        assert answer.json()["image"] is None
        assert _paths(_combined(answer)) == ["/photos/1.jpg"]


def test_in_a_crowd_the_face_that_resembles_the_other_examples_is_meant(
    crowd: TestClient, index: CountingIndex
) -> None:
    index.upsert([point(1), replace(point(2), embedding=embedding_of(7))])
    found = _combined(crowd.post("/search", files=_images(RED, RED), data={"face_id": point(1).face_id}))
    assert [example["face_index"] for example in found["examples"]] == [0, 0, None]
    assert _paths(found) == ["/photos/1.jpg"]
    assert not any(example["doubtful"] for example in found["examples"])
    largest = _combined(crowd.post("/search", files=_images(RED, GREEN)))
    assert [example["face_index"] for example in largest["examples"]] == [1, 1]
    assert _paths(largest) == ["/photos/2.jpg"]


def test_face_names_the_one_who_is_meant(crowd: TestClient, index: CountingIndex) -> None:
    index.upsert([point(1), replace(point(2), embedding=embedding_of(7))])
    for place, path in enumerate(("/photos/1.jpg", "/photos/2.jpg")):
        answer = crowd.post("/search", files=_images(RED), data={"face": f"0:{place}"})
        assert answer.json()["image"] == {"width": 64, "height": 48}
        found = _combined(answer)
        assert [example["face_index"] for example in found["examples"]] == [place]
        assert _paths(found) == [path]
    both = _combined(crowd.post("/search", files=_images(RED, RED), data={"face": ["1:0", "0:0"]}))
    assert [example["face_index"] for example in both["examples"]] == [0, 0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"face": "0:2"}, "there is no face 0:2: the images have 2 faces"),
        ({"face": "1:0"}, "there is no face 1:0"),
        ({"with_face": "0:5"}, "there is no face 0:5"),
        ({"face": ["0:0", "0:1"]}, "one for each image"),
        ({"face": "first"}, "face.0: must be image_index:face_index"),
        ({"face_id": "x"}, "face_id.0: must be the face_id of a stored face"),
        ({"embedding": "[1, 2]"}, "an embedding of this model has 512 numbers, not 2"),
        ({"embedding": "[]"}, "embedding: must be a JSON array of finite numbers"),
        ({"embedding": json.dumps([0] * 512)}, "embedding: must be"),
        ({"embedding": "[NaN]"}, "embedding: must be"),
        ({"embedding": "[1e999]"}, "embedding: must be"),
        ({"embedding": "[1" + "0" * 400 + "]"}, "embedding: must be"),
        ({"embedding": "[true]"}, "embedding: must be"),
        ({"embedding": "[" * 5000}, "embedding: must be"),
        ({"embedding": "1"}, "embedding: must be"),
        ({"embedding": ["[1]"] * 11}, "embedding: must be"),
        ({"embedding": [json.dumps([1] * 512)] * 10}, "11 examples of one person are too many"),
        ({"max_faces": "1", "face": "0:0"}, "`max_faces` is for one `image`"),
        ({"sort": "size"}, "sort: must be similarity, newest or oldest"),
        ({"min_face": "0"}, "min_face: must be a whole number of pixels"),
        ({"not_face_id": [f"{n:08x}-0a9f-5f0c-9d0e-7a0f3a3b1c2d" for n in range(11)]}, "at most 10 of them"),
    ],
)
def test_examples_that_cannot_be_meant_are_400_in_plain_words(
    crowd: TestClient, data: dict[str, Any], words: str
) -> None:
    error = _error(crowd.post("/search", files=_images(RED), data=data), 400, "invalid_request")
    assert words in error["message"]


def test_a_large_and_a_tiny_embedding_are_scaled(client: TestClient, index: CountingIndex) -> None:
    index.upsert([point(1)])
    for factor in (1e200, 1e-200):
        vector = json.dumps([factor * float(one) for one in point(1).embedding])
        (match,) = _combined(client.post("/search", data={"embedding": vector}))["matches"]
        assert match["similarity"] == pytest.approx(1, abs=1e-6)


def test_an_image_without_a_face_is_named(client: TestClient) -> None:
    error = _error(client.post("/search", files=_images(RED, BLACK)), 422, "face_not_found")
    assert error["details"] == {"image_index": 1, "width": 64, "height": 48}


@pytest.mark.parametrize("field", ["face_id", "with_face_id", "not_face_id"])
def test_a_stored_face_that_is_not_there_is_404(client: TestClient, field: str) -> None:
    answer = client.post("/search", files=_images(RED), data={field: UNKNOWN})
    assert _error(answer, 404, "face_unknown")["details"] == {"face_id": UNKNOWN}


# conditions


def test_a_further_person_must_be_in_the_same_image(client: TestClient, index: CountingIndex) -> None:
    alone, shared = point(1), point(2)
    friend = _beside(3, shared, seed=9)
    index.upsert([alone, shared, friend])
    body = client.post("/search", files=_images(RED), data={"with_face_id": friend.face_id}).json()
    (match,) = body["faces"][0]["matches"]
    assert match["face_id"] == shared.face_id
    (together,) = match["together"]
    assert (together["face_id"], together["sureness"]) == (friend.face_id, "very_likely")
    assert together["thumb_url"] == f"/thumbs/{friend.face_id}"
    without = client.post("/search", data={"face_id": alone.face_id, "not_face_id": alone.face_id})
    assert _paths(_combined(without)) == []


def test_a_further_person_may_be_another_face_of_the_image(crowd: TestClient, index: CountingIndex) -> None:
    alone, shared = point(1), point(2)
    index.upsert([alone, shared, _beside(3, shared, seed=7)])
    found = _combined(crowd.post("/search", files=_images(RED), data={"face": "0:0", "with_face": "0:1"}))
    assert _paths(found) == ["/photos/2.jpg"]


def test_matches_are_sorted_and_grouped_and_small_faces_left_out(client: TestClient, index: CountingIndex) -> None:
    days = ["2020-05-01T10:00:00", "2021-05-01T10:00:00", "2021-05-01T11:00:00", None]
    stored = [point(number, taken_at=day) for number, day in enumerate(days)]
    less = combined([stored[1].embedding] * 9 + [embedding_of(7)])  # the most similar match of a day is kept
    index.upsert([stored[0], replace(stored[1], embedding=less), *stored[2:]])
    index.upsert([point(9, taken_at="2019-01-01", bbox=(0.0, 0.0, 5.0, 50.0))])
    data = {"face_id": point(0).face_id, "min_face": "20"}
    newest = _combined(client.post("/search", data=data | {"sort": "newest"}))
    assert _paths(newest) == [f"/photos/{number}.jpg" for number in (2, 1, 0, 3)]
    by_day = _combined(client.post("/search", data=data | {"sort": "oldest", "group_by": "day"}))
    assert [(match["path"], match["group_size"]) for match in by_day["matches"]] == [
        ("/photos/0.jpg", 1), ("/photos/2.jpg", 2), ("/photos/3.jpg", 1),
    ]  # fmt: skip
    undated = _combined(client.post("/search", data={"face_id": point(0).face_id, "undated": "true"}))
    assert _paths(undated) == ["/photos/3.jpg"]


def test_the_pages_of_a_combined_query_lead_to_its_last_match(client: TestClient, index: CountingIndex) -> None:
    index.upsert([point(number, taken_at=f"20{number:02}-01-01") for number in range(23)])
    for sort in ("similarity", "newest"):
        data = {"face_id": point(0).face_id, "sort": sort, "limit": "5"}
        page = _combined(client.post("/search", data=data))
        seen = _paths(page)
        while page["next"]:
            page = client.post("/search/more", data={"after": page["next"], "limit": "5"}).json()
            seen += _paths(page)
        assert sorted(seen) == sorted(f"/photos/{number}.jpg" for number in range(23))


# POST /faces/{face_id}/search


def test_a_stored_face_is_searched_and_is_in_its_own_result(client: TestClient, index: CountingIndex) -> None:
    red, green = point(1), point(2, GREEN)
    index.upsert([red, green])
    found = _combined(client.post(f"/faces/{red.face_id.upper()}/search"))
    assert [(match["face_id"], match["similarity"]) for match in found["matches"]] == [(red.face_id, 1.0)]
    data = {"face_id": [green.face_id, red.face_id], "threshold": "0.1"}
    found = _combined(client.post(f"/faces/{red.face_id}/search", data=data))
    assert [example["face_id"] for example in found["examples"]] == [red.face_id, green.face_id]
    assert len(found["matches"]) == 2
    _error(client.post(f"/faces/{UNKNOWN}/search"), 404, "face_unknown")
    _error(client.post("/faces/x/search"), 404, "face_unknown")
    _error(client.post(f"/faces/{red.face_id}/search", data={"face": "0:0"}), 400, "invalid_request")


# POST /search/batch


def _batch(client: TestClient, *queries: Any) -> list[dict[str, Any]]:
    answer = client.post("/search/batch", json={"queries": queries})
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def test_a_batch_answers_each_query_as_a_request_of_its_own(client: TestClient, index: CountingIndex) -> None:
    index.upsert([point(number, colour) for number, colour in enumerate((RED, RED, GREEN, BLUE))])
    vector = point(3, BLUE).embedding.tolist()
    queries: list[dict[str, Any]] = [
        {"face_id": [point(0).face_id], "limit": 1},
        {"face_id": point(2, GREEN).face_id, "folder": "/photos", "without": ["blurred"]},
        {"embedding": vector, "limit": 1, "person": None},
        {"embedding": [vector, vector], "threshold": 0.9, "sort": "newest", "group_by": "image_id"},
    ]
    results = _batch(client, *queries)
    assert [result["error"] for result in results] == [None] * 4
    assert index.searches == [2, 1], "queries with the same options are searched together"
    for query, result in zip(queries, results, strict=True):
        data = {name: value for name, value in query.items() if name != "embedding" and value is not None}
        if "embedding" in query:
            vectors = query["embedding"] if isinstance(query["embedding"][0], list) else [query["embedding"]]
            data["embedding"] = [json.dumps(one) for one in vectors]
        alone = client.post("/search", data=data).json()
        assert result["combined"] == alone["combined"]
        assert result["threshold"] == alone["threshold"]
    after = results[0]["combined"]["next"]
    assert _paths(client.post("/search/more", data={"after": after}).json()) == ["/photos/1.jpg"]


def test_a_wrong_query_of_a_batch_has_its_own_error(client: TestClient, index: CountingIndex) -> None:
    index.upsert([point(1)])
    good = {"face_id": point(1).face_id}
    results = _batch(
        client,
        good,
        {},
        {"face_id": UNKNOWN},
        good | {"limit": 0},
        good | {"folder": "/nowhere"},
        {"embedding": [0, 0]},
    )
    codes = [result["error"] and result["error"]["code"] for result in results]
    assert codes == [None, "invalid_request", "face_unknown", "invalid_request", "folder_unknown", "invalid_request"]
    assert _paths(results[0]["combined"]) == ["/photos/1.jpg"]
    assert all(result["combined"] is None for result in results[1:])
    assert results[1]["error"]["message"] == "send a `face_id` or an `embedding`"
    spanish = client.post("/search/batch", json={"queries": [{"face_id": UNKNOWN}]}, headers={"Accept-Language": "es"})
    assert spanish.json()["results"][0]["error"]["message"] != results[2]["error"]["message"]


def test_keys_that_are_no_text_do_not_break_the_answer(client: TestClient) -> None:
    body = b'{"queries": [{"\\ud800": 1, "person": "\\udfff"}]}'
    answer = client.post("/search/batch", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400)


@pytest.mark.parametrize(
    "body",
    [
        "", "[]", "{}", "null", '{"queries": []}', '{"queries": [1]}', '{"queries": {}}', '{"queries": [{}], "x": 1}',
        "{" * 100_000, '{"queries": ' + "[" * 100_000, json.dumps({"queries": [{}] * 101}), b"\xff\xfe",
    ],
)  # fmt: skip
def test_a_body_that_is_no_batch_is_400(client: TestClient, body: Any) -> None:
    answer = client.post("/search/batch", content=body, headers={"Content-Type": "application/json"})
    assert "`queries`" in _error(answer, 400, "invalid_request")["message"]


def test_a_batch_is_json_and_has_a_largest_size(client: TestClient, index: CountingIndex) -> None:
    error = _error(client.post("/search/batch", data={"queries": "1"}), 400, "invalid_request")
    assert error["message"] == "send application/json with the list `queries`"
    index.upsert([point(1)])
    one = {"face_id": point(1).face_id, "limit": 1000}
    assert len(_batch(client, *[one] * 20)) == 20
    answer = client.post("/search/batch", json={"queries": [one] * 21})
    assert _error(answer, 400, "invalid_request")["details"] == {"limit": 21_000, "max_limit": 20_000}


def test_an_index_that_is_gone_is_an_error_of_the_whole_batch(client: TestClient, index: CountingIndex) -> None:
    index.upsert([point(1)])
    index.failure = OceanoError("index_unavailable", "gone")
    answer = client.post("/search/batch", json={"queries": [{"face_id": point(1).face_id}]})
    _error(answer, 503, "index_unavailable")


def test_no_embedding_leaves_the_service(client: TestClient, index: CountingIndex) -> None:
    index.upsert([point(1)])
    (result,) = _batch(client, {"face_id": point(1).face_id})
    assert "embedding" not in {key for example in result["combined"]["examples"] for key in example}
    assert not any(isinstance(value, list) and len(value) == 512 for value in _values(result))


def _values(value: Any) -> Iterator[Any]:
    yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _values(one)


def test_the_fakes_tell_people_apart() -> None:
    """What the other tests rest on."""
    people = np.stack([point(1).embedding, point(1, GREEN).embedding, point(1, BLUE).embedding, embedding_of(7)])
    assert np.abs(people @ people.T - np.eye(4)).max() < 0.2
