"""URLs: where a request goes, and what exactly its target says.

Everything here is text in, text out. The rules that hold:

- What is signed is what is sent: a path is brought into its one wire form before anything else sees it.
- The wire form is plain ASCII. In a path, RFC 3986 ``pchar`` and ``/`` stand as they are, a valid percent
  triplet keeps its bytes, and everything else is percent-encoded as UTF-8; a ``%`` that begins no triplet
  becomes ``%25``.
- Nothing is cut off or reinterpreted in silence: ``#``, ``.`` and ``..`` segments, control characters that
  could end a line, and absolute URLs where a path belongs are refused with a ValueError.
- A query is read as a form is (WHATWG URL, application/x-www-form-urlencoded: ``+`` is a space, only ``&``
  separates). Pairs that a merge does not touch keep their bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import isfinite
from typing import Any, cast
from urllib.parse import quote, quote_plus, unquote_plus, urljoin

from .errors import bare

DEFAULT_PORTS: Mapping[str, int] = {"http": 80, "https": 443}

_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]*")
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")  # most paths; no dot segment begins so
_PLAIN_QUERY = re.compile(r"[A-Za-z0-9._~-]+=[A-Za-z0-9._~-]*(?:&[A-Za-z0-9._~-]+=[A-Za-z0-9._~-]*)*")
_WIRE_PATH = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
_WIRE_QUERY = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DOT_SEGMENT = re.compile(r"(?:^|/)(?:\.|%2[Ee]){1,2}(?:/|$)")
_LINE_BREAKERS = re.compile(r"[\r\n\0]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?:(?P<userinfo>[^/?#]*)@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_~-]{1,63}(?:\.[A-Za-z0-9_~-]{1,63})*\.?)"
    r"(?::(?P<port>[0-9]{0,5}))?"
    r"(?P<path>/[^?#]*)?"
    r"(?:\?(?P<query>[^#]*))?"
    r"(?P<fragment>\#.*)?",
    re.DOTALL,
)
# The hosts that know a second name for requests signed with an access key (SERVICE: RAM hosts).
_RAM_DOMAINS = (".agentrun-data.", ".funagent-data-pre.")


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: whom we talk to, and to whom a credential belongs (RFC 6454).

    ``port`` is always given; ``authority`` leaves a default port out, as the Host field must.

    >>> Origin("http", "127.0.0.1", 8077).authority, str(Origin("https", "example.com", 443))
    ('127.0.0.1:8077', 'https://example.com')
    """

    scheme: str
    host: str
    port: int
    authority: str = field(init=False, repr=False, compare=False)
    """Host, and the port where it is not the scheme's own: the value of the Host field."""

    def __post_init__(self) -> None:
        own = DEFAULT_PORTS.get(self.scheme) == self.port
        object.__setattr__(self, "authority", self.host if own else f"{self.host}:{self.port}")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A URL taken apart; path, query and user info are in their wire form."""

    origin: Origin
    path: str
    query: str
    userinfo: str | None = field(default=None, repr=False)

    @property
    def request_target(self) -> str:
        """Path and query as the request line carries them (RFC 9112, 3.2.1)."""
        return f"{self.path}?{self.query}" if self.query else self.path


def parse_url(url: str) -> Target:
    """Takes an http or https URL apart; path and query come out in their wire form.

    Raises:
        ValueError: no such URL, another scheme, a bad port, a fragment, or a path that `join_path` refuses.

    >>> parse_url("http://127.0.0.1:8077/a b?x=1").request_target
    '/a%20b?x=1'
    """
    try:
        return _parse(url)
    except ValueError as error:
        complaint = bare(error)
    del url  # it may hold a password, and a traceback may be shown with its locals
    raise complaint


def _parse(url: str) -> Target:
    if _LINE_BREAKERS.search(url):
        raise ValueError(f"a URL cannot hold a line break or NUL: {without_userinfo(url)!r}")
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError(f"not a URL of the form http(s)://host[:port]/path: {without_userinfo(url)!r}")
    scheme = match["scheme"].lower()
    if scheme not in DEFAULT_PORTS:
        raise ValueError(f"the protocol must be 'http' or 'https', not {match['scheme']!r}")
    if match["fragment"] is not None:
        raise ValueError("a URL that is requested has no fragment; write %23 for a '#' in a path or query")
    if match["host"].startswith("["):
        _check_ip6(match["host"][1:-1])
    port = int(match["port"]) if match["port"] else DEFAULT_PORTS[scheme]
    if not 0 < port < 65536:
        raise ValueError(f"a port is a number from 1 to 65535, not {match['port']}")
    return Target(
        origin=Origin(scheme, match["host"].lower(), port),
        path=wire_path(match["path"] or "/"),
        query=wire_query(match["query"] or ""),
        userinfo=_wire_userinfo(match["userinfo"]),
    )


def _wire_userinfo(userinfo: str | None) -> str | None:
    """User info in plain ASCII; a complaint does not show it."""
    if userinfo is None or _UNRESERVED.fullmatch(userinfo):
        return userinfo
    try:
        return quote(_STRAY_PERCENT.sub("%25", userinfo), safe="!$&'()*+,;=:@%")
    except UnicodeEncodeError:
        raise ValueError("a lone surrogate cannot be sent: there is one in the user info of a URL") from None


def _check_ip6(text: str) -> None:
    """RFC 3986, 3.2.2: what stands in brackets is an IPv6 address. Raises ValueError."""
    from ipaddress import IPv6Address  # most hosts have no need of it

    try:
        IPv6Address(text)
    except ValueError:
        raise ValueError(f"not an IPv6 address: [{text}]") from None


def resolve(base: str, reference: str) -> Target:
    """Where a URL that is found in an answer leads (RFC 3986, 5.2); a fragment is nobody's business here.

    Raises:
        ValueError: nowhere that http or https leads to.

    >>> str(resolve("https://h/a/b?c", "../d").origin), resolve("https://h/a/b?c", "../d#e").path
    ('https://h', '/d')
    """
    if _LINE_BREAKERS.search(reference):  # which urljoin would drop
        raise ValueError("a URL cannot hold a line break or NUL")
    return parse_url(urljoin(base, reference).partition("#")[0])


def without_userinfo(url: str) -> str:
    """The URL as it may be shown: its user info, if there is any, as ``***``; its scheme may be missing.

    >>> without_userinfo("http://user:word@h/"), without_userinfo("user:word@h")
    ('http://***@h/', '***@h')
    """
    return re.sub(r"\A([A-Za-z][A-Za-z0-9+.-]*://)?.*@", r"\g<1>***@", url, flags=re.DOTALL)


def path_segment(value: str) -> str:
    """Makes one path segment of any text, for ids that are put into a path.

    Raises:
        ValueError: the value is empty, ``.`` or ``..``, which no encoding can make a segment of, or it
            cannot be encoded as UTF-8.

    >>> path_segment("a/b"), path_segment("50% é")
    ('a%2Fb', '50%25%20%C3%A9')
    """
    if value in {"", ".", ".."}:
        raise ValueError(f"{value!r} cannot be a path segment")
    return value if _UNRESERVED.fullmatch(value) else _quoted(value, safe="")


def _quoted(text: str, *, safe: str) -> str:
    try:
        return quote(text, safe=safe)
    except UnicodeEncodeError:
        raise ValueError(f"a lone surrogate cannot be sent: {text!r}") from None


def wire_path(path: str) -> str:
    """A path in its wire form; see the head of this file. Raises ValueError as `join_path` does."""
    if is_plain_path(path):
        return path
    if _LINE_BREAKERS.search(path):
        raise ValueError(f"a path cannot hold a line break or NUL: {path!r}; use path_segment() for such ids")
    if "#" in path:
        raise ValueError(f"write %23 for a '#' in a path: {path!r}")
    if _DOT_SEGMENT.search(path):
        raise ValueError(
            f"'.' and '..' cannot be path segments, encoded or not: {path!r}; use path_segment() for ids"
        )
    if _WIRE_PATH.fullmatch(path):
        return path
    return _quoted(_STRAY_PERCENT.sub("%25", path), safe="/!$&'()*+,;=:@%")


def wire_query(query: str) -> str:
    """A query in its wire form. Raises ValueError for ``#``, a line break, NUL or a lone surrogate."""
    if _LINE_BREAKERS.search(query):
        raise ValueError(f"a query cannot hold a line break or NUL: {query!r}; write %0D, %0A or %00")
    if "#" in query:
        raise ValueError(f"write %23 for a '#' in a query: {query!r}")
    if not _WIRE_QUERY.fullmatch(query):
        query = _quoted(_STRAY_PERCENT.sub("%25", query), safe="/?!$&'()*+,;=:@%")
    return query


