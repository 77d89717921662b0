"""Where credentials come from: each provider's rows, what chains make of them, and that no secret ever shows.

Rules of this file: whatever is read holds MARK in its secret places; every error that a provider raises goes
through `refusal`, which looks for the mark wherever an error can carry one.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import functools
import importlib.util
import inspect
import json
import logging
import os
import pickle
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import Headers as WerkzeugHeaders

from agentrun_proto import AccessKey, AccessToken, Credential, CredentialError, Secret
from agentrun_transports.credentials import (
    CredentialChain,
    CredentialProcess,
    CredentialsFile,
    EnvironmentCredentials,
    StaticCredentials,
    VendorCredentials,
    credential_from_headers,
    current_request_credential,
    request_credentials,
)
from proto_strategies import PROPERTY

MARK = "MARKED5ecret"
PATIENCE = 30.0  # seconds to wait for what must come at once; never reached unless something hangs
POSIX = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX processes")
VENDOR = pytest.mark.skipif(
    importlib.util.find_spec("alibabacloud_credentials") is None,
    reason="alibabacloud-credentials is not installed",
)
KEY = AccessKey(access_key_id="id", access_key_secret=Secret(f"{MARK}-s"))
OTHER = AccessKey(access_key_id="other", access_key_secret=Secret(f"{MARK}-o"))


def short(value: object) -> str:
    """The name of a row whose values may be long."""
    return ascii(value)[:40]


def parts(credential: Credential | None) -> tuple[str, str, str | None] | None:
    """What an access key is made of, revealed."""
    if credential is None:
        return None
    assert isinstance(credential, AccessKey)
    token = credential.security_token
    return (
        credential.access_key_id,
        credential.access_key_secret.reveal(),
        None if token is None else token.reveal(),
    )


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing here talks to anybody; the vendor's package by itself would ask the metadata service."""

    def refuse(self: Any, address: Any) -> Any:
        raise AssertionError(f"a test connects to {address!r}")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)


# --- no secret shows


def told_by(error: BaseException) -> str:
    """All that an error tells: itself, its pickle, a log record, its traceback, its frames but ours."""
    record = logging.LogRecord("x", logging.ERROR, "", 0, "%r %s", (error, error), None)
    record.exc_info = (type(error), error, error.__traceback__)
    told = [
        repr(error),
        str(error),
        repr(vars(error)),
        repr(pickle.dumps(error)),
        logging.Formatter().format(record),
        *traceback.format_exception(error),
    ]
    beneath: list[BaseException | None] = [error]
    for each in beneath:  # __context__ too, though nothing prints a suppressed one
        if each is not None:
            beneath += [each.__cause__, each.__context__]
            told += [repr(each), repr(getattr(each, "__dict__", None))]
            summary = traceback.TracebackException.from_exception(each, capture_locals=True)
            told += [repr(frame.locals) for frame in summary.stack if frame.filename != __file__]
    return "\n".join(told)


def refusal(provider: Callable[[], Any], *, mark: str = MARK) -> CredentialError:
    """The CredentialError that a provider raises; it tells no secret."""
    with pytest.raises(CredentialError) as caught:
        provider()
    assert mark not in told_by(caught.value)
    assert caught.value.may_be_processed is False
    assert caught.value.status_code == 0
    return caught.value


def test_the_net_for_secrets_holds():
    def raises_with(secret: str, error: Exception) -> None:
        raise error

    def raises_from(secret: str) -> None:
        try:
            raise ValueError(secret)
        except ValueError:
            raise CredentialError("x") from None

    for guilty in (
        lambda: raises_with("", CredentialError(MARK)),
        lambda: raises_with("", CredentialError("x", response_body=MARK)),
        lambda: raises_from(MARK),
    ):
        with pytest.raises(CredentialError) as caught:
            guilty()
        assert MARK in told_by(caught.value)


ENVIRONMENT = {"AGENTRUN_ACCESS_KEY_ID": "id", "AGENTRUN_ACCESS_KEY_SECRET": MARK}
PROVIDERS: Mapping[str, Callable[[], Any]] = {
    "static key": lambda: StaticCredentials(KEY),
    "static token": lambda: StaticCredentials(AccessToken(token=Secret(MARK))),
    "environment": lambda: EnvironmentCredentials(ENVIRONMENT),
    "file": lambda: CredentialsFile("/a/path", "a-profile", environment=ENVIRONMENT),
    "process": lambda: CredentialProcess(["prog", "--password", MARK]),
    "vendor": lambda: VendorCredentials(SimpleNamespace(get_credential=None.__class__, secret=MARK)),
    "chain": lambda: CredentialChain(
        StaticCredentials(KEY), functools.partial(StaticCredentials.__call__, MARK), lambda: KEY
    ),
    "async chain": lambda: CredentialChain(StaticCredentials(KEY), functools.partial(awaited, MARK)),
}


async def awaited(found: Any) -> Any:
    return found


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_shows_no_secret(name):
    provider = PROVIDERS[name]()
    for shown in (repr(provider), str(provider), f"{provider}", logging.Formatter().format(
        logging.LogRecord("x", logging.DEBUG, "", 0, "%r %s", (provider, provider), None)
    )):  # fmt: skip
        assert MARK not in shown


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_is_not_pickled_and_copies_to_itself(name):
    provider = PROVIDERS[name]()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(provider, protocol)
    assert copy.copy(provider) is provider
    assert copy.deepcopy({"x": provider})["x"] is provider


def test_what_they_are_called():
    assert repr(StaticCredentials(KEY)) == f"StaticCredentials(credential={KEY!r})"
    assert repr(EnvironmentCredentials(ENVIRONMENT)) == "EnvironmentCredentials()"
    assert repr(CredentialsFile("a", "b")) == "CredentialsFile(path='a', profile='b')"
    assert repr(CredentialProcess("a b", 5)) == "CredentialProcess(['a', ...], timeout=5.0)"
    assert repr(VendorCredentials()) == "VendorCredentials(refresh_every=180.0)"
    chain = CredentialChain(StaticCredentials(KEY), functools.partial(int), awaited, CredentialChain(nobody))
    assert (
        repr(chain) == f"CredentialChain({StaticCredentials(KEY)}, partial, awaited, CredentialChain(nobody))"
    )


