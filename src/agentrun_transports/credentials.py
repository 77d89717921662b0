"""Where credentials come from: values, variables, files, programs, the request at hand, the vendor's package.

A provider is a callable that takes nothing (`agentrun_proto.Provider`). It answers with a credential; with
None where it has none, which lets a chain go on; and with `CredentialError` where it has something that
cannot be used, which does not: whoever set a source up wants that one, and no other identity in its place.

Rules of this file:

- The parts of a credential come from one source.
- No secret is in an error, nor in an error beneath it, nor in a frame that its traceback holds. What reads
  secrets therefore raises nothing: it answers with what it found, or with a `_Problem`, and has returned
  before that is raised. Exceptions that carry what they failed to read (of JSON, INI, UTF-8) are dropped.
- Nothing is read, run or imported before it is asked for, and nothing is kept: the client caches.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast

from agentrun_proto import AccessKey, AccessToken, Config, Credential, CredentialError, Provider, Secret
from agentrun_proto.config import ENVIRONMENT, environment_sources
from agentrun_proto.credentials import check_key_id

from ._awaitable import is_async
from ._request_credential import current

if TYPE_CHECKING:
    from subprocess import Popen

__all__ = [
    "CredentialChain",
    "CredentialProcess",
    "CredentialsFile",
    "EnvironmentCredentials",
    "StaticCredentials",
    "VendorClient",
    "VendorCredentials",
    "credential_from_headers",
    "current_request_credential",
    "request_credentials",
]

# The names of an access key's parts: id, secret, security token.
PARTS = ("access_key_id", "access_key_secret", "security_token")
# ... in what an external process writes (alibabacloud-credentials 1.0.12, provider/external.py) ...
PROCESS_PARTS = ("access_key_id", "access_key_secret", "sts_token")
# ... and in the headers of a request to a function of the platform (SERVICE: Configuration).
HEADER_PARTS = ("x-fc-access-key-id", "x-fc-access-key-secret", "x-fc-security-token")

# What the shared file is called, in ~/.alibabacloud: by the vendor's libraries for Go, Node.js and PHP, and
# by those for Python and Java.
FILES = ("credentials", "credentials.ini")
FILE_VARIABLE, PROFILE_VARIABLE = "ALIBABA_CLOUD_CREDENTIALS_FILE", "ALIBABA_CLOUD_PROFILE"
DEFAULT_PROFILE = "default"
# The types of a profile that hold a credential, and those that tell how to get one.
FILE_TYPES = frozenset({"access_key", "sts"})
VENDOR_TYPES = frozenset(
    {"bearer", "credentials_uri", "ecs_ram_role", "oidc_role_arn", "ram_role_arn", "rsa_key_pair"}
)
# `enable`, "enabled by default if this option is not present" (README of alibabacloud-credentials 0.3).
SWITCHED_OFF = frozenset({"0", "false", "no", "off"})
# A file of credentials is some hundred bytes; what is larger is something else, or a device without end.
LARGEST_FILE = 1 << 20

# RFC 3339 in UTC. A fraction, which some programs write, is dropped: earlier does no harm, later would.
_UTC = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?Z", re.ASCII)
# A `#` begins a comment anywhere in a value, as the vendor reads it; a `;` after white space, as Java's does.
_COMMENT = re.compile(r"#|\s;")
# Seconds. What waits longer was meant otherwise, and some systems cannot.
LONGEST_WAIT = 86400.0

VENDOR_PACKAGE = "alibabacloud-credentials"
# The vendor's client does not tell when a credential ends. It hands one out until 15 minutes before its end,
# the answer of an external process until 3 minutes before (alibabacloud-credentials 1.0.12: `_get_stale_time`
# in provider/*.py; only its OAuth waits for the end itself). So each is good for the smaller of the two.
REFRESH_EVERY = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problem:
    """Why there is no credential where there should be one; it holds nothing that was read."""

    message: str
    cause: Exception | None = None


_Found = Credential | _Problem | None


def _settle(found: _Found) -> Credential | None:
    if isinstance(found, _Problem):
        raise CredentialError(found.message) from found.cause
    return found


def _assemble(
    where: str,
    names: Sequence[str],
    values: Mapping[str, Any],
    *,
    temporary: bool,
    expires_at: float | None = None,
) -> AccessKey | _Problem:
    """The access key whose parts have these names; a temporary one is nothing without its security token."""
    missing = [name for name in (names if temporary else names[:2]) if not values.get(name)]
    if missing:
        return _Problem(message=f"{where}: {', '.join(missing)} missing")
    for name, check in zip(names, (check_key_id, Secret, Secret), strict=True):
        try:
            check(values.get(name) or "")
        except (TypeError, ValueError) as error:
            return _Problem(message=f"{where}: {name}: {error}")
    key_id, secret, token = (values.get(name) or "" for name in names)
    return AccessKey(
        access_key_id=key_id,
        access_key_secret=Secret(secret),
        security_token=Secret(token),
        expires_at=expires_at,
    )


class _Source:
    """What all providers here share: they are not pickled, since that would carry secrets away."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a provider is not pickled: make one in the other process")

    def __copy__(self) -> _Source:
        return self

    def __deepcopy__(self, memo: object) -> _Source:
        return self


