"""tiles: they cover the image and lead back to it; small faces of large images, cut ones, and what is not tiled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from app.core.config import Settings, load_settings
from app.core.errors import OceanoError
from app.core.types import Face, ModelPack, Picture, Pixels
from app.demo import draw_portrait
from app.embeddings import FaceEngine
from app.engine import detector
from app.engine.found import Found
from app.engine.frames import Detections
from app.engine.tiles import shows_something, tile_views
from tests.support.fakes import picture_of

SIZE = (640, 640)
SIDE = 150  # pixels of a portrait; its face is about half as wide


def _engine(pack: ModelPack, **settings: Any) -> FaceEngine:
    return FaceEngine(pack, Settings(_env_file=None, device="cpu", **settings))


def _crowd(width: int, height: int, columns: int, rows: int) -> Pixels:
    """Small portraits evenly over a large picture."""
    canvas = np.full((height, width, 3), 200, np.uint8)
    portraits = [draw_portrait(person, 0, (SIDE, SIDE)) for person in range(5)]
    for index in range(columns * rows):
        x = (index % columns * (width - SIDE)) // max(1, columns - 1)
        y = (index // columns * (height - SIDE)) // max(1, rows - 1)
        canvas[y : y + SIDE, x : x + SIDE] = portraits[index % 5]
    return canvas


def _faces(engine: FaceEngine, pixels: Pixels) -> list[Face]:
    (faces,) = engine.analyze([picture_of(pixels)])
    return faces


@pytest.mark.parametrize(("width", "height"), [(6000, 4000), (1900, 1300), (12_000, 1500), (700, 9000)])
@pytest.mark.parametrize("tiles", ["auto", 4, 9])
def test_tiles_cover_the_picture_and_every_small_box_is_whole_in_one(width: int, height: int, tiles: Any) -> None:
    views = list(tile_views(picture_of(np.zeros((height, width, 3), np.uint8)), SIZE, tiles))
    finest = max(1 / view.matrix[0, 0] for view in views)
    assert all(view.pixels.shape[0] <= 640 and view.pixels.shape[1] <= 640 for view in views)
    side = 140 / finest
    rng = np.random.default_rng(1)
    for x, y in rng.uniform((0, 0), (width - side, height - side), (200, 2)):
        box = np.array([[x, y, x + side, y + side]], np.float32)
        seen = 0
        for view in views:
            scale, corner = view.matrix[0, 0], view.matrix[:, 2]
            inside = Detections(
                (box - np.tile(corner, 2)) / scale, np.zeros((1, 5, 2), np.float32), np.ones(1, np.float32)
            )
            x1, y1, x2, y2 = inside.boxes[0]
            within = x1 >= -1 and y1 >= -1 and x2 <= view.pixels.shape[1] + 1 and y2 <= view.pixels.shape[0] + 1
            if within and len(view.uncut(inside).scores):
                assert np.abs(view.back(inside).boxes - box).max() < 0.1
                seen += 1
        assert seen, (x, y)


def test_a_picture_of_the_inputs_size_has_no_tiles_and_none_are_made_if_they_are_off() -> None:
    assert list(tile_views(picture_of(np.zeros((600, 640, 3), np.uint8)), SIZE, 4)) == []
    assert list(tile_views(picture_of(np.zeros((4000, 6000, 3), np.uint8)), SIZE, "off")) == []


@pytest.mark.parametrize(("scale", "decodes"), [(0.5, 0), (0.25, 1)])
def test_a_reduced_picture_is_decoded_in_full_only_if_it_has_too_few_pixels(scale: float, decodes: int) -> None:
    pixels = np.zeros((4000, 6000, 3), np.uint8)
    asked: list[int] = []

    def full() -> Pixels:
        asked.append(1)
        return pixels

    reduced = pixels[:: round(1 / scale), :: round(1 / scale)]
    list(tile_views(Picture("a" * 64, reduced, "JPEG", None, 6000, 4000, scale, full), SIZE, "auto"))
    assert len(asked) == decodes


def test_everybody_in_a_large_picture_is_found_once_in_canonical_order(demo_pack: ModelPack) -> None:
    pixels = _crowd(5200, 3400, 8, 5)
    faces = _faces(_engine(demo_pack), pixels)
    assert len(faces) == 40
    assert [face.bbox for face in faces] == sorted(face.bbox for face in faces)
    assert "tiles" in {face.found_by for face in faces}
    assert len(_faces(_engine(demo_pack, tiles="off"), pixels)) < 40


def test_a_large_face_in_front_does_not_end_the_search_for_the_others(demo_pack: ModelPack) -> None:
    pixels = _crowd(5200, 3400, 8, 2)
    pixels[1000:2600, 1800:3400] = draw_portrait(7, 0, (1600, 1600))
    faces = _faces(_engine(demo_pack), pixels)
    assert len(faces) == 17
    assert max(face.bbox[2] - face.bbox[0] for face in faces) > 500


def test_everybody_in_a_panorama_is_found(demo_pack: ModelPack) -> None:
    assert len(_faces(_engine(demo_pack), _crowd(12_000, 700, 20, 2))) == 40


def test_a_face_at_the_border_of_tiles_is_found_once_and_whole(demo_pack: ModelPack) -> None:
    engine = _engine(demo_pack)
    for left in range(600, 1000, 57):
        canvas = np.full((2600, 5200, 3), 200, np.uint8)
        canvas[700 : 700 + SIDE, left : left + SIDE] = draw_portrait(3, 0, (SIDE, SIDE))
        (face,) = _faces(engine, canvas)
        (alone,) = _faces(engine, canvas[600:1000, left - 125 : left + 275])
        assert np.abs(np.array(face.bbox) - alone.bbox - (left - 125, 600, left - 125, 600)).max() < 12
        assert float(face.embedding @ alone.embedding) > 0.8


def test_an_ordinary_picture_without_small_faces_is_not_tiled(
    demo_pack: ModelPack, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = draw_portrait(3, 0, (1200, 1200))
    ordinary = np.full((1200, 1600, 3), 200, np.uint8)
    ordinary[:, 200:1400] = large
    small = np.full((1200, 1600, 3), 200, np.uint8)
    small[300:410, 200:310] = draw_portrait(3, 0, (110, 110))
    small[200:1200, 600:1600] = cv2.resize(large, (1000, 1000)).astype(np.uint8)
    tiled: list[int] = []

    def watched(picture: Picture, *_: Any) -> Any:
        tiled.append(picture.width)
        return iter(())

    monkeypatch.setattr("app.engine.detector.tile_views", watched)
    engine = _engine(demo_pack)
    assert len(_faces(engine, ordinary)) == 1
    assert not tiled
    assert len(_faces(engine, small)) == 2
    assert tiled == [1600]
    _faces(_engine(demo_pack, tiles="off"), small)
    assert tiled == [1600]
    _faces(_engine(demo_pack, tiles=3), ordinary)
    assert tiled == [1600, 1600]


@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), ("off", "off"), ("2", 2), (" 16 ", 16)])
def test_the_setting_is_auto_off_or_a_number(monkeypatch: pytest.MonkeyPatch, text: str, value: str | int) -> None:
    monkeypatch.setenv("TILES", text)
    assert load_settings(None).tiles == value


@pytest.mark.parametrize("text", ["1", "17", "on", "-3", "2.5"])
def test_any_other_value_of_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch, text: str, tmp_path: Path) -> None:
    monkeypatch.setenv("TILES", text)
    with pytest.raises(OceanoError, match=r"TILES=.*auto, off, or a number from 2 to 16"):
        load_settings(tmp_path / ".env")


def test_of_very_many_detections_only_the_best_are_merged(
    demo_pack: ModelPack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Merging takes time by the square of their number: thousands of faces held the model for minutes."""
    lengths: list[int] = []
    merge = detector.merged

    def counted(faces: Sequence[Found], others: Sequence[Found], **options: float) -> list[Found]:
        lengths.append(len(others))
        return merge(faces, others, **options)

    monkeypatch.setattr(detector, "merged", counted)
    monkeypatch.setattr(detector, "_MOST_TILE_DETECTIONS", 7)
    monkeypatch.setattr(detector, "_MOST_TILED_FACES", 5)
    assert len(_faces(_engine(demo_pack), _crowd(6000, 4000, 6, 3))) == 5
    assert max(lengths) == 7


def test_tiles_of_one_colour_are_left_out() -> None:
    page = np.full((640, 640, 3), 240, np.uint8)
    assert not shows_something(page)
    page[::2] = 236  # noise
    assert not shows_something(page)
    page[300:320, 300:320] = 100  # a small face
    assert shows_something(page)