def nobody() -> None:
    """Has no credential."""


# --- misuse


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: StaticCredentials(None), TypeError),
        (lambda: StaticCredentials("token"), TypeError),
        (lambda: EnvironmentCredentials(None), TypeError),
        (lambda: EnvironmentCredentials([("a", "b")]), TypeError),
        (lambda: CredentialsFile(environment=7), TypeError),
        (lambda: CredentialsFile(7), TypeError),
        (lambda: CredentialsFile(b"a"), TypeError),
        (lambda: CredentialsFile(""), ValueError),
        (lambda: CredentialsFile(profile=b"default"), TypeError),
        (lambda: CredentialsFile(profile=""), ValueError),
        (lambda: CredentialProcess(""), ValueError),
        (lambda: CredentialProcess("  "), ValueError),
        (lambda: CredentialProcess([]), ValueError),
        (lambda: CredentialProcess(["", "a"]), ValueError),
        (lambda: CredentialProcess("a 'b"), ValueError),
        (lambda: CredentialProcess(["a\0b"]), ValueError),
        (lambda: CredentialProcess(b"a"), TypeError),
        (lambda: CredentialProcess(["a", 1]), TypeError),
        (lambda: CredentialProcess({"a": "b"}), TypeError),
        (lambda: CredentialProcess("a", timeout=0), ValueError),
        (lambda: CredentialProcess("a", timeout=-1), ValueError),
        (lambda: CredentialProcess("a", timeout=float("nan")), ValueError),
        (lambda: CredentialProcess("a", timeout=float("inf")), ValueError),
        (lambda: CredentialProcess("a", timeout=86401), ValueError),
        (lambda: CredentialProcess("a", timeout=True), TypeError),
        (lambda: CredentialProcess("a", timeout="9"), TypeError),
        (lambda: VendorCredentials(object()), TypeError),
        (lambda: VendorCredentials(SimpleNamespace(get_credential=1)), TypeError),
        (lambda: VendorCredentials(refresh_every=0), ValueError),
        (lambda: VendorCredentials(refresh_every=None), TypeError),
        (lambda: CredentialChain(), ValueError),
        (lambda: CredentialChain(nobody, KEY), TypeError),
    ],
)
def test_misuse_shows_when_it_is_made(make, error):
    with pytest.raises(error):
        make()


def test_values_are_frozen():
    for provider, name in (
        (StaticCredentials(KEY), "credential"),
        (EnvironmentCredentials({}), "environment"),
        (CredentialsFile(), "path"),
        (CredentialProcess("a"), "command"),
    ):
        with pytest.raises(AttributeError):
            setattr(provider, name, None)


# --- static and environment


def test_static():
    token = AccessToken(token=Secret(MARK))
    assert StaticCredentials(KEY)() is KEY
    assert StaticCredentials(token)() is token


OURS, THEIRS = "AGENTRUN_", "ALIBABA_CLOUD_"
ID, SECRET, TOKEN = "ACCESS_KEY_ID", "ACCESS_KEY_SECRET", "SECURITY_TOKEN"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"HOME": "/", OURS + ID: "", OURS + SECRET: ""}, None),
        ({OURS + ID: "a", OURS + SECRET: MARK}, ("a", MARK, None)),
        ({THEIRS + ID: "a", THEIRS + SECRET: MARK, THEIRS + TOKEN: "t"}, ("a", MARK, "t")),
        # Ours are not joined by a part of theirs.
        ({OURS + ID: "a", OURS + SECRET: MARK, THEIRS + ID: "b", THEIRS + TOKEN: "t"}, ("a", MARK, None)),
        # What does not concern it does not stop it.
        ({OURS + ID: "a", OURS + SECRET: MARK, "AGENTRUN_REGION": "not a label!"}, ("a", MARK, None)),
    ],
)
def test_environment(environment, expected):
    assert parts(EnvironmentCredentials(environment)()) == expected


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({OURS + ID: "a"}, ["both access_key_id and access_key_secret", OURS + ID]),
        ({OURS + SECRET: MARK}, [OURS + SECRET]),
        ({THEIRS + TOKEN: MARK}, [THEIRS + TOKEN]),
        ({OURS + ID: "a", THEIRS + SECRET: MARK}, [OURS + ID]),
        ({OURS + ID: "a", OURS + SECRET: MARK + "\n"}, [OURS + SECRET, "end of line"]),
        ({OURS + ID: f"a/{MARK}", OURS + SECRET: MARK}, [OURS + ID]),
        ({OURS + ID: "a", OURS + SECRET: MARK, OURS + TOKEN: MARK + "é"}, [OURS + TOKEN]),
    ],
)
def test_environment_that_cannot_be_used(environment, told):
    error = refusal(EnvironmentCredentials(environment))
    for text in told:
        assert text in str(error)


def test_environment_is_read_at_each_call():
    environment: dict[str, str] = {}
    provider = EnvironmentCredentials(environment)
    assert provider() is None
    environment.update({OURS + ID: "a", OURS + SECRET: MARK})
    assert parts(provider()) == ("a", MARK, None)


# --- the shared file


def written(folder: Path, content: str | bytes, name: str = "file") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


