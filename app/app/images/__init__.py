"""Image formats, decoding and thumbnails."""
