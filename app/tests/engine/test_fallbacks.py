"""fallbacks: every view leads back to the upright picture; each fallback only after the one before; on drawn people."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from app.core.config import Settings
from app.core.types import FoundBy, ModelPack, Picture, Pixels
from app.demo import draw_group, draw_portrait
from app.embeddings import FaceEngine
from app.engine.fallbacks import FALLBACKS, View, direct, views
from app.engine.frames import Detections
from tests.support.fakes import picture_of

SIZE = (640, 640)


@pytest.fixture(scope="module")
def engine(demo_pack: ModelPack) -> FaceEngine:
    return FaceEngine(demo_pack, Settings(_env_file=None, device="cpu"))


def _spot(pixels: Pixels) -> tuple[float, float]:
    """The middle of what is green."""
    ys, xs = np.nonzero((pixels[..., 1].astype(int) - pixels[..., 2] > 120) & (pixels[..., 1] > 150))
    return float(xs.mean()), float(ys.mean())


def _picture(scale: float) -> Picture:
    pixels = np.full((1500, 2000, 3), 90, np.uint8)
    pixels[300:340, 1500:1560] = (0, 255, 0)
    reduced = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)
    return Picture("a" * 64, reduced, "JPEG", None, 2000, 1500, scale, lambda: pixels)


@pytest.mark.parametrize("fallback", ["direct", *FALLBACKS])
@pytest.mark.parametrize("scale", [1.0, 0.5, 0.25])
def test_what_is_found_in_a_view_is_where_it_is_in_the_picture(fallback: FoundBy, scale: float) -> None:
    picture = _picture(scale)
    looks = [direct(picture, SIZE)] if fallback == "direct" else list(views(fallback, picture, SIZE))
    assert looks
    for look in looks:
        x, y = _spot(look.pixels)
        box = np.array([[x - 3, y - 2, x + 3, y + 2]], np.float32)
        kps = np.full((1, 5, 2), (x, y), np.float32)
        seen = look.back(Detections(box, kps, np.ones(1, np.float32)))
        assert np.abs(seen.kps[0] - (1529.5, 319.5)).max() < 6
        x1, y1, x2, y2 = seen.boxes[0]
        assert x1 < 1529.5 < x2
        assert y1 < 319.5 < y2


def test_a_picture_that_was_not_shrunk_is_not_looked_at_larger() -> None:
    assert list(views("larger", picture_of(np.zeros((600, 640, 3), np.uint8)), SIZE)) == []


def test_the_larger_view_of_a_reduced_picture_has_as_many_pixels_as_the_input_takes() -> None:
    (look,) = views("larger", _picture(0.25), SIZE)
    assert max(look.pixels.shape) >= 1280
    assert look.size == (1280, 1280)


def _found_by(engine: FaceEngine, pixels: Pixels) -> set[FoundBy]:
    return {face.found_by for face in engine.analyze([picture_of(pixels)])[0]}


def test_a_face_that_fills_the_frame_is_found_within_a_border(engine: FaceEngine) -> None:
    portrait = draw_portrait(7, 0)
    (straight,) = engine.analyze([picture_of(portrait)])[0]
    x1, y1, x2, y2 = straight.bbox
    left, top = int(x1 + 0.1 * (x2 - x1)), int(y1 + 0.1 * (y2 - y1))
    right, bottom = int(x2 - 0.1 * (x2 - x1)), int(y2 - 0.1 * (y2 - y1))
    close_up = cv2.resize(portrait[top:bottom, left:right], None, fx=4, fy=4).astype(np.uint8)
    (found,) = engine.analyze([picture_of(close_up)])[0]
    height, width = close_up.shape[:2]
    assert found.found_by == "border"
    assert 0 <= found.bbox[0] < found.bbox[2] <= width
    assert 0 <= found.bbox[1] < found.bbox[3] <= height
    back = np.array(found.kps) / 4 + (left, top)
    assert np.abs(back - np.array(straight.kps)).max() < 0.05 * (x2 - x1)


def test_small_faces_of_a_large_picture_are_found_in_a_larger_input(engine: FaceEngine) -> None:
    people = draw_portrait(3, 0, (64, 64))
    canvas = np.full((2560, 2560, 3), 200, np.uint8)
    canvas[1200:1264, 1300:1364] = people
    small = [engine.analyze([picture_of(canvas)])[0]]
    assert [face.found_by for face in small[0]] in ([], ["larger"])


def test_a_fallback_is_tried_only_when_the_one_before_found_nothing(
    engine: FaceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def watched(fallback: FoundBy, picture: Picture, size: tuple[int, int]) -> Sequence[View]:
        asked.append(fallback)
        return list(views(fallback, picture, size))

    monkeypatch.setattr("app.engine.detector.views", watched)
    assert _found_by(engine, draw_group([1, 2])) == {"direct"}
    assert asked == []
    assert _found_by(engine, np.full((900, 1200, 3), 128, np.uint8)) == set()
    assert asked == list(FALLBACKS)


def test_only_the_fallbacks_that_the_settings_name_are_tried(
    demo_pack: ModelPack, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(_env_file=None, device="cpu", fallbacks="none")
    assert settings.fallbacks == ()
    engine = FaceEngine(demo_pack, settings)
    monkeypatch.setattr("app.engine.detector.views", None)
    assert engine.analyze([picture_of(np.full((900, 1200, 3), 128, np.uint8))]) == [[]]


def test_a_huge_image_is_shrunk_once_for_all_views(monkeypatch: pytest.MonkeyPatch, engine: FaceEngine) -> None:
    large = np.random.default_rng(1).integers(90, 110, (900, 1400, 3), np.uint8)  # no face, so all views are tried
    sizes = []

    def resize(pixels: Pixels, *arguments: Any, **options: Any) -> Pixels:
        sizes.append(pixels.shape[:2])
        return cv2.resize(pixels, *arguments, **options)

    monkeypatch.setattr("app.engine.fallbacks.cv2", SimpleNamespace(**(vars(cv2) | {"resize": resize})))
    assert not engine.analyze([picture_of(large)])[0]
    assert sizes.count((900, 1400)) == 1
