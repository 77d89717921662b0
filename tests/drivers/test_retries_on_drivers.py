"""What is sent again, and what happens meanwhile, on every driver, over real sockets.

Rules of this file: pauses are drawn from almost nothing, or never end by themselves; what is to happen in a
pause is ordered by events, so that nothing depends on who is faster.
"""

import asyncio
import hashlib
import itertools
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial

import pytest
import trio

from agentrun_proto import (
    AccessKey,
    BadGatewayError,
    Config,
    DataEndpoint,
    FileError,
    IncompleteError,
    Listener,
    RequestEnded,
    RequestSent,
    Retry,
    RetryScheduled,
    Secret,
    ServiceUnavailableError,
    Sleep,
)
from agentrun_transports import BlockingClient, Limits
from agentrun_transports._request_credential import current
from agentrun_transports.emulator import Emulator, Fault
from conformance_drivers import DRIVERS
from drivers_support import BACKENDS, descriptors, native, run

PATIENCE = 30.0  # seconds; reached only where something is wrong
SIZE = 700_000
CONTENT = os.urandom(SIZE)
SOON = Retry(backoff=0.001)
DAY = "500"  # seconds that the service asks to wait, and nobody does
OURS = tuple(name for name in DRIVERS if name not in ("selectors", "httpx"))
BLOCKING = ("blocking", "httpcore_blocking")
LOOPING = tuple(name for name in OURS if name not in BLOCKING)
NATIVE = tuple(name for name in LOOPING if not name.startswith("httpcore"))
ASYNC = [
    pytest.param(*getattr(backend, "values", (backend,)), transport, marks=getattr(backend, "marks", ()))
    for backend, transport in itertools.product(BACKENDS, ("native", "httpcore"))
]
on_every_driver = pytest.mark.parametrize("name", OURS)


@pytest.fixture
def emulator():
    with Emulator() as running:
        yield running


@contextmanager
def opened(name, per_origin=8):
    with closing(DRIVERS[name](Limits(total=per_origin, per_origin=per_origin))) as driver:
        yield driver


def endpoint_of(emulator, **settings):
    settings = {"retry": SOON, "timeout": PATIENCE, **settings}
    return DataEndpoint(Config.from_env(emulator.environment).merge(Config(**settings)))


def call(endpoint, method, path="resources", listener: Listener | None = None, **parts):
    request = endpoint.request(method, path, **parts)
    return lambda clock: endpoint.call(request, clock=clock, listener=listener)


def upload(endpoint, local, *, idempotent=False):
    return lambda clock: endpoint.upload(
        "files",
        str(local),
        filename="local",
        boundary="b" * 32,
        fields={"path": "/data/f"},
        idempotent=idempotent,
        clock=clock,
    )


def download(endpoint, local):
    request = endpoint.file_request("files", query={"path": "/data/f"})
    return lambda clock: endpoint.download(request, str(local), clock=clock)


def sent(emulator):
    return [f"{request.method} {request.target.rpartition('/')[2]}" for request in emulator.requests.last]


# --- what is sent again


@pytest.mark.parametrize("method", ["GET", "POST"])
@on_every_driver
def test_what_the_service_did_not_do_is_sent_again(name, method, emulator):
    emulator.service.faults.add(Fault(status=503, retry_after="0"))
    emulator.service.faults.add(Fault(status=429))
    with opened(name) as driver:
        data = {"name": "first"} if method == "POST" else None
        assert driver.run(call(endpoint_of(emulator), method, data=data))["code"] == "SUCCESS"
        assert sent(emulator) == [f"{method} resources"] * 3
        assert emulator.connections == 1
        assert driver.run(call(endpoint_of(emulator), "GET"))["data"]["total"] == (method == "POST")


AMBIGUOUS = {"drop": (Fault(drop=True), IncompleteError), "502": (Fault(status=502), BadGatewayError)}


@pytest.mark.parametrize("fault", AMBIGUOUS)
@on_every_driver
def test_a_post_that_may_have_been_done_is_not_sent_again(name, fault, emulator):
    fault, kind = AMBIGUOUS[fault]
    endpoint = endpoint_of(emulator)
    with opened(name) as driver:
        for warm in (False, True):
            if warm:
                driver.run(call(endpoint, "GET"))
            before = emulator.requests.count
            emulator.service.faults.add(fault)
            with pytest.raises(kind) as caught:
                driver.run(call(endpoint, "POST", data={"name": f"warm {warm}"}))
            assert caught.value.may_be_processed
            assert emulator.requests.count == before + 1


