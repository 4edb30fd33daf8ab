"""Errors as pages: title, remedy, code and request id; of a photograph without a face, also the photograph."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlencode

from fastapi.requests import Request
from fastapi.responses import HTMLResponse

from app.core import logs
from app.core.errors import OceanoError
from app.core.texts import Translator, translator
from app.security import Access
from app.service import GonePerson
from app.web.deps import current_access
from app.web.gone import gone_in
from app.web.i18n import language_of
from app.web.pages.names import printable
from app.web.pages.people_views import shown_name
from app.web.pages.templating import render
from app.web.pages.views import ErrorView, error_view


def error_page(request: Request, error: OceanoError) -> HTMLResponse:
    """Render the page with an error, which a route of a page or middleware (413, 503, 504) raised.

    Args:
        request: its state may have `photograph`, the view of a photograph in which no face was found.
        error: the error.
    """
    request.app.state.metrics.errors.labels(error.code).inc()
    t = translator(language_of(request))
    view = error_view(error, t, logs.request_id.get())
    if (gone := gone_in(request)) is not None:
        view = _of_gone(view, gone, str(error.details["person_id"]), current_access(request), t)
    context = {"problem": view, "photograph": getattr(request.state, "photograph", None)}
    return render(request, "error.html", context, status=error.status, part="_error.html")


def _of_gone(view: ErrorView, gone: GonePerson, person_id: str, access: Access, t: Translator) -> ErrorView:
    """Return the view with what became of the person, and with links to who stays and to the history."""
    name = printable(gone.name) or t("person.no_name")
    links: list[tuple[str, str]] = []
    title, message = t("gone.deleted", name=name), t("gone.no_name")
    if gone.merged_into is not None:
        stays = gone.merged_into.person
        into = shown_name(stays, t)
        title = t("gone.merged", name=name, into=into)
        message = t("gone.faces", into=into)
        links.append((f"/person/{stays.id}", t("change.to_person", name=into)))
    if access.may("curate"):
        links.append((f"/changes?{urlencode({'person_id': person_id})}", t("gone.history")))
    return replace(view, title=title, message=message, links=tuple(links))
