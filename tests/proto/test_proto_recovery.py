"""The retry flow, explored: every sequence of outcomes up to the limit of attempts, and what holds in each.

Rules of this file: a flow is driven by hand, by a performer whose clock only pauses and answers turn; what
must become of a sequence is foretold by `foretell`, which was written from the issue and knows the table of
outcomes alone; how many sequences there are is counted, so that nothing is left out in silence.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from email.utils import formatdate
from functools import lru_cache
from typing import Any

import pytest

from agentrun_proto import (
    AccessKey,
    AccessToken,
    AgentRunClientError,
    AuthenticationError,
    Body,
    Commit,
    Config,
    ConnectError,
    CredentialError,
    DataEndpoint,
    FileError,
    Head,
    Headers,
    IncompleteError,
    NotFoundError,
    OpenSink,
    OpenSource,
    Origin,
    PermissionDeniedError,
    Prepare,
    Provide,
    RandomBytes,
    ReadAll,
    ReadInto,
    ReadTimeout,
    Refresh,
    Retry,
    Rewind,
    Secret,
    Send,
    ServiceUnavailableError,
    Sleep,
    Source,
    Timeout,
    TimeoutExceeded,
)
from agentrun_proto.context import Standing
from agentrun_proto.credential_cache import CredentialCache
from proto_strategies import NOON, ByHand, FakeClock, FakeSink, FakeSource, received_signature

pytestmark = pytest.mark.once

SKEW = 7200
CHANCE = 0.5
HOME = Origin("https", "h", 443)
MARK = "hunter2"


# --- what may happen to one attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """How one attempt ends, and what that means.

    `acted` says whether the service may have acted; None where that is for the class of the error to say.
    """

    name: str
    status: int = 0
    fields: tuple[tuple[str, str], ...] = ()
    content: bytes = b""
    error: type[AgentRunClientError] | None = None
    in_body: bool = False
    takes: float = 0.25
    again: str = "never"  # or: always, idempotent
    asked: float = 0.0
    cost: int = 5
    acted: bool | None = True
    stale: bool = False
    refused: bool = False
    skewed: bool = False
    to: str = ""  # of a redirect: same, home, elsewhere


def redirect(name: str, status: int, location: str, to: str) -> Happening:
    return Happening(name=name, status=status, fields=(("Location", location),), to=to)


OK = Happening(name="ok", status=200)
BUSY = Happening(name="503", status=503, again="always", acted=False)
ALPHABET = [
    OK,
    BUSY,
    Happening(
        name="503, after 2 s",
        status=503,
        fields=(("Retry-After", "2"),),
        again="always",
        asked=2,
        acted=False,
    ),
    Happening(
        name="429, after 100 s",
        status=429,
        fields=(("Retry-After", "100"),),
        again="always",
        asked=100,
        acted=False,
    ),
    Happening(name="500", status=500, again="idempotent"),
    Happening(name="408", status=408, again="always", acted=False),
    Happening(name="401", status=401, stale=True, acted=None),
    Happening(name="401, no other", status=401, stale=True, refused=True, acted=None),
    Happening(name="403, far date", status=403, skewed=True, acted=None),
    Happening(name="404", status=404, content=b'{"code": "NotHere"}'),
    Happening(name="no connection", error=ConnectError, again="always", acted=False),
    Happening(name="cut before the head", error=IncompleteError, again="idempotent"),
    Happening(name="cut in the body", status=200, error=IncompleteError, in_body=True, again="idempotent"),
    Happening(name="no answer", error=ReadTimeout, takes=1.0, again="idempotent", cost=10),
    redirect("307 same origin", 307, "/moved", "same"),
    redirect("302 elsewhere", 302, "https://elsewhere.example/x?y=1", "elsewhere"),
]
BACK_HOME = redirect("302 home", 302, "https://h/moved", "home")


# --- what is asked for


class ReadAgain(FakeSource):
    """A source that counts how often it is rewound, if it can be at all."""

    def __init__(self, replayable: bool) -> None:
        super().__init__(5)
        self.replayable = replayable


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A kind of call, and its limits."""

    method: str = "GET"
    body: str = ""  # or: bytes, source, one-shot
    key: str = ""
    idempotent: bool
    via: str = "call"
    credential: str = "key"  # or: token, provided key
    attempts: int
    total: float = 30.0
    redirects: int = 9
    alphabet: tuple[Happening, ...] = tuple(ALPHABET)

    @property
    def replayable(self) -> bool:
        return self.body != "one-shot"

    @property
    def has_source(self) -> bool:
        return self.body in ("source", "one-shot")


