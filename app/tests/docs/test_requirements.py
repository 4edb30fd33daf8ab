"""The lists for pip: complete, in step with uv.lock, one onnxruntime and one cv2 on every machine."""

from __future__ import annotations

import functools
import re
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest
from packaging.markers import Marker

APP = Path(__file__).parents[2]
SETS = {
    "requirements.txt": ("cu118", False),
    "requirements-cpu.txt": ("cpu", False),
    "requirements-cu12.txt": ("cu12", False),
    "requirements-cu13.txt": ("cu13", False),
    "requirements-dev.txt": ("cpu", True),
}
PLACES = [
    {"python_full_version": f"3.{minor}.1", "python_version": f"3.{minor}", "platform_machine": machine}
    for minor in range(11, 15)
    for machine in ("x86_64", "aarch64")
]


@functools.cache
def listed(file: str) -> Mapping[tuple[str, str], tuple[str, frozenset[str]]]:
    """(name, version) -> marker, hashes."""
    text = (APP / file).read_text(encoding="utf-8").replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if entry := re.match(r"([a-z0-9.-]+)==(\S+) ; (.*?)(?=\s+--hash|$)", line):
            found[entry[1], entry[2]] = (entry[3].strip(), frozenset(re.findall(r"--hash=(\S+)", line)))
    return found


@functools.cache
def locked() -> Mapping[tuple[str, str], frozenset[str]]:
    """(name, version) -> hashes of uv.lock."""
    lock = tomllib.loads((APP / "uv.lock").read_text(encoding="utf-8"))
    return {
        (one["name"], one["version"]): frozenset(
            file["hash"] for file in [*one.get("wheels", []), *([one["sdist"]] if "sdist" in one else [])]
        )
        for one in lock["package"]
        if "registry" in one["source"]
    }


def installed(file: str, place: Mapping[str, str]) -> dict[str, list[str]]:
    """name -> versions that this list gives a machine."""
    found: dict[str, list[str]] = defaultdict(list)
    for (name, version), (marker, _) in listed(file).items():
        if Marker(marker).evaluate({**place, "sys_platform": "linux", "platform_system": "Linux"}):
            found[name].append(version)
    return found


def test_every_list_is_there() -> None:
    assert {path.name for path in APP.glob("requirements*.txt")} == set(SETS)


@pytest.mark.parametrize("file", SETS)
def test_a_list_agrees_with_the_lock(file: str) -> None:
    assert len(listed(file)) > 40
    for package, (_, hashes) in listed(file).items():
        assert package in locked(), f"{package}: regenerate the lists, see CONTRIBUTING.md"
        assert hashes == locked()[package], package


@pytest.mark.parametrize("file", SETS)
def test_a_list_says_how_it_was_made_and_how_it_is_installed(file: str) -> None:
    extra, dev = SETS[file]
    header = [line for line in (APP / file).read_text(encoding="utf-8").splitlines()[:3] if line.startswith("# ")]
    assert header[1].endswith(f"pip install --no-deps -r {file}")
    no_dev = "" if dev else "--no-dev "
    assert header[2] == f"# Made with: uv export --frozen --no-emit-project --no-header {no_dev}--extra {extra}"


@pytest.mark.parametrize("file", SETS)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place['python_version']}-{place['platform_machine']}")
def test_a_machine_gets_one_onnxruntime_one_cv2_and_one_version_of_each(file: str, place: dict[str, str]) -> None:
    packages = installed(file, place)
    assert {name: versions for name, versions in packages.items() if len(versions) > 1} == {}
    runtimes = [name for name in packages if name.startswith("onnxruntime")]
    gpu = SETS[file][0] != "cpu"
    fits = not gpu or place["platform_machine"] == "x86_64"
    if SETS[file][0] == "cu118" and place["python_version"] not in ("3.11", "3.12"):
        fits = False
    assert runtimes == ([f"onnxruntime{'-gpu' if gpu else ''}"] if fits else [])
    assert [name for name in packages if name.startswith("opencv")] == ["opencv-python-headless"]


def test_every_package_of_the_project_is_in_every_list() -> None:
    project = tomllib.loads((APP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {re.match(r"[A-Za-z0-9.-]+", one)[0].lower() for one in project["dependencies"]}  # type: ignore[index]
    for file in SETS:
        assert wanted <= {name for name, _ in listed(file)}, file
