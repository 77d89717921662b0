"""HOSTILE's section "Answers" as data: what a peer does, and what must come of it.

Each row quotes the line it stands for (as tests/data/hostile.json has it), holds the bytes, and gives the
verdict: the error classes that are allowed, the values that are allowed, or both (E/X). Rows are fed to the
wire alone and to every driver.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from agentrun_proto import (
    AgentRunClientError,
    AuthenticationError,
    BadGatewayError,
    DecodeError,
    IncompleteError,
    InternalServerError,
    ProtocolError,
    RedirectError,
    ServiceUnavailableError,
    TimeoutExceeded,
    TooManyRequestsError,
)
from transports_support import Close, Repeat, Reset, Say, Stall, answer

_TABLE = json.loads((Path(__file__).parent / "data" / "hostile.json").read_text(encoding="utf-8"))
LINES = {row["input"]: row["id"] for row in _TABLE["sections"][0]["rows"]}  # the words of a line -> its name
OK = {"ok": 1}
BODY = b'{"ok": 1}'
NONSENSE = (ProtocolError, IncompleteError, DecodeError)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of HOSTILE, or a part of one.

    Args:
        id: unique.
        quote: the words of HOSTILE that it stands for.
        data: what the peer sends; or a function that makes it, for the big ones.
        then: what the peer does afterwards: nothing ("open"), "close" or "reset".
        errors: the documented errors that may come of it.
        values: the values that may come of it.
        method: of the request.
        after: steps instead of `data` and `then`, where a plain sequence is not enough.
        reuse: whether the connection must (True), must not (False) or may (None) serve the next call.
        big: too large to be fed byte by byte.
        silent: the peer falls silent or goes on for ever: the deadline must end the call.
        check: a further look at the error.
    """

    id: str
    quote: str
    data: bytes | Callable[[], bytes] = b""
    then: str = "open"
    errors: tuple[type[AgentRunClientError], ...] = ()
    values: tuple[Any, ...] = ()
    method: str = "GET"
    after: tuple[Any, ...] = ()
    reuse: bool | None = None
    big: bool = False
    silent: bool = False
    check: Callable[[Any], bool] | None = field(default=None)

    @property
    def raw(self) -> bytes:
        return self.data if isinstance(self.data, bytes) else self.data()

    def script(self, *before_the_end: Any) -> tuple[Any, ...]:
        """The row as steps of a raw server; further ones come before it closes or resets."""
        end: dict[str, tuple[Any, ...]] = {"open": (), "close": (Close(),), "reset": (Reset(),)}
        told = (Say(self.raw),) if self.data else ()
        return (*told, *self.after, *before_the_end, *end[self.then])

    def judge(self, outcome: Any) -> None:
        """Fails unless the outcome, a value or an exception, is one that the row allows."""
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, AgentRunClientError), f"a foreign exception: {outcome!r}"
            assert isinstance(outcome, self.errors), f"{outcome!r} is not among {self.errors}"
            if not self.silent:
                assert not isinstance(outcome, TimeoutExceeded), "only the deadline ended it"
            if self.check is not None:
                assert self.check(outcome), vars(outcome)
        else:
            assert any(_same(outcome, value) for value in self.values), f"{outcome!r} was returned"


def _same(first: Any, second: Any) -> bool:
    return bool(first == second) and type(first) is type(second)


def head(*lines: str, status: str = "HTTP/1.1 200 OK", length: int | None = len(BODY)) -> bytes:
    """A head with these field lines and, unless it is None, a Content-Length."""
    counted = [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([status, *lines, *counted, "", ""]).encode("latin-1")


def raw_head(*lines: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"Content-Length: 9", b"", b""])


def chunked(*chunks: str, fields: str = "Transfer-Encoding: chunked") -> bytes:
    return head(fields, length=None) + "".join(chunks).encode("latin-1")


def coded(content: bytes, coding: str = "gzip") -> bytes:
    return answer(content, fields=f"Content-Encoding: {coding}\r\n")


@cache
def gzip_bomb(megabytes: int) -> bytes:
    """That many MB of zeros, gzip-coded, made of one block over and over: small, and quick to make."""
    block = bytes(1024 * 1024)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packer.compress(block)
    packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    crc = 0
    for _ in range(megabytes):
        crc = zlib.crc32(block, crc)
    size = megabytes * len(block)
    start = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    trailer = crc.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")
    return start + piece * megabytes + b"\x03\x00" + trailer


def with_type(content: bytes, media_type: str) -> bytes:
    return answer(content, fields=f"Content-Type: {media_type}\r\n")


