"""Results as files: CSV, JSON, lists of paths, ZIP archives of photographs, contact sheets."""

from app.service.export.archive import zip_archive, zip_size
from app.service.export.sheet import MAX_ON_SHEET, contact_sheet
from app.service.export.tables import PeopleById, csv_rows, json_rows, path_lines

__all__ = [
    "MAX_ON_SHEET",
    "PeopleById",
    "contact_sheet",
    "csv_rows",
    "json_rows",
    "path_lines",
    "zip_archive",
    "zip_size",
]
