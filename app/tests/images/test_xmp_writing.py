"""images.xmp_writing: what was written is read back by exiftool and by us, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.images.decoding import decode
from app.images.regions import Region, names_in
from app.images.xmp import MAX_PACKET_BYTES, xmp_packets
from app.images.xmp_writing import MAX_JPEG_PACKET, packet_of, with_packet, with_regions
from tests.support import exiftool
from tests.support.exiftool import needs_exiftool
from tests.support.xmp import microsoft, mwg, packet, picture_with

SIZE = (160, 120)
ANA = Region("Ana", (0.2, 0.4, 0.3, 0.6))
NAMES = ["Ana | Maria", "alex", "عمر", "\u200fשרה\u200e", "李小龙", "n" * 300, 'O\'Brien & <Sons> "x"', "👩‍👧"]


def _read(written: bytes) -> list[tuple[str, tuple[float, ...]]]:
    layers = names_in(written).layers
    return [(one.name, tuple(round(side, 4) for side in one.box)) for one in (layers[0] if layers else ())]


@needs_exiftool
def test_exiftool_reads_what_was_written_to_a_new_sidecar(tmp_path: Path) -> None:
    regions = [Region(name, (0.1 * n, 0.4, 0.1 * n + 0.05, 0.6)) for n, name in enumerate(NAMES, 1)]
    sidecar = tmp_path / "a.jpg.xmp"
    sidecar.write_bytes(with_regions(b"", regions, SIZE))
    found = exiftool.regions(sidecar)
    assert [*found] == NAMES
    for region in regions:
        area = found[region.name]
        assert area["Unit"] == "normalized"  # type: ignore[comparison-overlap]
        x1, _, x2, _ = region.box
        assert (area["X"], area["Y"], area["W"], area["H"]) == pytest.approx(((x1 + x2) / 2, 0.5, 0.05, 0.2))
    applied = exiftool.tags(sidecar)["RegionInfo"]["AppliedToDimensions"]
    assert (applied["W"], applied["H"], applied["Unit"]) == (160, 120, "pixel")


def test_what_was_written_is_read_back() -> None:
    for name in NAMES:
        written = with_regions(b"", [Region(name, ANA.box)], SIZE)
        assert _read(written) == [(name, (0.2, 0.4, 0.3, 0.6))]


def test_other_properties_and_regions_of_others_stay(tmp_path: Path) -> None:
    before = packet(
        mwg([("Old", 0.25, 0.5, 0.1, 0.2), ("Other", 0.9, 0.9, 0.1, 0.1), ("Ana", 0.6, 0.1, 0.1, 0.1)], SIZE)
        + "<dc:title><rdf:Alt><rdf:li xml:lang='x-default'>Sea &amp; sun</rdf:li></rdf:Alt></dc:title>"
        + microsoft([("Kept", 0.5, 0.5, 0.1, 0.1)]),
        'photoshop:City="Vigo"',
    )
    after = with_regions(before, [ANA], SIZE)
    assert sorted(name for name, _ in _read(after)) == ["Ana", "Other"]
    assert {one.name for layer in names_in(after).layers for one in layer} == {"Ana", "Other", "Kept"}
    assert b'photoshop:City="Vigo"' in after
    assert b"Sea &amp; sun" in after


@needs_exiftool
def test_exiftool_reads_a_merged_sidecar(tmp_path: Path) -> None:
    sidecar = tmp_path / "a.jpg.xmp"
    title = "<dc:title><rdf:Alt><rdf:li xml:lang='x-default'>Sea</rdf:li></rdf:Alt></dc:title>"
    sidecar.write_bytes(packet(mwg([("Rex", 0.5, 0.5, 0.2, 0.2)], SIZE, kind="Pet") + title, 'photoshop:City="Vigo"'))
    sidecar.write_bytes(with_regions(sidecar.read_bytes(), [ANA], SIZE))
    found = exiftool.tags(sidecar)
    assert (found["Title"], found["City"]) == ("Sea", "Vigo")
    assert [(one["Name"], one["Type"]) for one in found["RegionInfo"]["RegionList"]] == [
        ("Rex", "Pet"),
        ("Ana", "Face"),
    ]


@pytest.mark.parametrize(
    "before",
    [
        '<?xml version="1.0" encoding="UTF-8"?><r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/>',
        '<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><r:Description r:about=""/></r:RDF>',
    ],
    ids=["no description", "another prefix, no packet"],
)
def test_packets_of_unusual_programs_get_regions(before: str) -> None:
    assert _read(with_regions(before.encode(), [ANA], SIZE)) == [("Ana", (0.2, 0.4, 0.3, 0.6))]


def test_the_same_names_again_change_nothing() -> None:
    first = with_regions(packet("", 'photoshop:City="Vigo"'), [ANA], SIZE)
    assert with_regions(first, [ANA], SIZE) is first


def test_faces_that_overlap_are_both_written() -> None:
    near = [ANA, Region("Bob", (0.21, 0.42, 0.33, 0.66))]
    written = with_regions(b"", near, SIZE)
    assert sorted(name for name, _ in _read(written)) == ["Ana", "Bob"]
    assert with_regions(written, near, SIZE) is written


def test_a_jpeg_whose_segments_are_damaged_is_refused() -> None:
    damaged = b"\xff\xd8\xff\xe0\xff\xd8" + picture_with(packet(""))
    with pytest.raises(ValueError, match="damaged"):
        with_packet(damaged, b"<x/>")


def test_somebody_who_was_renamed_is_renamed() -> None:
    renamed = with_regions(with_regions(b"", [ANA], SIZE), [Region("Ana García", ANA.box)], SIZE)
    assert [name for name, _ in _read(renamed)] == ["Ana García"]


@pytest.mark.parametrize(
    "broken",
    [b"<x", b"<x/>", b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>', b"<a>" + b" " * MAX_PACKET_BYTES + b"</a>"],
    ids=["cut off", "no XMP", "entities", "large"],
)
def test_a_packet_that_cannot_be_read_is_refused(broken: bytes) -> None:
    with pytest.raises(ValueError, match="it "):
        with_regions(broken, [ANA], SIZE)


@pytest.mark.parametrize("xmp", [b"", packet("", 'photoshop:City="Vigo"')], ids=["without a packet", "with one"])
def test_a_jpeg_gets_names_and_keeps_its_pixels_and_its_exif(tmp_path: Path, xmp: bytes) -> None:
    before = picture_with(xmp, orientation=6)
    new = with_regions(packet_of(before), [ANA], SIZE)
    after = with_packet(before, new)
    assert [_read(found) for found in xmp_packets(after)] == [[("Ana", (0.2, 0.4, 0.3, 0.6))]]
    one, other = decode(before, max_pixels=10**6), decode(after, max_pixels=10**6)
    assert np.array_equal(one.pixels, other.pixels)
    assert (other.width, other.height) == (120, 160)
    assert len(after) - len(before) == len(new) - len(packet_of(before)) + (0 if xmp else 4 + 29)
    if exiftool.PROGRAM:
        path = tmp_path / "a.jpg"
        path.write_bytes(after)
        assert [*exiftool.regions(path)] == ["Ana"]
        assert exiftool.tags(path)["Orientation"] == 6


def test_a_packet_larger_than_a_segment_is_refused() -> None:
    with pytest.raises(ValueError, match="place"):
        with_packet(picture_with(b""), b"x" * (MAX_JPEG_PACKET + 1))
    largest = with_packet(picture_with(b""), b"x" * MAX_JPEG_PACKET)
    assert len(packet_of(largest)) == MAX_JPEG_PACKET
