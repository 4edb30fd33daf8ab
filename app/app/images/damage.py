"""What the decoders raise for damaged files."""

from __future__ import annotations

import struct
import zlib
from typing import Final

import cv2

DECODER_ERRORS: Final = (
    cv2.error,
    OSError,
    ValueError,
    TypeError,
    SyntaxError,
    LookupError,
    ArithmeticError,
    EOFError,
    AttributeError,
    AssertionError,
    RuntimeError,
    struct.error,
    zlib.error,
    MemoryError,
)
