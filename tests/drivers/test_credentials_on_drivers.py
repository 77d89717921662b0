"""Credentials that are missing, end, are refused or never come, on every driver, over real sockets.

Rules of this file: what a test waits for is an event; a refresh is held until all who are to meet it wait for
it, so that nothing depends on who is faster; refreshes are counted by the emulator, or by the provider.
"""

import asyncio
import itertools
import os
import threading
import time
from contextlib import closing, contextmanager
from functools import partial

import pytest
import trio

from agentrun_proto import (
    AccessToken,
    AgentRunClientError,
    AuthenticationError,
    Config,
    CredentialError,
    DataEndpoint,
    PermissionDeniedError,
    Resource,
    Retry,
    Secret,
    ServiceUnavailableError,
    TimeoutExceeded,
)
from agentrun_transports import BlockingClient, Limits
from agentrun_transports._flights import Flights
from agentrun_transports.emulator import Emulator, Fault
from agentrun_transports.emulator.messages import Refusal
from conformance_drivers import DRIVERS
from drivers_support import BACKENDS, assert_silent, in_thread, native, run, session_of, turns

pytestmark = pytest.mark.once

PATIENCE = 30.0  # seconds; reached only where something is wrong
MANY = 100
TOKEN_PATH = "GET /2025-09-10/agents/accessToken"
SANDBOX = Resource(type="sandbox", name="sb-1")
OURS = tuple(name for name in DRIVERS if name not in ("selectors", "httpx"))
BLOCKING = ("blocking", "httpcore_blocking")
ASYNC = [
    pytest.param(*getattr(backend, "values", (backend,)), transport, marks=getattr(backend, "marks", ()))
    for backend, transport in itertools.product(BACKENDS, ("native", "httpcore"))
]
on_every_driver = pytest.mark.parametrize("name", OURS)
on_every_loop = pytest.mark.parametrize(("backend", "transport"), ASYNC)


class Boarding(Flights):
    """Tells when a refresh is begun, when so many wait for it, and when it is over."""

    def __init__(self, expected):
        super().__init__()
        self.begun, self.boarded, self.landed = threading.Event(), threading.Event(), threading.Event()
        self._left = iter(range(expected - 1, -1, -1))

    def join(self, key):
        place = super().join(key)
        self.begun.set()
        if next(self._left, None) == 0:
            self.boarded.set()
        return place

    def land(self, key, outcome):
        super().land(key, outcome)
        self.landed.set()


def board(session, expected=1):
    """Has a session tell of its refreshes from now on."""
    session._flights = boarding = Boarding(expected)
    return boarding


def the_session(driver):
    """The one session of a driver that has been run before."""
    if hasattr(driver, "_session") and not callable(driver._session):
        return driver._session
    (session,) = driver._sessions._by_loop.values()
    return session


def hold_tokens(emulator, until, refusal=None):
    """Has the control plane answer once an event is set: with a token, or with a refusal, once."""
    service, refusals = emulator.service, [] if refusal is None else [refusal]
    give = service._give_token

    def give_late(request):
        assert until.wait(PATIENCE)
        if refusals:
            raise refusals.pop()
        return give(request)

    service._give_token = give_late


def expire(emulator, endpoint):
    """The access token in use is good no more."""
    emulator.service.revoke_token(endpoint.identity.credential.token.reveal())


def get(endpoint):
    return lambda clock: endpoint.call(endpoint.request("GET", "resources"), clock=clock)


def token(text="emulator-token", expires_at=None):
    return AccessToken(token=Secret(text), expires_at=expires_at)


@pytest.fixture
def emulator():
    with Emulator() as running:
        yield running


@contextmanager
def opened(name, per_origin=16):
    with closing(DRIVERS[name](Limits(per_origin=per_origin))) as driver:
        yield driver


def with_token(emulator, **settings):
    """An endpoint that calls with a resource's access token."""
    settings = {"retry": Retry(backoff=0.0), "timeout": PATIENCE, **settings}
    return DataEndpoint(Config.from_env(emulator.environment).merge(Config(**settings)), resource=SANDBOX)


