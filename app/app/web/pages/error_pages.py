"""Errors as pages: title, remedy, code and request id; of a photograph without a face, also the photograph."""

from __future__ import annotations

from fastapi.requests import Request
from fastapi.responses import HTMLResponse

from app.core import logs
from app.core.errors import OceanoError
from app.web.i18n import language_of, translator
from app.web.pages.templating import render
from app.web.pages.views import error_view


def error_page(request: Request, error: OceanoError) -> HTMLResponse:
    """Render the page with an error, which a route of a page or middleware (413, 503, 504) raised.

    Args:
        request: its state may have `photograph`, the view of a photograph in which no face was found.
        error: the error.
    """
    request.app.state.metrics.errors.labels(error.code).inc()
    view = error_view(error, translator(language_of(request)), logs.request_id.get())
    context = {"problem": view, "photograph": getattr(request.state, "photograph", None)}
    return render(request, "error.html", context, status=error.status, part="_error.html")