@pytest.mark.parametrize("fault", AMBIGUOUS)
@on_every_driver
def test_it_is_where_that_does_no_harm(name, fault, emulator):
    endpoint = endpoint_of(emulator)
    settled = {"data": {"labels": ["x"]}, "idempotent": True}
    keyed = {"data": {"labels": ["y"]}, "headers": {"Idempotency-Key": "k-1"}}
    with opened(name) as driver:
        for number, (method, parts) in enumerate([("GET", {}), ("POST", settled), ("POST", keyed)]):
            emulator.service.faults.add(AMBIGUOUS[fault][0])
            assert driver.run(call(endpoint, method, **parts))["code"] == "SUCCESS"
            assert emulator.requests.count == 2 * (number + 1)
    keys = [request.header("Idempotency-Key") for request in emulator.requests.last]
    assert keys == [None] * 4 + ["k-1"] * 2


@on_every_driver
def test_the_error_in_the_end_speaks_for_all_attempts(name, emulator):
    told = []
    emulator.service.faults.add(Fault(status=503), count=2)
    emulator.service.faults.add(Fault(status=503, retry_after="1e9"))
    with opened(name) as driver, pytest.raises(ServiceUnavailableError) as caught:
        driver.run(call(endpoint_of(emulator), "GET", listener=told.append))
    assert len(caught.value.attempts) == 3
    names = {RequestSent: "sent", RequestEnded: "ended", RetryScheduled: "again"}
    assert [names[type(event)] for event in told if type(event) in names] == [
        *["sent", "ended", "again"] * 2,
        *["sent", "ended"],
    ]


# --- files


@on_every_driver
def test_an_upload_is_sent_again_from_its_start(name, emulator, tmp_path):
    local = tmp_path / "local"
    local.write_bytes(CONTENT)
    emulator.service.faults.add(Fault(status=503), count=2)
    emulator.service.faults.add(Fault(drop=True))
    with opened(name) as driver:
        assert (
            driver.run(
                upload(endpoint_of(emulator, retry=Retry(attempts=4, backoff=0.001)), local, idempotent=True)
            )["data"]["size"]
            == SIZE
        )
        assert driver.run(download(endpoint_of(emulator), tmp_path / "copy")) == SIZE
    assert (tmp_path / "copy").read_bytes() == CONTENT
    lengths = {request.body_length for request in emulator.requests.last if request.method == "POST"}
    bodies = {request.body for request in emulator.requests.last if request.method == "POST"}
    assert len(lengths) == len(bodies) == 1
    assert sent(emulator)[:-1] == ["POST files"] * 4


@on_every_driver
def test_an_upload_whose_file_went_away_between_attempts(name, emulator, tmp_path, monkeypatch):
    """The descriptor stays: what was opened is sent, whatever becomes of the path."""
    local = tmp_path / "local"
    local.write_bytes(CONTENT)
    endpoint = endpoint_of(emulator)
    told = []

    def listener(event):
        if isinstance(event, RetryScheduled):
            told.append(event)
            local.unlink()

    emulator.service.faults.add(Fault(status=503))
    operation = partial(
        endpoint.upload,
        "files",
        str(local),
        filename="local",
        boundary="b" * 32,
        fields={"path": "/data/f"},
        listener=listener,
    )
    with opened(name) as driver:
        assert driver.run(lambda clock: operation(clock=clock))["data"]["size"] == SIZE
    assert len(told) == 1


