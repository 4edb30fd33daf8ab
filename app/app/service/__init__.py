"""The running parts: built from the settings, searched, monitored; jobs that the command line and the page share."""

from app.service.cursor import MAX_CURSOR_CHARS, GroupBy
from app.service.doctor import Doctor, Repairs, open_doctor
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
from app.service.search import DEFAULT_LIMIT, MAX_LIMIT, Comparison, Search, reaches

__all__ = [
    "DEFAULT_LIMIT",
    "MAX_CURSOR_CHARS",
    "MAX_LIMIT",
    "Comparison",
    "Doctor",
    "GroupBy",
    "IngestJob",
    "IngestRequest",
    "Repairs",
    "Search",
    "Services",
    "build_engine",
    "find_model",
    "indexed_model",
    "open_doctor",
    "open_for_ingest",
    "open_ingest_job",
    "open_ledger",
    "open_services",
    "open_without_engine",
    "preview_prune",
    "reaches",
]
