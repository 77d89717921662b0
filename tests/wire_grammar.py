"""A grammar of HTTP/1.1 answers as data, and the damage that is done to them.

Rules of this file: nothing here calls the code under test; every choice is one call of a `random.Random`, so
that a seed draws the inputs as well as Hypothesis does (`st.randoms(use_true_random=False)`); a value that
stands in a table more than once is drawn more often.
"""

from __future__ import annotations

from random import Random

METHODS = ("GET", "POST", "GET", "HEAD")
VERSIONS = ("1.1",) * 30 + ("1.0", "1.0", "2.0", "1.2", "0.9", "1", "11.1")
STATUSES = (200,) * 8 + (201, 204, 205, 206, 301, 304, 400, 404, 500, 503, 599, 600, 999, 199, 101)
REASONS = ("OK", "", "Not Found", "caf\xe9", "a\tb", " ", "x" * 40)
AFTER_STATUS = (" ",) * 30 + ("", "  ", "\t")

NAMES = ("X-A", "Date", "content-type", "Server") * 6 + (
    "X-A", "content-type", "Content-Encoding", "Connection", "Keep-Alive", "Proxy-Connection",
    "X-Content-Length", "Date", "Set-Cookie", "Trailer", "Upgrade", "Transfer-Encoding", "Content-Length",
    "!#$%&'*+-.^_`|~",
)  # fmt: skip
VALUES = ("", "1", "a b", "text/plain; charset=utf-8") * 6 + (
    "", "1", "close", "keep-alive", "Keep-Alive, x", "a, close", "Close", "chunked", "content-length: 5",
    "connection: close", "transfer-encoding:chunked", "identity", "gzip", "gzip, chunked", "caf\xe9", "\x01",
    "a\tb  c", "h2c", '"a, b"', "a: b: c", "=?utf-8?q?x?=", "x" * 40,
)  # fmt: skip
LINES = (
    "Connection: connection: close", "Connection: x-close", "Proxy-Connection: close", "Trailer: X-T",
    "Connection: keep-alive", "Connection: close", "X:y", "Content-Type: application/json",
)  # fmt: skip
SPACES = ("", " ", " ", " ", "  ", "\t", " \t ")
FOLDS = ("",) * 30 + ("\r\n ", "\r\n\t x")

FRAMINGS = ("length",) * 6 + ("chunked", "chunked", "close", "both", "wrong", "list", "twice")
LENGTH_NAMES = ("Content-Length", "content-length", "CONTENT-LENGTH")
WRONG_LENGTHS = ("-1", "+1", "1_0", "", "0x1", "1.0", "1e0", "1, 2", "1 1", "\xb2", "9" * 21, "9" * 15)
CODED = ("Transfer-Encoding: chunked", "transfer-encoding:CHUNKED", "Transfer-Encoding: \tchunked ")

