"""Engine, index and ledger as the settings ask for them: what the service and the ingest are made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from app.config import Settings
from app.index import open_index
from app.ledger import Ledger
from app.types import Engine, FaceIndex, ModelPack, collection_name


def build_engine(settings: Settings, *, many: bool = False) -> Engine:
    """The engine of `MODEL_NAME`, for an ingest with `many`; slow: reads and checks the model's files.

    Raises what `find_pack` and `FaceEngine` raise.
    """
    from app.embeddings import FaceEngine
    from app.weights import find_pack, in_precision, verify_pack

    def verified() -> ModelPack:
        return in_precision(verify_pack(settings.model_name, settings.models_dir), settings.precision)

    pack = in_precision(find_pack(settings.model_name, settings.models_dir), settings.precision)
    return FaceEngine(pack, settings, verified=verified, many=many)


def open_ledger(settings: Settings, engine: Engine) -> Ledger:
    """The ledger of the collection that this engine fills."""
    return Ledger(settings.state_dir / "ledger.sqlite3", collection_name(settings.qdrant_collection, engine.pack))


@contextmanager
def open_parts(settings: Settings) -> Iterator[tuple[Engine, FaceIndex, Ledger]]:
    """All three, for an ingest; closed at the end."""
    engine = build_engine(settings, many=True)
    with (
        closing(open_index(settings, engine.pack)) as index,
        closing(open_ledger(settings, engine)) as ledger,
    ):
        yield engine, index, ledger
