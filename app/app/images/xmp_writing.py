"""Writes named regions of the Metadata Working Group into XMP packets, and packets into JPEG files.

What else a packet says stays: other properties, prefixes, and regions of things that are not the faces written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final
from xml.dom import Node
from xml.dom.minidom import Document, Element
from xml.parsers.expat import ExpatError

from defusedxml.common import DefusedXmlException  # type: ignore[import-untyped]
from defusedxml.minidom import parseString  # type: ignore[import-untyped]

from app.core.boxes import overlap
from app.images.jpeg import segments
from app.images.regions import Region, names_in
from app.images.xmp import MAX_PACKET_BYTES

MAX_JPEG_PACKET: Final = 65_502
"""Bytes of a packet that has place in a JPEG's segment."""

_RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_MWG: Final = "http://www.metadataworkinggroup.com/schemas/regions/"
_AREA: Final = "http://ns.adobe.com/xmp/sType/Area#"
_DIMENSIONS: Final = "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
_XMLNS: Final = "http://www.w3.org/2000/xmlns/"
_PREFIXES: Final = {"mwg-rs": _MWG, "stArea": _AREA, "stDim": _DIMENSIONS}
_SAME: Final = 0.3  # overlap of two regions that are about one face
_BEGIN: Final = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
_END: Final = b'\n<?xpacket end="w"?>\n'
_EMPTY: Final = (
    f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}"><rdf:Description rdf:about=""/></rdf:RDF>'
    "</x:xmpmeta>"
).encode()
_JPEG_XMP: Final = b"http://ns.adobe.com/xap/1.0/\x00"
_APP0, _APP1 = 0xE0, 0xE1
_EXIF: Final = b"Exif\x00\x00"


def with_regions(packet: bytes, regions: Sequence[Region], size: tuple[int, int]) -> bytes:
    """Return a packet that has named regions.

    Regions of faces that are about one of the new ones, or have its name, are replaced; all others stay. A packet that
    says all of it already is returned as it is.

    Args:
        packet: the packet so far; empty: a new one.
        regions: of the image as stored in the file.
        size: width and height of that image.

    Raises:
        ValueError: the packet cannot be read, or not be merged with the regions.
    """
    if packet and _has_all(packet, regions):
        return packet
    document = _document(packet or _EMPTY)
    description = _description(document)
    old = [one for one in _children(description) if (one.namespaceURI, one.localName) == (_MWG, "Regions")]
    kept = [item for one in old for item in _items(one) if not _is_replaced(item, regions)]
    for one in old:
        description.removeChild(one)
    if description.hasAttributeNS(_MWG, "Regions"):
        description.removeAttributeNS(_MWG, "Regions")
    if regions or kept:
        description.appendChild(_regions(document, regions, kept, size))
    content = document.documentElement.toxml("utf-8")  # type: ignore[union-attr]
    written = _BEGIN + content.partition(b"?>")[2].strip() if content.startswith(b"<?xml") else _BEGIN + content
    written += _END
    if not _has_all(written, regions):
        raise ValueError("it cannot be merged with other names")
    return written


def packet_of(jpeg: bytes) -> bytes:
    """Return the packet of a JPEG file that `with_packet` replaces; empty if there is none."""
    for marker, start, end in segments(jpeg):
        if marker == _APP1 and jpeg.startswith(_JPEG_XMP, start):
            return jpeg[start + len(_JPEG_XMP) : end]
    return b""


def with_packet(jpeg: bytes, packet: bytes) -> bytes:
    """Return a JPEG file with another XMP packet; everything else, such as the pixels, stays byte for byte.

    Args:
        jpeg: the file.
        packet: the new packet.

    Raises:
        ValueError: the packet has no place in a JPEG, or the file is damaged.
    """
    if len(packet) > MAX_JPEG_PACKET:
        raise ValueError(f"the metadata has {len(packet):,} bytes; a JPEG has place for {MAX_JPEG_PACKET:,}")
    body = _JPEG_XMP + packet
    segment = b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body
    place = 2
    for marker, start, end in segments(jpeg):
        if marker == _APP1 and jpeg.startswith(_JPEG_XMP, start):
            written = b"".join((jpeg[: start - 4], segment, memoryview(jpeg)[end:]))
            break
        if marker == _APP0 or (marker == _APP1 and jpeg.startswith(_EXIF, start)):
            place = end
    else:
        written = b"".join((jpeg[:place], segment, memoryview(jpeg)[place:]))
    if packet_of(written) != packet:
        raise ValueError("the file is damaged before its image")
    return written


def _has_all(packet: bytes, regions: Sequence[Region]) -> bool:
    """Return whether the first layer of a packet has the regions, and gives none of their faces another name."""
    found = names_in(packet).layers[:1] if _MWG.encode() in packet else ()
    known = [region for layer in found for region in layer]
    for region in regions:
        named = {one.name for one in known if overlap(one.box, region.box) >= _SAME}
        near = {one.name for one in regions if overlap(one.box, region.box) >= _SAME / 2}  # faces may overlap
        if region.name not in named or not named <= near:
            return False
    return True


