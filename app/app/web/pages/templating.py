"""Rendering of the templates: a whole page, or the part that a script requests."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from fastapi.requests import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import escape

from app.core.errors import OceanoError
from app.core.texts import LANGUAGES, Translator, translator
from app.demo import PACK_VERSION
from app.security import Access
from app.service import Services
from app.web.audit import purpose_of
from app.web.csrf import TOKEN_FIELD
from app.web.deps import services_of
from app.web.i18n import language_of
from app.web.pages.names import printable, short_names
from app.web.pages.views import ErrorView
from app.web.root_path import root_path_of

_PACKAGE: Final = Path(__file__).parents[2]
_YEAR_SECONDS: Final = 365 * 24 * 3600


def render(
    request: Request,
    template: str,
    context: Mapping[str, Any],
    *,
    status: int = 200,
    part: str | None = None,
    lang: str | None = None,
) -> HTMLResponse:
    """Render a page, or a part of it for a request of a script.

    Args:
        request: the request.
        template: of the whole page; extends base.html.
        context: values of the template, besides those that every page has.
        status: the HTTP status.
        part: the template for a request with `X-Requested-With: fetch`; None: the whole page.
        lang: one of `LANGUAGES`; None: that of the request.
    """
    lang = lang or language_of(request)
    name = part if part and is_fetch(request) else template
    html = _templates().get_template(name).render(**_shared(request, translator(lang)), **context)
    headers = {
        "Content-Language": lang,
        "Cache-Control": "no-store" if request.method == "POST" else "no-cache",
        "Vary": "Accept-Language, Cookie, X-Requested-With",
    }
    response = HTMLResponse(html, status_code=status, headers=headers)
    chosen = request.query_params.get("lang")
    if chosen in LANGUAGES and request.method == "GET":
        secure = request.url.scheme == "https"
        path = root_path_of(request) or "/"
        response.set_cookie(
            "lang", chosen, max_age=_YEAR_SECONDS, path=path, secure=secure, httponly=True, samesite="lax"
        )
    return response


def _shared(request: Request, t: Translator) -> dict[str, Any]:
    """Return the values that every template has."""
    services: Services = request.app.state.services
    access: Access | None = getattr(request.state, "access", None)
    settings, root = services.settings, root_path_of(request)
    max_mb = t.decimal(f"{settings.max_upload_mb:g}")
    return {
        "t": t,
        "rich": lambda key, **values: escape(t.texts[key]).format(**values),  # for values that are markup
        "root": root,
        "access": access,
        "may": lambda right: access is not None and access.may(right) and (right != "admin" or access.sees_all),
        "action": partial(_action, request),
        "purpose": _purpose(request),
        "purpose_required": settings.require_purpose,
        "purpose_next": _page_of(request),
        "static": lambda name: root + _static(name),
        "printable": printable,
        "short_names": short_names,
        "path": request.scope["path"],
        "languages": {lang: (translator(lang)("language.name"), _address_in(request, lang)) for lang in LANGUAGES},
        "demo": services.demo,
        "demo_version": PACK_VERSION,
        "model": services.engine.pack.name,
        "faces_indexed": None if access is None else services_of(request).faces_indexed,
        "max_mb": max_mb,
        "max_bytes": settings.max_upload_bytes,
        "problems": _problems(t, max_mb),
        "rendered": time.time_ns() // 1_000_000,
    }


def _action(request: Request, path: str, **values: str) -> str:
    """Return the address for a form that changes something: with the token of the session's forms."""
    token = getattr(request.state, "form_token", None)
    query = urlencode(values | ({} if token is None else {TOKEN_FIELD: token}))
    return f"{root_path_of(request)}{path}{'?' if query else ''}{query}"


def _purpose(request: Request) -> str:
    try:
        return purpose_of(request) or ""
    except OceanoError:  # it is too long
        return ""


def _page_of(request: Request) -> str:
    """Return the address below the root of the page that a visitor sees: after a form or a script it is the one before.

    Empty if it is not known.
    """
    address, root = urlsplit(str(request.url)), root_path_of(request)
    if request.method == "GET" and not is_fetch(request):
        path = request.scope["path"]
        return f"{path}?{address.query}" if address.query else path
    page = urlsplit(request.headers.get("referer", ""))
    if page.netloc != address.netloc or not page.path.startswith(f"{root}/"):
        return ""
    path = page.path.removeprefix(root)
    return f"{path}?{page.query}" if page.query else path


def _address_in(request: Request, lang: str) -> str:
    """Return the address of the page in another language; of the start page for a form that was sent."""
    root = root_path_of(request)
    if request.method != "GET":
        return f"{root}/?lang={lang}"
    items = [(name, value) for name, value in request.query_params.multi_items() if name not in ("lang", TOKEN_FIELD)]
    return f"{root}{quote(request.scope['path'])}?{urlencode([*items, ('lang', lang)])}"


def _problems(t: Translator, max_mb: str) -> tuple[ErrorView, ...]:
    """Return errors for the scripts to show when a response is not a page; they fill in code, status and request id."""
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
    """Return whether a script of the page sent the request."""
    return request.headers.get("x-requested-with") == "fetch"
