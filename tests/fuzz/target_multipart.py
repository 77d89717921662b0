"""A form of any names, values and files is refused with a ValueError, or foreign decoders read back what was
put in, and it is as long as it says.

An input is three groups: the boundary, the fields as ``name=value`` records, and the files as records of four
units: name, file name, media type, content.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from agentrun_proto import Body, FilePart, encode_multipart
from form_decoders import by_multipart, by_werkzeug, unescaped
from fuzz.inputs import GROUP, RECORD, UNIT, groups, joined, only, pairs, records, text
from proto_strategies import FakeSource

DECODERS = (by_werkzeug, by_multipart)

FOUND: dict[str, bytes] = {}


def _files(group: bytes) -> list[tuple[str, str, str, bytes]]:
    found = []
    for record in records(group):
        name, filename, kind, content = (record.split(UNIT, 3) + [b""] * 4)[:4]
        found.append((text(name), text(filename), text(kind), content))
    return found


def check(data: bytes) -> None:
    first, second, third = groups(data, 3)
    boundary, fields, files = text(first), dict(pairs(second)), _files(third)
    contents = [content for *_, content in files]
    parts = [
        FilePart(name=name, filename=filename, content_type=kind, source=FakeSource(len(content)))
        for name, filename, kind, content in files
    ]
    try:
        body = encode_multipart(fields, parts, boundary=boundary)
    except ValueError as error:
        only(error, ValueError)
        return
    waiting = iter(contents)
    body = replace(
        body, segments=tuple(part if isinstance(part, bytes) else next(waiting) for part in body.segments)
    )
    assert body.data is not None
    assert len(body.data) == body.length
    if any(boundary in told for told in (second.decode("latin-1"), *(c.decode("latin-1") for c in contents))):
        return  # the caller is to choose one that does not occur
    if not all(filename for _, filename, _, _ in files):
        return  # so do browsers say that there is no file, and decoders differ in what they make of that
    for decoder in DECODERS:
        _read_back(decoder(body), fields, files, body)


def _read_back(
    read: tuple[list[tuple[str, str]], list[tuple[str, str, bytes]]],
    fields: dict[str, str],
    files: list[tuple[str, str, str, bytes]],
    body: Body,
) -> None:
    heard = [(unescaped(name), value) for name, value in read[0]]
    assert heard == [(unescaped(name), value) for name, value in fields.items()], body
    saved = [(unescaped(name), unescaped(filename), content) for name, filename, content in read[1]]
    given = [(unescaped(name), unescaped(filename), content) for name, filename, _, content in files]
    assert _by_name(saved) == _by_name(given)


def _by_name(files: list[tuple[str, str, bytes]]) -> dict[str, list[tuple[str, bytes]]]:
    """Decoders keep the order of the files of one name, and no other."""
    found: dict[str, list[tuple[str, bytes]]] = {}
    for name, filename, content in files:
        found.setdefault(name, []).append((filename, content))
    return found


NAMES = (
    "plain.txt", "a b", 'a"b', "a\r\nb", "é中😀", "a;b=c", "a%22b", "../x", "a\tb", "a\\b", "\0", "\x7f", "",
    "=?utf-8?q?x?=", 'x"; filename="y', "\u2028", "\udc80",
)  # fmt: skip


def corpus() -> Iterator[bytes]:
    for number, name in enumerate(NAMES):
        other = NAMES[(number + 5) % len(NAMES)]
        fields = [f"{name}={other}", "path=/a.txt"]
        files = [joined(UNIT, ["file", name, "application/octet-stream", b"data\r\n\0\xff--x"])]
        files += [joined(UNIT, [other, "f", "text/plain; charset=utf-8", b""])] * (number % 2)
        boundary = ("----agentrun-0123456789abcdef", "b", "a" * 71, "a b")[
            number % 4 if number % 8 > 5 else 0
        ]
        yield joined(GROUP, [boundary, joined(RECORD, fields), joined(RECORD, files)])
