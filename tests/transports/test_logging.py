"""Log records under ``agentrun``: on every driver, silent until asked for, free where nobody asks.

Rules of this file: nothing of what is logged is taken from the code that logs it; levels are written out.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import fields
from functools import partial

import pytest

import agentrun_proto
from agentrun_proto import (
    AccessKey,
    Config,
    CredentialError,
    Event,
    RequestSent,
    Retry,
    RetryScheduled,
    Secret,
    ServiceUnavailableError,
)
from agentrun_proto.telemetry import Observer
from agentrun_transports import DataAPI, ResourceType
from agentrun_transports._logging import log
from agentrun_transports.testing import ScriptedServer
from agentrun_transports.testing.scripted import answer
from drivers_support import run

LEVELS = {
    "RequestSent": logging.DEBUG,
    "HeadReceived": logging.DEBUG,
    "RequestEnded": logging.DEBUG,
    "ConnectionOpened": logging.DEBUG,
    "ConnectionReused": logging.DEBUG,
    "RetryScheduled": logging.INFO,
    "Redirected": logging.INFO,
    "CredentialsRefreshed": logging.INFO,
    "CredentialsRefreshFailed": logging.WARNING,
    "ClockAdjusted": logging.WARNING,
}
KINDS = {kind.__name__: kind for kind in Event.__subclasses__()}
VALUES = {"int": 7, "str": "text", "float": 1.5, "bool": True, "str | None": "text", "float | None": 1.5}
BUSY = answer({}, "503 Busy")

clients = pytest.mark.parametrize(
    ("loop", "transport"),
    [(loop, transport) for loop in ("blocking", "asyncio", "trio") for transport in ("native", "httpcore")],
)


def ask(loop, transport, server, path="r", count=1, **settings):
    """So many GETs on one client of that kind, one after another."""
    credentials = settings.pop("credentials", None)
    listener = settings.pop("listener", None)
    config = Config(data_endpoint=server.url, **settings)
    make = partial(
        DataAPI,
        "name",
        ResourceType.Runtime,
        config,
        credentials=credentials,
        listener=listener,
        transport=transport,
    )
    if loop == "blocking":
        with make() as api:
            for _ in range(count):
                api.get(path)
        return

    async def main():
        api = make()
        for _ in range(count):
            await api.get_async(path)

    run(loop, main)


def made(kind):
    """An event of that kind, with a value for each of its fields."""
    return kind(**{part.name: VALUES[str(part.type)] for part in fields(kind) if str(part.type) in VALUES})


def ours(caplog):
    return [record for record in caplog.records if record.name.partition(".")[0] == "agentrun"]


# --- what is told


@clients
def test_a_call_is_told_as_it_happens(caplog, loop, transport):
    caplog.set_level(logging.DEBUG, "agentrun")
    with ScriptedServer(BUSY) as server:
        ask(loop, transport, server, "r?secret=query", retry=Retry(backoff=0.0))
    told = [type(record.event).__name__ for record in ours(caplog)]
    assert told == [
        "RequestSent",
        "ConnectionOpened",
        "HeadReceived",
        "RequestEnded",
        "RetryScheduled",
        "RequestSent",
        "ConnectionReused",
        "HeadReceived",
        "RequestEnded",
    ]
    call = ours(caplog)[0].event.call
    assert ours(caplog)[0].getMessage() == (
        f"RequestSent call={call} attempt=1 method='GET' url='{server.url}/2025-09-10/agents/r'"
    )
    assert ours(caplog)[4].getMessage() == (
        f"RetryScheduled call={call} attempt=1 delay=0.0 reason='ServiceUnavailableError'"
    )
    assert "query" not in caplog.text
    assert {record.name for record in ours(caplog)} == {"agentrun"}


@clients
def test_at_info_only_what_is_out_of_the_ordinary_is_told(caplog, loop, transport):
    caplog.set_level(logging.INFO, "agentrun")
    with ScriptedServer(BUSY) as server:
        ask(loop, transport, server, count=2, retry=Retry(backoff=0.0))
    (record,) = ours(caplog)
    assert isinstance(record.event, RetryScheduled)


@clients
def test_refreshes_are_told(caplog, loop, transport):
    caplog.set_level(logging.INFO, "agentrun")
    keys = [
        AccessKey(access_key_id="a", access_key_secret=Secret("hidden-1")),
        AccessKey(access_key_id="b", access_key_secret=Secret("hidden-2")),
    ]
    with ScriptedServer(answer({}, "401 No")) as server:
        ask(loop, transport, server, credentials=lambda: keys.pop(0))
    assert [type(record.event).__name__ for record in ours(caplog)] == ["CredentialsRefreshed"] * 2
    assert "hidden" not in caplog.text


@clients
def test_a_refresh_that_fails_is_a_warning(caplog, loop, transport):
    caplog.set_level(logging.INFO, "agentrun")

    def broken():
        raise LookupError("hidden")

    with ScriptedServer() as server, pytest.raises(CredentialError):
        ask(loop, transport, server, credentials=broken)
    (record,) = ours(caplog)
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith(" error='CredentialError'")


def test_every_kind_of_event_has_its_level():
    assert set(LEVELS) == set(KINDS)


@pytest.mark.parametrize("name", LEVELS)
def test_every_kind_of_event_is_told_with_all_that_it_holds(caplog, name):
    caplog.set_level(logging.DEBUG, "agentrun")
    event = made(KINDS[name])
    log(event)
    (record,) = ours(caplog)
    assert (record.levelno, record.event) == (LEVELS[name], event)
    facts = [f"{part.name}={getattr(event, part.name)!r}" for part in fields(event) if part.name != "carrier"]
    assert record.getMessage() == f"{name} {' '.join(facts)}"


@pytest.mark.parametrize("name", LEVELS)
def test_a_level_above_it_is_not_told(caplog, name):
    caplog.set_level(LEVELS[name] + 1, "agentrun")
    log(made(KINDS[name]))
    assert ours(caplog) == []


def test_fields_that_a_listener_adds_are_not_told(caplog):
    caplog.set_level(logging.DEBUG, "agentrun")

    def listener(event):
        if isinstance(event, RequestSent):
            event.carrier["Traceparent"] = "hidden-context"

    with ScriptedServer() as server:
        ask("blocking", "native", server, listener=listener)
        assert b"Traceparent: hidden-context\r\n" in server.requests[0].head
    assert "hidden-context" not in caplog.text


@clients
def test_a_listener_and_the_log_are_told_the_same(caplog, loop, transport):
    caplog.set_level(logging.DEBUG, "agentrun")
    told = []
    with ScriptedServer(BUSY) as server:
        ask(loop, transport, server, listener=told.append, retry=Retry(backoff=0.0))
    assert len(told) == 9
    assert [record.event for record in ours(caplog)] == told


def test_what_the_service_says_cannot_forge_a_record(caplog):
    """A request id is the service's text: a record shows it as one literal."""
    caplog.set_level(logging.DEBUG, "agentrun")
    with ScriptedServer(answer({}, fields="x-request-id: a\x85b c='1'\r\n")) as server:
        ask("blocking", "native", server)
    (head,) = [record for record in ours(caplog) if type(record.event).__name__ == "HeadReceived"]
    message = head.getMessage()
    assert message.isprintable()
    assert message.endswith("""request_id="a\\x85b c='1'\"""")