PLAIN = f"[default]\ntype = access_key\naccess_key_id = a\naccess_key_secret = {MARK}\n"
STS = f"type = sts\naccess_key_id = a\naccess_key_secret = {MARK}\nsecurity_token = {MARK}-t\n"
AS_PLAIN = ("a", MARK, None)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (PLAIN, AS_PLAIN),
        ("[default]\n" + STS, ("a", MARK, f"{MARK}-t")),
        # As editors and tools leave it.
        (b"\xef\xbb\xbf" + PLAIN.encode(), AS_PLAIN),
        (PLAIN.replace("\n", "\r\n"), AS_PLAIN),
        (PLAIN.rstrip(), AS_PLAIN),
        (PLAIN.replace(" = ", "="), AS_PLAIN),
        (PLAIN.replace(" = ", " : "), AS_PLAIN),
        (PLAIN.replace("\n", " \t\n"), AS_PLAIN),
        (PLAIN.replace("\n", "\n\n"), AS_PLAIN),
        (PLAIN.replace("\n", "\n  "), AS_PLAIN),
        (PLAIN.replace("access_key_id", "ACCESS_KEY_ID"), AS_PLAIN),
        # Comments: the README's own example, and all that its readers take for one.
        (PLAIN.replace("\n", "          # comment\n"), AS_PLAIN),
        (PLAIN.replace("\n", "#comment\n").replace("]#", "]  #"), AS_PLAIN),
        (PLAIN.replace(MARK, f"{MARK} ; comment"), AS_PLAIN),
        ("# one\n; two\n" + PLAIN.replace("\n", "\n# three\n ; four\n"), AS_PLAIN),
        # A value is taken as it stands.
        (PLAIN.replace(MARK, f"{MARK}%(x)s%=;+/"), ("a", f"{MARK}%(x)s%=;+/", None)),
        # `enable`, which is on unless it is off.
        (PLAIN + "enable = true          # enable\n", AS_PLAIN),
        (PLAIN + "enable =\n", AS_PLAIN),
        (PLAIN + "enable = false\n", None),
        (PLAIN + "enable = False # off\n", None),
        # An access key has no token, as in the vendor's tools.
        (PLAIN + "security_token = t\nregion_id = cn-hangzhou\n", AS_PLAIN),
        # No default profile.
        ("", None),
        ("# nothing\n", None),
        (PLAIN.replace("default", "Default"), None),
        (PLAIN.replace("default", "other"), None),
        ("[other]\ntype = nonsense\n" + PLAIN, AS_PLAIN),
    ],
    ids=short,
)
def test_file(tmp_path, content, expected):
    found = CredentialsFile(written(tmp_path, content), environment={})()
    assert parts(found) == expected
    assert found is None or found.expires_at is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[default]\n", ["'default'", "type missing", "access_key, sts"]),
        (f"[default]\ntype =\naccess_key_secret = {MARK}\n", ["type missing"]),
        (f"[default]\ntype = {MARK}\n", ["type unknown"]),
        ("[default]\ntype = access_key\n", ["access_key_id, access_key_secret missing"]),
        (PLAIN.replace("= a\n", "=\n"), ["access_key_id missing"]),
        (PLAIN.replace(MARK, "# none"), ["access_key_secret missing"]),
        (PLAIN.replace("access_key\n", "sts\n"), ["security_token missing"]),
        (PLAIN.replace(MARK, f"{MARK}é"), ["access_key_secret: a secret is printable ASCII"]),
        (PLAIN.replace(MARK, f"{MARK}\n  {MARK}"), ["access_key_secret"]),
        (PLAIN.replace("= a\n", f"= a,{MARK}\n"), ["access_key_id"]),
        ("[default]\n" + STS.replace("-t", "\x7f"), ["security_token"]),
        (PLAIN + PLAIN, ["line 5 repeats"]),
        (PLAIN + f"access_key_secret = {MARK}2\n", ["line 5 repeats"]),
        (PLAIN + f"{MARK}\n", ["line 5 is neither"]),
        (PLAIN + f"[other]\n{MARK}\n", ["line 6 is neither"]),
        (f"access_key_secret = {MARK}\n" + PLAIN, ["line 1 stands before"]),
        (PLAIN.encode("utf-16"), ["not UTF-8"]),
        (PLAIN.encode() + b"# \xff", ["not UTF-8"]),
        (PLAIN + "#" * (1 << 20), ["more than 1048576 bytes"]),
        # A section of defaults lends no part to another key.
        (f"[DEFAULT]\nsecurity_token = {MARK}\n" + PLAIN.replace("access_key\n", "sts\n"), ["token missing"]),
        *(
            (f"[default]\ntype = {kind}\naccess_key_secret = {MARK}\n", [kind, "VendorCredentials"])
            for kind in ("ecs_ram_role", "ram_role_arn", "oidc_role_arn", "rsa_key_pair", "bearer")
        ),
    ],
    ids=short,
)
def test_file_that_cannot_be_used(tmp_path, content, told):
    path = written(tmp_path, content)
    error = refusal(CredentialsFile(path, environment={}))
    for text in [f"the credentials file {path}", *told]:
        assert text in str(error)


@given(content=st.binary(max_size=80), head=st.sampled_from([b"", b"[default]\n", PLAIN.encode()]))
@PROPERTY
def test_any_file_is_a_credential_or_none_or_refused(tmp_path_factory, content, head):
    path = written(tmp_path_factory.mktemp("file"), head + content)
    provider = CredentialsFile(path, environment={})
    try:
        found = provider()
    except CredentialError:
        refusal(provider)
    else:
        assert found is None or isinstance(found, AccessKey)


def profile(name: str, key_id: str) -> str:
    return f"[{name}]\ntype = access_key\naccess_key_id = {key_id}\naccess_key_secret = {MARK}\n"


@pytest.mark.parametrize(
    ("arguments", "variables", "expected"),
    [
        ({}, {}, "home"),
        ({"path": "given"}, {"ALIBABA_CLOUD_CREDENTIALS_FILE": "named"}, "given"),
        ({}, {"ALIBABA_CLOUD_CREDENTIALS_FILE": "named"}, "named"),
        ({}, {"ALIBABA_CLOUD_CREDENTIALS_FILE": ""}, "home"),
        ({"profile": "one"}, {"ALIBABA_CLOUD_PROFILE": "two"}, "home-one"),
        ({}, {"ALIBABA_CLOUD_PROFILE": "two"}, "home-two"),
        ({}, {"ALIBABA_CLOUD_PROFILE": ""}, "home"),
        ({"profile": "default"}, {"ALIBABA_CLOUD_PROFILE": "two"}, "home"),
        ({"path": "given", "profile": "one"}, {}, "given-one"),
    ],
)
def test_which_file_and_which_profile(tmp_path, monkeypatch, arguments, variables, expected):
    monkeypatch.chdir(tmp_path)
    for name, key_id in (("home/.alibabacloud/credentials", "home"), ("given", "given"), ("named", "named")):
        content = (
            profile("default", key_id) + profile("one", f"{key_id}-one") + profile("two", f"{key_id}-two")
        )
        written(tmp_path, content, name)
    found = CredentialsFile(**arguments, environment={"HOME": str(tmp_path / "home"), **variables})()
    assert parts(found) == (expected, MARK, None)


