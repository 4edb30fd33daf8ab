"""Regions with the names of people in XMP packets, as programs write them.

- `mwg-rs:Regions` of the Metadata Working Group: digiKam, Lightroom, Photoshop, Picasa, Apple, Immich, exiftool
- `MP:RegionInfo` of Microsoft: Windows Photo Gallery, digiKam
- `acdsee-rs:Regions`: ACDSee
- `Iptc4xmpExt:PersonInImage`: names without a place

RDF has several forms of the same statement: properties as attributes or elements, nested or not; all are read.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from app.core.types import BBox
from app.images.xmp import parse

MAX_REGIONS: Final = 1000
"""Regions of one packet; further ones are left out."""
_MAX_NAME: Final = 500  # characters

_RDF: Final = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_XML: Final = "{http://www.w3.org/XML/1998/namespace}"
_CONTAINERS: Final = frozenset({f"{_RDF}Bag", f"{_RDF}Seq", f"{_RDF}Alt"})
_MWG: Final = "{http://www.metadataworkinggroup.com/schemas/regions/}"
_AREAS: Final = (
    "{http://ns.adobe.com/xmp/sType/Area#}",
    "{http://ns.adobe.com/xap/1.0/sType/Area#}",
    "{http://ns.acdsee.com/sType/Area#}",
)
_DIMENSIONS: Final = (
    "{http://ns.adobe.com/xap/1.0/sType/Dimensions#}",
    "{http://ns.adobe.com/xmp/sType/Dimensions#}",
    "{http://ns.acdsee.com/sType/Dimensions#}",
)
_MP: Final = "{http://ns.microsoft.com/photo/1.2/}"
_MP_INFO: Final = "{http://ns.microsoft.com/photo/1.2/t/RegionInfo#}"
_MP_REGION: Final = "{http://ns.microsoft.com/photo/1.2/t/Region#}"
_ACDSEE: Final = "{http://ns.acdsee.com/regions/}"
_SHOWN: Final = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}PersonInImage"
# One of these is in every packet with names; in UTF-16 they cannot be seen.
_SIGNS: Final = (b"/schemas/regions/", b"/photo/1.2/", b"acdsee.com/regions/", b"PersonInImage")
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")

_Value = Element | str
_Properties = dict[str, _Value]


@dataclass(frozen=True, slots=True)
class Region:
    """A part of an image that shows somebody.

    Attributes:
        name: of the person, in Unicode form NFC.
        box: x1, y1, x2, y2 as fractions of the image's width and height, 0 to 1. The corners of a point are the same.
        size: width and height of the image to which the program applied it; None if it does not say so.
    """

    name: str
    box: BBox
    size: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class PacketNames:
    """The people of a packet.

    Attributes:
        layers: regions by kind; programs write the same ones in several kinds.
        shown: names without a place.
    """

    layers: tuple[tuple[Region, ...], ...] = ()
    shown: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.layers or self.shown)


def names_in(packet: bytes) -> PacketNames:
    """Return the people in an XMP packet; nobody if it is damaged.

    Args:
        packet: the packet, or the contents of a sidecar file.
    """
    if not packet.startswith(_UTF16) and not any(sign in packet for sign in _SIGNS):
        return PacketNames()
    root = parse(packet)
    if root is None:
        return PacketNames()
    mwg: list[Region] = []
    acdsee: list[Region] = []
    microsoft: list[Region] = []
    shown: list[str] = []
    for description in _descriptions(root):
        said = _properties(description)
        mwg += _regions(said.get(f"{_MWG}Regions") or said.get(f"{_MWG}RegionInfo"), _MWG)
        acdsee += _regions(said.get(f"{_ACDSEE}Regions"), _ACDSEE)
        microsoft += _microsoft(said.get(f"{_MP}RegionInfo"))
        shown += [name for item in _items(said.get(_SHOWN)) if (name := _name(item))]
    layers = tuple(tuple(layer[:MAX_REGIONS]) for layer in (mwg, acdsee, microsoft) if layer)
    return PacketNames(layers, tuple(dict.fromkeys(shown))[:MAX_REGIONS])


def _descriptions(root: Element) -> Iterator[Element]:
    for rdf in root.iter(f"{_RDF}RDF"):
        yield from rdf.findall(f"{_RDF}Description")


def _regions(info: _Value | None, schema: str) -> Iterator[Region]:
    """Yield the named faces of `Regions`, of the Metadata Working Group or of ACDSee."""
    said = _properties(info)
    applied = _properties(said.get(f"{schema}AppliedToDimensions"))
    width, height = (_number(_first(applied, _DIMENSIONS, key)) for key in ("w", "h"))
    size = (width, height) if width and height and width > 0 and height > 0 else None
    for item in _items(said.get(f"{schema}RegionList")):
        region = _properties(item)
        kind = _text(region.get(f"{schema}Type")).strip().lower()
        name = _name(region.get(f"{schema}Name"))
        if not name or kind not in ("face", "") or _text(region.get(f"{schema}NameAssignType")) == "denied":
            continue
        areas = [f"{schema}{key}" for key in ("Area", "DLYArea", "ALGArea")]  # ACDSee: drawn by hand, and found
        area = next((region[key] for key in areas if key in region), None)
        if (box := _area(_properties(area), size)) is not None:
            yield Region(name, box, size)


def _area(area: Mapping[str, _Value], size: tuple[float, float] | None) -> BBox | None:
    """Return the box of an area, which has its centre, and width and height, or a diameter, or neither."""
    x, y, width, height, diameter = (_number(_first(area, _AREAS, key)) for key in "xywhd")
    if x is None or y is None:
        return None
    width, height = width or 0.0, height or 0.0
    if diameter is not None and not (width or height):
        across, down = size or (1.0, 1.0)
        shorter = min(across, down)  # the diameter is a part of the shorter side
        width, height = diameter * shorter / across, diameter * shorter / down
    if _text(_first(area, _AREAS, "unit")).strip().lower() in ("pixel", "pixels"):
        if size is None:
            return None
        x, width, y, height = x / size[0], width / size[0], y / size[1], height / size[1]
    return _box(x - width / 2, y - height / 2, width, height)


def _first(said: Mapping[str, _Value], schemas: Sequence[str], key: str) -> _Value | None:
    return next((said[schema + key] for schema in schemas if schema + key in said), None)


def _microsoft(info: _Value | None) -> Iterator[Region]:
    """Yield the named rectangles of Microsoft's `RegionInfo`."""
    for item in _items(_properties(info).get(f"{_MP_INFO}Regions")):
        region = _properties(item)
        name = _name(region.get(f"{_MP_REGION}PersonDisplayName"))
        sides = [_number(part) for part in _text(region.get(f"{_MP_REGION}Rectangle")).split(",")]
        known = [side for side in sides if side is not None]
        if name and len(sides) == len(known) == 4 and (box := _box(*known)) is not None:
            yield Region(name, box)


