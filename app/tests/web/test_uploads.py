from __future__ import annotations

import errno
import io
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
from PIL import Image
from starlette.datastructures import UploadFile

from app.core.config import Settings
from app.core.types import Face
from app.images import decoder_pool
from app.main import create_app
from app.web import uploads
from tests.support.clients import TestClient
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.pictures import GREEN, RED, encoded

# Starlette leaves a file that never ends to the garbage collector, which closes it with a ResourceWarning
broken_off = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
BOUNDARY = "b0undary"
MULTIPART = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
MAX_UPLOAD = 50_000
NO_EXAMPLE = "send an `image`, a `face_id` or an `embedding`"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path_factory.mktemp("data"),
        max_upload_mb=MAX_UPLOAD / 1e6,
        max_image_megapixels=0.1,
    )
    app = create_app(settings, engine=FakeEngine(), index=MemoryIndex())
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def _part(name: str, data: bytes, filename: str | None = "a.jpg", extra: str = "") -> bytes:
    named = f'; filename="{filename}"' if filename is not None else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n{extra}\r\n'
    return head.encode() + data + b"\r\n"


def _body(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def _error(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    assert set(body) == {"error", "request_id"}
    assert set(body["error"]) == {"code", "message", "details"}
    assert body["error"]["code"] == code
    assert body["request_id"] == answer.headers["x-request-id"]
    error: dict[str, Any] = body["error"]
    return error


def test_a_picture_is_taken_whatever_its_name_and_type_say(client: TestClient) -> None:
    for name, kind in (("a.jpg", "image/jpeg"), ("a.txt", "text/plain"), ("../../x", "a/b"), ("日本.png", "image/png")):
        for data in (encoded(kind="PNG"), encoded(kind="JPEG"), encoded(kind="WEBP")):
            answer = client.post("/search", files={"image": (name, data, kind)})
            assert answer.status_code == 200, answer.text
            assert answer.json()["image"] == {"width": 64, "height": 48}


def test_fields_come_in_the_form_or_in_the_query_and_the_form_wins(client: TestClient) -> None:
    files = {"image": encoded()}
    assert client.post("/search", files=files, data={"threshold": "0.25"}).json()["threshold"] == 0.25
    assert client.post("/search?threshold=0.75", files=files).json()["threshold"] == 0.75
    answer = client.post("/search?threshold=0.75", files=files, data={"threshold": "0.5"})
    assert answer.json()["threshold"] == 0.5
    assert client.post("/search?threshold=0.5", content=_body(_part("image", encoded())), headers=MULTIPART).is_success


@pytest.mark.parametrize(
    "kind", [None, "application/json", "image/jpeg", "application/x-www-form-urlencoded", "multipart/mixed"]
)
def test_a_body_that_is_no_form_is_400_and_says_what_to_send(client: TestClient, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    error = _error(client.post("/detect", content=encoded(), headers=headers), 400, "invalid_request")
    assert error["message"] == "send multipart/form-data with the file `image`"


@pytest.mark.parametrize("kind", [None, "application/json", "image/jpeg", "multipart/mixed"])
def test_a_search_whose_body_is_no_form_is_400_and_says_what_to_send(client: TestClient, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    error = _error(client.post("/search", content=encoded(), headers=headers), 400, "invalid_request")
    assert error["message"] == NO_EXAMPLE


@pytest.mark.parametrize("charset", ["undefined", "idna", "unicode_escape", "utf-7", '"a', "a\x01b"])
def test_a_charset_that_is_not_utf_8_is_400(client: TestClient, charset: str) -> None:
    """Some codecs of Python raise errors that Starlette does not catch, others decode to lone surrogates."""
    headers = {"Content-Type": f"{MULTIPART['Content-Type']}; charset={charset}"}
    body = _body(_part("image", encoded()), _part("folder", b"/\\ud800", filename=None))
    error = _error(client.post("/search", content=body, headers=headers), 400, "invalid_request")
    assert error["message"] == "the charset of the form must be UTF-8"


@pytest.mark.parametrize("charset", ["utf-8", '"UTF-8"', "iso-8859-1", "us-ascii"])
def test_the_usual_charsets_of_a_form_are_accepted(client: TestClient, charset: str) -> None:
    headers = {"Content-Type": f"{MULTIPART['Content-Type']}; charset={charset}"}
    body = _body(_part("image", encoded()), _part("folder", "/Zo\u00eb".encode(), filename=None))
    _error(client.post("/search", content=body, headers=headers), 400, "folder_unknown")  # it was read


def test_compare_says_which_two_files_it_wants(client: TestClient) -> None:
    error = _error(client.post("/compare"), 400, "invalid_request")
    assert error["message"] == "send multipart/form-data with the file `image_a` and `image_b`"
    error = _error(client.post("/compare", files={"image_a": encoded()}), 400, "invalid_request")
    assert error["message"] == "the file `image_b` is missing or empty"
    assert error["details"] == {"missing": ["image_b"]}


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [_part("picture", encoded())],
        [_part("image", b"")],
        [_part("image", b"", filename="")],
        [_part("image", b"text", filename=None)],
        [_part("IMAGE", encoded())],
        [_part("limit", b"5", filename=None)],
    ],
)
def test_a_missing_or_empty_file_is_400_and_names_the_field(client: TestClient, parts: list[bytes]) -> None:
    error = _error(client.post("/detect", content=_body(*parts), headers=MULTIPART), 400, "invalid_request")
    assert error["message"] == "the file `image` is missing or empty"
    assert error["details"] == {"missing": ["image"]}


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (_part("image", b"", filename=""), NO_EXAMPLE),
        (_part("limit", b"5", filename=None), NO_EXAMPLE),
        (_part("image", b""), "a file `image` is empty"),
        (_part("picture", encoded()), "this request has no file `picture`, only `image`"),
        (_part("image", b"text", filename=None), "image: is no field of this request"),
    ],
)
def test_a_search_without_a_file_that_can_be_read_is_400_and_says_why(
    client: TestClient, part: bytes, message: str
) -> None:
    error = _error(client.post("/search", content=_body(part), headers=MULTIPART), 400, "invalid_request")
    assert error["message"].startswith(message)


