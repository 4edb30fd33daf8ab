"""Oceano finds a face in millions of photographs."""

import os

__version__ = "0.1.0"

# Before ONNX Runtime is loaded: it reports usage to its maker unless this is set.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
