"""Can CUDA be used here at all? Asked before ONNX Runtime is: it answers with a silent fall-back, or with a crash."""

from __future__ import annotations

import ctypes
import logging
from importlib import util
from pathlib import Path

_log = logging.getLogger(__name__)


def driver_problem(built_for: str = "") -> str | None:
    """What keeps the NVIDIA driver from being used, in a few words; None if it answers.

    `built_for` is the CUDA version of the libraries, such as 12.8: a driver must know that major version.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver is installed (libcuda.so.1)"
    code = int(driver.cuInit(0))
    if code:
        return f"the NVIDIA driver does not start (cuInit: {code})"
    version = ctypes.c_int()
    wanted = built_for.partition(".")[0]
    if wanted.isdecimal() and not driver.cuDriverGetVersion(ctypes.byref(version)):
        major, minor = version.value // 1000, version.value % 1000 // 10
        if 0 < major < int(wanted):
            return f"the NVIDIA driver knows CUDA up to {major}.{minor}, and this onnxruntime needs CUDA {built_for}"
    return None


def preload_libraries() -> None:
    """Load the CUDA and cuDNN libraries that pip installed, for an ONNX Runtime (1.18) that cannot do it itself.

    They need each other in an order that nobody tells: those that fail are tried again while others succeed.
    """
    spec = util.find_spec("nvidia")
    folders = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    left = sorted(path for folder in folders for path in folder.glob("*/lib/lib*.so.*"))
    while left:
        failed = [path for path in left if not _loads(path)]
        if len(failed) == len(left):
            _log.warning("these libraries do not load: %s", ", ".join(path.name for path in failed))
            return
        left = failed


def _loads(path: Path) -> bool:
    try:
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True
