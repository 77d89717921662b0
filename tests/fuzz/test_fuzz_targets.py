"""The fuzz targets without a fuzzer: every first input, and what Hypothesis and a seed make of them.

That the nets hold is shown by faults put into the code on purpose: each is found by the same inputs.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import agentrun_proto.config
import agentrun_proto.decoding
import agentrun_proto.events
import agentrun_proto.multipart
import agentrun_proto.recovery
import agentrun_proto.transfers
import agentrun_proto.urls
import agentrun_transports._wire
from agentrun_proto import Config, DataEndpoint
from agentrun_transports._wire import Wire
from fuzz import NAMES, first_inputs, load
from fuzz.inputs import cut, groups, pairs, records
from fuzz.mutation import LARGEST, Crash, mutated, run

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent.parent
FEW = settings(deadline=None, max_examples=60, database=None, suppress_health_check=list(HealthCheck))


@cache
def inputs(name: str) -> list[bytes]:
    return first_inputs(load(name))


@pytest.mark.parametrize("name", NAMES)
def test_the_corpus(name):
    check = load(name).check
    assert len(inputs(name)) >= 15
    assert all(len(data) <= LARGEST for data in inputs(name)), "atheris would cut it"
    for data in inputs(name):
        check(data)


@pytest.mark.parametrize("name", NAMES)
@FEW
@given(data=st.data())
def test_what_is_drawn(name, data):
    load(name).check(data.draw(st.binary(max_size=200)))
    drawn = data.draw(st.randoms(use_true_random=False))
    load(name).check(mutated(drawn, inputs(name)))


@pytest.mark.once
@pytest.mark.parametrize("name", NAMES)
def test_what_a_seed_makes_of_it(name):
    check = load(name).check
    for number in range(300):
        check(mutated(random.Random(number), inputs(name)))


@pytest.mark.parametrize("name", NAMES)
def test_the_invariant_stands_at_the_top_in_one_sentence(name):
    said = " ".join((load(name).__doc__ or "").split("\n\n")[0].split())
    assert re.fullmatch(r"[A-Z][^.]+\.", said), said


# --- the nets hold


def deaf_to_close(folded, name, value=agentrun_transports._wire._value):
    return "keep-alive" if "connection" in name else value(folded, name)


NOTHING = re.compile("$^")
# A target, and a fault in what it looks at: where, and what stands there instead.
FAULTS: tuple[tuple[str, Any, str, Any], ...] = (
    ("config", Config, "__repr__", lambda self: f"Config({self.data_endpoint})"),
    ("config", agentrun_proto.config, "_BELONGING", {}),
    ("decoding", agentrun_proto.decoding, "parse_json", json.loads),
    ("decoding", agentrun_proto.decoding, "_MAX_WAIT", float("inf")),
    ("events", agentrun_proto.events, "_BOM", b"\xef\xbb"),
    ("events", agentrun_proto.events._LineBuffer, "lines", lambda self, data: data.split(b"\n")[:-1]),
    ("multipart", agentrun_proto.multipart, "_ESCAPES", {ord('"'): "%22", ord("\r"): "%0D"}),
    ("recovery", agentrun_proto.recovery, "LONGEST_PAUSE", 1e9),
    ("recovery", DataEndpoint, "trusts", lambda self, origin: True),
    ("recovery", agentrun_proto.transfers, "_CONTENT_RANGE", re.compile("bytes ([0-9]+).*/()()(.*)")),
    ("urls", agentrun_proto.urls, "_DOT_SEGMENT", NOTHING),
    ("urls", agentrun_proto.urls, "_STRAY_PERCENT", NOTHING),
    ("wire", Wire, "reusable", property(lambda self: self._done and self._keep_alive)),
    ("wire", agentrun_transports._wire, "_value", deaf_to_close),
)


def test_each_target_has_a_fault_to_find():
    assert {name for name, *_ in FAULTS} == set(NAMES)


@pytest.mark.parametrize(("name", "place", "attribute", "fault"), FAULTS)
def test_a_fault_is_found(name, place, attribute, fault, monkeypatch):
    target = load(name)
    monkeypatch.setattr(place, attribute, fault)
    with pytest.raises(Crash) as caught:
        run(
            target.check,
            [*inputs(name), *(mutated(random.Random(n), inputs(name)) for n in range(500))],
            1,
            0,
        )
    assert caught.value.__cause__ is not None


# --- the tools


def _breaks_on_a_nine(data: bytes) -> None:
    if b"9" in data:
        raise ValueError("nine")


def test_a_crash_tells_input_and_seed_and_is_made_again():
    crashes = []
    for _ in range(2):
        with pytest.raises(Crash, match="of seed 7: b'") as caught:
            run(_breaks_on_a_nine, [b"abc", b"012"], 7, 60)
        crashes.append(caught.value)
    assert b"9" in crashes[0].data
    assert str(crashes[0]) == str(crashes[1])
    assert isinstance(crashes[0].__cause__, ValueError)


def test_every_first_input_is_fed_however_short_the_time():
    assert run(lambda data: None, [b"a", b"b", b"c"], 1, 0) == 3


@FEW
@given(st.binary(max_size=60), st.integers(0, 255))
def test_how_inputs_are_divided(data, seed):
    assert b"".join(cut(data, seed)) == data
    assert len(groups(data, 3)) == 3
    for group in groups(data, 3):
        assert all(records(group))
        assert len(pairs(group)) == len(records(group)) <= 8
    assert len(mutated(random.Random(seed), [data])) <= LARGEST


@pytest.mark.once
@pytest.mark.parametrize("arguments", [["multipart", "--seconds", "0.1", "--seed", "1"], ["nonsense"]])
def test_the_command(arguments):
    command = [sys.executable, "-W", "error", "-m", "tests.fuzz", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    if arguments == ["nonsense"]:
        assert (done.returncode, "no such target: nonsense" in done.stderr) == (2, True)
    else:
        assert re.fullmatch(r"multipart: [\d,]+ executions in 0.1 s \(\w+, seed 1\)\n", done.stdout), done
        assert done.returncode == 0