def test_both_names_of_the_file(tmp_path):
    provider = CredentialsFile(environment={"HOME": str(tmp_path)})
    assert provider() is None
    written(tmp_path, profile("default", "ini"), ".alibabacloud/credentials.ini")
    assert parts(provider()) == ("ini", MARK, None)
    first = written(tmp_path, profile("default", "first"), ".alibabacloud/credentials")
    assert parts(provider()) == ("first", MARK, None)
    first.write_text("[other]\n")
    assert provider() is None, "the second file lends nothing to the first"


def test_the_process_environment_is_the_default(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIBABA_CLOUD_CREDENTIALS_FILE", str(written(tmp_path, profile("default", "a"))))
    monkeypatch.delenv("ALIBABA_CLOUD_PROFILE", raising=False)
    assert parts(CredentialsFile()()) == AS_PLAIN


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    written(tmp_path, PLAIN)
    assert parts(CredentialsFile("~/file", environment={})()) == AS_PLAIN
    assert CredentialsFile(environment={})() is None
    written(tmp_path, PLAIN, ".alibabacloud/credentials")
    assert parts(CredentialsFile(environment={})()) == AS_PLAIN


@pytest.mark.parametrize("arguments", [{}, {"profile": "prod"}])
def test_a_file_that_is_not_there_is_no_credential(tmp_path, arguments):
    a_file = written(tmp_path, PLAIN)
    for path in (tmp_path / "missing", tmp_path / "missing" / "file", a_file / "below"):
        assert CredentialsFile(path, environment={}, **arguments)() is None
        assert CredentialsFile(environment={"HOME": str(path)}, **arguments)() is None
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    assert CredentialsFile(tmp_path / "link", environment={}, **arguments)() is None


def test_an_empty_variable_chooses_no_profile(tmp_path):
    path = written(tmp_path, profile("other", "a"))
    assert CredentialsFile(path, environment={"ALIBABA_CLOUD_PROFILE": ""})() is None


def test_a_profile_that_was_chosen_has_to_be_there(tmp_path):
    path = written(tmp_path, PLAIN + profile("off", "b") + "enable = false\n")
    for name, state in (("prod", "does not have"), ("off", "has switched off"), ("Default", "does not have")):
        for provider in (
            CredentialsFile(path, name, environment={}),
            CredentialsFile(path, environment={"ALIBABA_CLOUD_PROFILE": name}),
        ):
            message = str(refusal(provider))
            assert f"{path} {state} the profile {name!r}" in message
            assert "ALIBABA_CLOUD_PROFILE" in message


def test_a_file_that_cannot_be_read(tmp_path):
    error = refusal(CredentialsFile(tmp_path, environment={}))
    assert f"the credentials file {tmp_path} cannot be read: " in str(error)
    assert isinstance(error.__cause__, IsADirectoryError)
    assert error.__cause__.__traceback__ is None


def test_a_file_is_read_at_each_call(tmp_path):
    path = written(tmp_path, PLAIN)
    provider = CredentialsFile(path, environment={})
    assert parts(provider()) == AS_PLAIN
    path.write_text(profile("default", "rotated"))
    assert parts(provider()) == ("rotated", MARK, None)


# --- a process


def python(code: str, *arguments: str) -> list[str]:
    """A command that runs Python code; quick to start."""
    return [sys.executable, "-I", "-S", "-c", code, *arguments]


def writing(output: str | bytes, end: str = "") -> list[str]:
    content = output.encode() if isinstance(output, str) else output
    return python(f"import os, signal, sys; os.write(1, {content!r}); {end}")


def answer(**changes: Any) -> str:
    values = {"mode": "AK", "access_key_id": "a", "access_key_secret": MARK, **changes}
    return json.dumps({name: value for name, value in values.items() if value is not ...})


@pytest.mark.parametrize(
    ("output", "expected", "expires_at"),
    [
        (answer(), AS_PLAIN, None),
        (answer(mode=...), AS_PLAIN, None),
        (answer(mode=None, sts_token="", expiration=""), AS_PLAIN, None),
        (answer(mode=..., sts_token="t"), ("a", MARK, "t"), None),
        (answer(sts_token=None, further={"x": 1}), AS_PLAIN, None),
        (answer(mode="StsToken", sts_token="t"), ("a", MARK, "t"), None),
        (answer(expiration="2026-03-06T12:00:00Z"), AS_PLAIN, 1772798400.0),
        (answer(expiration="1970-01-01T00:00:01.999Z"), AS_PLAIN, 1.0),
        (b"\xef\xbb\xbf\r\n" + answer().encode() + b"\r\n", AS_PLAIN, None),
        (answer().encode("utf-16"), AS_PLAIN, None),  # as PowerShell writes
    ],
    ids=short,
)
def test_process(output, expected, expires_at):
    found = CredentialProcess(writing(output))()
    assert parts(found) == expected
    assert found.expires_at == expires_at


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("", "JSON"),
        (MARK, "JSON"),
        (answer() + MARK, "JSON"),
        (answer() * 2, "JSON"),
        (answer().encode() + b"\xff", "JSON"),
        ("[" * 100_000, "JSON"),
        (json.dumps([MARK]), "no object"),
        (json.dumps(MARK), "no object"),
        ("{}", "access_key_id, access_key_secret missing"),
        (answer(access_key_id=...), "access_key_id missing"),
        (answer(access_key_secret=""), "access_key_secret missing"),
        (answer(access_key_secret=[MARK]), "access_key_secret: a secret is a str, not list"),
        (answer(access_key_id=7), "access_key_id: "),
        (answer(access_key_secret=MARK + "\n"), "access_key_secret: "),
        (answer(mode="StsToken"), "sts_token missing"),
        (answer(sts_token=7), "sts_token: "),
        (answer(mode="RamRoleArn"), "mode is neither AK nor StsToken"),
        (answer(mode=MARK), "mode is neither"),
        (answer(mode=[MARK]), "mode is neither"),
        *(
            (answer(expiration=expiration), "expiration is no time in UTC")
            for expiration in (
                MARK,
                1772798400,
                ["2026-03-06T12:00:00Z"],
                "2026-03-06T12:00:00",
                "2026-03-06T12:00:00+08:00",
                "2026-03-06 12:00:00Z",
                "2026-02-30T12:00:00Z",
                "2026-03-06T12:00:60Z",
                "2026-03-06T12:00:00Z ",
                "2026-03-06T12:00:00.Z",
                "٢٠٢٦-03-06T12:00:00Z",
                "0000-01-01T00:00:00Z",
            )
        ),
    ],
    ids=short,
)
def test_process_that_writes_something_else(output, told):
    error = refusal(CredentialProcess(writing(output)))
    assert f"the credential process {sys.executable!r}" in str(error)
    assert told in str(error)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (writing(answer(), "sys.exit(3)"), "exit code 3"),
        pytest.param(writing(answer(), "os.kill(os.getpid(), signal.SIGTERM)"), "signal 15", marks=POSIX),
        (python(f"raise SystemExit({MARK!r})"), "exit code 1"),
    ],
)
def test_process_that_fails(capfd, command, told):
    assert told in str(refusal(CredentialProcess(command)))


