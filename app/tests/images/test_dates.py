from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import pytest
from PIL import Image

from app.images.decoding import decode

IFD0, EXIF, GPS = 0, 0x8769, 0x8825


def _exif(**directories: Mapping[int, Any]) -> bytes:
    exif = Image.Exif()
    for tag, value in directories.get("ifd0", {}).items():
        exif[tag] = value
    for tag, value in directories.get("exif", {}).items():
        exif.get_ifd(EXIF)[tag] = value
    for tag, value in directories.get("gps", {}).items():
        exif.get_ifd(GPS)[tag] = value
    return exif.tobytes()


def _saved(kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (30, 20), (10, 200, 30)).save(out, kind, **options)
    return out.getvalue()


def _taken(data: bytes) -> str | None:
    return decode(data, max_pixels=10_000).taken_at


def _in_jpeg(marker: int, body: bytes, **options: Any) -> str | None:
    data = _saved("JPEG", **options)
    return _taken(data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + data[2:])


def _in_png(kind: bytes, body: bytes) -> str | None:
    data = _saved("PNG")
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return _taken(data[:33] + chunk + data[33:])


ORIGINAL, DIGITIZED, CHANGED = 36867, 36868, 306


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    ("directories", "expected"),
    [
        ({"exif": {DIGITIZED: "2019:03:02 08:00:00"}}, "2019-03-02T08:00:00"),
        ({"ifd0": {CHANGED: "2018:03:02 08:00:00"}}, "2018-03-02T08:00:00"),
        ({"exif": {ORIGINAL: "    :  :     :  :  ", DIGITIZED: "2017:01:01 10:00:00"}}, "2017-01-01T10:00:00"),
        ({"exif": {ORIGINAL: "0000:00:00 00:00:00", DIGITIZED: "2017:01:01 10:00:00"}}, "2017-01-01T10:00:00"),
        ({"exif": {ORIGINAL: "2099:01:01 00:00:00", DIGITIZED: "2017:01:01 10:00:00"}}, "2017-01-01T10:00:00"),
        ({"exif": {ORIGINAL: "1601:01:01 00:00:00", DIGITIZED: "2017:01:01 10:00:00"}}, "2017-01-01T10:00:00"),
        ({"exif": {ORIGINAL: "2016:13:41 10:00:00", DIGITIZED: "2017:01:01 10:00:00"}}, "2017-01-01T10:00:00"),
        ({"exif": {ORIGINAL: "2016-05-04 03:02:01"}}, "2016-05-04T03:02:01"),
        ({"exif": {ORIGINAL: "2016/05/04 03:02"}}, "2016-05-04T03:02:00"),
        ({"exif": {ORIGINAL: "2016-05-04T03:02:01Z"}}, "2016-05-04T03:02:01+00:00"),
        ({"exif": {ORIGINAL: "2016:05:04 03:02:01", 37521: "25 "}}, "2016-05-04T03:02:01.250000"),
        ({"exif": {ORIGINAL: "2016:05:04 03:02:01", 36881: "+05:30"}}, "2016-05-04T03:02:01+05:30"),
        ({"exif": {ORIGINAL: "2016:05:04 03:02:01", 36881: "   :  "}}, "2016-05-04T03:02:01"),
        ({"exif": {ORIGINAL: "2016:05:04 03:02:01", DIGITIZED: "2017:01:01 10:00:00"}}, "2016-05-04T03:02:01"),
        ({"gps": {29: "2014:07:08", 7: (10.0, 20.0, 30.0)}}, "2014-07-08T10:20:30+00:00"),
        ({"gps": {29: "2014:07:08", 7: (10.0, 20.0, 30.0)}, "ifd0": {CHANGED: "2018:03:02 08:00:00"}},) * 2,
    ],
)
def test_exif_dates(kind: str, directories: Any, expected: Any) -> None:
    raw = _exif(**directories)
    read = Image.Exif()
    read.load(raw)  # Pillow writes a TIFF's inner directories only from one that it has read
    data = _saved(kind, exif=read if kind == "TIFF" else raw)
    assert _taken(data) == ("2018-03-02T08:00:00" if isinstance(expected, dict) else expected)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (b"photoshop:DateCreated", b"2013-02-03T04:05:06", "2013-02-03T04:05:06"),
        (b"photoshop:DateCreated", b"2013-02-03", "2013-02-03T00:00:00"),
        (b"xmp:CreateDate", b"2013-02-03T04:05:06.5+02:00", "2013-02-03T04:05:06.500000+02:00"),
        (b"exif:DateTimeOriginal", b"2013-02-03T04:05Z", "2013-02-03T04:05:00+00:00"),
        (b"xmp:ModifyDate", b"2013-02-03T04:05:06", None),
        (b"xmp:CreateDate", b"yesterday evening", None),
    ],
)
def test_xmp_dates(name: bytes, value: bytes, expected: str | None) -> None:
    for packet in (b"<a " + name + b'="' + value + b'"/>', b"<" + name + b">" + value + b"</" + name + b">"):
        assert _in_jpeg(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet) == expected
        assert _in_png(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet) == expected
        assert _in_png(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(packet)) == expected
        assert _taken(_saved("WEBP", xmp=packet)) == expected
        assert _taken(_saved("TIFF", tiffinfo={700: packet})) == expected


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (b"", "2012-11-10T00:00:00"),
        (b"\x1c\x02\x3c\x00\x0b091011-0300", "2012-11-10T09:10:11-03:00"),
        (b"\x1c\x02\x3c\x00\x06091011", "2012-11-10T09:10:11"),
    ],
)
def test_iptc_dates(time: bytes, expected: str) -> None:
    records = b"\x1c\x02\x37\x00\x0820121110" + time
    body = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(records)) + records
    assert _in_jpeg(0xED, body) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"Sat, 20 Jul 2019 20:17:40 GMT", "2019-07-20T20:17:40+00:00"),
        (b"Sat, 20 Jul 2019 20:17:40 +0200", "2019-07-20T20:17:40+02:00"),
        (b"2019-07-20T20:17:40", "2019-07-20T20:17:40"),
        (b"2019:07:20 20:17:40", "2019-07-20T20:17:40"),
        (b"once upon a time", None),
    ],
)
def test_the_creation_time_of_a_png(text: bytes, expected: str | None) -> None:
    assert _in_png(b"tEXt", b"Creation Time\0" + text) == expected
    assert _in_png(b"iTXt", b"Creation Time\0\0\0\0\0" + text) == expected


def test_exif_precedes_the_other_sources() -> None:
    packet = b'http://ns.adobe.com/xap/1.0/\0<a xmp:CreateDate="2013-02-03T04:05:06"/>'
    assert _in_jpeg(0xE1, packet, exif=_exif(ifd0={CHANGED: "2018:03:02 08:00:00"})) == "2018-03-02T08:00:00"
    assert _in_jpeg(0xE1, packet, exif=_exif(gps={29: "2014:07:08"})) == "2013-02-03T04:05:06"
