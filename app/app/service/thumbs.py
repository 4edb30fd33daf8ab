"""Opens the thumbnails: the folder of this machine, or an S3 store that several machines share."""

from __future__ import annotations

from urllib.parse import urlsplit

from app.core.config import Settings
from app.core.errors import OceanoError
from app.images import S3Location, S3ThumbStore, Thumbs, ThumbStore


def open_thumbs(settings: Settings) -> Thumbs:
    """Open the thumbnails that `THUMBS_URL` names; nothing is read or written yet.

    Args:
        settings: name the store. Previews are in the data folder in any case.

    Raises:
        OceanoError: `invalid_setting` if the settings of the S3 store are incomplete or wrong.
    """
    folder = ThumbStore(settings.thumbs_dir)
    if not settings.thumbs_url:
        return folder
    access_key, secret_key = settings.thumbs_s3_access_key, settings.thumbs_s3_secret_key
    if bool(access_key) != bool(secret_key):
        raise OceanoError(
            "invalid_setting",
            "set both THUMBS_S3_ACCESS_KEY and THUMBS_S3_SECRET_KEY, or neither of them",
            details={"settings": ["THUMBS_S3_ACCESS_KEY", "THUMBS_S3_SECRET_KEY"]},
        )
    url = urlsplit(settings.thumbs_url)
    location = S3Location(
        url.netloc, url.path.strip("/"), settings.thumbs_s3_endpoint.rstrip("/"), access_key, secret_key
    )
    return S3ThumbStore(location, folder.previews)