GZIPPED = gzip.compress(BODY, mtime=0)
TEN = chunked("9\r\n", '{"ok": 1}', "\r\n0\r\n\r\n")


def _rows() -> list[Row]:
    rows: list[Row] = []

    def add(quote: str, **cases: dict[str, Any]) -> None:
        for name, case in cases.items():
            rows.append(Row(id=name, quote=quote, **case))

    E = {"errors": NONSENSE}
    X = {"values": (OK,)}
    EX = {"errors": NONSENSE, "values": (OK,)}

    add(
        "obs-fold in a header / inside Content-Length",
        fold_in_header=dict(data=head("X-A: 1", " 2") + BODY, **EX),
        fold_tab=dict(data=head("X-A: 1", "\t2") + BODY, **EX),
        fold_in_length=dict(data=head("Content-Length: 1", " 0", length=None) + BODY + b" ", **E),
        fold_before_length=dict(data=head("Content-Length:", " 9", length=None) + BODY, **EX),
        fold_first_line=dict(data=head(" X-A: 1") + BODY, **E),
    )
    add(
        "bare LF line ends; bare CR in a value",
        bare_lf=dict(data=b"HTTP/1.1 200 OK\nContent-Length: 9\n\n" + BODY, **EX),
        mixed_line_ends=dict(data=b"HTTP/1.1 200 OK\r\nX: 1\nContent-Length: 9\r\n\n" + BODY, **EX),
        bare_cr_in_value=dict(data=raw_head(b"X-A: 1\rContent-Length: 3") + BODY, **EX),
        bare_cr_in_name=dict(data=raw_head(b"X\r-A: 1") + BODY, **E),
        bare_cr_at_end_of_value=dict(data=raw_head(b"X-A: 1\r") + BODY, **EX),
    )
    add(
        "Content-Length twice, same / different; `42,42` / `42,30`",
        length_twice_same=dict(data=head("Content-Length: 9") + BODY, **EX),
        length_twice_different=dict(data=head("Content-Length: 3") + BODY, **E),
        length_list_same=dict(data=head("Content-Length: 9,9", length=None) + BODY, **EX),
        length_list_spaced=dict(data=head("Content-Length: 9, 9", length=None) + BODY, **EX),
        length_list_different=dict(data=head("Content-Length: 9,3", length=None) + BODY, **E),
    )
    bad_lengths = {
        "minus": "-5",
        "plus": "+5",
        "hex": "0x5",
        "underscore": "5_7",
        "point": "5.0",
        "empty": "",
        "digits_5000": "5" * 5000,
        "digits_5000_zeros": "0" * 4999 + "9",
        "superscript": "\xb2",
        "words": "nine",
        "two_numbers": "9 9",
        "exponent": "9e0",
    }
    add(
        "Content-Length `-5`, `+5`, `0x5`, `5_7`, `5.0`, empty, 5000 digits",
        **{
            f"length_{name}": dict(data=head(f"Content-Length: {text}", length=None) + BODY, **E)
            for name, text in bad_lengths.items()
        },
        length_huge=dict(data=head("Content-Length: 999999999999999", length=None) + BODY, **E),
        length_20_digits=dict(
            data=head("Content-Length: 99999999999999999999", length=None) + BODY, then="close", **E
        ),
    )
    add(
        "Transfer-Encoding and Content-Length together",
        both_framings=dict(
            data=head("Transfer-Encoding: chunked", length=3) + b'9\r\n{"ok": 1}\r\n0\r\n\r\n',
            reuse=False,
            **EX,
        ),
        both_framings_length_first=dict(
            data=head("Content-Length: 3", "Transfer-Encoding: chunked", length=None)
            + b'9\r\n{"ok": 1}\r\n0\r\n\r\n',
            reuse=False,
            **EX,
        ),
        unknown_coding_and_length=dict(data=head("Transfer-Encoding: gzip") + BODY, **E),
        coding_identity=dict(data=head("Transfer-Encoding: identity") + BODY, **E),
        coding_chunked_twice=dict(data=chunked(fields="Transfer-Encoding: chunked, chunked") + TEN, **E),
        coding_misspelt=dict(data=head("Transfer-Encoding: xchunked") + BODY, **E),
        coding_vertical_tab=dict(data=head("Transfer-Encoding: \x0bchunked") + BODY, **E),
    )
    bad_sizes = {
        "plus": "+9",
        "hex": "0x9",
        "underscore": "0_9",
        "minus": "-9",
        "space_before": " 9",
        "empty": "",
        "word": "nine",
        "digits_17": "1" + "0" * 16,
        "digits_21": "0" * 20 + "9",
        "digits_5000": "0" * 4999 + "9",
    }
    add(
        "chunk size with `+`, `0x`, `_`, sign, 17 hex digits; chunk extension of 8 MB",
        **{
            f"chunk_size_{name}": dict(
                data=chunked(f"{text}\r\n", '{"ok": 1}', "\r\n0\r\n\r\n"), then="close", **E
            )
            for name, text in bad_sizes.items()
        },
        chunk_extension_8mb=dict(
            data=lambda: chunked("9;x=" + "y" * 8_000_000 + "\r\n", '{"ok": 1}', "\r\n0\r\n\r\n"),
            big=True,
            **E,
        ),
        chunk_no_line_end=dict(data=chunked("9\r\n", '{"ok": 1}', "xx0\r\n\r\n"), then="close", **E),
        chunk_longer_than_said=dict(data=chunked("8\r\n", '{"ok": 1}', "\r\n0\r\n\r\n"), then="close", **E),
        trailers_8mb=dict(
            data=lambda: chunked("9\r\n", '{"ok": 1}', "\r\n0\r\n", "X: " + "y" * 8_000_000 + "\r\n\r\n"),
            big=True,
            **E,
        ),
    )
    add(
        "chunk extension, trailers, 1-byte chunks, upper-case codings",
        chunk_plain=dict(data=TEN, reuse=True, **X),
        chunk_extension=dict(
            data=chunked('9;a=b;c="d"\r\n', '{"ok": 1}', "\r\n0;last\r\n\r\n"), reuse=True, **X
        ),
        chunk_trailers=dict(
            data=chunked("9\r\n", '{"ok": 1}', "\r\n0\r\nX-Sum: 1\r\nX-B: 2\r\n\r\n"), reuse=True, **X
        ),
        chunk_one_byte=dict(
            data=chunked(*(f"1\r\n{letter}\r\n" for letter in '{"ok": 1}'), "0\r\n\r\n"), reuse=True, **X
        ),
        chunk_upper_case=dict(
            data=chunked("9\r\n", '{"ok": 1}', "\r\n0\r\n\r\n", fields="TRANSFER-ENCODING: CHUNKED"),
            reuse=True,
            **X,
        ),
        chunk_upper_case_size=dict(data=chunked("A\r\n", '{"ok":  1}', "\r\n0\r\n\r\n"), reuse=True, **X),
        chunk_leading_zeros=dict(data=chunked("0009\r\n", '{"ok": 1}', "\r\n0000\r\n\r\n"), **X),
    )
    whole = answer(BODY)
    add(
        "body cut short, though its start is complete JSON; chunked without the last chunk; head without its "
        "empty line",
        cut_body=dict(data=head(length=20) + BODY, then="close", **E),
        cut_body_reset=dict(data=head(length=20) + BODY, then="reset", **E),
        cut_body_to_nothing=dict(data=head(length=20), then="close", **E),
        cut_chunks=dict(data=chunked("9\r\n", '{"ok": 1}', "\r\n"), then="close", **E),
        cut_last_chunk=dict(data=chunked("9\r\n", '{"ok": 1}', "\r\n0\r\n"), then="close", **E),
        cut_chunk=dict(data=chunked("20\r\n", '{"ok": 1}'), then="close", **E),
        cut_chunks_to_nothing=dict(data=chunked(), then="close", **E),
        cut_head=dict(data=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", then="close", **E),
        cut_head_reset=dict(data=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", then="reset", **E),
        cut_status_line=dict(data=b"HTTP/1.1 200", then="close", **E),
        cut_first_letters=dict(data=b"HT", then="close", **E),
    )
    lost = {"errors": (IncompleteError,)}
    add(
        "close or reset before or amid an answer",
        close_before=dict(then="close", check=lambda error: error.may_be_processed, **lost),
        reset_before=dict(then="reset", check=lambda error: error.may_be_processed, **lost),
        close_before_post=dict(
            method="POST", then="close", check=lambda error: error.may_be_processed, **lost
        ),
        reset_before_post=dict(
            method="POST", then="reset", check=lambda error: error.may_be_processed, **lost
        ),
        close_amid_post=dict(method="POST", data=whole[:-3], then="close", **lost),
        reset_amid_post=dict(method="POST", data=whole[:-3], then="reset", **lost),
        close_amid_head_put=dict(method="PUT", data=whole[:9], then="close", **lost),
        close_after_interim=dict(data=b"HTTP/1.1 103 Early\r\n\r\n", then="close", **lost),
        close_delimited=dict(data=head(length=None) + BODY, then="close", reuse=False, **X),
        close_delimited_reset=dict(data=head(length=None) + BODY, then="reset", **lost),
        old_http=dict(data=b"HTTP/1.0 200 OK\r\n\r\n" + BODY, then="close", reuse=False, **X),
        old_http_keep_alive=dict(
            data=b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 9\r\n\r\n" + BODY, **X
        ),
        announced_close=dict(data=head("Connection: close") + BODY, reuse=False, **X),
        announced_close_among=dict(data=head("Connection: keep-alive, CLOSE") + BODY, reuse=False, **X),
        announced_close_twice=dict(
            data=head("Connection: keep-alive", "Connection: close") + BODY, reuse=False, **X
        ),
    )
    add(
        "1xx without end / 103 three times, then 200 / 101 unasked",
        interim_without_end={
            "after": (Repeat(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),),
            "errors": (ProtocolError,),
        },
        interim_in_one_flood={
            "data": lambda: b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000 + whole,
            "big": True,
            "errors": (ProtocolError,),
        },
        interim_drip={
            "after": (Repeat(b"HTTP/1.1 102 Processing\r\n\r\n", pause=0.2),),
            "silent": True,
            "errors": (ProtocolError, TimeoutExceeded),
        },
        interim_three=dict(
            data=b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 5\r\n\r\n" * 3 + whole,
            reuse=True,
            **X,
        ),
        interim_continue=dict(data=b"HTTP/1.1 100 Continue\r\n\r\n" + whole, reuse=True, **X),
        interim_then_chunked=dict(data=b"HTTP/1.1 100 Continue\r\n\r\n" + TEN, reuse=True, **X),
        switching={
            "data": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            "errors": (ProtocolError,),
        },
    )
    add(
        "8 MB header, 200,000 headers, 1 MB status line",
        header_8mb={
            "data": lambda: head("X: " + "y" * 8_000_000) + BODY,
            "big": True,
            "errors": (ProtocolError,),
        },
        header_name_8mb={
            "data": lambda: head("X" * 8_000_000 + ": y") + BODY,
            "big": True,
            "errors": (ProtocolError,),
        },
        headers_200000={
            "data": lambda: head(*(f"X-{n}: y" for n in range(200_000))) + BODY,
            "big": True,
            "errors": (ProtocolError,),
        },
        status_line_1mb={
            "data": lambda: head(status="HTTP/1.1 200 " + "O" * 1_000_000) + BODY,
            "big": True,
            "errors": (ProtocolError,),
        },
        header_8mb_after_interim={
            "data": lambda: b"HTTP/1.1 103 E\r\n\r\n" + head("X: " + "y" * 8_000_000) + BODY,
            "big": True,
            "errors": (ProtocolError,),
        },
        header_8mb_in_interim={
            "data": lambda: head("X: " + "y" * 8_000_000, status="HTTP/1.1 103 Early", length=None) + whole,
            "big": True,
            "errors": (ProtocolError,),
        },
        header_60kb=dict(data=lambda: head("X: " + "y" * 60_000) + BODY, big=True, reuse=True, **X),
        headers_4000=dict(
            data=lambda: head(*(f"X-{n}: y" for n in range(4_000))) + BODY, big=True, reuse=True, **X
        ),
        # Bounded in time as well: what is legal must not cost more than its length.
        header_60kb_of_spaces=dict(
            data=lambda: head("Content-Encoding: identity", "X: y" + " " * 60_000 + "y") + BODY,
            big=True,
            **EX,
        ),
        header_60kb_of_tabs_long_road=dict(
            data=lambda: head("X: y" + " \t" * 30_000 + "y", "Connection: a") + BODY, big=True, **EX
        ),
    )
    odd_bytes = {
        "nul_in_value": b"X-A: a\0b",
        "nul_in_name": b"X\0A: b",
        "eight_bit_in_value": b"X-A: caf\xe9",
        "utf8_in_value": "X-A: é😀".encode(),
        "eight_bit_in_name": b"X-\xe9: b",
        "space_in_name": b"X A: b",
        "space_before_colon": b"X-A : b",
        "control_in_value": b"X-A: a\x01b",
        "del_in_value": b"X-A: a\x7fb",
        "vertical_tab_in_value": b"X-A: a\x0bb",
        "nel_in_value": b"X-A: a\x85Content-Length: 3",
        "no_colon": b"X-A",
        "empty_name": b": x",
        "no_name_no_value": b":",
    }
    add(
        "NUL, 8-bit or space in a field name or value",
        **{name: dict(data=raw_head(line) + BODY, **EX) for name, line in odd_bytes.items()},
        space_before_length_colon=dict(data=head("Content-Length : 3") + BODY, **E),
    )
    bad_status = {
        "letters": "HTTP/1.1 abc OK",
        "two_digits": "HTTP/1.1 20 OK",
        "four_digits": "HTTP/1.1 2000 OK",
        "plus": "HTTP/1.1 +20 OK",
        "negative": "HTTP/1.1 -20 OK",
        "superscript": "HTTP/1.1 20\xb2 OK",
        "zero": "HTTP/1.1 000 OK",
        "below_100": "HTTP/1.1 099 OK",
        "missing": "HTTP/1.1",
        "two_spaces": "HTTP/1.1  200 OK",
        "no_version": "HTTP/ 200 OK",
        "long_version": "HTTP/1.11 200 OK",
        "lower_case": "http/1.1 200 OK",
        "icy": "ICY 200 OK",
        "leading_space": " HTTP/1.1 200 OK",
        "rtsp": "RTSP/1.0 200 OK",
    }
    banner = {"errors": (ProtocolError,)}
    add(
        "status `abc`, `20`, `2000`, `+20`; no status line; an SSH or TLS banner",
        **{
            f"status_{name}": dict(data=head(status=line) + BODY, then="close", **E)
            for name, line in bad_status.items()
        },
        no_status_line=dict(data=b"Content-Length: 9\r\n\r\n" + BODY, **banner),
        only_a_body=dict(data=BODY, **banner),
        ssh_banner=dict(data=b"SSH-2.0-OpenSSH_9.2\r\n", **banner),
        tls_alert=dict(data=b"\x15\x03\x01\x00\x02\x02\x46", **banner),
        http2_settings=dict(data=b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18), **banner),
        empty_lines_first=dict(data=b"\r\n\r\n" + whole, **EX),
        status_without_reason=dict(data=head(status="HTTP/1.1 200") + BODY, **X),
        status_with_empty_reason=dict(data=head(status="HTTP/1.1 200 ") + BODY, **X),
    )
    add(
        "charset that lies, is unknown, is no text codec; BOM; UTF-16",
        charset_lies={
            "data": with_type('{"name": "é"}'.encode(), "application/json; charset=latin-1"),
            "errors": (DecodeError,),
            "values": ({"name": "é"},),
        },
        charset_tells_latin1={
            "data": with_type('{"name": "é"}'.encode("latin-1"), "application/json; charset=latin-1"),
            "errors": (DecodeError,),
            "values": ({"name": "é"},),
        },
        charset_unknown=dict(data=with_type(BODY, "application/json; charset=klingon"), **EX),
        charset_no_text=dict(data=with_type(BODY, "application/json; charset=base64"), **EX),
        charset_nul=dict(data=with_type(BODY, 'application/json; charset="'), **EX),
        byte_order_mark=dict(data=answer(b"\xef\xbb\xbf" + BODY), **EX),
        two_byte_order_marks=dict(data=answer(b"\xef\xbb\xbf\xef\xbb\xbf" + BODY), **E),
        utf_16=dict(data=with_type('{"ok": 1}'.encode("utf-16"), "application/json; charset=utf-16"), **EX),
        utf_16_le=dict(data=answer('{"ok": 1}'.encode("utf-16-le")), **EX),
        utf_32=dict(data=answer('{"ok": 1}'.encode("utf-32")), **EX),
    )
    broken = (DecodeError,)
    add(
        "invalid or overlong UTF-8 in JSON",
        utf8_invalid={"data": answer(b'{"a": "\xff"}'), "errors": broken},
        utf8_overlong={"data": answer(b'{"a": "\xc0\xaf"}'), "errors": broken},
        utf8_cut={"data": answer(b'{"a": "\xe2\x82"}'), "errors": broken},
        utf8_surrogate={"data": answer(b'{"a": "\xed\xa0\x80"}'), "errors": broken},
        utf8_too_high={"data": answer(b'{"a": "\xf4\x90\x80\x80"}'), "errors": broken},
    )
    add(
        "NaN, Infinity; duplicate keys; nesting of 100,000; an integer of 5,000 digits",
        json_nan={"data": answer(b'{"a": NaN}'), "errors": broken},
        json_infinity={"data": answer(b'{"a": Infinity}'), "errors": broken},
        json_minus_infinity={"data": answer(b'{"a": -Infinity}'), "errors": broken},
        json_duplicate_keys={"data": answer(b'{"a": 1, "a": 2}'), "errors": broken, "values": ({"a": 2},)},
        json_nested_arrays={"data": lambda: answer(b"[" * 100_000), "errors": broken, "big": True},
        json_nested_closed={
            "data": lambda: answer(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
            "errors": broken,
            "big": True,
        },
        json_nested_objects={"data": lambda: answer(b'{"a":' * 100_000), "errors": broken, "big": True},
        json_integer_5000={"data": answer(b'{"a": ' + b"7" * 5000 + b"}"), "errors": broken},
        json_empty_text={"data": answer(b" "), "errors": broken},
        json_two_values={"data": answer(BODY + BODY), "errors": broken},
        json_cut={"data": answer(b'{"ok": '), "errors": broken},
        json_control_character={"data": answer(b'{"a": "\n"}'), "errors": broken},
        json_single_quotes={"data": answer(b"{'a': 1}"), "errors": broken},
        json_python={"data": answer(b'{"a": None}'), "errors": broken},
        json_nested_refusal={
            "data": lambda: answer(b"[" * 100_000, "500 Oops"),
            "errors": (InternalServerError,),
            "big": True,
        },
    )
    add(
        "an array, string, number or null at the top, where a dict is promised",
        **{
            f"top_{name}": {
                "data": answer(content),
                "errors": broken,
                "check": lambda error, value=value: _same(error.value, value),
            }
            for name, content, value in (
                ("array", b"[1]", [1]),
                ("string", b'"a"', "a"),
                ("number", b"1", 1),
                ("null", b"null", None),
                ("false", b"false", False),
                ("empty_array", b"[]", []),
            )
        },
    )
    bad_crc = bytes([*GZIPPED[:-8], GZIPPED[-8] ^ 1, *GZIPPED[-7:]])
    add(
        "300 MB gzip bomb; gzip cut, bad CRC, no trailer; two members; unknown coding; 60 codings",
        gzip_bomb={"data": lambda: coded(gzip_bomb(300)), "errors": broken, "big": True},
        gzip_bomb_of_members={"data": lambda: coded(gzip_bomb(10) * 30), "errors": broken, "big": True},
        gzip_bomb_refusal={
            "data": lambda: answer(gzip_bomb(300), "500 Oops", "Content-Encoding: gzip\r\n"),
            "errors": (InternalServerError,),
            "big": True,
        },
        gzip_plain=dict(data=coded(GZIPPED), reuse=True, **X),
        gzip_upper_case=dict(data=coded(GZIPPED, "GZIP"), **X),
        gzip_cut={"data": coded(GZIPPED[:-12]), "errors": broken},
        gzip_cut_head={"data": coded(GZIPPED[:5]), "errors": broken},
        gzip_no_trailer={"data": coded(GZIPPED[:-8]), "errors": broken},
        gzip_half_trailer={"data": coded(GZIPPED[:-4]), "errors": broken},
        gzip_bad_crc={"data": coded(bad_crc), "errors": broken},
        gzip_bad_size={"data": coded(GZIPPED[:-1] + b"\x01"), "errors": broken},
        gzip_two_members=dict(
            data=coded(gzip.compress(BODY[:4], mtime=0) + gzip.compress(BODY[4:], mtime=0)),
            errors=broken,
            **X,
        ),
        gzip_garbage_after={"data": coded(GZIPPED + b"garbage"), "errors": broken},
        gzip_not_at_all={"data": coded(BODY), "errors": broken},
        gzip_many_members={
            "data": lambda: coded(gzip.compress(b"", mtime=0) * 100_000),
            "errors": broken,
            "big": True,
        },
        deflate_zlib=dict(data=coded(zlib.compress(BODY), "deflate"), **X),
        deflate_raw=dict(data=coded(zlib.compress(BODY)[2:-4], "deflate"), errors=broken, **X),
        deflate_cut={"data": coded(zlib.compress(BODY)[:-3], "deflate"), "errors": broken},
        deflate_bomb={
            "data": lambda: coded(zlib.compress(bytes(100_000_000), 1), "deflate"),
            "errors": broken,
            "big": True,
        },
        coding_unknown={"data": coded(BODY, "br"), "errors": broken},
        coding_sixty={"data": coded(BODY, ", ".join(["gzip"] * 60)), "errors": broken},
        coding_sixty_lines={"data": head(*["Content-Encoding: gzip"] * 60) + BODY, "errors": broken},
        coding_identity_content=dict(data=coded(BODY, "identity"), **X),
    )
    apart = dict(reuse=False, **X)
    add(
        "bytes after the answer; a second answer, at once or 50 ms later; a body on 204 or 304",
        bytes_after=dict(data=whole + b"x", **apart),
        line_end_after=dict(data=whole + b"\r\n", **apart),
        answer_after=dict(data=whole + answer({"evil": 1}), **apart),
        answer_after_part=dict(data=whole + answer({"evil": 1})[:-3], **apart),
        answer_after_chunked=dict(data=TEN + answer({"evil": 1}), **apart),
        answer_after_gzip=dict(data=coded(GZIPPED) + answer({"evil": 1}), **apart),
        answer_after_empty={"data": answer(b"") + answer({"evil": 1}), "values": ({},), "reuse": False},
        body_on_204={
            "data": head(status="HTTP/1.1 204 No Content") + BODY,
            "values": ({},),
            "errors": broken,
            "reuse": False,
        },
        chunks_on_204={
            "data": b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n"
            + BODY
            + b"\r\n0\r\n\r\n",
            "values": ({},),
            "errors": NONSENSE,
            "reuse": False,
        },
        body_on_304={
            "data": head(status="HTTP/1.1 304 Not Modified") + BODY,
            "errors": (RedirectError,),
            "reuse": False,
        },
        length_on_304={
            "data": head(status="HTTP/1.1 304 Not Modified"),
            "errors": (RedirectError,),
            "reuse": True,
        },
        empty_204={"data": b"HTTP/1.1 204 No Content\r\n\r\n", "values": ({},), "reuse": True},
        body_on_head={"method": "HEAD", "data": whole, "values": (b"",), "reuse": False},
        head_of_head={"method": "HEAD", "data": head(), "values": (b"",), "reuse": True},
        chunked_head_of_head={"method": "HEAD", "data": chunked(), "values": (b"",), "reuse": True},
    )
    told = "X-Acs-Request-Id: id-1\r\n"

    def status_and_id(status: int) -> Callable[[Any], bool]:
        return lambda error: error.status_code == status and error.request_id == "id-1"

    add(
        "401 or 500 with an empty body; HTML 200; HTML 502; redirect with no body",
        empty_401={
            "data": answer(b"", "401 No", told),
            "errors": (AuthenticationError,),
            "check": status_and_id(401),
            "reuse": True,
        },
        empty_500={
            "data": answer(b"", "500 No", told),
            "errors": (InternalServerError,),
            "check": status_and_id(500),
        },
        close_delimited_500={
            "data": b"HTTP/1.1 500 No\r\nX-Acs-Request-Id: id-1\r\n\r\n",
            "then": "close",
            "errors": (InternalServerError,),
            "check": status_and_id(500),
        },
        html_200={
            "data": answer(b"<html>hello", fields=told + "Content-Type: text/html\r\n"),
            "errors": broken,
            "check": lambda error: status_and_id(200)(error) and error.response_body == "<html>hello",
        },
        html_502={
            "data": answer(b"<html>bad", "502 Bad Gateway", told + "Content-Type: text/html\r\n"),
            "errors": (BadGatewayError,),
            "check": lambda error: status_and_id(502)(error) and error.response_body == "<html>bad",
        },
        latin1_502={
            "data": answer(b"<html>\xe9", "502 Bad Gateway", told),
            "errors": (BadGatewayError,),
            "check": status_and_id(502),
        },
        empty_redirect={
            "data": answer(b"", "300 Multiple Choices", told + "Location: /other\r\n"),
            "errors": (RedirectError,),
            "check": lambda error: status_and_id(300)(error) and error.location == "/other",
        },
        redirect_without_location={
            "data": answer(b"", "301 Moved", told),
            "errors": (RedirectError,),
            "check": status_and_id(301),
        },
        redirect_to_file={
            "data": answer(b"", "302 Found", told + "Location: file:///etc/passwd\r\n"),
            "errors": (RedirectError,),
            "check": status_and_id(302),
        },
        envelope_403={
            "data": answer({"code": "ERR_FORBIDDEN", "requestId": "id-1", "message": "no"}, "403 Forbidden"),
            "errors": (AgentRunClientError,),
            "check": lambda error: status_and_id(403)(error) and error.error_code == "ERR_FORBIDDEN",
        },
        gzip_refusal_damaged={
            "data": answer(GZIPPED[:-9], "500 No", told + "Content-Encoding: gzip\r\n"),
            "errors": (InternalServerError,),
            "check": status_and_id(500),
        },
        refusal_too_large={
            "data": lambda: (
                head("X-Acs-Request-Id: id-1", status="HTTP/1.1 500 No", length=10**12) + b"x" * 100
            ),
            "errors": (AgentRunClientError,),
            "check": status_and_id(500),
        },
        unassigned_status={
            "data": answer(b"", "799 What", told),
            "errors": (AgentRunClientError,),
            "check": status_and_id(799),
        },
    )
    timeout = (TimeoutExceeded,)
    add(
        "silence or a drip, in head, chunks or body; an endless body",
        silence_at_once={"after": (Stall(),), "errors": timeout, "silent": True},
        silence_in_head={"data": whole[:20], "after": (Stall(),), "errors": timeout, "silent": True},
        silence_in_body={"data": whole[:-3], "after": (Stall(),), "errors": timeout, "silent": True},
        silence_in_chunks={"data": TEN[:-9], "after": (Stall(),), "errors": timeout, "silent": True},
        silence_before_close={
            "data": head(length=None) + BODY,
            "after": (Stall(),),
            "errors": timeout,
            "silent": True,
        },
        drip_in_head={
            "data": b"HTTP/1.1 200 OK\r\nX: ",
            "after": (Repeat(b"y", pause=0.05),),
            "errors": timeout,
            "silent": True,
        },
        drip_in_body={
            "data": head(length=10**6),
            "after": (Repeat(b"y", pause=0.05),),
            "errors": timeout,
            "silent": True,
        },
        drip_in_chunks={
            "data": chunked(),
            "after": (Repeat(b"1\r\ny\r\n", pause=0.05),),
            "errors": timeout,
            "silent": True,
        },
        drip_in_chunk_size={
            "data": chunked(),
            "after": (Repeat(b"0", pause=0.05),),
            "errors": (*timeout, *NONSENSE),
            "silent": True,
        },
        drip_until_close={
            "data": head(length=None),
            "after": (Repeat(b"y", pause=0.05),),
            "errors": timeout,
            "silent": True,
        },
        endless_body={
            "data": head(length=None),
            "after": (Repeat(b"y" * 65536, pause=0.001),),
            "errors": (*timeout, DecodeError),
            "silent": True,
        },
        endless_chunks={
            "data": chunked(),
            "after": (Repeat(b"10000\r\n" + b"y" * 65536 + b"\r\n", pause=0.001),),
            "errors": (*timeout, DecodeError),
            "silent": True,
        },
    )
    add(
        "Retry-After of a day, `-1e400`, or junk; a junk Date",
        **{
            f"retry_after_{name}": {
                "data": answer(b"", "503 Busy", f"Retry-After: {value}\r\n{more}"),
                "errors": (ServiceUnavailableError,),
                "check": lambda error, seconds=seconds: error.retry_after == seconds,
            }
            for name, value, more, seconds in (
                ("day", "86400", "", 86400.0),
                ("minus_overflow", "-1e400", "", None),
                ("overflow", "1e400", "", None),
                ("junk", "soon", "", None),
                ("digits_5000", "9" * 5000, "", None),
                ("digits_15", "9" * 15, "", 366 * 86400.0),
                ("nan", "nan", "", None),
                ("empty", "", "", None),
                ("superscript", "\xb2", "", None),
                (
                    "date",
                    "Sun, 06 Nov 1994 08:50:37 GMT",
                    "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
                    60.0,
                ),
                (
                    "date_past",
                    "Sun, 06 Nov 1994 08:48:37 GMT",
                    "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
                    0.0,
                ),
                ("date_alone", "Sun, 06 Nov 1994 08:50:37 GMT", "", None),
                (
                    "date_junk",
                    "Sun, 06 Nov 1994 08:50:37 GMT",
                    "Date: Foo, 99 Bar 0000 99:99:99 GMT\r\n",
                    None,
                ),
                ("date_impossible", "Sun, 31 Feb 0000 25:61:61 GMT", "Date: junk\r\n", None),
            )
        },
        junk_date=dict(data=head("Date: yesterday\r\nDate: tomorrow") + BODY, **X),
        retry_after_429={
            "data": answer(b"", "429 Slow", "Retry-After: 1\r\n"),
            "errors": (TooManyRequestsError,),
            "check": lambda error: error.retry_after == 1.0 and not error.may_be_processed,
        },
    )
    return rows


def cases(rows: Iterable[Row]) -> list[Any]:
    """Rows as parameters of a test, each marked with the line that it stands for."""
    return [pytest.param(row, id=row.id, marks=pytest.mark.hostile(LINES[row.quote])) for row in rows]


ROWS = _rows()
assert len({row.id for row in ROWS}) == len(ROWS)
