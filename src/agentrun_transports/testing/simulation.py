"""A program, the service and the network between them, from one integer, in virtual time.

Rules of this file: nothing is drawn here but from `Choices`; a failure is told by its seed and by the
shortest script that repeats it; what a simulation has opened is closed with it.
"""

from __future__ import annotations

import inspect
import json
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from agentrun_proto import Config, Origin

from .._awaitable import is_async
from .._blocking import BlockingSession
from .._blocking_client import BlockingClient
from .._routes import Setup
from .._sessions import LoopSessions
from .._tls import TLS
from ..emulator import Account, Fault, Faults, Request, RequestLog, Service
from ..emulator.conversation import Conversation
from ._line import Line
from ._virtual_blocking import SimulatedBlockingNetwork
from ._world import Dial, World
from .choices import Choices, Script, shortest
from .fault_model import FaultModel

if TYPE_CHECKING:
    from .._sessions import LoopNetwork

Result = TypeVar("Result")

Driver = Literal["blocking", "asyncio", "trio"]

_BEFORE_KIND = ": "  # in the label of a fault


class Simulation:
    """One run of the service, a network with its faults, and time, all from a seed.

    ``run`` runs a program in it. Blocking code can do without: it uses the ``client``, or a client of its own
    with the ``config`` and ``transport``, and closes the simulation, a context manager, in the end.

    Args:
        seed: any integer: all that happens follows from it.
        driver: what the program runs on.
        faults: what may go wrong.
        script: of a run that is to be repeated; then it says what goes wrong, and `faults` says nothing.

    Attributes:
        service: what is at the other end, to be looked at and set up.
        requests: what has arrived there.
        config: endpoint and credential of an account that it knows.
        transport: for clients that the program makes itself, as their ``transport=``.

    >>> with Simulation(1, faults=FaultModel.only(late_answer=1.0)) as simulation:
    ...     created = simulation.client.post("resources", {"name": "first"})
    ...     simulation.ask("GET", "resources")["data"]["total"], simulation.time > 0.0
    (1, True)
    """

    def __init__(
        self,
        seed: int,
        *,
        driver: Driver = "blocking",
        faults: FaultModel | None = None,
        script: Script | None = None,
    ) -> None:
        if driver not in ("blocking", "asyncio", "trio"):
            raise ValueError(f"driver is 'blocking', 'asyncio' or 'trio', not {driver!r}")
        self.seed = seed
        self.driver: Driver = driver
        self._faults = FaultModel() if faults is None else faults
        self._choices = Choices(seed, script)
        self._world = World()
        self._lines: list[Line] = []
        self._ends: list[socket.socket] = []  # the clients'
        self._dialled = 0
        self._own: set[str] = set()  # labels of the program's own choices, which are no faults
        self._next_id = count(1).__next__
        self._next_random = count(1).__next__
        self._client: Any = None
        key = Account(access_key_id="simulated-id", access_key_secret="simulated-secret")
        self.config: Config = Config(
            data_endpoint="http://agentrun.test",
            control_endpoint="http://agentrun.test",
            account_id="123456789",
            region_id="cn-hangzhou",
            access_key_id=key.access_key_id,
            access_key_secret=key.access_key_secret,
        )
        self.requests: RequestLog = RequestLog(1000)
        choose = self._choices.choose
        ahead = choose("service: clock ahead by (s)", self._faults.skewed, 7200)
        behind = choose("service: clock behind by (s)", self._faults.skewed, 7200)
        self.service: Service = Service(
            accounts=[key],
            now=lambda: self._world.now() + ahead - behind,
            new_id=lambda: f"id-{self._next_id()}",
            origin="http://agentrun.test",
        )
        self.service.faults = _DrawnFaults(self._choices, self._faults)
        self.transport: SimulatedTransport = SimulatedTransport(self._world, driver, self._dial, self._random)

    @property
    def client(self) -> Any:
        """A `BlockingClient`, `AsyncioClient` or `TrioClient`, as the driver is; always the same."""
        if self._client is None:
            self._client = _client_class(self.driver)(self.config, transport=self.transport)
        return self._client

    @property
    def time(self) -> float:
        """Virtual seconds since the beginning."""
        return self._world.time

    @property
    def happened(self) -> dict[str, int]:
        """What has gone wrong so far: a script, with which this run can be repeated."""
        return dict(self._choices.script)

    @property
    def connections(self) -> int:
        """How many connections the program's clients have open now."""
        return sum(end.fileno() >= 0 for end in self._ends)

    def choose(self, label: str, odds: float, most: int = 1) -> int:
        """A choice of the program's own, made from the seed, and told in scripts: see `Choices.choose`."""
        self._own.add(label)
        return self._choices.choose(label, odds, most)

    def ask(self, method: str, path: str, data: object = None) -> Any:
        """Asks the service itself, past the network and all faults: to set it up, and to see what is there.

        Args:
            method: such as ``GET``.
            path: under the namespace ``agents``, or, from a ``/`` on, the whole.
            data: JSON.

        Returns:
            The JSON of the answer, that of a refusal included.
        """
        service, token = self.service, f"asked-{self._next_id()}"
        service.add_token(token)
        faults, service.faults = service.faults, Faults()
        try:
            request = Request(
                method=method,
                target=path if path.startswith("/") else f"/2025-09-10/agents/{path}",
                headers=(("Agentrun-Access-Token", token), ("Content-Type", "application/json")),
                body=BytesIO(b"" if data is None else json.dumps(data).encode()),
            )
            return service.handle(request).json()
        finally:
            service.faults = faults
            service.revoke_token(token)

    def sleep(self, seconds: float) -> None:
        """Lets virtual time pass, for blocking programs; others have their loop's own."""
        SimulatedBlockingNetwork(TLS(), self._world, self._dial, self._random).sleep(seconds)

    def run(self, program: Callable[[Simulation], Any]) -> Any:
        """Runs a program, sync or async as the driver is, and returns its result.

        Raises:
            Standstill: it waits for what will not come.
            TypeError: it is async, and the driver is not.
            Exception: whatever the program raises.
        """
        if self.driver == "blocking":
            result = program(self)
            if inspect.iscoroutine(result):
                result.close()
                raise TypeError("an async program runs on 'asyncio' or 'trio'")
            return result
        if self.driver == "asyncio":
            from . import _virtual_asyncio

            return _virtual_asyncio.run(lambda: program(self), self._world)
        from . import _virtual_trio

        return _virtual_trio.run(lambda: program(self), self._world, self.seed)

    def close(self) -> None:
        """Ends it; harmless if it has been."""
        if isinstance(self._client, BlockingClient):
            self._client.close()
        for line in self._lines:
            line.close()
        self._world.close()

    def __enter__(self) -> Simulation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def report(self) -> SimulationReport:
        """What has happened so far, in numbers."""
        faults = self._choices.script.keys() - self._own
        kinds = Counter(label.rpartition(_BEFORE_KIND)[2] for label in faults)
        return SimulationReport(
            runs=1,
            requests=self.requests.count,
            connections=len(self._ends),
            faults=dict(kinds),
            seconds=self.time,
        )

    def _random(self, size: int) -> bytes:
        return self._choices.random(f"random {self._next_random()}", size)

    def _dial(self, origin: Origin) -> Dial:
        """Begins to make a connection."""
        dial = Dial()
        self._dialled += 1
        number = self._dialled
        choose, faults, where = self._choices.choose, self._faults, f"connection {number}"
        late = choose(f"{where}: made late by (ms)", faults.slow_connect, 5000)

        def make() -> socket.socket | OSError:
            if origin.scheme != "http":
                return OSError("a simulation has no TLS: its endpoint is http")
            if choose(f"{where}: refused", faults.refused):
                return ConnectionRefusedError("the connection is refused, in this simulation")
            return self._connect(number)

        if choose(f"{where}: never answered", faults.unreachable):
            return dial
        dial.plan(self._world, self.time + late / 1000, make)
        return dial

    def _connect(self, number: int) -> socket.socket:
        client, ours = socket.socketpair()
        ours.setblocking(False)
        self._ends.append(client)
        flow = Conversation(self.service, self.requests, number, None).run()
        self._lines.append(Line(number, client, ours, flow, self._world, self._choices, self._faults))
        return client


