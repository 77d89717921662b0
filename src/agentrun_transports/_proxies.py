"""Which proxy a request goes through, as environment or caller have it. Pure: the environment is given.

The rules, which are those that curl and Python share:

- ``https_proxy`` is for https origins, ``http_proxy`` for http ones, ``all_proxy`` for those that have none.
- The lower-case name of a variable wins over the upper-case one, also where it is empty, which is: none.
- ``HTTP_PROXY`` in upper case is not read where ``REQUEST_METHOD`` is set: under CGI, a caller's ``Proxy:``
  header arrives under that name (CVE-2016-5385, "httpoxy").
- ``no_proxy`` is a list of hosts, each with the names below it, optionally with a port; of addresses and
  networks (``10.0.0.0/8``); or ``*``, which is everything.

Rules of this file: a proxy's credentials are never shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from agentrun_proto import Origin
from agentrun_proto.errors import bare

DEFAULT_PORTS: Mapping[str, int] = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy: how it is spoken to, where it is, and who we say we are.

    >>> Proxy.parse("http://user:secret@proxy.example:3128")
    Proxy(scheme='http', host='proxy.example', port=3128)
    """

    scheme: str
    host: str
    port: int
    auth: tuple[str, str] | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """A proxy from its URL: ``http``, ``https``, ``socks5`` or ``socks5h``; without a scheme it is http.

        Raises:
            ValueError: no such URL; the message does not show it, since it may hold a password.
        """
        try:
            return _parse(url)
        except ValueError as error:
            complaint = bare(error)
        del url  # a traceback may be shown with its locals
        raise complaint

    def __reduce__(self) -> tuple[Any, ...]:
        if self.auth is not None:
            raise TypeError("a proxy's password is not pickled: give the other process its own")
        return (Proxy.parse, (self.url,))

    @property
    def url(self) -> str:
        """The URL without the credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def __str__(self) -> str:
        return self.url


def _parse(url: str) -> Proxy:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
        auth = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
    except ValueError:
        raise ValueError("the proxy is no URL; write http://host:port or socks5://host:port") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError(f"a proxy is http, https, socks5 or socks5h, not {parts.scheme!r}")
    if not host or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("a proxy's URL has a host and no path; write http://host:port")
    if any(character <= " " or character == "\x7f" for character in host):
        raise ValueError("a proxy's host has no spaces and no control characters")
    return Proxy(
        scheme=parts.scheme,
        host=host,
        port=DEFAULT_PORTS[parts.scheme] if port is None else port,
        auth=auth,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxies:
    """Which proxy serves which origin.

    >>> proxies = Proxies.from_env({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "example.com"})
    >>> print(proxies.for_origin(Origin("https", "service.test", 443)))
    http://proxy:3128
    >>> print(proxies.for_origin(Origin("https", "api.example.com", 443)))
    None
    """

    http: Proxy | None = None
    https: Proxy | None = None
    exceptions: tuple[str, ...] = ()

    @classmethod
    def all(cls, url: str) -> Proxies:
        """One proxy for all origins.

        Raises:
            ValueError: as `Proxy.parse`.
        """
        try:
            proxy = Proxy.parse(url)
        except ValueError:
            del url  # a traceback may be shown with its locals
            raise
        return cls(http=proxy, https=proxy)

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> Proxies:
        """What an environment such as ``os.environ`` says; see the rules of this file.

        Raises:
            ValueError: a variable holds no proxy; the message names the variable.
        """
        rest = _read(environment, "all_proxy")
        return cls(
            http=_read(environment, "http_proxy") or rest,
            https=_read(environment, "https_proxy") or rest,
            exceptions=tuple(_text(environment, "no_proxy").replace(",", " ").lower().split()),
        )

    def for_origin(self, origin: Origin) -> Proxy | None:
        """The proxy for requests to this origin, or None for a connection of our own."""
        proxy = self.https if origin.scheme == "https" else self.http
        if proxy is None or any(_covers(entry, origin) for entry in self.exceptions):
            return None
        return proxy


def _text(environment: Mapping[str, str], name: str) -> str:
    if name in environment:
        return environment[name].strip()
    if name == "http_proxy" and "REQUEST_METHOD" in environment:
        return ""
    return environment.get(name.upper(), "").strip()


def _read(environment: Mapping[str, str], name: str) -> Proxy | None:
    text = _text(environment, name)
    if not text:
        return None
    try:
        return Proxy.parse(text)
    except ValueError as error:
        complaint = ValueError(f"the environment variable {name} (or {name.upper()}): {error}")
    del text  # a traceback may be shown with its locals
    raise complaint


def _covers(entry: str, origin: Origin) -> bool:
    """Whether an entry of no_proxy, in lower case, holds for an origin."""
    if entry == "*":
        return True
    from ipaddress import ip_address, ip_network  # only here: few have exceptions, and it is slow to import

    host = origin.host.strip("[]").lower().rstrip(".")
    try:
        network = ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass
    else:
        try:
            return ip_address(host) in network
        except ValueError:
            return False
    name, colon, port = entry.rpartition(":")
    if colon and port.isdecimal():
        if int(port) != origin.port:
            return False
        entry = name.strip("[]")
    entry = entry.removeprefix("*").strip(".")
    return bool(entry) and (host == entry or host.endswith(f".{entry}"))
