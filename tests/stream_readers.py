"""What streams mean, said a second time: small references that see the whole body at once.

Rules of this file: they share nothing with the decoders but the value that an event is.
"""

from __future__ import annotations

import re

from agentrun_proto.events import ServerSentEvent


def by_the_standard(body: bytes) -> tuple[list[ServerSentEvent], str, int | None]:
    """Events, last event id and reconnection time, section by section of WHATWG HTML, 9.2.6."""
    text = body.decode("utf-8", "replace")
    text = text[1:] if text.startswith("\ufeff") else text
    lines = re.split("\r\n|\r|\n", text)[:-1]
    found: list[ServerSentEvent] = []
    data = kind = buffer = last = ""
    retry = event_retry = None
    for line in lines:
        if line == "":
            last = buffer
            if data != "":
                found.append(
                    ServerSentEvent(type=kind or "message", data=data[:-1], id=last, retry=event_retry)
                )
            data, kind, event_retry = "", "", None
            continue
        if line.startswith(":"):
            continue
        field, value = line.split(":", 1) if ":" in line else (line, "")
        value = value[1:] if value[:1] == " " else value
        if field == "event":
            kind = value
        elif field == "data":
            data += value + "\n"
        elif field == "id" and "\0" not in value:
            buffer = value
        elif field == "retry" and re.fullmatch("[0-9]+", value):
            retry = event_retry = int(value)
    return found, last, retry


def split_lines(body: bytes) -> list[str]:
    """What `LineDecoder` is to give, over the whole body."""
    text = body.decode()
    lines = re.split("\r?\n", text[1:] if text.startswith("\ufeff") else text)
    return lines if lines[-1] else lines[:-1]
