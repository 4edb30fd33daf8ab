"""GET /images/{image_id}, its preview and its file."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from app.catalog import open_ledger
from app.core.config import Settings
from app.core.errors import OceanoError
from app.images.decoding import decode, image_id_of
from app.images.thumbnails import ThumbStore
from app.ingest import Ingest, IngestOptions
from app.library import OpenedFile
from app.main import create_app
from app.web import uploads
from tests.support.clients import TestClient
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.pictures import BLUE, GREEN, RED, encoded
from tests.support.running import open_below

PHOTOGRAPH = encoded(RED, (1500, 1000), "JPEG")
IMAGE = image_id_of(PHOTOGRAPH)
FILE, PREVIEW = f"/images/{IMAGE}/file", f"/images/{IMAGE}/preview"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pics"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(PHOTOGRAPH)
    return folder


def _ingested(folder: Path, index: MemoryIndex) -> Settings:
    settings = Settings(_env_file=None, data_dir=folder.parent / "data")
    ledger = open_ledger(settings.state_dir / "catalog.sqlite3", "faces__fake__ffffffff")
    thumbs = ThumbStore(settings.thumbs_dir)
    Ingest(FakeEngine(), index, ledger, thumbs, IngestOptions(max_pixels=4_000_000)).run(folder)
    return settings


@contextmanager
def _serving(folder: Path, index: MemoryIndex, **how: object) -> Iterator[TestClient]:
    """The service over the folder, ingested; every request must close the files that it opened."""
    settings = _ingested(folder, index).model_copy(update=how)
    with TestClient(create_app(settings, engine=FakeEngine(), index=index), raise_server_exceptions=False) as client:
        yield client
        assert not open_below(folder)


@pytest.fixture
def client(folder: Path, index: MemoryIndex) -> Iterator[TestClient]:
    with _serving(folder, index) as client:
        yield client


# the description


def test_an_image_is_described_with_its_faces_files_and_neighbours(folder: Path, index: MemoryIndex) -> None:
    _ingested(folder, index)  # before the copy: which of both is the first does not depend on the file system
    for name, colour in (("b.png", GREEN), ("c.png", BLUE)):
        (folder / name).write_bytes(encoded(colour))
    (folder / "z copy.jpg").write_bytes(PHOTOGRAPH)
    with _serving(folder, index) as client:
        body = client.get(f"/images/{IMAGE}").json()
    assert (body["image_id"], body["width"], body["height"]) == (IMAGE, 1500, 1000)
    assert [one["bbox"] for one in body["faces"]] == [[375.0, 250.0, 1125.0, 750.0]]
    assert body["faces"][0]["thumb_url"] == f"/thumbs/{body['faces'][0]['face_id']}"
    paths = [str(folder / "a.jpg"), str(folder / "z copy.jpg")]
    assert body["files"] == [{"path": path, "size": len(PHOTOGRAPH), "shown": True} for path in paths]
    assert body["in_folder"] == {"previous": None, "next": image_id_of(encoded(GREEN))}
    assert body["in_time"] == {"previous": None, "next": None}
    assert (body["preview_url"], body["file_url"], body["alike"]) == (PREVIEW, FILE, [])


def test_camera_and_time_come_from_the_file(folder: Path, index: MemoryIndex) -> None:
    exif = Image.Exif()
    exif[271], exif[306] = "Canon", "2019:06:10 10:42:00"
    Image.new("RGB", (90, 60), GREEN).save(folder / "b.jpg", exif=exif.tobytes())
    with _serving(folder, index) as client:
        body = client.get(f"/images/{image_id_of((folder / 'b.jpg').read_bytes())}").json()
    assert (body["details"], body["taken_at"]) == ({"camera": "Canon"}, "2019-06-10T10:42:00")


def test_a_recompressed_copy_is_alike(folder: Path, index: MemoryIndex) -> None:
    with Image.open(folder / "a.jpg") as image:
        image.save(folder / "b.jpg", quality=40)
    other = image_id_of((folder / "b.jpg").read_bytes())
    with _serving(folder, index) as client:
        assert client.get(f"/images/{IMAGE}").json()["alike"] == [other]
        assert client.get(f"/images/{other}").json()["alike"] == [IMAGE]


@pytest.mark.parametrize("end", ["", "/preview", "/file"])
@pytest.mark.parametrize(
    "image_id", ["0" * 64, "x", IMAGE.upper(), IMAGE[:-1], f"{IMAGE}0", "..%2f" * 5, f"{IMAGE}%0a"]
)
def test_an_unknown_or_malformed_id_is_404(client: TestClient, end: str, image_id: str) -> None:
    answer = client.get(f"/images/{image_id}{end}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] in ("image_unknown", "not_found")
    if "%2f" not in image_id:
        assert answer.json()["error"]["code"] == "image_unknown"


# what may be shown


@pytest.mark.parametrize("end", ["/preview", "/file"])
def test_a_service_for_other_machines_shows_nothing_by_default(folder: Path, index: MemoryIndex, end: str) -> None:
    with _serving(folder, index, uvicorn_host="0.0.0.0") as client:
        answer = client.get(f"/images/{IMAGE}{end}", headers={"If-None-Match": "*"})
        body = client.get(f"/images/{IMAGE}").json()
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "image_not_shown")
    assert "LIBRARY_ROOTS" in answer.json()["error"]["message"]
    assert (body["preview_url"], body["file_url"], body["details"]) == (None, None, {})
    assert [one["shown"] for one in body["files"]] == [False]


def test_library_roots_decide_what_is_shown(folder: Path, index: MemoryIndex) -> None:
    with _serving(folder, index, uvicorn_host="0.0.0.0", library_roots=(folder,)) as client:
        assert client.get(FILE).content == PHOTOGRAPH
    with _serving(folder, index, library_roots=(folder.with_name("pic"),)) as client:
        assert client.get(FILE).status_code == 403
        assert client.get(PREVIEW).status_code == 403


def test_a_preview_that_is_kept_is_not_shown_once_its_folder_is_not(folder: Path, index: MemoryIndex) -> None:
    with _serving(folder, index) as client:
        assert client.get(PREVIEW).status_code == 200
    with _serving(folder, index, library_roots=(folder.parent / "other",)) as client:
        assert client.get(PREVIEW).status_code == 403


@pytest.mark.parametrize("end", ["/preview", "/file"])
@pytest.mark.parametrize("fate", ["deleted", "changed", "pipe"])
@pytest.mark.parametrize("kept", [False, True])
def test_a_file_that_is_not_the_image_any_more_is_missing(
    client: TestClient, folder: Path, end: str, fate: str, kept: bool
) -> None:
    if kept:
        assert client.get(PREVIEW).status_code == 200
    (folder / "a.jpg").unlink()
    if fate == "changed":
        (folder / "a.jpg").write_bytes(encoded(GREEN))
    if fate == "pipe":
        os.mkfifo(folder / "a.jpg")
    for headers in ({}, {"If-None-Match": "*"}):
        answer = client.get(f"/images/{IMAGE}{end}", headers=headers)
        assert answer.json()["error"]["code"] == "image_missing"
    assert client.get(f"/images/{IMAGE}").status_code == 200


def test_a_touched_file_is_still_sent(client: TestClient, folder: Path) -> None:
    os.utime(folder / "a.jpg", (1, 1))
    assert client.get(FILE).content == PHOTOGRAPH


# the original


def test_an_original_is_sent_as_it_is_and_never_run(client: TestClient) -> None:
    answer = client.get(FILE)
    assert (answer.status_code, answer.content) == (200, PHOTOGRAPH)
    headers = answer.headers
    assert headers["content-type"] == "image/jpeg"
    assert headers["content-disposition"] == 'inline; filename="a.jpg"'
    assert headers.get_list("content-security-policy") == ["sandbox; default-src 'none'"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["etag"] == f'"{IMAGE}"'
    assert headers["accept-ranges"] == "bytes"
    assert "private" in headers["cache-control"]


def test_a_download_is_saved(client: TestClient) -> None:
    assert client.get(FILE, params={"download": "true"}).headers["content-disposition"].startswith("attachment;")


@pytest.mark.parametrize(("kind", "media_type"), [("TIFF", "image/tiff"), ("BMP", "image/bmp")])
def test_a_format_that_browsers_do_not_show_is_saved(
    folder: Path, index: MemoryIndex, kind: str, media_type: str
) -> None:
    data = encoded(GREEN, kind=kind)
    (folder / "b.jpg").write_bytes(data)  # whatever its name
    with _serving(folder, index) as client:
        headers = client.get(f"/images/{image_id_of(data)}/file").headers
        assert (headers["content-type"], headers["content-disposition"][:10]) == (media_type, "attachment")
        assert client.get(f"/images/{image_id_of(data)}/preview").headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize(
    "name",
    [b'a"; filename=x.html;.jpg', b"a\r\nSet-Cookie: x=1.jpg", "ñ 日本.jpg".encode(), b"\xff\xfe.jpg", b"a\\b.jpg"],
)
def test_a_hostile_name_stays_within_its_header(folder: Path, index: MemoryIndex, name: bytes) -> None:
    (folder / "a.jpg").rename(folder / os.fsdecode(name))
    with _serving(folder, index) as client:
        answer = client.get(FILE)
    assert answer.content == PHOTOGRAPH
    assert "set-cookie" not in answer.headers
    shown = quote(name.decode("utf-8", "backslashreplace"))
    assert answer.headers["content-disposition"] == f"inline; filename*=utf-8''{shown}"


@pytest.mark.parametrize(
    ("sent", "start", "end"), [("bytes=0-9", 0, 10), ("bytes=100-", 100, None), ("bytes=-7", -7, None)]
)
def test_a_range_is_sent_alone(client: TestClient, sent: str, start: int, end: int | None) -> None:
    answer = client.get(FILE, headers={"Range": sent})
    part = PHOTOGRAPH[start:end]
    assert (answer.status_code, answer.content) == (206, part)
    first = PHOTOGRAPH.index(part) if start else 0
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(part) - 1}/{len(PHOTOGRAPH)}"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"


def test_several_ranges_are_sent_together(client: TestClient) -> None:
    answer = client.get(FILE, headers={"Range": "bytes=0-3,100-103"})
    assert answer.status_code == 206
    assert answer.headers["content-type"].startswith("multipart/byteranges")
    assert PHOTOGRAPH[:4] in answer.content
    assert PHOTOGRAPH[100:104] in answer.content


@pytest.mark.parametrize(
    "sent", ["bytes=9-3", "bytes=", "bytes=x-y", "lines=0-1", "0-9", "bytes=" + "0-1," * 200 + "0-1"]
)
def test_a_range_that_is_malformed_is_ignored(client: TestClient, sent: str) -> None:
    answer = client.get(FILE, headers={"Range": sent})
    assert (answer.status_code, answer.content) == (200, PHOTOGRAPH)


def test_a_range_beyond_the_end_is_416(client: TestClient) -> None:
    answer = client.get(FILE, headers={"Range": f"bytes={len(PHOTOGRAPH)}-"})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(PHOTOGRAPH)}"
    body = answer.json()
    assert (body["error"]["code"], body["error"]["details"]) == ("range_not_satisfiable", {"bytes": len(PHOTOGRAPH)})
    assert body["request_id"] == answer.headers["x-request-id"]
    head = client.head(FILE, headers={"Range": f"bytes={len(PHOTOGRAPH)}-"})
    assert (head.status_code, head.content) == (416, b"")
    assert head.headers["content-range"] == answer.headers["content-range"]
    spanish = client.get(FILE, headers={"Range": f"bytes={len(PHOTOGRAPH)}-", "Accept-Language": "es"})
    assert spanish.json()["error"]["message"].startswith("El archivo")


def test_a_range_of_another_version_is_the_whole_file(client: TestClient) -> None:
    for validator, status in ((f'"{IMAGE}"', 206), ('"other"', 200), (f'W/"{IMAGE}"', 200)):
        answer = client.get(FILE, headers={"Range": "bytes=0-9", "If-Range": validator})
        assert answer.status_code == status
        assert len(answer.content) == (10 if status == 206 else len(PHOTOGRAPH))


@pytest.mark.parametrize("address", [FILE, PREVIEW])
def test_head_is_get_without_the_body(client: TestClient, address: str) -> None:
    answer, full = client.head(address), client.get(address)
    assert (answer.status_code, answer.content) == (200, b"")
    for name in ("content-length", "etag", "content-type"):
        assert answer.headers[name] == full.headers[name]


@pytest.mark.parametrize("address", [FILE, PREVIEW])
def test_a_known_version_is_304(client: TestClient, address: str) -> None:
    etag = client.get(address).headers["etag"]
    for sent in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        answer = client.get(address, headers={"If-None-Match": sent})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert client.get(address, headers={"If-None-Match": '"x"'}).status_code == 200


def test_a_file_that_is_opened_after_the_request_timed_out_is_closed(
    folder: Path, index: MemoryIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, opened = threading.Event(), threading.Event()
    with _serving(folder, index, request_timeout_seconds=0.2) as client:
        pictures = client.app.state.services.pictures  # type: ignore[attr-defined]
        open_original = pictures.open_original

        def on_a_disk_that_hangs(*which: Any) -> OpenedFile:
            free.wait(10)
            found: OpenedFile = open_original(*which)
            opened.set()
            return found

        monkeypatch.setattr(pictures, "open_original", on_a_disk_that_hangs)
        answer = client.get(FILE)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        free.set()
        assert opened.wait(10)
        deadline = time.monotonic() + 10
        while open_below(folder) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not open_below(folder)


# the preview


@pytest.mark.parametrize(("wanted", "width"), [(1, 640), (640, 640), (641, 1280), (2000, 1500), (100_000, 1500)])
def test_a_preview_has_the_next_larger_width_but_is_not_enlarged(client: TestClient, wanted: int, width: int) -> None:
    answer = client.get(PREVIEW, params={"width": wanted})
    assert answer.headers["content-type"] == "image/jpeg"
    picture = decode(answer.content, max_pixels=10**7)
    assert (picture.width, picture.height) == (width, round(width * 2 / 3))


def test_widths_that_are_rounded_to_the_same_have_one_etag(client: TestClient) -> None:
    etags = [client.get(PREVIEW, params={"width": width}).headers["etag"] for width in (1, 640, 641)]
    assert etags[0] == etags[1] != etags[2]


@pytest.mark.parametrize("params", [{"width": "0"}, {"width": "x"}, {"width": "100001"}, {"page": "-1"}])
def test_an_invalid_width_or_page_is_refused(client: TestClient, params: dict[str, str]) -> None:
    answer = client.get(PREVIEW, params=params)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


def test_each_page_of_a_tiff_has_its_preview(folder: Path, index: MemoryIndex) -> None:
    Image.new("RGB", (90, 60), RED).save(
        folder / "b.tif", save_all=True, append_images=[Image.new("RGB", (90, 60), BLUE)]
    )
    address = f"/images/{image_id_of((folder / 'b.tif').read_bytes())}/preview"
    with _serving(folder, index) as client:
        answers = [client.get(address, params={"page": page}) for page in (0, 1, 2)]
    means = [decode(one.content, max_pixels=10**6).pixels.mean(axis=(0, 1)).argmax() for one in answers[:2]]
    assert means == [2, 0]
    assert len({one.headers["etag"] for one in answers[:2]}) == 2
    assert (answers[2].status_code, answers[2].json()["error"]["code"]) == (400, "invalid_request")
    assert "2 pages" in answers[2].json()["error"]["message"]


def test_a_cache_of_0_keeps_no_preview(folder: Path, index: MemoryIndex) -> None:
    with _serving(folder, index, preview_cache_mb=0) as client:
        assert client.get(PREVIEW).status_code == 200
    assert not [*(folder.parent / "data").rglob(f"{IMAGE}*")]


def test_previews_that_were_kept_are_deleted_once_the_cache_is_0(folder: Path, index: MemoryIndex) -> None:
    with _serving(folder, index) as client:
        client.get(PREVIEW)
    assert [*(folder.parent / "data").rglob(f"{IMAGE}*")]
    with _serving(folder, index, preview_cache_mb=0):
        assert not [*(folder.parent / "data").rglob(f"{IMAGE}*")]


def test_previews_that_wait_are_limited_and_run_apart_from_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_MAX_ORIGINALS", 2)

    async def run() -> None:
        decoding = uploads.Decoding(1)
        free = threading.Event()
        waiting = [asyncio.create_task(decoding.original(free.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(OceanoError) as caught:
            await decoding.original(free.wait)
        assert (caught.value.code, caught.value.retry_after) == ("overloaded", 2)
        assert await decoding.threads.run(lambda: "a search") == "a search"
        free.set()
        assert await asyncio.gather(*waiting) == [True, True]
        assert await decoding.original(lambda: "drawn") == "drawn"
        decoding.close()

    asyncio.run(run())
