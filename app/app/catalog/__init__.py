"""The catalog: which files were ingested with what result, jobs, people, keys; in SQLite or PostgreSQL."""

from app.catalog.audit import (
    NO_DIGEST,
    AuditEntry,
    AuditFilter,
    AuditLog,
    NewEntry,
    Pruned,
    RawEntry,
    audit_time,
    chained,
)
from app.catalog.claims import ClaimedLedger, JobLedger
from app.catalog.copying import Digest, Stopped
from app.catalog.database import Database
from app.catalog.indexes import add_index, replace_indexes, require_index
from app.catalog.jobs import ENDED, Job, Jobs, JobState, Problem
from app.catalog.keys import Key, KeyKind, KeyStore
from app.catalog.leases import LEASE_SECONDS
from app.catalog.ledger import Ledger
from app.catalog.opening import (
    CATALOG_FILE,
    EARLIER_LEDGER,
    is_on_this_machine,
    open_ledger,
    open_postgresql,
    open_sqlite,
)
from app.catalog.records import FileRecord, Mount, Status, Totals
from app.catalog.sessions import Session, SessionStore
from app.catalog.transfer import back_up, migrate, require_no_workers, restore
from app.catalog.workers import Worker

__all__ = [
    "CATALOG_FILE",
    "EARLIER_LEDGER",
    "ENDED",
    "LEASE_SECONDS",
    "NO_DIGEST",
    "AuditEntry",
    "AuditFilter",
    "AuditLog",
    "ClaimedLedger",
    "Database",
    "Digest",
    "FileRecord",
    "Job",
    "JobLedger",
    "JobState",
    "Jobs",
    "Key",
    "KeyKind",
    "KeyStore",
    "Ledger",
    "Mount",
    "NewEntry",
    "Problem",
    "Pruned",
    "RawEntry",
    "Session",
    "SessionStore",
    "Status",
    "Stopped",
    "Totals",
    "Worker",
    "add_index",
    "audit_time",
    "back_up",
    "chained",
    "is_on_this_machine",
    "migrate",
    "open_ledger",
    "open_postgresql",
    "open_sqlite",
    "replace_indexes",
    "require_index",
    "require_no_workers",
    "restore",
]
