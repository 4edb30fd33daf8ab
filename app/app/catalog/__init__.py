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
from app.catalog.changes import AlreadyDone, Change, ChangeLog, Making, NewChange, Removal, Row, unknown_person
from app.catalog.claims import ClaimedLedger, JobLedger
from app.catalog.clock import timestamp
from app.catalog.copied_names import CopiedNames, FaceNames
from app.catalog.copying import Digest, Stopped
from app.catalog.database import Database
from app.catalog.dismissed import DismissedFaces
from app.catalog.faces import FaceTable, GroupedFace, KnownFace, Member
from app.catalog.grouping_lock import only_grouping
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
from app.catalog.people import (
    Assignment,
    Dismissal,
    DismissalKind,
    Order,
    PeopleStore,
    Person,
    Place,
    Rejection,
    Source,
    is_same_face,
    name_key,
    place_in,
    place_values,
)
from app.catalog.records import FileRecord, Mount, Status, Totals
from app.catalog.sessions import Session, SessionStore
from app.catalog.tables import ASSIGNMENTS, DISMISSALS, PEOPLE, REJECTIONS
from app.catalog.transfer import back_up, migrate, require_no_workers, restore
from app.catalog.unnamed_groups import LEAST_FACES, UnnamedGroups
from app.catalog.workers import Worker

__all__ = [
    "ASSIGNMENTS",
    "CATALOG_FILE",
    "DISMISSALS",
    "EARLIER_LEDGER",
    "ENDED",
    "LEASE_SECONDS",
    "LEAST_FACES",
    "NO_DIGEST",
    "PEOPLE",
    "REJECTIONS",
    "AlreadyDone",
    "Assignment",
    "AuditEntry",
    "AuditFilter",
    "AuditLog",
    "Change",
    "ChangeLog",
    "ClaimedLedger",
    "CopiedNames",
    "Database",
    "Digest",
    "Dismissal",
    "DismissalKind",
    "DismissedFaces",
    "FaceNames",
    "FaceTable",
    "FileRecord",
    "GroupedFace",
    "Job",
    "JobLedger",
    "JobState",
    "Jobs",
    "Key",
    "KeyKind",
    "KeyStore",
    "KnownFace",
    "Ledger",
    "Making",
    "Member",
    "Mount",
    "NewChange",
    "NewEntry",
    "Order",
    "PeopleStore",
    "Person",
    "Place",
    "Problem",
    "Pruned",
    "RawEntry",
    "Rejection",
    "Removal",
    "Row",
    "Session",
    "SessionStore",
    "Source",
    "Status",
    "Stopped",
    "Totals",
    "UnnamedGroups",
    "Worker",
    "add_index",
    "audit_time",
    "back_up",
    "chained",
    "is_on_this_machine",
    "is_same_face",
    "migrate",
    "name_key",
    "only_grouping",
    "open_ledger",
    "open_postgresql",
    "open_sqlite",
    "place_in",
    "place_values",
    "replace_indexes",
    "require_index",
    "require_no_workers",
    "restore",
    "timestamp",
    "unknown_person",
]
