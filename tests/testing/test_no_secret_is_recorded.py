"""No secret gets into a recording: of any kind of credential, wherever the service repeats it.

The service here repeats all that it is sent: in its content, in a field, and cut in two. So whatever a client
sends would be in the file, if it were not taken out.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun_proto import AccessKey, AccessToken, Config, Headers, IncompleteError, Resource, Retry, Secret
from agentrun_transports import BlockingClient, DataAPI, ResourceType
from agentrun_transports.credentials import request_credentials
from agentrun_transports.emulator import Emulator
from agentrun_transports.testing import CannedTransport, Player, Recorder, Reply
from agentrun_transports.testing.memory import FromMemory
from agentrun_transports.testing.redaction import Redaction, is_secret_field, shown_url
from proto_strategies import PROPERTY
from proxy_servers import HTTPProxyServer
from testing_support import clean_environment


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    clean_environment(monkeypatch)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "exchanges.json"


def mark(name):
    """A secret of its own: letters and digits, which nothing encodes."""
    return "Mk" + sha256(name.encode()).hexdigest()[:20]


def forms(secret):
    """How a text may show: as it is, in hexadecimal, and inside of Base64 at any of its three alignments."""
    raw = secret.encode()
    found = [secret, raw.hex()]
    for lead in range(3):
        text = base64.b64encode(bytes(lead) + raw).decode().rstrip("=")
        found.append(text[(0, 2, 3)[lead] : len(text) - 2])
    return found


def written(path):
    """All that is in a file, as it stands there, and what its Base64 says."""
    text = path.read_text(encoding="utf-8")
    for piece in re.findall(r'"base64": "([^"]*)"', text):
        text += base64.b64decode(piece).decode("latin-1")
    return text


def assert_absent(path, *secrets):
    text = written(path)
    for secret in secrets:
        for form in forms(secret):
            assert form not in text, f"{form!r} of {secret!r}"


class Echo(FromMemory):
    """Repeats what it is sent, in content of this kind."""

    def __init__(self, coding="identity"):
        self.coding = coding
        self.sent = []

    def reply(self, request, contents, clock):
        head = "".join(f"{name}: {value}\n" for name, value in request.fields())
        self.sent.append(head)
        sent = b"".join(contents).decode("latin-1")
        content = json.dumps({"url": request.url, "head": head, "sent": sent}).encode()
        fields = {"X-Echo": head.replace("\n", " | "), "Set-Cookie": f"session={mark('set')}; Path=/"}
        if self.coding == "gzip" and "events" not in request.url:
            return Reply(
                content=gzip.compress(content), headers={**fields, "Content-Encoding": "gzip"}
            ).replay()
        middle = [content[start : start + 7] for start in range(0, len(content), 7)]
        return Reply(
            content=[*middle, b"\xff", content[::1]] if "events" in request.url else content, headers=fields
        ).replay()


def use(client):
    """Calls of every kind."""
    client.get(f"resources?x=1&Signature={mark('query')}&OSSAccessKeyId={mark('oss-id')}")
    client.post("resources", {"apiKey": mark("member"), "nested": json.dumps({"password": mark("nested")})})
    with client.stream("GET", "events") as stream:
        list(stream)


KEY = {"access_key_id": mark("id"), "access_key_secret": mark("key")}
SENT = (mark("query"), mark("oss-id"), mark("member"), mark("nested"), mark("set"))
BASIC = base64.b64encode(f"user:{mark('basic')}".encode()).decode()


@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize(
    ("settings", "options", "secrets"),
    [
        (KEY, {}, ["id", "key"]),
        ({**KEY, "security_token": mark("sts")}, {}, ["id", "key", "sts"]),
        ({"token": mark("token")}, {}, ["token"]),
        ({"headers": {"Authorization": f"Bearer {mark('bearer')}"}}, {}, ["bearer"]),
        ({"headers": {"Authorization": f"Basic {BASIC}"}}, {}, ["basic"]),
        ({"headers": {"Proxy-Authorization": f"Basic {BASIC}"}}, {}, ["basic"]),
        ({"headers": {"Authorization": "Basic ///"}}, {}, []),
        ({"headers": {"Cookie": f"a=1; session={mark('cookie')}"}}, {}, ["cookie"]),
        ({"headers": {"X-Api-Key": mark("api")}}, {}, ["api"]),
        ({"headers": {"X-Super-Agent-Session-Id": mark("session")}}, {}, ["session"]),
        (
            {},
            {
                "credentials": lambda: AccessKey(
                    access_key_id=mark("pid"),
                    access_key_secret=Secret(mark("pkey")),
                    security_token=Secret(mark("psts")),
                )
            },
            ["pid", "pkey", "psts"],
        ),
        ({}, {"credentials": lambda: AccessToken(token=Secret(mark("ptoken")))}, ["ptoken"]),
        (
            {},
            {"auth": lambda url, headers, *rest: (url, {"X-Token": mark("hook")}, {"sig": mark("hs")})},
            ["hs", "hook"],
        ),
    ],
)
def test_credentials_of_every_kind(settings, options, secrets, coding, path):
    echo = Echo(coding)
    config = Config(data_endpoint="http://h", **settings)
    with (
        Recorder(path, transport=echo) as recorder,
        BlockingClient(config, transport=recorder, **options) as client,
    ):
        use(client)
    assert_absent(path, *map(mark, secrets), *SENT)
    for signature in re.findall("Signature=([0-9a-f]{64})", "".join(echo.sent)):
        assert_absent(path, signature)
    assert '"x=1' not in written(path)
    assert "resources?x=1&Signature=***&OSSAccessKeyId=***" in written(path)
    player = Player(path)
    use(BlockingClient(config, transport=player, **options))
    assert player.unplayed == []


def test_the_credentials_of_a_request_that_is_served(path):
    headers = {
        "x-fc-access-key-id": mark("fid"),
        "x-fc-access-key-secret": mark("fkey"),
        "x-fc-security-token": mark("fsts"),
    }
    with (
        Recorder(path, transport=Echo()) as recorder,
        BlockingClient(Config(data_endpoint="http://h"), transport=recorder) as client,
        request_credentials(headers),
    ):
        use(client)
        client.get("r", headers=headers)
    assert_absent(path, mark("fid"), mark("fkey"), mark("fsts"), *SENT)


def test_a_token_that_is_fetched(path):
    token = {"code": "SUCCESS", "data": {"accessToken": mark("fetched")}}
    canned = CannedTransport([Reply(json=token), Reply(json={"again": mark("fetched")})])
    config = Config(data_endpoint="http://h", control_endpoint="http://c", **KEY)
    options = {"access_token_for": Resource(type="runtime", name="agent")}
    with (
        Recorder(path, transport=canned) as recorder,
        BlockingClient(config, transport=recorder, **options) as client,
    ):
        client.get("r")
    assert_absent(path, mark("fetched"), mark("id"), mark("key"))
    with BlockingClient(config, transport=Player(path), **options) as client:
        assert client.get("r") == {"again": "*" * len(mark("fetched"))}


def test_a_super_agents_session(path):
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "forwardedProps": {"metadata": {"agentRuntimeName": "a"}},
    }

    def converse(transport, config):
        with BlockingClient(config, "super-agents/__SUPER_AGENT__", transport=transport) as client:
            answered = client.post("invoke", body)["data"]
            invoked = BlockingClient(
                Config(data_endpoint=config.data_endpoint, version=""), "", transport=transport
            )
            where = answered["url"].split("/", 3)[3]
            with invoked.stream("GET", where, headers=answered["headers"]) as stream:
                return answered["headers"], [event.type for event in stream.events()]

    with Emulator() as emulator, Recorder(path) as recorder:
        config = Config.from_env(emulator.environment)
        headers, recorded = converse(recorder, config)
    (session,) = headers.values()
    assert session.startswith("session-")
    assert_absent(path, session)
    assert recorded[-1] == "RUN_FINISHED"
    assert converse(Player(path), config)[1] == recorded


def test_a_signed_url_that_the_service_points_to(path, tmp_path):
    url = f"http://h/2025-09-10/agents/o?Expires=1&Signature={mark('signed')}&security-token={mark('sts')}"
    script = [
        Reply(307, headers={"Location": url}),
        Reply(content=b"saved"),
        Reply(json={"url": url, "more": url.replace("&", "\\u0026")}),
    ]

    def fetch(transport):
        with BlockingClient(Config(data_endpoint="http://h"), transport=transport) as client:
            client.get_file("files", tmp_path / "out")
            return client.get("where")["url"]

    with Recorder(path, transport=CannedTransport(script)) as recorder:
        fetch(recorder)
    assert_absent(path, mark("signed"), mark("sts"))
    assert fetch(Player(path)) == url.replace(mark("signed"), "*" * 22).replace(mark("sts"), "*" * 22)
    assert (tmp_path / "out").read_bytes() == b"saved"


def test_a_proxys_password(path):
    with (
        Emulator() as emulator,
        HTTPProxyServer(auth=("user", mark("proxy"))) as proxy,
        Recorder(path) as recorder,
    ):
        config = Config.from_env(emulator.environment)
        with BlockingClient(config, transport=recorder, proxy=proxy.url) as client:
            client.get("resources")
    assert "resources" in written(path)
    assert_absent(path, mark("proxy"), base64.b64encode(f"user:{mark('proxy')}".encode()).decode())


def test_an_override_of_auth(path):
    class Own(DataAPI):
        def auth(self, url, headers, query):
            return url, {**headers, "Authorization": f"Own {mark('own')}"}, {"auth": mark("own-query")}

    config = Config(data_endpoint="http://h")
    with Recorder(path, transport=Echo()) as recorder:
        own = Own("agent", ResourceType.Runtime, config, transport=recorder)
        assert DataAPI.auth(own, "http://h/a")[0] == "http://h/a"
        use(own)
    assert_absent(path, mark("own"), mark("own-query"))
    use(Own("agent", ResourceType.Runtime, config, transport=Player(path)))


def test_what_the_caller_says_is_a_secret(path):
    config = Config(data_endpoint="http://h", headers={"X-Partner": mark("partner")})
    with (
        Recorder(path, transport=Echo(), secrets=[mark("partner"), "pi-0"]) as recorder,
        BlockingClient(config, transport=recorder) as client,
    ):
        client.get("pi-0")
    assert_absent(path, mark("partner"), "pi-0")


def test_what_an_answer_tells_is_taken_out_elsewhere_too(path):
    script = [
        Reply(json={"note": mark("told")}),
        Reply(json={"refreshToken": mark("told")}),
        Reply(headers={"Set-Cookie": f"a=b; session={mark('cookie')}", "X-Note": mark("cookie")}),
    ]
    with (
        Recorder(path, transport=CannedTransport(script)) as recorder,
        BlockingClient(Config(data_endpoint="http://h"), transport=recorder) as client,
    ):
        for _ in script:
            client.get("r")
    assert_absent(path, mark("told"), mark("cookie"))


def test_a_failures_message(path):
    canned = CannedTransport([IncompleteError(f"after {mark('token')}")])
    config = Config(data_endpoint="http://h", token=mark("token"), retry=Retry(attempts=1))
    with (
        Recorder(path, transport=canned) as recorder,
        BlockingClient(config, transport=recorder) as client,
        pytest.raises(IncompleteError),
    ):
        client.get("r")
    assert_absent(path, mark("token"))


def test_a_secret_in_a_form(path):
    with (
        Recorder(path, transport=Echo()) as recorder,
        BlockingClient(Config(data_endpoint="http://h", token=mark("token")), transport=recorder) as client,
    ):
        client.post_form("r", {"note": mark("token")}, {"file": ("a", b"x")})
    assert_absent(path, mark("token"))


# --- the parts


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("Agentrun-Authorization", True),
        ("x-acs-security-token", True),
        ("x-acs-signature-nonce", True),
        ("x-acs-accesskey-id", True),
        ("Set-Cookie", True),
        ("X-Api-Key", True),
        ("Content-Type", False),
        ("x-acs-date", False),
        ("ETag", False),
        ("x-acs-request-id", False),
    ],
)
def test_names_of_fields(name, secret):
    assert is_secret_field(name) is secret


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ('{"accessToken": "abcd"}', '{"accessToken": "****"}'),
        ('{"access_token":"a\\"b\\\\"}', '{"access_token":"******"}'),
        ('{"max_tokens": 100, "tokens": "many"}', '{"max_tokens": 100, "tokens": "many"}'),
        ('{"token": "ab"}', '{"token": "ab"}'),
        ('{"a": "{\\"secretKey\\": \\"abcd\\"}"}', '{"a": "{\\"secretKey\\": \\"****\\"}"}'),
        ('{"u": "http://h/?a=b&sig=abcd&c=d"}', '{"u": "http://h/?a=b&sig=****&c=d"}'),
        (
            '{"u": "http://h/?key=abcd\\u0026Signature=efgh"}',
            '{"u": "http://h/?key=****\\u0026Signature=****"}',
        ),
        ('{"design": "abcd", "u": "?design=abcd"}', '{"design": "abcd", "u": "?design=abcd"}'),
    ],
)
def test_what_names_tell_of(text, redacted):
    assert Redaction().text(text) == redacted


def test_urls():
    redaction = Redaction(["mine"])
    redaction.learn_fields([("X-Token", "other-secret"), ("X-Token", "short"), ("X-Other", "not-a-secret")])
    assert (
        redaction.url("http://h/mine/a?x=other-secret&sig=1234567&y=short")
        == "http://h/***/a?x=***&sig=***&y=short"
    )
    assert redaction.url("http://h/%2A%2A%2A%2A/not-a-secret") == "http://h/***/not-a-secret"
    assert shown_url("http://h/a?b=c") == "http://h/a?b=c"


@pytest.mark.parametrize(
    ("name", "value", "parts"),
    [
        ("Cookie", "a=b; session=cookie-value", ["cookie-value"]),
        ("Set-Cookie", "session=cookie-value; Path=/", ["cookie-value"]),
        ("Authorization", "Bearer the-bearer", ["the-bearer"]),
        ("Authorization", f"Basic {BASIC}", [BASIC, mark("basic")]),
        (
            "Agentrun-Authorization",
            "AGENTRUN4-HMAC-SHA256 Credential=the-key-id/20260306/cn-hangzhou/agentrun/aliyun_v4_request,"
            "SignedHeaders=host;x-acs-date,Signature=0123456789abcdef",
            ["the-key-id", "0123456789abcdef"],
        ),
        (
            "Authorization",
            "ACS3-HMAC-SHA256 Credential=the-key-id,SignedHeaders=a,Signature=01234567",
            ["01234567"],
        ),
    ],
)
def test_parts_of_fields_are_taken_out_by_themselves(name, value, parts):
    redaction = Redaction()
    told = "cn-hangzhou session AGENTRUN4-HMAC-SHA256 aliyun_v4_request"
    assert redaction.text(" ".join([*parts, told])) == " ".join([*parts, told])
    redaction.learn_fields([(name, value)])
    assert redaction.text(" ".join([*parts, told])) == " ".join(["*" * len(part) for part in parts] + [told])


def test_what_is_no_secret_any_more():
    redaction = Redaction(["", "***"])
    redaction.learn_text('{"token": "**********"}')
    assert redaction.text("a *** b ********** c") == "a *** b ********** c"
    assert redaction._values == set()


def test_fields_that_are_kept():
    redaction = Redaction(["hidden"])
    lines = [("Content-Type", "text/hidden"), ("X-Else", "1"), ("Authorization", "hidden")]
    assert redaction.request_fields(lines) == [("Content-Type", "text/******")]
    assert redaction.answer_fields(Headers(lines)) == [
        ("Content-Type", "text/******"),
        ("X-Else", "1"),
        ("Authorization", "***"),
    ]


@PROPERTY
@given(
    st.lists(st.binary(max_size=20), max_size=4),
    st.text("abcdefghijklmnopqrstuvwxyz0123456789+/=", min_size=8, max_size=30),
    st.data(),
)
def test_a_secret_is_found_however_content_is_cut(parts, secret, data):
    content = secret.encode().join([b"", *parts, b""])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=6)))
    pieces = [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    redaction = Redaction()
    redaction.learn_fields([("Authorization", f"Bearer {secret}")])
    redacted = redaction.pieces(pieces)
    assert list(map(len, redacted)) == list(map(len, pieces))
    assert secret.encode() not in b"".join(redacted)