def test_process_speaks_through_our_standard_error_alone(capfd):
    refusal(CredentialProcess(writing(answer(), "os.write(2, b'the vault is locked'); sys.exit(1)")))
    assert capfd.readouterr() == ("", "the vault is locked")


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (["/nowhere/prog", MARK], FileNotFoundError),
        ([os.path.dirname(__file__), MARK], PermissionError),
    ],
)
def test_process_that_cannot_be_started(command, kind):
    error = refusal(CredentialProcess(command))
    assert f"{command[0]!r} could not be started: " in str(error)
    assert isinstance(error.__cause__, kind)


@pytest.fixture
def typed():
    """Something is waiting on our standard input."""
    kept, (reader, writer) = os.dup(0), os.pipe()
    os.dup2(reader, 0)
    os.write(writer, b"typed")
    os.close(writer)
    os.close(reader)
    yield
    os.dup2(kept, 0)
    os.close(kept)


@pytest.mark.usefixtures("typed")
def test_process_gets_its_arguments_and_no_shell_and_no_input():
    code = (
        "import json, sys; "
        "print(json.dumps({'access_key_id': 'a', 'access_key_secret': 's', "
        "'sts_token': '|'.join([sys.stdin.read(), *sys.argv[1:]])}))"
    )
    arguments = ["a b", "$HOME", "; exit 3", "*", "'quoted'"]
    for command in (python(code, *arguments), tuple(python(code, *arguments))):
        assert parts(CredentialProcess(command)()) == ("a", "s", "|a b|$HOME|; exit 3|*|'quoted'")
    line = shlex.join(python(code, *arguments))
    assert CredentialProcess(line).command == tuple(python(code, *arguments))
    assert parts(CredentialProcess(line)()) == ("a", "s", "|a b|$HOME|; exit 3|*|'quoted'")


def test_process_that_takes_too_long():
    # It can be over before Python has started: only that it ends is of interest here.
    error = refusal(
        CredentialProcess(python("input_never_comes = open(0).read(); import signal; signal.pause()"), 0.05)
    )
    assert "took longer than 0.05 seconds, and was killed" in str(error)


class Hanging:
    """A process and its child that never end while the test runs, and a FIFO open as long as either lives."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.alive, self.leash = folder / "alive", folder / "leash"
        os.mkfifo(self.alive)
        os.mkfifo(self.leash)
        # Their reads end when this is closed: whatever the test finds, it leaves no process behind either.
        self.held = os.open(self.leash, os.O_RDWR)
        self.reader = os.open(self.alive, os.O_RDONLY | os.O_NONBLOCK)
        self.started: list[subprocess.Popen[bytes]] = []
        self.then: Callable[[], None] = lambda: None
        communicate = subprocess.Popen.communicate

        def when_both_run(process: Any, timeout: float) -> Any:
            self.started.append(process)
            seen = b""
            while len(seen) < 2:
                seen += self.read()
            self.then()
            return communicate(process, timeout=0.01)

        monkeypatch.setattr(subprocess.Popen, "communicate", when_both_run)

    def command(self, *, leaves: bool = False) -> list[str]:
        """Both write a byte, keep the FIFO and the standard output, and wait; or the child waits alone."""
        child = (
            "import os, sys; os.write(os.open(sys.argv[1], os.O_WRONLY), b'.'); "
            "os.read(os.open(sys.argv[2], os.O_RDONLY), 1)"
        )
        parent = (
            "import os, subprocess, sys; alive = os.open(sys.argv[1], os.O_WRONLY); "
            f"subprocess.Popen([sys.executable, '-I', '-S', '-c', {child!r}, *sys.argv[1:]]); "
            f"os.write(1, {MARK.encode()!r}); os.write(alive, b'.'); "
            f"{'os._exit(0)' if leaves else 'os.read(os.open(sys.argv[2], os.O_RDONLY), 1)'}"
        )
        return python(parent, str(self.alive), str(self.leash))

    def read(self) -> bytes:
        while True:
            assert select.select([self.reader], [], [], PATIENCE)[0], "a process still holds the FIFO open"
            # The end that made it readable, the parent's, may be none any more: its child has just opened it.
            with contextlib.suppress(BlockingIOError):
                return os.read(self.reader, 2)

    def assert_over(self) -> None:
        assert self.read() == b"", "the end: nobody has it open"
        with pytest.raises(ChildProcessError):
            os.waitpid(self.started[0].pid, 0)


@pytest.fixture
def hanging(tmp_path, monkeypatch):
    made = Hanging(tmp_path, monkeypatch)
    yield made
    os.close(made.held)
    os.close(made.reader)


@POSIX
@pytest.mark.parametrize("leaves", [False, True], ids=["hangs", "leaves a child that hangs"])
def test_process_leaves_nothing_behind_when_its_time_is_over(hanging, leaves):
    error = refusal(CredentialProcess(hanging.command(leaves=leaves)))
    assert "took longer than 60 seconds, and was killed" in str(error)
    hanging.assert_over()


@POSIX
def test_process_leaves_nothing_behind_when_we_are_interrupted(hanging):
    def interrupted() -> None:
        raise KeyboardInterrupt

    hanging.then = interrupted
    with pytest.raises(KeyboardInterrupt):
        CredentialProcess(hanging.command())()
    hanging.assert_over()


@POSIX
def test_process_that_became_another_users_is_not_waited_for(hanging, monkeypatch):
    """A `sudo` that hangs may not be killed by us; its standard output is closed, and we go on."""

    def refused(*args: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", refused)
        patch.setattr(subprocess.Popen, "kill", refused)
        error = refusal(CredentialProcess(hanging.command()))
    assert "could not be killed" in str(error)
    process = hanging.started[0]
    assert process.stdout is not None
    assert process.stdout.closed
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    hanging.assert_over()


# --- the vendor's package


def model(**values: Any) -> Any:
    given = {"access_key_id": "a", "access_key_secret": MARK, "security_token": None, "bearer_token": None}
    return SimpleNamespace(**{**given, **values})


def client(answer: Callable[[], Any]) -> Any:
    return SimpleNamespace(get_credential=answer)


def test_vendor_keeps_the_parts_together_and_is_asked_again():
    times, models = (
        iter([1000.0, 2000.0]),
        iter([model(security_token=f"{MARK}-1"), model(access_key_id="b")]),
    )
    vendor = VendorCredentials(client(lambda: next(models)), refresh_every=100, clock=lambda: next(times))
    first, second = vendor(), vendor()
    assert (parts(first), first.expires_at) == (("a", MARK, f"{MARK}-1"), 1100.0)
    # Without a token it may be temporary all the same (rsa_key_pair).
    assert (parts(second), second.expires_at) == (("b", MARK, None), 2100.0)


def test_vendor_is_asked_again_after_three_minutes_by_the_wall_clock(monkeypatch):
    found = VendorCredentials(client(model), clock=lambda: 1000.0)()
    assert found.expires_at == 1180.0
    assert inspect.signature(VendorCredentials).parameters["clock"].default is __import__("time").time


@pytest.mark.parametrize(
    ("answered", "told"),
    [
        (model(access_key_id=None), "access_key_id missing"),
        (model(access_key_secret=""), "access_key_secret missing"),
        (model(access_key_secret=f"{MARK}\n"), "access_key_secret: "),
        (model(security_token=f"{MARK} "), "security_token: "),
        (model(security_token=7), "security_token: "),
        (model(access_key_id=None, access_key_secret=None, bearer_token=MARK), "bearer token"),
        (model(access_key_id=None, access_key_secret=None), "access_key_id, access_key_secret missing"),
        (None, "access_key_id, access_key_secret missing"),
    ],
)
def test_vendor_that_has_no_access_key(answered, told):
    error = refusal(VendorCredentials(client(lambda: answered)))
    assert "the package alibabacloud-credentials" in str(error)
    assert told in str(error)


def test_vendor_that_fails():
    class CredentialException(Exception):
        """As the vendor's."""

    failure = CredentialException("no role")

    def fails() -> Any:
        raise failure

    error = refusal(VendorCredentials(client(fails)))
    assert "has no credential; the cause tells why" in str(error)
    assert error.__cause__ is failure
    assert "no role" not in str(error), "the vendor's words may quote an answer"
    assert "CredentialException: no role" in "".join(traceback.format_exception(error))


