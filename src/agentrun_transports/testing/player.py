"""Playing a recording back: the answers that were recorded, with no network and in no time.

Rules of this file: a request meets the first exchange of its method, URL and content that was not played yet;
what was a secret may be anything; a request that was not recorded is told beside what was.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

from agentrun_proto import Clock, Request

from .memory import FromMemory, Replay, UnexpectedRequest
from .recording import VERSION, Recorded, Segment, plain_segments
from .redaction import Redaction, shown_url

_SHOWN = 300  # characters of content in a message


class Player(FromMemory):
    """Answers a client's requests as they were answered when they were recorded; ``transport=`` takes it.

    The client needs the endpoint of that time, and some credential of the same kind: the signature is not
    looked at. Failures come again as well; pauses and timeouts take no time.

    Args:
        path: of the file that a `Recorder` has written.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no recording.

    A request that was not recorded, or not that often, raises `UnexpectedRequest`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        with open(self._path, encoding="utf-8") as file:
            try:
                self._recorded = _parse(json.load(file))
            except (ValueError, TypeError, LookupError, AttributeError) as error:
                raise ValueError(f"{self._path} is no recording of version {VERSION}: {error}") from error
        self._waiting = list(self._recorded)
        self._lock = threading.Lock()

    @property
    def unplayed(self) -> list[str]:
        """What was recorded and not asked for yet: method and URL of each."""
        with self._lock:
            return [recorded.name for recorded in self._waiting]

    def reply(self, request: Request, contents: Sequence[bytes], clock: Clock) -> Replay:
        """The first exchange of this request that was not played yet."""
        segments = plain_segments(request, contents)
        with self._lock:
            for index, recorded in enumerate(self._waiting):
                if recorded.same_address(request) and recorded.same_content(segments):
                    del self._waiting[index]
                    break
            else:
                raise UnexpectedRequest(self._explain(request, segments))
        torn = f"{recorded.name} was not read any further when it was recorded in {self._path}"
        return Replay(
            head=recorded.head(clock.now()),
            pieces=recorded.pieces,
            failure=recorded.failure,
            torn=torn if recorded.left else None,
        )

    def _explain(self, request: Request, segments: Sequence[bytes]) -> str:
        asked = f"{request.method} {shown_url(request.url)}"
        if not self._recorded:
            return f"{asked} was not recorded in {self._path}, which holds nothing"
        there = [recorded for recorded in self._recorded if recorded.same_address(request)]
        played = [recorded for recorded in there if recorded.same_content(segments)]
        if played:
            return f"{asked} was recorded {len(played)} times in {self._path}, and is asked for once more"
        if there:
            return (
                f"{asked} was recorded in {self._path} with other content.\n"
                f"recorded: {_show(there[0].segments)}\n"
                f"asked:    {_show(segments)}"
            )
        nearest = max(self._recorded, key=lambda recorded: _likeness(recorded.name, asked))
        return f"{asked} was not recorded in {self._path}.\nThe nearest that was: {nearest.name}"


def _parse(told: Any) -> list[Recorded]:
    if told["recording"] != VERSION:
        raise ValueError(f"it is of version {told['recording']!r}")
    return [Recorded.from_json(exchange) for exchange in told["exchanges"]]


def _likeness(name: str, asked: str) -> float:
    return SequenceMatcher(None, name, asked, autojunk=False).ratio()


def _show(segments: Sequence[Segment]) -> str:
    known = Redaction()
    shown = [
        known.text(segment[:_SHOWN].decode("utf-8", "backslashreplace"))
        if isinstance(segment, bytes)
        else str(segment)
        for segment in segments
    ]
    return " ".join(shown)[:_SHOWN] or "(none)"
