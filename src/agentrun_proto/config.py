"""What a caller may set, and the endpoints that follow from it.

Rules of this file: None means unset, and nothing else does; a merge never erases; the parts of an access
key are never mixed from two sources; a secret is a `Secret` from the moment it is set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import inf
from typing import Any, cast

from .credentials import AccessKey, AccessToken, Credential, Secret, check_key_id
from .messages import Headers
from .urls import Origin, Target, join_path, parse_url, ram_host, without_userinfo

DEFAULT_REGION = "cn-hangzhou"
DEFAULT_PROTOCOL = "https"
DEFAULT_VERSION = "2025-09-10"
DEFAULT_TIMEOUT = 600.0

# The families that the live service serves without a version (SERVICE: URLs). All others carry one.
UNVERSIONED_FAMILIES = frozenset({"agent-runtimes", "models", "sandboxes", "tools"})

# Which variables set which field; the first that is set, and not empty, wins.
ENVIRONMENT: Mapping[str, tuple[str, ...]] = {
    "access_key_id": ("AGENTRUN_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_ID"),
    "access_key_secret": ("AGENTRUN_ACCESS_KEY_SECRET", "ALIBABA_CLOUD_ACCESS_KEY_SECRET"),
    "security_token": ("AGENTRUN_SECURITY_TOKEN", "ALIBABA_CLOUD_SECURITY_TOKEN"),
    "account_id": ("AGENTRUN_ACCOUNT_ID", "FC_ACCOUNT_ID"),
    "region_id": ("AGENTRUN_REGION", "FC_REGION"),
    "data_endpoint": ("AGENTRUN_DATA_ENDPOINT",),
    "control_endpoint": ("AGENTRUN_CONTROL_ENDPOINT",),
}

# Parts of an access key that are worth nothing, or harm, beside another's.
_BELONGING = {
    "access_key_id": ("access_key_secret", "security_token"),
    "access_key_secret": ("security_token",),
}

_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_VERSIONED = re.compile(r"\d{4}-\d{2}-\d{2}(?:/|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeout:
    """How long things may take, in seconds; ``math.inf`` is no limit.

    Args:
        total: the whole operation. Unset, a call has 600 seconds and a transfer has no limit.
        connect: opening one connection, its TLS handshake included.
        read: one silence of the peer, such as the wait for the head of its answer.
        write: one stall of the peer while a request is sent.
        pool: waiting for a free connection.

    A part that is unset is bounded by `total` alone; in a transfer without a total, by 600 seconds.

    Raises:
        ValueError: a part that is not above zero.
        TypeError: a part that is no number.
    """

    total: float | None = None
    connect: float | None = None
    read: float | None = None
    write: float | None = None
    pool: float | None = None

    def __post_init__(self) -> None:
        for part in fields(self):
            value = getattr(self, part.name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"timeout: {part.name} is a number of seconds, not {type(value).__name__}")
            if not value > 0:
                raise ValueError(
                    f"timeout: {part.name} must be above 0 seconds, not {value}; math.inf is no limit"
                )


def call_timeout(value: Timeout | float | None) -> Timeout:
    """The limits of a call: a number bounds the whole of it."""
    if not isinstance(value, Timeout):
        return Timeout(total=DEFAULT_TIMEOUT if value is None else value)
    return value if value.total is not None else replace(value, total=DEFAULT_TIMEOUT)


def transfer_timeout(value: Timeout | float | None) -> Timeout:
    """The limits of a transfer: a number bounds each wait, and the whole only where a total is set."""
    if isinstance(value, Timeout) and value.total is not None:
        return value
    parts = value if isinstance(value, Timeout) else Timeout()
    each = value if isinstance(value, (int, float)) else DEFAULT_TIMEOUT
    return Timeout(
        total=inf,
        connect=each if parts.connect is None else parts.connect,
        read=each if parts.read is None else parts.read,
        write=each if parts.write is None else parts.write,
        pool=each if parts.pool is None else parts.pool,
    )


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Config:
    """Everything a caller may set; what is None is unset, and has a default where one is named.

    Args:
        access_key_id, access_key_secret: a RAM access key; requests are then signed (AGENTRUN4-HMAC-SHA256).
        security_token: the third part of a temporary access key.
        account_id: the account; needed unless `data_endpoint` is set.
        token: an access token for the data plane; wins over an access key.
        region_id: default ``cn-hangzhou``.
        timeout: seconds for a whole call, and for each wait of a transfer, or a :class:`Timeout`;
            default 600.
        data_endpoint, control_endpoint: URLs instead of those that follow from account and region.
        headers: sent with every request.
        protocol: ``https`` (the default) or ``http``.
        version: the API version in the path; unset, it follows from the namespace, ``""`` is none.

    Raises:
        TypeError: a field of the wrong type.
        ValueError: a protocol that is neither, a timeout not above zero, an endpoint that is no URL, a header
            that cannot be sent, an account or region that is no host name label.

    Source: the constructor's documentation of the published client.

    >>> Config(account_id="123", access_key_id="id", access_key_secret="very secret")
    Config(access_key_id='id', access_key_secret=Secret(***), account_id='123')
    """

    access_key_id: str | None
    access_key_secret: Secret | None
    security_token: Secret | None
    account_id: str | None
    token: Secret | None
    region_id: str | None
    timeout: float | Timeout | None
    data_endpoint: str | None
    control_endpoint: str | None
    headers: Headers | None
    protocol: str | None
    version: str | None

    def __init__(
        self,
        *,
        access_key_id: str | None = None,
        access_key_secret: str | Secret | None = None,
        security_token: str | Secret | None = None,
        account_id: str | None = None,
        token: str | Secret | None = None,
        region_id: str | None = None,
        timeout: float | Timeout | None = None,
        data_endpoint: str | None = None,
        control_endpoint: str | None = None,
        headers: Mapping[str, str] | None = None,
        protocol: str | None = None,
        version: str | None = None,
    ) -> None:
        given: Mapping[str, Any] = locals()
        for name, check in _CHECKS.items():
            value = given[name]
            object.__setattr__(self, name, None if value is None else check(name, value))

    def merge(self, *others: Config | None) -> Config:
        """A new Config in which later ones win, and what is unset in them erases nothing.

        Headers are merged name by name. A later `access_key_id` brings its own secret and security token, a
        later `access_key_secret` its own security token: an access key is never mixed from two sources.

        >>> base = Config(account_id="1", headers={"x-a": "1"})
        >>> base.merge(Config(region_id="cn-beijing", headers={"x-b": "2"})).headers
        Headers({'x-a': '1', 'x-b': '2'})
        """
        merged = self._set()
        for other in others:
            if other is None:
                continue
            later = other._set()
            if "headers" in merged and "headers" in later:
                later["headers"] = merged["headers"].merged(later["headers"])
            merged = _overlay(merged, later)
        return Config(**merged)

    def _set(self) -> dict[str, Any]:
        return {name: value for name in FIELDS if (value := getattr(self, name)) is not None}

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> Config:
        """A Config from environment variables, such as ``os.environ``; an empty variable is not set.

        Raises:
            ValueError: a variable's value is not what its field may hold; the message names the variable.

        >>> Config.from_env({"FC_REGION": "cn-beijing", "AGENTRUN_REGION": ""})
        Config(region_id='cn-beijing')
        """
        values: dict[str, Any] = {}
        for name, variable in environment_sources(environment).items():
            try:
                values[name] = _CHECKS[name](name, environment[variable])
            except ValueError as error:
                raise ValueError(f"the environment variable {variable}: {error}") from None
        return cls(**values)

    def __repr__(self) -> str:
        shown = {
            name: without_userinfo(value) if name in ("data_endpoint", "control_endpoint") else value
            for name, value in self._set().items()
        }
        return f"Config({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def credential(self) -> Credential | None:
        """Who is calling: the token where one is set, else the access key, else None.

        Raises:
            ValueError: half an access key, or a security token without one.
        """
        if self.token:
            return AccessToken(token=self.token)
        if self.access_key_id and self.access_key_secret:
            return AccessKey(
                access_key_id=self.access_key_id,
                access_key_secret=self.access_key_secret,
                security_token=self.security_token or None,
            )
        if self.access_key_id or self.access_key_secret or self.security_token:
            raise ValueError(
                "an access key needs both access_key_id and access_key_secret, from the same source; "
                "set both, or neither to call without one"
            )
        return None

    @property
    def region(self) -> str:
        """The region in force."""
        return self.region_id or DEFAULT_REGION

    def data_target(self) -> Target:
        """Where the data plane is, taken apart; a request signed with an access key has a host of its own.

        Raises:
            ValueError: neither `account_id` nor `data_endpoint` is set, or half an access key is.
        """
        target = parse_url(self.data_endpoint or self._endpoint())
        if not isinstance(self.credential, AccessKey):
            return target
        origin = target.origin
        return Target(
            origin=Origin(origin.scheme, ram_host(origin.host), origin.port),
            path=target.path,
            query="",
            userinfo=target.userinfo,
        )

    def _endpoint(self) -> str:
        if not self.account_id:
            raise ValueError(
                "account_id is missing: set Config(account_id=...) or the environment variable "
                "AGENTRUN_ACCOUNT_ID, or give a data_endpoint"
            )
        return f"{self.protocol or DEFAULT_PROTOCOL}://{self.account_id}.agentrun-data.{self.region}.aliyuncs.com"

    def version_for(self, namespace: str) -> str:
        """The version that precedes a namespace in the path, or ``""`` where there is none.

        >>> [Config().version_for(name) for name in ("agents", "sandboxes/sb-1", "2024-01-01/agents")]
        ['2025-09-10', '', '']
        """
        namespace = namespace.strip("/")
        if _VERSIONED.match(namespace):
            return ""
        if self.version is not None:
            return self.version
        return "" if namespace.partition("/")[0] in UNVERSIONED_FAMILIES else DEFAULT_VERSION


def environment_sources(environment: Mapping[str, str]) -> dict[str, str]:
    """Which variable sets which field in this environment: the first that is set and not empty.

    The variables of one family are merged over those of the next as configs are, so that our own access key
    is not joined by the security token of the platform's.

    >>> environment_sources({"AGENTRUN_ACCESS_KEY_ID": "ours", "ALIBABA_CLOUD_SECURITY_TOKEN": "theirs"})
    {'access_key_id': 'AGENTRUN_ACCESS_KEY_ID'}
    """
    found: dict[str, str] = {}
    for rank in reversed(range(2)):
        ranked = {name: variables[rank] for name, variables in ENVIRONMENT.items() if rank < len(variables)}
        family = {name: variable for name, variable in ranked.items() if environment.get(variable)}
        found = _overlay(found, family)
    return {name: found[name] for name in FIELDS if name in found}


def _overlay(base: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """The later over the base; each part of an access key brings the parts that belong to it."""
    kept = dict(base)
    for first, dependents in _BELONGING.items():
        if first in later:
            for name in dependents:
                kept.pop(name, None)
    return {**kept, **later}


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is a str, not {type(value).__name__}")
    return value


def _label(name: str, value: Any) -> str:
    text = _text(name, value)
    if text and not _LABEL.fullmatch(text):
        raise ValueError(f"{name} is part of a host name: letters, digits and inner hyphens, not {text!r}")
    return text


def _key_id(name: str, value: Any) -> str:
    return check_key_id(_text(name, value))


def _secret(name: str, value: Any) -> Secret:
    try:
        return Secret.of(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None


def _timeout(name: str, value: Any) -> float | Timeout:
    call_timeout(value)
    checked: float | Timeout = value
    return checked


def _endpoint(name: str, value: Any) -> str:
    text = _text(name, value)
    if text:
        try:
            parse_url(text)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if "?" in text:
            raise ValueError(f"{name}: an endpoint has no query; pass query= with each call")
    return text


def _headers(name: str, value: Any) -> Headers:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is a mapping of names to values, not {type(value).__name__}")
    return Headers(cast("Mapping[str, str]", value))


def _protocol(name: str, value: Any) -> str:
    protocol = _text(name, value).lower()
    if protocol not in ("http", "https"):
        raise ValueError(f"the protocol must be 'http' or 'https', not {value!r}")
    return protocol


def _version(name: str, value: Any) -> str:
    text = _text(name, value)
    join_path(text)
    return text.strip("/")


_CHECKS = {
    "access_key_id": _key_id,
    "access_key_secret": _secret,
    "security_token": _secret,
    "account_id": _label,
    "token": _secret,
    "region_id": _label,
    "timeout": _timeout,
    "data_endpoint": _endpoint,
    "control_endpoint": _endpoint,
    "headers": _headers,
    "protocol": _protocol,
    "version": _version,
}
FIELDS = tuple(_CHECKS)
"""The names of Config's fields, in order."""
