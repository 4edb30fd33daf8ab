"""images.xmp, regions and file_names: which people the metadata of a picture names, whatever wrote it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from app.images import FileNames, names_of_file, sidecars
from app.images.decoding import decode, orientation_of
from app.images.regions import Region, names_in
from app.images.xmp import MAX_PACKET_BYTES, parse, xmp_packets
from tests.support.xmp import Face, microsoft, mwg, packet, picture_with, shown

ANA: Face = ("Ana", 0.25, 0.5, 0.1, 0.2)
BOB: Face = ("Bob", 0.75, 0.5, 0.1, 0.2)
KINDS = ["JPEG", "PNG", "TIFF", "WEBP", "HEIF", "AVIF"]


def _regions(body: str | bytes) -> list[Region]:
    found = names_in(packet(body) if isinstance(body, str) else body)
    return [region for layer in found.layers for region in layer]


def _says_ana(region: Region) -> bool:
    return region.name == "Ana" and region.box == pytest.approx((0.2, 0.4, 0.3, 0.6))


@pytest.mark.parametrize("kind", KINDS)
def test_a_packet_is_found_in_every_format(kind: str) -> None:
    written = packet(mwg([ANA], (160, 120)))
    (found,) = xmp_packets(picture_with(written, kind))
    (region,) = _regions(found)
    assert _says_ana(region)
    assert region.size == (160, 120)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_orientation_is_that_which_decoding_applies(kind: str) -> None:
    data = picture_with(packet(mwg([ANA])), kind, orientation=6)
    picture = decode(data, max_pixels=10**6)
    assert (picture.width, picture.height) == (120, 160)
    assert orientation_of(data) == 6


def test_a_picture_without_metadata_has_no_packet_and_no_names(tmp_path: Path) -> None:
    data = picture_with(b"")
    assert xmp_packets(data) == []
    assert not names_of_file(str(tmp_path / "a.jpg"), data)


def test_extended_xmp_of_a_jpeg_is_put_together() -> None:
    extended = packet(mwg([ANA]) + f"<dc:description>{'x' * 70_000}</dc:description>")
    digest = b"0123456789ABCDEF" * 2
    parts = b""
    for start in range(0, len(extended), 60_000):
        part = extended[start : start + 60_000]
        body = b"http://ns.adobe.com/xmp/extension/\0" + digest
        body += len(extended).to_bytes(4, "big") + start.to_bytes(4, "big") + part
        parts += b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body
    data = picture_with(packet(""))
    with_extended = data[:2] + parts + data[2:]
    (region,) = [one for found in xmp_packets(with_extended) for one in _regions(found)]
    assert _says_ana(region)
    first = 2 + 4 + len(b"http://ns.adobe.com/xmp/extension/\0") + 40 + 60_000
    without_a_part = data[:2] + parts[first - 2 :] + data[2:]
    assert not [one for found in xmp_packets(without_a_part) for one in _regions(found)]


FORMS = {
    "a description in each item, as Lightroom": mwg([ANA]),
    "items that are resources, as digiKam": (
        '<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:RegionList><rdf:Bag><rdf:li rdf:parseType="Resource">'
        '<mwg-rs:Area rdf:parseType="Resource"><stArea:x>0.25</stArea:x><stArea:y>0.5</stArea:y>'
        "<stArea:w>0.1</stArea:w><stArea:h>0.2</stArea:h><stArea:unit>normalized</stArea:unit></mwg-rs:Area><mwg-rs:Name>Ana</mwg-rs:Name>"
        "<mwg-rs:Type>Face</mwg-rs:Type></rdf:li></rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>"
    ),
    "attributes of the item, as exiv2": (
        "<mwg-rs:Regions><rdf:Description><mwg-rs:RegionList><rdf:Seq>"
        '<rdf:li mwg-rs:Name="Ana" mwg-rs:Type="face"><mwg-rs:Area stArea:x="0.25" stArea:y="0.5" stArea:w="0.1" '
        'stArea:h="0.2"/></rdf:li></rdf:Seq></mwg-rs:RegionList></rdf:Description></mwg-rs:Regions>'
    ),
    "pixels": (
        '<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:AppliedToDimensions stDim:w="200" stDim:h="100"/>'
        '<mwg-rs:RegionList><rdf:Bag><rdf:li><rdf:Description mwg-rs:Name="Ana"><mwg-rs:Area stArea:x="50" '
        'stArea:y="50" stArea:w="20" stArea:h="20" stArea:unit="pixel"/></rdf:Description></rdf:li></rdf:Bag>'
        "</mwg-rs:RegionList></mwg-rs:Regions>"
    ),
    "Microsoft's": microsoft([ANA]),
    "ACDSee's": (
        '<acdsee-rs:Regions rdf:parseType="Resource"><acdsee-rs:RegionList><rdf:Bag><rdf:li>'
        '<rdf:Description acdsee-rs:Name="Ana" acdsee-rs:Type="Face" acdsee-rs:NameAssignType="manual">'
        '<acdsee-rs:DLYArea acdsee-stArea:x="0.25" acdsee-stArea:y="0.5" acdsee-stArea:w="0.1" acdsee-stArea:h="0.2"/>'
        "</rdf:Description></rdf:li></rdf:Bag></acdsee-rs:RegionList></acdsee-rs:Regions>"
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_rdf_says_the_same(form: str) -> None:
    (region,) = _regions(FORMS[form])
    assert _says_ana(region)


def test_a_circle_and_a_point_are_regions() -> None:
    circle = mwg([("Ana", 0.5, 0.5, 0, 0)], (200, 100)).replace('stArea:w="0"', 'stArea:d="0.4"')
    assert _regions(circle)[0].box == pytest.approx((0.4, 0.3, 0.6, 0.7))
    assert _regions(mwg([("Ana", 0.5, 0.25, 0, 0)]))[0].box == (0.5, 0.25, 0.5, 0.25)


@pytest.mark.parametrize("kind", ["Pet", "Focus", "BarCode"])
def test_regions_of_other_things_name_nobody(kind: str) -> None:
    assert not _regions(mwg([ANA], kind=kind))


@pytest.mark.parametrize(
    "area",
    [("Ana", 1.5, 0.5, 0.1, 0.1), ("Ana", 0.5, 0.5, -0.1, 0.1), ("Ana", float("nan"), 0.5, 0.1, 0.1)],
    ids=["outside", "negative", "no number"],
)
def test_impossible_areas_are_left_out(area: Face) -> None:
    assert not _regions(mwg([area]))


def test_a_size_of_almost_nothing_makes_no_region() -> None:
    body = mwg([ANA], (100, 100)).replace('"normalized"', '"pixel"')
    assert len(_regions(body)) == 1
    assert not _regions(body.replace('stDim:w="100"', 'stDim:w="1e-320"'))


@pytest.mark.parametrize(
    "name",
    ["Ana | Maria", "alex", "Alex", "عمر", "\u200fשרה\u200e", "李小龙", "n" * 300, 'O\'Brien & <Sons> "x"', "Zoë 👩‍👧"],
)
def test_any_name_is_read_as_it_is(name: str) -> None:
    for body in (mwg([(name, 0.5, 0.5, 0.1, 0.1)]), microsoft([(name, 0.5, 0.5, 0.1, 0.1)])):
        assert [region.name for region in _regions(body)] == [name]


def test_names_are_normalised_and_trimmed_and_empty_ones_are_left_out() -> None:
    assert _regions(mwg([("  Zoe\u0301\t Smith ", 0.5, 0.5, 0.1, 0.1)]))[0].name == "Zo\u00e9 Smith"
    assert not _regions(mwg([(" ", 0.5, 0.5, 0.1, 0.1), ("x" * 501, 0.5, 0.5, 0.1, 0.1)]))


def test_people_without_a_place_are_read() -> None:
    assert names_in(packet(shown("Ana", "Bob", "Ana"))).shown == ("Ana", "Bob")


@pytest.mark.parametrize(
    "hostile",
    [
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><x>&b; PersonInImage</x>',
        b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/hostname">]><x>&f; PersonInImage</x>',
        b"<x>PersonInImage",
        b"\xff\xfe<\0x\0",
        b"PersonInImage \0\xff",
        b"<a>" * 300_000 + b"PersonInImage" + b"</a>" * 300_000,
        b"<a>" + b"<b/>" * 600_000 + b"PersonInImage</a>",
        b"<a>PersonInImage" + b" " * MAX_PACKET_BYTES + b"</a>",
        b'<?xml version="1.0" encoding="no-such"?><a>PersonInImage</a>',
    ],
    ids=["entities", "file", "cut off", "UTF-16", "no XML", "deep", "many", "large", "encoding"],
)
def test_hostile_packets_name_nobody(hostile: bytes) -> None:
    started = time.process_time()
    assert not names_in(hostile)
    assert time.process_time() - started < 10


def test_deep_nesting_below_the_limits_does_no_harm() -> None:
    deep = b"<a>" * 90_000 + b"PersonInImage" + b"</a>" * 90_000
    assert not names_in(deep)
    assert parse(b"<a/>") is not None


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_have_no_packets_or_fewer_but_never_an_error(kind: str) -> None:
    data = picture_with(packet(mwg([ANA])), kind)
    for cut in range(0, len(data), max(1, len(data) // 60)):
        xmp_packets(data[:cut])
        orientation_of(data[:cut])
        xmp_packets(data[:cut] + b"\xff\x00\x7f\x80" + data[cut + 4 :])


def test_a_sidecar_in_utf_16_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg.xmp").write_bytes(packet(mwg([ANA])).decode().replace("\ufeff", "").encode("utf-16"))
    assert [one.name for one in names_of_file(str(tmp_path / "a.jpg"), b"").layers[0].regions] == ["Ana"]


def _sources(found: FileNames) -> list[tuple[str, list[str]]]:
    return [(layer.source, [region.name for region in layer.regions]) for layer in found.layers]


def test_sidecars_come_before_the_file_the_newest_first(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    for number, (name, person) in enumerate((("a.jpg.xmp", "Ana"), ("a.xmp", "Anna"))):
        (tmp_path / name).write_bytes(packet(mwg([(person, 0.5, 0.5, 0.2, 0.2)])))
        os.utime(tmp_path / name, (1_700_000_000 + number, 1_700_000_000 + number))
    found = names_of_file(str(path), picture_with(packet(mwg([ANA]))))
    assert _sources(found) == [("a.xmp", ["Anna"]), ("a.jpg.xmp", ["Ana"]), ("the file", ["Ana"])]


@pytest.mark.parametrize("name", ["a.jpg.xmp", "a.jpg.XMP", "a.xmp", "a.XMP"])
def test_sidecars_have_several_names(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(packet(mwg([ANA])))
    assert [Path(path).name for path, _ in sidecars(str(tmp_path / "a.jpg"))] == [name]


def test_a_sidecar_of_another_picture_with_the_same_name_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.xmp").write_bytes(packet(mwg([ANA]), 'photoshop:SidecarForExtension="PNG"'))
    assert not names_of_file(str(tmp_path / "a.jpg"), b"")
    assert names_of_file(str(tmp_path / "a.png"), b"")
    (tmp_path / "a.xmp").write_bytes(packet(mwg([ANA]), 'photoshop:SidecarForExtension="NEF"'))
    assert names_of_file(str(tmp_path / "a.jpg"), b""), "of a raw file, it is that of its JPEG too"


def test_sidecars_that_are_no_files_or_too_large_are_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg.xmp")
    (tmp_path / "a.xmp").write_bytes(packet(mwg([ANA])) + b" " * MAX_PACKET_BYTES)
    assert not names_of_file(str(tmp_path / "a.jpg"), b"")
