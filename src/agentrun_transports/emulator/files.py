"""Files and videos of a namespace: ``/files`` takes and gives any file, ``/videos`` gives recordings.

A path is a name, kept as it was sent: ``a`` and ``/a`` are two files. Downloads come as
``application/octet-stream`` whatever was uploaded, so that an answer that is JSON is always the service
speaking.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

from .checksums import Checksums
from .messages import Refusal, Request, Response, invalid
from .ranges import etag_of, send_content
from .recording import recording
from .resources import VERSION
from .routing import Body, Call, Route, timestamp

if TYPE_CHECKING:
    from .store import Blobs, Records

# The path of the one recording that is always there, and its time: the first day of the version.
DEMO_VIDEO = "demo.mkv"
_DEMO_TIME = 1757462400.0

# SERVICE: `agents` and `super-agents` are served under the version, the others without one.
NAMESPACES = ((VERSION, "agents"), (VERSION, "super-agents"), ("agent-runtimes",), ("models",), ("tools",))


def send_recording(request: Request, now: float) -> Response:
    """Answer with the recording."""
    data, checksums = recording(), Checksums()
    checksums.update(data)
    return send_content(
        request,
        lambda offset, length: data[offset : offset + length],
        size=len(data),
        sha256=sha256(data).hexdigest(),
        checksums=checksums.fields(),
        modified=_DEMO_TIME,
        now=now,
        content_type="video/x-matroska",
    )


def send_stored(call: Call, blobs: Blobs, row: dict[str, Any]) -> Response:
    """Answer with the content that a record names."""
    return send_content(
        call.request,
        lambda offset, length: blobs.read(row["blob"], offset, length),
        size=row["size"],
        sha256=row["sha256"],
        # A folder of the first version has none.
        checksums=row.get("checksums", {}),
        modified=row["modified"],
        now=call.now,
        content_type="application/octet-stream",
    )


def check_path(path: str) -> str:
    """Return ``path``. Raises ``Refusal`` (400) where a segment is ``.`` or ``..``, or it holds a NUL."""
    if "\0" in path or any(part in (".", "..") for part in path.split("/")):
        raise invalid("'path' must not hold '.' or '..' as a segment, nor a NUL.")
    return path


class Files:
    """The files of all namespaces but sandboxes. Its methods are called under the service's lock."""

    def __init__(self, records: Records, blobs: Blobs) -> None:
        self._records = records
        self._blobs = blobs

    def routes(self) -> list[Route]:
        """Return the routes."""
        routes: list[Route] = []
        for namespace in NAMESPACES:
            files, videos = (*namespace, "files"), (*namespace, "videos")
            routes += [
                Route(method="POST", pattern=files, handler=self._upload, body=Body.FORM),
                Route(method="GET", pattern=files, handler=self._download, bare=True),
                Route(method="GET", pattern=videos, handler=self._video, bare=True),
            ]
        return routes

    @staticmethod
    def _table(call: Call) -> str:
        return "/".join(("files", *call.request.segments()[:-1]))

    def _upload(self, call: Call) -> Any:
        form, table = call.upload(), self._table(call)
        path = check_path(form.path)
        old = self._records.table(table).get(path)
        self._records.put(table, path, form.stored.row(call.now))
        if old is not None:
            self._blobs.remove(old["blob"])
        return {
            "path": path,
            "size": form.stored.size,
            "sha256": form.stored.sha256,
            "etag": etag_of(form.stored.sha256),
            "updatedAt": timestamp(call.now),
            **form.told(),
        }

    def _download(self, call: Call) -> Response:
        path = call.path()
        row = self._records.table(self._table(call)).get(path)
        if row is None:
            raise Refusal(404, f"There is no file {path!r}.", code="FileNotFound")
        return send_stored(call, self._blobs, row)

    def _video(self, call: Call) -> Response:
        path = call.path()
        if path != DEMO_VIDEO:
            raise Refusal(404, f"There is no video {path!r}; there is {DEMO_VIDEO!r}.", code="FileNotFound")
        return send_recording(call.request, call.now)
