"""Pictures as files' bytes, and a point for each."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from app.core.types import FacePayload, FacePoint, face_id_of
from tests.support.fakes import FAKE_PACK, FakeEngine, picture_of

RED, GREEN, BLUE = (230, 20, 20), (20, 230, 20), (20, 20, 230)
BLACK = (0, 0, 0)  # the FakeEngine sees no face here
KPS = ((1.0, 2.0), (3.0, 4.0), (5.0, 6.0), (7.0, 8.0), (9.0, 10.0))


def encoded(colour: tuple[int, int, int] = RED, size: tuple[int, int] = (64, 48), kind: str = "PNG") -> bytes:
    """A picture of one colour as a file's bytes."""
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind)
    return out.getvalue()


def payload_of(image_id: str, **payload: Any) -> FacePayload:
    """The payload of a clear face without a name; `payload` says where it is, and what differs."""
    stored: dict[str, Any] = {
        "kps": KPS,
        "width": 640,
        "height": 480,
        "det_score": 0.9,
        "quality": 0.8,
        "person": None,
        "taken_at": None,
        "ingested_at": "2026-01-01T00:00:00+00:00",
    }
    return FacePayload(image_id, **(stored | payload))


def point(number: int, colour: tuple[int, int, int] = RED, **payload: Any) -> FacePoint:
    """A stored face of the person that the FakeEngine sees in this colour; `number` makes its image another one."""
    pixels = np.full((8, 8, 3), colour[::-1], np.uint8)
    (face,) = FakeEngine().analyze([picture_of(pixels)])[0]
    image_id = payload.pop("image_id", f"{number:064x}")
    place = {"path": f"/photos/{number}.jpg", "folder": ("/", "/photos"), "bbox": (1.0, 2.0, 30.5, 40.25)}
    return FacePoint(
        face_id_of(image_id, FAKE_PACK.digest, 0), face.embedding, payload_of(image_id, **(place | payload))
    )