def test_two_files_where_one_is_wanted_are_400(client: TestClient) -> None:
    for second in ("image", "other"):
        body = _body(_part("image", encoded()), _part(second, encoded()))
        error = _error(client.post("/detect", content=body, headers=MULTIPART), 400, "invalid_request")
        assert "Maximum number of files is 1" in error["message"]


def test_more_than_ten_images_of_a_person_are_400(client: TestClient) -> None:
    body = _body(*[_part("image", encoded(size=(8, 8)))] * 11)
    error = _error(client.post("/search", content=body, headers=MULTIPART), 400, "invalid_request")
    assert "Maximum number of files is 10" in error["message"]


def test_too_many_fields_are_400(client: TestClient) -> None:
    fields = [_part("limit", b"5", filename=None)] * 101
    error = _error(client.post("/search", content=_body(*fields), headers=MULTIPART), 400, "invalid_request")
    assert "Maximum number of fields is 100" in error["message"]


def test_a_field_as_large_as_a_file_is_refused(settings: Settings) -> None:
    with TestClient(create_app(settings, engine=FakeEngine(), index=MemoryIndex())) as client:
        body = _body(_part("folder", b"x" * 2_000_000, filename=None), _part("image", encoded()))
        error = _error(client.post("/search", content=body, headers=MULTIPART), 400, "invalid_request")
    assert "maximum size" in error["message"]


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        ("/search", "nonsense", "1"),
        ("/search", "limit", "0"),
        ("/search", "limit", "1001"),
        ("/search", "limit", "many"),
        ("/search", "limit", "1.5"),
        ("/search", "limit", "9" * 5000),
        ("/search", "threshold", "1.01"),
        ("/search", "threshold", "-2"),
        ("/search", "threshold", "nan"),
        ("/search", "threshold", "inf"),
        ("/search", "max_faces", "0"),
        ("/search", "group_by", "folder"),
        ("/search", "image_id", "ABC"),
        ("/search", "image_id", "g" * 64),
        ("/search", "taken_from", "yesterday"),
        ("/search", "taken_to", "2024-02-30"),
        ("/search", "ingested_from", "2024-13-01T00:00:00"),
        ("/search", "ingested_to", "2024-01-01T25:00:00Z"),
        ("/search", "min_det_score", "1.5"),
        ("/search", "min_quality", "-0.1"),
        ("/search", "person", "Ada"),
        ("/detect", "limit", "5"),
        ("/compare", "limit", "5"),
        ("/compare", "threshold", "two"),
    ],
)
def test_a_wrong_field_is_400_and_named_in_form_and_query(
    client: TestClient, path: str, field: str, value: str
) -> None:
    names = ("image_a", "image_b") if path == "/compare" else ("image",)
    files = {name: encoded() for name in names}
    for answer in (
        client.post(path, files=files, data={field: value}),
        client.post(path, files=files, params={field: value}),
    ):
        error = _error(answer, 400, "invalid_request")
        assert set(error["details"]["fields"]) == {field}
        assert error["message"].startswith(f"{field}: ")