@dataclass(frozen=True, slots=True, eq=False)
class StaticCredentials(_Source):
    """The same credential each time.

    Args:
        credential: an AccessKey or an AccessToken.

    Raises:
        TypeError: it is neither.

    >>> StaticCredentials(AccessToken(token=Secret("very secret")))()
    AccessToken(token=Secret(***), expires_at=None)
    """

    credential: Credential

    def __post_init__(self) -> None:
        if not isinstance(self.credential, (AccessKey, AccessToken)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"a credential is an AccessKey or an AccessToken, not {type(self.credential).__name__}"
            )

    def __call__(self) -> Credential:
        """The credential."""
        return self.credential


@dataclass(frozen=True, slots=True, eq=False)
class EnvironmentCredentials(_Source):
    """The access key in environment variables, read at each call.

    ``AGENTRUN_ACCESS_KEY_ID``, ``AGENTRUN_ACCESS_KEY_SECRET`` and ``AGENTRUN_SECURITY_TOKEN``, or the three
    that begin with ``ALIBABA_CLOUD_`` instead; an empty variable is not set. The two families are never mixed
    within a key: see `Config.from_env`.

    Args:
        environment: the variables, such as ``os.environ``.

    Returns:
        An AccessKey, or None where no variable is set.

    Raises:
        TypeError: the environment is no mapping.
        CredentialError: when called: half an access key, or a value that no signature can carry.

    >>> variables = {"AGENTRUN_ACCESS_KEY_ID": "id", "AGENTRUN_ACCESS_KEY_SECRET": "very secret"}
    >>> EnvironmentCredentials(variables)()
    AccessKey(access_key_id='id', access_key_secret=Secret(***), security_token=None, expires_at=None)
    """

    environment: Mapping[str, str] = field(repr=False)

    def __post_init__(self) -> None:
        _check_environment(self.environment)

    def __call__(self) -> Credential | None:
        """What the variables hold now."""
        return _settle(_read_environment(self.environment))


def _check_environment(environment: object) -> None:
    if not isinstance(environment, Mapping):
        raise TypeError(f"an environment is a mapping such as os.environ, not {type(environment).__name__}")


def _read_environment(environment: Mapping[str, str]) -> _Found:
    variables = {variable for part in PARTS for variable in ENVIRONMENT[part]}
    # Whatever else is set there, such as a region, is none of our business.
    ours = {variable: environment[variable] for variable in sorted(variables) if variable in environment}
    try:
        config = Config.from_env(ours)
    except ValueError as error:
        return _Problem(message=str(error))
    try:
        return config.credential
    except ValueError as error:
        return _Problem(message=f"{error} (set: {', '.join(environment_sources(ours).values())})")


