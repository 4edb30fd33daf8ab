"""Lets `python -m app` run the command `oceano`."""

from __future__ import annotations

import sys

from app.cli import main

sys.exit(main())