def _client_class(driver: Driver) -> Callable[..., Any]:
    if driver == "blocking":
        return BlockingClient
    if driver == "asyncio":
        from .._asyncio import AsyncioClient

        return AsyncioClient
    from .._trio import TrioClient

    return TrioClient


class SimulatedTransport:
    """The sessions of a simulation, for the ``transport`` of any client."""

    def __init__(
        self, world: World, driver: Driver, dial: Callable[[Origin], Dial], random: Callable[[int], bytes]
    ) -> None:
        self._world = world
        self._driver = driver
        self._dial = dial
        self._random = random

    def open(self, setup: Setup) -> BlockingSession:
        """The session for a client's blocking calls."""
        tls = setup.tls or TLS()
        network = SimulatedBlockingNetwork(tls, self._world, self._dial, self._random)
        return BlockingSession(tls, setup.limits, None, network)

    def open_async(self, setup: Setup) -> LoopSessions:
        """A client's sessions on the simulation's loop."""
        return LoopSessions(setup.tls, setup.limits, None, self._network)

    def _network(self, tls: TLS) -> LoopNetwork:
        if self._driver == "trio":
            from ._virtual_trio import SimulatedTrioNetwork

            return SimulatedTrioNetwork(tls, self._world, self._dial, self._random)
        from ._virtual_asyncio import SimulatedAsyncioNetwork

        return SimulatedAsyncioNetwork(tls, self._world, self._dial, self._random)


