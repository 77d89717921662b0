"""The exchange driven by hand: every network command fails in turn, in every way, for every operation.

After each failure: the error is a documented one, every place is given back, what was opened is closed, no
file is left, and the next call works.
"""

from __future__ import annotations

import gc
import json
from functools import partial
from itertools import count
from math import inf

import pytest

from agentrun_proto import (
    AgentRunClientError,
    Config,
    ConnectError,
    ConnectTimeout,
    CredentialError,
    DataEndpoint,
    FileError,
    IncompleteError,
    PoolTimeout,
    ReadSome,
    ReadTimeout,
    Refresh,
    Resource,
    Retry,
    Send,
    Timeout,
    TransportError,
    WriteTimeout,
)
from agentrun_transports import _files
from agentrun_transports._exchange import Exchange
from agentrun_transports._network import Connect, Read, Run, Spawn, Wait, Write
from agentrun_transports._pool import Limits, Pool
from agentrun_transports.embedding import local_steps
from transports_support import ORIGIN, Cancelled, FakeNetwork, TurnedClock, answer

pytestmark = pytest.mark.once

ENDPOINT = DataEndpoint(Config(data_endpoint="http://h", timeout=100, retry=Retry.never()))
BOUNDARY = "b" * 32


class World:
    """A pool, a clock, and networks over them."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.clock = TurnedClock()
        self.pool = Pool(limits or Limits(), self.clock.monotonic)

    def run(self, make, network):
        return network.drive(Exchange(self.pool, self.clock).conduct(make(self.clock)))

    def network(self, reply, **settings):
        return FakeNetwork(self.clock, reply, **settings)


def call(method="GET", data=None):
    return lambda clock: ENDPOINT.call(ENDPOINT.request(method, "r", data=data), clock=clock)


def upload(path):
    return lambda clock: ENDPOINT.upload("u", str(path), filename="f", boundary=BOUNDARY, clock=clock)


def download(path):
    return lambda clock: ENDPOINT.download(ENDPOINT.file_request("d"), str(path), clock=clock)


OK = answer({"ok": 1})
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n" + b'{"ok": 1}' + b"\r\n0\r\n\r\n"
FILE = answer(b"x" * 300_000)


def operations(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"s" * 600_000)
    target = tmp_path / "target"
    target.write_bytes(b"old")
    return {
        "call": (call(), OK),
        "post": (call("POST", {"a": 1}), OK),
        "post_large": (call("POST", bytes(700_000)), OK),
        "put": (call("PUT", {"a": 1}), CHUNKED),
        "put_large": (call("PUT", bytes(700_000)), OK),
        "upload": (upload(source), OK),
        "download": (download(target), FILE),
        "download_chunked": (download(target), CHUNKED),
        "download_refused": (download(target), answer({"code": "ERR"}, "404 Not Found")),
        "download_json": (download(target), answer({"a": 1}, fields="Content-Type: application/json\r\n")),
    }


NAMES = (
    "call",
    "post",
    "post_large",
    "put",
    "put_large",
    "upload",
    "download",
    "download_chunked",
    "download_refused",
    "download_json",
)
FAILURES = {
    "oserror": lambda: OSError(5, "planned"),
    "reset": lambda: ConnectionResetError(104, "planned"),
    "timeout": lambda: TimeoutError("planned"),
    "cancelled": lambda: GeneratorExit,
}


@pytest.fixture
def opened(monkeypatch):
    """Every source and sink that the test opens."""
    found = []
    for kind in (_files.FileSource, _files.FileSink):
        make = kind.__init__

        def remember(self, *args, make=make):
            make(self, *args)
            found.append(self)

        monkeypatch.setattr(kind, "__init__", remember)
    return found


@pytest.mark.parametrize("warm", [False, True], ids=["fresh", "reused"])
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("name", NAMES)
def test_every_command_fails_in_turn(name, failure, warm, tmp_path, opened):
    make, reply = operations(tmp_path)[name]
    plan = FAILURES[failure]
    number, ended = 0, False
    while not ended:
        world = World()
        network = world.network(lambda request: OK, read_size=70_000, write_size=100_000)
        if warm:
            world.run(call(), network)
        before = len(network.requests)
        network.reply = lambda request: reply
        network.number = 0
        fired = []

        def fail(n, command, number=number, fired=fired):
            if n == number and not fired:
                fired.append(command)
                return plan()
            return None

        network.fail = fail
        result = None
        try:
            result = world.run(make, network)
        except Cancelled:
            assert failure == "cancelled"
        except AgentRunClientError as error:
            result = error
        if fired and isinstance(result, AgentRunClientError):
            command, post = fired[0], name in ("post", "post_large", "upload")
            if isinstance(command, Connect):
                assert not result.may_be_processed
            if post and isinstance(command, (Write, Read)):
                assert result.may_be_processed
            if isinstance(command, Run):
                assert isinstance(result, FileError)
            expected = {Connect: ConnectTimeout, Write: WriteTimeout, Read: ReadTimeout}.get(type(command))
            if failure == "timeout" and expected is not None:
                assert type(result) is expected
            elif isinstance(command, Connect):
                assert type(result) is ConnectError
            elif isinstance(command, (Write, Read)) and not (warm and result.status_code):
                assert isinstance(result, IncompleteError)
        ended = not fired
        sent = len(network.requests) - before
        assert sent <= (1 if name in ("post", "post_large", "upload") else 2)
        if ended:
            assert "download_" in name or not isinstance(result, Exception)
        # Nothing stays behind.
        assert world.pool.open == len(world.pool.idle)
        assert all(link.aborted for link in network.links if link not in world.pool.idle)
        assert all(not link.aborted for link in world.pool.idle)
        assert all(item._file.closed for item in opened)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]
        saved = "download" in name and isinstance(result, int)
        expected_content = {"download": b"x" * 300_000, "download_chunked": b'{"ok": 1}'}.get(name)
        assert (tmp_path / "target").read_bytes() == (expected_content if saved else b"old")
        (tmp_path / "target").write_bytes(b"old")
        # The next call works.
        network.fail = lambda n, command: None
        network.reply = lambda request: OK
        assert world.run(call("POST", {"b": 2}), network) == {"ok": 1}
        assert world.pool.open == len(world.pool.idle) == 1
        number += 1
        assert number < 60
    assert number > (1 if warm else 2)
    gc.collect()


class PatientNetwork(FakeNetwork):
    """A network in memory that pauses, too, and for which beside is here."""

    def drive(self, steps):
        try:
            return super().drive(steps)
        finally:
            steps.close()

    def _perform(self, command):
        if isinstance(command, Spawn):
            try:
                return self.drive(command.flow)
            finally:
                command.done()
        if isinstance(command, Wait) and not command.ticket.ready:
            self.clock.time = command.deadline
            raise TimeoutError
        return super()._perform(command)


BUSY = answer({"code": "ERR"}, "503 Service Unavailable")
STALE = answer({"code": "ERR_TOKEN_EXPIRED"}, "401 Unauthorized")
# What is answered in turn; then it is OK.
RECOVERED = {
    "retried": [BUSY, BUSY],
    "retried_upload": [BUSY],
    "refreshed": [STALE],
    "refreshed_upload": [STALE],
}
# A network has no way to fail in these.
SPARED = {"oserror": (Wait, Spawn), "reset": (Wait, Spawn), "timeout": (Spawn,), "cancelled": ()}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("name", RECOVERED)
def test_every_command_of_a_recovery_fails_in_turn(name, failure, tmp_path, opened):
    """A call that is retried, and one whose token is renewed."""
    answers = RECOVERED[name]
    (tmp_path / "source").write_bytes(b"s" * 600_000)
    number, ended = 0, False
    while not ended:
        world, fired = World(), []
        config = Config(
            data_endpoint="http://h",
            control_endpoint="http://h",
            access_key_id="id",
            access_key_secret="secret",
            timeout=100,
            retry=Retry(attempts=3),
        )
        sandbox = Resource(type="sandbox", name="s") if name.startswith("refreshed") else None
        endpoint = DataEndpoint(config, resource=sandbox)
        left, tokens = list(answers), count(1)

        def reply(request, left=left, tokens=tokens):
            if b"/accessToken?" in request:
                return answer({"data": {"accessToken": f"token-{next(tokens)}"}})
            return left.pop(0) if left else OK

        def fail(n, command, number=number, fired=fired):
            if n == number and not isinstance(command, SPARED[failure]):
                fired.append(command)
                return FAILURES[failure]()
            return None

        def operation(clock, endpoint=endpoint):
            if name.endswith("upload"):
                return endpoint.upload(
                    "u", str(tmp_path / "source"), filename="f", boundary=BOUNDARY, clock=clock
                )
            return endpoint.call(endpoint.request("POST", "r", data={"a": 1}), clock=clock)

        network = PatientNetwork(world.clock, reply, fail=fail, write_size=100_000)
        result = None
        try:
            result = world.run(operation, network)
        except Cancelled:
            assert failure == "cancelled"
        except AgentRunClientError as error:
            result = error
        assert result == {"ok": 1} or fired
        if isinstance(result, CredentialError):
            assert not result.may_be_processed
            assert result.__cause__ is not None
        # A spared command is none that was to fail: the next number may have one.
        ended = number >= len(network.log)
        calls = [json.loads(body) for body in bodies(network) if body.startswith(b"{")]
        assert all(body == {"a": 1} for body in calls)
        posts = [request for request in network.requests if request.startswith(b"POST ")]
        assert len(posts) <= len(answers) + 1, "what is ambiguous is not sent again"
        assert world.pool.open == len(world.pool.idle)
        assert all(link.aborted for link in network.links if link not in world.pool.idle)
        assert all(item._file.closed for item in opened)
        network.fail = lambda n, command: None
        left.clear()
        assert world.run(operation, network) == {"ok": 1}
        assert world.pool.open == len(world.pool.idle) == 1
        number += 1
        assert number < 100
    assert number > 5
    gc.collect()


def bodies(network):
    """What the requests carried that arrived whole; each upload carries its whole file."""
    found = [request.partition(b"\r\n\r\n")[2] for request in network.requests]
    assert all(body.count(b"s" * 600_000) == 1 for body in found if len(body) > 1000)
    return found


def test_a_wait_that_is_given_up_gives_its_place_up():
    """Cancelled or timed out while waiting, before or after the turn came: nothing is lost."""
    for failure in (GeneratorExit, TimeoutError()):
        for served_meanwhile in (False, True):
            world = World(Limits(total=1))
            held = world.pool.checkout(ORIGIN)

            def fail(n, command, failure=failure, served=served_meanwhile, world=world, held=held):
                if isinstance(command, Wait):
                    assert not command.ticket.ready
                    if served:
                        world.pool.forfeit(ORIGIN)
                        assert command.ticket.ready
                    return failure
                return None

            network = world.network(lambda request: OK, fail=fail)
            with pytest.raises((Cancelled, PoolTimeout)) as caught:
                world.run(call("POST"), network)
            if isinstance(caught.value, PoolTimeout):
                assert not caught.value.may_be_processed
            assert world.pool.waiting == 0
            assert network.requests == []
            if not served_meanwhile:
                assert world.pool.open == 1
                world.pool.forfeit(ORIGIN)
            assert world.pool.open == 0
            assert world.run(call(), network) == {"ok": 1}


# --- deadlines, exactly, on a clock that is turned


def timed(timeout, seconds, make, reply=OK):
    """Runs an operation whose commands take that many seconds each; when did it end, and how?"""
    endpoint = DataEndpoint(Config(data_endpoint="http://h", timeout=timeout, retry=Retry.never()))
    world = World()
    network = world.network(lambda request: reply, seconds=seconds, read_size=1000)
    began = world.clock.time
    try:
        outcome = world.run(partial(make, endpoint), network)
    except AgentRunClientError as error:
        outcome = error
    return outcome, world.clock.time - began, network


def get(endpoint, clock):
    return endpoint.call(endpoint.request("GET", "r"), clock=clock)


def post_large(endpoint, clock):
    return endpoint.call(endpoint.request("POST", "r", data=bytes(2 * 10**6)), clock=clock)


def by_kind(**seconds):
    kinds = {"connect": Connect, "write": Write, "read": Read}
    return lambda command: next((s for name, s in seconds.items() if type(command) is kinds[name]), 0.0)


@pytest.mark.parametrize(
    ("seconds", "kind", "processed"),
    [
        ({"connect": 11.0}, ConnectTimeout, False),
        ({"write": 11.0}, WriteTimeout, True),
        ({"read": 11.0}, ReadTimeout, True),
        ({"connect": 6.0, "write": 6.0}, WriteTimeout, True),
        ({"connect": 4.0, "write": 4.0, "read": 4.0}, ReadTimeout, True),
    ],
)
def test_the_total_is_a_promise_about_the_whole_call(seconds, kind, processed):
    outcome, took, _ = timed(10.0, by_kind(**seconds), get)
    assert type(outcome) is kind
    assert took == 10.0
    assert outcome.may_be_processed is processed


def test_a_drip_does_not_move_the_deadline():
    reply = answer(b"x" * 10**6)  # a thousand reads of a second each
    outcome, took, _ = timed(10.0, by_kind(read=1.0), get, reply)
    assert isinstance(outcome, ReadTimeout)
    assert took == 10.0


def test_sending_does_not_move_the_deadline():
    outcome, took, _ = timed(3.5, by_kind(write=1.0), post_large)
    assert isinstance(outcome, WriteTimeout)
    assert took == 3.5


@pytest.mark.parametrize(
    ("part", "seconds", "kind"),
    [
        ("connect", {"connect": 3.0}, ConnectTimeout),
        ("write", {"write": 3.0}, WriteTimeout),
        ("read", {"read": 3.0}, ReadTimeout),
    ],
)
def test_the_parts(part, seconds, kind):
    from agentrun_proto import Timeout

    outcome, took, _ = timed(Timeout(**{part: 2.0}), by_kind(**seconds), get)
    assert type(outcome) is kind
    assert took == 2.0
    outcome, took, _ = timed(Timeout(**{part: 4.0}), by_kind(**seconds), get)
    assert outcome == {"ok": 1}


def test_a_part_is_bounded_by_the_total():
    from agentrun_proto import Timeout

    outcome, took, _ = timed(Timeout(total=3.0, read=50.0), by_kind(connect=1.0, read=60.0), get)
    assert isinstance(outcome, ReadTimeout)
    assert took == 3.0


def test_a_part_bounds_each_silence_and_not_their_sum():
    from agentrun_proto import Timeout

    outcome, took, network = timed(Timeout(read=2.0), by_kind(read=1.5), get, answer(b" " * 9_000 + b"{}"))
    assert outcome == {}
    assert took == 1.5 * sum(isinstance(command, Read) for command in network.log) > 10


def test_a_transfer_has_no_total_unless_one_is_set(tmp_path):
    def fetch(endpoint, clock):
        return endpoint.download(endpoint.file_request("d"), str(tmp_path / "f"), clock=clock)

    outcome, took, _ = timed(2.0, by_kind(read=1.5), fetch, answer(b"x" * 20_000))
    assert (outcome, took > 20) == (20_000, True)
    outcome, took, _ = timed(2.0, by_kind(read=2.5), fetch, answer(b"x" * 20_000))
    assert isinstance(outcome, ReadTimeout)
    assert took == 2.0


def test_the_wait_for_a_connection_is_part_of_the_call():
    world = World(Limits(total=1))
    world.pool.checkout(ORIGIN)
    network = world.network(lambda request: OK, seconds=lambda command: 1000.0)
    with pytest.raises(PoolTimeout):
        world.run(call(), network)
    assert world.clock.time == 1100.0
    assert world.pool.waiting == 0


@pytest.mark.hostile("many-wall-clock")
def test_wall_time_moves_no_deadline():
    """A day either way, in the middle of the call."""
    for jump in (86400.0, -86400.0):
        world = World()

        def seconds(command, world=world, jump=jump):
            world.clock.wall += jump
            return 1.0

        network = world.network(lambda request: OK, seconds=seconds)
        assert world.run(call(), network) == {"ok": 1}
        slow = world.network(lambda request: OK, seconds=by_kind(read=101.0))
        began = world.clock.time
        with pytest.raises(ReadTimeout):
            world.run(call(), slow)
        assert world.clock.time - began == 100.0


# --- by themselves


@pytest.mark.parametrize("size", [1, 10, 10**6])
def test_a_connection_that_takes_little_at_a_time(size):
    world = World()
    network = world.network(lambda request: OK, write_size=size)
    assert world.run(call("POST", {"a": 1}), network) == {"ok": 1}
    assert [request.partition(b"\r\n\r\n")[2] for request in network.requests] == [b'{"a":1}']


def test_an_answer_that_breaks_off_amid_its_head_ends_an_upload(tmp_path):
    """The peer has begun to say why it will have no more, and is gone."""
    (tmp_path / "source").write_bytes(bytes(10**6))
    world = World()

    def break_off(number, command):
        if type(command) is Write and len(network.links[0].sent) > 100_000 and not command.link.ended:
            command.link.incoming += b"HTTP/1.1 413 Payl"
            command.link.ended = True

    network = world.network(lambda request: OK, fail=break_off, write_size=10_000)
    with pytest.raises(IncompleteError, match="middle of the answer") as caught:
        world.run(upload(tmp_path / "source"), network)
    assert caught.value.may_be_processed
    assert [link.aborted for link in network.links] == [1]
    assert world.pool.open == 0
    assert len(network.links[0].sent) < 130_000, "it goes on to send what nobody will read"


def test_an_answer_is_read_after_it_was_asked_for_and_once():
    def twice(clock):
        with pytest.raises(TransportError, match="nothing was sent"):
            yield from ReadSome()
        yield Send(ENDPOINT.request("GET", "r"), Timeout(), inf)
        pieces = [(yield from ReadSome()), (yield from ReadSome())]
        with pytest.raises(TransportError, match="read already"):
            yield from ReadSome()
        return pieces

    world = World()
    network = world.network(lambda request: OK)
    assert world.run(twice, network) == [b'{"ok": 1}', b""]
    assert len(network.requests) == 1


def test_an_idle_connection_is_closed_when_its_time_is_over():
    world = World(Limits(idle=30.0))
    network = world.network(lambda request: OK)
    world.run(call(), network)
    world.clock.time += 30.0
    world.run(call(), network)
    assert len(network.links) == 1
    world.clock.time += 30.5
    world.run(call(), network)
    assert [link.aborted for link in network.links] == [1, 0]


def test_an_answer_that_is_left_unread_has_its_connection_closed_by_the_next_request():
    def leave(clock):
        for _ in range(2):
            yield Send(ENDPOINT.request("GET", "r"), Timeout(), inf)
        return (yield from ReadSome())

    world = World()
    network = world.network(lambda request: OK)
    assert world.run(leave, network) == b'{"ok": 1}'
    assert [link.aborted for link in network.links] == [1, 1]  # the second is left before its end, too
    assert world.pool.open == 0


def test_a_refresh_is_no_command_of_local_steps():
    refresh = Refresh("key", lambda: call()(TurnedClock()), deadline=inf, wait=True)
    steps = local_steps(refresh, TurnedClock())
    with pytest.raises(NotImplementedError, match="whoever performs all commands"):
        list(steps)