def provided(emulator, provider, **settings):
    """An endpoint whose credential comes from a provider."""
    environment = Config.from_env(emulator.environment, credential=False)
    settings = {"retry": Retry.never(), "timeout": PATIENCE, **settings}
    return DataEndpoint(environment.merge(Config(**settings)), credentials=provider)


# --- one refresh


@pytest.mark.hostile("calling-hundred")
@on_every_driver
def test_a_hundred_calls_that_meet_an_expired_token_fetch_one(name, emulator):
    endpoint = with_token(emulator)
    with opened(name) as driver:
        driver.run(get(endpoint))
        expire(emulator, endpoint)
        boarding = board(the_session(driver), MANY)
        hold_tokens(emulator, boarding.boarded)
        outcomes = driver.together([get(endpoint)] * MANY)
    assert [outcome for outcome in outcomes if isinstance(outcome, AgentRunClientError)] == []
    assert len(outcomes) == MANY
    assert emulator.service.token_fetches == 2


@on_every_driver
def test_a_hundred_calls_that_find_no_token_fetch_one(name, emulator):
    endpoint = with_token(emulator)
    with opened(name) as driver:
        driver.run(get(provided(emulator, token)))
        boarding = board(the_session(driver), MANY)
        hold_tokens(emulator, boarding.boarded)
        outcomes = driver.together([get(endpoint)] * MANY)
    assert [outcome for outcome in outcomes if isinstance(outcome, AgentRunClientError)] == []
    assert emulator.service.token_fetches == 1


@pytest.mark.hostile("calling-expired")
@on_every_driver
def test_an_expired_token_by_the_service_s_own_word(name, emulator):
    """`expired-token` is what the service says; each call that hears it is sent once more, and no oftener."""
    endpoint = with_token(emulator)
    with opened(name) as driver:
        driver.run(get(endpoint))
        emulator.service.faults.add(Fault(expired_token=True), match="GET /2025-09-10/agents/resources")
        driver.run(get(endpoint))
        assert emulator.service.token_fetches == 2
        emulator.service.faults.add(
            Fault(expired_token=True), match="GET /2025-09-10/agents/resources", count=None
        )
        with pytest.raises(AuthenticationError) as caught:
            driver.run(get(endpoint))
    assert emulator.service.token_fetches == 3
    assert len(caught.value.attempts) == 2


@pytest.mark.parametrize("name", BLOCKING)
def test_a_refresh_that_ends_between_the_look_and_the_asking_is_not_repeated(name, emulator):
    """One thread finds no token; before it asks for one, another has fetched it."""
    endpoint = with_token(emulator)
    with opened(name) as driver:
        session = the_session(driver)

        class Overtaken(Flights):
            def join(self, key):
                session._flights = Flights()
                driver.run(get(endpoint))
                return super().join(key)

        session._flights = Overtaken()
        driver.run(get(endpoint))
    assert emulator.service.token_fetches == 1


async def spread(backend, calls, cancelled, when, first=None):
    """Runs calls side by side, all but one once `first` is set, and cancels some once `when` is.

    Returns what came of each: its result, its error, or ``"cancelled"``.
    """
    outcomes = [None] * len(calls)

    async def one(number):
        try:
            outcomes[number] = await calls[number]()
        except AgentRunClientError as error:
            outcomes[number] = error

    if backend == "trio":
        scopes = [trio.CancelScope() for _ in calls]

        async def scoped(number):
            with scopes[number]:
                await one(number)
            if scopes[number].cancelled_caught:
                outcomes[number] = "cancelled"

        async with trio.open_nursery() as nursery:
            for number in range(len(calls)):
                nursery.start_soon(scoped, number)
                if number == 0 and first is not None:
                    await in_thread(backend, first.wait, PATIENCE)
            await in_thread(backend, when.wait, PATIENCE)
            for number in cancelled:
                scopes[number].cancel()
    else:
        tasks = []
        for number in range(len(calls)):
            tasks.append(asyncio.ensure_future(one(number)))
            if number == 0 and first is not None:
                await in_thread(backend, first.wait, PATIENCE)
        await in_thread(backend, when.wait, PATIENCE)
        for number in cancelled:
            tasks[number].cancel()
        for number, ended in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
            if isinstance(ended, asyncio.CancelledError):
                outcomes[number] = "cancelled"
    return outcomes


