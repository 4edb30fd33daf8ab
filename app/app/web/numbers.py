"""Numbers in addresses and forms."""

from __future__ import annotations


def whole_number(text: str, digits: int = 15) -> int | None:
    """Return the number that a text is, from 0 on; None if it is none.

    Args:
        text: ASCII digits only; others, spaces and signs are no number.
        digits: the largest number of them.
    """
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= digits else None
