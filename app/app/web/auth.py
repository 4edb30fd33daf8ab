"""Keys: who may ask."""

from __future__ import annotations

import base64
import hmac

from fastapi import Request

from app.core.errors import OceanoError


def require_key(request: Request) -> None:
    """Let a request through that carries one of `API_KEYS`; all, where none is set.

    A key comes as `X-API-Key`, as `Authorization: Bearer`, or as the password of `Authorization: Basic`
    (which is how a browser asks for it). Raises OceanoError `unauthorized`.
    """
    keys = request.app.state.settings.api_keys
    if not keys:
        return
    given = _given(request)
    if not any(hmac.compare_digest(given, key.encode("utf-8", "surrogateescape")) for key in keys):
        raise OceanoError("unauthorized", "a valid key is needed: X-API-Key, a bearer token, or the page's password")


def _given(request: Request) -> bytes:
    """The key's bytes as they were sent (Starlette decodes headers as Latin-1); empty if there is none."""
    if key := request.headers.get("x-api-key"):
        return key.encode("latin-1")
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("latin-1")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except ValueError:  # no base64, or not even ASCII
            return b""
    return b""