@pytest.mark.hostile("calling-hundred")
@on_every_loop
def test_half_of_the_waiters_are_cancelled_and_the_first_of_them(backend, transport, emulator):
    """Whoever has begun the refresh may go away: the others get what it brings."""
    cancelled = list(range(0, MANY, 2))

    async def main():
        config = Config.from_env(emulator.environment).merge(Config(timeout=PATIENCE))
        async with native(backend)(config, access_token_for=SANDBOX, transport=transport) as client:
            await client.get("resources")
            expire(emulator, client.endpoint)
            boarding, gone = board(session_of(client), MANY), threading.Event()
            hold_tokens(emulator, gone)  # until the last of them has gone
            left = list(cancelled)

            async def call():
                try:
                    return await client.get("resources")
                except BaseException:
                    left.pop()
                    if not left:
                        gone.set()
                    raise

            calls = [call] * MANY
            return await spread(backend, calls, cancelled, boarding.boarded, first=boarding.begun)

    outcomes = run(backend, main)
    assert [number for number, outcome in enumerate(outcomes) if outcome == "cancelled"] == cancelled
    assert [outcome for outcome in outcomes if isinstance(outcome, AgentRunClientError)] == []
    assert emulator.service.token_fetches == 2


# --- a refresh that fails

REFUSALS = {
    503: (ServiceUnavailableError, "busy"),
    403: (PermissionDeniedError, "not yours"),
}


@pytest.mark.parametrize("status", REFUSALS)
@on_every_driver
def test_a_failed_refresh_fails_its_waiters_and_not_the_next_call(name, status, emulator):
    kind, text = REFUSALS[status]
    endpoint = with_token(emulator, retry=Retry.never())
    with opened(name) as driver:
        driver.run(get(provided(emulator, token)))
        boarding = board(the_session(driver), 20)
        hold_tokens(emulator, boarding.boarded, Refusal(status, text))
        errors = driver.together([get(endpoint)] * 20)
        assert {type(error) for error in errors} == {CredentialError}
        assert len({id(error) for error in errors}) == 20
        for error in errors:
            assert error.status_code == status
            assert text in str(error)
            assert isinstance(error.__cause__.__cause__, kind)
            assert not error.may_be_processed
        assert emulator.service.token_fetches == 0
        assert driver.run(get(endpoint))["code"] == "SUCCESS"
    assert emulator.service.token_fetches == 1


@on_every_driver
def test_a_fetch_is_retried_as_every_call_is(name, emulator):
    emulator.service.faults.add(Fault(status=503), count=2, match=TOKEN_PATH)
    with opened(name) as driver:
        driver.run(get(with_token(emulator)))
    targets = [request.target.partition("?")[0] for request in emulator.requests.last]
    assert targets == ["/2025-09-10/agents/accessToken"] * 3 + ["/2025-09-10/agents/resources"]


@on_every_driver
def test_a_refused_token_whose_refresh_fails_tells_of_the_refresh(name, emulator):
    endpoint = with_token(emulator)
    with opened(name) as driver:
        driver.run(get(endpoint))
        expire(emulator, endpoint)
        emulator.service.faults.add(Fault(status=403), match=TOKEN_PATH)
        with pytest.raises(CredentialError) as caught:
            driver.run(get(endpoint))
        assert caught.value.status_code == 403
        assert driver.run(get(endpoint))["code"] == "SUCCESS"


# --- ahead of the expiry


class Ahead:
    """A clock whose wall time is so many seconds ahead."""

    def __init__(self, clock, seconds):
        self.monotonic = clock.monotonic
        self._clock, self._seconds = clock, seconds

    def now(self):
        return self._clock.now() + self._seconds


def get_later(endpoint, seconds):
    return lambda clock: endpoint.call(endpoint.request("GET", "resources"), clock=Ahead(clock, seconds))


