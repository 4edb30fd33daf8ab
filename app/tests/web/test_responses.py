from __future__ import annotations

import json
import math

import numpy as np
import pytest

from app.catalog import Person
from app.core.types import Face, FaceRecord, Match
from app.service import ListedMatch, bands_of
from app.web.api.matches import MatchedFace
from app.web.api.person_names import Names
from app.web.api.responses import FaceResponse, FoundFace, ImageSize, finite, rounded
from tests.support.fakes import FAKE_PACK, embedding_of, picture_of
from tests.support.pictures import KPS, point

BANDS = bands_of(FAKE_PACK, 10_000)
ADA = Person("5a1c6f36-27a0-4d4e-8d7e-0d2f6e1f4a11", "Ada", False, None, None, None, 1, "2026", "2026", 1)
NO_TEXT = b"/photos/caf\xe9.jpg".decode("utf-8", "surrogateescape")


def test_a_face_has_place_box_points_scores_and_how_it_was_found() -> None:
    face = Face((1.23456, 2.0, 30.5, 40.999), KPS, 0.912345, 0.81239, "border", embedding_of(1), ("blurred",))
    assert FoundFace.of(3, face).model_dump(mode="json") == {
        "face_index": 3, "bbox": [1.23, 2.0, 30.5, 41.0], "kps": [list(one) for one in KPS], "det_score": 0.9123,
        "quality": 0.8124, "flaws": ["blurred"], "found_by": "border",
    }  # fmt: skip


def test_a_match_tells_where_its_picture_lies_and_no_embedding() -> None:
    stored = point(1, person=ADA.id)
    listed = ListedMatch(Match(stored.face_id, 0.71234567, stored.payload), group_size=3)
    body = MatchedFace.of(listed, BANDS, Names({ADA.id: ADA}), "/faces").model_dump(mode="json")
    assert body == {
        "face_id": stored.face_id, "image_id": f"{1:064x}", "similarity": 0.712346, "sureness": "very_likely",
        "person": {"id": ADA.id, "name": "Ada", "hidden": False},
        "path": "/photos/1.jpg", "page": 0, "width": stored.payload.width,
        "height": stored.payload.height, "taken_at": None, "bbox": [1.0, 2.0, 30.5, 40.25], "quality": 0.8,
        "flaws": [], "group_size": 3, "together": [], "thumb_url": f"/faces/thumbs/{stored.face_id}",
        "image_url": f"/faces/images/{1:064x}",
    }  # fmt: skip


def test_a_stored_face_is_told_whole_but_for_its_embedding() -> None:
    stored = point(1, taken_at="2019-07-20T20:17:40")
    record = FaceRecord(stored.face_id, stored.payload, stored.embedding)
    body = FaceResponse.of(record, None, ["/photos/1.jpg", "/copy.jpg"], FAKE_PACK).model_dump(mode="json")
    assert set(body) == {
        "face_id", "thumb_url", "image_id", "path", "folder", "page", "bbox", "kps", "width", "height", "det_score",
        "quality", "person", "taken_at", "ingested_at", "flaws", "paths", "request_id", "model",
    }  # fmt: skip
    assert body["folder"] == ["/", "/photos"]
    assert json.loads(json.dumps(body))["taken_at"] == "2019-07-20T20:17:40"


def test_a_file_name_that_is_no_text_can_be_sent() -> None:
    stored = point(1, path=NO_TEXT, folder=("/", NO_TEXT))
    match = MatchedFace.of(ListedMatch(Match(stored.face_id, 1.0, stored.payload)), BANDS, Names())
    face = FaceResponse.of(FaceRecord("x", stored.payload), None, [NO_TEXT], FAKE_PACK)
    for body in (match, face):
        assert json.loads(body.model_dump_json())["path"] == "/photos/caf\\xe9.jpg"
    assert face.paths == ["/photos/caf\\xe9.jpg"]
    assert face.folder == ["/", "/photos/caf\\xe9.jpg"]


def test_a_face_has_the_name_of_the_catalog_and_without_the_catalog_the_id() -> None:
    named, unnamed = point(1, person=ADA.id).payload, point(2).payload
    ref = Names({ADA.id: ADA}).of(named)
    assert ref is not None
    assert ref.model_dump() == {"id": ADA.id, "name": "Ada", "hidden": False}
    assert Names().of(named) is None, "deleted meanwhile"
    unread = Names(is_read=False).of(named)
    assert unread is not None
    assert unread.model_dump() == {"id": ADA.id, "name": None, "hidden": None}
    assert [one.of(unnamed) for one in (Names({ADA.id: ADA}), Names(is_read=False))] == [None, None]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_say_is_null(value: float) -> None:
    assert finite(value) is None
    assert finite(0.5) == 0.5


def test_times_are_hundredths_of_milliseconds() -> None:
    assert rounded({"decode": 1.23456, "total": 2}) == {"decode": 1.23, "total": 2}


def test_an_image_is_told_by_its_upright_size() -> None:
    assert ImageSize.of(picture_of(np.zeros((3, 5, 3), np.uint8))).model_dump() == {"width": 5, "height": 3}
