"""Rendering of the templates: the whole page, or the part that page.js requests."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Final

from fastapi.requests import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import escape

from app.demo import PACK_VERSION
from app.web.addresses import root_path_of
from app.web.deps import services_of
from app.web.i18n import LANGUAGES, Translator, translator
from app.web.pages.views import LIMITS, THRESHOLD_MAX, THRESHOLD_MIN, ErrorView, SearchPage

_PACKAGE: Final = Path(__file__).parents[2]


def page_response(request: Request, lang: str, shown: SearchPage, status: int = 200) -> HTMLResponse:
    """Render the page, or only the results for a request of page.js.

    Args:
        request: the request.
        lang: one of `LANGUAGES`.
        shown: the contents.
        status: the HTTP status.
    """
    template = "_results.html" if is_fetch(request) else "index.html"
    html = _render(template, request, translator(lang), shown)
    headers = {
        "Content-Language": lang,
        "Cache-Control": "no-store" if request.method == "POST" else "no-cache",
        "Vary": "Accept-Language, Cookie, X-Requested-With",
    }
    return HTMLResponse(html, status_code=status, headers=headers)


def _render(template: str, request: Request, t: Translator, shown: SearchPage) -> str:
    services = services_of(request)
    settings, root = services.settings, root_path_of(request)
    max_mb = f"{settings.max_upload_mb:g}"
    page = _templates().get_template(template)
    return page.render(
        t=t,
        rich=lambda key, **values: escape(t.texts[key]).format(**values),  # for values that are markup
        root=root,
        static=lambda name: root + _static(name),
        shown=shown,
        languages={lang: translator(lang)("language.name") for lang in LANGUAGES},
        demo=services.demo,
        demo_version=PACK_VERSION,
        model=services.engine.pack.name,
        faces_indexed=services.monitor.faces_indexed,
        thresholds=(THRESHOLD_MIN, THRESHOLD_MAX),
        limits=sorted({*LIMITS, shown.form.limit}),
        max_mb=max_mb,
        max_bytes=settings.max_upload_bytes,
        problems=_problems(t, max_mb),
    )


def _problems(t: Translator, max_mb: str) -> tuple[ErrorView, ...]:
    """Return errors for page.js to show when the response is not a page; it fills in code, status and request id."""
    too_large = t("error.image_too_large.bytes", max_megabytes=max_mb)
    return (
        ErrorView("network", t("title.network"), t("error.network"), "", retry=True),
        ErrorView("unexpected", t("title.500"), t("error.unexpected", status="{status}"), "", retry=True),
        ErrorView("overloaded", t("title.503"), t("error.overloaded"), "", retry=True),
        ErrorView("image_too_large", t("title.413"), too_large, "", retry=False),
    )


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(_PACKAGE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _static(name: str) -> str:
    """Return the path of a static file below the root; it changes with the content, so browsers use no old version."""
    digest = hashlib.sha256((_PACKAGE / "static" / name).read_bytes()).hexdigest()
    return f"/static/{name}?v={digest[:8]}"


def is_fetch(request: Request) -> bool:
    """Return whether page.js sent the request."""
    return request.headers.get("x-requested-with") == "fetch"
