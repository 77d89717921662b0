"""One HTTP exchange as values: Headers, Body, Request, Head.

Rules of this file: a field is checked where it is made, so that no other place has to ask again; a repr
shows no credential.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, cast, overload

from .errors import bare
from .urls import Origin

# RFC 9110, 5.6.2 (token) and 5.5 (field-value: visible characters, space, tab and obs-text).
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(r"/[!\"$-~]*")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_FIELD_LINE = re.compile(r"([^:\r\n]+):([^\r\n]*)\r\n")

# Fields that carry a credential: sent, never shown.
SECRET_FIELDS = frozenset(
    {
        "agentrun-access-token",
        "agentrun-authorization",
        "authorization",
        "cookie",
        "proxy-authorization",
        "set-cookie",
        "x-acs-security-token",
        "x-fc-access-key-secret",
        "x-fc-security-token",
        "x-super-agent-session-id",
    }
)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})

# RFC 9110, 9.2.2: repeating one of these has the effect of doing it once.
IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"})


class Headers(Mapping[str, str]):
    """Field lines: names compared without case, order kept, checked, never changed.

    As a mapping, its keys are lower-case names and its values the combined field values (RFC 9110, 5.3);
    ``fields`` has the lines as they were given.

    Args:
        fields: a mapping, or ``(name, value)`` pairs.

    Raises:
        TypeError: a name or value is no str.
        ValueError: a name that is no token, or a value with a line break or another control character.

    >>> headers = Headers({"Content-Type": "text/plain"})
    >>> headers["content-type"], "CONTENT-TYPE" in headers, headers
    ('text/plain', True, Headers({'content-type': 'text/plain'}))
    """

    __slots__ = ("_block", "_fields", "_folded", "_index")

    def __init__(self, fields: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        checked = _check_fields(fields)
        if isinstance(checked, Exception):
            del fields  # a traceback may be shown with its locals
            raise checked
        self._fields: tuple[tuple[str, str], ...] | None = checked
        self._index: dict[str, str] | None = None
        self._block: str | None = None
        self._folded: str | None = None

    @classmethod
    def from_block(cls, block: str, folded: str | None = None) -> Headers:
        """Field lines as they came over the wire, each ended by CRLF, already found well-formed.

        They are taken apart on first need: most answers are used without a look at their fields. `folded` is
        the block in lower case, where that is at hand.
        """
        self = cls.__new__(cls)
        self._fields = self._index = None
        self._block = block
        self._folded = folded
        return self

    @property
    def fields(self) -> tuple[tuple[str, str], ...]:
        """The field lines as ``(name, value)``, in order, repeated names included."""
        if self._fields is None:
            lines = _FIELD_LINE.findall(self._block or "")
            self._fields = tuple([(name, value.strip(" \t")) for name, value in lines])
        return self._fields

    @property
    def block(self) -> str:
        """The field lines as they go over the wire, each ended by CRLF; built once."""
        if self._block is None:
            self._block = "".join([f"{name}: {value}\r\n" for name, value in self.fields])
        return self._block

    @property
    def folded(self) -> str:
        """`block` in lower case: a quick "no" to whether a name occurs. Built once."""
        if self._folded is None:
            self._folded = self.block.lower()
        return self._folded

    def _by_name(self) -> dict[str, str]:
        if self._index is None:
            index: dict[str, str] = {}
            for name, value in self.fields:
                name = name.lower()
                index[name] = f"{index[name]}, {value}" if name in index else value
            self._index = index
        return self._index

    def get_all(self, name: str) -> list[str]:
        """The values of all field lines of that name, in order."""
        name = name.lower()
        return [value for key, value in self.fields if key.lower() == name]

    def merged(self, other: Mapping[str, str] | None) -> Headers:
        """These and the other's; of a name that both have, the other's lines alone."""
        if not other:
            return self
        later = other if isinstance(other, Headers) else Headers(other)
        names = later._by_name()
        return Headers([line for line in self.fields if line[0].lower() not in names] + [*later.fields])

    def __getitem__(self, name: str) -> str:
        return self._by_name()[name.lower()]

    @overload
    def get(self, key: str, default: None = None, /) -> str | None: ...
    @overload
    def get(self, key: str, default: str, /) -> str: ...
    @overload
    def get(self, key: str, default: Any, /) -> Any: ...
    def get(self, key: str, default: Any = None, /) -> Any:
        """The combined value of the fields of that name, or `default`."""
        key = key.lower()
        if f"{key}:" not in self.folded:
            return default  # most questions are answered without taking the lines apart
        return self._by_name().get(key, default)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name())

    def __len__(self) -> int:
        return len(self._by_name())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return self._by_name() == other._by_name()

    def __hash__(self) -> int:
        return hash(frozenset(self._by_name().items()))

    def __repr__(self) -> str:
        shown = {name: "***" if name in SECRET_FIELDS else value for name, value in self.items()}
        return f"Headers({shown})"

    def __copy__(self) -> Headers:
        return self

    def __deepcopy__(self, memo: object) -> Headers:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        kept = tuple(line for line in self.fields if line[0].lower() not in SECRET_FIELDS)
        return (Headers, (kept,))


def _check_fields(
    fields: Mapping[str, str] | Iterable[tuple[str, str]],
) -> tuple[tuple[str, str], ...] | TypeError | ValueError:
    """The checked field lines, or what is wrong with them: an error, without the frames that hold them."""
    if isinstance(fields, Headers):
        return fields.fields
    pairs = cast("Mapping[str, str]", fields).items() if isinstance(fields, Mapping) else fields
    try:
        return tuple([check_field(*pair) for pair in pairs])
    except (TypeError, ValueError) as error:
        return bare(error)


def check_field(name: str, value: str) -> tuple[str, str]:
    """The field, its value stripped as every recipient would; raises as `Headers` says."""
    if not isinstance(name, str) or not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"a header's name and value are str: {name!r} has a {type(value).__name__}")
    if not _NAME.fullmatch(name):
        # What stands behind a colon is a value that came into the name.
        raise ValueError(f"not a header name (RFC 9110, 5.6.2): {name.partition(':')[0]!r}")
    if not _VALUE.fullmatch(value):
        shown = "" if name.lower() in SECRET_FIELDS else f": {value!r}"
        raise ValueError(
            f"the header {name} holds a control character, or one beyond Latin-1; percent-encode it{shown}"
        )
    return name, value.strip(" \t")


class Source(Protocol):
    """Bytes that are read while they are sent, such as an open file; a transport reads them."""

    @property
    def length(self) -> int | None:
        """How many bytes it will give, from where it stands at the start; None where nobody knows."""
        ...

    @property
    def replayable(self) -> bool:
        """Whether `rewind` can be called: only then a request that carries it may be repeated."""
        ...

    @property
    def read(self) -> Callable[[int], bytes] | Callable[[int], Awaitable[bytes]]:
        """Given a size, at most so many further bytes; ``b""`` at the end. It may be ``async``."""
        ...

    def rewind(self) -> None:
        """Goes back to the start, for a further attempt."""
        ...

    def close(self) -> None:
        """Lets go of what is behind it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """The content of a request: segments in order, their total length in bytes, and its media type.

    A length of None, where nobody knows it, has the content sent in chunks (RFC 9112, 7.1).
    """

    segments: tuple[bytes | Source, ...] = ()
    length: int | None = 0
    content_type: str | None = None

    @property
    def data(self) -> bytes | None:
        """The whole content where it is in memory; None where a source has to be read for it."""
        joined: list[bytes] = []
        for segment in self.segments:
            if not isinstance(segment, bytes):
                return None
            joined.append(segment)
        return b"".join(joined)

    @property
    def sources(self) -> list[Source]:
        """The segments that are read while they are sent."""
        return [segment for segment in self.segments if not isinstance(segment, bytes)]

    @property
    def replayable(self) -> bool:
        """Whether it can be sent again from its start."""
        return all(source.replayable for source in self.sources)


