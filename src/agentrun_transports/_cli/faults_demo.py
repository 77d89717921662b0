"""demo --faults: what can go wrong, made to go wrong in an emulator on this machine, and how it is survived.

Rules of this file: the steps are a table; each has a client of its own, so that none profits from what
another has learned; what it tells of a call is what its listener was told, and what the emulator saw of it.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from agentrun_proto import (
    AuthenticationError,
    ClockAdjusted,
    Config,
    CredentialsRefreshed,
    Event,
    HeadReceived,
    IncompleteError,
    Redirected,
    RequestSent,
    Retry,
    RetryScheduled,
)

from ..data_api import DataAPI, ResourceType
from .screen import Screen
from .through import Carrier
from .walk import Step, Unexpected, expect, present

if TYPE_CHECKING:
    from ..emulator import Emulator

_HOUR = 3600.0
_TIMEOUT = 60.0  # seconds; far above what a step takes, so that a demo always ends
_BACKOFF = 0.05  # seconds; short, since nobody needs to see how long a second is more than once
_CALLERS = 20
_LATE = 0.2  # seconds; enough for all callers to be under way
_REFUSALS = 4
_SIZE = 100_000  # bytes that are sent twice
_PATH = "resources"
_MARK = {"X-Team": "demo"}  # a header of the config, which may be as private as a credential
# What a request carries wherever it goes (README: Redirects). Anything else belongs to its origin.
_NEUTRAL = frozenset({"host", "user-agent", "accept", "accept-encoding"})

Kind = TypeVar("Kind", bound=Event)


class TurnableClock:
    """Wall time, for the emulator; ahead of ours by so many seconds."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        """The time."""
        return time.time() + self.ahead


class Story:
    """What was told about one call, or about some that ran at the same time."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events

    def of(self, kind: type[Kind]) -> list[Kind]:
        """What was told of this kind, in its order."""
        return [event for event in self._events if isinstance(event, kind)]

    @property
    def statuses(self) -> list[int]:
        """How the requests were answered; one that was not is left out."""
        return [event.status for event in self.of(HeadReceived)]


