"""demo --faults: each fault is shown and survived, and what is not survived is shown as that."""

import tempfile
import threading
from dataclasses import replace

import pytest

from agentrun_proto import Config, DataEndpoint, NotFoundError, Request, Retry, Sleep, recovery
from agentrun_transports import DataAPI, ResourceType, _local
from agentrun_transports._cli import faults_demo
from agentrun_transports._cli.faults_demo import Story
from agentrun_transports._cli.through import DRIVERS, _Blocking
from agentrun_transports.emulator import Fault, Faults, Service

NAMES = [step.name for step in faults_demo.STEPS]
ADD = Faults.add
GET = DataAPI.get
STATUSES = Story.statuses.fget


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """No pause is waited for, though each is scheduled: the clock of the demo goes on by it at once."""
    passed = [0.0]

    def sleep(local, command):
        yield from ()
        passed[0] += command.seconds

    monkeypatch.setitem(_local._PERFORM, Sleep, sleep)
    monkeypatch.setattr(faults_demo, "perf_counter", lambda: passed[0])
    monkeypatch.setattr(faults_demo, "_LATE", 0.1)


@pytest.fixture
def private_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def lines(ran):
    """The step lines as (mark, name)."""
    return [
        (line.split()[0], name)
        for line in ran.out.splitlines()
        for name in NAMES
        if line.startswith((f" ok   {name} ", f" FAIL {name} ")) and " ms  " in line
    ]


def test_the_steps():
    assert " ".join(NAMES) == "clock token crowd busy down lost keyed redirect"


def test_every_fault_is_survived(run, private_temporary_folder):
    before = set(threading.enumerate())
    ran = run("demo", "--faults")
    assert (ran.code, ran.err) == (0, "")
    assert lines(ran) == [("ok", name) for name in NAMES]
    for shown in (
        "an hour ahead",
        "-> the next call: 200 at once",
        "tokens fetched: 1 before, 2 now",
        "1 new token; 20 times 200",
        "Retry-After: 1",
        "-> waited as told, 1.00 s",
        "from up to 50, 100, 200, 400 ms",
        "IncompleteError, may_be_processed",
        "with the same key: 200",
        "-> followed without credential and headers: 401 there",
        "-> in trusted_origins, it gets a signature: 200",
    ):
        assert shown in ran.out
    assert ran.out.splitlines()[-1].startswith("All 8 steps are as they should be, over blocking, in ")
    assert list(private_temporary_folder.iterdir()) == []
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("driver", ["asyncio", "trio"])
def test_on_a_loop(run, monkeypatch, driver):
    """Every call goes over that driver: none of them is a blocking one."""
    monkeypatch.setattr(DataAPI, "_run", None)
    ran = run("demo", "--faults", "--driver", driver)
    assert (ran.code, ran.err) == (0, "")
    assert lines(ran) == [("ok", name) for name in NAMES]
    assert ran.out.splitlines()[-1].startswith(f"All 8 steps are as they should be, over {driver}, in ")


def test_no_secret_is_shown(run, monkeypatch):
    made = ["emulator-secret", "Signature="]
    add = Service.add_token

    def noted(self, token):
        made.append(token)
        add(self, token)

    monkeypatch.setattr(Service, "add_token", noted)
    ran = run("demo", "--faults")
    assert (ran.code, len(made)) == (0, 6)
    assert not any(secret in ran.out for secret in made)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_failure_among_many_calls_is_raised_as_itself(emulator, driver):
    client = DataAPI("a", ResourceType.Runtime, Config(retry=Retry.never()))
    with client, pytest.raises(NotFoundError):
        DRIVERS[driver](lambda carrier: carrier.get_at_once(client, "resources/missing", 3))


