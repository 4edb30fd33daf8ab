"""Engine, index and ledger as the settings ask for them: what the service and the ingest are made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from app.core.config import Settings
from app.core.protocols import Engine, FaceIndex
from app.core.types import ModelPack, collection_name
from app.index import made_by, open_index
from app.library.ledger import Ledger


def find_model(settings: Settings) -> ModelPack:
    """The pack of `MODEL_NAME` in the precision of the settings. Raises what `find_pack` raises."""
    from app.packs.store import find_pack, in_precision

    return in_precision(find_pack(settings.model_name, settings.models_dir), settings.precision)


def build_engine(settings: Settings, *, many: bool = False) -> Engine:
    """The engine of `MODEL_NAME`, for an ingest with `many`; slow: reads and checks the model's files.

    Raises what `find_pack` and `FaceEngine` raise.
    """
    from app.embeddings import FaceEngine
    from app.packs.store import in_precision, verify_pack

    def verified() -> ModelPack:
        return in_precision(verify_pack(settings.model_name, settings.models_dir), settings.precision)

    return FaceEngine(find_model(settings), settings, verified=verified, many=many)


def open_ledger(settings: Settings, pack: ModelPack) -> Ledger:
    """The ledger of the collection that this model fills."""
    return Ledger(settings.state_dir / "ledger.sqlite3", collection_name(settings.qdrant_collection, pack))


@contextmanager
def open_parts(settings: Settings) -> Iterator[tuple[Engine, FaceIndex, Ledger]]:
    """All three, for an ingest; closed at the end."""
    engine = build_engine(settings, many=True)
    with _stored(settings, engine.pack) as (index, ledger):
        yield engine, index, ledger


@contextmanager
def open_stored(settings: Settings) -> Iterator[tuple[ModelPack, FaceIndex, Ledger]]:
    """What needs no engine, and the model that it belongs to; closed at the end."""
    pack = find_model(settings)
    with _stored(settings, pack) as (index, ledger):
        yield pack, index, ledger


@contextmanager
def _stored(settings: Settings, pack: ModelPack) -> Iterator[tuple[FaceIndex, Ledger]]:
    with closing(open_index(settings, pack)) as index, closing(open_ledger(settings, pack)) as ledger:
        yield index, ledger


def indexed_model(settings: Settings) -> str | None:
    """The model that made the embedded index; None where there is none, or the ledger knows of no face in it."""
    alias = made_by(settings)
    path = settings.state_dir / "ledger.sqlite3"
    if alias is None:
        return None
    if path.exists():
        with closing(Ledger(path, alias["collection"])) as ledger:
            if not ledger.totals().faces:
                return None
    return alias["model"]
