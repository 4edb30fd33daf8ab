"""cuda: is there a driver, and do its libraries load?"""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.engine import cuda


def test_a_machine_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert "no NVIDIA driver" in str(cuda.driver_problem())


@pytest.mark.parametrize(("code", "problem"), [(0, None), (100, "the NVIDIA driver does not start (cuInit: 100)")])
def test_a_driver_that_does_not_start_is_named_with_its_code(
    monkeypatch: pytest.MonkeyPatch, code: int, problem: str | None
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(cuInit=lambda _: code))
    assert cuda.driver_problem() == problem


@pytest.mark.parametrize(
    ("version", "built_for", "problem"),
    [
        (11040, "12.8", "the NVIDIA driver supports CUDA up to 11.4, and this onnxruntime needs CUDA 12.8"),
        (12020, "12.8", None),  # within a major version any driver will do
        (13000, "12.8", None),
        (11040, "11.8", None),
        (11040, "", None),
        (0, "12.8", None),  # it does not say
    ],
)
def test_a_driver_that_is_too_old_is_named_with_what_is_needed(
    monkeypatch: pytest.MonkeyPatch, version: int, built_for: str, problem: str | None
) -> None:
    def tell(place: Any) -> int:
        place._obj.value = version
        return 0

    driver = SimpleNamespace(cuInit=lambda _: 0, cuDriverGetVersion=tell)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver)
    assert cuda.driver_problem(built_for) == problem


def test_libraries_that_need_each_other_load_whatever_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = {"liba.so.1": "libb.so.1", "libb.so.1": "libc.so.1", "libc.so.1": None, "libz.so.1": "libgone.so.1"}
    (tmp_path / "some" / "lib").mkdir(parents=True)
    for name in needs:
        (tmp_path / "some" / "lib" / name).touch()
    loaded: list[str] = []

    def load(path: str, mode: int) -> Any:
        need = needs[Path(path).name]
        if need is not None and need not in loaded:
            raise OSError(f"{need}: cannot open shared object file")
        loaded.append(Path(path).name)

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(
        "app.engine.cuda.util.find_spec", lambda _: SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    )
    cuda.preload_libraries()
    assert loaded == ["libc.so.1", "libb.so.1", "liba.so.1"]


def test_without_installed_libraries_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.engine.cuda.util.find_spec", lambda _: None)
    cuda.preload_libraries()