GET = Scenario(idempotent=True, attempts=1)
POST = Scenario(method="POST", body="bytes", idempotent=False, attempts=1)
POST_KEYED = Scenario(method="POST", body="source", key="k-1", idempotent=True, attempts=1)
PUT_ONE_SHOT = Scenario(method="PUT", body="one-shot", idempotent=True, attempts=1)
UPLOAD = Scenario(method="POST", body="source", via="upload", idempotent=True, attempts=1)
DOWNLOAD = Scenario(via="download", idempotent=True, attempts=1)


class WantsMore(Exception):
    """The flow sends once more than the script has outcomes for."""


@dataclass(slots=True)
class World:
    """Performs the commands of one flow, from a script, and writes down what it was asked."""

    scenario: Scenario
    script: tuple[Happening, ...]
    at: DataEndpoint = field(init=False)
    clock: FakeClock = field(default_factory=FakeClock)
    log: list[str] = field(default_factory=list[str])
    sends: list[tuple[Send, float, float]] = field(default_factory=list[Any])
    dates: list[tuple[float, float]] = field(default_factory=list[Any])
    sleeps: list[float] = field(default_factory=list[float])
    sources: list[FakeSource] = field(default_factory=list[FakeSource])
    sinks: list[FakeSink] = field(default_factory=list[FakeSink])
    provided: int = 0
    now: Happening = OK
    result: Any = None
    error: AgentRunClientError | None = None
    ended: bool = False
    too_late: bool = False

    def provide(self) -> AccessToken | AccessKey:
        """The next credential; each is another one."""
        if self.now.refused:
            raise CredentialError("no other credential")
        self.provided += 1
        if self.scenario.credential == "token":
            return AccessToken(token=Secret(f"{MARK}-{self.provided}"))
        return AccessKey(access_key_id=f"id-{self.provided}", access_key_secret=Secret(MARK))

    def turn(self, seconds: float) -> None:
        self.clock.wall += seconds
        self.clock.mono += seconds

    def answer(self, command: Any) -> Any:
        """What a driver would do. The fuller picture of it is in the drivers' own tests."""
        assert 0 <= self.at.standing.quota.left <= 500
        self.log.append(type(command).__name__)
        return ANSWERS[type(command)](self, command)

    def send(self, command: Send) -> Head:
        self.sends.append((command, self.clock.mono, self.clock.wall))
        if len(self.sends) > len(self.script):
            raise WantsMore
        now = self.now = self.script[len(self.sends) - 1]
        left = command.deadline - self.clock.mono
        self.turn(min(now.takes, left))
        if now.takes >= left:
            self.too_late = True
            raise ReadTimeout("the call is over")
        if now.error is not None and not now.in_body:
            raise now.error(now.name)
        fields = [*now.fields, ("Content-Type", "application/octet-stream")]
        signed = dict(command.request.signature).get("x-acs-date")
        date = seconds(signed) + SKEW if signed else self.clock.wall + SKEW
        self.dates.append((date, self.clock.wall))
        if now.skewed:
            fields.append(("Date", formatdate(date, usegmt=True)))
        return Head(status=now.status, headers=Headers(fields))

    def read(self, command: Any) -> Any:
        if self.now.in_body and self.now.error is not None:
            raise self.now.error(self.now.name)
        if type(command) is ReadAll:
            return self.now.content
        self.sinks[-1].size = 5
        return 5

    def sleep(self, command: Sleep) -> None:
        self.sleeps.append(command.seconds)
        assert command.seconds > 0
        assert self.clock.mono + command.seconds < self.sends[0][0].deadline
        self.turn(command.seconds)

    def rewind(self, command: Rewind) -> None:
        assert command.body is self.sends[-1][0].request.body
        assert command.body.sources
        assert command.body.replayable

    def refresh(self, command: Refresh) -> Any:
        assert command.wait
        return self.run(command.flow())

    def open_source(self, command: OpenSource) -> Source:
        self.sources.append(ReadAgain(True))
        return self.sources[-1]

    def open_sink(self, command: OpenSink) -> FakeSink:
        self.sinks.append(FakeSink())
        return self.sinks[-1]

    def prepare(self, command: Prepare) -> None:
        assert command.sink is self.sinks[-1]
        assert (command.size, command.digests) == (0, ())

    def commit(self, command: Commit) -> None:
        assert command.sink is self.sinks[-1]
        assert self.sinks[-1].discarded == 0

    def run(self, flow: Generator[Any, Any, Any]) -> Any:
        """The loop of a driver."""
        step: Any = flow.send
        given: Any = None
        try:
            while True:
                command = step(given)
                try:
                    step, given = flow.send, self.answer(command)
                except AgentRunClientError as error:
                    step, given = flow.throw, error
        except StopIteration as stop:
            return stop.value
        finally:
            flow.close()


ANSWERS: dict[type, Any] = {
    Send: World.send,
    ReadAll: World.read,
    ReadInto: World.read,
    Sleep: World.sleep,
    Rewind: World.rewind,
    Refresh: World.refresh,
    OpenSource: World.open_source,
    OpenSink: World.open_sink,
    Prepare: World.prepare,
    Commit: World.commit,
    RandomBytes: lambda world, command: b"\x80" + bytes(command.size - 1),
    Provide: lambda world, command: command.provider(),
}


