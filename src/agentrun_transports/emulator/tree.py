"""The files of one sandbox: a tree of paths, as POSIX names them, over records and blobs.

Rules that hold here:
1. A path is made absolute against ``HOME`` and normalised before anything is looked up, so that ``..``
   never leads out of the tree: there is nothing above its root.
2. A node is a record: ``type``, ``mode``, ``modified``, and for a file its ``blob``, ``size`` and
   ``sha256``. Every node but the root has a parent that is a directory.
3. Called under the service's lock.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Any

from .messages import Refusal, invalid
from .routing import timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .store import Blobs, Records, Stored

HOME = "/home/user"


def absolute(path: str) -> str:
    """Return ``path`` from the root, without ``.``, ``..`` and doubled slashes.

    >>> absolute("a/../b"), absolute("//tmp/../../x/")
    ('/home/user/b', '/x')
    """
    if not path or "\0" in path:
        raise invalid("A path must not be empty, nor hold a NUL.")
    return "/" + posixpath.normpath(posixpath.join(HOME, path)).lstrip("/")


def check_mode(mode: str) -> str:
    """Return a mode in octal with four digits: ``644`` -> ``0644``."""
    if not re.fullmatch("0?[0-7]{3}", mode):
        raise invalid(f"'mode' must be octal, as in '0755' or '644', and is {mode!r}.")
    return mode.zfill(4)


class Tree:
    """The file tree of the sandbox called ``identifier``."""

    def __init__(self, records: Records, blobs: Blobs, identifier: str) -> None:
        self._records = records
        self._blobs = blobs
        self._table = f"tree/{identifier}"

    @property
    def _nodes(self) -> Mapping[str, dict[str, Any]]:
        return self._records.table(self._table)

    def plant(self, now: float) -> None:
        """Make the directories that every sandbox begins with."""
        for path in ("/", "/home", HOME, "/tmp"):  # noqa: S108 (a name in the sandbox's tree, not of this machine)
            self._records.put(self._table, path, {"type": "directory", "mode": "0755", "modified": now})

    def fell(self) -> None:
        """Remove everything."""
        for node in self._nodes.values():
            self._free(node)
        self._records.drop(self._table)

    def _free(self, node: Mapping[str, Any]) -> None:
        if "blob" in node:
            self._blobs.remove(node["blob"])

    def node(self, path: str) -> dict[str, Any]:
        """Return the node at an absolute path. Raises ``Refusal`` (404)."""
        node = self._nodes.get(path)
        if node is None:
            raise Refusal(404, f"There is nothing at {path!r}.", code="FileNotFound")
        return node

    def file(self, path: str) -> dict[str, Any]:
        """Return the node of a file. Raises ``Refusal`` (404, or 400 for a directory)."""
        node = self.node(path)
        if node["type"] != "file":
            raise invalid(f"{path!r} is a directory.")
        return node

    def directory(self, path: str) -> dict[str, Any]:
        """Return the node of a directory. Raises ``Refusal`` (404, or 400 for a file)."""
        node = self.node(path)
        if node["type"] != "directory":
            raise invalid(f"{path!r} is a file.")
        return node

    def below(self, path: str) -> list[str]:
        """Return every path below a directory, sorted."""
        prefix = path.rstrip("/") + "/"
        return sorted(other for other in self._nodes if other.startswith(prefix) and other != path)

    def describe(self, path: str) -> dict[str, Any]:
        """Return what callers are told about a node."""
        node = self.node(path)
        told = {
            "path": path,
            "name": posixpath.basename(path) or "/",
            "type": node["type"],
            "mode": node["mode"],
            "size": node.get("size", 0),
            "modifiedAt": timestamp(node["modified"]),
        }
        return {**told, "sha256": node["sha256"]} if "sha256" in node else told

    def entries(self, path: str, depth: int) -> list[dict[str, Any]]:
        """Return what lies at most ``depth`` levels below a directory."""
        self.directory(path)
        top = path.rstrip("/").count("/")
        return [self.describe(other) for other in self.below(path) if other.count("/") - top <= depth]

    def make_directory(self, path: str, *, parents: bool, mode: str, now: float) -> None:
        """Make a directory; with ``parents``, those above it too, and it may be there already."""
        if path in self._nodes:
            if parents and self._nodes[path]["type"] == "directory":
                return
            raise Refusal(409, f"{path!r} is there already.", code="FileExists")
        above = posixpath.dirname(path)
        if parents:
            self.make_directory(above, parents=True, mode=mode, now=now)
        self.directory(above)
        self._records.put(self._table, path, {"type": "directory", "mode": mode, "modified": now})

    def put_file(self, path: str, stored: Stored, *, mode: str, parents: bool, now: float) -> None:
        """Keep a file at ``path``, in the place of one that is there."""
        old = self._nodes.get(path)
        if old is not None and old["type"] != "file":
            raise invalid(f"{path!r} is a directory.")
        above = posixpath.dirname(path)
        if parents:
            self.make_directory(above, parents=True, mode="0755", now=now)
        self.directory(above)
        self._records.put(self._table, path, {"type": "file", "mode": mode, **stored.row(now)})
        if old is not None:
            self._free(old)

    def move(self, source: str, destination: str) -> None:
        """Move a file or a directory with all that is in it; nothing may be at ``destination``."""
        self.node(source)
        if source == "/" or destination == source or destination.startswith(f"{source}/"):
            raise invalid(f"{source!r} cannot be moved to {destination!r}.")
        if destination in self._nodes:
            raise Refusal(409, f"{destination!r} is there already.", code="FileExists")
        self.directory(posixpath.dirname(destination))
        for path in [source, *self.below(source)]:
            self._records.put(self._table, destination + path[len(source) :], self._nodes[path])
            self._records.delete(self._table, path)

    def remove(self, path: str) -> None:
        """Remove a file, or a directory with all that is in it."""
        self.node(path)
        if path == "/":
            raise invalid("The root cannot be removed.")
        for doomed in [*reversed(self.below(path)), path]:
            node = self._nodes[doomed]
            self._records.delete(self._table, doomed)
            self._free(node)