def test_vendor_that_is_not_installed(monkeypatch):
    # Both: where it is installed, another test may have imported it.
    for name in ("alibabacloud_credentials", "alibabacloud_credentials.client"):
        monkeypatch.setitem(sys.modules, name, None)
    vendor = VendorCredentials()  # only who asks for a credential needs it
    error = refusal(vendor)
    assert "pip install alibabacloud-credentials" in str(error)
    assert isinstance(error.__cause__, ImportError)


def test_vendor_without_a_client_makes_one(monkeypatch):
    made: list[object] = []

    class Client:
        def __init__(self) -> None:
            made.append(self)

        def get_credential(self) -> Any:
            return model(access_key_id=f"a{len(made)}")

    package, module = ModuleType("alibabacloud_credentials"), ModuleType("alibabacloud_credentials.client")
    module.Client = Client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    vendor = VendorCredentials()
    assert made == []
    assert [parts(vendor()), parts(vendor())] == [("a1", MARK, None)] * 2


@VENDOR
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"type": "access_key"}, AS_PLAIN),
        ({"type": "sts", "security_token": f"{MARK}-t"}, ("a", MARK, f"{MARK}-t")),
        ({"type": "bearer", "bearer_token": MARK}, None),
    ],
)
def test_the_vendors_own_package(settings, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, on import
        from alibabacloud_credentials.client import Client
        from alibabacloud_credentials.models import Config
    keys = {} if settings["type"] == "bearer" else {"access_key_id": "a", "access_key_secret": MARK}
    vendor = VendorCredentials(Client(Config(**keys, **settings)), clock=lambda: 1000.0)
    if expected is None:
        assert "bearer token" in str(refusal(vendor))
    else:
        found = vendor()
        assert (parts(found), found.expires_at) == (expected, 1180.0)


@VENDOR
@POSIX
def test_the_vendors_own_process_and_ours_agree():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from alibabacloud_credentials.provider.external import ExternalCredentialsProvider
    for output in (
        answer(),
        answer(mode="StsToken", sts_token="t", expiration="2126-03-06T12:00:00Z"),
        answer(mode=..., sts_token="t", expiration=""),
    ):
        theirs = ExternalCredentialsProvider(process_command=shlex.join(writing(output))).get_credentials()
        ours = CredentialProcess(writing(output))()
        assert parts(ours) == (
            theirs.get_access_key_id(),
            theirs.get_access_key_secret(),
            theirs.get_security_token(),
        )
        assert (ours.expires_at or 0) == theirs.get_expiration()


@VENDOR
@pytest.mark.parametrize("change", [lambda text: text, lambda text: text.replace("\n", " # x\n")])
def test_the_vendors_own_file_reader_and_ours_agree(tmp_path, change):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from alibabacloud_credentials.provider.profile import ProfileCredentialsProvider
    path = written(tmp_path, change(PLAIN))
    theirs = ProfileCredentialsProvider(profile_file=str(path), profile_name="default").get_credentials()
    ours = CredentialsFile(path, "default", environment={})()
    assert parts(ours) == (theirs.get_access_key_id(), theirs.get_access_key_secret(), None)


# --- chains


class Asked:
    """A provider that counts."""

    def __init__(self, found: Any) -> None:
        self.found, self.times = found, 0

    def __call__(self) -> Any:
        self.times += 1
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


class AskedAsync(Asked):
    """The same, to be awaited; it lets others run."""

    async def __call__(self) -> Any:  # type: ignore[override]
        if "trio" in sys.modules and trio.lowlevel.in_trio_task():
            await trio.lowlevel.checkpoint()
        else:
            await asyncio.sleep(0)
        return super().__call__()


def run_plain(chain: Any) -> Any:
    assert not is_async(chain)
    return chain()


def run_asyncio(chain: Any) -> Any:
    assert is_async(chain)
    return asyncio.run(chain())


def run_trio(chain: Any) -> Any:
    assert is_async(chain)
    return trio.run(chain)


def is_async(provider: Any) -> bool:
    """How the client tells, word for word."""
    return inspect.iscoroutinefunction(provider) or inspect.iscoroutinefunction(
        getattr(provider, "__call__", None)  # noqa: B004
    )


MIXTURES = [
    pytest.param(run_plain, (Asked, Asked, Asked), id="plain"),
    *(
        pytest.param(run, kinds, id=f"{run.__name__[4:]}-{''.join('pa'[k is AskedAsync] for k in kinds)}")
        for run in (run_asyncio, run_trio)
        for kinds in (
            (AskedAsync, AskedAsync, AskedAsync),
            (AskedAsync, Asked, Asked),
            (Asked, AskedAsync, Asked),
            (Asked, Asked, AskedAsync),
        )
    ),
]
FAILURE = CredentialError("half a key")


@pytest.mark.parametrize(("run", "kinds"), MIXTURES)
@pytest.mark.parametrize(
    ("found", "expected", "asked"),
    [
        ((KEY, OTHER, OTHER), KEY, (1, 0, 0)),
        ((None, KEY, OTHER), KEY, (1, 1, 0)),
        ((None, None, KEY), KEY, (1, 1, 1)),
        ((None, None, None), None, (1, 1, 1)),
        # A source that is set up and broken is not passed over: the next one is another identity.
        ((FAILURE, KEY, KEY), FAILURE, (1, 0, 0)),
        ((None, FAILURE, KEY), FAILURE, (1, 1, 0)),
        ((KEY, FAILURE, FAILURE), KEY, (1, 0, 0)),
    ],
)
def test_the_first_that_has_one(run, kinds, found, expected, asked):
    providers = [kind(each) for kind, each in zip(kinds, found, strict=True)]
    chain = CredentialChain(*providers)
    if isinstance(expected, Exception):
        with pytest.raises(CredentialError) as caught:
            run(chain)
        assert caught.value is expected
    else:
        assert run(chain) is expected
    assert tuple(provider.times for provider in providers) == asked


def test_a_chain_keeps_nothing():
    first, second = Asked(None), Asked(KEY)
    chain = CredentialChain(first, second)
    assert chain() is KEY
    first.found = OTHER
    assert chain() is OTHER
    assert (first.times, second.times) == (2, 1)


def test_a_chain_mixes_no_sources(tmp_path):
    """Half a key here and the other half there are no key."""
    path = written(tmp_path, profile("default", "b"))
    chain = CredentialChain(EnvironmentCredentials({OURS + ID: "a"}), CredentialsFile(path, environment={}))
    refusal(chain)
    chain = CredentialChain(EnvironmentCredentials({}), CredentialsFile(path, environment={}))
    assert parts(chain()) == ("b", MARK, None)


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        (nobody, False),
        (lambda: None, False),
        (functools.partial(int), False),
        (Asked(None), False),
        (EnvironmentCredentials({}), False),
        (VendorCredentials(), False),
        (CredentialChain(nobody), False),
        (awaited, True),
        (functools.partial(awaited, None), True),
        (AskedAsync(None), True),
        (AskedAsync(None).__call__, True),
        (CredentialChain(AskedAsync(None)), True),
        (CredentialChain(CredentialChain(nobody, AskedAsync(None))), True),
    ],
)
def test_a_chain_is_async_where_a_member_is(provider, expected):
    assert is_async(provider) is expected
    chain = CredentialChain(nobody, provider)
    assert is_async(chain) is expected
    assert isinstance(chain, CredentialChain)


