from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.core.config import REPOSITORY, Settings, load_settings, misspelt_api_keys
from app.core.errors import OceanoError

SECRET = "correct-horse-battery-staple"

WRONG = {
    "UVICORN_PORT": ("70000", "65535"),
    "UVICORN_LIMIT_CONCURRENCY": ("0", "greater than or equal to 1"),
    "REQUEST_TIMEOUT_SECONDS": ("0", "greater than 0"),
    "CORS_ORIGINS": ("example.org", "https://host"),
    "DET_SIZE": ("640", "width,height in pixels, such as 640,640"),
    "DET_THRESHOLD": ("1", "less than 1"),
    "DEVICE": ("gpu", "'auto', 'cpu', 'cuda' or 'intel_gpu'"),
    "GPU_CONCURRENCY": ("many", "integer"),
    "QDRANT_URL": ("localhost:9101", "must be like http://host:6333"),
    "THUMBS_URL": ("gs://bucket/thumbs", "must be like s3://BUCKET/PREFIX"),
    "THUMBS_S3_ENDPOINT": ("minio:9000", "must be like http://HOST:9000"),
    "QDRANT_COLLECTION": ("my faces", "pattern"),
    "HNSW_EF": ("8", "greater than or equal to 16"),
    "HNSW_M": ("1", "greater than or equal to 4"),
    "HNSW_EF_CONSTRUCT": ("99999", "less than or equal to 2048"),
    "SHARD_NUMBER": ("0", "greater than or equal to 1"),
    "REPLICATION_FACTOR": ("-1", "greater than or equal to 1"),
    "MAX_UPLOAD_MB": ("0", "greater than 0"),
    "MAX_IMAGE_MEGAPIXELS": ("-5", "greater than 0"),
    "INGEST_ROOTS": ("photos", "absolute path"),
    "LIBRARY_ROOTS": ("/photos,photos", "absolute path"),
    "PREVIEW_CACHE_MB": ("-1", "greater than or equal to 0"),
}


