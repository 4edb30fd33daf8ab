"""Settings: environment variables and `.env`, read and validated at start-up."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from difflib import get_close_matches
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from dotenv.parser import parse_stream
from pydantic import Field, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.core.errors import OceanoError

REPOSITORY: Final = Path(__file__).resolve().parents[3]

_ORIGIN: Final = re.compile(r"https?://[^/?#\s@]+")
_HOST: Final = re.compile(r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]")
ROOT_PATH: Final = re.compile(r"(/[A-Za-z0-9._~-]*[A-Za-z0-9_~-])+")
_PLAIN_URL: Final = re.compile(r"[!-$&-~]+")  # printable ASCII without % and spaces
_BUCKET_URL: Final = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_-][A-Za-z0-9._-]*)*/?")
_HEADER: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")  # printable ASCII, no space at either end
_UP_TO_USERINFO: Final = re.compile(r".*@", re.DOTALL)

# Names in `.env` that other programs read: compose files, quick-start, the entrypoint, `oceano migrate`.
_FOREIGN_NAMES: Final = frozenset({"MIGRATE_API_KEY", "MONITORING_API_KEY"})
_SIMILAR: Final = 0.8  # difflib's ratio from which a name counts as a misspelt setting

_WORKERS_REASON: Final = (
    "one process holds the model and the index; a second would load the model again and gain nothing. "
    "GPU_CONCURRENCY is the maximum number of concurrent model runs"
)

Fallback = Literal["border", "larger", "rotated", "contrast"]
MOST_TILES: Final = 16  # along the longer side


class Settings(BaseSettings):
    """Validated, frozen settings; `load_settings` reads them.

    Each field is an environment variable of the same name in upper case and is explained in `.env.example`. Units are
    in the field's name or description.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, case_sensitive=False, allow_inf_nan=False
    )

    uvicorn_host: str = Field("127.0.0.1", description="address to listen on")
    uvicorn_port: int = Field(9100, ge=1, le=65535, description="TCP port to listen on")
    uvicorn_workers: int = Field(1, description="always 1")
    uvicorn_limit_concurrency: int = Field(256, ge=1, description="maximum concurrent requests; further ones get 503")
    request_timeout_seconds: float = Field(30, gt=0, description="seconds after which a received request gets 504")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="origins of other pages, comma-separated; *: all"
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="host names to answer, comma-separated; *: all; empty: all, or its own on loopback without keys"
    )
    root_path: str = Field("", description="path of the page behind a proxy, such as /oceano; empty: /")
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        ("127.0.0.1", "::1"), description="proxies whose X-Forwarded headers count, comma-separated; *: all"
    )
    data_dir: Path = Field(REPOSITORY, description="folder of logs, state, thumbs, models, qdrant_storage")
    model_name: str = Field("antelopev2", min_length=1, description="a pack under models/, or a folder with one")
    det_size: Annotated[tuple[int, int], NoDecode] = Field(
        (640, 640), description="input size of the detector: width,height in pixels"
    )
    det_threshold: float | None = Field(
        None, gt=0, lt=1, description="lowest det_score of a face; empty: the detector's own"
    )
    device: Literal["auto", "cpu", "cuda", "intel_gpu"] = Field("auto", description="where the model runs")
    gpu_concurrency: int = Field(1, ge=1, le=64, description="maximum concurrent model runs")
    runtime: Literal["auto", "onnxruntime", "openvino"] = Field(
        "auto", description="what runs the model on a CPU; auto: the fastest here"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field(
        "auto", description="precision of the model; auto: the fastest whose embeddings are those of fp32"
    )
    fallbacks: Annotated[tuple[Fallback, ...], NoDecode] = Field(
        ("border", "larger", "rotated", "contrast"),
        description="tried in order if no face is found; none: no fallbacks",
    )
    tiles: Literal["auto", "off"] | int = Field(
        "auto", description="tiles along the longer side of large pictures; auto: from size and faces; off: none"
    )
    catalog_url: str = Field(
        "", repr=False, description="URL of a PostgreSQL database for the catalog; empty: a SQLite file"
    )
    thumbs_url: str = Field("", description="bucket and prefix of an S3 store for the thumbnails; empty: thumbs/")
    thumbs_s3_endpoint: str = Field("", description="URL of that S3 store; empty: Amazon S3")
    thumbs_s3_access_key: str = Field("", repr=False, description="key for that S3 store; empty: boto3 looks for one")
    thumbs_s3_secret_key: str = Field("", repr=False, description="secret that belongs to that key")
    qdrant_url: str = Field("", description="URL of a Qdrant server; empty: the embedded index")
    qdrant_grpc_port: int = Field(0, ge=0, le=65535, description="gRPC port of that server; 0: QDRANT_URL's port + 1")
    qdrant_api_key: str = Field("", repr=False, description="API key of that server")
    qdrant_ca_file: str = Field("", description="CA certificates (PEM file) for that server; empty: the public CAs")
    qdrant_collection: str = Field("faces", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="alias of the collection")
    hnsw_ef: int = Field(512, ge=16, le=4096, description="candidates kept while searching")
    hnsw_m: int = Field(48, ge=4, le=128, description="edges per node of the graph")
    hnsw_ef_construct: int = Field(200, ge=16, le=2048, description="candidates kept while building")
    shard_number: int = Field(1, ge=1, description="shards of the collection on a server")
    replication_factor: int = Field(1, ge=1, description="copies of each shard on a cluster")
    write_consistency_factor: int = Field(1, ge=1, description="copies that must confirm a write")
    max_upload_mb: float = Field(15, gt=0, description="maximum megabytes (10^6 bytes) of an uploaded file")
    max_image_megapixels: float = Field(64, gt=0, description="maximum megapixels (10^6) that are decoded of an image")
    api_keys: Annotated[tuple[str, ...], NoDecode] = Field((), repr=False, description="API keys, comma-separated")
    oidc_issuer: str = Field("", description="URL of an OpenID Connect provider, for signing in; empty: none")
    oidc_client_id: str = Field("", description="client id of Oceano at that provider")
    oidc_client_secret: str = Field("", repr=False, description="client secret; empty: a public client")
    oidc_name: str = Field("OpenID Connect", description="how the sign-in page names the provider")
    oidc_groups_claim: str = Field("groups", description="claim with the groups of a person")
    oidc_scope: str = Field("openid email profile", description="scope that is asked for")
    oidc_roles: str = Field("", description="role of each group, as group=role, comma-separated")
    session_idle_minutes: int = Field(60, ge=1, le=10_080, description="minutes after which an unused session ends")
    session_hours: int = Field(12, ge=1, le=720, description="hours after which a session ends")
    rate_limit_per_minute: int = Field(
        6000, ge=0, description="most requests per minute of one key, user or address; 0: any number"
    )
    audit_days: int = Field(365, ge=0, le=36_500, description="days that the audit log keeps entries; 0: it has none")
    require_purpose: bool = Field(False, description="whether requests must say their purpose (X-Purpose)")
    ingest_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="folders that REST may ingest, comma-separated"
    )
    library_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        (),
        description="folders whose photographs may be shown and downloaded, comma-separated; "
        "empty: all ingested ones if UVICORN_HOST is this machine, else none",
    )
    read_names: bool = Field(
        True, description="whether an ingest names faces as the pictures' metadata and sidecars say"
    )
    group_after_ingest: bool = Field(True, description="whether an ingest groups new faces by person at its end")
    preview_cache_mb: int = Field(2048, ge=0, description="megabytes (10^6 bytes) of previews that are kept on disk")

    @field_validator("uvicorn_workers")
    @classmethod
    def _one_worker(cls, value: int) -> int:
        if value != 1:
            raise ValueError(f"must be 1: {_WORKERS_REASON}")
        return value

    @field_validator("fallbacks", mode="before")
    @classmethod
    def _parse_fallbacks(cls, value: Any) -> Any:
        return () if value == "none" else cls._split_commas(value)

    @field_validator("tiles", mode="before")
    @classmethod
    def _parse_tiles(cls, value: Any) -> Any:
        text = str(value).strip()
        if text in ("auto", "off"):
            return text
        if not text.isdecimal() or not 2 <= int(text) <= MOST_TILES:
            raise ValueError(f"must be auto, off, or a number from 2 to {MOST_TILES}")
        return int(text)

    @field_validator(
        "cors_origins",
        "allowed_hosts",
        "trusted_proxies",
        "api_keys",
        "ingest_roots",
        "library_roots",
        mode="before",
    )
    @classmethod
    def _split_commas(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("cors_origins")
    @classmethod
    def _valid_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not _ORIGIN.fullmatch(origin):  # browsers send no path and no final slash
                raise ValueError("each origin must be * or like https://host or https://host:port, without a path")
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _valid_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if host != "*" and not _HOST.fullmatch(host):
                raise ValueError("each must be * or a name or address without a port, such as photos.example.org")
        return tuple(host.lower() for host in value)

    @field_validator("root_path")
    @classmethod
    def _valid_root_path(cls, value: str) -> str:
        path = value.strip().rstrip("/")
        if path and not ROOT_PATH.fullmatch(path):
            raise ValueError("must begin with / and hold letters, digits, and . _ ~ - only, such as /oceano")
        return path

    @field_validator("trusted_proxies")
    @classmethod
    def _valid_proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            for proxy in value:
                if proxy != "*":
                    ip_network(proxy)
        except ValueError:
            raise ValueError("each must be * or an address or a network, such as 10.0.0.5 or 10.0.0.0/8") from None
        return ("*",) if "*" in value else value

    @field_validator("api_keys")
    @classmethod
    def _long_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(len(key) < 16 for key in value):
            raise ValueError("each key must have at least 16 characters")
        return value

    @field_validator("ingest_roots", "library_roots")
    @classmethod
    def _absolute_roots(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        value = tuple(_expanded(root) for root in value)
        if any(not root.is_absolute() for root in value):
            raise ValueError("each folder must be an absolute path")
        return value

    @field_validator("det_size", mode="before")
    @classmethod
    def _parse_det_size(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        parts = value.replace("x", ",").split(",")
        if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
            raise ValueError("must be width,height in pixels, such as 640,640")
        return tuple(int(part) for part in parts)

    @field_validator("det_size")
    @classmethod
    def _multiples_of_32(cls, value: tuple[int, int]) -> tuple[int, int]:
        if any(side % 32 or not 64 <= side <= 4096 for side in value):
            raise ValueError("each side must be a multiple of 32 from 64 to 4096")
        return value

    @field_validator("uvicorn_host")
    @classmethod
    def _bare_host(cls, value: str) -> str:
        host = value.strip()
        if host.startswith("[") and host.endswith("]"):  # an IPv6 address as in a URL
            host = host[1:-1].strip()
        if not host:
            raise ValueError("must be an address or a name, such as 127.0.0.1")
        return host

    @field_validator("data_dir", mode="after")
    @classmethod
    def _absolute_data_dir(cls, value: Path) -> Path:
        return _absolute(value).resolve()

    @field_validator("qdrant_ca_file")
    @classmethod
    def _absolute_ca_file(cls, value: str) -> str:
        return str(_absolute(Path(value))) if value else value

    @field_validator("qdrant_url")
    @classmethod
    def _valid_url(cls, value: str) -> str:
        if not value:
            return value
        if "@" in value:
            raise ValueError("must not contain a user or password: Qdrant has none; set its key in QDRANT_API_KEY")
        if not _is_http_url(value):
            raise ValueError("must be like http://host:6333 or https://host:6333")
        return value

    @field_validator("thumbs_url")
    @classmethod
    def _valid_bucket(cls, value: str) -> str:
        if "@" in value:
            raise ValueError("must not contain a key: set it in THUMBS_S3_ACCESS_KEY and THUMBS_S3_SECRET_KEY")
        if value and not _BUCKET_URL.fullmatch(value):
            raise ValueError(
                "must be like s3://BUCKET/PREFIX, with a bucket of 3 to 63 lower-case letters, digits, - and ., and a "
                "prefix of letters, digits, -, _, . and /; or empty, for a folder"
            )
        return value.rstrip("/")

    @field_validator("thumbs_s3_endpoint")
    @classmethod
    def _valid_endpoint(cls, value: str) -> str:
        if "@" in value:
            raise ValueError("must not contain a key: set it in THUMBS_S3_ACCESS_KEY and THUMBS_S3_SECRET_KEY")
        if value and not _is_http_url(value):
            raise ValueError("must be like http://HOST:9000 or https://HOST; the bucket belongs in THUMBS_URL")
        return value.rstrip("/")

    @field_validator("qdrant_api_key")
    @classmethod
    def _valid_header(cls, value: str) -> str:
        if value and not _HEADER.fullmatch(value):  # it is sent in a header
            raise ValueError("must be plain ASCII, without control characters, and without spaces at either end")
        return value

    @property
    def shown_roots(self) -> tuple[Path, ...] | None:
        """Folders whose photographs may be shown; None: all ingested photographs may be."""
        return None if not self.library_roots and self.is_local else self.library_roots

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        try:
            return ip_address(self.uvicorn_host).is_loopback
        except ValueError:
            return self.uvicorn_host.lower() == "localhost"

    @property
    def logs_dir(self) -> Path:
        """Folder of the log files."""
        return self.data_dir / "logs"

    @property
    def state_dir(self) -> Path:
        """Folder of the ledger and other state."""
        return self.data_dir / "state"

    @property
    def thumbs_dir(self) -> Path:
        """Folder of the thumbnails."""
        return self.data_dir / "thumbs"

    @property
    def models_dir(self) -> Path:
        """Folder of the model packs."""
        return self.data_dir / "models"

    @property
    def index_dir(self) -> Path:
        """Folder of the indexes."""
        return self.data_dir / "qdrant_storage"

    @property
    def embedded_dir(self) -> Path:
        """Folder of the embedded indexes."""
        return self.index_dir / "embedded"

    @property
    def max_upload_bytes(self) -> int:
        """`max_upload_mb` in bytes."""
        return int(self.max_upload_mb * 1_000_000)

    @property
    def min_decoded_side(self) -> int:
        """Pixels that the longer side keeps at least if an image is decoded at a reduced size; see `Picture.full`."""
        return 2 * max(self.det_size)

    @property
    def max_image_pixels(self) -> int:
        """`max_image_megapixels` in pixels."""
        return int(self.max_image_megapixels * 1_000_000)


_NAMES: Final = frozenset(name.upper() for name in Settings.model_fields)


def load_settings(env_file: Path | None = REPOSITORY / ".env", **overrides: Any) -> Settings:
    """Read and validate all settings.

    Args:
        env_file: read if it exists; environment variables override it. None: the environment only.
        overrides: fields of `Settings` that override both.

    Raises:
        OceanoError: `invalid_setting`; the message has the name and value of each wrong variable (secrets as `***`)
            and says what is valid. `details["settings"]` has the names. Also if `env_file` is a folder, has a line
            that cannot be read, or a name that resembles a setting's.
    """
    try:
        if env_file is not None:
            _check_env_file(env_file)
        return Settings(_env_file=env_file, _env_file_encoding="utf-8-sig", **overrides)  # type: ignore[call-arg]
    except ValidationError as failure:
        raise OceanoError(
            "invalid_setting",
            "; ".join(_error_text(error) for error in failure.errors()),
            details={"settings": [_variable_name(error) for error in failure.errors()]},
        ) from None
    except (OSError, UnicodeDecodeError) as failure:
        raise OceanoError("invalid_setting", f"{env_file} cannot be read: {failure}") from None


def _is_http_url(value: str) -> bool:
    try:
        url = urlsplit(value)
        return (
            url.scheme in ("http", "https")
            and bool(url.hostname)
            and url.port != 0
            and bool(_PLAIN_URL.fullmatch(value))
        )
    except ValueError:  # the port is not a number, or too large
        return False


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"there is no user {path.parts[0][1:]!r}") from None


def _absolute(path: Path) -> Path:
    """Expand `~`; a relative path is relative to Oceano's folder, wherever the process was started."""
    return REPOSITORY / _expanded(path)


def _check_env_file(env_file: Path) -> None:
    """Raise `invalid_setting` for what would be ignored although it was meant as a setting."""
    if env_file.is_dir():
        raise OceanoError(
            "invalid_setting",
            f"{env_file} is a folder, but must be a file; Docker makes such a folder if the file is missing. Remove "
            "it, then copy .env.example to .env",
        )
    if not env_file.is_file():
        return
    with env_file.open(encoding="utf-8-sig") as file:
        lines = list(parse_stream(file))
    given = {name.upper() for name, value in os.environ.items() if value}
    given |= {line.key.upper() for line in lines if line.key and line.value}
    problems = []
    for line in lines:
        name = line.key or ""
        if line.error or (name and line.value is None):
            # not the rest of the line: it may be a secret
            name = re.split(r"[:=\s]", line.original.string.strip(), maxsplit=1)[0]
            problems.append(f"line {line.original.line}, {name}: must be like {_nearest_setting(name, given)}=value")
        elif name.upper() not in _NAMES | _FOREIGN_NAMES and (nearest := _nearest_setting(name, given)) != "NAME":
            problems.append(f"line {line.original.line}: {name} is not a setting; did you mean {nearest}?")
    if problems:
        raise OceanoError("invalid_setting", f"{env_file}: {'; '.join(problems)}")


def misspelt_api_keys(environment: Mapping[str, str]) -> list[str]:
    """Return the environment variables that were probably meant as `API_KEYS`; in containers, `.env` arrives there."""
    return sorted(
        name
        for name, value in environment.items()
        if value and name.upper() != "API_KEYS" and get_close_matches(_plain(name), ["API_KEYS"], cutoff=_SIMILAR)
    )


def _plain(name: str) -> str:
    return name.upper().replace("-", "_").removeprefix("OCEANO_")


def _nearest_setting(name: str, given: AbstractSet[str]) -> str:
    """Return the setting that a name in `.env` was probably meant to be, or "NAME".

    Args:
        name: the name.
        given: the names that have a value.
    """
    plain = _plain(name)
    if close := get_close_matches(plain, _NAMES, n=1, cutoff=_SIMILAR):
        return close[0]
    is_for_qdrant = plain.startswith("QDRANT__")  # settings of Qdrant's own container
    return "API_KEYS" if "KEY" in plain and not is_for_qdrant and "API_KEYS" not in given else "NAME"


def _variable_name(error: ErrorDetails) -> str:
    return str(error["loc"][0]).upper() if error["loc"] else ""


def _error_text(error: ErrorDetails) -> str:
    name = _variable_name(error)
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:] if message.startswith("Input") else message
    if not name:
        return message
    field = Settings.model_fields.get(name.lower())
    is_secret = field is not None and field.repr is False
    value = str(error["input"])
    if name in ("QDRANT_URL", "THUMBS_URL", "THUMBS_S3_ENDPOINT"):
        value = _UP_TO_USERINFO.sub("***@", value)
    shown = "***" if is_secret else repr(value)
    return f"{name}={shown}: {message}"
