"""Image files: their formats, decoding to pixels, and thumbnails of faces."""

from app.images.completeness import is_cut_off
from app.images.decoder_pool import DecoderPool
from app.images.decoding import decode, image_id_of, preview_webp
from app.images.formats import SNIFF_BYTES, sniff
from app.images.perceptual import ALIKE_DISTANCE, distance, phash_of
from app.images.previews import PREVIEW_WIDTHS, PreviewStore, preview_jpeg, preview_width
from app.images.s3_client import S3Location
from app.images.s3_thumbs import S3ThumbStore
from app.images.thumb_copies import copy_thumbs
from app.images.thumb_protocol import Thumbs
from app.images.thumbnails import MEDIA_TYPE, ThumbStore, face_thumbnail

__all__ = [
    "ALIKE_DISTANCE",
    "MEDIA_TYPE",
    "PREVIEW_WIDTHS",
    "SNIFF_BYTES",
    "DecoderPool",
    "PreviewStore",
    "S3Location",
    "S3ThumbStore",
    "ThumbStore",
    "Thumbs",
    "copy_thumbs",
    "decode",
    "distance",
    "face_thumbnail",
    "image_id_of",
    "is_cut_off",
    "phash_of",
    "preview_jpeg",
    "preview_webp",
    "preview_width",
    "sniff",
]
