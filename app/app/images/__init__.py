"""Image files: their formats, decoding to pixels, and thumbnails of faces."""

from app.images.completeness import is_cut_off
from app.images.decoder_pool import DecoderPool
from app.images.decoding import decode, image_id_of, orientation_of, preview_webp
from app.images.file_names import SIDECAR, FileNames, Layer, names_of_file, sidecars
from app.images.formats import SNIFF_BYTES, sniff
from app.images.named_pictures import EditedImage, NameProblem, NameReason, NamesApplied, PictureNames
from app.images.perceptual import ALIKE_DISTANCE, distance, phash_of
from app.images.previews import PREVIEW_WIDTHS, PreviewStore, preview_jpeg, preview_width
from app.images.regions import Region
from app.images.s3_client import S3Location
from app.images.s3_thumbs import S3ThumbStore
from app.images.thumb_copies import copy_thumbs
from app.images.thumb_protocol import Thumbs
from app.images.thumbnails import MEDIA_TYPE, ThumbStore, face_thumbnail
from app.images.xmp_writing import packet_of, with_packet, with_regions

__all__ = [
    "ALIKE_DISTANCE",
    "MEDIA_TYPE",
    "PREVIEW_WIDTHS",
    "SIDECAR",
    "SNIFF_BYTES",
    "DecoderPool",
    "EditedImage",
    "FileNames",
    "Layer",
    "NameProblem",
    "NameReason",
    "NamesApplied",
    "PictureNames",
    "PreviewStore",
    "Region",
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
    "names_of_file",
    "orientation_of",
    "packet_of",
    "phash_of",
    "preview_jpeg",
    "preview_webp",
    "preview_width",
    "sidecars",
    "sniff",
    "with_packet",
    "with_regions",
]
