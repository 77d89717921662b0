"""What the tests of the core share: strategies, a clock, a hand-driven flow, a signature check of its own.

Rules of this file: nothing here calls the code under test to say what is right. `received_signature` works as
a server does, from the field lines and the target that would go over the wire.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

DATA = Path(__file__).parent / "data"
NOON = 1772798400.0  # 2026-03-06T12:00:00Z, the time of the published snapshots

# Two busy cores must not make a property fail, and no database is written into the checkout.
PROPERTY = settings(
    deadline=None, max_examples=80, database=None, suppress_health_check=[HealthCheck.too_slow]
)
FEWER = settings(PROPERTY, max_examples=30)


def load(name: str) -> Any:
    """A file of tests/data, decoded."""
    return json.loads((DATA / name).read_text(encoding="utf-8"))


# --- strategies

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
awkward_text = st.one_of(any_text, st.text("aZ09-._~ +%&=;#?/\\\"'<>[]{}|^`@:!$*(),\t\x7fé中😀", max_size=12))
wire_text = st.text("aZ09-._~!$'()*,;:@/?+", max_size=8)
# Queries as callers write them: anything but what is refused (a fragment, line breaks, NUL).
loose_queries = st.lists(
    st.one_of(
        st.text("ab=&+;%4120zFf é中?/:@\\\"'[]|", max_size=10),
        st.tuples(st.sampled_from("ab"), awkward_text.map(lambda text: quote(text, safe=""))).map("=".join),
    ),
    max_size=6,
).map("&".join)
# Queries that are in the wire form already, and whose percent triplets are UTF-8.
_wire_part = st.one_of(wire_text, awkward_text.map(lambda text: quote(text, safe="")))
wire_queries = st.lists(
    st.tuples(
        st.one_of(st.sampled_from(["a", "b", "%61", "é"]).map(lambda n: quote(n, safe="%")), _wire_part),
        _wire_part,
    )
    .map("=".join)
    .map(lambda pair: pair.replace("&", "")),
    max_size=6,
).map("&".join)
query_scalars = st.one_of(
    awkward_text,
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
)
query_values = st.one_of(st.none(), query_scalars, st.lists(query_scalars, max_size=3))
queries = st.dictionaries(st.one_of(st.sampled_from(["a", "b", "é"]), awkward_text), query_values, max_size=4)
header_values = st.text('aZ09 \t"\\;,=é\xff!~', max_size=12).map(lambda text: text.strip(" \t"))


def scalar_text(value: Any) -> str:
    """How HOSTILE's row on query values has a scalar sent."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)


def value_texts(value: Any) -> list[str]:
    """All texts that a query value stands for."""
    return [scalar_text(item) for item in (value if isinstance(value, (list, tuple)) else [value])]


def form_dict(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Pairs as the multi-dict that every form parser makes of them."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def read_form(query: str) -> list[tuple[str, str]]:
    """A query, read by the standard library."""
    return parse_qsl(query, keep_blank_values=True)


# --- time, sources, sinks, flows


class FakeClock:
    """A clock that stands still unless it is told; wall and monotonic time are unrelated."""

    def __init__(self, wall: float = NOON, monotonic: float = 1000.0) -> None:
        self.wall = wall
        self.mono = monotonic

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.mono


class FakeSource:
    """A source that only tells its length: the core has no business reading it."""

    def __init__(self, length: int | None = 5, *, replayable: bool = True) -> None:
        self.length = length
        self.replayable = replayable
        self.closed = 0

    def read(self, size: int, /) -> bytes:
        raise AssertionError("the core read a source")

    def rewind(self) -> None:
        raise AssertionError("the core rewound a source")

    def close(self) -> None:
        self.closed += 1


class FakeSink:
    """A sink that counts."""

    size: int = 0
    validator: str | None = None

    def __init__(self) -> None:
        self.discarded = 0

    def discard(self) -> None:
        self.discarded += 1


class ByHand:
    """A flow, one step at a time: `command` is what it asks now, `result` what it returned in the end."""

    def __init__(self, flow: Any) -> None:
        self.flow = flow
        self.command: Any = None
        self.result: Any = None
        self.done = False
        self._step(lambda: flow.send(None))

    def _step(self, step: Any) -> None:
        self.command = None
        try:
            self.command = step()
        except StopIteration as stop:
            self.done, self.result = True, stop.value

    def answer(self, value: Any) -> ByHand:
        self._step(lambda: self.flow.send(value))
        return self

    def fail(self, error: BaseException) -> ByHand:
        self._step(lambda: self.flow.throw(error))
        return self

    def close(self) -> None:
        self.flow.close()


# --- the other side of a signature


def received_signature(
    *, method: str, target: str, lines: Iterable[tuple[str, str]], secret: str
) -> tuple[str, str, list[str]]:
    """The signature a server computes from what it received, the one it was sent, and the names signed.

    Field values are the bytes of the wire (Latin-1, as every HTTP/1.1 stack sends a str).
    """
    received = {name.lower().encode("ascii"): value.encode("latin-1").strip(b" \t") for name, value in lines}
    scheme, _, rest = received[b"agentrun-authorization"].decode().partition(" ")
    assert scheme == "AGENTRUN4-HMAC-SHA256"
    parts = dict(part.split("=", 1) for part in rest.split(","))
    scope = parts["Credential"].split("/")[1:]
    names = parts["SignedHeaders"].split(";")
    path, _, query = target.encode("ascii").partition(b"?")
    last = dict(read_form(query.decode("ascii")))
    canonical_query = "&".join(f"{quote(k, safe='')}={quote(last[k], safe='')}" for k in sorted(last))
    canonical = b"\n".join(
        [
            method.encode(),
            path,
            canonical_query.encode(),
            b"".join(name.encode() + b":" + received[name.encode()] + b"\n" for name in names),
            parts["SignedHeaders"].encode(),
            b"UNSIGNED-PAYLOAD",
        ]
    )
    key = b"aliyun_v4" + secret.encode()
    for part in scope:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    to_sign = b"AGENTRUN4-HMAC-SHA256\n" + hashlib.sha256(canonical).hexdigest().encode()
    return hmac.new(key, to_sign, hashlib.sha256).hexdigest(), parts["Signature"], names