def is_plain_path(path: str) -> bool:
    """Whether this is a path in its wire form, of unreserved characters alone, with no slash too many."""
    return _PLAIN_PATH.fullmatch(path) is not None


def join_path(*parts: str) -> str:
    """Joins parts to one absolute path in its wire form, with a single slash between them.

    Slashes around each part are dropped, as the published clients do; empty parts are left out.

    Raises:
        TypeError: a part is no str.
        ValueError: a part is an absolute URL, holds ``#``, a line break or NUL, or a ``.`` or ``..`` segment
            (encoded or not), or cannot be encoded as UTF-8.

    >>> join_path("2025-09-10", "agents", "/resources/")
    '/2025-09-10/agents/resources'
    """
    for part in parts:
        if not isinstance(part, str):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers exist
            raise TypeError(f"a path is a str, not {type(part).__name__}")
        if _SCHEME.match(part):
            del parts  # a traceback may be shown with its locals
            raise ValueError(f"a path is needed here, not a URL: {without_userinfo(part)!r}")
    return wire_path("/" + "/".join([stripped for part in parts if (stripped := part.strip("/"))]))


def split_pairs(query: str) -> list[tuple[str, str]]:
    """The raw pairs of a query: ``(raw name, raw name=value)``, in order, empty ones left out."""
    return [(pair.partition("=")[0], pair) for pair in query.split("&") if pair]


