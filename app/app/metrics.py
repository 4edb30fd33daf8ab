"""Prometheus metrics of the service, and the use of GPUs."""

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
    """All metrics of one process, in their own registry; STRUCTURE.md lists the module that sets each of them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry: Any = {"registry": self.registry}
        self.requests = Counter("oceano_requests", "Responses", ["method", "route", "status"], **registry)
        self.request_seconds = Histogram(
            "oceano_request_seconds", "Seconds from a request to its response", ["route"], buckets=_SECONDS, **registry
        )
        self.in_flight = Gauge("oceano_requests_in_flight", "Requests in progress", **registry)
        self.waiting = Gauge("oceano_pictures_in_work", "Images that wait for the model or are in it", **registry)
        self.stage = Histogram(
            "oceano_stage_seconds", "Seconds of one stage of a request", ["stage"], buckets=_SECONDS, **registry
        )
        self.faces = Counter("oceano_faces_found", "Faces found in uploads", ["found_by"], **registry)
        self.errors = Counter("oceano_errors", "Error responses", ["code"], **registry)
        self.engine_healthy = Gauge("oceano_engine_healthy", "1 if the last reference check passed", **registry)
        self.index_up = Gauge("oceano_index_up", "1 if the index is available", **registry)
        self.index_points = Gauge("oceano_index_points", "Faces in the index", **registry)
        self.index_indexed = Gauge("oceano_index_indexed_points", "Faces in the HNSW graph", **registry)
        self.index_bytes = Gauge("oceano_index_disk_bytes", "Bytes of the index on disk", **registry)
        self.index_copies_missing = Gauge(
            "oceano_index_copies_missing", "Copies of shards that are missing or out of date, on a cluster", **registry
        )
        self.index_damaged_files = Gauge(
            "oceano_index_damaged_files", "Files of the embedded index that were damaged on the disk", **registry
        )
        self.index_maintaining = Gauge("oceano_index_maintaining", "1 while a graph is being built", **registry)
        self.ledger_files = Gauge("oceano_ledger_files", "Files in the ledger", ["status"], **registry)
        self.jobs = Gauge("oceano_jobs", "Ingests that have not ended", ["state"], **registry)
        self.job_workers = Gauge("oceano_job_workers", "Workers of the ingests that have not ended", **registry)
        self.job_files = Gauge("oceano_job_files", "Files of these ingests whose folder has been listed", **registry)
        self.job_files_finished = Gauge("oceano_job_files_finished", "Files these ingests are done with", **registry)
        self.job_images = Gauge("oceano_job_images", "Images that these ingests have processed", **registry)
        self.job_problems = Gauge("oceano_job_problems", "Files of these ingests that failed", **registry)
        self.job_rate = Gauge(
            "oceano_job_images_per_second",
            "Images per second since the start or the last resume, of the running ingests",
            **registry,
        )
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.registry.register(_Resources())

    def exposition(self) -> bytes:
        """Return all metrics in the text format of Prometheus (`CONTENT_TYPE`)."""
        return generate_latest(self.registry)


@dataclass(frozen=True, slots=True)
class GpuUsage:
    """The use of one GPU.

    Attributes:
        name: the GPU's product name.
        memory_used: bytes in use.
        memory_total: bytes of the GPU.
        utilisation: share of time that the GPU is busy, 0 to 1; None if the driver does not report it.
    """

    name: str
    memory_used: int
    memory_total: int
    utilisation: float | None


def gpu_usage() -> list[GpuUsage]:
    """Return the use of every NVIDIA GPU; an empty list if there is no GPU or the driver fails."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_usage(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def _usage(pynvml: Any, index: int) -> GpuUsage:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    name = pynvml.nvmlDeviceGetName(handle)
    utilisation: float | None = None
    with contextlib.suppress(pynvml.NVMLError):  # a GPU partitioned with MIG does not report it
        utilisation = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    return GpuUsage(name if isinstance(name, str) else name.decode(), int(memory.used), int(memory.total), utilisation)


class _Resources(Collector):
    """Resources of the machine and its GPUs, read at each scrape."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        memory = psutil.virtual_memory()
        yield GaugeMetricFamily("oceano_memory_available_bytes", "Available memory of the machine", memory.available)
        yield GaugeMetricFamily("oceano_cpu_count", "Processors of the machine", psutil.cpu_count() or 1)
        used = GaugeMetricFamily("oceano_gpu_memory_used_bytes", "GPU memory in use", labels=["gpu"])
        total = GaugeMetricFamily("oceano_gpu_memory_total_bytes", "GPU memory", labels=["gpu"])
        utilisation = GaugeMetricFamily(
            "oceano_gpu_utilisation", "Share of time the GPU is busy, 0 to 1", labels=["gpu"]
        )
        for index, gpu in enumerate(gpu_usage()):
            label = [f"{index}:{gpu.name}"]
            used.add_metric(label, gpu.memory_used)
            total.add_metric(label, gpu.memory_total)
            if gpu.utilisation is not None:
                utilisation.add_metric(label, gpu.utilisation)
        yield from (used, total, utilisation)