def test_trio_is_not_imported_to_find_out_whether_it_runs(monkeypatch):
    monkeypatch.delitem(sys.modules, "trio")
    assert run_asyncio(CredentialChain(AskedAsync(None), Asked(KEY))) is KEY
    assert "trio" not in sys.modules


def test_a_plain_member_holds_no_loop_up():
    """It waits for what only the loop can do meanwhile."""
    called = threading.Event()

    def waits() -> Any:
        return KEY if called.wait(PATIENCE) else None

    chain = CredentialChain(AskedAsync(None), waits)

    async def under_asyncio() -> Any:
        asking = asyncio.create_task(chain())
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(called.set)
        return await asking

    async def under_trio() -> Any:
        found: list[Any] = []

        async def ask() -> None:
            found.append(await chain())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            called.set()
        return found[0]

    assert asyncio.run(under_asyncio()) is KEY
    called.clear()
    assert trio.run(under_trio) is KEY


def test_a_cancelled_caller_does_not_wait_for_a_plain_member():
    entered, cancelled, left = threading.Event(), threading.Event(), threading.Event()
    in_time: list[bool] = []

    def waits() -> None:
        entered.set()
        in_time.append(cancelled.wait(PATIENCE))
        left.set()

    chain = CredentialChain(AskedAsync(None), waits)

    async def under_asyncio() -> None:
        asking = asyncio.create_task(chain())
        assert await asyncio.to_thread(entered.wait, PATIENCE)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        cancelled.set()

    async def under_trio() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chain)
            assert await trio.to_thread.run_sync(entered.wait, PATIENCE)
            nursery.cancel_scope.cancel()
        cancelled.set()

    asyncio.run(under_asyncio())
    assert left.wait(PATIENCE)
    for event in (entered, cancelled, left):
        event.clear()
    trio.run(under_trio)
    assert left.wait(PATIENCE)
    assert in_time == [True, True]


def test_a_plain_member_sees_the_request_at_hand_in_its_thread():
    def here() -> Any:
        return (threading.get_ident(), current_request_credential())

    async def main() -> Any:
        with request_credentials(TRIPLE):
            return await CredentialChain(AskedAsync(None), here)()

    for run in (asyncio.run, lambda coroutine: trio.run(lambda: coroutine)):
        thread, found = run(main())
        assert parts(found) == AS_TRIPLE
        assert thread != threading.get_ident()


