"""A random program against the service, and what must be true of it whatever goes wrong.

Rules of this file: what is done is drawn from the simulation, so that the shortest script of a failure is the
shortest program, too; what really happened is what the service logged, under the number that each call
carries in a field of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass, field
from io import BytesIO
from math import inf
from pathlib import Path
from typing import Any

import trio

from agentrun_proto import AccessToken, AgentRunClientError, Config, Secret, StatusError, Timeout
from agentrun_transports import AsyncioClient, BlockingClient, Limits, TrioClient
from agentrun_transports.emulator import Faults, Request
from agentrun_transports.testing import Simulation

DRIVERS = ("blocking", "asyncio", "trio")
TOTAL = 20.0  # seconds that a call may take
AFTERWARDS = 30.0  # seconds in which what is late arrives
KINDS = (
    "list",
    "create",
    "create with a key",
    "read",
    "patch",
    "delete",
    "upload",
    "download",
    "events",
    "lines",
    "inject",
)
CHANGING = frozenset({"create", "create with a key", "patch", "delete", "upload"})
ONCE = frozenset({"create", "patch", "upload"})  # nobody has said that they may be sent twice
ROOT = "/2025-09-10/agents"
INJECTION = "a\r\nX-Injected: b"


class Violation(AssertionError):
    """The client did what it must not."""


@dataclass(slots=True)
class Call:
    """One call of the program; `outcome` is its value or its error, None where it was cancelled."""

    number: int
    kind: str
    starts: float
    patience: float
    outcome: Any = None
    took: float = 0.0
    served: list[tuple[int, bytes]] = field(default_factory=list)  # what the service answered, in order

    def __str__(self) -> str:
        statuses = [status for status, _ in self.served]
        return f"call {self.number} ({self.kind}) ended in {self.outcome!r}; the service answered {statuses}"

    @property
    def done(self) -> int:
        """How often the service did what was asked for."""
        return sum(200 <= status < 300 for status, _ in self.served)


class Workload:
    """The program of one simulation."""

    def __init__(self, simulation: Simulation, folder: Path) -> None:
        self.simulation = simulation
        self.transcript: list[str] = []
        self._source = folder / f"{simulation.driver}-{simulation.seed}"
        self._content = hashlib.shake_128(str(simulation.seed).encode()).digest(7000)
        self._refreshing = self._refreshes = 0
        self._storm = self._injected = False
        further = simulation.choose("program: further calls", 1.0, 6)
        self.calls = [self._drawn(number) for number in range(1 + further)]
        self._fill()
        self._serve = simulation.service.handle
        simulation.service.handle = self._handle  # type: ignore[method-assign]
        self.client = self._client(simulation.choose("program: credentials from a provider", 0.3))

    def _drawn(self, number: int) -> Call:
        choose, where = self.simulation.choose, f"call {number}"
        return Call(
            number=number,
            kind=KINDS[choose(f"{where}: kind", 0.9, len(KINDS) - 1)],
            starts=choose(f"{where}: starts after (ms)", 0.5, 3000) / 1000,
            patience=choose(f"{where}: cancelled after (ms)", 0.15, 3000) / 1000 or inf,
        )

    # The service

    def _fill(self) -> None:
        """What the calls need is there from the start."""
        for number in {call.number % 3 for call in self.calls if call.kind in ("read", "patch", "delete")}:
            self.simulation.ask("POST", "resources", {"id": f"r{number}"})
        if not any(call.kind == "download" for call in self.calls):
            return
        part = '--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n'
        body = part % ("path", "") + "data.bin\r\n" + part % ("file", '; filename="data.bin"')
        service = self.simulation.service
        service.add_token("t")
        headers = (("Agentrun-Access-Token", "t"), ("Content-Type", "multipart/form-data; boundary=b"))
        content = BytesIO(body.encode() + self._content + b"\r\n--b--\r\n")
        faults, service.faults = service.faults, Faults()
        filled = service.handle(Request(method="POST", target=f"{ROOT}/files", headers=headers, body=content))
        service.faults = faults
        assert filled.status == 200

    def _handle(self, request: Request) -> Any:
        response = self._serve(request)
        call = self.calls[int(request.header("X-Call") or -1)]
        call.served.append((response.status, response.body if isinstance(response.body, bytes) else b""))
        self._tell(f"{call.number} {request.method} {response.status}")
        self._injected = self._injected or request.header("X-Injected") is not None
        return response

    def _tell(self, what: str) -> None:
        self.transcript.append(f"{self.simulation.time:.6f} {what}")

    # The client

    def _client(self, provided: int) -> Any:
        simulation = self.simulation
        config = simulation.config
        settings: dict[str, Any] = {"transport": simulation.transport, "limits": Limits(per_origin=2)}
        if provided:
            config = Config(data_endpoint=config.data_endpoint)
            settings["credentials"] = self._token if simulation.driver == "blocking" else self._token_async
        config = config.merge(Config(timeout=Timeout(total=TOTAL)))
        if simulation.driver == "blocking":
            return _Awaitable(BlockingClient(config, **settings))
        return (TrioClient if simulation.driver == "trio" else AsyncioClient)(config, **settings)

    def _token(self) -> AccessToken:
        self._refreshes += 1
        token = f"token-{self._refreshes}"
        self.simulation.service.add_token(token)
        return AccessToken(token=Secret(token))

    async def _token_async(self) -> AccessToken:
        self._refreshing += 1
        self._storm = self._storm or self._refreshing > 1
        await self._sleep(0.5)
        self._refreshing -= 1
        return self._token()

    async def _sleep(self, seconds: float) -> None:
        if self.simulation.driver == "trio":
            await trio.sleep(seconds)
        elif self.simulation.driver == "asyncio":
            await asyncio.sleep(seconds)
        else:
            self.simulation.sleep(seconds)

    # The program

    async def run(self) -> None:
        """Runs it, and checks all that can be checked."""
        if self.simulation.driver == "blocking":
            await self._on_blocking()
        elif self.simulation.driver == "asyncio":
            await self._on_asyncio()
        else:
            await self._on_trio()
        await self._check_end()
        if self._storm:
            raise Violation("a refresh storm: a credential was fetched twice at a time")
        if self._injected:
            raise Violation("a value brought a field line of its own")
        for call in self.calls:
            self._check(call)

    async def _on_blocking(self) -> None:
        for call in self.calls:
            self.simulation.sleep(call.starts)
            await self._perform(call)

    async def _on_asyncio(self) -> None:
        loop = asyncio.get_running_loop()

        async def one(call: Call) -> None:
            await asyncio.sleep(call.starts)
            task = asyncio.create_task(self._perform(call))
            timer = None if call.patience == inf else loop.call_later(call.patience, task.cancel)
            await asyncio.wait({task})
            if timer is not None:
                timer.cancel()

        await asyncio.gather(*map(one, self.calls))
        await asyncio.sleep(AFTERWARDS)
        if len(asyncio.all_tasks()) > 1:
            raise Violation(f"tasks are left: {asyncio.all_tasks()}")

    async def _on_trio(self) -> None:
        tasks = trio.lowlevel.current_statistics().tasks_living

        async def one(call: Call) -> None:
            await trio.sleep(call.starts)
            with trio.move_on_after(call.patience):
                await self._perform(call)

        async with trio.open_nursery() as nursery:
            for call in self.calls:
                nursery.start_soon(one, call)
        await trio.sleep(AFTERWARDS)
        if trio.lowlevel.current_statistics().tasks_living > tasks:
            raise Violation("tasks are left")

    async def _check_end(self) -> None:
        """Nobody waits, nothing is in use, and what is open is idle, or closed with the client."""
        await self._sleep(AFTERWARDS)
        for pool in self._pools():
            used, open_now = pool.open - len(pool.idle), self.simulation.connections
            # asyncio closes an idle connection whose peer has gone; its place is freed at the next checkout.
            if pool.waiting or used or open_now > len(pool.idle):
                raise Violation(f"{pool.waiting} wait, {used} places are in use, {open_now} sockets are open")
        await self.client.aclose()
        await self._sleep(1.0)
        if self.simulation.connections:
            raise Violation(f"{self.simulation.connections} connections outlive the client")
        left = sorted(self._source.parent.glob(f"{self._source.name}-*"))
        for path in left:
            path.unlink()
        if any(path.suffix == ".part" for path in left):
            raise Violation(f"temporary files are left: {left}")

    def _pools(self) -> list[Any]:
        if self.simulation.driver == "blocking":
            return [self.client.plain._session.pool]
        return [session.pool for session in self.client._sessions._by_loop.values()]

    async def _perform(self, call: Call) -> None:
        began = self.simulation.time
        try:
            call.outcome = await self._do(call)
        except Exception as error:
            call.outcome = error
        call.took = self.simulation.time - began
        shown = type(call.outcome).__name__ if isinstance(call.outcome, Exception) else call.outcome
        self._tell(f"{call.number} {call.kind}: {shown}")

    async def _do(self, call: Call) -> Any:
        client, kind, number = self.client, call.kind, call.number
        fields = {"X-Call": str(number)}
        one = f"resources/r{number % 3}"
        if kind == "list":
            return await client.get("resources", headers=fields)
        if kind == "create":
            return await client.post("resources", {"call": number}, headers=fields)
        if kind == "create with a key":
            fields["Idempotency-Key"] = f"key-{number}"
            return await client.post("resources", {"call": number}, headers=fields)
        if kind == "read":
            return await client.get(one, headers=fields)
        if kind == "patch":
            return await client.patch(one, {"call": number}, headers=fields)
        if kind == "delete":
            return await client.delete(one, headers=fields)
        if kind == "inject":
            return await client.get("resources", headers={**fields, "X-Value": INJECTION})
        local = Path(f"{self._source}-{number}")
        if kind == "upload":
            local.write_bytes(self._content)
            return await client.post_file("files", local, f"{number}.bin", headers=fields)
        if kind == "download":
            query = {"path": "data.bin"}
            saved = await client.get_file("files", local, query=query, headers=fields)
            return saved["size"], local.read_bytes() == self._content
        query = {"count": 4}
        async with client.stream("GET", kind, query=query, headers=fields) as stream:
            if kind == "events":
                return [json.loads(event.data).get("number") async for event in stream.events()]
            return [value.get("number") async for value in stream.json_lines()]

    # What must be true

    def _check(self, call: Call) -> None:
        outcome = call.outcome
        if call.took > TOTAL + 1e-6:
            raise Violation(f"{call}, after {call.took} of {TOTAL} seconds")
        if call.kind in ONCE and call.done > 1:
            raise Violation(f"{call}: it was done {call.done} times")
        if call.kind == "inject":
            right = outcome is None or (isinstance(outcome, ValueError) and not call.served)
        elif isinstance(outcome, Exception):
            right = self._is_right_error(call, outcome)
        else:
            right = outcome is None or self._is_right_value(call, outcome)
        if not right:
            raise Violation(str(call))

    def _is_right_error(self, call: Call, error: Exception) -> bool:
        if not isinstance(error, AgentRunClientError):
            return False
        if isinstance(error, StatusError) and error.status_code not in {each[0] for each in call.served}:
            return False
        return error.may_be_processed or call.kind not in CHANGING or not call.done

    def _is_right_value(self, call: Call, value: Any) -> bool:
        if call.kind in ("events", "lines"):
            # A stream that fails says so in its own words, in its last value.
            return value in ([1, 2, 3, 4], [*range(1, len(value)), None])
        if call.kind == "download":
            return value == (len(self._content), True)
        if call.kind == "upload" and value["data"]["sha256"] != hashlib.sha256(self._content).hexdigest():
            return False
        return value in [json.loads(body) for status, body in call.served if status == 200]


def program_in(folder: Path) -> Any:
    """The program for `simulate`; what it saves is in a folder that programs of other seeds may share."""

    def program(simulation: Simulation) -> Any:
        workload = Workload(simulation, folder).run()
        return finish(workload) if simulation.driver == "blocking" else workload

    return program


def finish(awaits_nothing: Any) -> None:
    """Runs a coroutine that waits for nothing."""
    try:
        awaits_nothing.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")


class _Awaitable:
    """A blocking client that can be awaited."""

    def __init__(self, plain: BlockingClient) -> None:
        self.plain = plain

    async def aclose(self) -> None:
        self.plain.close()

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **settings: Any) -> Any:
            return getattr(self.plain, name)(*args, **settings)

        return call

    def stream(self, *args: Any, **settings: Any) -> Any:
        return _AwaitableStream(self.plain.stream(*args, **settings))


class _AwaitableStream:
    def __init__(self, plain: Any) -> None:
        self._plain = plain

    async def __aenter__(self) -> Any:
        self._plain.__enter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._plain.__exit__(*error)

    async def events(self) -> Any:
        for event in self._plain.events():
            yield event

    async def json_lines(self) -> Any:
        for value in self._plain.json_lines():
            yield value
