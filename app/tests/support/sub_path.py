"""nginx with the example of INSTALL.md, which serves Oceano under a path."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.support.balancing import nginx
from tests.support.running import free_port

_INSTALL = Path(__file__).parents[3] / "INSTALL.md"


@contextlib.contextmanager
def proxied(folder: Path, port: int) -> Iterator[httpx.Client]:
    """Run nginx before a service: at /oceano/, which it removes, and at /whole/, which it forwards."""
    (example,) = re.findall(r"```nginx\n(location /oceano/ .*?)```", _INSTALL.read_text(encoding="utf-8"), re.DOTALL)
    stripped, count = re.subn(r"http://127\.0\.0\.1:9100/;", f"http://127.0.0.1:{port}/;", example)
    assert count == 1
    whole = stripped.replace(f":{port}/;", f":{port};").replace("/oceano", "/whole")
    listener = free_port()
    text = f"events {{}}\nhttp {{ server {{ listen 127.0.0.1:{listener};\n{stripped}\n{whole}\n}} }}"
    with nginx(folder, text, listener) as client:
        yield client
