"""Stores of thumbnails of both kinds."""

from tests.support.s3_store import s3_location, s3_url, thumbs

__all__ = ["s3_location", "s3_url", "thumbs"]
