"""The pool as a state machine against a simple model, and hammered by threads.

The model is a list of callers in the order in which they came, and counters. Its rules are those at the head
of `_pool.py`, read literally: whoever may have a connection and has waited longest is served next.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentrun_proto import Origin
from agentrun_transports._pool import Limits, Pool
from agentrun_transports._pool import PoolTicket as Ticket
from transports_support import PATIENCE

ORIGINS = [Origin("http", name, 80) for name in "abc"]


@dataclass(eq=False)
class Conn:
    origin: Origin
    idle_since: float = 0.0
    aborted: int = 0

    def abort(self) -> None:
        self.aborted += 1


@dataclass(eq=False)
class Caller:
    """Someone who asked: still waiting, or the owner of a place with or without a connection."""

    origin: Origin
    ticket: Ticket[Conn] | None
    notified: int = 0
    connection: Conn | None = None
    held: bool = field(default=False)
    settling: bool = False
    waited: bool = False


class Machine(RuleBasedStateMachine):
    @initialize(total=st.integers(1, 4), per_origin=st.integers(1, 3), idle=st.sampled_from([0.0, 10.0]))
    def start(self, total, per_origin, idle):
        self.limits = Limits(total=total, per_origin=per_origin, idle=idle)
        self.time = 100.0
        self.pool: Pool[Conn] = Pool(self.limits, lambda: self.time)
        self.waiting: list[Caller] = []  # in the order in which they came
        self.owning: list[Caller] = []
        self.idle: list[Conn] = []  # the one that has been idle longest first
        self.closed = False
        self.expected: list[Conn] = []  # connections that must have been closed, once

    # the model's own counts

    def count(self, origin=None):
        places = [caller.origin for caller in self.owning] + [conn.origin for conn in self.idle]
        return len(places) if origin is None else places.count(origin)

    def settle_place(self):
        """A place is free: the longest-waiting caller whose origin has room makes a connection."""
        if self.count() >= self.limits.total:
            return
        for caller in self.waiting:
            if self.count(caller.origin) < self.limits.per_origin:
                self.serve(caller, None)
                return

    def settle_connection(self, conn):
        """A connection is free (and not counted any more): who is next?"""
        for caller in self.waiting:
            if caller.origin == conn.origin:
                self.serve(caller, conn)
                return
            # Of another origin: it may have the place, if its origin has room, in the connection's stead.
            if self.count(caller.origin) < self.limits.per_origin:
                self.expected.append(conn)
                self.serve(caller, None)
                return
        if self.closed:
            self.expected.append(conn)
        else:
            self.idle.append(conn)

    def serve(self, caller, conn):
        self.waiting.remove(caller)
        self.owning.append(caller)
        caller.held = True
        caller.waited = caller.settling
        caller.connection = conn

    def check(self, caller):
        """The pool and the model agree about a caller."""
        assert caller.ticket is not None
        assert caller.ticket.ready is caller.held
        if caller.held:
            assert caller.ticket.connection is caller.connection

    def check_all(self):
        for caller in self.waiting + self.owning:
            if caller.ticket is not None:
                self.check(caller)

    def expire(self):
        fresh = [conn for conn in self.idle if conn.idle_since >= self.time - self.limits.idle]
        for conn in self.idle:
            if conn not in fresh:
                self.expected.append(conn)
        self.idle = fresh

    @rule(origin=st.sampled_from(ORIGINS))
    def checkout(self, origin):
        self.closed = False
        self.expire()
        found = self.pool.checkout(origin)
        mine = [conn for conn in self.idle if conn.origin == origin]
        caller = Caller(origin, None if isinstance(found, Conn) else found)
        if mine:
            assert found is mine[-1], "the connection that was used last is used next"
            self.idle.remove(found)
            caller.connection, caller.held = found, True
            self.owning.append(caller)
            return
        assert isinstance(found, Ticket)

        def notify():
            caller.notified += 1

        found.notify = notify
        self.waiting.append(caller)
        older = [other for other in self.waiting if other.origin == origin and other is not caller]
        if not older and self.count(origin) < self.limits.per_origin:
            if self.count() >= self.limits.total and self.idle:
                self.expected.append(self.idle.pop(0))
            if self.count() < self.limits.total:
                self.serve(caller, None)
        self.check(caller)
        caller.settling = True

    @precondition(lambda self: self.owning)
    @rule(which=st.integers(0, 11), fit=st.sampled_from([True, True, True, False]))
    def give_back(self, which, fit):
        """Someone who owns a place is done with it."""
        caller = self.owning.pop(which % len(self.owning))
        connection = caller.connection or Conn(caller.origin)
        if fit:
            self.settle_connection(connection)
            self.pool.checkin(connection)
        else:
            connection.abort()
            self.settle_place()
            self.pool.forfeit(caller.origin)

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 11))
    def cancel(self, which):
        """Someone who waits gives up."""
        caller = self.waiting.pop(which % len(self.waiting))
        self.pool.cancel(caller.ticket)

    @precondition(lambda self: any(caller.ticket is not None for caller in self.owning))
    @rule(which=st.integers(0, 11))
    def cancel_late(self, which):
        """Someone gives up who has been served in the meantime, or at once: what was handed over goes on."""
        served = [caller for caller in self.owning if caller.ticket is not None]
        caller = served[which % len(served)]
        self.owning.remove(caller)
        if caller.connection is not None:
            self.settle_connection(caller.connection)
        else:
            self.settle_place()
        self.pool.cancel(caller.ticket)

    @rule(seconds=st.sampled_from([1.0, 9.0, 11.0]))
    def turn(self, seconds):
        self.time += seconds

    @rule()
    def close(self):
        self.closed = True
        for conn in self.idle:
            self.expected.append(conn)
        self.idle = []
        self.pool.close()

    @invariant()
    def holds(self):
        if not hasattr(self, "pool"):
            return
        assert self.pool.open == self.count() <= self.limits.total
        for origin in ORIGINS:
            assert self.count(origin) <= self.limits.per_origin
        assert self.pool.idle == self.idle
        assert self.pool.waiting == len(self.waiting)
        self.check_all()
        for caller in self.owning + self.waiting:
            assert caller.notified == caller.waited, "told exactly once, if it had to wait"
        used = [id(caller.connection) for caller in self.owning if caller.connection is not None]
        used += [id(conn) for conn in self.idle]
        assert len(set(used)) == len(used), "one connection, two callers"
        for conn in [caller.connection for caller in self.owning if caller.connection] + self.idle:
            assert not conn.aborted
        assert all(conn.aborted == 1 for conn in self.expected)
        # State is bounded by what there is, not by what there was.
        assert len(self.pool._lanes) <= len(ORIGINS)
        assert len(self.pool._queue) <= 2 * len(self.pool._lanes) + 17
        for caller in self.waiting:
            eligible = self.count() < self.limits.total and self.count(caller.origin) < self.limits.per_origin
            assert not eligible, "someone waits who could be served"

    def teardown(self):
        if not hasattr(self, "pool"):
            return
        while self.waiting or self.owning:
            for caller in list(self.owning):
                self.owning.remove(caller)
                self.settle_place()
                self.pool.forfeit(caller.origin)
            assert self.owning or not self.waiting, "someone is never served"
        self.pool.close()
        assert self.pool.open == 0
        assert self.pool._lanes == {}
        assert not [entry for entry in self.pool._queue if self.pool._is_current(entry)]


Machine.TestCase.settings = settings(
    deadline=None,
    max_examples=120,
    stateful_step_count=40,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TestPoolAgainstItsModel = Machine.TestCase


STEPS = {"checkout": 9.0, "give_back": 9.0, "cancel": 2.0, "cancel_late": 2.0, "turn": 2.0, "close": 0.3}


@pytest.mark.hostile("many-pool-full")
@pytest.mark.parametrize("seed", range(60))
def test_long_walks(seed):
    """The same machine, 300 steps from a seed: Hypothesis prefers short runs, crowds need long ones."""
    random = Random(seed)
    machine = Machine()
    idle = random.choice([0.0, 10.0, 1e9])
    machine.start(total=random.randint(1, 4), per_origin=random.randint(1, 3), idle=idle)
    for _ in range(300):
        step = random.choices([*STEPS], [*STEPS.values()])[0]
        if step == "checkout":
            machine.checkout(origin=random.choice(ORIGINS))
        elif step == "give_back" and machine.owning:
            machine.give_back(which=random.randrange(12), fit=random.random() < 0.8)
        elif step == "cancel" and machine.waiting:
            machine.cancel(which=random.randrange(12))
        elif step == "cancel_late" and any(caller.ticket for caller in machine.owning):
            machine.cancel_late(which=random.randrange(12))
        elif step == "turn":
            machine.turn(seconds=random.choice([0.0, 1.0, 11.0]))
        elif step == "close":
            machine.close()
        machine.holds()
    machine.teardown()


@pytest.mark.parametrize(
    "arguments", [{"total": 0}, {"per_origin": 0}, {"total": -1}, {"idle": -1.0}, {"idle": float("nan")}]
)
def test_limits_that_make_no_sense(arguments):
    with pytest.raises(ValueError):
        Limits(**arguments)


def test_nothing_grows():
    """A thousand origins and ten thousand cancelled waiters later, nothing is kept of them."""
    pool: Pool[Conn] = Pool(Limits(total=2, per_origin=1), lambda: 0.0)
    for n in range(1000):
        origin = Origin("http", f"h{n}", 80)
        first = pool.checkout(origin)
        assert isinstance(first, Ticket)
        assert first.ready
        waiting = [pool.checkout(origin) for _ in range(10)]
        for ticket in waiting[::-1]:
            pool.cancel(ticket)
        pool.forfeit(origin)
    assert pool.open == pool.waiting == 0
    assert pool._lanes == {}
    assert len(pool._queue) <= 17


def test_threads_hammer_a_pool():
    """Eight threads, three origins, few places: never one connection to two, never above the limits."""
    limits = Limits(total=4, per_origin=2, idle=0.0)
    clock = iter(range(10**9)).__next__
    pool: Pool[Conn] = Pool(limits, lambda: float(clock()))
    using: set[int] = set()
    guard = threading.Lock()
    counts = dict.fromkeys(ORIGINS, 0)
    failures: list[BaseException] = []

    def work(seed):
        try:
            for n in range(400):
                origin = ORIGINS[(seed * 7 + n) % 3]
                found = pool.checkout(origin)
                if isinstance(found, Ticket):
                    served = threading.Event()
                    found.notify = served.set
                    if (seed + n) % 5 == 0 and not found.ready:
                        pool.cancel(found)
                        continue
                    assert found.ready or served.wait(PATIENCE), "never served"
                    found = found.connection or Conn(origin)
                assert found.origin == origin
                with guard:
                    assert id(found) not in using
                    assert not found.aborted
                    using.add(id(found))
                    counts[origin] += 1
                    assert counts[origin] <= limits.per_origin
                    assert sum(counts.values()) <= limits.total
                with guard:
                    using.remove(id(found))
                    counts[origin] -= 1
                if (seed + n) % 3:
                    pool.checkin(found)
                else:
                    found.abort()
                    pool.forfeit(origin)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not failures, failures
    assert not any(thread.is_alive() for thread in threads)
    assert pool.open == len(pool.idle)
    assert pool.waiting == 0
