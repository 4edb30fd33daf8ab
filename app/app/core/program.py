"""What a user types to run the command `oceano`."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path


def program() -> str:
    """Return the command: "oceano" if a shell finds this one, else its path, which quick-start puts into `.venv`."""
    script = Path(sys.executable).with_name("oceano")
    if not script.is_file():
        return f"{shlex.quote(sys.executable)} -m app"
    found = shutil.which("oceano")
    return "oceano" if found and Path(found).samefile(script) else shlex.quote(str(script))