def decode_form(raw: str) -> str:
    """One name or value of a query, decoded as a form is; bytes that are no UTF-8 become U+FFFD."""
    return unquote_plus(raw) if "%" in raw or "+" in raw else raw


def parse_form(query: str) -> list[tuple[str, str]]:
    """Reads a query as an HTML form is read (WHATWG URL, 5.1).

    >>> parse_form("a=1&b+c=%C3%A9&flag&&x==")
    [('a', '1'), ('b c', 'é'), ('flag', ''), ('x', '=')]
    """
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return [(decode_form(name), decode_form(value)) for name, _, value in pairs]


def normalise_query(query: str) -> str:
    """The query in its wire form: every pair has its ``=``, and empty pairs are gone.

    The published signer skips a name without ``=``, so that ``?flag`` would be sent but not signed.

    >>> normalise_query("flag&&a=&b")
    'flag=&a=&b='
    """
    if not query or is_plain(query):
        return query
    return "&".join(pair if "=" in pair else pair + "=" for pair in wire_query(query).split("&") if pair)


def is_plain(query: str) -> bool:
    """Whether a query is made of pairs of unreserved characters alone, which nothing encodes or decodes."""
    return _PLAIN_QUERY.fullmatch(query) is not None


def merge_query(url: str, query: Mapping[str, Any] | None) -> str:
    """Adds query parameters to a URL, or to a bare ``path?query``.

    A parameter replaces all pairs of the same name, where the first of them stood; new ones follow at the
    end, in the mapping's order. All other pairs keep their bytes. What a form parser reads from the result
    is the dict merge of what it reads from both sides.

    Args:
        url: an absolute URL or a path, with or without a query.
        query: values may be ``str``, ``int``, ``float``, ``bool`` (``true``/``false``), an ``Enum`` (its
            value), or a list or tuple of these (the name repeated; ``[]`` removes it). ``None`` is left out.

    Returns:
        The URL, its query in plain ASCII. With nothing to merge, the URL as it is.

    Raises:
        TypeError: a name is no string, or a value of another type (a dict, bytes).
        ValueError: a value that cannot be sent (a lone surrogate, NaN, an infinity), or a fragment.

    Source: the documented results of ``with_path``.

    >>> merge_query("http://h/resources?page=1", {"limit": 10})
    'http://h/resources?page=1&limit=10'
    >>> merge_query("/r?a=1&b=%20&a=2", {"a": [3, 4], "c": None, "d": True})
    '/r?a=3&a=4&b=%20&d=true'
    """
    encoded = encode_query(query) if query else None
    if not encoded:
        return url
    if "#" in url:
        raise ValueError("a URL that is requested has no fragment; write %23 for a '#' in a path or query")
    path, _, existing = url.partition("?")
    merged = merge_pairs(normalise_query(existing), encoded)
    return f"{path}?{merged}" if merged else path