SIZES = ("%x", "%x", "%X", "%03x", "%020x")
EXTENSIONS = ("",) * 4 + (";a=b", ";a", " ", ' ;q="x"', ";;", "\t")
TRAILERS = ("",) * 3 + ("X-T: 1\r\n", "A: b\r\nC: d\r\n", "Content-Length: 3\r\n", "X-T: 1\r\n 2\r\n")
BODIES = (b"", b"x", b'{"ok": 1}', b"0\r\n\r\n", b"\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"\x00\xff" * 20)

INTERIMS = (b"",) * 12 + (
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\nLink: </a>\r\n\r\n",
    b"HTTP/1.1 102 P\r\nContent-Length: 3\r\n\r\n",
    b"HTTP/1.1 102 P\r\nContent-Length: 19\r\n\r\nHTTP/1.1 103 Early\r\n\r\n",
    b"HTTP/1.1 100 C\r\n\r\n" * 16,
    b"HTTP/1.1 100 C\r\n\r\n" * 17,
)
EXTRAS = (b"",) * 5 + (b"x", b"\r\n", b"\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

JUNK = (
    b"\r", b"\n", b"\0", b" ", b"\t", b":", b",", b"\xff", b"0", b"9", b"\r\n", b"\n\n", b"\r\n\r\n", b"x",
    b"-", b";", b"\x0b", b"+", b"_", b"\r\r\n", b"\r\n ", b"Content-Length: 1\r\n", b"Connection: close\r\n",
    b"Transfer-Encoding: chunked\r\n",
)  # fmt: skip
DAMAGES = ("insert", "delete", "replace", "cut", "double", "swap", "length", "repeat", "bare")


def _chunked(random: Random) -> str:
    out = ""
    for _ in range(random.randrange(4)):
        piece = random.choice(BODIES).decode("latin-1")
        if piece:
            out += random.choice(SIZES) % len(piece) + random.choice(EXTENSIONS) + f"\r\n{piece}\r\n"
    return f"{out}0{random.choice(EXTENSIONS)}\r\n{random.choice(TRAILERS)}\r\n"


def _field(random: Random) -> str:
    if not random.randrange(8):
        return random.choice(LINES)
    name, value = random.choice(NAMES), random.choice(VALUES)
    return f"{name}:{random.choice(SPACES)}{value}{random.choice(FOLDS)}{random.choice(SPACES)}"


def _framed(random: Random, fields: list[str]) -> str:
    """A body; the fields that frame it are added, most often so that they agree."""
    framing = random.choice(FRAMINGS)
    content = random.choice(BODIES).decode("latin-1")
    if framing in ("chunked", "both"):
        content = _chunked(random)
        fields.insert(random.randrange(len(fields) + 1), random.choice(CODED))
    if framing not in ("chunked", "close"):
        length = str(len(content))
        if framing == "wrong":
            length = random.choice(WRONG_LENGTHS)
        elif framing == "list":
            length = f"{length},{random.choice(SPACES)}{length}"
        line = f"{random.choice(LENGTH_NAMES)}:{random.choice(SPACES)}{length}{random.choice(SPACES)}"
        for _ in range(1 + (framing == "twice")):
            fields.insert(random.randrange(len(fields) + 1), line)
    return content


def answer(random: Random) -> bytes:
    """One final answer, most often well-formed."""
    fields = [_field(random) for _ in range(random.randrange(4))]
    content = _framed(random, fields)
    status = random.choice((random.choice(STATUSES),) * 7 + (random.randrange(100, 1000),))
    start = f"HTTP/{random.choice(VERSIONS)} {status}{random.choice(AFTER_STATUS)}{random.choice(REASONS)}"
    return ("\r\n".join([start, *fields, "", ""]) + content).encode("latin-1")


def well_formed(random: Random) -> bytes:
    """What a peer says to one request: interim answers, the final one, and what should not follow it."""
    return random.choice(INTERIMS) + answer(random) + random.choice(EXTRAS)


def damaged(random: Random) -> bytes:
    """The same, and one to three things have happened to it."""
    data = bytearray(well_formed(random))
    for _ in range(random.randrange(1, 4)):
        _damage(random, data)
    return bytes(data)


def _damage(random: Random, data: bytearray) -> None:
    kind = random.choice(DAMAGES)
    at = random.randrange(len(data) + 1)
    if kind == "insert":
        data[at:at] = random.choice(JUNK)
    elif kind == "delete":
        del data[at : at + random.randrange(1, 4)]
    elif kind == "replace":
        data[at : at + 1] = random.choice(JUNK)
    elif kind == "cut":
        del data[at:]
    elif kind == "double":
        data[at:at] = data[at : at + random.randrange(1, 30)]
    elif kind == "length":
        at = max(0, data.lower().find(b"length:"))
        data[at + 7 : at + 8] = b"%d" % random.randrange(30)
    else:
        # By the lines: two change places, one comes again, one loses its CR or its LF.
        lines = bytes(data).split(b"\r\n")
        at, other = random.randrange(len(lines)), random.randrange(len(lines))
        ends = [b"\r\n"] * len(lines)
        if kind == "swap":
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == "repeat":
            lines[at] += b"\r\n" + lines[at]
        else:
            ends[at] = random.choice((b"\n", b"\r", b"\n\r", b""))
        ends[-1] = b""
        data[:] = b"".join([line + end for line, end in zip(lines, ends, strict=True)])


def sent(random: Random) -> bytes:
    """Well-formed or damaged."""
    return well_formed(random) if random.randrange(2) else damaged(random)