def _read(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load_settings(None)


def _refused(monkeypatch: pytest.MonkeyPatch, **variables: str) -> OceanoError:
    with pytest.raises(OceanoError) as caught:
        _read(monkeypatch, **variables)
    assert caught.value.code == "invalid_setting"
    assert caught.value.exit_code == 2
    return caught.value


def test_without_any_variable_the_defaults_of_the_design_hold() -> None:
    settings = load_settings(None)
    assert (settings.uvicorn_host, settings.uvicorn_port, settings.uvicorn_workers) == ("127.0.0.1", 9100, 1)
    assert (settings.uvicorn_limit_concurrency, settings.request_timeout_seconds) == (256, 30)
    assert (settings.model_name, settings.det_size, settings.det_threshold) == ("antelopev2", (640, 640), None)
    assert (settings.device, settings.gpu_concurrency) == ("auto", 1)
    assert (settings.qdrant_url, settings.qdrant_api_key, settings.qdrant_collection) == ("", "", "faces")
    assert (settings.hnsw_ef, settings.hnsw_m, settings.hnsw_ef_construct) == (512, 48, 200)
    assert (settings.max_upload_bytes, settings.max_image_pixels) == (15_000_000, 64_000_000)
    assert (settings.cors_origins, settings.api_keys, settings.ingest_roots) == ((), (), ())
    assert settings.data_dir == REPOSITORY


@pytest.mark.parametrize(("name", "value", "right"), [(name, *pair) for name, pair in WRONG.items()])
def test_a_wrong_setting_says_its_name_its_value_and_what_would_be_right(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, right: str
) -> None:
    error = _refused(monkeypatch, **{name: value})
    assert error.message.startswith(f"{name}='{value}'") or error.message.startswith(f"{name}='('")
    assert name in error.message
    assert value in error.message
    assert right in error.message
    assert error.details == {"settings": [name]}


def test_all_wrong_settings_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    error = _refused(monkeypatch, UVICORN_PORT="x", DEVICE="tpu", HNSW_M="0")
    assert error.details == {"settings": ["UVICORN_PORT", "DEVICE", "HNSW_M"]}
    assert error.message.count("; ") == 2


@pytest.mark.parametrize("workers", ["2", "0", "16"])
def test_any_number_of_workers_but_one_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    message = _refused(monkeypatch, UVICORN_WORKERS=workers).message
    assert message.startswith(f"UVICORN_WORKERS='{workers}': must be 1: ")
    assert "one process holds the model and the index" in message
    assert "GPU_CONCURRENCY" in message


@pytest.mark.parametrize("name", ["REQUEST_TIMEOUT_SECONDS", "MAX_UPLOAD_MB", "MAX_IMAGE_MEGAPIXELS", "DET_THRESHOLD"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_number_must_be_finite(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    assert name in _refused(monkeypatch, **{name: value}).message


@pytest.mark.parametrize("size", ["0,0", "640,641", "32,32", "640,640,640", "-640,640", "640;640", "a,b", "8192,640"])
def test_an_input_size_that_the_detector_cannot_take_is_refused(monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    assert "DET_SIZE" in _refused(monkeypatch, DET_SIZE=size).message


@pytest.mark.parametrize(
    ("text", "size"), [("320,640", (320, 640)), (" 640 , 320 ", (640, 320)), ("512x512", (512, 512))]
)
def test_an_input_size_is_width_and_height(monkeypatch: pytest.MonkeyPatch, text: str, size: tuple[int, int]) -> None:
    assert _read(monkeypatch, DET_SIZE=text).det_size == size


@pytest.mark.parametrize(
    "origin", ["https://a.example/", "https://a.example/app", "https://", "ftp://a.example", "null"]
)
def test_an_origin_that_no_browser_ever_sends_is_refused(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    assert origin in _refused(monkeypatch, CORS_ORIGINS=f"https://b.example,{origin}").message


def test_lists_are_comma_separated_and_forgive_spaces_and_empty_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _read(
        monkeypatch,
        CORS_ORIGINS=" https://a.example , http://localhost:3000,, ",
        INGEST_ROOTS="/photos,/more photos",
        API_KEYS=f"{SECRET},{SECRET}2",
    )
    assert settings.cors_origins == ("https://a.example", "http://localhost:3000")
    assert settings.ingest_roots == (Path("/photos"), Path("/more photos"))
    assert settings.api_keys == (SECRET, f"{SECRET}2")


def test_a_key_that_is_too_short_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    error = _refused(monkeypatch, API_KEYS=f"{SECRET},pssst")
    assert error.message == "API_KEYS=***: each key must have at least 16 characters"
    shown = "".join(traceback.format_exception(error)) + repr(error.details)
    assert "pssst" not in shown
    assert SECRET not in shown


def test_secrets_are_not_in_the_text_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _read(monkeypatch, API_KEYS=SECRET, QDRANT_API_KEY=SECRET)
    assert settings.api_keys == (SECRET,)
    assert settings.qdrant_api_key == SECRET
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)
    other = _refused(monkeypatch, UVICORN_PORT="x")
    assert SECRET not in other.message


def test_an_empty_variable_means_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = {name.upper(): "" for name in Settings.model_fields}
    assert len(empty) > 20
    assert _read(monkeypatch, **empty) == Settings(_env_file=None)


def test_the_env_file_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("# a comment\nUVICORN_PORT=9200\nMODEL_NAME='buffalo_l'\nHNSW_M=\nSOMETHING_ELSE=1\n")
    settings = load_settings(env_file)
    assert (settings.uvicorn_port, settings.model_name, settings.hnsw_m) == (9200, "buffalo_l", 48)
    monkeypatch.setenv("UVICORN_PORT", "9300")
    assert load_settings(env_file).uvicorn_port == 9300


def test_a_wrong_value_in_the_env_file_is_named_like_one_in_the_environment(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("GPU_CONCURRENCY=none\n")
    with pytest.raises(OceanoError, match="GPU_CONCURRENCY='none'"):
        load_settings(env_file)


def test_an_env_file_that_is_no_text_is_a_wrong_setting(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_bytes(b"UVICORN_PORT=\xff\xfe\n")
    with pytest.raises(OceanoError, match="cannot be read") as caught:
        load_settings(env_file)
    assert caught.value.code == "invalid_setting"


def test_no_env_file_is_no_error(tmp_path: Path) -> None:
    assert load_settings(tmp_path / "none").uvicorn_port == 9100


def test_overrides_win_over_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UVICORN_PORT", "9300")
    assert load_settings(None, uvicorn_port=9400).uvicorn_port == 9400
    with pytest.raises(OceanoError, match="UVICORN_PORT='0'"):
        load_settings(None, uvicorn_port=0)


def test_all_data_lies_under_the_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = _read(monkeypatch, DATA_DIR=str(tmp_path / "data"))
    folders = (
        settings.logs_dir, settings.state_dir, settings.thumbs_dir, settings.models_dir, settings.index_dir,
    )  # fmt: skip
    assert [folder.name for folder in folders] == ["logs", "state", "thumbs", "models", "qdrant_storage"]
    assert {folder.parent for folder in folders} == {tmp_path / "data"}
    assert not (tmp_path / "data").exists(), "reading the settings makes no folder"


def test_the_data_folder_is_absolute_wherever_the_process_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert _read(monkeypatch, DATA_DIR="here").data_dir == REPOSITORY / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _read(monkeypatch, DATA_DIR="~/there").data_dir == tmp_path / "there"


def test_settings_are_frozen(settings: Settings) -> None:
    with pytest.raises(ValidationError):
        settings.uvicorn_port = 1  # type: ignore[misc]


def test_the_environment_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(os.environ)
    load_settings(None)
    assert dict(os.environ) == before


def test_every_setting_has_a_description() -> None:
    assert Settings.model_fields
    for name, field in Settings.model_fields.items():
        assert field.description, name


@pytest.mark.parametrize(
    "url",
    [
        "host:6333",
        "http://",
        "http://host:abc",
        "http://host:99999",
        "ftp://host",
        "http://:1",
        " http://host",
        "http://host\n",
        "http://a b",
        "http://h%00",
    ],
)
def test_an_address_of_a_server_that_is_none_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDRANT_URL", url)
    with pytest.raises(OceanoError, match="QDRANT_URL"):
        load_settings()


@pytest.mark.parametrize(
    "url", ["http://me:secret@host:6333", "https://secret@host", "me:secret@host", "http://me:9#secret@host"]
)
def test_a_password_in_an_address_is_refused_and_not_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDRANT_URL", url)
    with pytest.raises(OceanoError, match=r"QDRANT_URL='[*]{3}@host") as refused:
        load_settings()
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "file:///thumbs",
        "https://bucket.s3.amazonaws.com",
        "bucket/thumbs",
        "s3://",
        "s3:///thumbs",
        "s3://ab",
        "s3://Bucket/thumbs",
        "s3://bucket/a//b",
        "s3://bucket/../thumbs",
        "s3://bucket/thumbs?versioned",
        "s3://bucket/thumbs#1",
        "s3://bucket/my thumbs",
        "s3://bucket/thumbs\n",
        "s3://bucket:9000/thumbs",
    ],
)
def test_a_store_of_thumbnails_that_is_none_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "THUMBS_URL" in _refused(monkeypatch, THUMBS_URL=url).message


@pytest.mark.parametrize("name", ["THUMBS_URL", "THUMBS_S3_ENDPOINT"])
def test_a_key_in_an_address_of_thumbnails_is_refused_and_not_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scheme = "s3" if name == "THUMBS_URL" else "http"
    refused = _refused(monkeypatch, **{name: f"{scheme}://key:secret@bucket/thumbs"})
    assert f"{name}='***@bucket/thumbs': must not contain a key" in refused.message
    assert "secret@" not in refused.message


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/", "s3://my.bucket-2/a/b_c/d.e/"])
def test_a_bucket_with_or_without_a_prefix_is_a_store_of_thumbnails(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _read(monkeypatch, THUMBS_URL=url).thumbs_url == url.rstrip("/")


@pytest.mark.parametrize("key", ["schlüssel", "one and a space ", "line\n", "\x01"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OceanoError, match=r"QDRANT_API_KEY=[*]{3}: must be plain ASCII"):
        load_settings(qdrant_api_key=key)


@pytest.mark.parametrize("name", ["DATA_DIR", "INGEST_ROOTS", "QDRANT_CA_FILE"])
def test_a_home_of_nobody_is_a_wrong_setting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert name in _refused(monkeypatch, **{name: "~nobody-has-this-name/x"}).message


def test_paths_of_files_and_roots_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = _read(monkeypatch, INGEST_ROOTS="~/photos,/mnt", QDRANT_CA_FILE="certs/ca.pem")
    assert settings.ingest_roots == (tmp_path / "photos", Path("/mnt"))
    assert settings.qdrant_ca_file == str(REPOSITORY / "certs/ca.pem")


@pytest.mark.parametrize("value", ["::1", "[::1]", "  ::1 ", " [::1] "])
def test_a_host_is_read_without_brackets_and_blanks(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _read(monkeypatch, UVICORN_HOST=value).uvicorn_host == "::1"


@pytest.mark.parametrize("value", ["  ", "[]"])
def test_a_blank_host_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _refused(monkeypatch, UVICORN_HOST=value)


@pytest.mark.parametrize(
    ("line", "nearest"),
    [
        (f"API_KEY={SECRET}", "API_KEYS"),
        (f"APIKEYS={SECRET}", "API_KEYS"),
        (f"OCEANO_API_KEYS={SECRET}", "API_KEYS"),
        (f"api-keys={SECRET}", "API_KEYS"),
        (f"ADMIN_KEY={SECRET}", "API_KEYS"),
        (f"API_KEYS: {SECRET}", "API_KEYS"),
        (f"API_KEYS:{SECRET}", "API_KEYS"),
        (f"API_KEYS {SECRET}", "API_KEYS"),
        ("API_KEYS", "API_KEYS"),
        (f"QDRANT_KEY={SECRET}", "QDRANT_API_KEY"),
        ("DATADIR=/x", "DATA_DIR"),
        ("CORS_ORIGIN=*", "CORS_ORIGINS"),
    ],
)
def test_a_line_that_was_meant_as_a_setting_is_refused_and_the_setting_named(
    line: str, nearest: str, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(f"# a comment\n{line}\n")
    with pytest.raises(OceanoError) as caught:
        load_settings(tmp_path / ".env")
    assert (caught.value.code, caught.value.exit_code) == ("invalid_setting", 2)
    assert nearest in caught.value.message
    assert "line 2" in caught.value.message
    assert SECRET not in caught.value.message


def test_names_of_other_programs_in_the_env_file_are_left_alone(tmp_path: Path) -> None:
    names = "CUDA_VERSION", "OCEANO_UID", "OCEANO_GID", "COMPOSE_FILE", "PICTURES", "MONITORING_API_KEY", "OCEANO_DEMO"
    lines = [f"{name}=1" for name in (*names, "GRAFANA_PASSWORD", "MIGRATE_API_KEY", "QDRANT__SERVICE__API_KEY")]
    (tmp_path / ".env").write_text("\n".join([*lines, "", "# API_KEY=", f"export API_KEYS='{SECRET}'", ""]))
    assert load_settings(tmp_path / ".env").api_keys == (SECRET,)


def test_an_env_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"API_KEYS={SECRET}\n", encoding="utf-8-sig")
    assert load_settings(tmp_path / ".env").api_keys == (SECRET,)


def test_a_folder_in_place_of_the_env_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    with pytest.raises(OceanoError, match="is a folder") as caught:
        load_settings(tmp_path / ".env")
    assert caught.value.exit_code == 2


def test_environment_variables_that_were_meant_as_keys_are_named() -> None:
    environment = dict.fromkeys(
        ("API_KEY", "apikeys", "OCEANO_API_KEY", "API_KEYS", "PATH", "SSH_KEY", "KEYS_DIR"), "x"
    )
    assert misspelt_api_keys({**environment, "APIKEY": ""}) == ["API_KEY", "OCEANO_API_KEY", "apikeys"]


# what may be shown


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost", "LocalHost"])
def test_a_service_for_this_machine_shows_all_ingested_photographs(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    settings = _read(monkeypatch, UVICORN_HOST=host)
    assert settings.is_local
    assert settings.shown_roots is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "oceano", "localhost.example.org", "::ffff:10.0.0.1"])
def test_a_service_for_other_machines_shows_no_photographs_by_default(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    settings = _read(monkeypatch, UVICORN_HOST=host)
    assert not settings.is_local
    assert settings.shown_roots == ()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_library_roots_are_the_folders_that_are_shown(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    settings = _read(monkeypatch, UVICORN_HOST=host, LIBRARY_ROOTS=" /photos, ~/more photos,, ")
    assert settings.shown_roots == (Path("/photos"), Path("/home/me/more photos"))


def test_the_preview_cache_may_be_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _read(monkeypatch).preview_cache_mb == 2048
    assert _read(monkeypatch, PREVIEW_CACHE_MB="0").preview_cache_mb == 0
