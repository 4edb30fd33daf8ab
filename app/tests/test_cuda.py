"""cuda: is there a driver, and do its libraries load?"""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app import cuda


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
        "app.cuda.util.find_spec", lambda _: SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    )
    cuda.preload_libraries()
    assert loaded == ["libc.so.1", "libb.so.1", "liba.so.1"]


def test_without_installed_libraries_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cuda.util.find_spec", lambda _: None)
    cuda.preload_libraries()
