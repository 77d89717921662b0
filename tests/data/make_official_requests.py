"""Records what the official client sends, for `official_requests.json`.

Run it where the package ``agentrun-sdk`` is installed: ``python tests/data/make_official_requests.py``. The
client runs unchanged; only its clock stands still and its HTTP client gets a transport that records the
request in place of a connection. Nothing is sent anywhere.
"""

import json
import os
import re
import sys
from datetime import datetime, timezone
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from agentrun.utils import data_api
from agentrun.utils.config import Config
from agentrun.utils.ram_signature import signer

TIME = datetime(2026, 3, 6, 12, 0, 0, tzinfo=timezone.utc)
BOUNDARY = "official-boundary"


class StandingClock(datetime):
    """The signer's clock."""

    @classmethod
    def now(cls, tz=None):
        return TIME


class Colour(Enum):
    """What ``{"$enum": ...}`` stands for in a query."""

    RED = "red"


KEY = {"account_id": "123", "access_key_id": "LTAI5tExample", "access_key_secret": "secret+/=="}
TEMPORARY = {**KEY, "security_token": "CAIS+sts/token=="}
ANONYMOUS = {"account_id": "123"}
LOCAL = {**KEY, "data_endpoint": "http://127.0.0.1:8077"}
SHANGHAI = {**KEY, "region_id": "cn-shanghai"}


def case(name, method="GET", path="resources", *, config=KEY, namespace="agents", **arguments):
    """One call: `arguments` are query, data, headers, call_config, or those of an upload or download."""
    return {
        "name": name,
        "method": method,
        "path": path,
        "config": config,
        "namespace": namespace,
        **arguments,
    }


def upload(name, content, filename, **arguments):
    """One upload: the file's content and its local name."""
    return case(
        name, path="files", kind="upload", content=content, filename=filename, target="/t", **arguments
    )