@lru_cache(maxsize=1024)
def seconds(stamp: str) -> float:
    return datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp()


class Stage:
    """A scenario's endpoint, which is as new for every run."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.world: World | None = None
        config = Config(
            data_endpoint="https://user:password@h",
            retry=Retry(attempts=scenario.attempts),
            timeout=Timeout(total=scenario.total),
            headers={"x-mine": MARK},
        )
        if scenario.credential == "key":
            config = config.merge(Config(access_key_id="id", access_key_secret=MARK))
            self.at = DataEndpoint(config)
        else:
            self.at = DataEndpoint(config, credentials=self._provide)

    def _provide(self) -> AccessToken | AccessKey:
        assert self.world is not None
        return self.world.provide()

    def play(self, script: tuple[Happening, ...]) -> World:
        """Runs the flow until it ends, or wants more than the script has."""
        scenario, at = self.scenario, self.at
        world = self.world = World(scenario, script)
        world.at = at
        at.standing = Standing()
        at.identity.cache = CredentialCache()
        try:
            world.result = world.run(self._flow(world))
            world.ended = True
        except WantsMore:
            pass
        except AgentRunClientError as error:
            world.error = error
            world.ended = True
        return world

    def _flow(self, world: World) -> Any:
        scenario, at = self.scenario, self.at
        if scenario.via == "download":
            return at.download(at.file_request("x"), "/local", clock=world.clock)
        if scenario.via == "upload":
            return at.upload("x", "/local", filename="f", boundary="b", clock=world.clock, idempotent=True)
        headers = {"Idempotency-Key": scenario.key} if scenario.key else None
        request = at.request(
            scenario.method, "x", data=b"12345" if scenario.body == "bytes" else None, headers=headers
        )
        if scenario.has_source:
            source = ReadAgain(scenario.replayable)
            request = replace(request, body=Body(segments=(source,), length=5))
        return at.call(request, clock=world.clock)


# --- what must become of it


@dataclass(slots=True)
class Fate:
    """Where a sequence leads."""

    ended: bool = False
    error: str = ""
    entries: int = 0
    acted: bool | None = False
    refreshes: int = 0
    adjusted_by: int | None = None  # the attempt whose Date the signatures follow
    abroad_from: int | None = None
    sleeps: list[float] = field(default_factory=list[float])
    paid: int = 0
    spent: int = 0


def foretell(scenario: Scenario, script: tuple[Happening, ...]) -> Fate:
    """What the issue says of this sequence."""
    fate = Fate()
    failures = redirects = 0
    time = 0.0
    for number, now in enumerate(script):
        time += now.takes
        if time >= scenario.total:
            return final(fate, "ReadTimeout", failures + 1, True)
        if now is OK:
            fate.ended = True
            return fate
        if now.to:
            followed = redirects < 5 and (
                scenario.method == "GET" or (now.to == "same" and scenario.replayable)
            )
            if not followed:
                return final(fate, "RedirectError", failures + 1, True)
            redirects += 1
            if now.to == "elsewhere" and fate.abroad_from is None:
                fate.abroad_from = number + 1
            continue
        failures += 1
        if fate.acted is not True and now.acted is not False:
            fate.acted = now.acted
        name = "" if now.error is None else now.error.__name__
        if failures == scenario.attempts:
            return final(fate, name, failures)
        if scenario.replayable and fate.abroad_from is None:
            if now.skewed and scenario.credential != "token" and fate.adjusted_by is None:
                fate.adjusted_by = number
                continue
            if now.stale and scenario.credential != "key" and fate.refreshes == 0:
                fate.refreshes = 1
                if now.refused:
                    return final(fate, "CredentialError", failures)
                continue
        if now.again == "never" or not scenario.replayable:
            return final(fate, name, failures)
        if now.again == "idempotent" and not scenario.idempotent:
            return final(fate, name, failures)
        delay = max(CHANCE * min(20.0, 2.0 ** (failures - 1)), now.asked)
        if time + delay >= scenario.total:
            return final(fate, name, failures)
        time += delay
        fate.sleeps.append(delay)
        fate.paid, fate.spent = now.cost, fate.spent + now.cost
    return fate


def final(fate: Fate, error: str, entries: int, acted: bool = False) -> Fate:
    fate.ended, fate.error, fate.entries = True, error, entries
    fate.acted = acted or fate.acted
    return fate


# Where the last error does not speak for all attempts yet; see the xfails at the end of this file.
NOT_TOLD: tuple[type[AgentRunClientError], ...] = ()


def check(scenario: Scenario, world: World, told: tuple[type[AgentRunClientError], ...] = NOT_TOLD) -> None:
    """All that must hold of a run, ended or not."""
    script = world.script
    fate = foretell(scenario, script)
    assert world.ended is fate.ended
    assert world.sleeps == fate.sleeps
    assert len(world.sends) == len(script) + (not fate.ended)
    assert len(world.sends) <= scenario.attempts + 5
    check_end(world, fate, told)
    check_quota(world, fate)
    obtained = 0 if scenario.credential == "key" else 1
    if world.error is None or type(world.error) is not CredentialError:
        assert world.provided == obtained * (1 + fate.refreshes)
    assert world.log.count("Refresh") == obtained * (1 + fate.refreshes)
    # what came before was the end of a shorter sequence
    for number in range(len(world.sends))[-2:]:
        check_send(scenario, world, fate, number)
    if not scenario.idempotent:
        assert not any(now.again == "idempotent" for now in script[: len(world.sends) - 1])
    check_rewinds(scenario, world, fate)
    for source in world.sources:
        assert source.closed == 1
    for sink in world.sinks:
        assert sink.discarded == 1


def check_end(world: World, fate: Fate, not_told: tuple[type[AgentRunClientError], ...]) -> None:
    error = world.error
    if error is None:
        assert not fate.error
        assert world.result == (None if not fate.ended else 5 if world.scenario.via == "download" else {})
        return
    last = world.script[-1]
    assert type(error).__name__ == (fate.error or type(error).__name__)
    if type(error) is not CredentialError:
        assert error.status_code == (0 if last.error or world.too_late else last.status)
    if isinstance(error, not_told):
        return
    assert len(error.attempts) == fate.entries
    if fate.acted is not None:
        assert error.may_be_processed is fate.acted


def check_quota(world: World, fate: Fate) -> None:
    left = 500 - fate.spent
    if fate.ended and world.error is None:
        left = min(500, left + (fate.paid or 1))
    assert world.at.standing.quota.left == left


def check_send(scenario: Scenario, world: World, fate: Fate, number: int) -> None:
    command, mono, wall = world.sends[number]
    request = command.request
    assert command.deadline == 1000.0 + scenario.total > mono
    assert request.method == scenario.method
    lines = request.fields()
    names = {name.lower() for name, _ in lines}
    if fate.abroad_from is not None and number >= fate.abroad_from:
        assert MARK not in str(lines)
        assert names <= {"host", "user-agent", "accept", "accept-encoding"}
        return
    assert request.origin == HOME
    assert {"authorization", "x-mine"} <= names
    moved = any(now.to for now in world.script[:number])
    assert request.target == ("/moved" if moved else "/2025-09-10/agents/x")
    assert request.headers.get("idempotency-key", "") == scenario.key
    assert request.body == world.sends[0][0].request.body
    signature = dict(request.signature)
    if scenario.credential == "token":
        assert signature == {"Agentrun-Access-Token": f"{MARK}-{current(world, fate, number)}"}
        return
    if fate.adjusted_by is not None and number > fate.adjusted_by:
        date, answered = world.dates[dated(world, fate.adjusted_by)]
        wall += date - answered
    assert seconds(signature["x-acs-date"]) == int(wall)
    if number < 2 and len(world.script) <= 2:
        ours, theirs, signed = received_signature(
            method=request.method, target=request.target, lines=lines, secret=MARK
        )
        assert ours == theirs
        assert "x-acs-date" in signed


def current(world: World, fate: Fate, number: int) -> int:
    """The number of the credential that an attempt goes out with."""
    return 1 + (fate.refreshes == 1 and any(now.stale for now in world.script[:number]))


def dated(world: World, number: int) -> int:
    """Which of the answers that had a head was that of this attempt."""
    return sum(now.error is None or now.in_body for now in world.script[:number])


def check_rewinds(scenario: Scenario, world: World, fate: Fate) -> None:
    """A source is rewound once before each attempt but the first, and last of all."""
    steps = [name for name in world.log if name in ("Send", "Rewind", "Sleep")]
    if scenario.has_source:
        repeats = len(world.sends) - 1
        assert [steps[i - 1] for i in range(1, len(steps)) if steps[i] == "Send"] == ["Rewind"] * repeats
        assert steps.count("Rewind") == repeats
    else:
        assert "Rewind" not in steps


def explore(
    scenario: Scenario, not_told: tuple[type[AgentRunClientError], ...] = NOT_TOLD
) -> tuple[int, int, int]:
    """Checks every sequence; how many end in success, how many in an error, and the longest."""
    stage = Stage(scenario)
    successes = errors = longest = 0
    waiting: list[tuple[Happening, ...]] = [()]
    while waiting:
        script = waiting.pop()
        world = stage.play(script)
        try:
            check(scenario, world, not_told)
        except AssertionError as error:
            error.add_note(f"in: {[now.name for now in script]}") if hasattr(error, "add_note") else None
            raise
        if world.ended:
            successes += world.error is None
            errors += world.error is not None
            longest = max(longest, len(script))
            continue
        redirected = sum(bool(now.to) for now in script)
        waiting += [
            (*script, now) for now in scenario.alphabet if not now.to or redirected < scenario.redirects
        ]
    return successes, errors, longest


# The same without those that mean to the flow what others mean.
FEWER_OUTCOMES = tuple(
    now for now in ALPHABET if now.name not in {"503, after 2 s", "408", "cut before the head", "404"}
)
ONLY_REDIRECTS = (
    OK,
    BUSY,
    redirect("302 elsewhere", 302, "https://elsewhere.example/", "elsewhere"),
    BACK_HOME,
)


def token(scenario: Scenario) -> Scenario:
    return replace(scenario, credential="token")


def fewer(scenario: Scenario) -> Scenario:
    return replace(scenario, alphabet=FEWER_OUTCOMES)


def hurried(scenario: Scenario) -> Scenario:
    """With so little time that some pauses are too long."""
    return replace(scenario, total=3.0, alphabet=(*FEWER_OUTCOMES, ALPHABET[2]))


# Attempts, and how many redirects a sequence may have, for the numbers to stay numbers (redirects up to their
# own limit are at the end); then how many sequences end in success, how many in an error, and the longest.
EXPLORED: dict[str, list[tuple[Scenario, int, int, tuple[int, int, int]]]] = {
    "a GET, signed": [
        (GET, 1, 1, (3, 39, 2)),
        (GET, 2, 2, (154, 1943, 4)),
        (GET, 3, 0, (90, 1081, 3)),
        (GET, 4, 0, (794, 9529, 4)),
    ],
    "a GET, with a token": [
        (token(GET), 1, 1, (3, 39, 2)),
        (token(GET), 2, 2, (154, 1943, 4)),
        (token(GET), 3, 0, (90, 1081, 3)),
    ],
    "a GET, with a token, fewer outcomes": [
        (fewer(token(GET)), 3, 1, (262, 2181, 4)),
        (fewer(token(GET)), 4, 0, (242, 1937, 4)),
    ],
    "a GET, in a hurry": [
        (hurried(GET), 3, 1, (206, 2113, 4)),
        (hurried(GET), 4, 0, (52, 549, 4)),
    ],
    "a GET, redirects only": [
        (replace(GET, alphabet=ONLY_REDIRECTS), 1, 9, (63, 127, 6)),
        (replace(GET, alphabet=ONLY_REDIRECTS), 2, 9, (384, 769, 7)),
    ],
    "a GET with a token, redirects only": [
        (replace(token(GET), alphabet=ONLY_REDIRECTS), 2, 9, (384, 769, 7)),
    ],
    "a POST, signed": [
        (POST, 1, 1, (2, 27, 2)),
        (POST, 2, 1, (17, 217, 3)),
        (POST, 3, 1, (113, 1417, 4)),
        (POST, 4, 0, (142, 1705, 4)),
    ],
    "a POST, with a token": [
        (token(POST), 1, 1, (2, 27, 2)),
        (token(POST), 2, 1, (17, 217, 3)),
        (token(POST), 3, 1, (113, 1417, 4)),
        (token(POST), 4, 0, (142, 1705, 4)),
    ],
    "an idempotent POST of a source, signed": [
        (POST_KEYED, 1, 1, (2, 27, 2)),
        (POST_KEYED, 2, 1, (29, 369, 3)),
        (POST_KEYED, 3, 0, (90, 1081, 3)),
    ],
    "an idempotent POST of a source, signed, fewer outcomes": [
        (fewer(POST_KEYED), 3, 1, (160, 1365, 4)),
        (fewer(POST_KEYED), 4, 0, (242, 1937, 4)),
    ],
    "an idempotent POST of a source, with a token": [
        (token(POST_KEYED), 1, 1, (2, 27, 2)),
        (token(POST_KEYED), 2, 1, (29, 369, 3)),
        (token(POST_KEYED), 3, 0, (90, 1081, 3)),
        (fewer(token(POST_KEYED)), 4, 0, (242, 1937, 4)),
    ],
    "a PUT that cannot be repeated": [
        (PUT_ONE_SHOT, 1, 1, (1, 15, 1)),
        (PUT_ONE_SHOT, 4, 1, (1, 15, 1)),
    ],
    "a PUT that cannot be repeated, with a token": [
        (token(PUT_ONE_SHOT), 1, 1, (1, 15, 1)),
        (token(PUT_ONE_SHOT), 4, 1, (1, 15, 1)),
    ],
    "an upload": [
        (UPLOAD, 1, 1, (2, 27, 2)),
        (UPLOAD, 2, 1, (29, 369, 3)),
    ],
    "an upload, with a token": [
        (token(UPLOAD), 2, 1, (29, 369, 3)),
    ],
    "a download": [
        (DOWNLOAD, 1, 1, (3, 39, 2)),
        (DOWNLOAD, 2, 1, (47, 585, 3)),
    ],
    "a download, with a token": [
        (token(DOWNLOAD), 2, 1, (47, 585, 3)),
    ],
}


@pytest.mark.hostile("calling-expired", "calling-clock")
@pytest.mark.parametrize(
    ("scenario", "attempts", "redirects", "counted"),
    [pytest.param(*row, id=f"{name}-{row[1]}-{row[2]}") for name, rows in EXPLORED.items() for row in rows],
)
def test_every_sequence_of_outcomes(scenario, attempts, redirects, counted):
    assert explore(replace(scenario, attempts=attempts, redirects=redirects)) == counted


# --- what a failure changes beyond its call


def a_call(at: DataEndpoint, clock: FakeClock | None = None, **request: Any) -> ByHand:
    arguments = {"method": "GET", "path": "x", **request}
    return ByHand(at.call(at.request(**arguments), clock=clock or FakeClock()))


def keyed(**config: Any) -> DataEndpoint:
    return DataEndpoint(Config(data_endpoint="http://h", access_key_id="i", access_key_secret="s", **config))


def refused(status: int, **fields: str) -> Head:
    return Head(status=status, headers=Headers(fields))


def at_date(wall: float) -> str:
    return formatdate(wall, usegmt=True)


@pytest.mark.hostile("calling-clock")
@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    ("off", "adjusts"),
    [(3600, True), (-3600, True), (301, True), (-301, True), (300, False), (-300, False), (0, False),
     (86400, True), (-86400, True), (-NOON, True)],
)  # fmt: skip
def test_a_far_date_beside_a_refused_signature_is_the_time_from_then_on(status, off, adjusts):
    at, clock = keyed(), FakeClock()
    step = a_call(at, clock)
    assert step.command.request.signature[0] == ("x-acs-date", "2026-03-06T12:00:00Z")
    step.answer(refused(status, Date=at_date(NOON + off)))
    if not adjusts:
        with pytest.raises(AgentRunClientError):
            step.answer(b"")
        assert at.standing.offset == 0
        return
    step.answer(b"")
    assert type(step.command) is Send
    assert seconds(step.command.request.signature[0][1]) == NOON + off
    assert step.answer(Head(status=200)).answer(b"").done
    clock.wall += 5
    for same in (at, at.overlaid(Config(timeout=5))):
        send = a_call(same, clock).command
        assert seconds(send.request.signature[0][1]) == NOON + off + 5, "kept for the next call"
    assert send.deadline == 1000 + 5, "a deadline knows no wall clock"


def test_a_clock_that_is_off_by_something_else_later_is_set_again():
    at, clock = keyed(), FakeClock()
    at.standing.offset = 5000.0
    step = a_call(at, clock)
    clock.wall += 2
    step.answer(refused(403, Date=at_date(NOON + 2))).answer(b"")
    assert seconds(step.command.request.signature[0][1]) == NOON + 2
    assert at.standing.offset == 0


@pytest.mark.hostile("answers-retry-after")
@pytest.mark.parametrize("date", ["", "junk", "Fri, 06 Mar 2026 12:00:00 CET", "1772798400", None])
def test_a_junk_date_is_no_date(date):
    at = keyed()
    step = a_call(at).answer(refused(403) if date is None else refused(403, Date=date))
    with pytest.raises(PermissionDeniedError):
        step.answer(b"")
    assert at.standing.offset == 0


@pytest.mark.parametrize("status", [200, 400, 404, 429, 503])
def test_a_far_date_elsewhere_says_nothing(status):
    at = keyed(retry=Retry.never())
    step = a_call(at).answer(refused(status, Date=at_date(NOON + 7200)))
    if status == 200:
        step.answer(b"")
    else:
        with pytest.raises(AgentRunClientError):
            step.answer(b"")
    assert at.standing.offset == 0


def test_a_token_and_no_credential_have_no_date_to_adjust():
    for config in ({"token": "t"}, {}):
        at = DataEndpoint(Config(data_endpoint="http://h", **config))
        step = a_call(at).answer(refused(403, Date=at_date(NOON + 7200)))
        with pytest.raises(PermissionDeniedError):
            step.answer(b"")
        assert at.standing.offset == 0


@pytest.mark.parametrize(
    ("date", "believed"),
    [
        ("Thu, 01 Jan 1970 00:00:00 GMT", True),
        ("Thu, 31 Dec 2099 23:59:59 GMT", True),
        ("Fri, 01 Jan 2100 00:00:00 GMT", False),
    ],
)
def test_what_a_clock_may_say(date, believed):
    at = keyed()
    step = a_call(at).answer(refused(403, Date=date))
    if believed:
        assert type(step.answer(b"").command) is Send
    else:
        with pytest.raises(PermissionDeniedError):
            step.answer(b"")
    assert (at.standing.offset != 0) is believed


@pytest.mark.hostile("answers-retry-after")
@pytest.mark.parametrize("date", ["Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT"])
def test_a_date_at_the_end_of_time_does_no_harm(date):
    """HOSTILE: a junk Date: capped, no crash; and the next call on the same endpoint is not broken by it."""
    at, clock = keyed(), FakeClock()
    step = a_call(at, clock).answer(refused(403, Date=date))
    try:
        step.answer(b"").close()
    except PermissionDeniedError:
        pass
    for turned in (1.0, -1.0):
        clock.wall = NOON + turned
        assert type(a_call(at, clock).command) is Send


@pytest.mark.hostile("calling-clock")
@pytest.mark.parametrize("why", ["never", "one-shot"])
def test_the_clock_is_set_for_the_next_call_even_where_this_one_is_over(why):
    at = keyed(retry=Retry.never()) if why == "never" else keyed()
    request = at.request("PUT", "x")
    if why == "one-shot":
        request = replace(request, body=Body(segments=(ReadAgain(False),), length=5))
    step = ByHand(at.call(request, clock=FakeClock())).answer(refused(403, Date=at_date(NOON + 7200)))
    with pytest.raises(PermissionDeniedError):
        step.answer(b"")
    assert at.standing.offset == 7200


# --- who is calling, once a credential was refused


def provided(*tokens: str, **config: Any) -> tuple[DataEndpoint, list[str]]:
    """An endpoint whose provider has these, one after the other; and those it still has."""
    left = list(tokens)

    def provider() -> AccessToken:
        return AccessToken(token=Secret(left.pop(0)))

    return DataEndpoint(Config(data_endpoint="http://h", **config), credentials=provider), left


def renewed(step: ByHand) -> ByHand:
    """Answers a Refresh as a driver does that nobody else asks."""
    refresh = step.command
    assert type(refresh) is Refresh
    assert refresh.wait
    flow = ByHand(refresh.flow())
    assert type(flow.command) is Provide
    return step.answer(flow.answer(flow.command.provider()).result)


def sent_token(step: ByHand) -> str:
    assert type(step.command) is Send
    return dict(step.command.request.signature)["Agentrun-Access-Token"]


@pytest.mark.hostile("calling-expired")
def test_a_refused_credential_is_renewed_once_and_then_its_refusal_is_the_callers():
    at, left = provided("t1", "t2", "t3")
    step = renewed(a_call(at, method="POST", data={"a": 1}))
    assert sent_token(step) == "t1"
    step = renewed(step.answer(refused(401)).answer(b""))
    assert sent_token(step) == "t2"
    step.answer(refused(401))
    with pytest.raises(AuthenticationError) as caught:
        step.answer(b"")
    assert len(caught.value.attempts) == 2
    assert left == ["t3"]
    assert sent_token(renewed(a_call(at))) == "t3", "the next call begins with another one"


def test_a_provider_that_has_nothing_but_the_refused_one_is_asked_once():
    at, left = provided("t1", "t1", "t1")
    step = renewed(a_call(at))
    step.answer(refused(401)).answer(b"")
    with pytest.raises(AuthenticationError) as caught:
        renewed(step)
    assert len(caught.value.attempts) == 1
    assert left == ["t1"]


def test_a_credential_that_another_call_has_renewed_meanwhile_is_taken():
    at, left = provided("t1", "t2")
    one = renewed(a_call(at))
    other = a_call(at)
    assert sent_token(one) == sent_token(other) == "t1"
    renewed(one.answer(refused(401)).answer(b""))
    other.answer(refused(401)).answer(b"")
    assert sent_token(other) == sent_token(one) == "t2"
    assert left == []


def test_a_credential_that_came_while_a_call_was_on_its_way_to_ask_is_taken():
    at, left = provided("t1", "t2")
    one, other = a_call(at), a_call(at)
    assert type(other.command) is Refresh
    assert sent_token(renewed(one)) == "t1"
    late = ByHand(other.command.flow())
    assert late.done, "its flight begins after the first one has landed"
    assert sent_token(other.answer(late.result)) == "t1"
    assert left == ["t2"]


def test_a_late_refusal_of_an_old_credential_does_not_cost_the_new_one():
    at, _ = provided("t1", "t2", retry=Retry.never())
    late = renewed(a_call(at))
    early = a_call(at)
    with pytest.raises(AuthenticationError):
        early.answer(refused(401)).answer(b"")
    assert sent_token(renewed(a_call(at))) == "t2"
    with pytest.raises(AuthenticationError):
        late.answer(refused(401)).answer(b"")
    assert sent_token(a_call(at)) == "t2"


def test_what_cannot_be_sent_again_is_not_but_the_next_call_has_another_credential():
    at, _ = provided("t1", "t2")
    request = replace(at.request("PUT", "x"), body=Body(segments=(ReadAgain(False),), length=5))
    step = renewed(ByHand(at.call(request, clock=FakeClock()))).answer(refused(401))
    with pytest.raises(AuthenticationError):
        step.answer(b"")
    assert sent_token(renewed(a_call(at))) == "t2"


@pytest.mark.parametrize("code", ["InvalidSecurityToken.Expired", "ERR_TOKEN_EXPIRED"])
def test_a_403_that_names_the_token_renews_it_and_a_bare_one_does_not(code):
    at, left = provided("t1", "t2")
    step = renewed(a_call(at)).answer(refused(403))
    with pytest.raises(PermissionDeniedError):
        step.answer(b'{"code": "ERR_FORBIDDEN"}')
    assert left == ["t2"]
    step = a_call(at).answer(refused(403)).answer(f'{{"code": "{code}"}}'.encode())
    assert sent_token(renewed(step)) == "t2"


# --- what the last error tells


def test_the_last_error_tells_of_each_attempt_in_order():
    at = keyed(retry=Retry(attempts=4))
    step = a_call(at)
    step.fail(ConnectError("refused")).answer(bytes(6))
    step.answer(refused(503)).answer(b'{"code": "BUSY", "message": "try later"}').answer(bytes(6))
    step.fail(IncompleteError("cut")).answer(bytes(6))
    step.answer(refused(404))
    with pytest.raises(NotFoundError) as caught:
        step.answer(b'{"message": "gone", "requestId": "r"}')
    assert caught.value.attempts == (
        "refused",
        "try later (HTTP 503, code BUSY)",
        "cut",
        "gone (HTTP 404, request id r)",
    )
    assert caught.value.may_be_processed
    assert str(caught.value) == "gone (HTTP 404, request id r, after 4 attempts)"


def test_a_call_that_is_over_before_anything_was_sent_has_made_no_attempt():
    with pytest.raises(TimeoutExceeded) as caught:
        a_call(keyed()).fail(TimeoutExceeded("late"))
    assert caught.value.attempts == ()


def test_an_exchange_returns_the_last_answer_after_its_attempts():
    at = keyed(retry=Retry(attempts=2))
    step = ByHand(at.exchange(at.request("GET", "x"), clock=FakeClock()))
    step.answer(refused(503)).answer(b"one").answer(bytes(6))
    assert type(step.command) is Send
    response = step.answer(refused(503)).answer(b"two").result
    assert response.content == b"two"
    assert response == replace(response, error=None), "two answers are one by what was answered"
    with pytest.raises(ServiceUnavailableError, match="after 2 attempts") as told:
        response.raise_for_status()
    assert len(told.value.attempts) == 2
    cut = ByHand(at.exchange(at.request("GET", "x"), clock=FakeClock()))
    cut.answer(refused(503)).answer(b"one").answer(bytes(6))
    with pytest.raises(IncompleteError) as caught:
        cut.fail(IncompleteError("cut"))
    assert len(caught.value.attempts) == 2


def test_a_missing_credential_is_no_attempt():
    at, _ = provided("t1")
    step = a_call(at)
    with pytest.raises(CredentialError) as caught:
        step.fail(CredentialError("none"))
    assert caught.value.attempts == ()
    assert not caught.value.may_be_processed


TOLD_WRONG = "an error that ends a call between two attempts does not tell of those before"


UNTOLD = {
    "a GET with a token": fewer(replace(token(GET), redirects=1)),
    "a GET, redirects only": replace(GET, alphabet=ONLY_REDIRECTS),
    "a POST": replace(POST, redirects=1),
    "a PUT that cannot be repeated": PUT_ONE_SHOT,
}


@pytest.mark.parametrize("scenario", UNTOLD.values(), ids=UNTOLD)
def test_every_last_error_tells_of_all_attempts(scenario):
    explore(replace(scenario, attempts=2), not_told=())


def test_a_source_that_cannot_be_read_again_after_all_does_not_hide_why_it_should_be():
    at = keyed()
    request = replace(at.request("PUT", "x"), body=Body(segments=(ReadAgain(True),), length=5))
    step = ByHand(at.call(request, clock=FakeClock())).fail(IncompleteError("cut")).answer(bytes(6))
    assert type(step.command) is Rewind
    with pytest.raises(FileError) as caught:
        step.fail(FileError("gone", may_be_processed=False))
    assert caught.value.attempts == ("cut",)
    assert caught.value.may_be_processed


FAR_401 = Happening(name="401, far date", status=401, skewed=True, stale=True, acted=None)


def test_a_clock_that_is_off_is_no_fault_of_the_credential():
    outcomes = (OK, FAR_401, BUSY, *(now for now in ALPHABET if now.stale or now.skewed))
    explore(replace(GET, credential="provided key", attempts=4, redirects=0, alphabet=outcomes))