# --- what it costs where nobody asks


@clients
def test_where_nobody_listens_there_is_one_question_and_no_event(monkeypatch, loop, transport):
    def refuse(*args, **kwargs):
        raise AssertionError("an event is made for nobody")

    for kind in KINDS.values():
        monkeypatch.setattr(kind, "__init__", refuse)
    monkeypatch.setattr(Observer, "__init__", refuse)
    asked = []
    logger = logging.getLogger("agentrun")
    monkeypatch.setattr(logger, "isEnabledFor", lambda level: asked.append(level))
    keys = [AccessKey(access_key_id=name, access_key_secret=Secret("s")) for name in "ab"]
    with ScriptedServer(BUSY, answer({}, "401 No")) as server:
        ask(loop, transport, server, count=3, credentials=lambda: keys.pop(0), retry=Retry(backoff=0.0))
    assert asked == [logging.INFO] * 3


def test_the_net_holds(monkeypatch, caplog):
    """Events that must not be made are noticed, where somebody listens."""
    caplog.set_level(logging.DEBUG, "agentrun")
    monkeypatch.setattr(RequestSent, "__init__", lambda *args, **kwargs: pytest.fail("made"))
    with ScriptedServer() as server, pytest.raises(pytest.fail.Exception, match="made"):
        ask("blocking", "native", server)


SILENT = """
import logging, sys
{setup}
from agentrun_proto import AccessKey, AgentRunClientError, Config, Retry, Secret
from agentrun_transports import BlockingClient

def broken():
    raise LookupError("nowhere")

with BlockingClient(Config(data_endpoint=sys.argv[1], retry=Retry(backoff=0.0))) as client:
    client.get("r")
with BlockingClient(Config(data_endpoint=sys.argv[1]), credentials=broken) as client:
    try:
        client.get("r")
    except AgentRunClientError as error:
        print(type(error).__name__)
"""


@pytest.mark.parametrize(
    ("setup", "shown"),
    [
        ("", []),
        ("logging.basicConfig()", []),
        ("logging.getLogger('agentrun').setLevel(logging.DEBUG)", []),  # no handler: still nothing
        (
            "logging.basicConfig(level=logging.INFO)",
            ["INFO:agentrun:RetryScheduled", "WARNING:agentrun:CredentialsRefreshFailed"],
        ),
    ],
)
def test_a_program_that_asks_for_nothing_sees_nothing(setup, shown):
    with ScriptedServer(BUSY) as server:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", SILENT.format(setup=setup), server.url],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, "CredentialError\n"), done.stderr
    assert [line.split(" ")[0] for line in done.stderr.splitlines()] == shown


def test_the_core_does_not_log():
    """A record is made in one file; the core tells its events and imports no logging."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {agentrun_proto.__name__}, sys; print('logging' in sys.modules)"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "False\n"


def test_an_error_is_the_callers_and_no_record(caplog):
    """What is raised is not logged too: whoever catches it decides."""
    caplog.set_level(logging.INFO, "agentrun")
    with ScriptedServer(BUSY) as server, pytest.raises(ServiceUnavailableError):
        ask("blocking", "native", server, retry=Retry.never())
    assert ours(caplog) == []