CASES = [
    # plain calls
    *(case(f"{method} without a body", method) for method in ("GET", "POST", "PUT", "PATCH", "DELETE")),
    *(case(f"{method} a dict", method, data={"name": "a", "n": 1}) for method in ("POST", "PUT", "PATCH")),
    case("a text body", "POST", data='{"raw": true}'),
    case("an empty dict", "POST", data={}),
    case("an empty text", "POST", data=""),
    case("a nested dict", "POST", data={"a": [1, 2.5, None, True, {"b": "x"}], "c": {}}),
    case("a dict with non-ASCII", "POST", data={"é": "中😀", "q": '"\\\n'}),
    case("a text with non-ASCII", "POST", data="é中"),
    # credentials
    case("anonymous", config=ANONYMOUS),
    case("temporary credentials", config=TEMPORARY),
    case("temporary credentials, POST", "POST", config=TEMPORARY, data={"a": 1}),
    case("a per-call security token", call_config={"security_token": "other"}),
    # regions and endpoints
    case("another region", config={**KEY, "region_id": "cn-beijing"}),
    case("a data endpoint with a port", config=LOCAL),
    case("a data endpoint with a path", config={**LOCAL, "data_endpoint": "http://127.0.0.1:8077/base/"}),
    case("a pre-release endpoint", config={**KEY, "data_endpoint": "https://123.funagent-data-pre.cn-hangzhou.aliyuncs.com"}),
    case("a gateway's endpoint", config={**KEY, "data_endpoint": "https://gateway.example.com"}),
    # namespaces and paths
    case("sandboxes", path="sb-1/health", namespace="sandboxes"),
    case("a runtime", "POST", "invocations/openai", namespace="agent-runtimes/r/endpoints/e", data={}),
    case("a versioned namespace", path="resources", namespace="2025-09-10/agents"),
    case("slashes around the path", path="/resources/"),
    case("slashes around the namespace", path="resources", namespace="/agents/"),
    case("an empty path", path=""),
    case("a deep path", path="a/b/c/d"),
    case("unreserved and sub-delimiters", path="a-._~!$&'()*+,=:@b"),
    case("an encoded path", path="a%2Fb%20c/%C3%A9"),
    # queries
    case("a query", query={"limit": 10}),
    case("a query in the path", path="resources?page=1"),
    case("a merged query", path="resources?page=1", query={"limit": 10}),
    case("a replaced pair", path="resources?page=1&limit=5", query={"page": 2}),
    case("a list", query={"tag": ["a", "b"]}),
    case("a list of one", query={"tag": ["a"]}),
    case("an empty value", query={"a": ""}),
    case("an empty value in the path", path="resources?a=&b=1"),
    case("reserved characters", query={"q": "a&b=c+d/e?f#g"}),
    case("spaces and non-ASCII", query={"q": "a b", "é": "中"}),
    case("a number with a fraction", query={"x": 1.5}),
    case("a negative number", query={"x": -3}),
    case("tilde and star", query={"q": "~*-._"}),
    case("a repeated name in the path", path="resources?a=1&a=2"),
    case("unsorted names", query={"b": 1, "a": 2, "B": 3}),
    case("an encoded query in the path", path="resources?q=a%26b"),
    case("a plus in the path's query", path="resources?q=a+b"),
    # headers
    case("a header", headers={"X-Trace": "1"}),
    case("a header in the config", config={**KEY, "headers": {"X-Trace": "1"}}),
    case("a content type", "POST", data="<a/>", headers={"Content-Type": "text/xml"}),
    # files
    upload("an upload", "abc\r\n", "data.unknowntype"),
    upload("an upload with fields", "abc", "d", form_data={"a": "1", "b": "é"}),
    upload("an upload of nothing", "", "d"),
    upload("an upload with a quoted name", "x", 'a"b'),
    case("a download", kind="download", path="files", query={"path": "/remote/a b"}),
    case("a video", kind="video", path="videos", query={"path": "/remote/v.mkv"}),
    # where it is wrong, mostly (the test that reads this file says where and why)
    case("True", query={"x": True}),
    case("None", query={"x": None}),
    case("an Enum", query={"x": {"$enum": "red"}}),
    case("an empty list", path="resources?x=1&y=2", query={"x": []}),
    case("a tuple", query={"x": {"$tuple": [1, 2]}}),
    case("a flag", path="resources?flag"),
    case("a flag beside a query", path="resources?flag&a=1", query={"b": 2}),
    case("%20 beside a query", path="resources?a=x%20y", query={"b": 2}),
    case("no UTF-8 beside a query", path="resources?x=%FF", query={"b": 2}),
    case("repeated names beside a query", path="resources?a=1&b=2&a=3", query={"c": 4}),
    case("a space in the path", path="a b"),
    case("non-ASCII in the path", path="é中"),
    case("non-ASCII in the path's query", path="resources?q=é"),
    case("a semicolon in the path", path="a;b=c"),
    case("a stray percent", path="100%"),
    case("a fragment", path="a#b/c"),
    case("dots", path="../../sb2/stop", namespace="sandboxes/sb1"),
    case("a host that is RAM already", config={**KEY, "data_endpoint": "https://123-ram.agentrun-data.cn-hangzhou.aliyuncs.com"}),
    case("user info", config={**KEY, "data_endpoint": "https://user:pw@123.agentrun-data.cn-hangzhou.aliyuncs.com"}),
    case("the default port", config={**KEY, "data_endpoint": "http://127.0.0.1:80"}),
    case("an endpoint with a query", config={**KEY, "data_endpoint": "http://127.0.0.1:8077/?a=1"}),
    case("the caller's own date", headers={"X-Acs-Date": "2020-01-01T00:00:00Z"}),
    case("the caller's own signed header", headers={"x-acs-meta": "1"}),
    case("a content type in lower case", "POST", data="<a/>", headers={"content-type": "text/xml"}),
    case("a list as a body", "POST", data=[1, "a", None]),
    case("bytes as a body", "POST", data={"$bytes": "raw"}),
    upload("an upload with a content type", "x", "d", headers={"Content-Type": "a/b"}),
    upload("an upload of a known type", "x", "d.csv"),
    case("a token beside a key", config={**KEY, "token": "t0k"}),
    case("a per-call region", call_config={"region_id": "cn-beijing"}, config=SHANGHAI),
    case("a per-call header keeps the region", call_config={"headers": {"X-A": "1"}}, config=SHANGHAI),
]  # fmt: skip


