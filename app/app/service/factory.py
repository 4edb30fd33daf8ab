"""Builds what runs from the settings: the engine, the index, the ledger, and all of them together."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Final

from app import catalog
from app.catalog import (
    CATALOG_FILE,
    EARLIER_LEDGER,
    Database,
    KeyStore,
    Ledger,
    SessionStore,
    add_index,
    open_postgresql,
    require_index,
)
from app.core.concurrency import Threads
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.protocols import Engine, FaceIndex
from app.core.types import ModelPack, collection_name
from app.images import PreviewStore, Thumbs
from app.index import active_collection, identity_of, open_index, other_collections
from app.library import Pictures, Progress, running_progress
from app.metrics import Metrics
from app.security import Access, Audit, Authenticator, OidcSettings, open_oidc, roles_of_groups
from app.service.kept import KeptSearches
from app.service.monitor import Monitor, Snapshot
from app.service.people import People
from app.service.results import Results
from app.service.running_jobs import common_progress
from app.service.scoped import View, Views, view_of
from app.service.scoped_index import forbid
from app.service.search import Search
from app.service.shown import Shown
from app.service.sureness import Bands, bands_of
from app.service.thumbs import open_thumbs

if TYPE_CHECKING:
    from app.security import OidcProvider

DEMO_PACK: Final = "demo"
LOOKUP_THREADS: Final = 16
THUMB_THREADS: Final = 32


@dataclass(slots=True)
class Services:
    """All that a request handler uses.

    `lookups` runs short reads of index and ledger, `thumb_reads` those of thumbnails, apart from searches and from each
    other: an S3 store that does not respond holds up nothing else. `sign_ins` compares keys and passwords with their
    hashes, one at a time: wrong ones occupy one processor at most, and hold up other sign-ins only.

    `within` returns the same service without what somebody may not see; its `view` says what they see.
    """

    settings: Settings
    engine: Engine
    index: FaceIndex
    ledger: Ledger
    thumbs: Thumbs
    search: Search
    monitor: Monitor
    metrics: Metrics
    pictures: Pictures
    shown: Shown
    started: float = field(default_factory=time.time)
    lookups: Threads = field(default_factory=lambda: Threads(LOOKUP_THREADS, "lookup"))
    sign_ins: Threads = field(default_factory=lambda: Threads(1, "sign-in"))
    thumb_reads: Threads = field(default_factory=lambda: Threads(THUMB_THREADS, "thumb"))
    kept: KeptSearches = field(init=False)
    keys: KeyStore = field(init=False)
    authenticator: Authenticator = field(init=False)
    oidc: OidcProvider | None = field(init=False)
    audit: Audit = field(init=False)
    people: People = field(init=False)

    view: View | None = field(init=False, default=None)
    _views: Views = field(init=False)

    def __post_init__(self) -> None:
        """Open the kept searches and what requests are authenticated with.

        The monitor deletes kept searches whose time is over, and sees whether all is new.
        """
        self.keys = KeyStore(self.ledger.database)
        self.oidc = _oidc_provider(self.settings)
        self.authenticator = _authenticator(self.settings, self.keys, oidc=self.oidc is not None)
        self.audit = _audit(self.settings, self.ledger)
        self.monitor.audit = self.audit
        self.kept = KeptSearches(self.settings.state_dir)
        self.monitor.kept = self.kept
        self.monitor.is_new = self._is_new
        self.people = People(
            self.ledger.database,
            self.index,
            self.ledger.collection,
            self.search.results,
            lambda: self.bands,
            self.engine.pack.embedding_size,
        )
        self.monitor.names = self.people.names_copy
        self._views = Views(partial(view_of, self))

    def within(self, access: Access) -> Services:
        """Return the service as somebody sees it: itself if no folder is hidden from them."""
        return self if access.sees_all else self._views.get(access.folders)

    def count_view(self) -> None:
        """Count the faces of the view if it is time to; blocking."""
        if self.view is not None and self.monitor.index_ok:
            self.view.count()

    def require_all_folders(self) -> None:
        """Refuse what is about all folders to someone who sees some of them.

        Raises:
            OceanoError: `forbidden`, with the cause `scope`.
        """
        if self.view is not None:
            forbid()

    @property
    def snapshot(self) -> Snapshot:
        """The last known state, as far as the view shows it."""
        known = self.monitor.snapshot
        return known if self.view is None else self.view.of(known)

    @property
    def faces_indexed(self) -> int | None:
        """Faces in the index that the view shows; None while the index is unavailable."""
        faces = self.monitor.faces_indexed
        return faces if faces is None or self.view is None else self.view.faces

    def _is_new(self) -> bool:
        """Return whether nothing was ever ingested into this data folder."""
        collection = collection_name(self.settings.qdrant_collection, self.engine.pack)
        return self.ledger.is_unused() and not other_collections(self.settings, collection)

    @property
    def demo(self) -> bool:
        """True if the model is the demo pack, which finds drawn people only."""
        return self.engine.pack.name == DEMO_PACK

    @property
    def results(self) -> Results:
        """The lists of matches in the index."""
        return self.search.results

    @property
    def bands(self) -> Bands:
        """What similarities mean with this model and this many faces.

        How similar strangers are is measured on the whole index: it says nothing about any of them.
        """
        return bands_of(self.engine.pack, self.faces_indexed or 0, self.monitor.strangers)

    @property
    def photographs(self) -> int | None:
        """Images in the ledger, each counted once; None if it cannot be read, and if some are hidden."""
        totals = self.snapshot.totals
        return None if totals is None else totals.done + totals.no_face

    def importing(self) -> Progress | None:
        """Return how far the ingest of this machine is, or those that others take part in; None if none runs."""
        here = running_progress(self.settings.state_dir) if self.view is None else None  # it names no folder
        if here is not None:
            return here
        jobs = self.snapshot.jobs or ()
        # Without other machines, only the progress file tells at once that an ingest was killed.
        elsewhere = self.ledger.database.has_many_writers
        return common_progress(job for job in jobs if job.shared or elsewhere)

    def start_measuring(self) -> None:
        """Start to measure the runtimes, unless they have been measured; the process may end meanwhile."""
        Thread(target=self.engine.measure_runtimes, name="runtimes", daemon=True).start()

    def close(self) -> None:
        """Close every part, even if closing one of them fails."""
        with contextlib.ExitStack() as stack:
            for part in (
                self.kept, self.ledger, self.index, self.search, self.lookups, self.sign_ins, self.thumb_reads,
                self.monitor, self.authenticator, self.audit,
            ):  # fmt: skip
                stack.callback(part.close)


def _oidc_provider(settings: Settings) -> OidcProvider | None:
    given = {
        "OIDC_ISSUER": settings.oidc_issuer, "OIDC_CLIENT_ID": settings.oidc_client_id,
        "OIDC_ROLES": settings.oidc_roles,
    }  # fmt: skip
    if not any(given.values()):
        return None
    if missing := [name for name, value in given.items() if not value]:
        message = f"to sign in with OpenID Connect, also set {' and '.join(missing)}"
        raise OceanoError("invalid_setting", message, details={"settings": [*missing]})
    try:
        roles = roles_of_groups(settings.oidc_roles)
    except ValueError as failure:
        message = f"OIDC_ROLES={settings.oidc_roles!r} {failure}"
        raise OceanoError("invalid_setting", message, details={"settings": ["OIDC_ROLES"]}) from failure
    return open_oidc(
        OidcSettings(
            settings.oidc_issuer,
            settings.oidc_client_id,
            settings.oidc_client_secret,
            settings.oidc_groups_claim,
            roles,
            settings.oidc_scope,
        )
    )


def _authenticator(settings: Settings, keys: KeyStore, *, oidc: bool) -> Authenticator:
    authenticator = Authenticator(
        settings.api_keys,
        keys,
        SessionStore(keys.database),
        idle=timedelta(minutes=settings.session_idle_minutes),
        longest=timedelta(hours=settings.session_hours),
        oidc=oidc,
    )
    authenticator.find_whether_key_is_needed()
    return authenticator


def _audit(settings: Settings, ledger: Ledger) -> Audit:
    return Audit(ledger.database, settings.state_dir, days=settings.audit_days)


def open_services(
    settings: Settings, metrics: Metrics, engine: Engine | None = None, index: FaceIndex | None = None
) -> Services:
    """Open all parts of the service; slow: loads the model.

    Args:
        settings: name the model, the index and the data folder.
        metrics: updated by searches and by the monitor.
        engine: used in place of the one that the settings name.
        index: used in place of the one that the settings name.

    Raises:
        OceanoError: as `build_engine`, `open_index` and `open_ledger` do.
    """
    engine = build_engine(settings) if engine is None else engine
    with contextlib.ExitStack() as opened:
        index = open_index(settings, engine.pack) if index is None else index
        opened.callback(index.close)
        ledger = open_ledger(settings, engine.pack)
        opened.callback(ledger.close)
        require_same_index(settings, engine.pack, index, ledger)
        opened.pop_all()
    pictures = Pictures(index, ledger, settings.shown_roots)
    thumbs = open_thumbs(settings)
    previews = PreviewStore(thumbs.previews, settings.preview_cache_mb * 1_000_000)
    if not settings.preview_cache_mb:
        previews.clear()  # those of an earlier start, with another setting
    return Services(
        settings,
        engine,
        index,
        ledger,
        thumbs,
        Search(engine, index, metrics, threads=max(4, 2 * settings.gpu_concurrency)),
        Monitor(engine, index, ledger, metrics),
        metrics,
        pictures,
        Shown(pictures, previews, settings.max_image_pixels),
    )


def find_model(settings: Settings) -> ModelPack:
    """Return the pack of `MODEL_NAME` in the precision of the settings.

    Raises:
        OceanoError: as `app.packs.find_pack` does.
    """
    from app.packs import find_pack, in_precision

    return in_precision(find_pack(settings.model_name, settings.models_dir), settings.precision, settings.models_dir)


def build_engine(settings: Settings, *, many: bool = False) -> Engine:
    """Load the model of `MODEL_NAME`; slow: reads and verifies its files.

    Args:
        settings: name the model, its device and its precision.
        many: build the engine for an ingest, which runs many pictures at once, in place of a service.

    Raises:
        OceanoError: as `app.packs.find_pack` and `app.embeddings.FaceEngine` do.
    """
    from app.embeddings import FaceEngine
    from app.packs import in_precision, verify_pack

    def verified() -> ModelPack:
        return in_precision(
            verify_pack(settings.model_name, settings.models_dir), settings.precision, settings.models_dir
        )

    return FaceEngine(find_model(settings), settings, verified=verified, many=many)


def open_ledger(settings: Settings, pack: ModelPack) -> Ledger:
    """Open the ledger for the collection of this model.

    Raises:
        OceanoError: `ledger_unavailable`, `disk_full`.
    """
    return _open_catalog(settings, collection_name(settings.qdrant_collection, pack))


def _open_catalog(settings: Settings, collection: str) -> Ledger:
    if settings.catalog_url:
        return Ledger(open_postgresql(settings.catalog_url), collection)
    return catalog.open_ledger(settings.state_dir / CATALOG_FILE, collection)


@contextmanager
def open_catalog(settings: Settings) -> Iterator[Database]:
    """Open the catalog, for what is not about an index, until the context ends.

    Raises:
        OceanoError: as `open_ledger` does.
    """
    with closing(_open_catalog(settings, "")) as ledger:
        yield ledger.database


@contextmanager
def open_keys(settings: Settings) -> Iterator[KeyStore]:
    """Open the keys and users of the catalog until the context ends.

    Raises:
        OceanoError: as `open_ledger` does.
    """
    with closing(_open_catalog(settings, "")) as ledger:
        yield KeyStore(ledger.database)


@contextmanager
def open_audit(settings: Settings) -> Iterator[Audit]:
    """Open the audit log of the catalog until the context ends.

    Raises:
        OceanoError: as `open_ledger` does.
    """
    with closing(_open_catalog(settings, "")) as ledger, closing(_audit(settings, ledger)) as audit:
        yield audit


@contextmanager
def open_for_ingest(settings: Settings) -> Iterator[tuple[Engine, FaceIndex, Ledger]]:
    """Open engine, index and ledger for an ingest, and close index and ledger at the end.

    Raises:
        OceanoError: as `build_engine`, `open_index` and `open_ledger` do.
    """
    engine = build_engine(settings, many=True)
    with _open_stores(settings, engine.pack) as (index, ledger):
        yield engine, index, ledger


@contextmanager
def open_without_engine(settings: Settings) -> Iterator[tuple[ModelPack, FaceIndex, Ledger]]:
    """Open index and ledger of the model, which is found but not loaded, and close them at the end.

    Raises:
        OceanoError: as `find_model`, `open_index` and `open_ledger` do.
    """
    pack = find_model(settings)
    with _open_stores(settings, pack) as (index, ledger):
        yield pack, index, ledger


@contextmanager
def _open_stores(settings: Settings, pack: ModelPack) -> Iterator[tuple[FaceIndex, Ledger]]:
    with closing(open_index(settings, pack)) as index, closing(open_ledger(settings, pack)) as ledger:
        require_same_index(settings, pack, index, ledger)
        yield index, ledger


def require_same_index(settings: Settings, pack: ModelPack, index: FaceIndex, ledger: Ledger) -> None:
    """Check that a catalog that several processes write belongs to the index: a wrong QDRANT_URL is easily set.

    Raises:
        OceanoError: `invalid_setting` if it belongs to another one.
    """
    if ledger.database.has_many_writers and (found := identity_of(settings, pack, index)) is not None:
        require_index(ledger.database, ledger.collection, *found)


def record_index(settings: Settings, pack: ModelPack, index: FaceIndex, ledger: Ledger) -> None:
    """Record that an index has the faces of a catalog, so that `require_same_index` accepts it."""
    if ledger.database.has_many_writers and (found := identity_of(settings, pack, index)) is not None:
        add_index(ledger.database, ledger.collection, *found)


def indexed_model(settings: Settings) -> str | None:
    """Return the name of the model that made the embedded index.

    Returns:
        None if there is no embedded index, or if the ledger has no face in it.

    Raises:
        OceanoError: `index_unavailable` (damaged), `ledger_unavailable`.
    """
    alias = active_collection(settings)
    if alias is None:
        return None
    if settings.catalog_url or any((settings.state_dir / name).exists() for name in (CATALOG_FILE, EARLIER_LEDGER)):
        with closing(_open_catalog(settings, alias["collection"])) as ledger:
            if not ledger.totals().faces:
                return None
    return alias["model"]
