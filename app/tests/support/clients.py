"""Starlette's TestClient. Without `httpx2` it warns that it takes `httpx`, and warnings are errors here."""

from __future__ import annotations

import warnings
from typing import Any

from starlette.types import ASGIApp

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from starlette import testclient


class TestClient(testclient.TestClient):
    """A client on this machine; Starlette's own host name, `testserver`, would be refused."""

    __test__ = False

    def __init__(self, app: ASGIApp, base_url: str = "http://localhost", **options: Any) -> None:
        super().__init__(app, base_url, **options)
