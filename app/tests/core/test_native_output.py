"""libjpeg's warnings go to the log; everything else that a process prints stays on its standard error."""

from __future__ import annotations

import io
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_PROGRAM = """
import logging, os, subprocess, sys
from pathlib import Path
import cv2, numpy as np
from app.core.logs import configure_logging
from app.core.native_output import divert_warnings

divert_warnings()
configure_logging(Path(sys.argv[1]), "ingest")
{body}
"""


def _damaged_jpeg() -> bytes:
    """A JPEG with a rubbish byte before its end, of which libjpeg warns."""
    pixels = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    data = file.getvalue()
    return data[:-2] + bytes(40) + data[-2:]


def _run(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    program = _PROGRAM.format(body=textwrap.dedent(body))
    return subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_warning_of_libjpeg_is_a_line_of_the_log_and_not_on_the_terminal(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(_damaged_jpeg())
    done = _run(
        tmp_path / "logs",
        f"""
        data = np.fromfile({str(damaged)!r}, np.uint8)
        assert cv2.imdecode(data, cv2.IMREAD_COLOR) is not None
        """,
    )
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = (tmp_path / "logs" / "ingest.log").read_text(encoding="utf-8").splitlines()
    assert "Corrupt JPEG data" in line


@pytest.mark.parametrize(
    "printing",
    [
        "print('a message', file=sys.stderr)",
        "os.write(2, b'a message\\n')",
        "subprocess.run(['sh', '-c', 'echo a message >&2'])",
        "logging.getLogger('app').warning('a message')",
    ],
)
def test_what_else_is_printed_stays_on_standard_error(tmp_path: Path, printing: str) -> None:
    done = _run(tmp_path / "logs", printing)
    assert done.stderr.removeprefix("WARNING ") == "a message\n"


def test_a_crash_is_still_reported(tmp_path: Path) -> None:
    done = _run(tmp_path / "logs", "os.kill(os.getpid(), 11)")
    assert done.returncode == -11
    assert "Segmentation fault" in done.stderr