class _DrawnFaults(Faults):
    """What the service does wrong: what it was told to, or else what is drawn."""

    def __init__(self, choices: Choices, model: FaultModel) -> None:
        super().__init__()
        self._choices = choices
        self._model = model
        self._served = 0

    def take(self, method: str, path: str, text: str | None) -> Fault | None:
        """The fault for this request, if there is one."""
        return super().take(method, path, text) or self._draw()

    def _draw(self) -> Fault | None:
        self._served += 1
        where, model, choose = f"served {self._served}", self._model, self._choices.choose
        if seconds := choose(f"{where}: 503, Retry-After (s)", model.busy / 2, 30):
            return Fault(status=503, retry_after=str(seconds))
        if seconds := choose(f"{where}: 429, Retry-After (s)", model.busy / 2, 30):
            return Fault(status=429, retry_after=str(seconds))
        if choose(f"{where}: 500", model.failing):
            return Fault(status=500)
        if choose(f"{where}: the credential has expired", model.expired):
            return Fault(expired_token=True)
        if events := choose(f"{where}: a stream fails after (events)", model.stream_error, 5):
            return Fault(after=events - 1, then="error")
        if choose(f"{where}: wrong checksum", model.wrong_checksum):
            return Fault(wrong_checksum=True)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationReport:
    """What happened in simulations, in numbers; reports can be added.

    Args:
        runs: how many simulations.
        requests: how many requests reached the service.
        connections: how many there were.
        faults: how often each kind happened.
        seconds: virtual time that passed.

    >>> sum([SimulationReport(runs=1, seconds=2.0), SimulationReport(runs=1)], SimulationReport()).runs
    2
    """

    runs: int = 0
    requests: int = 0
    connections: int = 0
    faults: Mapping[str, int] = field(default_factory=dict[str, int])
    seconds: float = 0.0

    def __add__(self, other: SimulationReport) -> SimulationReport:
        return SimulationReport(
            runs=self.runs + other.runs,
            requests=self.requests + other.requests,
            connections=self.connections + other.connections,
            faults=dict(Counter(self.faults) + Counter(other.faults)),
            seconds=self.seconds + other.seconds,
        )

    def __str__(self) -> str:
        kinds = "".join(f"\n  {kind}: {times}" for kind, times in sorted(self.faults.items()))
        return (
            f"{self.runs} simulations, {self.requests} requests over {self.connections} connections, "
            f"{sum(self.faults.values())} faults, {self.seconds / 3600:.1f} virtual hours{kinds}"
        )


class SimulationFailure(AssertionError):
    """A program failed in a simulation; what it raised is the cause.

    Attributes:
        seed, driver: of the run.
        script: the shortest that repeats it.
    """

    def __init__(self, seed: int, driver: Driver, script: Script, error: BaseException) -> None:
        lines = "".join(f"\n    {label!r}: {chosen}," for label, chosen in script.items())
        told = f"{{{lines}\n}}" if script else "{}"
        super().__init__(
            f"{type(error).__name__}: {error}\n"
            f"with seed {seed} on {driver}, and the shortest script that repeats it:\n"
            f"simulate(program, seeds=[{seed}], driver={driver!r}, script={told})"
        )
        self.seed = seed
        self.driver = driver
        self.script: dict[str, int] = dict(script)


Program = Callable[[Simulation], Any] | Callable[[Simulation], Awaitable[Any]]
"""What is tested. It is given the simulation, uses its client, and raises where something is wrong."""


def simulate(
    program: Program,
    *,
    seeds: Iterable[int] = range(100),
    driver: Driver | None = None,
    faults: FaultModel | None = None,
    script: Script | None = None,
) -> SimulationReport:
    """Runs a program in one simulation for each seed.

    Args:
        program: sync or async.
        seeds: one run each.
        driver: unset, ``asyncio`` for an async program, and ``blocking`` else.
        faults: what may go wrong.
        script: from a failure: what went wrong then, and does again.

    Raises:
        SimulationFailure: a run failed; later seeds were not tried.

    >>> def program(simulation):
    ...     simulation.client.get("resources")
    >>> simulate(program, seeds=range(3), faults=FaultModel.only()).requests
    3
    """
    chosen: Driver = driver or ("asyncio" if is_async(program) else "blocking")
    total = SimulationReport()
    for seed in seeds:
        with Simulation(seed, driver=chosen, faults=faults, script=script) as simulation:
            try:
                simulation.run(cast("Callable[[Simulation], Any]", program))
            except Exception as error:
                raised = error
            else:
                total += simulation.report()
                continue
        raise _failure(program, seed, chosen, simulation.happened, raised) from raised
    return total


def _failure(
    program: Program, seed: int, driver: Driver, script: Script, error: Exception
) -> SimulationFailure:
    """The failure, told by the shortest script."""
    shown = error

    def fails(shorter: Script) -> bool:
        nonlocal shown
        with Simulation(seed, driver=driver, script=shorter) as simulation:
            try:
                simulation.run(cast("Callable[[Simulation], Any]", program))
            except type(error) as repeated:
                shown = repeated
                return True
            except Exception:
                return False
        return False

    return SimulationFailure(seed, driver, shortest(script, fails), shown)