class Caller:
    """A client, and what its listener has been told."""

    def __init__(self, client: DataAPI, carrier: Carrier, told: list[Event]) -> None:
        self.client = client
        self.api = carrier.api(client)
        self._told = told

    def story(self) -> Story:
        """What happened since this was asked for last."""
        story = Story(self._told[:])
        self._told.clear()
        return story


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What the steps share: the emulator and its clock, another origin, a folder, what carries the calls."""

    emulator: Emulator
    other: Emulator
    clock: TurnableClock
    folder: Path
    carrier: Carrier
    stack: ExitStack
    """Ends the clients."""

    @property
    def tokens(self) -> int:
        """How many access tokens were fetched."""
        return self.emulator.service.token_fetches

    def caller(self, config: Config | None = None, *, use_access_token: bool = False) -> Caller:
        """A client that has learned nothing yet."""
        told: list[Event] = []
        usual = Config(
            data_endpoint=self.emulator.endpoint,
            control_endpoint=self.emulator.endpoint,
            account_id=self.emulator.environment["AGENTRUN_ACCOUNT_ID"],
            region_id=self.emulator.environment["AGENTRUN_REGION"],
            access_key_id=self.emulator.environment["AGENTRUN_ACCESS_KEY_ID"],
            access_key_secret=self.emulator.environment["AGENTRUN_ACCESS_KEY_SECRET"],
            timeout=_TIMEOUT,
            retry=Retry(backoff=_BACKOFF),
        )
        client = DataAPI(
            "demo",
            ResourceType.Runtime,
            usual.merge(config),
            use_access_token=use_access_token,
            listener=told.append,
            transport="native",  # no proxy of the caller's leads to an emulator on this machine
        )
        return Caller(self.stack.enter_context(client), self.carrier, told)

    def holder(self) -> Caller:
        """A client whose access token the service accepts no more, as when it has expired."""
        caller = self.caller(use_access_token=True)
        caller.api.get(_PATH)
        token = self.emulator.requests.last[-1].header("Agentrun-Access-Token")
        if token is None:
            raise Unexpected("a call should carry the access token, and carries none")
        self.emulator.service.revoke_token(token)
        caller.story()
        return caller

    def fail(self, count: int = 1, match: str = "", **fault: Any) -> None:
        """Has so many requests fail."""
        from ..emulator import Fault

        self.emulator.service.faults.add(Fault(**fault), count=count, match=match)


def _clock(scene: Scene) -> str:
    caller = scene.caller()
    scene.clock.ahead = _HOUR
    try:
        caller.api.get(_PATH)
        first = caller.story()
        caller.api.get(_PATH)
        second = caller.story()
    finally:
        scene.clock.ahead = 0.0
    expect("how the first call was answered", first.statuses, [403, 200])
    offsets = [event.offset for event in first.of(ClockAdjusted)]
    # A Date has whole seconds.
    expect("the offset, in minutes", [round(offset / 60) for offset in offsets], [60])
    expect("how the next call was answered", second.statuses, [200])
    return (
        "the service's clock is an hour ahead of ours\n"
        "-> 403, whose Date tells; signed for that time: 200\n"
        "-> the next call: 200 at once, the offset is kept"
    )


def _token(scene: Scene) -> str:
    caller = scene.holder()
    before = scene.tokens
    caller.api.get(_PATH)
    story = caller.story()
    expect("how the requests were answered", story.statuses, [401, 200, 200])
    expect("how often the credential was refreshed", len(story.of(CredentialsRefreshed)), 1)
    expect("how many tokens were fetched", scene.tokens - before, 1)
    return (
        "the access token expires between two calls\n"
        "-> 401; a new token is fetched, and sent: 200\n"
        f"   tokens fetched: {before} before, {scene.tokens} now"
    )


def _crowd(scene: Scene) -> str:
    caller = scene.holder()
    before = scene.tokens
    # Their refusals come late, so that all of them are under way by then.
    scene.fail(count=_CALLERS, match=f"GET /2025-09-10/agents/{_PATH}", delay=_LATE)
    answers = scene.carrier.get_at_once(caller.client, _PATH, _CALLERS)
    story = caller.story()
    expect("how many got their answer", len(answers), _CALLERS)
    expect("how many tokens were fetched", scene.tokens - before, 1)
    expect("how often the credential was refreshed", len(story.of(CredentialsRefreshed)), 1)
    refused = story.statuses.count(401)
    if not refused:
        raise Unexpected("some of them should be refused, and none was")
    return (
        f"the token expires under {_CALLERS} calls at once\n"
        f"-> 401 for {refused} of them; 1 new token; {len(answers)} times 200"
    )


def _busy(scene: Scene) -> str:
    caller = scene.caller()
    scene.fail(status=429, retry_after="1")
    begin = perf_counter()
    caller.api.get(_PATH)
    took = perf_counter() - begin
    story = caller.story()
    expect("how the requests were answered", story.statuses, [429, 200])
    expect("the pause, in seconds", [event.delay for event in story.of(RetryScheduled)], [1.0])
    # Timers may end a little early; that is no reason to call it no pause.
    if took < 0.9:
        raise Unexpected(f"the call should wait for 1 s, and took {took:.2f} s")
    return f"too many requests: 429, Retry-After: 1\n-> waited as told, {took:.2f} s in all: 200"


def _down(scene: Scene) -> str:
    caller = scene.caller(Config(retry=Retry(attempts=_REFUSALS + 1, backoff=_BACKOFF)))
    scene.fail(count=_REFUSALS, status=503)
    caller.api.get(_PATH)
    story = caller.story()
    expect("how the requests were answered", story.statuses, [503] * _REFUSALS + [200])
    pauses = [event.delay for event in story.of(RetryScheduled)]
    expect("how many pauses there were", len(pauses), _REFUSALS)
    spans = [_BACKOFF * 2**number for number in range(_REFUSALS)]
    return (
        f"the service is down for a while: {_REFUSALS} times 503\n"
        f"-> pauses of {_milliseconds(pauses)}, then 200\n"
        f"   by chance, from up to {_milliseconds(spans)}"
    )


def _milliseconds(seconds: list[float]) -> str:
    return f"{', '.join(f'{each * 1000:.0f}' for each in seconds)} ms"


def _lost(scene: Scene) -> str:
    caller = scene.caller()
    scene.fail(drop=True, match="POST")
    try:
        answer = caller.api.post("jobs", {"task": "what must not be done twice"})
    except IncompleteError as error:
        expect("may_be_processed", error.may_be_processed, True)
    else:
        raise Unexpected(f"the call should fail, and was answered with {answer!r}")
    expect("how often the request was sent", len(caller.story().of(RequestSent)), 1)
    expect("how often the service did it", caller.api.get("jobs")["data"]["total"], 1)
    return (
        "the connection breaks after a POST went out\n"
        "-> not sent again: IncompleteError, may_be_processed\n"
        "   rightly so: the service has done it, once"
    )


def _keyed(scene: Scene) -> str:
    caller = scene.caller()
    content = os.urandom(_SIZE)
    local = scene.folder / "keyed.bin"
    local.write_bytes(content)
    key = os.urandom(8).hex()
    scene.fail(drop=True, match="POST")
    answer = caller.api.post_file("files", local, "demo/keyed.bin", headers={"Idempotency-Key": key})
    expect("the hash of what arrived", answer["data"]["sha256"], sha256(content).hexdigest())
    expect("how often the request was sent", len(caller.story().of(RequestSent)), 2)
    keys = [request.header("Idempotency-Key") for request in scene.emulator.requests.last[-2:]]
    expect("the keys that arrived", keys, [key, key])
    return (
        "the same with an upload that has an Idempotency-Key\n"
        "-> sent again from its start, with the same key: 200\n"
        "   what arrived is what was sent: sha256 equal"
    )


def _redirect(scene: Scene) -> str:
    place = f"{scene.other.endpoint}/2025-09-10/agents/{_PATH}"
    scene.fail(count=2, status=307, location=place)
    caller = scene.caller(Config(headers=_MARK))
    try:
        answer = caller.api.get(_PATH)
    except AuthenticationError as error:
        expect("the status of the other origin", error.status_code, 401)
    else:
        raise Unexpected(f"the other origin should ask who is calling, and answered {answer!r}")
    expect("whether a credential went along", [e.credential for e in caller.story().of(Redirected)], [False])
    expect("what went along", sorted(_fields(scene.other) - _NEUTRAL), [])
    trusting = scene.caller(Config(headers=_MARK, trusted_origins=[scene.other.endpoint]))
    trusting.api.get(_PATH)
    expect("whether a credential went along", [e.credential for e in trusting.story().of(Redirected)], [True])
    expect("whether a signature arrived", "agentrun-authorization" in _fields(scene.other), True)
    return (
        "a redirect leads to another origin: 307\n"
        "-> followed without credential and headers: 401 there\n"
        "-> in trusted_origins, it gets a signature: 200"
    )


def _fields(emulator: Emulator) -> set[str]:
    """The names of the fields of the last request that arrived there."""
    return {name.lower() for name, _ in emulator.requests.last[-1].headers}


STEPS: tuple[Step[Scene], ...] = (
    Step(name="clock", run=_clock),
    Step(name="token", run=_token),
    Step(name="crowd", run=_crowd),
    Step(name="busy", run=_busy),
    Step(name="down", run=_down),
    Step(name="lost", run=_lost),
    Step(name="keyed", run=_keyed),
    Step(name="redirect", run=_redirect),
)


def faults_demo(driver: str, screen: Screen) -> int:
    """The command demo, with ``--faults``."""
    from ..emulator import Emulator

    clock = TurnableClock()
    with (
        Emulator(now=clock) as emulator,
        Emulator() as other,
        tempfile.TemporaryDirectory(prefix="agentrun-demo-") as folder,
        ExitStack() as stack,
    ):
        screen.line(("An emulator of the service runs at ", ""), (emulator.endpoint, "cyan"))
        screen.beside((), "What goes wrong now goes wrong on purpose; the client is to survive it.")

        def stage(carrier: Carrier) -> Scene:
            return Scene(
                emulator=emulator,
                other=other,
                clock=clock,
                folder=Path(folder),
                carrier=carrier,
                stack=stack,
            )

        return present(STEPS, driver, stage, screen)