def merge_pairs(existing: str, encoded: Mapping[str, list[str]]) -> str:
    """Merges encoded parameters into a normalised query; see `merge_query`."""
    if not existing:
        return "&".join([pair for pairs in encoded.values() for pair in pairs])
    waiting = dict(encoded)
    merged: list[str] = []
    for raw_name, pair in split_pairs(existing):
        name = decode_form(raw_name)
        if name not in encoded:
            merged.append(pair)
        elif name in waiting:
            merged += waiting.pop(name)
    for pairs in waiting.values():
        merged += pairs
    return "&".join(merged)


def encode_query(query: Mapping[str, Any]) -> dict[str, list[str]]:
    """Query parameters as encoded ``name=value`` pairs by name; see `merge_query` for the types."""
    if not isinstance(query, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers exist
        raise TypeError(f"a query is a mapping of names to values, not {type(query).__name__}")
    encoded: dict[str, list[str]] = {}
    for name, value in query.items():
        if type(value) in _OFTEN and type(name) is str:  # the usual parameter takes no other look
            text = str(value)
            if _UNRESERVED.fullmatch(text) and _UNRESERVED.fullmatch(name):
                encoded[name] = [f"{name}={text}"]
                continue
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers exist
            raise TypeError(f"the name of a query parameter is a str, not {type(name).__name__}: {name!r}")
        if value is None:
            continue
        raw_name = _form_encoded(name)
        values = cast("list[Any]", value) if isinstance(value, (list, tuple)) else [value]
        encoded[name] = [
            f"{raw_name}={_form_encoded(_scalar(name, item))}" for item in values if item is not None
        ]
    return encoded


_OFTEN = (str, int)


def _form_encoded(text: str) -> str:
    if _UNRESERVED.fullmatch(text):
        return text
    try:
        return quote_plus(text)
    except UnicodeEncodeError:
        raise ValueError(f"a lone surrogate cannot be sent: {text!r}") from None


def _scalar(name: str, value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        if not isfinite(value):
            raise ValueError(f"the query parameter {name!r} cannot be {value!r}")
        return repr(float(value))
    raise TypeError(
        f"the query parameter {name!r} cannot be of type {type(value).__name__}; "
        "give str, int, float, bool, an Enum, or a list of these"
    )


def ram_host(host: str) -> str:
    """The host for requests that are signed with an access key: its first label carries ``-ram``.

    Only hosts of the data plane have that second name; one that carries it already keeps it once.

    >>> ram_host("123.agentrun-data.cn-hangzhou.aliyuncs.com")
    '123-ram.agentrun-data.cn-hangzhou.aliyuncs.com'
    >>> ram_host("123-ram.agentrun-data.cn-hangzhou.aliyuncs.com"), ram_host("localhost")
    ('123-ram.agentrun-data.cn-hangzhou.aliyuncs.com', 'localhost')
    """
    if not any(domain in host for domain in _RAM_DOMAINS):
        return host
    first, dot, rest = host.partition(".")
    return host if not first or first.endswith("-ram") else f"{first}-ram{dot}{rest}"