@pytest.mark.parametrize("cut", [0, 1, 300_000, SIZE - 1])
@on_every_driver
def test_a_download_that_breaks_goes_on(name, cut, emulator, tmp_path):
    local, copy = tmp_path / "local", tmp_path / "out" / "copy"
    copy.parent.mkdir()
    copy.write_bytes(b"old")
    local.write_bytes(CONTENT)
    endpoint = endpoint_of(emulator)
    with opened(name) as driver:
        driver.run(upload(endpoint, local))
        emulator.service.faults.add(Fault(cut=cut), count=2)
        assert driver.run(download(endpoint, copy)) == SIZE
        assert copy.read_bytes() == CONTENT
        emulator.service.faults.add(Fault(cut=0), count=3)  # none of the three attempts brings anything
        copy.write_bytes(b"old")
        with pytest.raises(IncompleteError):
            driver.run(download(endpoint, copy))
        assert copy.read_bytes() == b"old"
        assert [path.name for path in copy.parent.iterdir()] == ["copy"]
        assert driver.open == 0
        assert driver.run(download(endpoint, copy)) == SIZE
    assert hashlib.sha256(copy.read_bytes()).digest() == hashlib.sha256(CONTENT).digest()


@on_every_driver
def test_a_download_whose_folder_goes_away_between_attempts(name, emulator, tmp_path):
    local, copy = tmp_path / "local", tmp_path / "out" / "copy"
    copy.parent.mkdir()
    local.write_bytes(CONTENT)
    endpoint = endpoint_of(emulator)

    def listener(event):
        if isinstance(event, RetryScheduled):
            shutil.rmtree(copy.parent)

    request = endpoint.file_request("files", query={"path": "/data/f"})
    with opened(name) as driver:
        driver.run(upload(endpoint, local))
        emulator.service.faults.add(Fault(cut=10))
        with pytest.raises(FileError):
            driver.run(lambda clock: endpoint.download(request, str(copy), clock=clock, listener=listener))
        assert driver.open == 1, "the answer was whole: it is the file that is not"
        assert driver.run(call(endpoint, "GET"))["code"] == "SUCCESS"


# --- the pause


@pytest.mark.parametrize("name", BLOCKING)
def test_a_thread_that_pauses_holds_no_connection(name, emulator):
    paused, go_on = threading.Event(), threading.Event()

    def listener(event):
        if isinstance(event, RetryScheduled):  # told in the thread of the call: it stands still here
            paused.set()
            assert go_on.wait(PATIENCE), "nobody got through"

    emulator.service.faults.add(Fault(status=503))
    endpoint = endpoint_of(emulator)
    with opened(name, per_origin=1) as driver, ThreadPoolExecutor(1) as threads:
        first = threads.submit(driver.run, call(endpoint, "GET", "resources?first", listener=listener))
        assert paused.wait(PATIENCE)
        driver.run(call(endpoint, "GET", "resources?second"))
        go_on.set()
        first.result()
    assert sent(emulator) == ["GET resources?first=", "GET resources?second=", "GET resources?first="]
    assert emulator.connections == 1


def lingering(operation, ended):
    """The operation, whose pauses last until another one has ended; `ended` holds those that have."""

    def run(clock):
        flow = operation(clock)
        try:
            command = flow.send(None)
            while True:
                reply = yield command
                if isinstance(command, Sleep):
                    until = clock.monotonic() + PATIENCE
                    while not ended:
                        assert clock.monotonic() < until, "nobody got through"
                        yield Sleep(command.seconds)
                command = flow.send(reply)
        except StopIteration as stop:
            ended.append(operation)
            return stop.value
        finally:
            flow.close()

    return run


@pytest.mark.parametrize("name", LOOPING)
def test_a_task_that_pauses_holds_no_connection(name, emulator):
    emulator.service.faults.add(Fault(status=503))
    endpoint, ended = endpoint_of(emulator), []
    with opened(name, per_origin=1) as driver:
        calls = [call(endpoint, "GET", path) for path in ("resources?first", "resources?second")]
        answers = driver.together([lingering(each, ended) for each in calls])
    assert [answer["code"] for answer in answers] == ["SUCCESS"] * 2
    first, second, again = sent(emulator)  # trio begins its tasks in no order
    assert first == again != second
    assert emulator.connections == 1


@pytest.mark.parametrize("name", NATIVE)
def test_whoever_waits_is_before_the_one_that_asks_again_after_a_pause(name, emulator):
    """Over httpcore it may be either: a free connection is offered to all who ask until one has taken it."""
    emulator.service.faults.add(Fault(status=503))
    endpoint = endpoint_of(emulator)
    with opened(name, per_origin=1) as driver:
        paths = ["resources?first", "resources?second"]
        answers = driver.together([call(endpoint, "GET", path) for path in paths])
    assert [answer["code"] for answer in answers] == ["SUCCESS"] * 2
    first, second, again = sent(emulator)
    assert first == again != second
    assert emulator.connections == 1


