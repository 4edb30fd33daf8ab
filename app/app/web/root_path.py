"""The path at which a proxy serves Oceano."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request

ROOT_PATH_KEY: Final = "oceano.root_path"  # of the scope; Starlette's own `root_path` must be a part of `path`


def root_path_of(request: Request) -> str:
    """Return the path at which a proxy serves Oceano, such as `/oceano`; empty if there is none."""
    root: str = request.scope.get(ROOT_PATH_KEY, "")
    return root