def test_every_wrong_field_is_named_at_once(client: TestClient) -> None:
    answer = client.post("/search", files={"image": encoded()}, data={"limit": "0", "threshold": "9", "x": "1"})
    assert set(_error(answer, 400, "invalid_request")["details"]["fields"]) == {"limit", "threshold", "x"}


def test_a_blank_field_counts_as_absent_and_lang_is_no_field(client: TestClient) -> None:
    blank = {"limit": "", "threshold": " ", "max_faces": "", "group_by": "", "person": "", "folder": "", "taken_to": ""}
    answer = client.post("/search?lang=es", files={"image": encoded()}, data=blank)
    assert answer.status_code == 200
    assert answer.json()["threshold"] == 0.4


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=other",
        'multipart/form-data; boundary="',
        "multipart/form-data; boundary=é",
        f"multipart/form-data; boundary={'x' * 300}",
        "multipart/form-datax; boundary=b0undary",
    ],
)
def test_a_malformed_boundary_is_400(client: TestClient, kind: str) -> None:
    headers = {"Content-Type": kind.encode("latin-1")}
    _error(client.post("/search", content=_body(_part("image", encoded())), headers=headers), 400, "invalid_request")  # type: ignore[arg-type]


@broken_off
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\r\n",
        b"nothing like a form",
        b"--b0undary",
        b"--b0undary--",
        b"--b0undary\r\n\r\n",
        b"--b0undary\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b0undary--\r\n",
        b'--b0undary\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nnever ends',
        b"--b0undary\r\n" + b"X: y\r\n" * 5000,
        b"\0" * 1000,
        b"--b0undary\r\nContent-Disposition: form-data; name=\xff\xfe; filename=\xff\r\n\r\nx\r\n--b0undary--\r\n",
    ],
)
def test_a_malformed_body_is_400(client: TestClient, body: bytes) -> None:
    _error(client.post("/search", content=body, headers=MULTIPART), 400, "invalid_request")


@broken_off
def test_no_body_however_broken_is_an_error_of_ours(client: TestClient) -> None:
    whole = _body(
        _part("limit", b"5", filename=None), _part("image", encoded(kind="JPEG")), _part("lang", b"es", filename=None)
    )
    assert client.post("/search", content=whole, headers=MULTIPART).status_code == 200
    chance = random.Random(11)
    statuses = set()
    for _ in range(150):
        broken = bytearray(whole)
        for _ in range(chance.choice((1, 2, 8))):
            broken[chance.randrange(len(broken))] = chance.choice((chance.randrange(256), 10, 13, 34, 45))
        if chance.random() < 0.3:
            del broken[chance.randrange(len(broken)) :]
        answer = client.post("/search", content=bytes(broken), headers=MULTIPART)
        statuses.add(answer.status_code)
        assert answer.status_code in (200, 400, 413, 415, 422), answer.text
    assert {200, 400} <= statuses


def test_a_file_that_is_too_large_is_413(client: TestClient) -> None:
    picture = encoded()
    fits = picture + b"\0" * (MAX_UPLOAD - len(picture))
    assert client.post("/search", files={"image": fits}).status_code == 200
    error = _error(client.post("/search", files={"image": fits + b"\0"}), 413, "image_too_large")
    assert error["details"] == {"max_megabytes": 0.05}
    assert error["message"] == "the upload is larger than 0.05 MB"


def test_one_of_two_files_that_is_too_large_is_413(client: TestClient) -> None:
    large = encoded() + b"\0" * MAX_UPLOAD
    _error(client.post("/compare", files={"image_a": encoded(), "image_b": large}), 413, "image_too_large")


def test_a_picture_of_too_many_pixels_is_413(client: TestClient) -> None:
    error = _error(client.post("/search", files={"image": encoded(size=(400, 300))}), 413, "image_too_large")
    assert error["details"] == {"width": 400, "height": 300, "max_megapixels": 0.1}


