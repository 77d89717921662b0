"""A Config of any texts is refused with a TypeError or ValueError, or it merges associatively and erases
nothing; and in no case is a secret shown.

An input is four groups of ``name=value`` records: an environment, and three Configs to be merged.
"""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Iterable, Iterator
from typing import Any

from agentrun_proto import Config, DataEndpoint, Retry, Secret, Timeout
from agentrun_proto.config import ENVIRONMENT, FIELDS
from fuzz.inputs import GROUP, RECORD, groups, joined, only, pairs

MARK = "hunter2"  # every secret holds it
SECRETS = ("access_key_secret", "security_token", "token")

FOUND: dict[str, bytes] = {
    "a password that is no ASCII was put into URLs as it was": (
        b"AGENTRUN_DATA_ENDPOINT=http://u:hunter2\xe2\x80\xa8@h/\x1d\x1d\x1d"
    ),
    "a password with a lone surrogate escaped in an error of another class": (
        b"AGENTRUN_DATA_ENDPOINT=http://u:hunter2\x80@h/\x1d\x1d\x1d"
    ),
}


# Where a user may have put a password beside the fields that are secret.
_PASSWORD = re.compile(
    rb"(?:\A|[\x1d\x1e])[A-Z_]*(?:endpoint|origins)=https?://[^/?#@\x1d-\x1f]*@", re.IGNORECASE
)


def _shows_none(message: str) -> str:
    assert MARK not in message
    return message


def _names_one(message: str, names: Iterable[str]) -> None:
    assert any(name in message for name in names)


def _number(raw: str) -> Any:
    for kind in (int, float):
        try:
            return kind(raw)
        except ValueError:
            pass
    return raw or None


def _given(name: str, raw: str) -> Any:
    """A field's value, of its own kind where the text is of that form."""
    if name in SECRETS:
        return f"{MARK}{raw}"
    if name == "timeout":
        parts = [_number(part) for part in raw.split(",")[:5]]
        return (
            Timeout(**dict(zip(("total", "connect", "read", "write", "pool"), parts, strict=False)))
            if len(parts) > 1
            else parts[0]
        )
    if name == "retry":
        return Retry(
            **dict(
                zip(("attempts", "backoff", "max_backoff"), map(_number, raw.split(",")[:3]), strict=False)
            )
        )
    if name == "headers":
        return dict((*line.split(":", 1), "")[:2] for line in raw.split("\n"))
    if name == "trusted_origins":
        return raw.split(",")
    return raw


def _made(group: bytes) -> Config | None:
    try:
        return Config(**{name: _given(name, raw) for name, raw in pairs(group) if name in FIELDS})
    except (TypeError, ValueError) as error:
        _shows_none(only(error, TypeError, ValueError))
        return None


def _from_environment(group: bytes) -> Config | None:
    environment = {}
    for name, raw in pairs(group):
        field = next((field for field, names in ENVIRONMENT.items() if name in names), None)
        environment[name] = f"{MARK}{raw}" if field in SECRETS else raw
    try:
        return Config.from_env(environment)
    except ValueError as error:
        _names_one(_shows_none(only(error, ValueError)), environment)
        return None


def _values(config: Config) -> dict[str, Any]:
    values = {name: getattr(config, name) for name in FIELDS}
    return {
        name: value.reveal() if isinstance(value, Secret) else value
        for name, value in values.items()
        if value is not None
    }


def check(data: bytes) -> None:
    if MARK.encode() in _PASSWORD.sub(b"", data):
        return  # where everybody may see it
    environment, *others = groups(data, 4)
    made = [config for config in (_from_environment(environment), *map(_made, others)) if config is not None]
    for config in made:
        _look(config)
    if len(made) < 2:
        return
    first, second, third = (*made, made[0])[:3]
    merged = first.merge(second)
    assert (
        _values(merged.merge(third))
        == _values(first.merge(second.merge(third)))
        == _values(first.merge(second, third))
    )
    was, later, now = _values(first), _values(second), _values(merged)
    for name, value in later.items():
        assert name == "headers" or now[name] == value, "the later one wins"
    for name in was.keys() - later.keys():
        parted = name in SECRETS and later.keys() & {"access_key_id", "access_key_secret"}
        assert parted or now[name] == was[name], "what is unset erases nothing"
    for part, dependents in (("access_key_id", SECRETS[:2]), ("access_key_secret", SECRETS[1:2])):
        if part in later:
            assert all(now.get(name) == later.get(name) for name in dependents), "a key of two sources"
    assert (_values(first), _values(second)) == (was, later), "a merge changes nothing"
    _look(merged)


def _look(config: Config) -> None:
    assert MARK not in repr(config)
    assert copy.deepcopy(config) is config
    values = _values(config)
    assert _values(config.merge()) == _values(Config().merge(config, None, Config())) == values
    try:
        again = pickle.loads(pickle.dumps(config))
    except TypeError as error:
        _shows_none(only(error, TypeError))
    else:
        assert _values(again) == values
        assert not set(SECRETS) & values.keys()
    try:
        endpoint = DataEndpoint(config)
    except ValueError as error:
        _shows_none(only(error, ValueError))
        return
    for made in (endpoint.config.control_target, endpoint.config.data_target):
        try:
            made()
        except ValueError as error:
            _shows_none(only(error, ValueError))
    assert endpoint.url("x").isascii()
    request = endpoint.sign(endpoint.request("GET", "x"), 1772798400.0)
    assert MARK not in repr(request)
    assert all(value.isprintable() or "\t" in value for _, value in request.fields())


CONFIGS = (
    ("access_key_id=LTAI", "access_key_secret=1", "security_token=2", "account_id=123"),
    ("token=t", "account_id=123", "region_id=cn-beijing", "protocol=http", "version="),
    ("data_endpoint=http://user:hunter2@127.0.0.1:80/base", "headers=X-A: 1\nx-b: 2", "timeout=5"),
    ("timeout=1,2,,4,5", "retry=3,0.5,20", "trusted_origins=https://a.example,http://b:8080"),
    ("timeout=inf", "retry=0", "version=2024-01-01/", "control_endpoint=https://c"),
    ("headers=a: \u00e9\nbad name: 1", "account_id=-x", "access_key_secret=2", "timeout=nan"),
    ("access_key_id=a b", "security_token=\u00e9", "data_endpoint=http://h?x", "protocol=HTTPS"),
    ("headers=Host: h\nContent-Length: 5", "timeout=-1", "trusted_origins=http://h/x"),
)


def corpus() -> Iterator[bytes]:
    families = [
        [f"{names[rank]}=v{rank}" for names in ENVIRONMENT.values() if len(names) > rank] for rank in (0, 1)
    ]
    urls = ["AGENTRUN_DATA_ENDPOINT=http://u:hunter2@h/", "FC_REGION=cn", "AGENTRUN_ACCOUNT_ID=1"]
    for number in range(len(CONFIGS) * 3):
        environment = (*families, urls)[number % 3]
        chosen = [CONFIGS[(number + step) % len(CONFIGS)] for step in (0, 1, 3)]
        yield joined(GROUP, [joined(RECORD, part) for part in (environment, *chosen)])
