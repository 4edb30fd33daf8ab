"""Checks of Intel GPUs, which OpenVINO runs models on."""

from __future__ import annotations

from importlib import util


def gpu_problem() -> str | None:
    """Say why OpenVINO cannot use an Intel GPU.

    Returns:
        The reason in a few words, None if it finds one.
    """
    if util.find_spec("openvino") is None:
        return "OpenVINO is not installed"
    import openvino

    devices = [str(name) for name in openvino.Core().available_devices]
    if any(name.partition(".")[0] == "GPU" for name in devices):
        return None
    return f"OpenVINO finds no Intel GPU (only: {', '.join(devices) or 'nothing'})"