def _document(packet: bytes) -> Document:
    if len(packet) > MAX_PACKET_BYTES:
        raise ValueError("it is too large")
    try:
        document: Document = parseString(packet.strip(b"\0 \t\r\n"), forbid_dtd=True)
    except (ExpatError, DefusedXmlException, LookupError, RecursionError) as failure:
        raise ValueError(f"it is not well-formed XML: {failure}") from failure
    return document


def _description(document: Document) -> Element:
    """Return the description that has regions, or else the first one."""
    found = document.getElementsByTagNameNS(_RDF, "RDF")
    descriptions = [
        one for rdf in found[:1] for one in _children(rdf) if (one.namespaceURI, one.localName) == (_RDF, "Description")
    ]
    if not found:
        raise ValueError("it is not an XMP packet")
    if not descriptions:
        made = _element(document, _RDF, f"{found[0].prefix or 'rdf'}:Description")
        made.setAttributeNS(_RDF, f"{found[0].prefix or 'rdf'}:about", "")
        found[0].appendChild(made)
        descriptions = [made]
    with_old = (one for one in descriptions if any(child.namespaceURI == _MWG for child in _children(one)))
    return next(with_old, descriptions[0])


def _children(parent: Element) -> Iterator[Element]:
    yield from (one for one in [*parent.childNodes] if one.nodeType == Node.ELEMENT_NODE)


def _items(regions: Element) -> list[Element]:
    """Return the items of the list of regions."""
    lists = regions.getElementsByTagNameNS(_MWG, "RegionList")[:1]
    bags = [bag for one in lists for bag in _children(one) if bag.namespaceURI == _RDF]
    return [item for bag in bags[:1] for item in _children(bag)]


def _is_replaced(item: Element, regions: Sequence[Region]) -> bool:
    """Return whether an item is a face that one of the new regions is about."""
    packet = (
        f'<rdf:RDF xmlns:rdf="{_RDF}" xmlns:mwg-rs="{_MWG}"><rdf:Description><mwg-rs:Regions rdf:parseType="Resource">'
        f"<mwg-rs:RegionList><rdf:Bag>{_with_prefixes(item).toxml()}</rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>"
        "</rdf:Description></rdf:RDF>"
    )
    named = [region for layer in names_in(packet.encode()).layers for region in layer]
    return any(one.name == new.name or overlap(one.box, new.box) >= _SAME for one in named for new in regions)


def _with_prefixes(item: Element) -> Element:
    """Return a copy of an element that declares the prefixes that elements around it declare."""
    copy = item.cloneNode(True)
    if copy is None:
        raise ValueError("a region cannot be copied")
    parent = item.parentNode
    while isinstance(parent, Element):
        for attribute in [*parent.attributes.values()]:
            if attribute.name.startswith("xmlns") and not copy.hasAttribute(attribute.name):
                copy.setAttribute(attribute.name, attribute.value)
        parent = parent.parentNode
    return copy


def _regions(document: Document, regions: Sequence[Region], kept: Sequence[Element], size: tuple[int, int]) -> Element:
    made = _element(document, _MWG, "mwg-rs:Regions")
    for prefix, uri in {**_PREFIXES, "rdf": _RDF}.items():
        made.setAttributeNS(_XMLNS, f"xmlns:{prefix}", uri)
    made.setAttributeNS(_RDF, "rdf:parseType", "Resource")
    width, height = size
    made.appendChild(
        _element(document, _MWG, "mwg-rs:AppliedToDimensions", _DIMENSIONS, {
            "stDim:w": str(width), "stDim:h": str(height), "stDim:unit": "pixel",
        })
    )  # fmt: skip
    listed, bag = _element(document, _MWG, "mwg-rs:RegionList"), _element(document, _RDF, "rdf:Bag")
    made.appendChild(listed)
    listed.appendChild(bag)
    for item in kept:
        bag.appendChild(_with_prefixes(item))
    for region in regions:
        bag.appendChild(_item(document, region))
    return made


def _item(document: Document, region: Region) -> Element:
    x1, y1, x2, y2 = region.box
    values = {"x": (x1 + x2) / 2, "y": (y1 + y2) / 2, "w": x2 - x1, "h": y2 - y1}
    area = {f"stArea:{key}": f"{value:.6f}" for key, value in values.items()} | {"stArea:unit": "normalized"}
    item = _element(document, _RDF, "rdf:li")
    said = _element(document, _RDF, "rdf:Description", _MWG, {"mwg-rs:Name": region.name, "mwg-rs:Type": "Face"})
    item.appendChild(said)
    said.appendChild(_element(document, _MWG, "mwg-rs:Area", _AREA, area))
    return item


def _element(
    document: Document, space: str, name: str, of_attributes: str = "", attributes: dict[str, str] | None = None
) -> Element:
    made = document.createElementNS(space, name)
    for key, value in (attributes or {}).items():
        made.setAttributeNS(of_attributes, key, value)
    return made
