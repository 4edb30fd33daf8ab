from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import anyio.to_thread
import pytest

from app.core import logs
from app.core.locks import try_lock


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for logs; afterwards logging is as it was."""
    root, access = logging.getLogger(), logging.getLogger(logs.ACCESS)
    before = (list(root.handlers), root.level, list(access.handlers), access.propagate)
    for handler in before[0]:
        root.removeHandler(handler)  # configure_logging closes what it finds, pytest's handlers too
    yield tmp_path / "logs"
    for logger in (root, access):
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
    for handler in before[0]:
        root.addHandler(handler)
    root.setLevel(before[1])
    for handler in before[2]:
        access.addHandler(handler)
    access.propagate = before[3]
    logging.captureWarnings(False)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def test_everything_goes_to_one_file_and_errors_to_another_too(folder: Path) -> None:
    logs.configure_logging(folder, "service", console=False)
    logging.getLogger("app.x").info("all is well")
    logging.getLogger("app.x").error("all is not well")
    logging.getLogger("app.x").debug("too much")
    assert [line.split("] ")[1] for line in _lines(folder / "service.log")] == ["all is well", "all is not well"]
    assert [line.split("] ")[1] for line in _lines(folder / "service-errors.log")] == ["all is not well"]


def test_the_access_log_is_a_file_of_its_own_and_the_service_s_alone(folder: Path) -> None:
    logs.configure_logging(folder, "service", console=False)
    logging.getLogger(logs.ACCESS).info("GET /")
    assert len(_lines(folder / "access.log")) == 1
    assert _lines(folder / "service.log") == []
    logs.configure_logging(folder, "ingest", console=False)
    logging.getLogger(logs.ACCESS).info("GET /")
    assert len(_lines(folder / "access.log")) == 1
    assert _lines(folder / "ingest.log") == []


def test_two_processes_do_not_share_a_file(folder: Path) -> None:
    for process in ("service", "ingest"):
        logs.configure_logging(folder, process, console=False)
        logging.getLogger("app").error(process)
    assert [len(_lines(folder / f"{name}.log")) for name in ("service", "ingest")] == [1, 1]
    assert [len(_lines(folder / f"{name}-errors.log")) for name in ("service", "ingest")] == [1, 1]


def test_configuring_twice_does_not_write_twice(folder: Path) -> None:
    logs.configure_logging(folder, "service", console=False)
    logs.configure_logging(folder, "service", console=False)
    logging.getLogger("app").info("once")
    logging.getLogger(logs.ACCESS).info("once")
    assert len(_lines(folder / "service.log")) == 1
    assert len(_lines(folder / "access.log")) == 1


def test_no_file_is_made_before_there_is_something_to_say(folder: Path) -> None:
    logs.configure_logging(folder, "service", console=False)
    assert list(folder.glob("*.log*")) == []


def test_a_second_service_on_the_same_folder_has_files_of_its_own(folder: Path) -> None:
    folder.mkdir()
    held = try_lock(folder / ".service.lock")
    assert held is not None
    logs.configure_logging(folder, "service", console=False)
    logging.getLogger("x").error("of the second")
    logging.getLogger(logs.ACCESS).info("GET")
    names = {path.name for path in folder.glob("*.log")}
    assert names == {"service-2.log", "service-2-errors.log", "access-2.log"}
    os.close(held)


def test_a_line_has_time_level_logger_and_request_id(folder: Path) -> None:
    logs.configure_logging(folder, "service", console=False)
    logging.getLogger("app.service.search").warning("slow")
    token = logs.request_id.set("abc123")
    logging.getLogger("app.service.search").warning("slow")
    logs.request_id.reset(token)
    first, second = _lines(folder / "service.log")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING app\.service\.search \[-\] slow", first)
    assert second.endswith("WARNING app.service.search [abc123] slow")


@pytest.mark.parametrize(
    "text", ["\n", "\r\n", "\r", "\x1b[2J", "\x00", "\x85", "\u2028", "\u2029", "\x9b31m", "\x7f", "\x0b"]
)
def test_no_text_can_forge_a_line_or_move_the_cursor(folder: Path, text: str) -> None:
    logs.configure_logging(folder, "service", console=False)
    logging.getLogger("app").error("before%s2026-01-01 ERROR app [-] forged", text)
    (line,) = _lines(folder / "service.log")
    assert line.endswith("forged")
    assert line.isprintable()


def test_text_in_any_language_stays_readable(folder: Path) -> None:
    logs.configure_logging(folder, "service", console=False)
    logging.getLogger("app").error("/fotos/año/日本 – „ok“")
    assert _lines(folder / "service.log")[0].endswith("/fotos/año/日本 – „ok“")


def test_a_file_name_that_is_no_text_can_be_logged(folder: Path) -> None:
    logs.configure_logging(folder, "service", console=False)
    logging.getLogger("app").error("%s", b"caf\xe9.jpg".decode("utf-8", "surrogateescape"))
    assert _lines(folder / "service.log")[0].endswith("caf\\udce9.jpg")


def test_a_traceback_follows_indented_and_forges_no_line(folder: Path) -> None:
    logs.configure_logging(folder, "service", console=False)
    try:
        raise ValueError("bad\n2026-01-01 00:00:00,000 ERROR app [-] forged \x1b[2J")
    except ValueError:
        logging.getLogger("app").exception("it broke")
    first, *rest = _lines(folder / "service-errors.log")
    assert first.endswith("it broke")
    assert len(rest) >= 4
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_a_warning_of_a_library_goes_to_the_log(folder: Path) -> None:
    logs.configure_logging(folder, "service", console=False)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)  # catch_warnings restored pytest's; install ours inside of it
        logging.captureWarnings(True)
        warnings.warn("an odd picture", UserWarning, stacklevel=1)
        logging.captureWarnings(False)
    assert "an odd picture" in _lines(folder / "service.log")[0]


def test_a_full_disk_is_said_once_and_not_for_each_record(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.mkdir()
    (folder / "ingest.log").symlink_to("/dev/full")
    logs.configure_logging(folder, "ingest", console=False)
    for number in range(3):
        logging.getLogger("x").info("record %d", number)
    said = f"WARNING the log {folder}/ingest.log cannot be written: No space left on device\n"
    assert capsys.readouterr().err == said
    with pytest.raises(OSError, match="No space"):
        logging.getLogger().handlers[0].close()  # what is not written yet; logging does not mind that


def test_a_record_that_is_a_bug_is_still_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_logging(folder, "ingest", console=False)
    logging.getLogger("x").info("%d records", "no number")
    assert "TypeError" in capsys.readouterr().err


def test_files_are_rotated_and_old_ones_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_MAX_BYTES", 2_000)
    monkeypatch.setattr(logs, "_BACKUP_FILES", 2)
    logs.configure_logging(folder, "service", console=False)
    for number in range(300):
        logging.getLogger("app").info("line %d of many", number)
    files = sorted(path.name for path in folder.glob("*.log*"))
    assert files == ["service.log", "service.log.1", "service.log.2"]
    assert all(path.stat().st_size <= 2_000 for path in folder.iterdir())
    assert _lines(folder / "service.log")[-1].endswith("line 299 of many")


def test_the_console_hears_of_warnings_only(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_logging(folder, "service")
    logging.getLogger("app").info("quiet")
    logging.getLogger("app").warning("look\nhere")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "WARNING look\\nhere\n"


def test_every_line_of_many_threads_is_whole(folder: Path) -> None:
    logs.configure_logging(folder, "service", console=False)

    def write(name: str) -> None:
        logs.request_id.set(name)
        for _ in range(50):
            logging.getLogger("app").info("from %s", name)

    threads = [threading.Thread(target=write, args=(f"t{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = _lines(folder / "service.log")
    assert len(lines) == 400
    for line in lines:
        match = re.search(r"\[(t\d)\] from (t\d)$", line)
        assert match, line
        assert match[1] == match[2]


def test_the_request_id_goes_along_into_threads_and_does_not_mix() -> None:
    async def one(name: str) -> tuple[str, str]:
        logs.request_id.set(name)
        await asyncio.sleep(0)
        return name, await anyio.to_thread.run_sync(logs.request_id.get)

    async def many() -> list[tuple[str, str]]:
        return await asyncio.gather(*(one(f"r{number}") for number in range(50)))

    seen = asyncio.run(many())
    assert len(seen) == 50
    assert all(name == found for name, found in seen)
    assert logs.request_id.get() == "-"