class Slow:
    """A provider of tokens that live for an hour; from its second call on, it waits, and it may fail then."""

    def __init__(self, fails=False):
        self.asked, self.release = threading.Event(), threading.Event()
        self.calls = 0
        self.fails = fails

    def __call__(self):
        self.calls += 1
        if self.calls > 1:
            self.asked.set()
            assert self.release.wait(PATIENCE)
            if self.fails:
                raise LookupError("nothing there")
        return token(expires_at=time.time() + 3600.0 + self.calls)


def until(event, driver, endpoint):
    """Lets a driver turn until an event is set: an event loop of this thread turns only while it is run."""
    end = time.monotonic() + PATIENCE
    while not event.is_set():
        assert time.monotonic() < end
        driver.run(get(endpoint))


@pytest.mark.parametrize("fails", [False, True], ids=["renewed", "fails"])
@on_every_driver
def test_ahead_of_the_expiry_nobody_waits_for_a_refresh(name, fails, emulator):
    provider = Slow(fails)
    endpoint = provided(emulator, provider)
    with opened(name) as driver:
        driver.run(get(endpoint))
        former = endpoint.identity.credential
        boarding = board(the_session(driver))
        assert driver.run(get_later(endpoint, 2800.0))["code"] == "SUCCESS"  # the provider is waiting
        assert provider.asked.wait(PATIENCE)
        assert not boarding.landed.is_set()
        assert driver.run(get_later(endpoint, 2800.0))["code"] == "SUCCESS"
        assert endpoint.identity.credential is former
        provider.release.set()
        until(boarding.landed, driver, endpoint)
        assert (endpoint.identity.credential is former) is fails
        assert driver.run(get(endpoint))["code"] == "SUCCESS"
    assert provider.calls == 2


@on_every_driver
def test_close_to_the_expiry_a_call_waits(name, emulator):
    provider = Slow()
    provider.release.set()
    endpoint = provided(emulator, provider)
    with opened(name) as driver:
        driver.run(get(endpoint))
        former = endpoint.identity.credential
        driver.run(get_later(endpoint, 3500.0))
        assert endpoint.identity.credential is not former
    assert provider.calls == 2


# --- providers


@on_every_loop
def test_a_provider_that_blocks_does_not_block_the_loop(backend, transport, emulator):
    asked, release = threading.Event(), threading.Event()

    def provider():
        asked.set()
        assert release.wait(PATIENCE), "the loop stood still"
        return token()

    async def main():
        config = Config.from_env(emulator.environment, credential=False)
        async with native(backend)(config, credentials=provider, transport=transport) as client:
            done = threading.Event()
            done.set()

            async def let_go():
                await in_thread(backend, asked.wait, PATIENCE)
                release.set()

            return await spread(backend, [partial(client.get, "resources"), let_go], [], done)

    answer, _ = run(backend, main)
    assert answer["code"] == "SUCCESS"


def turn():
    return turns("trio" if trio.lowlevel.in_trio_run() else "asyncio", 2)


async def ask(text="emulator-token"):
    await turn()
    return token(text)


class Asked:
    async def __call__(self):
        return await ask()


ASYNC_PROVIDERS = {
    "function": ask,
    "partial": partial(ask, "emulator-token"),
    "callable": Asked(),
    "method": Asked().__call__,
}


@pytest.mark.parametrize("form", ASYNC_PROVIDERS)
@on_every_driver
def test_an_async_provider_is_awaited_where_there_is_a_loop(name, form, emulator):
    endpoint = provided(emulator, ASYNC_PROVIDERS[form])
    with opened(name) as driver:
        if name in BLOCKING:
            with pytest.raises(CredentialError, match="cannot await"):
                driver.run(get(endpoint))
        else:
            assert driver.run(get(endpoint))["code"] == "SUCCESS"
    assert emulator.requests.count == (name not in BLOCKING)


def fails():
    raise LookupError("a secret place")


async def fails_later():
    await turn()
    raise LookupError("a secret place")


def refuses():
    raise CredentialError("the file is not readable")


def stops():
    raise StopIteration


