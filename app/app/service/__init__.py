"""The running parts: built from the settings, searched, monitored; jobs that the command line and the page share."""

from app.service.change_texts import change_words
from app.service.cursor import MAX_CURSOR_CHARS, decode_mark, decode_query, encode_mark, encode_query
from app.service.doctor import Doctor, Repairs, open_doctor
from app.service.examples import Example, combine_pictures, doubtful_examples, people_of, similarities_to_others
from app.service.factory import (
    Services,
    build_engine,
    find_model,
    indexed_model,
    open_audit,
    open_catalog,
    open_for_ingest,
    open_keys,
    open_ledger,
    open_services,
    open_without_engine,
    record_index,
    require_same_index,
)
from app.service.folders import FoldersFound, find_folders, require_known_folders
from app.service.grouping import Grouping, open_grouping
from app.service.ingest_job import IngestJob, open_ingest_job, preview_prune
from app.service.jobs import QueuedIngest, queue_ingest, this_user
from app.service.kept import DEFAULT_DAYS, MAX_DAYS, KeptSearch, KeptSearches
from app.service.names_export import ExportedNames, NamesExport
from app.service.names_import import ImportedNames, NamesImport
from app.service.names_job import ReadNames, read_names
from app.service.paging import reaches
from app.service.people import FaceOrder, People
from app.service.people_views import (
    FacePage,
    GonePerson,
    GroupPage,
    Identity,
    PeoplePage,
    PersonFace,
    ShownGroup,
    ShownPerson,
    Together,
)
from app.service.quantizing import quantize_model
from app.service.query import (
    Conditions,
    FaceMatches,
    Facets,
    GroupBy,
    ListedMatch,
    Query,
    Range,
    ResultPage,
    SearchResult,
    Sort,
    combined,
    face_filter,
    images_of,
    is_later,
)
from app.service.request import IngestRequest, require_writable
from app.service.results import AllMatches, Results
from app.service.running_jobs import progress_of
from app.service.search import DEFAULT_LIMIT, MAX_LIMIT, Comparison, Search
from app.service.shown import Shown
from app.service.strangers import measured_bands
from app.service.sureness import SURENESSES, Bands, Sureness, bands_of, narrowed, two_decimals
from app.service.thumbs import open_thumbs
from app.service.worker import IngestWorker, open_worker, require_shared_index

__all__ = [
    "DEFAULT_DAYS",
    "DEFAULT_LIMIT",
    "MAX_CURSOR_CHARS",
    "MAX_DAYS",
    "MAX_LIMIT",
    "SURENESSES",
    "AllMatches",
    "Bands",
    "Comparison",
    "Conditions",
    "Doctor",
    "Example",
    "ExportedNames",
    "FaceMatches",
    "FaceOrder",
    "FacePage",
    "Facets",
    "FoldersFound",
    "GonePerson",
    "GroupBy",
    "GroupPage",
    "Grouping",
    "Identity",
    "ImportedNames",
    "IngestJob",
    "IngestRequest",
    "IngestWorker",
    "KeptSearch",
    "KeptSearches",
    "ListedMatch",
    "NamesExport",
    "NamesImport",
    "People",
    "PeoplePage",
    "PersonFace",
    "Query",
    "QueuedIngest",
    "Range",
    "ReadNames",
    "Repairs",
    "ResultPage",
    "Results",
    "Search",
    "SearchResult",
    "Services",
    "Shown",
    "ShownGroup",
    "ShownPerson",
    "Sort",
    "Sureness",
    "Together",
    "bands_of",
    "build_engine",
    "change_words",
    "combine_pictures",
    "combined",
    "decode_mark",
    "decode_query",
    "doubtful_examples",
    "encode_mark",
    "encode_query",
    "face_filter",
    "find_folders",
    "find_model",
    "images_of",
    "indexed_model",
    "is_later",
    "measured_bands",
    "narrowed",
    "open_audit",
    "open_catalog",
    "open_doctor",
    "open_for_ingest",
    "open_grouping",
    "open_ingest_job",
    "open_keys",
    "open_ledger",
    "open_services",
    "open_thumbs",
    "open_without_engine",
    "open_worker",
    "people_of",
    "preview_prune",
    "progress_of",
    "quantize_model",
    "queue_ingest",
    "reaches",
    "read_names",
    "record_index",
    "require_known_folders",
    "require_same_index",
    "require_shared_index",
    "require_writable",
    "similarities_to_others",
    "this_user",
    "two_decimals",
]