@dataclass(frozen=True, slots=True, eq=False)
class CredentialsFile(_Source):
    """A profile of the vendor's shared credentials file, read at each call.

    ::

        [default]
        type = access_key
        access_key_id = ...
        access_key_secret = ...

        [batch]
        type = sts
        access_key_id = ...
        access_key_secret = ...
        security_token = ...

    Read as the vendor's tools read it: UTF-8 with or without a byte order mark; ``#`` begins a comment, also
    after a value; a profile with ``enable = false`` is as good as not there. Unlike there, a ``[DEFAULT]``
    section lends nothing to the others, so that no key gets a part of another.

    Args:
        path: the file. Unset, it is that of ``ALIBABA_CLOUD_CREDENTIALS_FILE``, else
            ``~/.alibabacloud/credentials``, else ``~/.alibabacloud/credentials.ini``.
        profile: its section. Unset, it is that of ``ALIBABA_CLOUD_PROFILE``, else ``default``.
        environment: where these variables and ``HOME`` are looked up, at each call.

    Returns:
        An AccessKey. None where the file does not exist, or where no profile was chosen and it has no
        ``default``.

    Raises:
        TypeError, ValueError: a parameter of another type, or empty.
        CredentialError: when called: the file cannot be read, it does not have the profile that was chosen,
            the profile lacks a part, or its type is one that `VendorCredentials` is for. The message names
            the file, the profile and the part.

    >>> CredentialsFile("/etc/agentrun/credentials", "batch")
    CredentialsFile(path='/etc/agentrun/credentials', profile='batch')
    """

    path: str | os.PathLike[str] | None = None
    profile: str | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        _check_environment(self.environment)
        if self.path is not None:
            path = os.fspath(self.path)
            if not isinstance(path, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"path is a str or a path of one, not {type(path).__name__}")
            if not path:
                raise ValueError("path is empty; leave it out to have the usual file")
        if self.profile is not None:
            if not isinstance(self.profile, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"profile is a str, not {type(self.profile).__name__}")
            if not self.profile:
                raise ValueError("profile is empty; leave it out to have the default one")

    def __call__(self) -> Credential | None:
        """What the file holds now."""
        path = next(filter(os.path.exists, self._paths()), None)
        if path is None:
            return None
        return _settle(_read_file(path, self.profile or self.environment.get(PROFILE_VARIABLE) or None))

    def _paths(self) -> list[str]:
        """The files to look for, in order."""
        given = self.path or self.environment.get(FILE_VARIABLE)
        if given:
            return [os.path.expanduser(given)]
        home = self.environment.get("HOME") or os.path.expanduser("~")
        return [os.path.join(home, ".alibabacloud", name) for name in FILES]


def _read_file(path: str, chosen: str | None) -> AccessKey | _Problem | None:
    where = f"the credentials file {path}"
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        return _Problem(message=f"{where} cannot be read: {error.strerror}", cause=_bare(error))
    if len(content) > LARGEST_FILE:
        return _Problem(message=f"{where} has more than {LARGEST_FILE} bytes; is it the right one?")
    profiles = _parse_ini(content)
    if isinstance(profiles, str):
        return _Problem(message=f"{where}: {profiles}")
    profile = profiles.get(chosen or DEFAULT_PROFILE)
    if profile is None or profile.get("enable", "").lower() in SWITCHED_OFF:
        if chosen is None:
            return None
        state = "does not have" if profile is None else "has switched off"
        return _Problem(
            message=f"{where} {state} the profile {chosen!r}, which profile= or {PROFILE_VARIABLE} chose"
        )
    return _read_profile(f"{where}, profile {chosen or DEFAULT_PROFILE!r}", profile)


