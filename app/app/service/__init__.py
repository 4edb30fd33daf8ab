"""The running parts: built from the settings, searched, monitored; jobs that the command line and the page share."""

from app.service.factory import (
    Services,
    build_engine,
    find_model,
    indexed_model,
    open_for_ingest,
    open_ledger,
    open_services,
    open_without_engine,
)
from app.service.ingest_job import IngestJob, IngestRequest, open_ingest_job, preview_prune
from app.service.search import DEFAULT_LIMIT, MAX_LIMIT, Comparison, GroupBy, Search, reaches

__all__ = [
    "DEFAULT_LIMIT",
    "MAX_LIMIT",
    "Comparison",
    "GroupBy",
    "IngestJob",
    "IngestRequest",
    "Search",
    "Services",
    "build_engine",
    "find_model",
    "indexed_model",
    "open_for_ingest",
    "open_ingest_job",
    "open_ledger",
    "open_services",
    "open_without_engine",
    "preview_prune",
    "reaches",
]
