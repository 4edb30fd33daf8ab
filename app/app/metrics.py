"""Prometheus metrics, resources, usage."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """All metrics of one process, in a registry of their own; STRUCTURE.md says where each is set."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: Any = {"registry": self.registry}
        self.requests = Counter("oceano_requests", "Requests answered", ["method", "route", "status"], **own)
        self.request_seconds = Histogram(
            "oceano_request_seconds", "Seconds from a request to its answer", ["route"], buckets=_SECONDS, **own
        )
        self.in_flight = Gauge("oceano_requests_in_flight", "Requests being answered", **own)
        self.waiting = Gauge("oceano_pictures_in_work", "Pictures waiting for the model or in it", **own)
        self.stage = Histogram(
            "oceano_stage_seconds", "Seconds of one stage of a request", ["stage"], buckets=_SECONDS, **own
        )
        self.faces = Counter("oceano_faces_found", "Faces found in uploads", ["found_by"], **own)
        self.errors = Counter("oceano_errors", "Requests answered with an error", ["code"], **own)
        self.engine_healthy = Gauge("oceano_engine_healthy", "1 if the last reference check passed", **own)
        self.index_up = Gauge("oceano_index_up", "1 if the index answers", **own)
        self.index_points = Gauge("oceano_index_points", "Faces in the index", **own)
        self.index_indexed = Gauge("oceano_index_indexed_points", "Faces in the HNSW graph", **own)
        self.index_bytes = Gauge("oceano_index_disk_bytes", "Bytes of the index on disk", **own)
        self.index_copies_missing = Gauge(
            "oceano_index_copies_missing", "Copies of shards that are not there or behind, on a cluster", **own
        )
        self.index_maintaining = Gauge("oceano_index_maintaining", "1 while a graph is being built", **own)
        self.ledger_files = Gauge("oceano_ledger_files", "Files in the ledger", ["status"], **own)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.registry.register(_Resources())

    def exposition(self) -> bytes:
        """The text format of Prometheus, `CONTENT_TYPE`."""
        return generate_latest(self.registry)


@dataclass(frozen=True, slots=True)
class GpuUsage:
    """One GPU; memory in bytes, utilisation 0 to 1, or None where the driver does not tell."""

    name: str
    memory_used: int
    memory_total: int
    utilisation: float | None


def gpu_usage() -> list[GpuUsage]:
    """Every NVIDIA GPU that the driver shows; empty where there is none."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_gpu(pynvml, place) for place in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def _gpu(pynvml: Any, place: int) -> GpuUsage:
    handle = pynvml.nvmlDeviceGetHandleByIndex(place)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    name = pynvml.nvmlDeviceGetName(handle)
    busy: float | None = None
    with contextlib.suppress(pynvml.NVMLError):  # a GPU that is cut into slices (MIG) does not tell
        busy = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    return GpuUsage(name if isinstance(name, str) else name.decode(), int(memory.used), int(memory.total), busy)


class _Resources(Collector):
    """Machine and GPU resources, read when they are asked for."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        memory = psutil.virtual_memory()
        yield GaugeMetricFamily("oceano_memory_available_bytes", "Memory the machine has left", memory.available)
        yield GaugeMetricFamily("oceano_cpu_count", "Processors of the machine", psutil.cpu_count() or 1)
        used = GaugeMetricFamily("oceano_gpu_memory_used_bytes", "GPU memory in use", labels=["gpu"])
        total = GaugeMetricFamily("oceano_gpu_memory_total_bytes", "GPU memory", labels=["gpu"])
        busy = GaugeMetricFamily("oceano_gpu_utilisation", "Share of time the GPU is busy, 0 to 1", labels=["gpu"])
        for place, gpu in enumerate(gpu_usage()):
            label = [f"{place}:{gpu.name}"]
            used.add_metric(label, gpu.memory_used)
            total.add_metric(label, gpu.memory_total)
            if gpu.utilisation is not None:
                busy.add_metric(label, gpu.utilisation)
        yield from (used, total, busy)
