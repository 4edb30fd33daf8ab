"""Settings: every environment variable, read and checked once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.core.errors import OceanoError

REPOSITORY: Final = Path(__file__).resolve().parents[3]

_ORIGIN: Final = re.compile(r"https?://[^/?#\s@]+")
_PLAIN_URL: Final = re.compile(r"[!-$&-~]+")  # printable ASCII without % and spaces
_HEADER: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")  # printable ASCII, no space at either end
_UP_TO_A_LOGIN: Final = re.compile(r".*@", re.DOTALL)

_WORKERS_REASON = (
    "one process holds the model and the index; a second would load the model again and gain nothing. "
    "GPU_CONCURRENCY lets more requests into the model at once"
)


Fallback = Literal["border", "larger", "rotated", "contrast"]


class Settings(BaseSettings):
    """Checked, frozen settings; `load_settings` reads them.

    Units stand in the names or in the descriptions. Every field is an environment variable of the
    same name in upper case, and stands in `.env.example`.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, case_sensitive=False, allow_inf_nan=False
    )

    uvicorn_host: str = Field("127.0.0.1", description="address to listen on")
    uvicorn_port: int = Field(9100, ge=1, le=65535, description="TCP port to listen on")
    uvicorn_workers: int = Field(1, description="always 1")
    uvicorn_limit_concurrency: int = Field(256, ge=1, description="requests at once; more are answered 503")
    request_timeout_seconds: float = Field(30, gt=0, description="seconds until a request is answered 504")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field((), description="origins, comma-separated")
    data_dir: Path = Field(REPOSITORY, description="holds logs, state, thumbs, models, qdrant_storage")
    model_name: str = Field("antelopev2", min_length=1, description="a pack under models/, or a folder")
    det_size: Annotated[tuple[int, int], NoDecode] = Field((640, 640), description="width,height in pixels")
    det_threshold: float | None = Field(
        None, gt=0, lt=1, description="least det_score of a face; empty: the detector's own"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where the model runs")
    gpu_concurrency: int = Field(1, ge=1, le=64, description="model runs at once")
    precision: Literal["fp32", "fp16"] = Field("fp32", description="floating-point precision; fp16 for GPUs")
    fallbacks: Annotated[tuple[Fallback, ...], NoDecode] = Field(
        ("border", "larger", "rotated", "contrast"), description="tried in order when no face is found"
    )
    qdrant_url: str = Field("", description="a Qdrant server; empty: the embedded index")
    qdrant_grpc_port: int = Field(0, ge=0, le=65535, description="that server's gRPC port; 0: QDRANT_URL's port + 1")
    qdrant_api_key: str = Field("", repr=False, description="key for that server")
    qdrant_ca_file: str = Field("", description="certificates (PEM) that vouch for that server; empty: the usual ones")
    qdrant_collection: str = Field("faces", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="alias of the collection")
    hnsw_ef: int = Field(512, ge=16, le=4096, description="candidates kept while searching")
    hnsw_m: int = Field(48, ge=4, le=128, description="edges per node of the graph")
    hnsw_ef_construct: int = Field(200, ge=16, le=2048, description="candidates kept while building")
    shard_number: int = Field(1, ge=1, description="shards of the collection on a server")
    replication_factor: int = Field(1, ge=1, description="copies of each shard on a cluster")
    write_consistency_factor: int = Field(1, ge=1, description="copies that must have taken a write")
    max_upload_mb: float = Field(15, gt=0, description="megabytes (10^6 bytes) of one uploaded file")
    max_image_megapixels: float = Field(64, gt=0, description="megapixels (10^6) of one picture, before decoding")
    api_keys: Annotated[tuple[str, ...], NoDecode] = Field((), repr=False, description="keys, comma-separated")
    ingest_roots: Annotated[tuple[Path, ...], NoDecode] = Field((), description="folders, comma-separated")

    @field_validator("uvicorn_workers")
    @classmethod
    def _one_worker(cls, value: int) -> int:
        if value != 1:
            raise ValueError(f"must be 1: {_WORKERS_REASON}")
        return value

    @field_validator("fallbacks", mode="before")
    @classmethod
    def _fallbacks(cls, value: Any) -> Any:
        return () if value == "none" else cls._comma_separated(value)

    @field_validator("cors_origins", "api_keys", "ingest_roots", mode="before")
    @classmethod
    def _comma_separated(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not _ORIGIN.fullmatch(origin):  # a path or a slash at the end would never match
                raise ValueError("each origin must be * or like https://host or https://host:port, without a path")
        return value

    @field_validator("api_keys")
    @classmethod
    def _long_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(len(key) < 16 for key in value):
            raise ValueError("each key must have at least 16 characters")
        return value

    @field_validator("ingest_roots")
    @classmethod
    def _absolute_roots(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        if any(not root.is_absolute() for root in value):
            raise ValueError("each folder must be an absolute path")
        return value

    @field_validator("det_size", mode="before")
    @classmethod
    def _size(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        parts = value.replace("x", ",").split(",")
        if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
            raise ValueError("must be width,height in pixels, such as 640,640")
        return tuple(int(part) for part in parts)

    @field_validator("det_size")
    @classmethod
    def _strides(cls, value: tuple[int, int]) -> tuple[int, int]:
        if any(side % 32 or not 64 <= side <= 4096 for side in value):
            raise ValueError("each side must be a multiple of 32 from 64 to 4096")
        return value

    @field_validator("data_dir", mode="after")
    @classmethod
    def _absolute_data(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @field_validator("qdrant_url")
    @classmethod
    def _url(cls, value: str) -> str:
        if not value:
            return value
        try:
            url = urlsplit(value)
            fits = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        except ValueError:  # the port is no number, or too large
            fits = False
        if "@" in value:
            raise ValueError("must hold no user or password, which Qdrant does not ask for: a key is QDRANT_API_KEY")
        if not fits or not _PLAIN_URL.fullmatch(value):
            raise ValueError("must be like http://host:6333 or https://host:6333")
        return value

    @field_validator("qdrant_api_key")
    @classmethod
    def _sendable(cls, value: str) -> str:
        if value and not _HEADER.fullmatch(value):  # it goes into a header
            raise ValueError("must be plain ASCII, without a space or line end before or after it")
        return value

    @property
    def logs_dir(self) -> Path:
        return self.data_dir / "logs"

    @property
    def state_dir(self) -> Path:
        return self.data_dir / "state"

    @property
    def thumbs_dir(self) -> Path:
        return self.data_dir / "thumbs"

    @property
    def models_dir(self) -> Path:
        return self.data_dir / "models"

    @property
    def index_dir(self) -> Path:
        return self.data_dir / "qdrant_storage"

    @property
    def embedded_dir(self) -> Path:
        return self.index_dir / "embedded"

    @property
    def max_upload_bytes(self) -> int:
        return int(self.max_upload_mb * 1_000_000)

    @property
    def enough(self) -> int:
        """Pixels of a picture's longer side that are decoded to begin with; more where a face is small."""
        return 2 * max(self.det_size)

    @property
    def max_image_pixels(self) -> int:
        return int(self.max_image_megapixels * 1_000_000)


def load_settings(env_file: Path | None = REPOSITORY / ".env", **overrides: Any) -> Settings:
    """Read the environment and `.env` (the environment wins), check everything.

    Raises OceanoError `invalid_setting`: the variable's name, its value and what would be right.
    """
    try:
        return Settings(_env_file=env_file, **overrides)  # type: ignore[call-arg]
    except ValidationError as failure:
        sentences = [_sentence(error) for error in failure.errors()]
        raise OceanoError(
            "invalid_setting",
            "; ".join(sentences),
            details={"settings": [_variable(error) for error in failure.errors()]},
        ) from None
    except (OSError, UnicodeDecodeError) as failure:
        raise OceanoError("invalid_setting", f"{env_file} cannot be read: {failure}") from None


def _variable(error: ErrorDetails) -> str:
    return str(error["loc"][0]).upper() if error["loc"] else ""


def _sentence(error: ErrorDetails) -> str:
    name = _variable(error)
    wanted = error["msg"].removeprefix("Value error, ")
    wanted = wanted[0].lower() + wanted[1:] if wanted.startswith("Input") else wanted
    if not name:
        return wanted
    field = Settings.model_fields.get(name.lower())
    secret = field is not None and field.repr is False
    given = str(error["input"])
    if name == "QDRANT_URL":
        given = _UP_TO_A_LOGIN.sub("***@", given)
    shown = "***" if secret else repr(given)
    return f"{name}={shown}: {wanted}"
