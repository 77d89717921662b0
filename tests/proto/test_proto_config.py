"""Config: what sets what, what a merge keeps, which endpoint follows, and that no secret ever shows."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun_proto import (
    AccessKey,
    AccessToken,
    Config,
    DataEndpoint,
    Headers,
    Origin,
    Retry,
    Secret,
    Timeout,
)
from agentrun_proto.config import (
    DEFAULT_TIMEOUT,
    ENVIRONMENT,
    FIELDS,
    call_timeout,
    environment_sources,
    transfer_timeout,
)
from proto_strategies import PROPERTY

SERVICE_FIELDS = {
    "access_key_id",
    "access_key_secret",
    "security_token",
    "account_id",
    "token",
    "region_id",
    "timeout",
    "data_endpoint",
    "control_endpoint",
    "headers",
    "protocol",
    "version",
}
# SERVICE: Configuration from the environment. (field, variable that wins, variable that comes second)
VARIABLES = [
    ("access_key_id", "AGENTRUN_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_ID"),
    ("access_key_secret", "AGENTRUN_ACCESS_KEY_SECRET", "ALIBABA_CLOUD_ACCESS_KEY_SECRET"),
    ("security_token", "AGENTRUN_SECURITY_TOKEN", "ALIBABA_CLOUD_SECURITY_TOKEN"),
    ("account_id", "AGENTRUN_ACCOUNT_ID", "FC_ACCOUNT_ID"),
    ("region_id", "AGENTRUN_REGION", "FC_REGION"),
    ("data_endpoint", "AGENTRUN_DATA_ENDPOINT", None),
    ("control_endpoint", "AGENTRUN_CONTROL_ENDPOINT", None),
]


def as_dict(config: Config) -> dict[str, Any]:
    values = {name: getattr(config, name) for name in FIELDS}
    return {
        name: value.reveal() if isinstance(value, Secret) else value
        for name, value in values.items()
        if value is not None
    }


# --- unset means unset


def test_the_fields_are_the_published_ones_and_all_unset():
    assert (
        {field.name for field in dataclasses.fields(Config)}
        == SERVICE_FIELDS | {"retry", "trusted_origins"}
        == set(FIELDS)
    )
    assert as_dict(Config()) == {}
    assert repr(Config()) == "Config()"
    assert Config().region == "cn-hangzhou"


def test_it_is_frozen_comparable_and_hashable():
    config = Config(account_id="1", headers={"a": "b"}, token="t")
    same = Config(account_id="1", headers={"A": "b"}, token=Secret("t"))
    assert config == same
    assert hash(config) == hash(same)
    assert config != Config(account_id="1")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.account_id = "2"
    with pytest.raises((AttributeError, TypeError)):
        config.unknown = 1
    assert dataclasses.replace(config, account_id="2") == same.merge(Config(account_id="2"))


def test_what_was_passed_in_is_not_kept():
    headers = {"x-a": "1"}
    config = Config(headers=headers)
    headers["x-a"] = "2"
    assert dict(config.headers) == {"x-a": "1"}


# --- the environment, row by row


def test_an_environment_is_read_without_its_access_key_where_that_is_wanted():
    environment = {variables[0]: f"{number}" for number, variables in enumerate(ENVIRONMENT.values(), 1)}
    environment.update(AGENTRUN_DATA_ENDPOINT="http://d", AGENTRUN_CONTROL_ENDPOINT="http://c")
    whole, rest = (Config.from_env(environment, credential=wanted) for wanted in (True, False))
    assert whole.access_key_id
    assert whole.security_token
    assert as_dict(rest).keys() == as_dict(whole).keys() - {
        "access_key_id",
        "access_key_secret",
        "security_token",
    }


@pytest.mark.parametrize(("field", "first", "second"), VARIABLES)
def test_from_env_row(field, first, second):
    def value(variable: str) -> str:
        return f"http://{variable.replace('_', '-')}" if "endpoint" in field else variable.replace("_", "-")

    for variable in filter(None, (first, second)):
        assert as_dict(Config.from_env({variable: value(variable)})) == {field: value(variable)}
        assert environment_sources({variable: "x"}) == {field: variable}
        assert as_dict(Config.from_env({variable: ""})) == {}, "an empty variable is not set"
    if second is not None:
        both = {first: value(first), second: value(second)}
        assert as_dict(Config.from_env(both)) == {field: value(first)}
        if not field.startswith(("access_key", "security")):
            assert as_dict(Config.from_env({**both, first: ""})) == {field: value(second)}


def test_the_table_holds_nothing_but_the_documented_rows():
    assert {name: tuple(variables) for name, variables in ENVIRONMENT.items()} == {
        field: tuple(filter(None, pair)) for field, *pair in VARIABLES
    }
    assert (
        as_dict(Config.from_env({"HOME": "/", "TOKEN": "x", "AGENTRUN_TOKEN": "x", "access_key_id": "x"}))
        == {}
    )


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("AGENTRUN_REGION", "cn hangzhou", "host name"),
        ("FC_ACCOUNT_ID", "1/2", "host name"),
        ("AGENTRUN_ACCESS_KEY_SECRET", "hunter2\n", "end of line"),
        ("ALIBABA_CLOUD_ACCESS_KEY_ID", "hunter2,", "commas"),
        ("AGENTRUN_DATA_ENDPOINT", "localhost:8077", "not a URL"),
        ("AGENTRUN_CONTROL_ENDPOINT", "http://h?x", "no query"),
    ],
)
def test_from_env_names_the_variable_that_is_wrong(variable, value, complaint):
    with pytest.raises(ValueError, match=f"{variable}.*{complaint}") as caught:
        Config.from_env({variable: value})
    assert "hunter2" not in str(caught.value)


# --- an access key is never mixed

AGENTRUN = {"AGENTRUN_ACCESS_KEY_ID": "id1", "AGENTRUN_ACCESS_KEY_SECRET": "s1"}
PLATFORM = {
    "ALIBABA_CLOUD_ACCESS_KEY_ID": "id2",
    "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "s2",
    "ALIBABA_CLOUD_SECURITY_TOKEN": "t2",
}


def test_inside_a_function_our_own_key_does_not_get_the_platforms_security_token():
    """The platform sets all three ALIBABA_CLOUD_*; a long-lived key beside them must stay without a token."""
    credential = Config.from_env({**PLATFORM, **AGENTRUN}).credential
    assert credential == AccessKey(access_key_id="id1", access_key_secret=Secret("s1"))


def test_half_a_key_from_one_family_is_not_filled_up_from_the_other():
    config = Config.from_env(
        {"AGENTRUN_ACCESS_KEY_ID": "id1", **{k: v for k, v in PLATFORM.items() if "ID" not in k}}
    )
    with pytest.raises(ValueError, match="access_key_secret"):
        _ = config.credential


def test_a_whole_family_is_taken():
    assert Config.from_env(PLATFORM).credential == AccessKey(
        access_key_id="id2", access_key_secret=Secret("s2"), security_token=Secret("t2")
    )


@pytest.mark.hostile("calling-mixed-keys")
def test_an_explicit_access_key_is_never_mixed_with_the_environments_token():
    explicit = Config(access_key_id="id1", access_key_secret="s1")
    assert Config.from_env(PLATFORM).merge(explicit).credential == AccessKey(
        access_key_id="id1", access_key_secret=Secret("s1")
    )


@pytest.mark.parametrize(
    ("later", "kept"),
    [
        (Config(access_key_id="id1"), {"access_key_id": "id1"}),
        (
            Config(security_token="t1"),
            {"access_key_id": "id2", "access_key_secret": "s2", "security_token": "t1"},
        ),
        (
            Config(token="t"),
            {"access_key_id": "id2", "access_key_secret": "s2", "security_token": "t2", "token": "t"},
        ),
        (
            Config(access_key_id="id1", access_key_secret="s1", security_token="t1"),
            {"access_key_id": "id1", "access_key_secret": "s1", "security_token": "t1"},
        ),
        (Config(access_key_secret="s1"), {"access_key_id": "id2", "access_key_secret": "s1"}),
    ],
)
def test_what_a_later_part_of_an_access_key_does_to_the_others(later, kept):
    assert as_dict(Config.from_env(PLATFORM).merge(later)) == kept


@pytest.mark.parametrize(
    ("config", "credential"),
    [
        (Config(), None),
        (Config(access_key_id="", access_key_secret="", token=""), None),
        (Config(token="t"), AccessToken(token=Secret("t"))),
        (
            Config(token="t", access_key_id="i", access_key_secret="s"),
            AccessToken(token=Secret("t")),
        ),
        (
            Config(access_key_id="i", access_key_secret="s"),
            AccessKey(access_key_id="i", access_key_secret=Secret("s")),
        ),
        (
            Config(access_key_id="i", access_key_secret="s", security_token=""),
            AccessKey(access_key_id="i", access_key_secret=Secret("s")),
        ),
    ],
)
def test_who_is_calling(config, credential):
    assert config.credential == credential


@pytest.mark.parametrize(
    "config",
    [
        Config(access_key_id="i"),
        Config(access_key_secret="s"),
        Config(security_token="t"),
        Config(access_key_id="i", security_token="t"),
    ],
)
def test_half_an_access_key_is_misuse(config):
    with pytest.raises(ValueError, match="both access_key_id and access_key_secret"):
        _ = config.credential
    with pytest.raises(ValueError, match="both access_key_id and access_key_secret"):
        DataEndpoint(config.merge(Config(account_id="1")))


# --- the laws of merging

secrets = st.sampled_from(["s1", "s2", "s3"])
header_dicts = st.dictionaries(
    st.sampled_from(["x-a", "X-A", "x-b", "Accept"]), st.sampled_from(["1", "2"]), max_size=3
)
configs = st.builds(
    Config,
    access_key_id=st.none() | secrets,
    access_key_secret=st.none() | secrets,
    security_token=st.none() | secrets,
    account_id=st.none() | st.sampled_from(["1", "2"]),
    token=st.none() | secrets,
    region_id=st.none() | st.sampled_from(["cn-beijing", "cn-shanghai"]),
    timeout=st.none()
    | st.sampled_from([1, 2.5, math.inf])
    | st.builds(Timeout, total=st.none() | st.floats(1, 9)),
    data_endpoint=st.none() | st.sampled_from(["http://a", "http://b"]),
    headers=st.none() | header_dicts,
    protocol=st.none() | st.sampled_from(["http", "HTTPS"]),
    version=st.none() | st.sampled_from(["", "v1"]),
    retry=st.none() | st.builds(Retry, attempts=st.integers(1, 3), backoff=st.sampled_from([0, 1.5])),
    trusted_origins=st.none() | st.lists(st.sampled_from(["http://a", "https://b:8443"]), max_size=2),
)
KEY_PARTS = ("access_key_id", "access_key_secret", "security_token")


@PROPERTY
@given(configs, configs, configs)
def test_law_merging_is_associative(a, b, c):
    assert a.merge(b).merge(c) == a.merge(b.merge(c)) == a.merge(b, c) == a.merge(b, None, c)


@PROPERTY
@given(configs)
def test_law_the_empty_config_is_neutral_and_a_merge_with_itself_changes_nothing(a):
    assert a.merge(Config()) == Config().merge(a) == a.merge() == a.merge(None) == a
    assert a.merge(a) == a


@pytest.mark.hostile("published-config-erased", "published-timeout")
@PROPERTY
@given(configs, configs)
def test_law_later_wins_and_unset_erases_nothing(a, b):
    before = as_dict(a), as_dict(b)
    merged = a.merge(b)
    for name in FIELDS:
        old, new, now = getattr(a, name), getattr(b, name), getattr(merged, name)
        if name == "headers" and old is not None and new is not None:
            names = {key.lower() for key in new}
            assert dict(now) == {**{key: old[key] for key in old if key not in names}, **new}
        elif new is not None:
            assert now == new
        elif name not in KEY_PARTS:
            assert now == old
        else:
            earlier = KEY_PARTS[: KEY_PARTS.index(name)]
            assert now == (None if any(getattr(b, part) is not None for part in earlier) else old)
    assert (as_dict(a), as_dict(b)) == before, "neither side is changed"


@pytest.mark.hostile("published-headers-stay")
def test_per_call_headers_do_not_stay():
    base = Config(headers={"x-a": "1"})
    assert base.merge(Config(headers={"X-A": "2", "x-b": "3"})).headers == Headers({"x-a": "2", "x-b": "3"})
    assert base.headers == Headers({"x-a": "1"})


@pytest.mark.hostile("published-config-erased")
def test_a_per_call_config_does_not_bring_defaults_along():
    base = Config(region_id="cn-beijing", timeout=5, protocol="http", version="v1", account_id="1")
    assert base.merge(Config(headers={})) == base.merge(Config(headers=Headers()))
    assert as_dict(base.merge(Config(token="t"))) == {**as_dict(base), "token": "t"}


# --- secrets never show

SECRETIVE = Config(
    access_key_id="the-id",
    access_key_secret="hunter2-key",
    security_token="hunter2-sts",
    token="hunter2-token",
    account_id="1",
    headers={"Authorization": "hunter2-basic", "Cookie": "hunter2-field", "x-fine": "seen"},
    data_endpoint="http://user:hunter2-password@h:8077/x",
)


def pickled(value: object) -> str:
    try:
        return repr(pickle.dumps(value))
    except TypeError as error:
        return str(error)


@pytest.mark.hostile("calling-secrets", "published-secrets")
@pytest.mark.parametrize(
    "shown",
    [
        repr,
        str,
        lambda config: f"{config} {config!r} {config!s}",
        # an endpoint is its caller's own text: its user info is hidden where we show it, and not in the field
        lambda config: repr(dataclasses.asdict(dataclasses.replace(config, data_endpoint=None))),
        lambda config: str(dataclasses.astuple(dataclasses.replace(config, data_endpoint=None))),
        lambda config: repr([getattr(config, name) for name in FIELDS if name != "data_endpoint"]),
        lambda config: repr(config.credential) + repr(dataclasses.replace(config, token="").credential),
        lambda config: f"{config.token} {config.access_key_secret!r}",
        lambda config: f"{config.token:>40} {config.token!r:>40}",
        lambda config: repr(DataEndpoint(config)) + repr(DataEndpoint(config).request("GET", "x")),
        lambda config: repr(DataEndpoint(config).sign(DataEndpoint(config).request("GET", "x"), 0)),
        lambda config: pickled(config),
        lambda config: pickled(config.headers),
        lambda config: pickled(DataEndpoint(config).sign(DataEndpoint(config).request("GET", "x"), 0)),
        lambda config: repr(config.data_target()),
    ],
    ids=[
        "repr", "str", "format", "asdict", "astuple", "fields", "credential", "percent", "spec", "request",
        "signed", "pickle", "pickled headers", "pickled request", "target",
    ],
)  # fmt: skip
def test_no_secret_shows(shown):
    text = shown(SECRETIVE)
    assert "hunter2" not in text
    assert text, "something was looked at"


def test_a_config_without_secrets_is_pickled_whole():
    config = Config(account_id="1", headers={"x-a": "1"}, timeout=Timeout(read=1), version="")
    config = config.merge(
        Config(retry=Retry(attempts=7, backoff=0.5), trusted_origins=["https://a", "http://b:1"])
    )
    assert pickle.loads(pickle.dumps(config)) == config
    with pytest.raises(TypeError, match="credentials"):
        pickle.dumps(SECRETIVE)


@pytest.mark.parametrize("name", ["data_endpoint", "control_endpoint"])
def test_a_password_in_an_endpoint_is_not_pickled(name):
    with pytest.raises(TypeError, match=f"{name} holds a password"):
        pickle.dumps(Config(**{name: "https://u:hunter2@h"}))


def test_a_copy_is_whole():
    assert copy.copy(SECRETIVE) == SECRETIVE
    assert copy.deepcopy(SECRETIVE) == SECRETIVE


@pytest.mark.parametrize(
    "shown", ["access_key_secret=Secret(***)", "'the-id'", "x-fine", "'authorization': '***'"]
)
def test_what_is_no_secret_does_show(shown):
    assert shown in repr(SECRETIVE)


@pytest.mark.hostile("calling-secrets")
@pytest.mark.parametrize(
    "broken",
    [
        lambda: Config(access_key_secret="hunter2\n"),
        lambda: Config(token=" hunter2"),
        lambda: Config(security_token="hunter2é"),
        lambda: Config(headers={"Authorization": "hunter2\n"}),
        lambda: Config(headers={"Authorization": b"hunter2"}),
        lambda: Config(access_key_secret=b"hunter2"),
        lambda: Config(data_endpoint="http://u:hunter2@h:99999"),
        lambda: Config(data_endpoint="http://u:hunter2@h\r\n"),
        lambda: Config(data_endpoint="http://u:hunter2@h/?x"),
        lambda: (
            Config(access_key_id="a", access_key_secret="hunter2", token=None, security_token="")
            .merge(Config(access_key_id="b"))
            .credential
        ),
    ],
)
def test_no_secret_shows_in_a_traceback_of_ours(broken):
    with pytest.raises((ValueError, TypeError)) as caught:
        broken()
    lines = traceback.format_exception(caught.value)
    ours = [line for line in lines if __file__ not in line]
    assert "hunter2" not in "".join(ours)


@pytest.mark.hostile("calling-secrets")
@pytest.mark.parametrize(
    "broken",
    [
        lambda: Headers({"Authorization": "hunter2\n"}),
        lambda: Headers({"Authorization": b"hunter2"}),
        lambda: Secret.of("hunter2\n"),
        lambda: Secret.of(b"hunter2"),
        lambda: AccessToken(token="hunter2\n"),
        lambda: AccessToken(token=b"hunter2"),
    ],
)
def test_no_secret_is_in_a_variable_that_a_traceback_of_ours_shows(broken):
    with pytest.raises((ValueError, TypeError)) as caught:
        broken()
    ours = [frame.locals for frame in caught.traceback if "src/agentrun_proto" in str(frame.path)]
    assert ours
    shown = [(name, value) for found in ours for name, value in found.items() if name != "self"]
    assert "hunter2" not in repr(shown)


# --- misuse, in helpful sentences


@pytest.mark.hostile("published-timeout", "published-endpoint-query")
@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"protocol": "ftp"}, "the protocol must be 'http' or 'https', not 'ftp'"),
        ({"protocol": ""}, "the protocol must be 'http' or 'https', not ''"),
        ({"account_id": "a.b"}, "account_id is part of a host name"),
        ({"account_id": "-a"}, "account_id is part of a host name"),
        ({"account_id": "a/b@evil"}, "account_id is part of a host name"),
        ({"account_id": "1\n"}, "account_id is part of a host name"),
        ({"account_id": "1" * 64}, "account_id is part of a host name"),
        ({"region_id": "cn_hangzhou"}, "region_id is part of a host name"),
        ({"region_id": "é"}, "region_id is part of a host name"),
        ({"access_key_id": "a/b"}, "access_key_id is printable ASCII"),
        ({"access_key_id": "a\r\nb"}, "access_key_id is printable ASCII"),
        ({"data_endpoint": "h"}, "data_endpoint: not a URL"),
        ({"data_endpoint": "http://h/?a=1"}, "data_endpoint: an endpoint has no query"),
        ({"data_endpoint": "http://h/#a"}, "data_endpoint: a URL that is requested has no fragment"),
        ({"control_endpoint": "ftp://h"}, "control_endpoint: the protocol must be"),
        ({"headers": {"a b": "1"}}, "not a header name"),
        ({"headers": {"a": "1\n"}}, "control character"),
        ({"timeout": 0}, "total must be above 0 seconds, not 0"),
        ({"timeout": -1.5}, "total must be above 0 seconds"),
        ({"timeout": math.nan}, "total must be above 0 seconds"),
        ({"version": "../x"}, "path_segment"),
        ({"version": "a#b"}, "write %23"),
        ({"version": "http://h"}, "not a URL"),
    ],
)
def test_values_that_cannot_be_are_refused_in_a_sentence(fields, sentence):
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
        Config(**fields)


@pytest.mark.parametrize("name", sorted(SERVICE_FIELDS))
def test_fields_of_another_type_are_refused(name):
    for value in (object(), b"x", ["x"]):
        with pytest.raises(TypeError, match=name):
            Config(**{name: value})
    with pytest.raises(TypeError):
        Config(timeout=True)
    with pytest.raises(TypeError):
        Config(timeout="5")


def test_a_missing_account_is_told_with_the_ways_to_give_it():
    for config in (Config(), Config(account_id=""), Config(data_endpoint="")):
        with pytest.raises(ValueError, match=r"account_id.*AGENTRUN_ACCOUNT_ID.*data_endpoint"):
            DataEndpoint(config)
    with pytest.raises(ValueError, match="account_id"):
        DataEndpoint()


# --- endpoints


@pytest.mark.hostile("published-ram")
@pytest.mark.parametrize(
    ("config", "base_url"),
    [
        (Config(account_id="1"), "https://1.agentrun-data.cn-hangzhou.aliyuncs.com"),
        (Config(account_id="1", protocol="HTTP"), "http://1.agentrun-data.cn-hangzhou.aliyuncs.com"),
        (Config(account_id="1", region_id="cn-beijing"), "https://1.agentrun-data.cn-beijing.aliyuncs.com"),
        (Config(account_id="1", region_id=""), "https://1.agentrun-data.cn-hangzhou.aliyuncs.com"),
        (Config(account_id="1", data_endpoint="http://h:1/b/"), "http://h:1/b"),
        (Config(data_endpoint="http://h:80"), "http://h"),
        (Config(account_id="1", token="t"), "https://1.agentrun-data.cn-hangzhou.aliyuncs.com"),
        (
            Config(account_id="1", access_key_id="i", access_key_secret="s"),
            "https://1-ram.agentrun-data.cn-hangzhou.aliyuncs.com",
        ),
        (
            Config(account_id="1", access_key_id="i", access_key_secret="s", token="t"),
            "https://1.agentrun-data.cn-hangzhou.aliyuncs.com",
        ),
        (
            Config(
                data_endpoint="https://u:p@1.agentrun-data.x:8443/b", access_key_id="i", access_key_secret="s"
            ),
            "https://u:p@1-ram.agentrun-data.x:8443/b",
        ),
        (
            Config(data_endpoint="https://1-ram.agentrun-data.x", access_key_id="i", access_key_secret="s"),
            "https://1-ram.agentrun-data.x",
        ),
        (
            Config(data_endpoint="http://127.0.0.1:8077", access_key_id="i", access_key_secret="s"),
            "http://127.0.0.1:8077",
        ),
        (
            Config(data_endpoint="http://1.FunAgent-Data-Pre.x", access_key_id="i", access_key_secret="s"),
            "http://1-ram.funagent-data-pre.x",
        ),
    ],
)
def test_the_endpoint_and_its_ram_host(config, base_url):
    assert DataEndpoint(config).base_url == base_url


@pytest.mark.hostile("published-ws")
@pytest.mark.parametrize("host", ["http.example", "my-http-proxy.example", "https", "xn--http-5qa.example"])
@pytest.mark.parametrize("protocol", ["http", "https"])
def test_a_host_may_have_the_name_of_a_protocol(protocol, host):
    at = DataEndpoint(Config(data_endpoint=f"{protocol}://{host}"))
    assert at.url("http") == f"{protocol}://{host}/2025-09-10/agents/http"
    assert dict(at.request("GET", "http").fields())["Host"] == host


@pytest.mark.parametrize(
    ("version", "namespace", "path"),
    [
        (None, "agents", "/2025-09-10/agents/x"),
        (None, "super-agents", "/2025-09-10/super-agents/x"),
        (None, "super-agents/__SUPER_AGENT__", "/2025-09-10/super-agents/__SUPER_AGENT__/x"),
        (None, "sandboxes", "/sandboxes/x"),
        (None, "/sandboxes/sb-1/", "/sandboxes/sb-1/x"),
        (None, "agent-runtimes/r/endpoints/Default", "/agent-runtimes/r/endpoints/Default/x"),
        (None, "models", "/models/x"),
        (None, "tools/t", "/tools/t/x"),
        (None, "sandboxes2", "/2025-09-10/sandboxes2/x"),
        (None, "", "/2025-09-10/x"),
        (None, "2024-01-01/agents", "/2024-01-01/agents/x"),
        (None, "2024-01-01", "/2024-01-01/x"),
        (None, "2024-01-01x", "/2025-09-10/2024-01-01x/x"),
        ("", "agents", "/agents/x"),
        ("v9", "agents", "/v9/agents/x"),
        ("/v9/", "sandboxes", "/v9/sandboxes/x"),
        ("2024-01-01", "2025-09-10/agents", "/2025-09-10/agents/x"),
    ],
)
def test_the_version_rule(version, namespace, path):
    assert DataEndpoint(Config(account_id="1", version=version), namespace).request("GET", "x").target == path


# --- timeouts


@pytest.mark.parametrize("part", ["total", "connect", "read", "write", "pool"])
def test_each_part_of_a_timeout_is_checked(part):
    for good in (0.001, 1, math.inf):
        assert getattr(Timeout(**{part: good}), part) == good
    for bad in (0, -1, -math.inf, math.nan):
        with pytest.raises(ValueError, match=rf"{part} must be above 0 seconds.*math\.inf"):
            Timeout(**{part: bad})
    for wrong in (True, "1", [1]):
        with pytest.raises(TypeError, match=f"{part} is a number of seconds"):
            Timeout(**{part: wrong})


@pytest.mark.parametrize(
    ("given", "call", "transfer"),
    [
        (None, Timeout(total=600), Timeout(total=math.inf, connect=600, read=600, write=600, pool=600)),
        (5, Timeout(total=5), Timeout(total=math.inf, connect=5, read=5, write=5, pool=5)),
        (
            Timeout(read=3),
            Timeout(total=600, read=3),
            Timeout(total=math.inf, connect=600, read=3, write=600, pool=600),
        ),
        (Timeout(total=9, read=3), Timeout(total=9, read=3), Timeout(total=9, read=3)),
    ],
)
def test_the_limits_of_a_call_and_of_a_transfer(given, call, transfer):
    assert call_timeout(given) == call
    assert transfer_timeout(given) == transfer
    assert DEFAULT_TIMEOUT == 600


# --- retries


def test_the_retries_in_force():
    assert Config().attempts == Retry() == Retry(attempts=3, backoff=1.0, max_backoff=20.0)
    assert Config(retry=Retry.never()).attempts == Retry(attempts=1)
    assert DataEndpoint(Config(account_id="1")).retry == Retry()
    at = DataEndpoint(Config(account_id="1", retry=Retry(attempts=9)))
    assert at.retry.attempts == 9
    assert at.overlaid(Config(retry=Retry.never())).retry.attempts == 1
    assert at.overlaid(Config(timeout=1)).retry.attempts == 9
    assert Config(retry=Retry(attempts=2)).merge(Config(retry=Retry(backoff=5))).retry == Retry(backoff=5), (
        "a Retry is one value: its parts are not mixed"
    )


@pytest.mark.parametrize(
    ("part", "good", "bad", "wrong"),
    [
        ("attempts", [1, 2, 10**6], [0, -1], [1.0, 2.5, True, "3", None, math.inf]),
        (
            "backoff",
            [0, 0.0, 1, 2.5, 1e9],
            [-1, -0.1, math.inf, -math.inf, math.nan, 10**400],
            [True, "1", None, [1]],
        ),
        ("max_backoff", [0, 0.0, 1, 2.5, 1e9], [-1, math.inf, math.nan, 10**400], [True, "1", None, [1]]),
    ],
)
def test_each_part_of_a_retry_is_checked(part, good, bad, wrong):
    for value in good:
        assert getattr(Retry(**{part: value}), part) == value
    for value in bad:
        with pytest.raises(ValueError, match="retry: "):
            Retry(**{part: value})
    for value in wrong:
        with pytest.raises(TypeError, match=f"retry: {part}"):
            Retry(**{part: value})


@pytest.mark.parametrize("wrong", [3, 3.0, True, "3", {"attempts": 3}, (3,), Retry])
def test_a_retry_is_a_retry(wrong):
    with pytest.raises(TypeError, match="retry is a Retry"):
        Config(retry=wrong)


def test_a_retry_is_a_frozen_value():
    assert pickle.loads(pickle.dumps(Retry(attempts=2))) == Retry(attempts=2)
    assert hash(Retry()) == hash(Retry(attempts=3))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Retry().attempts = 1
    assert "retry=Retry(attempts=1" in repr(Config(retry=Retry.never()))


# --- trusted origins


@pytest.mark.parametrize(
    ("given", "origins"),
    [
        ([], ()),
        (["https://a"], (Origin("https", "a", 443),)),
        (
            ("HTTPS://A.example/", "http://b:8077"),
            (Origin("https", "a.example", 443), Origin("http", "b", 8077)),
        ),
        ([Origin("http", "h", 80), "http://h"], (Origin("http", "h", 80), Origin("http", "h", 80))),
        ({"https://[::1]:1"}, (Origin("https", "[::1]", 1),)),
        (iter(["http://a"]), (Origin("http", "a", 80),)),
    ],
)
def test_origins_are_taken_apart(given, origins):
    config = Config(account_id="1", trusted_origins=given)
    assert config.trusted_origins == origins
    assert pickle.loads(pickle.dumps(config)) == config
    assert Config().merge(config).trusted_origins == origins
    assert DataEndpoint(config).overlaid(Config(timeout=1)).config.trusted_origins == origins
    assert config.merge(Config(trusted_origins=[])).trusted_origins == (), "set to nothing, nobody is trusted"


@pytest.mark.parametrize(
    "given",
    ["https://a/x", "https://a?x=1", "https://user:hunter2@a", "https://hunter2@a/", "a", "a:443", "ftp://a",
     "", "*", "https://*.a", "https://a#x", "//a", "https://a:0", "https://a b", "file:///"],
)  # fmt: skip
def test_what_is_no_origin_is_refused(given):
    with pytest.raises(ValueError, match="trusted_origins: ") as caught:
        Config(trusted_origins=["https://fine", given])
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("given", ["https://a", b"https://a", 5, True])
def test_what_is_no_list_of_origins_is_refused(given):
    with pytest.raises(TypeError, match="trusted_origins is a list of origins"):
        Config(trusted_origins=given)


@pytest.mark.parametrize("given", [[5], [None], [b"https://a"], [("http", "a")]])
def test_origins_of_another_type_are_refused(given):
    with pytest.raises(TypeError, match="trusted_origins"):
        Config(trusted_origins=given)
