"""The conformance suite on every driver there is: ours, and the two that are examples."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from agentrun_proto import Head
from agentrun_transports.testing import TurnedClock, conformance
from agentrun_transports.testing.conformance import (
    BY_NAME,
    CASES,
    Cancelling,
    Case,
    Concurrent,
    Driver,
    NotApplicable,
    check,
)
from conformance_drivers import DRIVERS

pytestmark = pytest.mark.once

# What an example does not do, and says so itself.
KNOWN = {
    ("httpx", "left_over"): "httpx hands a connection on without looking at left-over bytes",
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("driver", sorted(DRIVERS))
def test_conformance(driver, case):
    known = KNOWN.get((driver, case.name))
    try:
        check(case, DRIVERS[driver])
    except NotApplicable as reason:
        pytest.skip(str(reason))
    except AssertionError:
        if known is None:
            raise
        pytest.xfail(known)
    assert known is None, f"{driver} does {case.name} after all; take the row out of KNOWN"


def test_a_queue_that_is_filled_as_linux_does_it(monkeypatch):
    monkeypatch.setattr(conformance, "sys", SimpleNamespace(platform="darwin"))
    with pytest.raises(NotApplicable, match="as Linux does it"):
        check(BY_NAME["connect_timeout"], DRIVERS["blocking"])


def test_case_names_are_unique():
    assert len(BY_NAME) == len(CASES)


def test_nothing_of_it_needs_a_test_framework():
    import agentrun_transports.testing.conformance as module

    for path in Path(module.__file__).parent.glob("*.py"):
        assert "import pytest" not in path.read_text()


# --- the suite is a net: a driver that does the wrong thing is caught


class Wrong:
    """A driver that answers by itself: with a status and a content, whatever it is asked."""

    open = None

    def __init__(self, status=200, content=b"{}"):
        self._answers = {"Send": Head(status=status), "ReadAll": content}

    def run(self, operation):
        flow = operation(TurnedClock())
        command = flow.send(None)
        try:
            while True:
                command = flow.send(self._answers.get(type(command).__name__))
        except StopIteration as stop:
            return stop.value

    def close(self):
        pass


@pytest.mark.parametrize("name", ["refusal", "html", "cut_short", "read_timeout", "stale_post", "keep_alive"])
def test_a_driver_that_makes_answers_up_is_caught(name):
    with pytest.raises(AssertionError):
        check(BY_NAME[name], lambda limits: Wrong())


def test_a_transcript_that_differs_is_told():
    def play(stage):
        _, endpoint = stage.script()
        stage.run(lambda clock: endpoint.call(endpoint.request("GET", "a"), clock=clock))

    with pytest.raises(AssertionError, match="transcript of once"):
        check(Case(name="once", play=play, transcript=("Send GET /elsewhere 0",)), DRIVERS["blocking"])


def test_a_driver_that_leaks_is_caught():
    class Leaking(DRIVERS["blocking"]):
        @property
        def open(self):
            return super().open + 1

    with pytest.raises(AssertionError, match="open"):
        check(BY_NAME["cut_short"], Leaking)


def test_what_a_driver_can_do_is_found_out():
    blocking = DRIVERS["blocking"](BY_NAME["success"].limits)
    assert isinstance(blocking, Driver)
    assert isinstance(blocking, Concurrent)
    assert not isinstance(blocking, Cancelling)
    blocking.close()
    with pytest.raises(NotApplicable):
        check(BY_NAME["cancelled"], DRIVERS["blocking"])
