"""What a caller may set, and the endpoints that follow from it.

Rules of this file: None means unset, and nothing else does; a merge never erases; the parts of an access
key are never mixed from two sources; a secret is a `Secret` from the moment it is set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from math import inf
from typing import Any, cast

from .credentials import AccessKey, AccessToken, Credential, Secret, check_key_id
from .errors import bare
from .messages import Headers
from .urls import Origin, Target, join_path, parse_url, without_userinfo

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

_ACCESS_KEY = frozenset({"access_key_id", "access_key_secret", "security_token"})

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often a request is sent before its failure is the caller's.

    Args:
        attempts: how often in all, the first time included.
        backoff: the first pause is drawn from 0 to this many seconds; each further one from twice as many.
        max_backoff: the most that is drawn from, in seconds.

    What is sent again is decided by what the failure says: what never reached the service, or what the
    service says it has not done, always; all else only where the request is idempotent. A connection that
    the service had closed as idle is none of these: there, nothing was attempted.

    Raises:
        ValueError: fewer than one attempt, or a pause that is not finite or below 0.
        TypeError: no numbers.

    >>> Retry.never()
    Retry(attempts=1, backoff=1.0, max_backoff=20.0)
    """

    attempts: int = 3
    backoff: float = 1.0
    max_backoff: float = 20.0

    def __post_init__(self) -> None:
        for part in fields(self):
            value = getattr(self, part.name)
            kinds = (int,) if part.name == "attempts" else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds):
                raise TypeError(f"retry: {part.name} is a number, not {type(value).__name__}")
        if self.attempts < 1:
            raise ValueError("retry: a request is sent at least once; Retry.never() sends it once")
        try:
            finite = 0 <= float(self.backoff) < inf and 0 <= float(self.max_backoff) < inf
        except OverflowError:
            finite = False
        if not finite:
            raise ValueError("retry: a pause is a finite number of seconds, 0 or more")

    @classmethod
    def never(cls) -> Retry:
        """One attempt, and no other."""
        return cls(attempts=1)


_DEFAULT_RETRY = Retry()


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
        retry: how often a request is sent; default ``Retry()``, which is three times.
        trusted_origins: further origins, such as ``https://files.example.com``, that the credential and the
            headers may be sent to: where a redirect leads there, say. Unset: the endpoint's alone.

    Raises:
        TypeError: a field of the wrong type.
        ValueError: a protocol that is neither, a timeout not above zero, an endpoint that is no URL, a header
            that cannot be sent, an account or region that is no host name label, an origin with a path.

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
    retry: Retry | None
    trusted_origins: tuple[Origin, ...] | None

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
        retry: Retry | None = None,
        trusted_origins: Iterable[str | Origin] | None = None,
    ) -> None:
        try:
            _fill(self, locals())
        except (TypeError, ValueError) as error:
            complaint = bare(error)
        else:
            return
        # A traceback may be shown with its locals.
        del access_key_secret, security_token, token, data_endpoint, control_endpoint, headers
        del trusted_origins
        raise complaint

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

    def with_credential(self, key: AccessKey) -> Config:
        """The same with this access key, instead of whatever credential there is."""
        kept = {name: value for name, value in self._set().items() if name not in _ACCESS_KEY | {"token"}}
        return Config(
            **kept,
            access_key_id=key.access_key_id,
            access_key_secret=key.access_key_secret,
            security_token=key.security_token,
        )

    def _set(self) -> dict[str, Any]:
        return {name: value for name in FIELDS if (value := getattr(self, name)) is not None}

    @classmethod
    def from_env(cls, environment: Mapping[str, str], *, credential: bool = True) -> Config:
        """A Config from environment variables, such as ``os.environ``; an empty variable is not set.

        Args:
            environment: names and values.
            credential: whether the parts of an access key are read too.

        Raises:
            ValueError: a variable's value is not what its field may hold; the message names the variable.

        >>> Config.from_env({"FC_REGION": "cn-beijing", "AGENTRUN_REGION": ""})
        Config(region_id='cn-beijing')
        """
        values: dict[str, Any] = {}
        for name, variable in environment_sources(environment).items():
            if not credential and name in _ACCESS_KEY:
                continue
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

    def __copy__(self) -> Config:
        return self

    def __deepcopy__(self, memo: object) -> Config:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        for name in ("data_endpoint", "control_endpoint"):
            url = getattr(self, name) or ""
            if without_userinfo(url) != url:
                raise TypeError(
                    f"{name} holds a password, which is not pickled: "
                    "give the other process its own credentials"
                )
        return (_unpickle, (self._set(),))

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
    def attempts(self) -> Retry:
        """How often a request is sent, in force."""
        return self.retry or _DEFAULT_RETRY

    @property
    def region(self) -> str:
        """The region in force."""
        return self.region_id or DEFAULT_REGION

    def data_target(self) -> Target:
        """Where the data plane is, taken apart.

        Raises:
            ValueError: neither `account_id` nor `data_endpoint` is set.
        """
        return parse_url(self.data_endpoint or self._endpoint())

    def control_target(self) -> Target:
        """Where the control plane is, taken apart: it gives access tokens for resources."""
        default = f"{self.protocol or DEFAULT_PROTOCOL}://agentrun.{self.region}.aliyuncs.com"
        return parse_url(self.control_endpoint or default)

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


def _fill(config: Config, given: Mapping[str, Any]) -> None:
    """Checks what was given, and sets the fields."""
    for name, check in _CHECKS.items():
        value = given[name]
        object.__setattr__(config, name, None if value is None else check(name, value))


def _unpickle(values: dict[str, Any]) -> Config:
    return Config(**values)


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


def _retry(name: str, value: Any) -> Retry:
    if not isinstance(value, Retry):
        raise TypeError(f"{name} is a Retry, not {type(value).__name__}")
    return value


def _origins(name: str, value: Any) -> tuple[Origin, ...]:
    items: Iterable[Any] = value
    if isinstance(value, (str, bytes)) or not isinstance(items, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{name} is a list of origins, such as ['https://files.example.com']")
    return tuple(_origin(name, item) for item in items)


def _origin(name: str, value: Any) -> Origin:
    if isinstance(value, Origin):
        return value
    try:
        target = parse_url(_text(name, value))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if target.path not in ("", "/") or target.query or target.userinfo is not None:
        raise ValueError(f"{name}: an origin is a scheme, a host and a port, and nothing else")
    return target.origin


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
    "retry": _retry,
    "trusted_origins": _origins,
}
FIELDS = tuple(_CHECKS)
"""The names of Config's fields, in order."""
