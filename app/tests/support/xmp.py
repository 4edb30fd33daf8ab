"""XMP packets as programs write them, and pictures that have them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from PIL import Image, PngImagePlugin

NAMESPACES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "stArea": "http://ns.adobe.com/xmp/sType/Area#",
    "stDim": "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
    "MP": "http://ns.microsoft.com/photo/1.2/",
    "MPRI": "http://ns.microsoft.com/photo/1.2/t/RegionInfo#",
    "MPReg": "http://ns.microsoft.com/photo/1.2/t/Region#",
    "acdsee-rs": "http://ns.acdsee.com/regions/",
    "acdsee-stArea": "http://ns.acdsee.com/sType/Area#",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
}
Face = tuple[str, float, float, float, float]
"""Name, centre, width and height, as fractions."""


def packet(body: str, attributes: str = "") -> bytes:
    """A packet with properties of the picture."""
    spaces = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in NAMESPACES.items())
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {spaces}>'
        f'<rdf:Description rdf:about="" {attributes}>{body}</rdf:Description></rdf:RDF></x:xmpmeta>'
        '<?xpacket end="w"?>'
    ).encode()


def mwg(faces: Sequence[Face], size: tuple[int, int] | None = None, kind: str = "Face") -> str:
    """Regions of the Metadata Working Group, as Lightroom writes them: a description in each item."""
    applied = (
        f'<mwg-rs:AppliedToDimensions stDim:w="{size[0]}" stDim:h="{size[1]}" stDim:unit="pixel"/>' if size else ""
    )
    items = "".join(
        f"<rdf:li><rdf:Description mwg-rs:Name={quoteattr(name)} mwg-rs:Type={quoteattr(kind)}>"
        f'<mwg-rs:Area stArea:x="{x}" stArea:y="{y}" stArea:w="{w}" stArea:h="{h}" stArea:unit="normalized"/>'
        "</rdf:Description></rdf:li>"
        for name, x, y, w, h in faces
    )
    return (
        f'<mwg-rs:Regions rdf:parseType="Resource">{applied}'
        f"<mwg-rs:RegionList><rdf:Bag>{items}</rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>"
    )


def microsoft(faces: Sequence[Face]) -> str:
    """Microsoft's regions, from the same centres."""
    items = "".join(
        f'<rdf:li MPReg:Rectangle="{x - w / 2}, {y - h / 2}, {w}, {h}" MPReg:PersonDisplayName={quoteattr(name)}/>'
        for name, x, y, w, h in faces
    )
    regions = f"<MPRI:Regions><rdf:Bag>{items}</rdf:Bag></MPRI:Regions>"
    return f'<MP:RegionInfo rdf:parseType="Resource">{regions}</MP:RegionInfo>'


def shown(*names: str) -> str:
    """IPTC's people in the image."""
    items = "".join(f"<rdf:li>{name}</rdf:li>" for name in names)
    return f"<Iptc4xmpExt:PersonInImage><rdf:Bag>{items}</rdf:Bag></Iptc4xmpExt:PersonInImage>"


def picture_with(
    xmp: bytes, kind: str = "JPEG", *, colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (160, 120),
    orientation: int | None = None,
) -> bytes:  # fmt: skip
    """A picture of one colour with a packet; `size` is that of the stored image."""
    image = Image.fromarray(np.full((size[1], size[0], 3), colour, np.uint8))
    options: dict[str, Any] = {}
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=True)
        options["pnginfo"] = info
    elif kind == "TIFF":
        options["tiffinfo"] = {700: xmp} | ({} if orientation is None else {0x0112: orientation})
    else:
        options["xmp"] = xmp
    if orientation is not None and kind != "TIFF":
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    if kind == "HEIF":
        from app.images.heif import register_heif

        register_heif()
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()
