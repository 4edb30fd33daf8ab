"""The store of thumbnails that the settings name: an ingest, the doctor and contact sheets with both kinds."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from app.core.config import Settings
from app.core.errors import OceanoError
from app.images import S3Location, S3ThumbStore, ThumbStore
from app.ingest import Ingest, IngestOptions
from app.service.doctor import Doctor
from app.service.factory import open_ledger
from app.service.thumbs import open_thumbs
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex
from tests.support.s3_store import plain_client, s3_location, s3_url

__all__ = ["s3_location", "s3_url"]


def on_s3(settings: Settings, location: S3Location) -> Settings:
    return settings.model_copy(
        update={
            "thumbs_url": location.url,
            "thumbs_s3_endpoint": location.endpoint,
            "thumbs_s3_access_key": location.access_key,
            "thumbs_s3_secret_key": location.secret_key,
        }
    )


@pytest.fixture(params=["folder", "s3"])
def made(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """Settings with thumbnails of either kind."""
    return settings if request.param == "folder" else on_s3(settings, request.getfixturevalue("s3_location"))


def test_without_a_url_thumbnails_are_in_the_data_folder(settings: Settings) -> None:
    store = open_thumbs(settings)
    assert isinstance(store, ThumbStore)
    assert store.root == settings.thumbs_dir


def test_with_a_url_they_are_on_s3_and_previews_stay_in_the_data_folder(
    settings: Settings, s3_location: S3Location
) -> None:
    store = open_thumbs(on_s3(settings, s3_location))
    assert isinstance(store, S3ThumbStore)
    assert store.previews == ThumbStore(settings.thumbs_dir).previews


@pytest.mark.parametrize("field", ["thumbs_s3_access_key", "thumbs_s3_secret_key"])
def test_half_a_key_is_an_invalid_setting(settings: Settings, s3_location: S3Location, field: str) -> None:
    with pytest.raises(OceanoError, match="THUMBS_S3_ACCESS_KEY and THUMBS_S3_SECRET_KEY") as caught:
        open_thumbs(on_s3(settings, s3_location).model_copy(update={field: ""}))
    assert caught.value.exit_code == 2


def ingest(settings: Settings, index: MemoryIndex, folder: Path) -> None:
    with closing(open_ledger(settings, FAKE_PACK)) as ledger:
        options = IngestOptions(max_pixels=4_000_000)
        Ingest(FakeEngine(), index, ledger, open_thumbs(settings), options).run(folder)


def test_after_an_ingest_every_face_has_a_thumbnail(made: Settings, index: MemoryIndex, colour_pictures: Path) -> None:
    ingest(made, index, colour_pictures)
    thumbs = open_thumbs(made)
    assert list(thumbs.face_ids()) == sorted(index.points)
    assert all(jpeg and jpeg.startswith(b"\xff\xd8") for jpeg in thumbs.read_many(sorted(index.points)))
    assert settings_folder(made) == (sorted(index.points) if not made.thumbs_url else [])


def settings_folder(settings: Settings) -> list[str]:
    return list(ThumbStore(settings.thumbs_dir).face_ids())


def test_the_doctor_draws_lost_thumbnails_and_deletes_those_of_no_face(
    made: Settings, index: MemoryIndex, colour_pictures: Path
) -> None:
    ingest(made, index, colour_pictures)
    thumbs, faces = open_thumbs(made), sorted(index.points)
    thumbs.delete(faces[:3])
    thumbs.write(faces[3], b"")
    unused = "00000000-0000-4000-8000-000000000000"
    thumbs.write(unused, b"jpeg")
    with closing(open_ledger(made, FAKE_PACK)) as ledger:
        doctor = Doctor(made, index, ledger, FAKE_PACK.digest, FakeEngine(), Event())
        found = doctor.check()
        assert found.without_thumbnail == set(faces[:4])
        assert found.unused_thumbnails == {unused}
        repairs = doctor.repair(found)
        assert (repairs.drawn_thumbnails, repairs.deleted_thumbnails) == (4, 1)
        assert doctor.check().is_empty


def test_an_ingest_whose_bucket_is_missing_ends_before_it_records_a_face(
    settings: Settings, s3_location: S3Location, index: MemoryIndex, colour_pictures: Path
) -> None:
    made = on_s3(settings, replace(s3_location, bucket="not-yet"))
    with pytest.raises(OceanoError, match="has no bucket 'not-yet'") as caught:
        ingest(made, index, colour_pictures)
    assert caught.value.exit_code == 3
    assert not index.points
    with closing(open_ledger(made, FAKE_PACK)) as ledger:
        assert ledger.totals().faces == 0
    plain_client(s3_location.endpoint).create_bucket(Bucket="not-yet")
    ingest(made, index, colour_pictures)
    assert list(open_thumbs(made).face_ids()) == sorted(index.points)
