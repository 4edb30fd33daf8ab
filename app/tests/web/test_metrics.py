from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.metrics import CONTENT_TYPE, GpuUsage, Metrics, gpu_usage

OWN = {
    "oceano_requests", "oceano_request_seconds", "oceano_requests_in_flight", "oceano_pictures_in_work",
    "oceano_stage_seconds", "oceano_faces_found", "oceano_errors", "oceano_engine_healthy", "oceano_index_up",
    "oceano_index_points", "oceano_index_indexed_points", "oceano_index_disk_bytes", "oceano_index_maintaining",
    "oceano_index_copies_missing",
    "oceano_index_damaged_files",
    "oceano_ledger_files", "oceano_memory_available_bytes", "oceano_cpu_count", "oceano_gpu_memory_used_bytes",
    "oceano_gpu_memory_total_bytes", "oceano_gpu_utilisation",
    "oceano_jobs", "oceano_job_workers", "oceano_job_files", "oceano_job_files_finished", "oceano_job_images",
    "oceano_job_problems", "oceano_job_images_per_second",
}  # fmt: skip


def _families(one: Metrics) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(one.exposition().decode())}


def test_the_exposition_has_every_metric_and_can_be_parsed() -> None:
    families = _families(Metrics())
    assert set(families) >= OWN
    assert {name for name in families if name.startswith("oceano_")} == OWN
    assert "process_resident_memory_bytes" in families
    assert "python_info" in families
    assert all(family.documentation for family in families.values())
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


def test_two_services_in_one_process_do_not_share_their_numbers() -> None:
    one, other = Metrics(), Metrics()
    one.index_points.set(5)
    assert _families(one)["oceano_index_points"].samples[0].value == 5
    assert _families(other)["oceano_index_points"].samples[0].value == 0


def test_numbers_arrive_as_they_were_set() -> None:
    one = Metrics()
    one.requests.labels("GET", "/faces/{face_id}", "200").inc()
    one.errors.labels("timeout").inc(2)
    one.stage.labels("detect").observe(0.02)
    one.index_maintaining.set(True)
    families = _families(one)
    (requests,) = [s for s in families["oceano_requests"].samples if s.name == "oceano_requests_total"]
    assert (requests.labels, requests.value) == (
        {"method": "GET", "route": "/faces/{face_id}", "status": "200"}, 1.0,
    )  # fmt: skip
    assert [s.value for s in families["oceano_errors"].samples if s.name.endswith("_total")] == [2.0]
    buckets = {s.labels["le"]: s.value for s in families["oceano_stage_seconds"].samples if s.name.endswith("_bucket")}
    assert buckets["0.01"] == 0
    assert buckets["0.025"] == buckets["+Inf"] == 1
    assert families["oceano_index_maintaining"].samples[0].value == 1


def test_a_machine_without_a_gpu_has_none() -> None:
    assert all(isinstance(gpu, GpuUsage) for gpu in gpu_usage())


class _Nvml:
    """The part of pynvml that is used, for a machine with these GPUs."""

    class NVMLError(Exception):
        pass

    def __init__(self, gpus: int, *, sliced: bool = False, broken: bool = False) -> None:
        self._gpus, self._sliced, self._broken = gpus, sliced, broken
        self.open = 0

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return self._gpus

    def nvmlDeviceGetHandleByIndex(self, place: int) -> int:
        if self._broken:
            raise self.NVMLError("the GPU is lost")
        return place

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> object:
        return SimpleNamespace(used=10 + handle, total=100)

    def nvmlDeviceGetName(self, handle: int) -> bytes | str:
        return b"H200" if handle == 0 else "H100"

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> object:
        if self._sliced:
            raise self.NVMLError("Not Supported")
        return SimpleNamespace(gpu=50)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(**how: Any) -> _Nvml:
        fake = _Nvml(**how)
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        return fake

    return install


def test_every_gpu_of_the_driver_is_told(nvml: Any) -> None:
    fake = nvml(gpus=2)
    assert gpu_usage() == [GpuUsage("H200", 10, 100, 0.5), GpuUsage("H100", 11, 100, 0.5)]
    assert fake.open == 0
    samples = _families(Metrics())["oceano_gpu_memory_used_bytes"].samples
    assert [(s.labels["gpu"], s.value) for s in samples] == [("0:H200", 10.0), ("1:H100", 11.0)]


def test_a_gpu_cut_into_slices_tells_its_memory_but_not_how_busy_it_is(nvml: Any) -> None:
    nvml(gpus=1, sliced=True)
    assert gpu_usage() == [GpuUsage("H200", 10, 100, None)]
    families = _families(Metrics())
    assert len(families["oceano_gpu_memory_total_bytes"].samples) == 1
    assert families["oceano_gpu_utilisation"].samples == []


def test_a_driver_that_fails_is_a_machine_without_a_gpu(nvml: Any) -> None:
    fake = nvml(gpus=1, broken=True)
    assert gpu_usage() == []
    assert fake.open == 0
