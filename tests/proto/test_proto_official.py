"""Our requests against those of the official client, recorded in tests/data/official_requests.json.

Where the official client is right, method, URL, signature and body agree. Where it is wrong, `WRONG` has the
reason (HOSTILE: What published clients of this service get wrong) and what ours does instead. The official
client leaves the version out of the path, so ours is told ``version=""``.
"""

from __future__ import annotations

import base64
import enum
from datetime import datetime
from typing import Any

import pytest

from agentrun_proto import Config, DataEndpoint, Request
from proto_strategies import ByHand, FakeClock, FakeSource, load, received_signature

OFFICIAL = load("official_requests.json")
TIME = datetime.fromisoformat(OFFICIAL["time"]).timestamp()
CASES = {case["name"]: case for case in OFFICIAL["cases"]}
BASIC = "Basic " + base64.b64encode(b"user:pw").decode()

# name -> (what the official client does, what ours does: a refusal, or the parts that differ)
WRONG: dict[str, tuple[str, str | dict[str, Any]]] = {
    "True": ("sends Python's True", {"target": "/agents/resources?x=true"}),
    "None": ("sends the word None", {"target": "/agents/resources"}),
    "an Enum": ("sends the member's repr, not its value", {"target": "/agents/resources?x=red"}),
    "a tuple": ("sends Python's repr of a tuple", {"target": "/agents/resources?x=1&x=2"}),
    "a flag": ("sends ?flag and leaves it out of the signature", {"target": "/agents/resources?flag="}),
    "%20 beside a query": (
        "rewrites a pair that the merge does not touch",
        {"target": "/agents/resources?a=x%20y&b=2"},
    ),
    "no UTF-8 beside a query": ("turns %FF into U+FFFD", {"target": "/agents/resources?x=%FF&b=2"}),
    "repeated names beside a query": (
        "moves pairs that the merge does not touch",
        {"target": "/agents/resources?a=1&b=2&a=3&c=4"},
    ),
    "a space in the path": ("signs the raw path and sends the encoded one", {"target": "/agents/a%20b"}),
    "non-ASCII in the path": (
        "signs the raw path and sends the encoded one",
        {"target": "/agents/%C3%A9%E4%B8%AD"},
    ),
    "a semicolon in the path": (
        "signs the path only up to the ; and sends all of it",
        {"target": "/agents/a;b=c"},
    ),
    "a stray percent": ("sends a path that is no URI", {"target": "/agents/100%25"}),
    "a fragment": ("cuts the path off at the #", "write %23"),
    "dots": ("reaches another sandbox", "'.' and '..' cannot be path segments"),
    "a host that is RAM already": (
        "makes 123-ram-ram of it",
        {"host": "123-ram.agentrun-data.cn-hangzhou.aliyuncs.com"},
    ),
    "user info": (
        "signs and sends it in the Host field",
        {"host": "123-ram.agentrun-data.cn-hangzhou.aliyuncs.com"},
    ),
    "the default port": ("signs and sends it in the Host field", {"host": "127.0.0.1"}),
    "an endpoint with a query": ("lets the query swallow the path", "an endpoint has no query"),
    "the caller's own date": (
        "sends x-acs-date twice, the signature over one",
        "follows from the credential",
    ),
    "the caller's own signed header": ("does not sign an x-acs-* header that it sends", {}),
    "a content type in lower case": ("sends Content-Type twice", {"content-type": "text/xml"}),
    "a list as a body": ("sends Python's repr of a list", {"body": b'[1,"a",null]'}),
    "bytes as a body": (
        "sends Python's repr of bytes",
        {"body": b"raw", "content-type": "application/octet-stream"},
    ),
    "an upload with a content type": ("sends a form without saying its boundary", "carries its boundary"),
    "an upload of a known type": (
        "takes the part's type from the machine's own table, so that the same call differs between machines",
        {"content-type": f"multipart/form-data; boundary={OFFICIAL['boundary']}"},
    ),
    "a token beside a key": (
        "ignores the token",
        {"host": "123.agentrun-data.cn-hangzhou.aliyuncs.com", "agentrun-access-token": "t0k"},
    ),
    "a per-call security token": (
        "erases the account with the per-call config's unset fields",
        {"host": "123-ram.agentrun-data.cn-hangzhou.aliyuncs.com", "x-acs-security-token": "other"},
    ),
    "a per-call region": (
        "erases the account with the per-call config's unset fields",
        {"host": "123-ram.agentrun-data.cn-beijing.aliyuncs.com"},
    ),
    "a per-call header keeps the region": (
        "erases the account with the per-call config's unset fields",
        {"host": "123-ram.agentrun-data.cn-shanghai.aliyuncs.com", "x-a": "1"},
    ),
}


