"""Model packs on disk: find, verify, list, install and combine them."""

from app.packs.install import combine_packs, install_pack
from app.packs.known import KNOWN_PACKS
from app.packs.quantized import in_precision, keep_quantized, quantizing
from app.packs.store import (
    PackStatus,
    embedding_size_of,
    find_pack,
    forget_pin,
    list_packs,
    verify_pack,
)

__all__ = [
    "KNOWN_PACKS",
    "PackStatus",
    "combine_packs",
    "embedding_size_of",
    "find_pack",
    "forget_pin",
    "in_precision",
    "install_pack",
    "keep_quantized",
    "list_packs",
    "quantizing",
    "verify_pack",
]
