"""Keys: who may ask."""

from __future__ import annotations

import base64
import binascii
import hmac

from fastapi import Request

from app.errors import OceanoError


def require_key(request: Request) -> None:
    """Let a request through that carries one of `API_KEYS`; all, where none is set.

    A key comes as `X-API-Key`, as `Authorization: Bearer`, or as the password of `Authorization: Basic`
    (which is how a browser asks for it). Raises OceanoError `unauthorized`.
    """
    keys = request.app.state.settings.api_keys
    if not keys:
        return
    given = _given(request).encode()
    if not any(hmac.compare_digest(given, key.encode()) for key in keys):
        raise OceanoError("unauthorized", "a valid key is needed: X-API-Key, a bearer token, or the page's password")


def _given(request: Request) -> str:
    if key := request.headers.get("x-api-key"):
        return key
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode("utf-8", "replace").partition(":")[2]
        except binascii.Error:
            return ""
    return ""