EMPTY = Body()


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class Request:
    """A request, ready to be sent; `signature` holds the field lines that authorise this one attempt.

    ``target`` is path and query as they go over the wire. Host, Content-Length and Content-Type follow from
    `origin` and `body`; a Content-Type among `headers` wins over the body's. ``repeatable`` is the caller's
    word that sending it twice has the effect of sending it once. With ``expect_continue`` the body waits
    until the service says that it wants it, or has had a second to say so (RFC 9110, 10.1.1). What is
    ``anonymous`` goes out without a credential, for it goes where none belongs.

    >>> Request(method="GET", origin=Origin("http", "h", 80), target="/a?b=").url
    'http://h/a?b='
    """

    method: str
    origin: Origin
    target: str
    headers: Headers = Headers()
    body: Body = field(default=EMPTY, repr=False)
    signature: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    repeatable: bool = False
    expect_continue: bool = False
    anonymous: bool = False

    def __init__(
        self,
        *,
        method: str,
        origin: Origin,
        target: str,
        headers: Headers = Headers(),
        body: Body = EMPTY,
        signature: tuple[tuple[str, str], ...] = (),
        repeatable: bool = False,
        expect_continue: bool = False,
        anonymous: bool = False,
    ) -> None:
        if method not in _METHODS and not _NAME.fullmatch(method):
            raise ValueError(f"not a method (RFC 9110, 9.1): {method!r}")
        if not _TARGET.fullmatch(target):
            raise ValueError(f"not a request target in its wire form (RFC 9112, 3.2.1): {target!r}")
        _fill(self, method, origin, target, headers, body, signature, repeatable, expect_continue, anonymous)

    def authorised(self, signature: tuple[tuple[str, str], ...]) -> Request:
        """The same request with the field lines that authorise it; all else was checked already."""
        copied = object.__new__(Request)
        _fill(
            copied,
            self.method,
            self.origin,
            self.target,
            self.headers,
            self.body,
            signature,
            self.repeatable,
            self.expect_continue,
            self.anonymous,
        )
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickle holds no credential; the signature is made afresh for each attempt anyway.
        promises = (self.repeatable, self.expect_continue, self.anonymous)
        return (
            _unpickle_request,
            (self.method, self.origin, self.target, self.headers, self.body, *promises),
        )

    @property
    def url(self) -> str:
        """The absolute URL, without user info."""
        return f"{self.origin}{self.target}"

    @property
    def content_type(self) -> str | None:
        """The Content-Type that goes out: the caller's, else the body's."""
        own = self.headers.get("content-type")
        return self.body.content_type if own is None else own

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def idempotent(self) -> bool:
        """Whether sending it twice has the effect of sending it once.

        By its method (RFC 9110, 9.2.2), by an Idempotency-Key, which is the same in all attempts, or because
        the caller says so.
        """
        return self.method in IDEMPOTENT_METHODS or self.repeatable or "idempotency-key" in self.headers

    def with_fields(self, fields: Mapping[str, str]) -> Request:
        """The same request with these fields over its own."""
        return replace(self, headers=self.headers.merged(fields))

    @property
    def declares_length(self) -> bool:
        """Whether a Content-Length goes out.

        RFC 9110, 8.6: a method that anticipates content says so, even when there is none.
        """
        length = self.body.length
        return length is not None and (length > 0 or self.method in ("POST", "PUT", "PATCH"))

    def fields(self) -> list[tuple[str, str]]:
        """All field lines as they go out, in order: Host first, as RFC 9110, 7.2 recommends."""
        lines = [("Host", self.origin.authority), *self.headers.fields]
        body = self.body
        if body.content_type is not None and "content-type" not in self.headers:
            lines.append(("Content-Type", body.content_type))
        if self.declares_length:
            lines.append(("Content-Length", str(body.length)))
        elif body.length is None:
            lines.append(("Transfer-Encoding", "chunked"))
        if self.expect_continue:
            lines.append(("Expect", "100-continue"))
        lines += self.signature
        return lines