class Awaited:
    """To be awaited, and no coroutine."""

    def __await__(self):
        return ask().__await__()


UNFIT = {
    "raises": (fails, "failed with LookupError", LookupError),
    "raises ours": (refuses, "the file is not readable", type(None)),
    "stops": (stops, "failed with StopIteration", StopIteration),
    "none": (lambda: None, "no credential", type(None)),
    "junk": (lambda: "emulator-token", "returned a str", type(None)),
    "an error": (lambda: ValueError("returned"), "failed with ValueError", ValueError),
    "coroutine": (lambda: ask(), "give the async function itself", type(None)),
    "awaitable": (lambda: Awaited(), "give the async function itself", type(None)),
}


@pytest.mark.parametrize("case", UNFIT)
@on_every_driver
def test_a_provider_that_provides_nothing(name, case, emulator):
    provider, message, cause = UNFIT[case]
    endpoint = provided(emulator, provider)
    with opened(name) as driver:
        for _ in range(2):  # nothing is kept of a failure
            with pytest.raises(CredentialError, match=message) as caught:
                driver.run(get(endpoint))
            assert isinstance(caught.value.__cause__, CredentialError)
            assert isinstance(caught.value.__cause__.__cause__, cause)
            assert "secret place" not in str(caught.value)
            assert not caught.value.may_be_processed
    assert emulator.requests.count == 0


@on_every_loop
def test_an_async_provider_that_fails(backend, transport, emulator):
    async def main():
        config = Config.from_env(emulator.environment, credential=False)
        client = native(backend)(config, credentials=fails_later, transport=transport)
        with pytest.raises(CredentialError, match="failed with LookupError"):
            await client.get("resources")

    run(backend, main)


# --- time


@on_every_driver
def test_the_wait_for_a_credential_is_part_of_the_call(name, emulator):
    release, asked = threading.Event(), []

    def provider():
        asked.append(1)
        assert release.wait(PATIENCE)
        return token()

    endpoint = provided(emulator, provider, timeout=0.1)
    with opened(name) as driver:
        driver.run(get(provided(emulator, token)))
        sent = emulator.requests.count
        boarding = board(the_session(driver))
        with pytest.raises(TimeoutExceeded) as caught:
            driver.run(get(endpoint))
        assert type(caught.value) is TimeoutExceeded
        assert not caught.value.may_be_processed
        assert emulator.requests.count == sent
        release.set()
        until(boarding.landed, driver, provided(emulator, token))
        patient = endpoint.overlaid(Config(timeout=PATIENCE))
        assert driver.run(get(patient))["code"] == "SUCCESS"
    assert asked == [1], "the late one is kept"


# --- ends

ENDS = """
import threading
from agentrun_proto import AccessToken, Config, Secret, Resource
from agentrun_transports import AsyncioClient, TrioClient
loop, transport, how = {arguments!r}
import {module} as lib
from agentrun_transports.emulator import Emulator
from agentrun_transports.emulator.messages import Refusal

asked, release = threading.Event(), threading.Event()

async def waits():
    asked.set()
    if loop == "trio":
        await lib.sleep_forever()
    await lib.get_running_loop().create_future()

def blocks():
    asked.set()
    release.wait()
    return AccessToken(token=Secret("emulator-token"))

async def main(emulator):
    if loop == "asyncio":
        lib.get_running_loop().slow_callback_duration = {patience}  # a slow machine is no fault
    config = Config.from_env(emulator.environment, credential=how == "fetch")
    if how == "fetch":
        def give(request):
            asked.set()
            emulator.closing.wait()
            raise Refusal(503, "closed")
        emulator.service._give_token = give
        client = CLIENT(config, access_token_for=Resource(type="sandbox", name="s"), transport=transport)
    else:
        client = CLIENT(config, credentials=waits if how == "awaits" else blocks, transport=transport)
    async def call():
        await client.get("resources")
    if loop == "trio":
        async with lib.open_nursery() as nursery:
            nursery.start_soon(call)
            await lib.to_thread.run_sync(asked.wait)
            nursery.cancel_scope.cancel()
    else:
        task = lib.ensure_future(call())
        await lib.get_running_loop().run_in_executor(None, asked.wait)
        task.cancel()
        try:
            await task
        except lib.CancelledError:
            pass
    print("left")
    release.set()

CLIENT = TrioClient if loop == "trio" else AsyncioClient
with Emulator() as emulator:
    if loop == "trio":
        lib.run(main, emulator)
    else:
        lib.run(main(emulator))
print("over")
"""


