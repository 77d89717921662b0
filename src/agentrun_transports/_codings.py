"""Content codings that need more than the standard library of today: offered where they are installed.

``br`` with brotli, which can bound its output from 1.2 on; ``zstd`` with Python 3.14, or with backports.zstd.

Rules of this file: what cannot be bounded is not offered; a module is imported when an answer needs it, or
where nothing else tells whether it will do.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from agentrun_proto.codings import Inflater, offer

_ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"


class _Brotli:
    """brotli's decompressor, in the shape of the others."""

    __slots__ = ("_inflater",)

    unused_data = b""  # what follows the end is refused

    def __init__(self) -> None:
        self._inflater: Any = import_module("brotli").Decompressor()

    @property
    def eof(self) -> bool:
        return bool(self._inflater.is_finished())

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        found: bytes = self._inflater.process(data, output_buffer_limit=max_length)
        return found


def _zstd() -> Inflater:
    made: Inflater = import_module(_ZSTD).ZstdDecompressor()
    return made


def _has_zstd() -> bool:
    try:
        return find_spec(_ZSTD) is not None
    except ImportError:  # nor is there the package that it would be in
        return False


def _has_brotli() -> bool:
    try:
        return hasattr(import_module("brotli").Decompressor, "can_accept_more_data")
    except ImportError:
        return False


def offer_what_is_installed() -> None:
    """Has requests ask for the codings that can be taken off here."""
    if _has_brotli():
        offer("br", _Brotli)
    if _has_zstd():
        offer("zstd", _zstd)
