"""Engine, index and ledger as the settings ask for them: what the service and the ingest are made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from app.config import Settings
from app.index import open_index
from app.ledger import Ledger
from app.types import Engine, FaceIndex, collection_name


def build_engine(settings: Settings) -> Engine:
    """The engine of `MODEL_NAME`; slow: reads and checks the model's files. Raises what `find_pack` and it raise."""
    from app.embeddings import FaceEngine
    from app.weights import find_pack

    return FaceEngine(find_pack(settings.model_name, settings.models_dir), settings)


def open_ledger(settings: Settings, engine: Engine) -> Ledger:
    """The ledger of the collection that this engine fills."""
    return Ledger(settings.state_dir / "ledger.sqlite3", collection_name(settings.qdrant_collection, engine.pack))


@contextmanager
def open_parts(settings: Settings) -> Iterator[tuple[Engine, FaceIndex, Ledger]]:
    """All three, for a process that is no server; closed at the end."""
    engine = build_engine(settings)
    with (
        closing(open_index(settings, engine.pack)) as index,
        closing(open_ledger(settings, engine)) as ledger,
    ):
        yield engine, index, ledger
