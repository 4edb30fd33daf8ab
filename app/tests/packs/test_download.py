"""Downloads as an install asks for them, from a server on 127.0.0.1 that is not always well."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import OceanoError
from app.packs import download as downloads
from app.packs.download import download
from app.packs.install import install_pack
from tests.support.packs import (
    DETECTOR,
    INSTALLED,
    PACK,
    PACK_DIGEST,
    RECOGNISER,
    ZIP,
    Server,
    detector,
    digest_of,
    everything,
    known_as,
    recogniser,
    refused,
    sha,
    zipped,
)


def test_any_file_is_fetched_and_handed_over_once_it_is_whole(server: Server, tmp_path: Path) -> None:
    server.content = bytes(range(256)) * 4000
    server.plan = ["cut 400000"]
    steps: list[int] = []
    taken = download(
        server.url,
        tmp_path / "film.part",
        Path.read_bytes,
        progress=lambda done, _: steps.append(done),
        alternatives="go to the cinema",
    )
    assert taken == server.content
    assert steps[-1] == len(server.content)
    assert everything(tmp_path) == set()


# --- going on where the last try stopped


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
    assert "try again to resume the download" in failure.message
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


# --- what came is not what was wanted


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


def test_an_endless_answer_is_cut_off(models: Path, server: Server) -> None:
    server.content = ZIP + bytes(50_000_000)
    refused("model_corrupt", lambda: install_pack("tiny", models, known=known_as(url=server.url)))
    assert (models / "tiny.zip.corrupt").stat().st_size < len(ZIP) + 1_000_000


# --- zips


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


def link_to(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def test_members_that_point_outside_or_are_links_are_not_unpacked(models: Path, server: Server, tmp_path: Path) -> None:
    evil = recogniser(seed=66)
    members: dict[str | zipfile.ZipInfo, bytes] = {
        "../../evil.onnx": evil,
        f"{tmp_path}/absolute.onnx": evil,
        "..\\..\\windows.onnx": evil,
        "tiny/../../../deep.onnx": evil,
        link_to("link.onnx"): evil,
        "folder.onnx/": b"",
        **{f"tiny/{name}": content for name, content in PACK.items()},
    }
    server.content = zipped(members)
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
    assert "free some space" in failure.message
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


# --- the disk


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
def test_a_damaged_zip_is_corrupt_whatever_its_compression_says_of_it(tmp_path: Path, compression: int) -> None:
    content = bytearray(zipped({"a.onnx": bytes(range(256)) * 400}, compression))
    refusals = 0
    for place in range(30, len(content), 7):  # zipfile raises OSError for some damage, and its own errors for other
        damaged = tmp_path / "damaged.zip"
        damaged.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            downloads.unzip(damaged, tmp_path, ["*.onnx"])
        except OceanoError as failure:
            assert failure.code == "model_corrupt"
            refusals += 1
    assert refusals > 3
