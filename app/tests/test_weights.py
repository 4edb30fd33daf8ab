"""Packs are made here from tiny ONNX graphs and served by an HTTP server on 127.0.0.1."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tenacity
from onnx import TensorProto, helper

from app import downloads, weights
from app.errors import OceanoError
from app.weights import KnownPack, find_pack, install_pack, list_packs, verify_pack

DETECTOR, RECOGNISER = "det.onnx", "rec.onnx"
Shape = list[int | str]


def graph(
    inputs: list[Shape],
    outputs: list[Shape],
    *,
    filling: int = 0,
    seed: int = 0,
    old: bool = False,
    external: bool = False,
) -> bytes:
    """A graph with those shapes and `filling` random bytes of weights; `old` lists the weights among the inputs."""
    taken = [helper.make_tensor_value_info(f"in{n}", TensorProto.FLOAT, shape) for n, shape in enumerate(inputs)]
    given = [helper.make_tensor_value_info(f"out{n}", TensorProto.FLOAT, shape) for n, shape in enumerate(outputs)]
    raw = np.random.default_rng(seed).bytes(filling + 4)
    tensor = helper.make_tensor("w", TensorProto.UINT8, [len(raw)], raw, raw=True)
    if external:
        tensor.data_location = TensorProto.EXTERNAL
    if old:
        taken.insert(0, helper.make_tensor_value_info("w", TensorProto.UINT8, [len(raw)]))
    nodes = [helper.make_node("Identity", ["in0"], [value.name]) for value in given]
    return onnx.ModelProto.SerializeToString(helper.make_model(helper.make_graph(nodes, "g", taken, given, [tensor])))


def detector(strides: int = 3, landmarks: bool = True, seed: int = 0) -> bytes:
    widths = (1, 4, 10) if landmarks else (1, 4)
    return graph([[1, 3, "?", "?"]], [[100, width] for width in widths for _ in range(strides)], seed=seed)


def recogniser(size: int = 112, width: int = 512, *, filling: int = 0, seed: int = 0, old: bool = False) -> bytes:
    return graph([["N", 3, size, size]], [["N", width]], filling=filling, seed=seed, old=old)


OTHERS = {
    "1k3d68.onnx": graph([["N", 3, 192, 192]], [[1, 3309]]),
    "2d106det.onnx": graph([["N", 3, 192, 192]], [[1, 212]]),
    "genderage.onnx": graph([["N", 3, 96, 96]], [[1, 3]]),
    "inswapper.onnx": graph([[1, 3, 128, 128], [1, 512]], [[1, 3, 128, 128]]),
    ".rec.onnx": recogniser(seed=12),
}
PACK = {DETECTOR: detector(), RECOGNISER: recogniser(filling=900_000)}


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def digest_of(det: bytes, rec: bytes) -> str:
    return sha(f"{sha(det)}\n{sha(rec)}\n1".encode())


PACK_DIGEST = digest_of(PACK[DETECTOR], PACK[RECOGNISER])


def put(folder: Path, files: Mapping[str, bytes] = PACK) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
        os.utime(folder / name, ns=(10**18, 10**18))
    return folder


def zipped(
    files: Mapping[str | zipfile.ZipInfo, bytes] | Mapping[str, bytes], compression: int = zipfile.ZIP_STORED
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


ZIP = zipped({f"tiny/tiny/{name}": content for name, content in {**PACK, **OTHERS}.items()})


def known_as(content: bytes = ZIP, url: str = "http://127.0.0.1:9/none.zip") -> KnownPack:
    return KnownPack(
        url, len(content), sha(content), (DETECTOR, sha(PACK[DETECTOR])), (RECOGNISER, sha(PACK[RECOGNISER]))
    )


class Server(ThreadingHTTPServer):
    """Serves `content` with ranges and an ETag; `plan` holds a word for each of the next requests that go otherwise."""

    daemon_threads = True
    block_on_close = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = ZIP
        self.plan: list[str] = []
        self.asked: list[dict[str, str]] = []
        self.sent: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/tiny.zip"

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for headers in self.asked]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(dict(self.headers))
        word, _, value = (self.server.plan.pop(0) if self.server.plan else "").partition(" ")
        content, start = self.server.content, 0
        etag = f'"{sha(content)[:8]}"'
        asked = self.headers.get("Range")
        if asked and self.headers.get("If-Range") == etag and word not in ("whole", "shifted"):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if word == "status":
            return self.answer(int(value), {}, b"no")
        if start >= len(content) or word == "refuse":
            return self.answer(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
        headers = {"ETag": etag}
        if word == "shifted":
            start = 7
        if word == "weak":
            headers["ETag"] = f"W/{etag}"
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        if word == "piece":
            body = body[: int(value)]
            headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{len(content)}"
        headers["Content-Length"] = str(len(body))
        if word == "untold":
            del headers["Content-Length"]
        return self.answer(206 if start else 200, headers, body[: int(value)] if value else body)

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status >= 400:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.server.sent.append(len(body))
        with suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_WAIT", tenacity.wait_none())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


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


def refused(code: str, call: Callable[[], object]) -> OceanoError:
    with pytest.raises(OceanoError) as caught:
        call()
    assert caught.value.code == code, caught.value
    return caught.value


def everything(folder: Path) -> set[str]:
    """All files below it, but the locks and the pins."""
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return files - {".install.lock", ".pins.lock", "pins.json"}


INSTALLED = {f"tiny/{DETECTOR}", f"tiny/{RECOGNISER}"}


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


def test_the_other_models_of_a_pack_are_passed_over(models: Path) -> None:
    put(models / "tiny", {**OTHERS, **PACK})
    assert find_pack("tiny", models).digest == PACK_DIGEST


@pytest.mark.parametrize("strides", [3, 5])
@pytest.mark.parametrize("size", [112, 128, 224])
def test_each_kind_of_detector_and_recogniser_is_recognised(models: Path, strides: int, size: int) -> None:
    put(models / "tiny", {"a.onnx": recogniser(size), "b.onnx": detector(strides)})
    pack = find_pack("tiny", models)
    assert (pack.detector.name, pack.recogniser.name) == ("b.onnx", "a.onnx")


def test_weights_listed_among_the_inputs_do_not_hide_a_recogniser(models: Path) -> None:
    put(models / "tiny", {DETECTOR: detector(), RECOGNISER: recogniser(old=True)})
    assert find_pack("tiny", models).recogniser.name == RECOGNISER


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no .onnx files"),
        ({DETECTOR: detector(), **OTHERS}, "exactly one recogniser needed, 0 found"),
        ({RECOGNISER: recogniser()}, "exactly one detector needed, 0 found"),
        ({DETECTOR: detector(3, landmarks=False), RECOGNISER: recogniser()}, "a detector without landmarks"),
        ({DETECTOR: detector(5, landmarks=False), RECOGNISER: recogniser()}, "a detector without landmarks"),
        ({DETECTOR: detector(4), RECOGNISER: recogniser()}, "another model"),
        ({DETECTOR: graph([[1, 3, 0, 0]], [[1, 7]] * 9), RECOGNISER: recogniser()}, "det.onnx: another model"),
        *[
            ({DETECTOR: detector(), RECOGNISER: recogniser(size)}, f"another model, input {size}x{size}")
            for size in (96, 120, 192)
        ],
        ({DETECTOR: detector(), RECOGNISER: graph([[1, 3, 112, 128]], [[1, 512]])}, "another model, input 128x112"),
        ({DETECTOR: detector(), RECOGNISER: graph([[1, 1, 112, 112]], [[1, 512]])}, "rec.onnx: another model"),
        ({DETECTOR: detector(), RECOGNISER: recogniser(width=128)}, "embeddings of 128 values, not 512"),
        ({DETECTOR: detector(), RECOGNISER: recogniser(), "x.onnx": recogniser()}, "exactly one recogniser needed, 2"),
        ({DETECTOR: detector(), RECOGNISER: b"\x0a\xff"}, "not a readable ONNX file"),
        (
            {DETECTOR: detector(), RECOGNISER: graph([[1, 3, 112, 112]], [[1, 512]], external=True)},
            "weights lie in another file",
        ),
    ],
)
def test_a_folder_without_the_two_models_is_refused_with_what_was_seen(
    models: Path, files: dict[str, bytes], said: str
) -> None:
    put(models / "tiny", files)
    assert said in refused("model_not_found", lambda: find_pack("tiny", models)).message


def test_a_missing_known_pack_names_every_way_to_get_it(models: Path) -> None:
    message = refused("model_not_found", lambda: find_pack("antelopev2", models)).message
    for way in (
        "`oceano models install antelopev2`",
        "--archive FILE.zip",
        f"put scrfd_10g_bnkps.onnx and glintr100.onnx into {models / 'antelopev2'}",
        "set MODEL_NAME to a folder",
    ):
        assert way in message


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
    assert "put the published file in its place" in failure.message
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


def test_installing_where_nothing_can_be_written_says_so(readable_only: Path) -> None:
    failure = refused("model_download_failed", lambda: install_pack("new", readable_only, url="http://127.0.0.1:9/"))
    assert "cannot be written" in failure.message


@pytest.mark.parametrize("damage", ["", "[]", '{"tiny": {}}', '{"tiny": 3}', "\xff"])
def test_damaged_pins_are_refused_rather_than_forgotten(models: Path, damage: str) -> None:
    put(models / "tiny")
    (models / "pins.json").write_bytes(damage.encode("latin1"))
    failure = refused("model_corrupt", lambda: find_pack("tiny", models))
    assert "pins.json cannot be read" in failure.message


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


def test_the_list_names_antelopev2_where_there_is_no_models_folder(models: Path) -> None:
    assert [(pack.name, pack.installed) for pack in list_packs(models)] == [("antelopev2", False)]
    assert not models.exists()


# --- install


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
    assert "non-commercial research only" in caplog.text
    assert find_pack("tiny", models) == pack


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


def test_a_broken_connection_goes_on_where_it_ended(models: Path, server: Server) -> None:
    server.plan = ["cut 400000"]
    assert install_pack("tiny", models, known=known_as(url=server.url)).digest == PACK_DIGEST
    assert len(server.asked) == 2
    have = len(ZIP) - server.sent[1]
    assert 0 < have <= 400_000
    assert server.ranges == [None, f"bytes={have}-"]
    assert server.asked[1]["If-Range"] == f'"{sha(ZIP)[:8]}"'


def test_a_connection_that_keeps_breaking_gives_up_and_a_later_run_goes_on(models: Path, server: Server) -> None:
    server.plan = ["cut 300000", *["cut 0"] * 4]
    failure = refused("model_download_failed", lambda: install_pack("tiny", models, known=known_as(url=server.url)))
    assert "it goes on where it stopped" in failure.message
    assert len(server.asked) == 5
    install_pack("tiny", models, known=known_as(url=server.url))
    assert len(server.asked) == 6
    assert 0 < server.sent[-1] < len(ZIP)
    assert everything(models) == INSTALLED


def test_a_server_that_knows_no_ranges_sends_it_all_again(models: Path, server: Server) -> None:
    server.plan = ["cut 400000", "whole"]
    assert install_pack("tiny", models, known=known_as(url=server.url)).digest == PACK_DIGEST
    assert server.sent[1:] == [len(ZIP)]


def test_a_server_that_hands_out_pieces_is_asked_for_the_next_one(models: Path, server: Server) -> None:
    server.plan = ["cut 400000", "piece 200000"]
    assert install_pack("mine", models, url=server.url).digest == PACK_DIGEST
    assert len(server.asked) == 3
    start = int(str(server.ranges[1]).strip("bytes=-"))
    assert server.ranges[2] == f"bytes={start + 200_000}-"


def test_the_part_of_another_address_is_not_gone_on_with(models: Path, server: Server) -> None:
    server.plan = ["cut 400000", *["cut 0"] * 4]
    refused("model_download_failed", lambda: install_pack("mine", models, url=server.url))
    install_pack("mine", models, url=f"{server.url}?other")
    assert server.ranges[-1] is None


def test_a_zip_that_changed_on_the_server_is_not_glued_together(models: Path, server: Server) -> None:
    server.content = zipped({f"x/{DETECTOR}": detector(seed=8), f"x/{RECOGNISER}": recogniser(seed=8, filling=900_000)})
    server.plan = ["cut 400000", *["cut 0"] * 4]
    refused("model_download_failed", lambda: install_pack("mine", models, url=server.url))
    server.content = ZIP
    assert install_pack("mine", models, url=server.url).digest == PACK_DIGEST
    assert server.asked[-1]["Range"]
    assert server.sent[-1] == len(ZIP)


def test_without_a_strong_validator_a_download_begins_again(models: Path, server: Server) -> None:
    server.plan = ["weak 400000"]
    assert install_pack("mine", models, url=server.url).digest == PACK_DIGEST
    assert server.ranges == [None, None]


@pytest.mark.parametrize("word", ["refuse", "shifted"])
def test_an_answer_that_does_not_fit_the_part_begins_again(models: Path, server: Server, word: str) -> None:
    server.plan = ["cut 400000", word]
    assert install_pack("tiny", models, known=known_as(url=server.url)).digest == PACK_DIGEST
    assert [asked is None for asked in server.ranges] == [True, False, True]
    assert everything(models) == INSTALLED  # nothing was glued together and set aside


def test_a_part_that_is_complete_is_not_fetched_again(models: Path, server: Server) -> None:
    models.mkdir()
    (models / "mine.zip.part").write_bytes(ZIP)
    side = {"url": sha(server.url.encode()), "validator": f'"{sha(ZIP)[:8]}"', "total": None}
    (models / "mine.zip.json").write_text(json.dumps(side))
    assert install_pack("mine", models, url=server.url).digest == PACK_DIGEST  # the server answers 416
    assert server.sent == [0]


def test_a_server_that_tells_no_length_is_served_by(models: Path, server: Server) -> None:
    server.plan = ["untold"]
    steps: list[int | None] = []
    install_pack("mine", models, url=server.url, progress=lambda _, total: steps.append(total))
    assert set(steps) == {None}


def test_a_zip_with_the_wrong_digest_is_set_aside_and_fetched_once_more(models: Path, server: Server) -> None:
    wrong = ZIP[:-30] + b"\0" + ZIP[-29:]
    real, server.content = server.content, wrong

    def heal(done: int, _: int | None) -> None:
        if done == len(ZIP):
            server.content = real

    assert install_pack("tiny", models, known=known_as(url=server.url), progress=heal).digest == PACK_DIGEST
    assert server.ranges == [None, None]
    assert everything(models) == INSTALLED | {"tiny.zip.corrupt"}
    assert (models / "tiny.zip.corrupt").read_bytes() == wrong


def test_a_zip_that_stays_wrong_is_model_corrupt(models: Path, server: Server) -> None:
    server.content = bytes(len(ZIP))
    failure = refused("model_corrupt", lambda: install_pack("tiny", models, known=known_as(url=server.url)))
    assert sha(ZIP) in failure.message
    assert sha(server.content) in failure.message
    assert len(server.asked) == 2
    assert everything(models) == {"tiny.zip.corrupt", "tiny.zip.json"}


@pytest.mark.parametrize("content", [b"<html>please log in</html>", ZIP[:-50], ZIP[:200] + bytes(9) + ZIP[209:]])
def test_what_is_no_sound_zip_is_model_corrupt(models: Path, server: Server, content: bytes) -> None:
    server.content = content
    refused("model_corrupt", lambda: install_pack("mine", models, url=server.url))
    assert len(server.asked) == 2
    assert "mine.zip.corrupt" in everything(models)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_zip_is_unpacked(models: Path, server: Server, compression: int) -> None:
    files = {"det.onnx": detector(), "rec.onnx": recogniser()}
    server.content = zipped(files, compression)
    assert install_pack("mine", models, url=server.url).digest == digest_of(*files.values())


def test_an_encrypted_zip_is_refused_as_such(models: Path, tmp_path: Path) -> None:
    archive = tmp_path / "encrypted.zip"
    content = bytearray(zipped({"det.onnx": detector()}))
    content[6] |= 1  # in the member's header
    content[content.index(b"PK\x01\x02") + 8] |= 1  # and in the directory
    archive.write_bytes(content)
    assert "encrypted" in refused("model_corrupt", lambda: install_pack("mine", models, archive=archive)).message


def test_a_zip_without_a_recogniser_is_refused_and_does_not_block_a_better_one(models: Path, server: Server) -> None:
    server.content = zipped({"x/det.onnx": detector()})
    failure = refused("model_not_found", lambda: install_pack("mine", models, url=server.url))
    assert "recogniser" in failure.message
    assert len(server.asked) == 1
    assert not [name for name in everything(models) if name.endswith(".onnx")]
    server.content = ZIP
    assert install_pack("mine", models, url=server.url).digest == PACK_DIGEST


def test_an_endless_answer_is_cut_off(models: Path, server: Server) -> None:
    server.content = ZIP + bytes(50_000_000)
    refused("model_corrupt", lambda: install_pack("tiny", models, known=known_as(url=server.url)))
    assert (models / "tiny.zip.corrupt").stat().st_size < len(ZIP) + 1_000_000


def link_to(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def test_members_that_point_outside_or_are_links_are_not_unpacked(models: Path, server: Server, tmp_path: Path) -> None:
    evil = recogniser(seed=66)
    server.content = zipped(
        {
            "../../evil.onnx": evil,
            f"{tmp_path}/absolute.onnx": evil,
            "..\\..\\windows.onnx": evil,
            "tiny/../../../deep.onnx": evil,
            link_to("link.onnx"): evil,
            "folder.onnx/": b"",
            **{f"tiny/{name}": content for name, content in PACK.items()},
        }
    )
    assert install_pack("mine", models, url=server.url).digest == PACK_DIGEST
    assert everything(tmp_path) - {f"models/{name}" for name in (".install.lock", ".pins.lock", "pins.json")} == {
        f"models/mine/{DETECTOR}",
        f"models/mine/{RECOGNISER}",
    }
    assert not list(models.parent.parent.glob("*.onnx"))


def test_a_zip_that_unpacks_to_too_much_is_refused(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_MAX_BYTES", 2_000_000)
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("bomb.onnx", bytes(3_000_000))
    failure = refused("model_corrupt", lambda: install_pack("mine", models, archive=archive))
    assert "unpacks to 3000000 bytes" in failure.message
    assert everything(models) == set()


# --- disk full


class FullDisk:
    """A file that takes `room` bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: bytes) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(self.file.write(data))

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def fill_disk(monkeypatch: pytest.MonkeyPatch, suffix: str, room: int) -> None:
    really = Path.open

    def opened(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = really(path, mode, *args, **kwargs)
        return FullDisk(file, room) if path.name.endswith(suffix) and "r" not in mode else file

    monkeypatch.setattr(Path, "open", opened)


def test_a_disk_that_fills_up_while_downloading_keeps_the_part_and_a_later_run_goes_on(
    models: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        fill_disk(full, ".zip.part", 300_000)
        failure = refused("disk_full", lambda: install_pack("tiny", models, known=known_as(url=server.url)))
    have = (models / "tiny.zip.part").stat().st_size
    assert 0 < have <= 300_000
    assert failure.details["needed_bytes"] == len(ZIP) - have
    assert isinstance(failure.details["free_bytes"], int)
    assert len(server.asked) == 1  # trying again at once would not help
    assert install_pack("tiny", models, known=known_as(url=server.url)).digest == PACK_DIGEST
    assert server.ranges == [None, f"bytes={have}-"]


def test_a_disk_without_room_for_the_zip_is_told_before_any_of_it_is_written(
    models: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(models.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    failure = refused("disk_full", lambda: install_pack("tiny", models, known=known_as(url=server.url)))
    assert failure.details == {"folder": str(models), "needed_bytes": len(ZIP), "free_bytes": 1000}
    assert "make room" in failure.message
    assert "tiny.zip.part" not in everything(models)


def test_a_disk_that_fills_up_while_unpacking_keeps_the_zip_and_leaves_no_half_pack(
    models: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        fill_disk(full, RECOGNISER, 100_000)
        failure = refused("disk_full", lambda: install_pack("tiny", models, known=known_as(url=server.url)))
    assert failure.details["needed_bytes"] == sum(len(content) for content in PACK.values())  # not the other models
    assert everything(models) == {"tiny.zip.part", "tiny.zip.json"}
    assert install_pack("tiny", models, known=known_as(url=server.url)).digest == PACK_DIGEST
    assert len(server.asked) == 1


# --- a network that is not there


def test_a_missing_zip_is_not_asked_for_twice(models: Path, server: Server) -> None:
    server.plan = ["status 404"]
    failure = refused("model_download_failed", lambda: install_pack("tiny", models, known=known_as(url=server.url)))
    assert len(server.asked) == 1
    for part in ("404", "--archive FILE.zip", f"put {DETECTOR} and {RECOGNISER} into {models / 'tiny'}"):
        assert part in failure.message


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(models: Path, server: Server, status: int) -> None:
    server.plan = [f"status {status}"] * 2
    assert install_pack("tiny", models, known=known_as(url=server.url)).digest == PACK_DIGEST
    assert len(server.asked) == 3


def test_a_refused_connection_says_so_and_keeps_the_secrets_of_the_address(models: Path, server: Server) -> None:
    server.shutdown()
    server.server_close()
    secret = server.url.replace("http://", "http://user:pass-word@") + "?signature=se-cret"
    failure = refused("model_download_failed", lambda: install_pack("mine", models, url=secret))
    assert "Connection refused" in failure.message
    assert "127.0.0.1/tiny.zip" in failure.message
    for text in (failure.message, str(failure.details)):
        assert "pass-word" not in text
        assert "se-cret" not in text


def test_an_address_that_is_none_is_a_failed_download(models: Path) -> None:
    assert "MissingSchema" in refused("model_download_failed", lambda: install_pack("mine", models, url="x")).message


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
            if "waiting until another process" in record.getMessage():
                waiting.set()

    watch = Watch()
    downloads.log.addHandler(watch)
    try:
        with ThreadPoolExecutor(2) as pool:
            known = known_as(url=server.url)
            runs = [pool.submit(install_pack, "tiny", models, known=known, progress=hold) for _ in range(2)]
            packs = [run.result() for run in runs]
    finally:
        downloads.log.removeHandler(watch)
    assert waiting.is_set()
    assert packs[0] == packs[1]
    assert len(server.asked) == 1


# --- the house


def test_weights_loads_no_model_library() -> None:
    check = "import sys, app.weights; print({'onnx', 'onnxruntime', 'insightface', 'cv2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_antelopev2_is_known_by_its_published_digests() -> None:
    pack = weights.KNOWN_PACKS["antelopev2"]
    assert pack.size == 360_662_982
    digests = [pack.sha256, *(digest for _, digest in pack.files.values())]
    assert [digest[:8] for digest in digests] == ["8e182f14", "5838f7fe", "4ab1d643"]
    assert all(len(digest) == 64 for digest in digests)