def _read_profile(where: str, profile: Mapping[str, str]) -> AccessKey | _Problem:
    kind = profile.get("type")
    if kind == "access_key":
        return _assemble(where, PARTS, {name: profile.get(name) for name in PARTS[:2]}, temporary=False)
    if kind == "sts":
        return _assemble(where, PARTS, profile, temporary=True)
    if not kind:
        return _Problem(message=f"{where}: type missing; it is one of {', '.join(sorted(FILE_TYPES))}")
    if kind in VENDOR_TYPES:
        return _Problem(message=f"{where}: its type, {kind}, is one for VendorCredentials; use that instead")
    # A type that is unknown is not shown: it may be a secret on the wrong line.
    return _Problem(message=f"{where}: type unknown; it is one of {', '.join(sorted(FILE_TYPES))}")


def _parse_ini(content: bytes) -> dict[str, dict[str, str]] | str:
    """The sections of a file, or what is wrong with it."""
    import configparser  # only here: few read a file, and nobody reads it often

    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return "it is not UTF-8 text"
    # No section can be called "", so that none lends its options to the others.
    parser = configparser.RawConfigParser(default_section="")
    try:
        parser.read_string(text)
    except (configparser.DuplicateSectionError, configparser.DuplicateOptionError) as error:
        return f"line {error.lineno} repeats a profile or an option"
    except configparser.MissingSectionHeaderError as error:
        return f"line {error.lineno} stands before the first [profile]"
    except configparser.ParsingError as error:
        return f"line {error.errors[0][0]} is neither a [profile] nor an option"
    return {
        section: {name: _COMMENT.split(value, maxsplit=1)[0].strip() for name, value in parser.items(section)}
        for section in parser.sections()
    }


def _bare(error: OSError) -> OSError:
    """An error without its frames, in which the standard library holds what it was given."""
    return error.with_traceback(None)


@dataclass(frozen=True, slots=True, eq=False, init=False, repr=False)
class CredentialProcess(_Source):
    """What a program of your own writes to its standard output: the vendor's external process.

    ::

        {"mode": "StsToken", "access_key_id": "...", "access_key_secret": "...", "sts_token": "...",
         "expiration": "2026-03-06T12:00:00Z"}

    ``mode`` is ``AK`` or ``StsToken``; ``sts_token`` is needed for the second; without ``expiration``, an RFC
    3339 time in UTC, the credential is used until the service refuses it. The program has no standard input.
    Its standard error is ours: what it says there is seen where its user looks, and is in no error or log of
    this library. It runs in a session of its own (on POSIX) and is killed, with all that it started and did
    not detach, when its time is over.

    Args:
        command: the program and its arguments. A str is split as by `shlex`; no shell ever sees it. On
            Windows give a list, since there a backslash is part of a path.
        timeout: seconds until it is killed, at most a day.

    Returns:
        An AccessKey; never None.

    Raises:
        TypeError, ValueError: an empty command, quotes that do not end, a timeout that is no such number.
        CredentialError: when called: the program could not be started, failed, took too long, or wrote
            something else. The message has its exit code, and nothing that it wrote.

    >>> CredentialProcess("vault-credential --role reader", timeout=10)
    CredentialProcess(['vault-credential', ...], timeout=10.0)
    """

    command: tuple[str, ...]
    timeout: float

    def __init__(self, command: str | list[str] | tuple[str, ...], timeout: float = 60.0) -> None:
        object.__setattr__(self, "command", _check_command(command))
        object.__setattr__(self, "timeout", _check_seconds("timeout", timeout))

    def __repr__(self) -> str:
        # Arguments may hold secrets.
        return f"CredentialProcess([{self.command[0]!r}, ...], timeout={self.timeout!r})"

    def __call__(self) -> Credential | None:
        """Runs the program."""
        return _settle(_run(self.command, self.timeout))


def _check_command(command: object) -> tuple[str, ...]:
    if isinstance(command, str):
        import shlex

        command = shlex.split(command)
    if not isinstance(command, (list, tuple)):
        raise TypeError(f"a command is a str or a list of them, not {type(command).__name__}")
    parts = tuple(cast("list[object]", command))
    for part in parts:
        if not isinstance(part, str):
            raise TypeError(f"the parts of a command are str, not {type(part).__name__}")
        if "\0" in part:
            raise ValueError("a command cannot hold NUL")
    if not parts or not parts[0]:
        raise ValueError("the command is empty")
    return cast("tuple[str, ...]", parts)


