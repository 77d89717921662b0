"""demo: the whole job against an emulator on this machine, each step checked.

Rules of this file: the steps are a table; each checks what it got, and what it sees is the first attempt's
outcome; nothing is left behind, however it ends, and the caller's environment changes nothing.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from agentrun_proto import Config, NotFoundError, PermissionDeniedError, Retry, StatusError

from ..data_api import DataAPI, ResourceType
from .screen import Screen
from .through import Carrier
from .walk import Step, Unexpected, expect, present

if TYPE_CHECKING:
    from ..emulator import Emulator

_SIZE = 20_000_000  # bytes that go up and down
_CHUNK = 1 << 20
_NAME = "first"
_PATCH = {"description": "changed by the demo", "labels": {"step": "patch"}}
_REMOTE = "demo/20MB.bin"
_QUESTION = "Say this again, word by word"  # an emulated agent does
_MISSING = "resources/missing"
_TIMEOUT = 60.0  # seconds; far above what a step takes, so that a demo always ends


class Scene:
    """What the steps share: the client, the emulator, a folder, and what earlier steps found."""

    def __init__(self, emulator: Emulator, folder: Path, carrier: Carrier) -> None:
        self.emulator = emulator
        self.folder = folder
        self.config = Config(
            data_endpoint=emulator.endpoint,
            control_endpoint=emulator.endpoint,
            account_id=emulator.environment["AGENTRUN_ACCOUNT_ID"],
            region_id=emulator.environment["AGENTRUN_REGION"],
            access_key_id=emulator.environment["AGENTRUN_ACCESS_KEY_ID"],
            access_key_secret=emulator.environment["AGENTRUN_ACCESS_KEY_SECRET"],
            timeout=_TIMEOUT,
            retry=Retry.never(),
        )
        # Native: no proxy of the caller's leads to an emulator on this machine.
        self.client = DataAPI("demo", ResourceType.Runtime, self.config, transport="native")
        self.carrier = carrier
        self.api = carrier.api(self.client)
        self.resource = ""
        self.digest = ""

    @property
    def path(self) -> str:
        """The resource that was created."""
        return f"resources/{self.resource}"


def _create(scene: Scene) -> str:
    data = scene.api.post("resources", {"name": _NAME, "description": "made by the demo"})["data"]
    expect("the name", data["name"], _NAME)
    signature = scene.emulator.requests.last[-1].header("Agentrun-Authorization") or "nothing"
    expect("the algorithm of the signature", signature.partition(" ")[0], "AGENTRUN4-HMAC-SHA256")
    scene.resource = data["id"]
    return f"POST resources, signed\n-> id {scene.resource}"


def _list(scene: Scene) -> str:
    data = scene.api.get("resources?page=1", {"limit": 10})["data"]
    target = scene.emulator.requests.last[-1].target
    expect("the merged query", target.partition("?")[2], "page=1&limit=10")
    expect("what is listed", [item["id"] for item in data["items"]], [scene.resource])
    return f"GET resources?page=1 + {{'limit': 10}}\n-> ?page=1&limit=10, {data['total']} found"


def _patch(scene: Scene) -> str:
    data = scene.api.patch(scene.path, _PATCH)["data"]
    expect("the patched description", data["description"], _PATCH["description"])
    return f"PATCH it -> {data['description']!r}"


def _read(scene: Scene) -> str:
    data = scene.api.get(scene.path)["data"]
    expect("what is read", {name: data.get(name) for name in ("name", *_PATCH)}, {"name": _NAME, **_PATCH})
    return "GET it -> as it was patched"


def _missing(scene: Scene) -> str:
    return _refused(lambda: scene.api.get(_MISSING), NotFoundError, "GET resources/missing")


def _forged(scene: Scene) -> str:
    forged = scene.config.merge(Config(access_key_id="emulator-id", access_key_secret="not-the-secret"))
    return _refused(
        lambda: scene.api.get(scene.path, config=forged),
        PermissionDeniedError,
        "GET, signed with a wrong secret",
    )


def _refused(ask: Callable[[], Any], kind: type[StatusError], what: str) -> str:
    """Asks for what must be refused, and tells how."""
    try:
        answer = ask()
    except kind as error:
        if not error.error_code or not error.request_id:
            raise Unexpected(f"the refusal should carry a code and a request id: {error}") from error
        said = error.message.partition(". ")[0]
        return f"{what}\n-> {error.status_code} {error.error_code}: {said}\n   request id {error.request_id}"
    raise Unexpected(f"{what} should be refused, and was answered with {answer!r}")


def _upload(scene: Scene) -> str:
    local = scene.folder / "to-be-sent.bin"
    digest = sha256()
    with local.open("wb") as file:
        for start in range(0, _SIZE, _CHUNK):
            piece = os.urandom(min(_CHUNK, _SIZE - start))
            digest.update(piece)
            file.write(piece)
    scene.digest = digest.hexdigest()
    begin = perf_counter()
    data = scene.api.post_file("files", local, _REMOTE)["data"]
    took = perf_counter() - begin
    expect("the size that arrived", data["size"], _SIZE)
    expect("the hash of what arrived", data["sha256"], scene.digest)
    return f"POST {_SIZE / 1e6:.0f} MB as {_REMOTE}, {_speed(took)}"


def _download(scene: Scene) -> str:
    local = scene.folder / "saved.bin"
    begin = perf_counter()
    answer = scene.api.get_file("files", local, {"path": _REMOTE})
    took = perf_counter() - begin
    expect("the size that was saved", answer["size"], _SIZE)
    digest = sha256()
    with local.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    expect("the hash of what was saved", digest.hexdigest(), scene.digest)
    return f"GET it back, {_speed(took)}, sha256 equal: {scene.digest[:16]}..."


def _speed(seconds: float) -> str:
    return f"{_SIZE / 1e6 / seconds:.0f} MB/s"


def _chat(scene: Scene) -> str:
    messages = [{"role": "user", "content": _QUESTION}]
    chunks = scene.carrier.chat(scene.client, "demo-agent", messages, "demo-model")
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    tokens = [delta["content"] for delta in deltas if delta.get("content")]
    expect("the answer", "".join(tokens), _QUESTION)
    expect("the number of tokens", len(tokens), len(_QUESTION.split()))
    return f"POST chat/completions of an agent\n-> {len(tokens)} tokens, one by one: {'|'.join(tokens)}"


def _delete(scene: Scene) -> str:
    scene.api.delete(scene.path)
    expect("what is left", scene.api.get("resources")["data"]["items"], [])
    return "DELETE it -> the list is empty"


STEPS: tuple[Step[Scene], ...] = (
    Step(name="create", run=_create),
    Step(name="list", run=_list),
    Step(name="patch", run=_patch),
    Step(name="read", run=_read),
    Step(name="not found", run=_missing),
    Step(name="forged", run=_forged),
    Step(name="upload", run=_upload),
    Step(name="download", run=_download),
    Step(name="chat", run=_chat),
    Step(name="delete", run=_delete),
)


def demo(args: argparse.Namespace, screen: Screen) -> int:
    """The command demo."""
    from ..emulator import Emulator

    if args.faults:
        from .faults_demo import faults_demo

        return faults_demo(args.driver, screen)
    with (
        Emulator() as emulator,
        tempfile.TemporaryDirectory(prefix="agentrun-demo-") as folder,
        ExitStack() as stack,
    ):
        screen.line(("An emulator of the service runs at ", ""), (emulator.endpoint, "cyan"))

        def stage(carrier: Carrier) -> Scene:
            scene = Scene(emulator, Path(folder), carrier)
            stack.enter_context(scene.client)
            return scene

        return present(STEPS, args.driver, stage, screen)
