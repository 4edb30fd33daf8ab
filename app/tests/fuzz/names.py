"""Names in metadata: where files have XMP packets, their regions, and writing regions into them."""

from __future__ import annotations

import contextlib
import math
import warnings
from typing import Final

from app.images.decoding import orientation_of
from app.images.regions import Region, names_in
from app.images.xmp import xmp_packets
from app.images.xmp_writing import packet_of, with_packet, with_regions
from tests.support.xmp import microsoft, mwg, packet, picture_with, shown

_NEW: Final = Region("Ana", (0.25, 0.25, 0.5, 0.5))
_FACES: Final = [("Ana", 0.5, 0.5, 0.2, 0.2), ("Bob", 0.2, 0.2, 0.1, 0.1)]


def fuzz_one(data: bytes) -> None:
    """Read the names of the data as a picture and as a packet, and write one more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damaged files
        assert 1 <= orientation_of(data) <= 8
    for one in [*xmp_packets(data), data]:
        found = names_in(one)
        for region in (region for layer in found.layers for region in layer):
            x1, y1, x2, y2 = region.box
            assert all(math.isfinite(side) for side in region.box)
            assert 0 <= x1 <= x2 <= 1
            assert 0 <= y1 <= y2 <= 1
            assert region.name
        try:
            written = with_regions(one, [_NEW], (100, 100))
        except ValueError:
            continue
        layers = names_in(written).layers
        assert layers, one
        assert "Ana" in [region.name for region in layers[0]], one
    if data.startswith(b"\xff\xd8\xff"):
        with contextlib.suppress(ValueError):
            assert packet_of(with_packet(data, b"<x/>")) == b"<x/>"


SEEDS: Final = [
    packet(mwg(_FACES, (160, 120)) + microsoft(_FACES) + shown("Ana")),
    packet(mwg(_FACES, (160, 120), kind="Pet"), 'photoshop:City="Vigo"'),
    *(picture_with(packet(mwg(_FACES, (24, 16))), kind, size=(24, 16)) for kind in ("JPEG", "PNG", "TIFF", "WEBP")),
    *(picture_with(packet(mwg(_FACES, (32, 32))), kind, size=(32, 32)) for kind in ("HEIF", "AVIF")),
    picture_with(packet(mwg(_FACES)), size=(24, 16), orientation=6),
]
