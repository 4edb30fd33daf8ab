"""All routes: JSON, the page, static files."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from fastapi import Depends, FastAPI
from fastapi.staticfiles import StaticFiles

from app.web import api
from app.web.audit import require_purpose
from app.web.auth import Requires
from app.web.pages import (
    audit,
    changes,
    export,
    help,
    kept,
    keys,
    naming,
    oidc,
    people,
    person,
    person_edits,
    person_merge,
    photo,
    purpose,
    results,
    sign_in,
)
from app.web.pages import search as pages
from app.web.pages.error_pages import error_page
from app.web.pages.status_page import status_page


def add_routes(app: FastAPI) -> None:
    """Add all routes to the application, and the pages at addresses that the API has, too."""
    app.include_router(api.router())
    for part in (results, kept, photo, export, help, pages):
        app.include_router(part.router(), dependencies=[Depends(Requires("search"))])
    for part in (people, person):
        app.include_router(part.router(), dependencies=[Depends(Requires("search")), Depends(require_purpose)])
    for part in (person_edits, person_merge, naming, changes):
        app.include_router(part.router(), dependencies=[Depends(Requires("curate"))])
    for part in (keys, audit):
        app.include_router(part.router(), dependencies=[Depends(Requires("admin"))])
    for part in (sign_in, oidc, purpose):  # their routes say who may use them
        app.include_router(part.router())
    app.mount("/static", StaticFiles(directory=Path(str(resources.files("app") / "static"))), name="static")
    app.state.error_page = error_page
    app.state.people_page = people.people_page
    app.state.changes_page = changes.changes_page
    app.state.status_page = status_page
