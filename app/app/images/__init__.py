"""Image files: their formats, decoding to pixels, and thumbnails of faces."""

from app.images.completeness import is_cut_off
from app.images.decoder_pool import DecoderPool
from app.images.decoding import decode, image_id_of, preview_webp
from app.images.formats import SNIFF_BYTES, sniff
from app.images.thumbnails import MEDIA_TYPE, ThumbStore, face_thumbnail

__all__ = [
    "MEDIA_TYPE",
    "SNIFF_BYTES",
    "DecoderPool",
    "ThumbStore",
    "decode",
    "face_thumbnail",
    "image_id_of",
    "is_cut_off",
    "preview_webp",
    "sniff",
]
