"""The ``sandboxes`` namespace: lifecycle in the envelope, everything inside a sandbox bare.

A sandbox here is a record, a tree of files, contexts, processes that have ended, and one recording. It
stops when it has not been used for ``sandboxIdleTimeoutSeconds``, as told by the time that comes with each
call. Where SERVICE names no shape for an answer, the shape is the emulator's own.

Rules that hold here:
1. Nothing is executed: see ``evaluate``.
2. A call inside a sandbox that has stopped is refused (409); what it holds is kept until it is deleted.
3. Methods are called under the service's lock.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from .evaluate import Outcome, run_command, run_python
from .files import DEMO_VIDEO, send_recording, send_stored
from .messages import Refusal, Response, invalid
from .routing import Body, Call, Handler, Route, choice, flag, query_number, text, timestamp, whole
from .tree import HOME, Tree, absolute, check_mode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .store import Blobs, Records

LANGUAGES = ("python", "javascript")
# What a read or a write may bring as JSON, in bytes; larger files go through upload and download.
_MAX_CONTENT = 10 << 20
_MAX_TIMEOUT = 24 * 3600

_OK = {"status": "ok"}


class Sandboxes:
    """All sandboxes."""

    def __init__(self, records: Records, blobs: Blobs, new_id: Callable[[], str]) -> None:
        self._records = records
        self._blobs = blobs
        self._new_id = new_id

    def routes(self) -> list[Route]:
        """Return the routes: the lifecycle's, and those inside a sandbox."""
        one = ("sandboxes", "*")
        lifecycle = [
            Route(method="POST", pattern=one[:1], handler=self._create, body=Body.JSON),
            Route(method="GET", pattern=one, handler=self._get),
            Route(method="DELETE", pattern=one, handler=self._delete),
            Route(method="POST", pattern=(*one, "stop"), handler=self._stop),
        ]
        none, json, form = Body.NONE, Body.JSON, Body.FORM
        inside: list[tuple[str, str, Body, Handler]] = [
            ("GET", "health", none, self._health),
            ("GET", "filesystem", none, self._list_files),
            ("GET", "filesystem/stat", none, self._stat),
            ("POST", "filesystem/mkdir", json, self._make_directory),
            ("POST", "filesystem/move", json, self._move),
            ("POST", "filesystem/remove", json, self._remove),
            ("POST", "filesystem/upload", form, self._upload),
            ("GET", "filesystem/download", none, self._download),
            ("GET", "files", none, self._read_file),
            ("POST", "files", json, self._write_file),
            ("GET", "contexts", none, self._list_contexts),
            ("POST", "contexts", json, self._make_context),
            ("POST", "contexts/execute", json, self._execute),
            ("GET", "contexts/*", none, self._get_context),
            ("DELETE", "contexts/*", none, self._delete_context),
            ("POST", "processes/cmd", json, self._run_command),
            ("GET", "processes", none, self._list_processes),
            ("GET", "processes/*", none, self._get_process),
            ("DELETE", "processes/*", none, self._delete_process),
            ("GET", "recordings", none, self._list_recordings),
            ("GET", "recordings/*", none, self._get_recording),
            ("DELETE", "recordings/*", none, self._delete_recording),
        ]
        return lifecycle + [
            Route(
                method=method,
                pattern=(*one, *path.split("/")),
                handler=self._inside(handler),
                body=body,
                bare=True,
            )
            for method, path, body, handler in inside
        ]

    # The lifecycle.

    def _record(self, call: Call) -> dict[str, Any]:
        """Return the sandbox that the path names, as of now. Raises ``Refusal`` (404)."""
        row = self._records.table("sandboxes").get(call.ids[0])
        if row is None:
            raise Refusal(404, f"There is no sandbox {call.ids[0]!r}.", code="SandboxNotFound")
        if row["status"] == "READY" and call.now - row["lastUsed"] > row["sandboxIdleTimeoutSeconds"]:
            return self._stopped(row, call.now)
        return row

    def _stopped(self, row: dict[str, Any], now: float) -> dict[str, Any]:
        row = {**row, "status": "TERMINATED", "endedAt": timestamp(now)}
        self._records.put("sandboxes", row["sandboxId"], row)
        return row

    @staticmethod
    def _told(row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a record without what is the emulator's own business."""
        return {key: value for key, value in row.items() if key not in ("lastUsed", "nextPid", "recordings")}

    def _create(self, call: Call) -> Any:
        data = call.data
        identifier = text(data, "sandboxId") if data.get("sandboxId") is not None else self._new_id()
        if identifier in (".", ".."):
            raise invalid("'sandboxId' must not be '.' or '..': no path could name it.")
        if identifier in self._records.table("sandboxes"):
            raise Refusal(409, f"There is a sandbox {identifier!r} already.", code="SandboxAlreadyExists")
        mounts = {
            name: data[name] for name in ("nasConfig", "ossMountConfig", "polarFsConfig") if data.get(name)
        }
        if not all(isinstance(value, dict) for value in mounts.values()):
            raise invalid(f"Each of {', '.join(mounts)} must be an object.")
        row = {
            "sandboxId": identifier,
            "templateName": text(data, "templateName"),
            "status": "READY",
            "sandboxIdleTimeoutSeconds": whole(data, "sandboxIdleTimeoutSeconds", 600, 1, _MAX_TIMEOUT),
            **mounts,
            "createdAt": timestamp(call.now),
            "lastUsed": call.now,
            "nextPid": 1000,
            "recordings": [DEMO_VIDEO],
        }
        self._records.put("sandboxes", identifier, row)
        Tree(self._records, self._blobs, identifier).plant(call.now)
        return self._told(row)

    def _get(self, call: Call) -> Any:
        return self._told(self._record(call))

    def _stop(self, call: Call) -> Any:
        row = self._record(call)
        return self._told(row if row["status"] == "TERMINATED" else self._stopped(row, call.now))

    def _delete(self, call: Call) -> Any:
        row = self._record(call)
        self._tree(call).fell()
        for table in ("contexts", "processes"):
            self._records.drop(f"{table}/{row['sandboxId']}")
        self._records.delete("sandboxes", row["sandboxId"])
        return {**self._told(row), "status": "TERMINATED"}

    # Inside a sandbox.

    def _inside(self, handler: Handler) -> Handler:
        """Return ``handler`` for a sandbox that runs, and is used by this call."""

        def enter(call: Call) -> Any:
            row = self._record(call)
            if row["status"] != "READY":
                raise Refusal(409, f"Sandbox {call.ids[0]!r} has stopped.", code="SandboxNotReady")
            self._records.put("sandboxes", call.ids[0], {**row, "lastUsed": call.now})
            return handler(call)

        return enter

    def _tree(self, call: Call) -> Tree:
        return Tree(self._records, self._blobs, call.ids[0])

    def _health(self, call: Call) -> Any:
        return _OK

    def _list_files(self, call: Call) -> Any:
        path = absolute(call.query.get("path") or HOME)
        depth = query_number(call.query, "depth", 1, 1, 100)
        return {"path": path, "entries": self._tree(call).entries(path, depth)}

    def _stat(self, call: Call) -> Any:
        return self._tree(call).describe(absolute(call.path()))

    def _make_directory(self, call: Call) -> Any:
        path = absolute(text(call.data, "path"))
        mode = check_mode(text(call.data, "mode", "0755"))
        tree = self._tree(call)
        tree.make_directory(path, parents=flag(call.data, "parents", False), mode=mode, now=call.now)
        return {**_OK, **tree.describe(path)}

    def _move(self, call: Call) -> Any:
        source, destination = (absolute(text(call.data, name)) for name in ("source", "destination"))
        self._tree(call).move(source, destination)
        return {**_OK, "source": source, "destination": destination}

    def _remove(self, call: Call) -> Any:
        path = absolute(text(call.data, "path"))
        self._tree(call).remove(path)
        return {**_OK, "path": path}

    def _upload(self, call: Call) -> Any:
        form, tree = call.upload(), self._tree(call)
        path = absolute(form.path)
        tree.put_file(path, form.stored, mode="0644", parents=True, now=call.now)
        return {**_OK, **tree.describe(path), **form.told()}

    def _download(self, call: Call) -> Response:
        return send_stored(call, self._blobs, self._tree(call).file(absolute(call.path())))

    def _read_file(self, call: Call) -> Any:
        path = absolute(call.path())
        node = self._tree(call).file(path)
        if node["size"] > _MAX_CONTENT:
            raise invalid(f"{path!r} has {node['size']} bytes; download what is larger than {_MAX_CONTENT}.")
        content = self._blobs.whole(node["blob"])
        told = {"path": path, "size": node["size"], "mode": node["mode"]}
        try:
            return {**told, "content": content.decode("utf-8"), "encoding": "utf-8"}
        except UnicodeDecodeError:
            return {**told, "content": base64.b64encode(content).decode("ascii"), "encoding": "base64"}

    def _write_file(self, call: Call) -> Any:
        path = absolute(text(call.data, "path"))
        content = text(call.data, "content", "")
        mode = check_mode(text(call.data, "mode", "644"))
        parents = flag(call.data, "createDir", True)
        if choice(call.data, "encoding", "utf-8", ("utf-8", "base64")) == "utf-8":
            data = content.encode("utf-8")
        else:
            try:
                data = base64.b64decode(content, validate=True)
            except binascii.Error as error:
                raise invalid(f"'content' is not base64: {error}.") from None
        tree = self._tree(call)
        stored = self._blobs.keep(data)
        try:
            tree.put_file(path, stored, mode=mode, parents=parents, now=call.now)
        except Refusal:
            self._blobs.remove(stored.blob)
            raise
        return {**_OK, **tree.describe(path)}

    # Contexts and what is executed in them.

    def _context(self, call: Call, identifier: str) -> dict[str, Any]:
        row = self._records.table(f"contexts/{call.ids[0]}").get(identifier)
        if row is None:
            raise Refusal(404, f"There is no context {identifier!r}.", code="ContextNotFound")
        return row

    def _list_contexts(self, call: Call) -> Any:
        return list(self._records.table(f"contexts/{call.ids[0]}").values())

    def _make_context(self, call: Call) -> Any:
        language = choice(call.data, "language", "python", LANGUAGES)
        row = {"id": self._new_id(), "cwd": absolute(text(call.data, "cwd", HOME)), "language": language}
        self._records.put(f"contexts/{call.ids[0]}", row["id"], row)
        return row

    def _get_context(self, call: Call) -> Any:
        return self._context(call, call.ids[1])

    def _delete_context(self, call: Call) -> Any:
        self._context(call, call.ids[1])
        self._records.delete(f"contexts/{call.ids[0]}", call.ids[1])
        return _OK

    def _execute(self, call: Call) -> Any:
        code = text(call.data, "code")
        whole(call.data, "timeout", 30, 1, _MAX_TIMEOUT)
        language = choice(call.data, "language", "python", LANGUAGES)
        if call.data.get("contextId") is not None:
            context = self._context(call, text(call.data, "contextId"))
            if call.data.get("language", context["language"]) != context["language"]:
                raise invalid(f"Context {context['id']!r} is of language {context['language']!r}.")
            language = context["language"]
        if language == "python":
            outcome = run_python(code)
        else:
            outcome = Outcome(stderr="emulator: no JavaScript is worked out here\n", exit_code=1)
        return {"executionId": self._new_id(), **_finished(outcome)}

    # Processes.

    def _run_command(self, call: Call) -> Any:
        command, cwd = text(call.data, "command"), absolute(text(call.data, "cwd", HOME))
        whole(call.data, "timeout", 30, 1, _MAX_TIMEOUT)
        tree = self._tree(call)
        tree.directory(cwd)

        def path_of(name: str) -> str:
            return absolute(name if name.startswith("/") else f"{cwd}/{name}")

        def list_directory(name: str) -> list[str]:
            try:
                return [entry["name"] for entry in tree.entries(path_of(name), 1)]
            except Refusal as refusal:
                raise FileNotFoundError(refusal.message) from None

        def read_text(name: str) -> str:
            try:
                return self._blobs.whole(tree.file(path_of(name))["blob"]).decode("utf-8", "replace")
            except Refusal as refusal:
                raise FileNotFoundError(refusal.message) from None

        outcome = run_command(command, cwd, list_directory=list_directory, read_text=read_text)
        sandbox = self._records.table("sandboxes")[call.ids[0]]
        pid = sandbox["nextPid"]
        self._records.put("sandboxes", call.ids[0], {**sandbox, "nextPid": pid + 1})
        row = {
            "pid": pid,
            "command": command,
            "cwd": cwd,
            "status": "exited",
            "exitCode": outcome.exit_code,
            "startedAt": timestamp(call.now),
        }
        self._records.put(f"processes/{call.ids[0]}", str(pid), row)
        return {"executionId": self._new_id(), "pid": pid, **_finished(outcome)}

    def _list_processes(self, call: Call) -> Any:
        return list(self._records.table(f"processes/{call.ids[0]}").values())

    def _get_process(self, call: Call) -> Any:
        row = self._records.table(f"processes/{call.ids[0]}").get(call.ids[1])
        if row is None:
            raise Refusal(404, f"There is no process {call.ids[1]!r}.", code="ProcessNotFound")
        return row

    def _delete_process(self, call: Call) -> Any:
        self._get_process(call)
        self._records.delete(f"processes/{call.ids[0]}", call.ids[1])
        return _OK

    # Recordings.

    def _recording(self, call: Call) -> dict[str, Any]:
        row = self._records.table("sandboxes")[call.ids[0]]
        if call.ids[1] not in row["recordings"]:
            raise Refusal(404, f"There is no recording {call.ids[1]!r}.", code="RecordingNotFound")
        return row

    def _list_recordings(self, call: Call) -> Any:
        row = self._records.table("sandboxes")[call.ids[0]]
        return {"recordings": [{"filename": name} for name in row["recordings"]]}

    def _get_recording(self, call: Call) -> Response:
        self._recording(call)
        return send_recording(call.request, call.now)

    def _delete_recording(self, call: Call) -> Any:
        row = self._recording(call)
        left = [name for name in row["recordings"] if name != call.ids[1]]
        self._records.put("sandboxes", call.ids[0], {**row, "recordings": left})
        return _OK


def _finished(outcome: Outcome) -> dict[str, Any]:
    return {
        "status": "success" if outcome.exit_code == 0 else "error",
        "result": {"stdout": outcome.stdout, "stderr": outcome.stderr, "exitCode": outcome.exit_code},
    }
