"""Fuzz targets: parsers that read bytes from outside. `python -m tests.fuzz --help` runs one.

A target is a module with `SEEDS`, small valid inputs made by code, and `fuzz_one(data)`, which raises for a bug only.
This package imports nothing of `app`: a target's modules are instrumented while they are imported.
"""

from __future__ import annotations

from typing import Final

# Each target, and the packages and modules whose coverage guides it.
TARGETS: Final = {
    "decoding": ("app.images",),
    "names": ("app.images", "defusedxml"),
    "multipart": ("app.web", "app.service", "starlette.formparsers", "starlette.datastructures", "python_multipart"),
    "protocol": ("app.index.embedded.protocol", "multiprocessing.connection"),
    "fields": ("app.web.api.forms", "app.index.payload", "app.core.paths", "app.service.cursor"),
}
