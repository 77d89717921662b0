"""Codings piece by piece: any split gives the same, and no coding makes much of little."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentrun_transports  # noqa: F401 - which offers what is installed
from agentrun_proto import Config, DataEndpoint
from agentrun_proto.codings import MAX_RATIO, PIECE, CodingError, ContentDecoder, accept_encoding
from agentrun_transports import _codings
from proto_strategies import PROPERTY

brotli = pytest.importorskip("brotli", reason="pip install 'agentrun-proto[codings]'")
try:
    from compression import zstd
except ImportError:
    zstd = pytest.importorskip("backports.zstd", reason="pip install 'agentrun-proto[codings]'")

ENCODE: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
}
CODINGS = pytest.mark.parametrize("coding", ENCODE)
MIXED = random.Random(1).randbytes(3000) + b"abc" * 200_000
FAR = MIXED[:3000] + bytes(28_000) + MIXED[:3000]  # its end refers to its beginning, nearly 32 KiB back


def taken_off(coding: str, *pieces: bytes) -> list[bytes]:
    decoder = ContentDecoder(coding)
    found = [piece for data in pieces for piece in decoder.feed(data)]
    decoder.end()
    return found


def test_all_that_is_installed_is_asked_for():
    assert accept_encoding().split(", ") == list(ENCODE)
    request = DataEndpoint(Config(account_id="1")).request("GET", "r")
    assert request.headers["accept-encoding"] == accept_encoding()


def offered_with(monkeypatch, brotli_module, zstd_module):
    """What is offered where these modules are what is found; None: none is."""

    def load(name):
        if name != "brotli":
            return import_module(name)
        if brotli_module is None:
            raise ModuleNotFoundError(name)
        return brotli_module

    def find(name):
        if zstd_module is ModuleNotFoundError:
            raise ModuleNotFoundError(name)
        return zstd_module

    found = []
    monkeypatch.setattr(_codings, "import_module", load)
    monkeypatch.setattr(_codings, "find_spec", find)
    monkeypatch.setattr(_codings, "offer", lambda name, make: found.append(name))
    _codings.offer_what_is_installed()
    return found


@pytest.mark.parametrize("zstd_module", [None, ModuleNotFoundError], ids=["no module", "no package of it"])
@pytest.mark.parametrize("brotli_module", [None, SimpleNamespace(Decompressor=object)], ids=["none", "old"])
def test_what_is_not_installed_or_cannot_be_bounded_is_not_offered(monkeypatch, brotli_module, zstd_module):
    """brotli before 1.2 makes as much as it likes at once."""
    assert offered_with(monkeypatch, brotli_module, zstd_module) == []
    assert offered_with(monkeypatch, brotli, zstd_module) == ["br"]
    assert offered_with(monkeypatch, brotli_module, object()) == ["zstd"]


@CODINGS
def test_whole(coding):
    found = taken_off(coding, ENCODE[coding](MIXED))
    assert b"".join(found) == MIXED
    assert max(map(len, found)) <= 2 * PIECE, "brotli's bound is a soft one"


@CODINGS
def test_what_refers_far_back(coding):
    assert b"".join(taken_off(coding, ENCODE[coding](FAR))) == FAR


@CODINGS
def test_byte_by_byte(coding):
    content = ENCODE[coding](MIXED[:4000])
    assert b"".join(taken_off(coding, *(bytes([byte]) for byte in content))) == MIXED[:4000]


@CODINGS
@PROPERTY
@given(st.binary(max_size=2000), st.data())
def test_law_the_split_does_not_matter(coding, plain, data):
    content = ENCODE[coding](plain)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=5)))
    pieces = [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    assert b"".join(taken_off(coding, *pieces)) == plain


@CODINGS
def test_every_end_that_comes_too_early(coding):
    content = ENCODE[coding](b"some words, and some words again")
    for length in range(1, len(content)):
        with pytest.raises(CodingError, match="damaged"):
            taken_off(coding, content[:length])


@CODINGS
def test_nothing_at_all_is_no_damage(coding):
    assert taken_off(coding) == taken_off(coding, b"") == []


@CODINGS
def test_noise_is_damage(coding):
    noise = random.Random(2)
    for _ in range(200):
        with pytest.raises(CodingError):
            taken_off(coding, b"\xff\xff" + noise.randbytes(40))


@CODINGS
def test_further_members(coding):
    twice = ENCODE[coding](b"one, ") + ENCODE[coding](b"two")
    if coding in ("gzip", "zstd"):
        assert b"".join(taken_off(coding, twice)) == b"one, two"
        assert b"".join(taken_off(coding, *(bytes([byte]) for byte in twice))) == b"one, two"
    else:
        with pytest.raises(CodingError, match="damaged"):
            taken_off(coding, twice)


def test_as_many_members_as_an_answer_may_have():
    member = ENCODE["gzip"](b"x")
    assert b"".join(taken_off("gzip", member * 100)) == b"x" * 100
    with pytest.raises(CodingError, match="bytes follow its end"):
        taken_off("gzip", member * 101)


def bare(plain: bytes) -> bytes:
    """A deflate stream without zlib's head and tail, as some servers send it (RFC 9110, 8.4.1.2)."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    return squeeze.compress(plain) + squeeze.flush()


def stored(first: int, plain: bytes) -> bytes:
    """One stored block (RFC 1951, 3.2.4); the upper bits of its first byte say nothing."""
    size = len(plain)
    return bytes([first]) + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little") + plain


BARE = {
    "empty": (bare(b""), b""),
    "nearly as far back as it goes": (bare(FAR), FAR),
    **{f"the number {number}": (bare(b"%d" % number), b"%d" % number) for number in range(100)},
    "the method of zlib, no check": (stored(0x08, b"a") + bare(b""), b"a"),
    "the check of zlib, another method": (stored(0x09, b"a" * 21), b"a" * 21),
}


@pytest.mark.parametrize("name", BARE)
def test_a_bare_deflate_stream_is_told_by_its_first_two_bytes(name):
    content, plain = BARE[name]
    assert b"".join(taken_off("deflate", content)) == plain
    assert b"".join(taken_off("deflate", *(bytes([byte]) for byte in content))) == plain


def test_of_a_mebibyte_nobody_asks_what_it_was_made_of():
    free = 1 << 20
    assert sum(map(len, taken_off("br", ENCODE["br"](bytes(free))))) == free
    with pytest.raises(CodingError, match="bomb"):
        taken_off("br", ENCODE["br"](bytes(free + 1)))


@pytest.mark.parametrize("coding", ["br", "zstd"])
def test_a_bomb_is_one(coding):
    content = ENCODE[coding](bytes(64 << 20))
    assert len(content) * MAX_RATIO < 32 << 20, "else it would be none"
    made = 0
    with pytest.raises(CodingError, match="bomb"):
        for piece in ContentDecoder(coding).feed(content):
            made += len(piece)
    assert made < 32 << 20


def test_what_runs_out_of_memory_is_not_called_damage(monkeypatch):
    class Full:
        eof = False
        unused_data = b""

        def decompress(self, data, max_length):
            raise MemoryError

    decoder = ContentDecoder("gzip")
    monkeypatch.setattr(decoder, "_inflater", Full())
    with pytest.raises(MemoryError):
        list(decoder.feed(b"xx"))


def test_what_is_not_offered():
    with pytest.raises(CodingError, match="not asked for: compress"):
        ContentDecoder("compress")