def _box(left: float, top: float, width: float, height: float) -> BBox | None:
    """Return the part of a box within the image; None if there is none."""
    if not all(math.isfinite(side) for side in (left, top, width, height)):  # divided by a size of almost nothing
        return None
    if width < 0 or height < 0 or left > 1 or top > 1 or left + width < 0 or top + height < 0:
        return None
    return max(left, 0.0), max(top, 0.0), min(left + width, 1.0), min(top + height, 1.0)


def _properties(value: _Value | None) -> _Properties:
    """Return what is said about a thing by property: in attributes, in elements, and in a description within it."""
    found: _Properties = {}
    if not isinstance(value, Element):
        return found
    for key, text in value.attrib.items():
        if not key.startswith((_RDF, _XML)):
            found[key] = text
    for child in value:
        if child.tag == f"{_RDF}Description":
            for key, text in child.attrib.items():
                if not key.startswith((_RDF, _XML)):
                    found.setdefault(key, text)
            for inner in child:
                found.setdefault(inner.tag, inner)
        else:
            found.setdefault(child.tag, child)
    return found


def _items(value: _Value | None) -> Sequence[_Value]:
    """Return the items of a list; a single text is a list of one."""
    if value is None or isinstance(value, str):
        return [value] if value else []
    for child in value:
        if child.tag in _CONTAINERS:
            return child.findall(f"{_RDF}li")
    return [value] if (value.text or "").strip() else []


def _text(value: _Value | None) -> str:
    """Return a text; of several languages, the first."""
    if value is None or isinstance(value, str):
        return value or ""
    for child in value:
        if child.tag in _CONTAINERS:
            return next((item.text or "" for item in child), "")
        if child.tag == f"{_RDF}value":
            return child.text or ""
    return value.text or ""


def _number(value: _Value | None) -> float | None:
    try:
        number = float(_text(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _name(value: _Value | None) -> str:
    """Return a name without control characters and spaces around it; empty if it is none."""
    shown = "".join(" " if unicodedata.category(sign) == "Cc" else sign for sign in _text(value)[: 4 * _MAX_NAME])
    name = unicodedata.normalize("NFC", " ".join(shown.split()))
    return name if len(name) <= _MAX_NAME else ""