@pytest.mark.parametrize("name", LOOPING)
def test_a_pause_is_cancelled(name, emulator):
    paused = threading.Event()

    def listener(event):
        if isinstance(event, RetryScheduled):
            assert event.delay == float(DAY)
            paused.set()

    emulator.service.faults.add(Fault(status=503, retry_after=DAY))
    endpoint = endpoint_of(emulator, timeout=600.0)
    with opened(name, per_origin=1) as driver:
        driver.cancel(call(endpoint, "GET", listener=listener), paused)
        assert driver.open == 1
        assert driver.run(call(endpoint, "GET"))["code"] == "SUCCESS"
        assert driver.open == 1
    assert emulator.requests.count == 2
    assert emulator.connections == 1


@pytest.mark.parametrize("name", LOOPING)
def test_a_pause_of_an_upload_is_cancelled(name, emulator, tmp_path):
    paused = threading.Event()

    def listener(event):
        if isinstance(event, RetryScheduled):
            paused.set()

    local = tmp_path / "local"
    local.write_bytes(CONTENT)
    emulator.service.faults.add(Fault(status=503, retry_after=DAY))
    endpoint = endpoint_of(emulator, timeout=600.0)
    operation = partial(
        endpoint.upload, "files", str(local), filename="f", boundary="b" * 32, listener=listener
    )
    with opened(name, per_origin=1) as driver:
        driver.cancel(lambda clock: operation(clock=clock), paused)
        assert not any(str(local) in entry for entry in descriptors())
        assert driver.run(call(endpoint, "GET"))["code"] == "SUCCESS"


@on_every_driver
def test_a_pause_that_would_outlast_the_call_is_not_made(name, emulator):
    emulator.service.faults.add(Fault(status=503, retry_after=DAY))
    with opened(name) as driver, pytest.raises(ServiceUnavailableError, match="would outlast the call"):
        driver.run(call(endpoint_of(emulator), "GET"))
    assert emulator.requests.count == 1


# --- the credential of the request being served


def key(number):
    return AccessKey(access_key_id=f"served-{number}", access_key_secret=Secret("emulator-secret"))


def callers(emulator):
    """Whose key signed each request, by the request's number."""
    found = {}
    for request in emulator.requests.last:
        credential = request.header("Agentrun-Authorization").partition("Credential=")[2]
        found[int(request.target.rpartition("=")[2])] = credential.partition("/")[0]
    return found


def overlay_config(emulator):
    return Config.from_env(emulator.environment).merge(Config(retry=Retry.never(), timeout=PATIENCE))


OVERLAID = {number: "emulator-id" if number % 3 == 0 else f"served-{number}" for number in range(30)}


@pytest.mark.parametrize(("backend", "transport"), ASYNC)
def test_the_served_request_s_credential_is_each_task_s_own(backend, transport, emulator):
    async def main():
        client = native(backend)(overlay_config(emulator), transport=transport)

        async def serve(number):
            if number % 3:
                current.set(key(number))
            await client.request("GET", "resources", query={"n": number})

        if backend == "trio":
            async with trio.open_nursery() as nursery:
                for number in OVERLAID:
                    nursery.start_soon(serve, number)
        else:
            await asyncio.gather(*map(serve, OVERLAID))
        assert current.get() is None

    run(backend, main)
    assert callers(emulator) == OVERLAID


@pytest.mark.parametrize("transport", ["native", "httpcore"])
def test_the_served_request_s_credential_is_each_thread_s_own(transport, emulator):
    together = threading.Barrier(3)
    with BlockingClient(overlay_config(emulator), transport=transport) as client:

        def serve(number):
            token = current.set(key(number)) if number % 3 else None
            together.wait(PATIENCE)  # the others have set theirs
            client.request("GET", "resources", query={"n": number})
            if token is not None:
                current.reset(token)

        with ThreadPoolExecutor(3) as threads:
            list(threads.map(serve, OVERLAID))
    assert callers(emulator) == OVERLAID