# Each call makes two requests. The slots' own setters take less than half of what a frozen dataclass does.
(
    _set_method,
    _set_origin,
    _set_target,
    _set_headers,
    _set_body,
    _set_signature,
    _set_repeatable,
    _set_expect_continue,
    _set_anonymous,
) = [getattr(Request, part.name).__set__ for part in fields(Request)]


def _fill(
    request: Request,
    method: str,
    origin: Origin,
    target: str,
    headers: Headers,
    body: Body,
    signature: tuple[tuple[str, str], ...],
    repeatable: bool,
    expect_continue: bool,
    anonymous: bool,
) -> None:
    _set_method(request, method)
    _set_origin(request, origin)
    _set_target(request, target)
    _set_headers(request, headers)
    _set_body(request, body)
    _set_signature(request, signature)
    _set_repeatable(request, repeatable)
    _set_expect_continue(request, expect_continue)
    _set_anonymous(request, anonymous)


def _unpickle_request(
    method: str,
    origin: Origin,
    target: str,
    headers: Headers,
    body: Body,
    repeatable: bool,
    expect_continue: bool,
    anonymous: bool,
) -> Request:
    return Request(
        method=method,
        origin=origin,
        target=target,
        headers=headers,
        body=body,
        repeatable=repeatable,
        expect_continue=expect_continue,
        anonymous=anonymous,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The status and the fields of an answer."""

    status: int
    headers: Headers = Headers()