def test_importing_it_loads_nothing_that_it_may_never_need():
    code = "import sys, agentrun_transports.credentials; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(done.stdout.split())
    assert "agentrun_transports.credentials" in loaded
    assert {
        "asyncio", "trio", "subprocess", "configparser", "shlex", "alibabacloud_credentials", "ssl",
    }.isdisjoint(loaded)  # fmt: skip


# --- the request at hand

NAMES = ("x-fc-access-key-id", "x-fc-access-key-secret", "x-fc-security-token")
AS_TRIPLE = ("fc", f"{MARK}-s", f"{MARK}-t")
TRIPLE = dict(zip(NAMES, AS_TRIPLE, strict=True))


def without(name: str) -> dict[str, str]:
    return {each: value for each, value in TRIPLE.items() if each != name}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (TRIPLE, AS_TRIPLE),
        ({name.upper(): value for name, value in TRIPLE.items()}, AS_TRIPLE),
        ({name.title(): value for name, value in TRIPLE.items()}, AS_TRIPLE),
        ({**TRIPLE, "host": "x", "x-fc-account-id": "7"}, AS_TRIPLE),
        ({**TRIPLE, NAMES[0].upper(): "fc"}, AS_TRIPLE),
        (MappingProxyType(TRIPLE), AS_TRIPLE),
        (WerkzeugHeaders(TRIPLE), AS_TRIPLE),
        ({}, None),
        *((without(name), None) for name in NAMES),
        *(({**TRIPLE, name: ""}, None) for name in NAMES),
        # A WSGI environ is no mapping of headers.
        ({f"HTTP_{name.upper().replace('-', '_')}": value for name, value in TRIPLE.items()}, None),
    ],
)
def test_headers(headers, expected):
    found = credential_from_headers(headers)
    assert parts(found) == expected
    assert found is None or found.expires_at is None
    with request_credentials(headers):
        assert parts(current_request_credential()) == expected


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({**TRIPLE, NAMES[0]: f"a/{MARK}"}, NAMES[0]),
        ({**TRIPLE, NAMES[1]: f"{MARK}\n"}, NAMES[1]),
        ({**TRIPLE, NAMES[2]: f"{MARK}é"}, NAMES[2]),
        ({**TRIPLE, NAMES[1].upper(): f"{MARK}-other"}, f"{NAMES[1]} is there twice"),
        (WerkzeugHeaders([*TRIPLE.items(), (NAMES[2], f"{MARK}-other")]), f"{NAMES[2]} is there twice"),
    ],
)
def test_headers_that_cannot_be_used(headers, told):
    def enter() -> None:
        with request_credentials(headers):
            raise AssertionError("entered")

    for use in (credential_from_headers, lambda headers: enter()):
        with pytest.raises(CredentialError) as caught:
            use(headers)
        assert told in str(caught.value)
        assert MARK not in "".join(traceback.format_exception(caught.value))
        assert MARK not in repr(pickle.dumps(caught.value))
        assert caught.value.__context__ is None
    assert current_request_credential() is None


@pytest.mark.parametrize(
    "headers",
    [None, list(TRIPLE.items()), "x", {b"x-fc-access-key-id": b"a"}, {**TRIPLE, NAMES[1]: MARK.encode()}],
)
def test_headers_of_another_kind(headers):
    with pytest.raises(TypeError) as caught:
        credential_from_headers(headers)
    assert MARK not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(TypeError), request_credentials(headers):
        pass
    assert current_request_credential() is None


def named(name: str) -> dict[str, str]:
    return {**TRIPLE, NAMES[0]: name}


def current() -> str | None:
    found = current_request_credential()
    return None if found is None else found.access_key_id


def test_it_nests_and_is_restored():
    assert current() is None
    with request_credentials(named("outer")):
        with request_credentials(named("inner")):
            assert current() == "inner"
        assert current() == "outer"
        with request_credentials({}):
            assert current() is None, "another request's credential is not this one's"
        assert current() == "outer"
        with pytest.raises(KeyError), request_credentials(named("failing")):
            raise KeyError
        assert current() == "outer"
    assert current() is None


def test_each_task_has_its_own_and_hands_it_down():
    async def request(name: str, meet: Any, started: Callable[..., Any]) -> list[str | None]:
        with request_credentials(named(name)):
            await meet()
            return [current(), await started(current)]

    async def under_asyncio() -> Any:
        together: list[asyncio.Event] = [asyncio.Event(), asyncio.Event()]

        async def meet() -> None:
            next(event for event in together if not event.is_set()).set()
            for event in together:
                await event.wait()

        async def started(function: Callable[[], Any]) -> Any:
            async def child() -> Any:
                return function()

            return await asyncio.create_task(child())

        found = await asyncio.gather(*(request(name, meet, started) for name in "ab"))
        return [*found, current()]

    async def under_trio() -> Any:
        found: dict[str, Any] = {}

        async def meet() -> None:
            await trio.testing.wait_all_tasks_blocked()

        async def started(function: Callable[[], Any]) -> Any:
            answers: list[Any] = []

            async def child() -> None:
                answers.append(function())

            async with trio.open_nursery() as inner:
                inner.start_soon(child)
            return answers[0]

        async def one(name: str) -> None:
            found[name] = await request(name, meet, started)

        async with trio.open_nursery() as nursery:
            for name in "ab":
                nursery.start_soon(one, name)
        return [found["a"], found["b"], current()]

    for answers in (asyncio.run(under_asyncio()), trio.run(under_trio)):
        assert answers == [["a", "a"], ["b", "b"], None]


def test_a_thread_has_none():
    found: list[Any] = []
    with request_credentials(TRIPLE):
        thread = threading.Thread(target=lambda: found.append(current()), daemon=True)
        thread.start()
        thread.join(PATIENCE)
    assert found == [None]


def test_a_generator_that_is_closed_elsewhere_closes():
    """As servers do with the body of a streamed answer."""

    def body() -> Any:
        with request_credentials(TRIPLE):
            yield current()

    generator = body()
    assert contextvars.copy_context().run(next, generator) == "fc"
    contextvars.copy_context().run(generator.close)
    assert current() is None
