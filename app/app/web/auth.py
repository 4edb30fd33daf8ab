"""API keys: which requests are allowed."""

from __future__ import annotations

import base64
import hmac

from fastapi import Request

from app.core.errors import OceanoError


def require_key(request: Request) -> None:
    """Allow a request with one of `API_KEYS`, or any request if none is set.

    The key is in `X-API-Key`, in `Authorization: Bearer`, or the password of `Authorization: Basic`, which a browser
    sends after its login dialog.

    Raises:
        OceanoError: `unauthorized`.
    """
    keys = request.app.state.settings.api_keys
    if not keys:
        return
    sent = _sent_key(request)
    if not any(hmac.compare_digest(sent, key.encode("utf-8", "surrogateescape")) for key in keys):
        raise OceanoError(
            "unauthorized", "a valid API key is required: as X-API-Key, bearer token, or password in the browser"
        )


def _sent_key(request: Request) -> bytes:
    """Return the bytes of the key as they were sent, empty if there is none; Starlette decodes headers as Latin-1."""
    if key := request.headers.get("x-api-key"):
        return key.encode("latin-1")
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("latin-1")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except ValueError:  # not base64, or not ASCII
            return b""
    return b""