@pytest.mark.parametrize("how", ["awaits", "blocks", "fetch"])
@pytest.mark.parametrize("transport", ["native", "httpcore"])
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_the_loop_ends_while_a_refresh_is_under_way(loop, transport, how):
    assert_silent(ENDS.format(module=loop, arguments=(loop, transport, how), patience=PATIENCE), "left\nover")


@on_every_loop
def test_a_refresh_that_its_loop_has_ended_is_begun_anew_on_the_next(backend, transport, emulator):
    """The client outlives the loop: what the first one left unfinished holds nobody up on the second."""
    asked = threading.Event()
    calls = []

    async def provider():
        calls.append(1)
        if len(calls) == 1:
            asked.set()
            await (trio.sleep_forever() if backend == "trio" else asyncio.get_running_loop().create_future())
        return token()

    config = Config.from_env(emulator.environment, credential=False)
    client = native(backend)(config, credentials=provider, transport=transport)

    async def leave():
        return await spread(backend, [partial(client.get, "resources")], [0], asked)

    async def call():
        return await client.get("resources")

    assert run(backend, leave) == ["cancelled"]
    assert run(backend, call)["code"] == "SUCCESS"
    assert len(calls) == 2


LEAVES = """
import threading
from agentrun_proto import Config
from agentrun_transports import BlockingClient

asked = threading.Event()

def provider():
    asked.set()
    threading.Event().wait()

client = BlockingClient(Config(data_endpoint="http://127.0.0.1:9"), credentials=provider, transport={!r})
threading.Thread(target=client.get, args=("resources",), daemon=True).start()
asked.wait()
print("over")
"""


@pytest.mark.parametrize("transport", ["native", "httpcore"])
def test_the_program_ends_while_a_refresh_is_under_way(transport):
    assert_silent(LEAVES.format(transport), "over")


FORKS = """
import os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads, since Python 3.12
from agentrun_proto import AccessToken, Config, Secret
from agentrun_transports import BlockingClient
from agentrun_transports.emulator import Emulator

parent = os.getpid()
asked, release = threading.Event(), threading.Event()

def provider():
    if os.getpid() == parent:
        asked.set()
        release.wait()
    return AccessToken(token=Secret("emulator-token"))

with Emulator() as emulator:
    config = Config.from_env(emulator.environment, credential=False)
    client = BlockingClient(config, credentials=provider, transport={!r})
    answers = []
    caller = threading.Thread(target=lambda: answers.append(client.get("resources")["code"]))
    caller.start()
    asked.wait()
    child = os.fork()
    if not child:
        ok = client.get("resources")["code"] == "SUCCESS"
        os._exit(0 if ok else 1)
    _, status = os.waitpid(child, 0)
    release.set()
    caller.join()
    print(status, *answers)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("transport", ["native", "httpcore"])
def test_a_fork_while_a_refresh_is_under_way(transport):
    """The thread that refreshes is the parent's alone: the child begins its own, and waits for no other."""
    assert_silent(FORKS.format(transport), "0 SUCCESS")


def test_a_client_that_is_gone_before_its_refresh_is_over(emulator):
    """A blocking one: the thread goes on by itself, and nobody is told."""
    provider = Slow()
    config = Config.from_env(emulator.environment, credential=False)
    client = BlockingClient(config, credentials=provider)
    client.get("resources")
    endpoint, session = client.endpoint, client._session
    boarding = board(session)
    session.run(get_later(endpoint, 2800.0))
    assert provider.asked.wait(PATIENCE)
    client.close()
    del client, session
    provider.release.set()
    assert boarding.landed.wait(PATIENCE)
