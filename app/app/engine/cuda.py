"""Checks of the NVIDIA driver and loading of the CUDA libraries.

They run before ONNX Runtime starts, which falls back to the CPU silently, or crashes, if CUDA does not work.
"""

from __future__ import annotations

import ctypes
import logging
from importlib import util
from pathlib import Path

_log = logging.getLogger(__name__)


def driver_problem(built_for: str = "") -> str | None:
    """Say why the NVIDIA driver cannot be used.

    Args:
        built_for: the CUDA version of the installed libraries, such as "12.8"; the driver must support its major
            version. Empty: any version will do.

    Returns:
        The reason in a few words, None if the driver works.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver is installed (libcuda.so.1)"
    code = int(driver.cuInit(0))
    if code:
        return f"the NVIDIA driver does not start (cuInit: {code})"
    version = ctypes.c_int()
    needed_major = built_for.partition(".")[0]
    if needed_major.isdecimal() and not driver.cuDriverGetVersion(ctypes.byref(version)):
        major, minor = version.value // 1000, version.value % 1000 // 10
        if 0 < major < int(needed_major):
            return f"the NVIDIA driver supports CUDA up to {major}.{minor}, and this onnxruntime needs CUDA {built_for}"
    return None


def preload_libraries() -> None:
    """Load the CUDA and cuDNN libraries installed by pip, for ONNX Runtime 1.18, which cannot do so itself.

    The libraries depend on each other in an undocumented order, so those that fail are retried as long as others load.
    """
    spec = util.find_spec("nvidia")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    remaining = sorted(path for folder in folders for path in folder.glob("*/lib/lib*.so.*"))
    while remaining:
        failed = [path for path in remaining if not _loads(path)]
        if len(failed) == len(remaining):
            _log.warning("these libraries cannot be loaded: %s", ", ".join(path.name for path in failed))
            return
        remaining = failed


def _loads(path: Path) -> bool:
    try:
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True