def _check_seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number of seconds, not {type(value).__name__}")
    if not 0 < value <= LONGEST_WAIT:
        raise ValueError(f"{name} is above 0 and at most {LONGEST_WAIT:g} seconds, not {value}")
    return float(value)


def _run(command: tuple[str, ...], timeout: float) -> AccessKey | _Problem:
    import subprocess  # only here: few run one, and it takes long to import

    where = f"the credential process {command[0]!r}"
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        return _Problem(message=f"{where} could not be started: {error.strerror}", cause=_bare(error))
    try:
        output, _ = process.communicate(timeout=timeout)
    except BaseException as error:
        killed = _kill(process)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        fate = "was killed" if killed else "could not be killed: it is not ours any more"
        return _Problem(message=f"{where} took longer than {timeout:g} seconds, and {fate}")
    code = process.returncode
    if code:
        ended = f"exit code {code}" if code > 0 else f"signal {-code}"
        return _Problem(message=f"{where} failed with {ended}; standard error has what it said, if anything")
    return _read_answer(where, output)


def _kill(process: Popen[bytes]) -> bool:
    """Kills a process with its children, any of which could hold the pipe open; whether that was allowed."""
    import signal

    allowed = True
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (AttributeError, OSError):  # Windows has no groups; none is left; it became another user's
        try:
            process.kill()
        except PermissionError:
            allowed = False
    assert process.stdout is not None
    process.stdout.close()
    if allowed:
        process.wait()
    return allowed


def _read_answer(where: str, output: bytes) -> AccessKey | _Problem:
    try:
        answer = json.loads(output)
    except (ValueError, RecursionError):
        return _Problem(message=f"{where} did not write JSON to its standard output, and nothing else")
    if not isinstance(answer, dict):
        return _Problem(message=f"{where} wrote JSON that is no object")
    values = cast("dict[str, Any]", answer)
    mode, expiration = values.get("mode"), values.get("expiration")
    if mode not in (None, "AK", "StsToken"):
        return _Problem(message=f"{where}: its mode is neither AK nor StsToken")
    expires_at = _epoch(expiration) if expiration else None
    if expiration and expires_at is None:
        return _Problem(message=f"{where}: expiration is no time in UTC such as 2026-03-06T12:00:00Z")
    return _assemble(where, PROCESS_PARTS, values, temporary=mode == "StsToken", expires_at=expires_at)


def _epoch(text: object) -> float | None:
    """Seconds since the epoch of an RFC 3339 time in UTC; None for anything else."""
    match = _UTC.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    try:
        return datetime.fromisoformat(f"{match[1]}+00:00").timestamp()
    except ValueError:  # the 30th of February
        return None


class VendorClient(Protocol):
    """What `VendorCredentials` asks: ``alibabacloud_credentials.client.Client``, or anything like it."""

    def get_credential(self) -> Any:
        """An object with `access_key_id`, `access_key_secret`, `security_token` and `bearer_token`."""
        ...


