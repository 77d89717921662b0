"""What is in force: flags over environment variables over defaults, and the command that shows it.

Rules of this file: what can be set is a table; a flag is checked as `Config` checks its field; no secret has
a flag, since a process's arguments are everybody's to read, and none is shown.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agentrun_proto import Config, DataEndpoint, Retry
from agentrun_proto.config import DEFAULT_REGION, DEFAULT_TIMEOUT, ENVIRONMENT, environment_sources
from agentrun_proto.credentials import AccessKey

from .failures import DONE
from .screen import Screen, Span

DEFAULT_NAMESPACE = "agents"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One thing that can be set.

    ``field`` is Config's, ``flag`` the option that sets it (None: it has none), ``default`` what holds where
    nothing does (None: nothing). ``name`` is what it is called in the table (None: as the field), ``convert``
    makes a flag's text a value, and ``show`` the text again.
    """

    field: str
    name: str | None = None
    flag: str | None = None
    metavar: str = ""
    help: str = ""
    convert: Callable[[str], Any] = str
    show: Callable[[Any], str] = str
    default: str | None = None
    secret: bool = False


def _retry(text: str) -> Retry:
    """The value of ``--attempts``.

    >>> _retry("2").attempts
    2
    """
    if not re.fullmatch("[0-9]{1,9}", text) or not int(text):
        raise ValueError(
            f"how often a request is sent is a whole number; 1 is never again, 0 never; not {text!r}"
        )
    return Retry(attempts=int(text))


SETTINGS = (
    Setting(
        field="data_endpoint",
        flag="--endpoint",
        metavar="URL",
        help="where the service is (default: follows from account and region)",
    ),
    Setting(field="account_id", flag="--account-id", metavar="ID", help="the account"),
    Setting(
        field="region_id",
        flag="--region",
        metavar="NAME",
        help=f"the region (default: {DEFAULT_REGION})",
        default=DEFAULT_REGION,
    ),
    Setting(field="access_key_id"),
    Setting(field="access_key_secret", secret=True),
    Setting(field="security_token", secret=True),
    Setting(
        field="timeout",
        flag="--timeout",
        metavar="SECONDS",
        help=f"for a whole call, or for each wait of a transfer (default: {DEFAULT_TIMEOUT:g})",
        convert=float,
        show=lambda seconds: f"{seconds:g}",
        default=f"{DEFAULT_TIMEOUT:g}",
    ),
    Setting(
        field="retry",
        name="attempts",
        flag="--attempts",
        metavar="N",
        help="how often a request is sent at most, where it may be sent again; 1 is never again "
        f"(default: {Retry().attempts})",
        convert=_retry,
        show=lambda retry: str(retry.attempts),
        default=str(Retry().attempts),
    ),
)


def add_flags(parser: argparse.ArgumentParser, *, namespace: bool = True) -> None:
    """The flags of all commands that talk to the service; `namespace` for those that take a PATH."""
    group = parser.add_argument_group("where to")
    for setting in SETTINGS:
        if setting.flag is not None:
            group.add_argument(
                setting.flag,
                dest=setting.field,
                metavar=setting.metavar,
                type=_checked(setting),
                help=setting.help,
            )
    if namespace:
        group.add_argument(
            "--namespace",
            metavar="PATH",
            help=f"what PATH is relative to, such as sandboxes/sb-1 (default: {DEFAULT_NAMESPACE})",
        )


def _checked(setting: Setting) -> Callable[[str], Any]:
    """The function that makes a flag's text a value, or says as `Config` does what is wrong with it."""

    def read(text: str) -> Any:
        if not text:
            raise argparse.ArgumentTypeError("it is empty; leave the flag out, or give it a value")
        try:
            value = setting.convert(text)
            Config(**{setting.field: value})
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix(f"{setting.field}: ")) from None
        return value

    return read


def read_config(args: argparse.Namespace) -> Config:
    """The configuration in force.

    Raises:
        ValueError: an environment variable holds what its setting may not, or nothing says where to.
    """
    config = _in_force(args)
    _check_target(config)
    return config


def _in_force(args: argparse.Namespace) -> Config:
    return Config.from_env(os.environ).merge(Config(**_flagged(args)))


def _check_target(config: Config) -> None:
    if not config.data_endpoint and not config.account_id:
        raise ValueError(
            "where to? Set AGENTRUN_ACCOUNT_ID or give --account-id ID, or give --endpoint URL; "
            "without an account, try `agentrun-data demo`"
        )


def read_namespace(args: argparse.Namespace) -> str:
    """The namespace in force."""
    return DEFAULT_NAMESPACE if args.namespace is None else args.namespace


def _flagged(args: argparse.Namespace) -> dict[str, Any]:
    given = {setting.field: getattr(args, setting.field) for setting in SETTINGS if setting.flag is not None}
    return {field: value for field, value in given.items() if value is not None}


def show_config(args: argparse.Namespace, screen: Screen) -> int:
    """The command `config`. What is missing is told after the table, as an error."""
    config = _in_force(args)
    namespace = read_namespace(args)
    from_flags, from_environment = _flagged(args), environment_sources(os.environ)
    rows: list[list[Span]] = [[("SETTING", "bold"), ("VALUE", "bold"), ("FROM", "bold")]]
    for setting in SETTINGS:
        if setting.field in from_flags:
            source = f"flag {setting.flag}"
        elif setting.field in from_environment:
            source = f"environment variable {from_environment[setting.field]}"
        else:
            source = "unset" if setting.default is None else "default"
        rows.append(
            [
                (setting.name or setting.field, ""),
                _shown(setting, getattr(config, setting.field)),
                (source, "dim"),
            ]
        )
    source = "default" if args.namespace is None else "flag --namespace"
    rows.append([("namespace", ""), (namespace, "cyan"), (source, "dim")])
    screen.rows(rows)
    _check_target(config)
    endpoint = DataEndpoint(config, namespace)
    screen.line()
    screen.rows(
        [
            [("requests go to", ""), (without_password(endpoint.url("")), "cyan")],
            [("authorised by", ""), (_authorised_by(config), "cyan")],
        ]
    )
    return DONE


def _shown(setting: Setting, value: object) -> Span:
    if value is None:
        return ("-", "dim") if setting.default is None else (setting.default, "")
    if setting.secret:
        return ("***", "cyan")
    return (without_password(setting.show(value)), "cyan")


def _authorised_by(config: Config) -> str:
    credential = config.credential
    if isinstance(credential, AccessKey):
        kind = "access key" if credential.security_token is None else "temporary access key"
        return f"a signature with the {kind} {credential.access_key_id}"
    return (
        "nothing: "
        + " and ".join(" or ".join(ENVIRONMENT[field]) for field in ("access_key_id", "access_key_secret"))
        + " are not set"
    )


def without_password(url: str) -> str:
    """A URL with its user info masked.

    >>> without_password("http://user:word@127.0.0.1/a@b")
    'http://***@127.0.0.1/a@b'
    """
    return re.sub(r"//[^/?#]*@", "//***@", url)