def test_the_callers_environment_is_not_used(run, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    for name in ("AGENTRUN_DATA_ENDPOINT", "AGENTRUN_CONTROL_ENDPOINT"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("ACCESS_KEY_ID", "ACCESS_KEY_SECRET", "SECURITY_TOKEN", "ACCOUNT_ID", "REGION"):
        monkeypatch.setenv(f"AGENTRUN_{name}", "elsewhere")
    assert run("demo", "--faults").code == 0


def forgetful(self, path, *args, **kwargs):
    answer = GET(self, path, *args, **kwargs)
    self.endpoint.standing.offset = 0.0
    return answer


def without(**fault):
    """A patch of Faults.add: this one never happens."""

    def add(self, planned, **kwargs):
        if planned != Fault(**fault):
            ADD(self, planned, **kwargs)

    return Faults, "add", add


def each_for_itself(self, client, path, count):
    """The calls share nothing that they have learned."""
    answers = []
    for _ in range(count):
        client.endpoint.identity.cache.refuse(client.endpoint.identity.credential)
        answers.append(client.get(path))
    return answers


def statuses(story):
    """Where many have called, those that were refused are not told of."""
    told = STATUSES(story)
    return told if len(told) < 20 else [status for status in told if status != 401]


def signing(*args, use_access_token, **kwargs):
    """A client that signs, though it is to call with an access token."""
    return DataAPI(*args, **kwargs)


def impatient(backoff, attempts=3):
    return Retry(attempts=3, backoff=backoff)


def chatty(self, request, origin, target):
    return replace(request, origin=origin, target=target)


# The step that notices, what is wrong, and what is said about it.
WRONG = [
    ("clock", (recovery, "SKEW", 1e9), "ERR_FORBIDDEN"),
    ("clock", (DataAPI, "get", forgetful), "next call was answered should be [200], and is [403, 200]"),
    ("clock", (faults_demo, "_HOUR", 0.0), "should be [403, 200], and is [200]"),
    ("token", (recovery, "is_stale", lambda error: False), "HTTP 401"),
    ("token", (Service, "revoke_token", lambda self, token: None), "should be [401, 200, 200], and is [200]"),
    ("token", (faults_demo, "DataAPI", signing), "should carry the access token, and carries none"),
    ("crowd", (_Blocking, "get_at_once", each_for_itself), "tokens were fetched should be 1, and is 20"),
    ("crowd", (_Blocking, "get_at_once", lambda self, *rest: []), "got their answer should be 20, and is 0"),
    ("crowd", (Story, "statuses", property(statuses)), "some of them should be refused, and none was"),
    ("busy", (recovery, "pause", lambda *args: 0.0), "the pause, in seconds should be [1.0], and is [0.0]"),
    ("busy", without(status=429, retry_after="1"), "should be [429, 200], and is [200]"),
    ("busy", (faults_demo, "perf_counter", lambda: 0.0), "should wait for 1 s, and took 0.00 s"),
    ("down", without(status=503), "should be [503, 503, 503, 503, 200], and is [200]"),
    ("down", (faults_demo, "Retry", impatient), "HTTP 503"),
    ("lost", (recovery, "may_repeat", lambda outcome, request: True), "should fail, and was answered with"),
    ("lost", without(drop=True), "should fail, and was answered with"),
    ("keyed", (Request, "idempotent", property(lambda self: self.method == "GET")), "connection"),
    ("redirect", (recovery, "_FOLLOWED", frozenset()), "HTTP 307"),
    ("redirect", (DataEndpoint, "trusts", lambda self, origin: True), "should ask who is calling"),
    ("redirect", (DataEndpoint, "bare", chatty), "what went along should be [], and is ['x-team']"),
]


@pytest.mark.parametrize(
    ("name", "patch", "said"), WRONG, ids=[f"{name}-{number}" for number, (name, *_) in enumerate(WRONG)]
)
def test_a_step_that_is_not_as_it_should_be(run, private_temporary_folder, monkeypatch, name, patch, said):
    monkeypatch.setattr(*patch)
    ran = run("demo", "--faults")
    assert (ran.code, ran.err) == (1, "")
    assert lines(ran) == [("ok", each) for each in NAMES[: NAMES.index(name)]] + [("FAIL", name)]
    assert said in ran.out
    assert ran.out.splitlines()[-1] == f"Step {name} is not as it should be."
    assert list(private_temporary_folder.iterdir()) == []