def plain(value):
    """A value of a case as the Python value that it stands for."""
    if isinstance(value, dict) and set(value) == {"$enum"}:
        return Colour(value["$enum"])
    if isinstance(value, dict) and set(value) == {"$tuple"}:
        return tuple(value["$tuple"])
    if isinstance(value, dict) and set(value) == {"$bytes"}:
        return value["$bytes"].encode()
    return value


def recorded(one):
    """What goes out for one case, or the error that comes instead."""
    sent = []

    def answer(request):
        request.read()
        url = request.url
        sent.append({
            "method": request.method,
            "scheme": url.scheme,
            "host": url.raw_host.decode(),
            "port": url.port,
            "target": url.raw_path.decode("ascii"),
            "headers": [[name.decode(), value.decode("latin-1")] for name, value in request.headers.raw],
            "body": request.content.decode("utf-8"),
        })  # fmt: skip
        return httpx.Response(200, json={})

    class Recording(httpx.Client):
        def __init__(self, **arguments):
            super().__init__(**arguments, transport=httpx.MockTransport(answer), trust_env=False)

    data_api.httpx.Client, real = Recording, data_api.httpx.Client
    try:
        api = data_api.DataAPI(
            "name", data_api.ResourceType.Runtime, Config(**one["config"]), namespace=one["namespace"]
        )
        query = {name: plain(value) for name, value in one["query"].items()} if "query" in one else None
        common = {"query": query, "headers": dict(one["headers"]) if "headers" in one else None}
        if "call_config" in one:
            common["config"] = Config(**one["call_config"])
        with TemporaryDirectory() as folder:
            if one.get("kind") == "upload":
                local = Path(folder, one["filename"])
                local.write_text(one["content"], encoding="utf-8", newline="")
                form_data = dict(one["form_data"]) if "form_data" in one else None
                api.post_file(one["path"], str(local), one["target"], form_data=form_data, **common)
            elif one.get("kind") in ("download", "video"):
                fetch = api.get_file if one["kind"] == "download" else api.get_video
                fetch(one["path"], str(Path(folder, "saved")), **common)
            else:
                if one["method"] in ("POST", "PUT", "PATCH"):
                    common["data"] = plain(one["data"]) if "data" in one else None
                getattr(api, one["method"].lower())(one["path"], **common)
    except Exception as error:
        return {"error": type(error).__name__}
    finally:
        data_api.httpx.Client = real
    record = json.dumps(sent[0])
    boundary = re.search(r"--([0-9a-f]{32})", record)
    return json.loads(record.replace(boundary[1], BOUNDARY) if boundary else record)


def main():
    """Writes the file that stands beside this one."""
    for name in list(os.environ):
        if name.startswith(("AGENTRUN_", "ALIBABA_CLOUD_", "FC_")):
            del os.environ[name]
    signer.datetime = StandingClock
    records = [{**one, "sent": recorded(one)} for one in CASES]
    # The boundary of a form is random; a fixed one of another length changes what Content-Length said.
    for record in records:
        for line in record["sent"].get("headers", []):
            if line[0].lower() == "content-length" and BOUNDARY in record["sent"]["body"]:
                line[1] = str(len(record["sent"]["body"].encode()))
    result = {
        "source": f"agentrun-sdk {version('agentrun-sdk')}, httpx {version('httpx')}",
        "time": TIME.isoformat(),
        "boundary": BOUNDARY,
        "cases": records,
    }
    path = Path(__file__).with_name("official_requests.json")
    path.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"{len(records)} requests in {path.name}", file=sys.stderr)


if __name__ == "__main__":
    main()