class Colour(enum.Enum):
    RED = "red"


def plain(value: Any) -> Any:
    """A value of a case as the Python value that it stands for."""
    if isinstance(value, dict) and set(value) == {"$enum"}:
        return Colour(value["$enum"])
    if isinstance(value, dict) and set(value) == {"$tuple"}:
        return tuple(value["$tuple"])
    if isinstance(value, dict) and set(value) == {"$bytes"}:
        return value["$bytes"].encode()
    return value


def ours(case: dict[str, Any]) -> tuple[Request, bytes]:
    """Our request for a case, signed at the recorded time, and the bytes of its body."""
    config = Config(**case["config"]).merge(Config(version=""))
    if "call_config" in case:
        config = config.merge(Config(**case["call_config"]))
    at = DataEndpoint(config, case["namespace"])
    query = {name: plain(value) for name, value in case["query"].items()} if "query" in case else None
    common = {"query": query, "headers": case.get("headers")}
    if case.get("kind") == "upload":
        content = case["content"].encode()
        flow = at.upload(
            case["path"],
            "/local",
            filename=case["filename"],
            boundary=OFFICIAL["boundary"],
            clock=FakeClock(wall=TIME),
            fields={**case.get("form_data", {}), "path": case["target"]},
            **common,
        )
        request = ByHand(flow).answer(FakeSource(len(content))).command.request
        body = b"".join(part if isinstance(part, bytes) else content for part in request.body.segments)
        assert len(body) == request.body.length
        return request, body
    if case.get("kind") in ("download", "video"):
        return at.sign(at.file_request(case["path"], **common), TIME), b""
    request = at.request(case["method"], case["path"], data=plain(case.get("data")), **common)
    assert request.body.data is not None
    return at.sign(request, TIME), request.body.data


def compared(method: str, scheme: str, target: str, lines: Any, body: bytes) -> dict[str, Any]:
    """What must agree: method, URL, everything signed, what the caller set, and the body with its type."""
    fields: dict[str, str] = {}
    for name, value in lines:
        name = name.lower()
        fields[name] = f"{fields[name]} AND {value}" if name in fields else value
    kept = {
        name: value
        for name, value in fields.items()
        if name.startswith(("x-", "agentrun-")) or name in {"host", "authorization"}
    }
    if body:
        kept["content-type"] = fields["content-type"]
    return {"method": method, "scheme": scheme, "target": target, "body": body, **kept}


def official(case: dict[str, Any]) -> dict[str, Any]:
    sent = case["sent"]
    if "error" in sent:
        return sent
    return compared(sent["method"], sent["scheme"], sent["target"], sent["headers"], sent["body"].encode())


def test_there_are_records_and_they_say_whose():
    assert OFFICIAL["source"].startswith("agentrun-sdk ")
    assert len(CASES) == len(OFFICIAL["cases"])
    assert set(WRONG) <= set(CASES)
    assert len(set(CASES) - set(WRONG)) >= 55


@pytest.mark.parametrize("name", [name for name in CASES if name not in WRONG])
def test_where_the_official_client_is_right_ours_agrees(name):
    request, body = ours(CASES[name])
    assert compared(
        request.method, request.origin.scheme, request.target, request.fields(), body
    ) == official(CASES[name])


@pytest.mark.hostile(
    "published-config-erased",
    "published-query",
    "published-endpoint-query",
    "published-other-sandbox",
    "published-ram",
    "published-raw-path",
    "published-stale-signature",
    "published-signed-host",
    "published-repr",
    "published-content-type",
)
@pytest.mark.parametrize("name", WRONG)
def test_where_the_official_client_is_wrong_ours_does_what_a_user_expects(name):
    case, (reason, expected) = CASES[name], WRONG[name]
    assert reason
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected.replace("(", r"\(")):
            ours(case)
        return
    request, body = ours(case)
    sent = compared(request.method, request.origin.scheme, request.target, request.fields(), body)
    assert {**sent, **expected} == sent
    assert sent != official(case), "the official client is no longer wrong here: move this case"
    if "agentrun-authorization" in sent:
        computed, claimed, names = received_signature(
            method=request.method, target=request.target, lines=request.fields(), secret="secret+/=="
        )
        assert computed == claimed
        assert {line for line in sent if line.startswith("x-acs-")} <= set(names)
    if name == "user info":
        assert sent["authorization"] == official(case)["authorization"] == BASIC
