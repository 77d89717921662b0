"""The simulation itself: each fault does what its name says, on every driver, at the very time."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from math import inf

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from agentrun_proto import (
    AgentRunClientError,
    Config,
    ConnectError,
    ConnectTimeout,
    IncompleteError,
    InternalServerError,
    PayloadTooLargeError,
    PermissionDeniedError,
    ReadTimeout,
    Retry,
    ServiceUnavailableError,
    Timeout,
    TooManyRequestsError,
)
from agentrun_transports import DataAPI, ResourceType
from agentrun_transports.emulator import Fault, Service
from agentrun_transports.testing import FaultModel, Simulation, SimulationFailure, Standstill, simulate
from agentrun_transports.testing._world import EPOCH, Dial, World
from agentrun_transports.testing.choices import Choices, shortest
from proto_strategies import PROPERTY

from .workload import DRIVERS

on_every_driver = pytest.mark.parametrize("driver", DRIVERS)
ANSWER = "connection 1, answer 1"
NEVER = Config(retry=Retry.never(), timeout=10.0)


class Faced:
    """A client of any kind, with methods to await."""

    def __init__(self, simulation, client=None):
        self.simulation = simulation
        self.client = client or simulation.client

    def __getattr__(self, name):
        method = getattr(self.client, name)

        async def call(*args, **settings):
            answer = method(*args, **settings)
            return answer if self.simulation.driver == "blocking" else await answer

        return call

    async def sleep(self, seconds):
        if self.simulation.driver == "blocking":
            self.simulation.sleep(seconds)
        else:
            await (trio if self.simulation.driver == "trio" else asyncio).sleep(seconds)


def play(driver, program, script=None, *, seed=1, faults=None):
    """Runs an async program on any driver; by default nothing goes wrong but what the script says."""
    script = (script or {}) if faults is None else None
    with Simulation(seed, driver=driver, script=script, faults=faults) as simulation:
        faced = Faced(simulation)
        if driver != "blocking":
            return simulation.run(lambda _: program(faced))
        with pytest.raises(StopIteration) as stop:
            program(faced).send(None)
        return stop.value.value


async def outcome(faced, *, post=False):
    """How one call ended, when, and over how many connections."""
    try:
        if post:
            ended = await faced.post("resources", {"name": "a"}, config=NEVER)
        else:
            ended = await faced.get("resources", config=NEVER)
    except AgentRunClientError as error:
        ended = error
    return ended, faced.simulation.time, faced.simulation.requests.count


# --- choices


def test_a_choice_depends_on_its_label_alone():
    one, other = Choices(3), Choices(3)
    labels = [f"label {number}" for number in range(50)]
    forwards = {label: one.choose(label, 0.5, 9) for label in labels}
    backwards = {label: other.choose(label, 0.5, 9) for label in reversed(labels)}
    assert forwards == backwards
    assert one.script == {label: chosen for label, chosen in forwards.items() if chosen}
    assert Choices(4).choose("label 1", 1.0, 10**9) != Choices(3).choose("label 1", 1.0, 10**9)


def test_the_odds_are_kept():
    choices = Choices(0)
    chosen = [choices.choose(f"{number}", 0.25, 4) for number in range(4000)]
    assert 900 < sum(map(bool, chosen)) < 1100
    assert set(chosen) == {0, 1, 2, 3, 4}
    assert all(abs(chosen.count(value) - 250) < 75 for value in (1, 2, 3, 4))


def test_a_script_says_all_that_goes_wrong():
    choices = Choices(0, {"a": 3})
    assert [choices.choose(label, 1.0, 5) for label in "ab"] == [3, 0]
    assert choices.script == {"a": 3}
    assert choices.random("x", 40) == Choices(0).random("x", 40)
    assert len(choices.random("x", 40)) == 40


@PROPERTY
@given(st.sets(st.sampled_from("abcdefghijkl"), min_size=1), st.sets(st.sampled_from("abcdefghijkl")))
def test_what_is_left_of_a_script_is_what_it_takes(present, needed):
    if not needed <= present:
        return
    asked = []

    def fails(script):
        asked.append(script)
        return needed <= script.keys()

    assert shortest(dict.fromkeys(present, 7), fails) == dict.fromkeys(needed, 1)
    assert len(asked) <= 200


def test_making_a_script_shorter_has_an_end():
    asked = []
    script = {str(number): 2 for number in range(500)}
    assert shortest(script, lambda each: bool(asked.append(each)), tries=30) == script
    assert len(asked) == 30


# --- the fault model


def test_a_fault_model_is_checked():
    assert FaultModel.only(reset=0.5) == FaultModel.only(reset=0.5)
    with pytest.raises(ValueError, match="reset"):
        FaultModel(reset=1.5)
    with pytest.raises(TypeError):
        FaultModel.only(resets=0.5)


# --- time


def test_the_world_goes_on_in_order():
    world, done = World(), []
    world.at(2.0, lambda: done.append("second"))
    world.at(1.0, lambda: done.append("first"))
    world.at(1.5, lambda: done.append("never")).cancel()
    world.at(2.0, lambda: world.at(2.0, lambda: done.append("third")))
    world.advance(0.5)
    assert (world.time, done) == (0.5, [])
    world.advance()
    assert (world.time, done) == (1.0, ["first"])
    world.advance(100.0)
    assert (world.time, done, world.now()) == (2.0, ["first", "second", "third"], EPOCH + 2.0)
    with pytest.raises(Standstill):
        world.advance()
    before = world.time
    world.advance(before)  # a wait that is too short to show
    assert world.time > before
    world.close()


@on_every_driver
def test_hours_pass_at_once(driver):
    async def program(faced):
        await faced.get("resources")
        await faced.sleep(7 * 3600.0)
        await faced.get("resources")
        return faced.simulation.time, faced.simulation.report().connections

    assert play(driver, program) == (7 * 3600.0, 2)


@on_every_driver
def test_a_connection_that_is_used_is_kept(driver):
    async def program(faced):
        for _ in range(9):
            await faced.get("resources")
            await faced.sleep(10.0)  # the service closes what is silent for a minute
        return faced.simulation.report().connections

    assert play(driver, program) == 1


@on_every_driver
def test_waits_without_end(driver, tmp_path):
    (tmp_path / "a").write_bytes(b"a" * 2_000_000)
    forever = Timeout(total=inf, connect=inf, read=inf, write=inf, pool=inf)

    async def program(faced):
        sent = await faced.post_file("files", tmp_path / "a", "a", config=Config(timeout=forever))
        return sent["data"]["size"]

    assert play(driver, program, {f"{ANSWER}: late by (ms)": 5000}) == 2_000_000


@on_every_driver
def test_a_standstill_is_told(driver):
    async def program(faced):
        endless = Config(timeout=Timeout(total=inf))
        await faced.get("resources", config=endless)

    with pytest.raises(Standstill):
        play(driver, program, {"connection 1: never answered": 1})


def test_what_would_run_in_a_thread_runs_at_once():
    async def program(simulation):
        loop = asyncio.get_running_loop()
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 // 0)
        return await asyncio.to_thread(lambda: simulation.time)

    with Simulation(1, driver="asyncio") as simulation:
        assert simulation.run(program) == 0.0


def test_nobody_minds_a_thread_whose_outcome_nobody_wants():
    async def program(simulation):
        loop, wrong = asyncio.get_running_loop(), []
        loop.set_exception_handler(lambda loop, context: wrong.append(context))
        for function in (lambda: 1, lambda: 1 // 0):
            future = loop.run_in_executor(None, function)
            future.cancel()
            await asyncio.sleep(0.0)
            assert future.cancelled()
        return wrong

    with Simulation(1, driver="asyncio") as simulation:
        assert simulation.run(program) == []


def test_a_connection_that_nobody_takes_is_closed():
    world, dial = World(), Dial()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        dial.plan(world, 1.0, lambda: ours)
        world.advance()
        assert dial.ready
        dial.cancel()
        assert ours.fileno() == -1
    world.close()


# --- each fault

# The script; the class of the error, None for an answer; the virtual time; how many requests arrived.
FAULTS = [
    ({}, None, 0.0, 1),
    ({f"{ANSWER}: late by (ms)": 1500}, None, 1.5, 1),
    ({"connection 1, request 1: late by (ms)": 700, f"{ANSWER}: late by (ms)": 300}, None, 1.0, 1),
    ({f"{ANSWER}: in pieces of (bytes)": 100}, None, None, 1),
    ({f"{ANSWER}: a piece in (ms)": 250}, None, None, 1),
    ({"connection 1: refused": 1}, ConnectError, 0.0, 0),
    ({"connection 1: refused": 1, "connection 1: made late by (ms)": 400}, ConnectError, 0.4, 0),
    ({"connection 1: made late by (ms)": 9000}, None, 9.0, 1),
    ({"connection 1: never answered": 1}, ConnectTimeout, 10.0, 0),
    ({"connection 1, request 1: reset after (bytes)": 5}, IncompleteError, 0.0, 0),
    ({f"{ANSWER}: cut after (bytes)": 1}, IncompleteError, 0.0, 1),
    ({f"{ANSWER}: cut after (bytes)": 30, f"{ANSWER}: late by (ms)": 500}, IncompleteError, 0.5, 1),
    ({f"{ANSWER}: half-closed after (bytes)": 30}, IncompleteError, 0.0, 1),
    ({f"{ANSWER}: reset after (bytes)": 1}, IncompleteError, 0.0, 1),
    ({f"{ANSWER}: reset after (bytes)": 30}, IncompleteError, 0.0, 1),
    ({f"{ANSWER}: silent after (bytes)": 1}, ReadTimeout, 10.0, 1),
    ({f"{ANSWER}: silent after (bytes)": 30}, ReadTimeout, 10.0, 1),
    ({"served 1: the credential has expired": 1}, PermissionDeniedError, 0.0, 1),
    ({"service: clock ahead by (s)": 7000}, None, 0.0, 2),
    ({"service: clock behind by (s)": 7000}, None, 0.0, 2),
]


@on_every_driver
@pytest.mark.parametrize(("script", "error", "when", "requests"), FAULTS, ids=lambda value: str(value)[:60])
def test_each_fault_is_what_it_says(driver, script, error, when, requests):
    async def program(faced):
        if any("clock" in label for label in script):
            # A refused date is put right, which is an attempt more.
            try:
                return await faced.get("resources"), faced.simulation.time, faced.simulation.requests.count
            finally:
                assert faced.simulation.happened == script
        result = await outcome(faced)
        assert faced.simulation.happened == script
        return result

    ended, ended_at, arrived = play(driver, program, script)
    if error is None:
        assert ended["code"] == "SUCCESS"
    else:
        assert type(ended) is error
    assert arrived == requests
    assert ended_at == pytest.approx(when) if when is not None else 0 < ended_at < 10


@on_every_driver
@pytest.mark.parametrize(("end", "reset"), [("reset", True), ("cut", False), ("half-closed", False)])
def test_a_reset_is_a_real_one(driver, end, reset):
    async def program(faced):
        error, _, _ = await outcome(faced)
        return error.__cause__

    cause = play(driver, program, {f"{ANSWER}: {end} after (bytes)": 30})
    assert isinstance(cause, ConnectionResetError) is reset


@on_every_driver
@pytest.mark.parametrize(
    "script",
    [{f"{ANSWER}: followed by a stray one": 1}, {"after answer 1: closed when idle for (ms)": 10}],
    ids=["stray", "stale"],
)
def test_a_connection_that_is_not_fit_is_not_used_again(driver, script):
    script = {label if label.startswith("conn") else f"connection 1, {label}": 10 for label in script}

    async def program(faced):
        totals = []
        for _ in range(2):
            totals.append((await faced.get("resources"))["data"]["total"])
            await faced.sleep(1.0)
        return totals, faced.simulation.report().connections

    assert play(driver, program, script) == ([0, 0], 2)
    assert play(driver, program) == ([0, 0], 1)


@on_every_driver
def test_what_the_service_asks_for_is_waited(driver):
    async def program(faced):
        await faced.post("resources", {"name": "a"})
        return faced.simulation.time, faced.simulation.requests.count

    when, requests = play(driver, program, {"served 1: 503, Retry-After (s)": 7})
    assert (when, requests) == (pytest.approx(7.0), 2)
    assert play(driver, program, {"served 1: 429, Retry-After (s)": 2})[1] == 2


@on_every_driver
def test_a_post_whose_answer_is_lost_has_been_done_and_says_that_it_may(driver):
    async def program(faced):
        error, _, _ = await outcome(faced, post=True)
        return error.may_be_processed, (await faced.get("resources"))["data"]["total"]

    assert play(driver, program, {f"{ANSWER}: cut after (bytes)": 1}) == (True, 1)
    assert play(driver, program, {"connection 1, request 1: reset after (bytes)": 9}) == (True, 0)
    assert play(driver, program, {"connection 1: refused": 1}) == (False, 0)


@on_every_driver
@pytest.mark.parametrize("late", [0, 40], ids=["at once", "slowly"])
def test_what_is_too_much_for_the_sockets_arrives(driver, late, tmp_path):
    content = os.urandom(1_500_000)
    (tmp_path / "a").write_bytes(content)
    script = {f"connection 1, answer 2, part {part}: late by (ms)": late for part in range(9)} if late else {}

    async def program(faced):
        await faced.post_file("files", tmp_path / "a", "a")
        saved = await faced.get_file("files", tmp_path / "b", query={"path": "a"})
        return saved["size"]

    assert play(driver, program, script) == len(content)
    assert (tmp_path / "b").read_bytes() == content


@on_every_driver
def test_a_service_with_a_folder(driver, tmp_path):
    (tmp_path / "a").write_bytes(b"content" * 1000)

    async def program(faced):
        simulation = faced.simulation
        simulation.service = Service(
            tokens=["t"],
            now=lambda: EPOCH,
            new_id=iter(map(str, range(99))).__next__,
            folder=tmp_path / "kept",
        )
        config = Config(data_endpoint="http://agentrun.test", token="t")
        own = Faced(simulation, type(simulation.client)(config, transport=simulation.transport))
        await own.post_file("files", tmp_path / "a", "a")
        await own.get_file("files", tmp_path / "b", query={"path": "a"})
        if driver == "blocking":
            own.client.close()

    play(driver, program)
    assert (tmp_path / "b").read_bytes() == b"content" * 1000


# --- the whole


@on_every_driver
def test_other_clients_of_the_program(driver):
    async def program(faced):
        simulation = faced.simulation
        api = DataAPI("a", ResourceType.Runtime, simulation.config, transport=simulation.transport)
        if driver == "blocking":
            with api:
                api.post("resources", {"name": "b"})
                return api.get("resources")["data"]["total"]
        await api.post_async("resources", {"name": "b"})
        return (await api.get_async("resources"))["data"]["total"]

    assert play(driver, program) == 1


@on_every_driver
def test_there_is_no_tls(driver):
    async def program(faced):
        simulation = faced.simulation
        config = simulation.config.merge(Config(data_endpoint="https://agentrun.test"))
        client = type(simulation.client)(config, transport=simulation.transport)
        await Faced(simulation, client).get("resources", config=NEVER)

    with pytest.raises(ConnectError, match="http"):
        play(driver, program)


@on_every_driver
def test_nothing_is_left_open(driver):
    async def program(faced):
        for _ in range(3):
            try:
                await faced.get("resources")
            except AgentRunClientError:
                pass

    play(driver, program)
    before = len(os.listdir("/proc/self/fd"))
    for seed in range(20):
        with Simulation(seed, driver=driver) as simulation:
            faced = Faced(simulation)
            if driver == "blocking":
                with pytest.raises(StopIteration):
                    program(faced).send(None)
            else:
                simulation.run(lambda _, faced=faced: program(faced))
                assert simulation.connections == 0
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_clock_of_the_machine_is_read(monkeypatch):
    def refuse(*args):
        raise AssertionError("the machine's clock was read")

    async def program(simulation):
        for _ in range(3):
            await simulation.client.post("resources", {"name": "a"}, idempotent=True)

    for driver in ("asyncio", "trio"):
        with Simulation(2, driver=driver, faults=FaultModel.only(late_answer=1.0)) as simulation:
            with monkeypatch.context() as patch:
                patch.setattr(time, "sleep", refuse)
                patch.setattr(time, "time", refuse)
                with pytest.raises(AgentRunClientError, match="another 'a'"):
                    simulation.run(program)
            assert simulation.time > 0


def test_a_failure_tells_the_shortest_script():
    def program(simulation):
        simulation.client.post("resources", {"name": "a"})
        simulation.client.get("resources")
        assert simulation.client.get("resources", config=NEVER)["data"]["total"] == 1

    faults = FaultModel.only(reset=0.05, late_answer=0.5, split=0.5)
    with pytest.raises(SimulationFailure) as caught:
        simulate(program, seeds=range(300), faults=faults)
    failure = caught.value
    assert (failure.driver, len(failure.script)) == ("blocking", 1)
    assert isinstance(failure.__cause__, IncompleteError)
    assert f"simulate(program, seeds=[{failure.seed}], driver='blocking', script={{" in str(failure)
    with pytest.raises(SimulationFailure):
        simulate(program, seeds=[failure.seed], script=failure.script)
    assert simulate(program, seeds=[failure.seed], script={}).faults == {}


def test_another_failure_is_not_the_same_one():
    def program(simulation):
        one, two = (simulation.choose(f"program: {label}", 1.0) for label in ("one", "two"))
        if one and two:
            raise LookupError("both")
        if one:
            raise ZeroDivisionError("one alone")

    with pytest.raises(SimulationFailure, match="LookupError: both") as caught:
        simulate(program, seeds=[1], faults=FaultModel.only())
    assert caught.value.script == {"program: one": 1, "program: two": 1}


def test_a_program_that_fails_by_itself_needs_no_script():
    async def program(simulation):
        raise LookupError("of its own")

    with pytest.raises(SimulationFailure, match=r"of its own[\s\S]*driver='asyncio', script=\{\}\)"):
        simulate(program)


@on_every_driver
def test_a_bug_in_the_service_is_the_programs_failure(driver):
    async def program(faced):
        def broken(request):
            raise LookupError("a handler of one's own")

        faced.simulation.service.admit = broken
        await faced.get("resources")

    with pytest.raises(LookupError, match="one's own"):
        play(driver, program)


def test_an_async_program_on_a_driver_that_awaits_nothing():
    async def program(simulation):
        pass

    with pytest.raises(SimulationFailure, match="TypeError: an async program"):
        simulate(program, driver="blocking")
    assert simulate(program, driver="trio", seeds=[1]).runs == 1


@on_every_driver
def test_a_client_that_leaves_amid_an_answer(driver):
    async def program(faced):
        quick = Config(retry=Retry.never(), timeout=2.0)
        for _ in range(2):
            with pytest.raises(ReadTimeout):
                await faced.get("resources", config=quick)
        await faced.sleep(60.0)
        return [line._over for line in faced.simulation._lines]

    script = {
        f"{ANSWER}: a piece in (ms)": 3000,
        "connection 2, answer 1: late by (ms)": 5000,
        "connection 2, answer 1: reset after (bytes)": 5,
    }
    assert play(driver, program, script) == [True, True]
    script = {
        f"{ANSWER}: a piece in (ms)": 3000,
        "connection 2, answer 1: late by (ms)": 5000,
        "connection 2, answer 1: half-closed after (bytes)": 5,
    }
    assert play(driver, program, script) == [True, True]


@on_every_driver
@pytest.mark.parametrize("end", [{}, {f"{ANSWER}: reset after (bytes)": 50}], ids=["whole", "reset"])
def test_an_answer_on_its_way_is_lost_with_its_connection(driver, end):
    async def program(faced):
        faced.simulation.service.body_limit = 1000  # which is answered before the whole has come
        error = None
        try:
            await faced.post("resources", {"name": "a" * 2000}, config=NEVER)
        except AgentRunClientError as raised:
            error, left = raised, faced.simulation.time
        await faced.sleep(60.0)
        assert faced.simulation.happened == script
        return type(error), left, [line._over for line in faced.simulation._lines]

    script = {
        "connection 1, request 1: reset after (bytes)": 1000,
        f"{ANSWER}: late by (ms)": 500,
        **end,
    }
    assert play(driver, program, script) == (IncompleteError, 0.0, [True])


@on_every_driver
def test_an_end_that_nobody_is_there_for(driver, monkeypatch):
    """Some systems refuse it; then the connection is closed as ever."""

    def refuse(sock, how):
        raise OSError(errno.ENOTCONN, "Socket is not connected")

    async def program(faced):
        error, _, _ = await outcome(faced)
        await faced.sleep(60.0)
        return type(error), [line._over for line in faced.simulation._lines]

    monkeypatch.setattr(socket.socket, "shutdown", refuse)
    script = {f"{ANSWER}: late by (ms)": 11_000, f"{ANSWER}: half-closed after (bytes)": 5}
    assert play(driver, program, script) == (ReadTimeout, [True])


def test_what_cannot_be():
    with pytest.raises(ValueError, match="driver"):
        Simulation(1, driver="curio")


@pytest.mark.parametrize(
    ("script", "stamp"),
    [
        ({}, "2026-03-06T12:00:00Z"),
        ({"service: clock ahead by (s)": 60}, "2026-03-06T12:01:00Z"),
        ({"service: clock behind by (s)": 60}, "2026-03-06T11:59:00Z"),
    ],
)
def test_the_clock_of_the_service(script, stamp):
    with Simulation(0, script=script) as simulation:
        assert simulation.ask("POST", "resources", {"name": "a"})["data"]["createdAt"] == stamp


def test_the_service_is_asked_past_all_faults():
    with Simulation(0, faults=FaultModel.only(busy=1.0)) as simulation:
        simulation.service.faults.add(Fault(status=500))
        assert simulation.ask("GET", "resources")["data"]["total"] == 0
        assert simulation.ask("GET", "/2025-09-10/agents/resources/no")["code"] == "ResourceNotFound"
        with pytest.raises(InternalServerError):
            simulation.client.get("resources", config=NEVER)
        with pytest.raises((ServiceUnavailableError, TooManyRequestsError)):
            simulation.client.get("resources", config=NEVER)
        assert simulation.time == 0.0


def test_reports_add_up():
    def program(simulation):
        simulation.choose("program: a choice of its own", 1.0, 3)
        simulation.client.get("resources")
        simulation.sleep(3600.0)

    total = simulate(program, seeds=range(2), faults=FaultModel.only(late_answer=1.0))
    assert (total.runs, total.requests, total.connections, total.faults) == (2, 2, 2, {"late by (ms)": 2})
    assert str(total).startswith("2 simulations, 2 requests over 2 connections, 2 faults, 2.0 virtual hours")


def test_the_sockets_are_the_machines():
    with Simulation(1, faults=FaultModel.only()) as simulation:
        simulation.client.get("resources")
        assert simulation.connections == 1
        assert all(isinstance(end, socket.socket) for end in simulation._ends)
        simulation.client.close()
        assert simulation.connections == 0


# --- what the service is told to do


def told(driver, fault, program):
    """Runs a program against a service that was told of one fault."""

    async def whole(faced):
        faced.simulation.service.faults.add(fault)
        return await program(faced)

    return play(driver, whole)


@on_every_driver
def test_a_pause_of_the_service_takes_virtual_time(driver):
    async def program(faced):
        await faced.get("resources")
        return faced.simulation.time

    assert told(driver, Fault(delay=2.5), program) == 2.5
    assert 0.2 < told(driver, Fault(slow=200), program) < 2.0


@on_every_driver
def test_a_connection_that_the_service_drops_before_the_next_request(driver):
    async def program(faced):
        for _ in range(2):
            await faced.get("resources")
        await faced.sleep(100.0)
        return faced.simulation.report().connections

    assert told(driver, Fault(drop_before=True), program) == 2


@on_every_driver
def test_nobody_asks_again_of_a_service_that_waits_for_it(driver):
    async def program(faced):
        await faced.get("resources")
        await faced.sleep(100.0)
        return [line._over for line in faced.simulation._lines]

    assert told(driver, Fault(drop_before=True), program) == [True]
    assert play(driver, program) == [True]


@on_every_driver
def test_a_stream_that_stalls_lasts_as_long_as_its_client_waits(driver):
    async def program(faced):
        request = faced.client.stream("GET", "lines", config=NEVER)
        with pytest.raises(ReadTimeout):
            if driver == "blocking":
                with request as stream:
                    list(stream)
            else:
                async with request as stream:
                    async for _ in stream:
                        pass
        await faced.sleep(3600.0)
        return [line._over for line in faced.simulation._lines]

    assert told(driver, Fault(after=1, then="stall"), program) == [True]


@on_every_driver
def test_a_client_that_leaves_in_a_pause_is_noticed(driver):
    async def program(faced):
        with pytest.raises(ReadTimeout):
            await faced.get("resources", config=NEVER)
        left = faced.simulation.time
        await faced.sleep(1.0)
        return left, [line._over for line in faced.simulation._lines]

    assert told(driver, Fault(delay=3600.0), program) == (10.0, [True])


@on_every_driver
def test_a_refusal_before_all_was_sent(driver, tmp_path):
    (tmp_path / "a").write_bytes(b"a" * 3_000_000)

    async def program(faced):
        faced.simulation.service.body_limit = 1000
        with pytest.raises(PayloadTooLargeError):
            await faced.post_file("files", tmp_path / "a", "a")
        with pytest.raises(PayloadTooLargeError):
            await faced.post("resources", {"name": "a" * 2000})
        await faced.sleep(100.0)
        return faced.simulation.time, [line._over for line in faced.simulation._lines]

    assert play(driver, program) == (100.0, [True, True])


@on_every_driver
def test_what_there_is_no_room_for_comes_before_the_end(driver, tmp_path):
    (tmp_path / "a").write_bytes(os.urandom(1_000_000))

    async def program(faced):
        await faced.post_file("files", tmp_path / "a", "a")
        await faced.get_file("files", tmp_path / "b", query={"path": "a"})
        return faced.simulation.happened, faced.simulation.requests.last[-1].header("Range")

    for end in ("cut", "half-closed"):
        cut = {f"connection 1, answer 2: {end} after (bytes)": 900_000}
        happened, rest = play(driver, program, cut)
        assert happened == cut
        assert rest.startswith("bytes=899")  # what came before the cut arrived; the head was a part of it
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# --- across drivers


def test_one_thing_after_another_is_the_same_on_every_driver():
    async def program(faced):
        ended = []
        for number in range(6):
            try:
                answer = await faced.post("resources", {"name": f"{number % 4}"})
                ended.append(answer["data"]["id"])
            except AgentRunClientError as error:
                ended.append(str(error))
            await faced.sleep(0.5)
        return ended, faced.simulation.happened, faced.simulation.time, faced.simulation.requests.last

    different = 0
    for seed in range(60):
        runs = [play(driver, program, seed=seed, faults=FaultModel()) for driver in DRIVERS]
        assert runs[0] == runs[1] == runs[2], seed
        different += runs[0][1] != {}
    assert different > 40


def test_who_leaves_with_bytes_unread_has_ended_the_connection():
    """The service's end is told of a reset then, and not of an end."""
    with Simulation(1, driver="blocking", script={}) as simulation:
        client = simulation.client
        made = client.post("resources", {"name": "big", "text": "x" * 1_000_000})
        with client.stream("GET", f"resources/{made['data']['id']}") as stream:
            assert stream.status == 200
        assert client.get("resources")["data"]["total"] == 1
        assert simulation.requests.count == 3
        assert simulation.connections == 1, "the first is gone"