@pytest.mark.parametrize("data", [b"some text", b"%PDF-1.4", b"\0\0\0\x20ftypisom"])
def test_what_is_no_picture_is_415(client: TestClient, data: bytes) -> None:
    error = _error(client.post("/search", files={"image": ("a.jpg", data)}), 415, "unsupported_image")
    assert error["details"]["supported"] == ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "HEIF", "AVIF"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_damaged_picture_is_400(client: TestClient, kind: str) -> None:
    data = encoded(size=(100, 80), kind=kind)
    error = _error(client.post("/search", files={"image": data[: len(data) // 2]}), 400, "invalid_image")
    assert error["details"] == {"format": kind}


def test_an_error_of_an_upload_is_told_in_the_reader_s_language(client: TestClient) -> None:
    spanish = {"Accept-Language": "es"}
    answer = client.post("/search", files={"image": b"text"}, headers=spanish)
    assert answer.json()["error"]["message"].startswith("El archivo no es una imagen en un formato admitido (JPEG")
    answer = client.post("/search", files={"image": b"x" * (MAX_UPLOAD + 1)}, headers=spanish)
    assert answer.json()["error"]["message"].startswith("El archivo pesa más de 0,05 MB")
    answer = client.post("/search", files={"image": encoded(size=(400, 300))}, headers=spanish)
    assert "400 × 300" in answer.json()["error"]["message"]


def test_a_full_temporary_folder_is_507(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(self: UploadFile, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(UploadFile, "write", full)
    _error(client.post("/search", files={"image": encoded()}), 507, "disk_full")


def test_pictures_of_two_files_keep_their_places(client: TestClient) -> None:
    body = _body(_part("image_b", encoded(GREEN, (30, 20))), _part("image_a", encoded(RED, (20, 30))))
    answer = client.post("/compare", content=body, headers=MULTIPART).json()
    assert answer["a"]["image"] == {"width": 20, "height": 30}
    assert answer["b"]["image"] == {"width": 30, "height": 20}


def test_a_photograph_lying_on_its_side_is_turned_before_it_is_searched(client: TestClient) -> None:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (40, 20), RED).save(out, "JPEG", exif=exif)
    answer = client.post("/detect", files={"image": out.getvalue()}).json()
    assert answer["image"] == {"width": 20, "height": 40}


def _decoder_processes() -> list[psutil.Process]:
    """Children of this process; tests that ran before may have left others."""
    return [one for one in psutil.Process().children() if "app.images.decoder_process" in one.cmdline()]


@pytest.mark.decoders
def test_uploads_are_decoded_in_processes_that_end_with_the_service(settings: Settings) -> None:
    with TestClient(create_app(settings, engine=FakeEngine(), index=MemoryIndex())) as client:
        answers = [client.post("/detect", files={"image": encoded(GREEN)}) for _ in range(3)]
        (process,) = _decoder_processes()
        process.kill()
        crashed = client.post("/detect", files={"image": encoded(GREEN)})
        answers.append(client.post("/detect", files={"image": encoded(GREEN)}))
    assert [answer.status_code for answer in answers] == [200] * 4
    _error(crashed, 400, "invalid_image")
    assert _decoder_processes() == []


@pytest.mark.decoders
def test_a_large_image_waits_until_another_request_s_has_been_answered(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_pool, "_LARGE_JPEG", 1000)
    monkeypatch.setattr(decoder_pool, "_LARGE_BYTES", 50_000)  # of one image
    monkeypatch.setattr(uploads, "_WAIT_SECONDS", 0.1)
    engine, image = FakeEngine(), encoded(GREEN, kind="JPEG")
    analyzing, answered = threading.Event(), threading.Event()
    analyze = engine.analyze

    def slow(*arguments: Any) -> list[list[Face]]:
        analyzing.set()
        answered.wait(20)
        return analyze(*arguments)

    app = create_app(settings, engine=engine, index=MemoryIndex())
    with TestClient(app) as client, ThreadPoolExecutor(1) as threads:
        monkeypatch.setattr(engine, "analyze", slow)
        first = threads.submit(client.post, "/detect", files={"image": image})
        assert analyzing.wait(10)
        for route in ("/detect", "/search"):
            refused = client.post(route, files={"image": image})
            _error(refused, 503, "overloaded")
            assert refused.headers["retry-after"] == "2"
        answered.set()
        assert first.result(10).status_code == 200
        assert client.post("/detect", files={"image": image}).status_code == 200
        both = client.post("/compare", files={"image_a": image, "image_b": image})
        assert both.status_code == 200, "two large images of one request do not wait for each other"