class VendorCredentials(_Source):
    """What the vendor's own package finds: the roles of ECS, RAM, OIDC and SSO, its profiles, its own chain.

    The package is ``alibabacloud-credentials``, which is imported when a credential is first asked for and no
    client was given. It cannot tell "there is none" from "there is one, and it fails": both are an error, so
    in a chain it stands last. It refreshes what it has and does not tell when that ends; every credential
    therefore gets an `expires_at`, so that it is asked again.

    Args:
        client: an ``alibabacloud_credentials.client.Client``; unset, one that searches as its package does.
        refresh_every: seconds until it is asked again, at most a day. It answers from memory until a
            credential is near its end.
        clock: wall time, in seconds since the epoch.

    Returns:
        An AccessKey; never None.

    Raises:
        TypeError, ValueError: a client without `get_credential`, an interval that is no such number.
        CredentialError: when called: the package is not installed, it failed (the cause is its error, in its
            words), or what it has is no access key.

    >>> from types import SimpleNamespace as Stub
    >>> model = Stub(access_key_id="id", access_key_secret="very secret", security_token="token")
    >>> vendor = VendorCredentials(Stub(get_credential=lambda: model), clock=lambda: 1000.0)
    >>> vendor().expires_at
    1180.0
    """

    __slots__ = ("_client", "_clock", "_making", "_refresh_every")

    def __init__(
        self,
        client: VendorClient | None = None,
        *,
        refresh_every: float = REFRESH_EVERY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if client is not None and not callable(getattr(client, "get_credential", None)):
            raise TypeError(f"a client has get_credential(), which {type(client).__name__} has not")
        self._client = client
        self._refresh_every = _check_seconds("refresh_every", refresh_every)
        self._clock = clock
        self._making = Lock()

    def __repr__(self) -> str:
        return f"VendorCredentials(refresh_every={self._refresh_every!r})"

    def __call__(self) -> Credential | None:
        """Asks the vendor's client."""
        return _settle(self._ask())

    def _ask(self) -> AccessKey | _Problem:
        where = f"the package {VENDOR_PACKAGE}"
        try:
            with self._making:  # one client for all threads: it may come with a thread of its own
                if self._client is None:
                    self._client = _vendor_client()
            model = self._client.get_credential()
        except ImportError as error:
            return _Problem(message=f"{where} cannot be imported: pip install {VENDOR_PACKAGE}", cause=error)
        except Exception as error:
            # Its message is not ours to repeat: it may quote what a service or a process answered.
            return _Problem(message=f"{where} has no credential; the cause tells why", cause=error)
        values = {name: getattr(model, name, None) for name in PARTS}
        if not any(values.values()) and getattr(model, "bearer_token", None):
            return _Problem(message=f"{where} has a bearer token, which the data plane does not take")
        # A key without a security token may be a temporary one, too (rsa_key_pair): this holds for all.
        expires_at = self._clock() + self._refresh_every
        return _assemble(where, PARTS, values, temporary=False, expires_at=expires_at)


def _vendor_client() -> VendorClient:
    client: VendorClient = import_module("alibabacloud_credentials.client").Client()
    return client


class CredentialChain(_Source):
    """The first of several providers that has a credential.

    They are asked one after another, each time anew. One that answers None is passed over. One that raises,
    such as CredentialError for half an access key, ends the search: the next one is somebody else.

    A chain of plain providers is a plain one. If any of them is ``async``, the chain is, and asks the plain
    ones in a worker thread, under asyncio and trio.

    Args:
        providers: plain and ``async`` callables, in the order of preference.

    Returns:
        A credential, or None if nobody has one; to be awaited where a provider is ``async``.

    Raises:
        ValueError: no providers.
        TypeError: one that is not callable.
        CredentialError: when called: what a provider raised.

    >>> chain = CredentialChain(EnvironmentCredentials({}), CredentialsFile(environment={"HOME": "/nowhere"}))
    >>> chain
    CredentialChain(EnvironmentCredentials(), CredentialsFile(path=None, profile=None))
    >>> print(chain())
    None
    """

    __slots__ = ("_providers",)
    _providers: tuple[tuple[Callable[[], Any], bool], ...]  # each with whether it is async

    def __new__(cls, *providers: Provider) -> CredentialChain:
        """The chain of the right kind; the client looks at the class to see whether it is to be awaited."""
        if not providers:
            raise ValueError("a chain has at least one provider")
        for provider in providers:
            if not callable(provider):
                raise TypeError(f"a provider is callable, which {type(provider).__name__} is not")
        asked = tuple((provider, is_async(provider)) for provider in providers)
        chain = object.__new__(_AsyncChain if any(awaited for _, awaited in asked) else CredentialChain)
        chain._providers = asked
        return chain

    def __call__(self) -> Any:
        """Asks them."""
        for provider, _ in self._providers:
            found = provider()
            if found is not None:
                return found
        return None

    def __repr__(self) -> str:
        return f"CredentialChain({', '.join(_shown(provider) for provider, _ in self._providers)})"


class _AsyncChain(CredentialChain):
    __slots__ = ()

    async def __call__(self) -> Credential | None:
        for provider, awaited in self._providers:
            found: Credential | None = await (provider() if awaited else _elsewhere(provider))
            if found is not None:
                return found
        return None


async def _elsewhere(provider: Callable[[], Credential | None]) -> Credential | None:
    """Calls a plain provider in a worker thread. Whoever is cancelled leaves it there, on either loop."""
    if "trio" in sys.modules:
        import trio

        if trio.lowlevel.in_trio_task():
            return await trio.to_thread.run_sync(provider, abandon_on_cancel=True)
    import asyncio  # it runs, or nothing does that could be served

    return await asyncio.to_thread(provider)


def _shown(provider: object) -> str:
    """A provider's name. The repr of others may hold a secret: that of a partial shows its arguments."""
    if isinstance(provider, _Source):
        return repr(provider)
    return str(getattr(provider, "__qualname__", type(provider).__qualname__))


def credential_from_headers(headers: Mapping[str, str]) -> AccessKey | None:
    """The temporary credential that the platform puts into the headers of a request to a function of ours.

    Only where the platform is what sets these headers: elsewhere, anybody who can send a request can, and so
    choose whose credential its answer is fetched with.

    Args:
        headers: of the request, their names in any case, or anything else that has ``items()``.

    Returns:
        An AccessKey of ``x-fc-access-key-id``, ``x-fc-access-key-secret`` and ``x-fc-security-token``; None
        unless there are all three, none of them empty.

    Raises:
        TypeError: no mapping of str to str.
        CredentialError: all three are there, and no signature can carry them, or one is there twice.

    >>> credential_from_headers({"X-Fc-Access-Key-Id": "id", "X-Fc-Access-Key-Secret": "very secret"})
    """
    if not callable(getattr(headers, "items", None)):
        raise TypeError(f"headers are a mapping of str to str, not {type(headers).__name__}")
    texts = (text for item in headers.items() for text in item)
    if not all(isinstance(text, str) for text in texts):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError("headers are a mapping of str to str; decode bytes as latin-1")
    return cast("AccessKey | None", _settle(_read_headers(headers)))


def _read_headers(headers: Mapping[str, str]) -> AccessKey | _Problem | None:
    where = "the headers of the request"
    found: dict[str, str] = {}
    for name, value in headers.items():
        lowered = name.lower()
        if lowered in HEADER_PARTS and found.setdefault(lowered, value) != value:
            return _Problem(message=f"{where}: {lowered} is there twice")
    if not all(map(found.get, HEADER_PARTS)):
        return None
    return _assemble(where, HEADER_PARTS, found, temporary=True)


@contextmanager
def request_credentials(headers: Mapping[str, str]) -> Generator[None]:
    """Within it, all calls are made with the credential that came in the headers of a request.

    It holds for this thread or task and for the tasks that are started within, not for threads. It lies over
    the client's own credential, and beneath that of a call's own config. Headers without a complete triple
    bring none, and then the client's own counts: never that of another request around it.

    Args:
        headers: as for `credential_from_headers`.

    Raises:
        TypeError, CredentialError: as `credential_from_headers`.

    >>> headers = {"x-fc-access-key-id": "id", "x-fc-access-key-secret": "s", "x-fc-security-token": "t"}
    >>> with request_credentials(headers):
    ...     current_request_credential().access_key_id
    'id'
    """
    credential, before = credential_from_headers(headers), current.get()
    current.set(credential)
    try:
        yield
    finally:
        # Not by a token: a generator that is closed elsewhere ends in another context than it began in.
        current.set(before)


def current_request_credential() -> AccessKey | None:
    """The credential of the request at hand, set by `request_credentials`; None outside of it.

    >>> print(current_request_credential())
    None
    """
    return current.get()
