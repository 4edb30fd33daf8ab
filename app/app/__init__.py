"""Oceano finds a face in millions of photographs."""

import os

__version__ = "0.1.0"

# ONNX Runtime reports to its maker unless told not to before it is loaded. Nothing leaves the machine from here.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
