"""When a photograph was taken, from the metadata of its file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Final

from PIL import ExifTags, Image

from app.images.damage import DECODER_ERRORS

_FIRST_YEAR: Final = 1826  # of the oldest photograph that is preserved
_MAX_PACKET: Final = 1_000_000  # bytes of XMP that are searched

_MOMENT: Final = re.compile(
    r"\s*(\d{4})[:/.-](\d{1,2})[:/.-](\d{1,2})"
    r"(?:[T\s]+(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:[.,](\d{1,9}))?)?)?"
    r"\s*(Z|[+-]\d{2}:?\d{2})?\s*",
    re.ASCII,
)
_OFFSET: Final = re.compile(r"\s*(?:(Z)|([+-])(\d{2}):?(\d{2}))\s*", re.ASCII)
_DIGITS: Final = re.compile(r"\s*(\d{1,9})\s*", re.ASCII)
_XMP: Final = tuple(
    re.compile(name + rb"(?:\s{0,9}=\s{0,9}[\"']|>)([^\"'<]{8,40})")
    for name in (rb"photoshop:DateCreated", rb"xmp:CreateDate", rb"exif:DateTimeOriginal")
)
# IPTC-IIM, records 2:55 and 2:60: the day, and the time with its offset.
_IPTC_DAY: Final = re.compile(rb"\x1c\x02\x37\x00\x08(\d{4})(\d\d)(\d\d)")
_IPTC_TIME: Final = re.compile(rb"\x1c\x02\x3c\x00[\x06\x0b](\d\d)(\d\d)(\d\d)([+-]\d{4})?")

_BASE: Final = ExifTags.Base
# The time, its fraction of a second and its offset.
_EXIF_TIMES: Final = (
    (_BASE.DateTimeOriginal, _BASE.SubsecTimeOriginal, _BASE.OffsetTimeOriginal),
    (_BASE.DateTimeDigitized, _BASE.SubsecTimeDigitized, _BASE.OffsetTimeDigitized),
    (_BASE.DateTime, _BASE.SubsecTime, _BASE.OffsetTime),
)


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a file says of its image.

    Attributes:
        exif: the Exif data.
        xmp: the XMP packet.
        iptc: data that contains IPTC records.
        texts: the texts of a PNG by keyword.
    """

    exif: Image.Exif | None = None
    xmp: bytes = b""
    iptc: bytes = b""
    texts: Mapping[str, str] = field(default_factory=dict)


def taken_at(metadata: Metadata) -> str | None:
    """Return when a photograph was taken, from the first of these that is a date.

    Exif's DateTimeOriginal, DateTimeDigitized and DateTime; XMP's photoshop:DateCreated, xmp:CreateDate and
    exif:DateTimeOriginal; IPTC's DateCreated; the time of GPS; a PNG's Creation Time.

    Returns:
        ISO 8601, with fractions of a second and the offset from UTC where they are known; None if there is no date.
    """
    for source in (_of_exif, _of_xmp, _of_iptc, _of_gps, _of_texts):
        moment = _first(source, metadata)
        if moment is not None:
            return moment.isoformat()
    return None


def _first(source: Callable[[Metadata], Iterator[datetime | None]], metadata: Metadata) -> datetime | None:
    try:
        return next((moment for moment in source(metadata) if moment is not None and _is_plausible(moment)), None)
    except DECODER_ERRORS:  # damaged metadata does not make the image invalid
        return None


def _is_plausible(moment: datetime) -> bool:
    return moment.year >= _FIRST_YEAR and moment.replace(tzinfo=None) < datetime.now() + timedelta(days=2)


def _of_exif(metadata: Metadata) -> Iterator[datetime | None]:
    if metadata.exif is None:
        return
    inner: Mapping[int, Any] = metadata.exif.get_ifd(ExifTags.IFD.Exif)
    for moment, fraction, offset in _EXIF_TIMES:
        time = (metadata.exif if moment == _BASE.DateTime else inner).get(moment)
        yield _moment(time, inner.get(fraction), inner.get(offset))


def _of_xmp(metadata: Metadata) -> Iterator[datetime | None]:
    packet = metadata.xmp[:_MAX_PACKET]
    for pattern in _XMP:
        found = pattern.search(packet)
        yield _moment(found.group(1)) if found else None


def _of_iptc(metadata: Metadata) -> Iterator[datetime | None]:
    day, time = _IPTC_DAY.search(metadata.iptc), _IPTC_TIME.search(metadata.iptc)
    if day is None:
        return
    text = b"-".join(day.groups())
    if time is not None:
        text += b"T" + b":".join(time.groups()[:3]) + (time.group(4) or b"")
    yield _moment(text)


def _of_gps(metadata: Metadata) -> Iterator[datetime | None]:
    if metadata.exif is None:
        return
    gps: Mapping[int, Any] = metadata.exif.get_ifd(ExifTags.IFD.GPSInfo)
    day = _moment(gps.get(ExifTags.GPS.GPSDateStamp))
    if day is None:
        return
    hours, minutes, seconds = (float(part) for part in gps.get(ExifTags.GPS.GPSTimeStamp, (0, 0, 0)))
    yield day.replace(tzinfo=UTC) + timedelta(hours=hours, minutes=minutes, seconds=int(seconds))


def _of_texts(metadata: Metadata) -> Iterator[datetime | None]:
    text = metadata.texts.get("Creation Time", "")[:64]
    yield _moment(text)
    if text:
        yield parsedate_to_datetime(text)  # as RFC 1123, which the PNG specification recommends


def _moment(text: object, fraction: object = None, offset: object = None) -> datetime | None:
    """Read a date or a date and time; None if it is blank or not a date."""
    found = _MOMENT.fullmatch(_text(text))
    if found is None:
        return None
    *parts, own_fraction, own_offset = found.groups()
    if own_fraction is None and (digits := _DIGITS.fullmatch(_text(fraction))):
        own_fraction = digits.group(1)
    microsecond = int((own_fraction or "0")[:6].ljust(6, "0"))
    try:
        year, month, day, hour, minute, second = (int(part or 0) for part in parts)
        return datetime(year, month, day, hour, minute, second, microsecond, _zone(own_offset or _text(offset)))
    except ValueError:
        return None


def _text(value: object) -> str:
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value or "")
    return text.split("\x00", 1)[0]


def _zone(text: str) -> timezone | None:
    found = _OFFSET.fullmatch(text)
    if found is None:
        return None
    if found.group(1):
        return UTC
    distance = timedelta(hours=int(found.group(3)), minutes=int(found.group(4)))
    return timezone(-distance if found.group(2) == "-" else distance)
