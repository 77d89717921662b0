"""DataAPI, the documented client: every documented method, both names, the hook, configs, results, errors.

What it sends is checked on the other side: by a raw server's own reading, and signatures by a verifier that
shares nothing with the library's signer, and by the emulator.
"""

from __future__ import annotations

import asyncio
import inspect
import threading

import pytest
import trio

from agentrun_proto import (
    AgentRunClientError,
    AuthenticationError,
    Config,
    HTTPError,
    NotFoundError,
    ReadTimeout,
)
from agentrun_transports import AgentRunDataClient, DataAPI, ResourceType
from agentrun_transports.emulator import Emulator
from proto_strategies import received_signature
from transports_support import RawServer, Say, Stall, answer

KEY = {"access_key_id": "id", "access_key_secret": "secret"}
VARIABLES = ("AGENTRUN_", "ALIBABA_CLOUD_", "FC_")


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch):
    import os

    for name in list(os.environ):
        if name.startswith(VARIABLES):
            monkeypatch.delenv(name)


def api(server, cls=DataAPI, **settings):
    return cls("name", ResourceType.Runtime, server.config(**settings))


def test_both_names_are_one_class():
    assert AgentRunDataClient is DataAPI
    assert {kind.name: kind.value for kind in ResourceType} == {
        "Runtime": "runtime",
        "LiteLLM": "litellm",
        "Tool": "tool",
        "Template": "template",
        "Sandbox": "sandbox",
        "KnowledgeBase": "knowledgebase",
    }


DOCUMENTED = {
    "__init__": "resource_name resource_type config namespace",
    "with_path": "path query",
    "auth": "url headers query config",
    "get": "path query headers config",
    "delete": "path query headers config",
    "post": "path data query headers config",
    "put": "path data query headers config",
    "patch": "path data query headers config",
    "post_file": "path local_file_path target_file_path form_data query headers config",
    "get_file": "path save_path query headers config",
    "get_video": "path save_path query headers config",
    "get_base_url": "",
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_parameters_come_first_and_in_order(name):
    names = DOCUMENTED[name].split()
    for method in (name, f"{name}_async"):
        if method.endswith("_async") and name in ("__init__", "with_path", "auth", "get_base_url"):
            continue
        found = [
            parameter
            for parameter in inspect.signature(getattr(DataAPI, method)).parameters
            if parameter != "self"
        ]
        assert found[: len(names)] == names


@pytest.mark.parametrize(
    ("arguments", "url"),
    [
        (("resources",), "/resources"),
        (("resources", {"limit": 10}), "/resources?limit=10"),
        (("resources?page=1", {"limit": 10}), "/resources?page=1&limit=10"),
    ],
)
def test_documented_results_of_with_path(arguments, url):
    found = DataAPI("n", ResourceType.Runtime, Config(account_id="account", protocol="http")).with_path(
        *arguments
    )
    assert found == "http://account.agentrun-data.cn-hangzhou.aliyuncs.com/2025-09-10/agents" + url


def test_value_errors_of_the_constructor():
    for config in (None, Config(), Config(access_key_id="only", account_id="1")):
        with pytest.raises(ValueError):
            DataAPI("n", ResourceType.Runtime, config)
    with pytest.raises(ValueError):
        DataAPI("n", ResourceType.Runtime, Config(account_id="1", protocol="ftp"))


def test_the_environment_is_read_and_a_config_wins(monkeypatch):
    monkeypatch.setenv("AGENTRUN_ACCOUNT_ID", "from-env")
    monkeypatch.setenv("FC_REGION", "cn-beijing")
    assert "from-env.agentrun-data.cn-beijing" in DataAPI("n", ResourceType.Runtime).get_base_url()
    found = DataAPI("n", ResourceType.Runtime, Config(account_id="mine")).get_base_url()
    assert "mine.agentrun-data.cn-beijing" in found


@pytest.mark.hostile("calling-mixed-keys")
def test_an_explicit_key_is_not_mixed_with_a_token_of_the_environment(monkeypatch):
    monkeypatch.setenv("ALIBABA_CLOUD_SECURITY_TOKEN", "token-of-another-key")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "another")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "other")
    with RawServer() as server:
        api(server, **KEY).get("r")
        (request,) = server.requests
        assert b"token-of-another-key" not in request.head
        computed, sent, names = received_signature(
            method="GET", target=request.target, lines=request.lines, secret="secret"
        )
        assert computed == sent
        assert "x-acs-security-token" not in names


@pytest.mark.hostile("published-signed-early")
@pytest.mark.parametrize("method", ["get", "delete", "post", "put", "patch"])
def test_every_method_is_signed_over_what_is_sent(method):
    with RawServer() as server, api(server, **KEY) as client:
        arguments = {} if method in ("get", "delete") else {"data": {"a": "é"}}
        getattr(client, method)(
            "a b/é?x=1&flag", query={"limit": 10, "q": "ü &="}, headers={"X-Acs-Extra": "1"}, **arguments
        )
        (request,) = server.requests
        assert request.method == method.upper()
        computed, sent, names = received_signature(
            method=request.method, target=request.target, lines=request.lines, secret="secret"
        )
        assert computed == sent
        assert "x-acs-extra" in names
        if arguments:
            assert request.body == '{"a":"é"}'.encode()


@pytest.mark.hostile("published-refusals")
def test_results_and_errors(tmp_path):
    refusal = answer({"code": "ERR", "requestId": "id-9", "message": "no"}, "404 Not Found")
    with RawServer(
        answer({"a": 1}), answer(b""), refusal, answer(b"file"), answer(b"film"), answer({"b": 2})
    ) as server:
        client = api(server)
        assert client.get("a") == {"a": 1}
        assert client.delete("a") == {}
        with pytest.raises(HTTPError) as caught:
            client.get("a")
        error = caught.value
        assert isinstance(error, (AgentRunClientError, NotFoundError))
        assert (error.status_code, error.error_code, error.request_id, error.message) == (
            404,
            "ERR",
            "id-9",
            "no",
        )
        assert error.response_body == {"code": "ERR", "requestId": "id-9", "message": "no"}
        path = str(tmp_path / "f")
        assert client.get_file("a", path) == {"saved_path": path, "size": 4}
        assert client.get_video("a", path) == {"saved_path": path, "size": 4}
        assert (tmp_path / "f").read_bytes() == b"film"
        assert client.post_file("a", path, "/x") == {"b": 2}
        client.close()


@pytest.mark.parametrize("run", [lambda main: asyncio.run(main()), trio.run], ids=["asyncio", "trio"])
def test_a_video_is_saved_on_a_loop_too(run, tmp_path):
    path = str(tmp_path / "f")

    async def main():
        with RawServer(answer(b"film")) as server:
            client = api(server)
            saved = await client.get_video_async("a", path, {"q": "1"})
            assert saved == {"saved_path": path, "size": 4}
            assert b"?q=1 HTTP/1.1" in server.requests[0].head
            await client.aclose()

    run(main)
    assert (tmp_path / "f").read_bytes() == b"film"


@pytest.mark.hostile("files-callers-values")
def test_what_the_caller_passes_is_never_changed(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"x")
    query, headers, form, data = {"a": [1, 2]}, {"X-A": "1"}, {"k": "v"}, {"d": {"e": []}}
    config = Config(headers={"X-B": "2"}, timeout=20)
    kept = (dict(query), dict(headers), dict(form), dict(data), repr(config))
    with RawServer() as server, api(server, headers={"X-C": "3"}, **KEY) as client:
        before = repr(client.config)
        for _ in range(2):
            client.post("a?z=1", data, query, headers, config)
            client.post_file("a", path, "/t", form, query, headers, config)
            client.get_file("a", tmp_path / "g", query, headers, config)
        assert (query, headers, form, data, repr(config)) == kept
        assert repr(client.config) == before


@pytest.mark.hostile("published-config-erased", "published-timeout", "published-headers-stay")
def test_a_config_of_one_call():
    """It overlays, erases nothing, and is gone afterwards; so are headers; its timeout is in force."""
    with RawServer() as server, api(server, headers={"X-A": "1"}, token="base") as client:
        client.get("a", headers={"X-Call": "1"}, config=Config(headers={"X-B": "2"}))
        client.get("a", config=Config(token="other", version="2030-01-01"))
        client.get("a")
        first, second, third = ({k.lower(): v for k, v in request.lines} for request in server.requests)
        assert (first["x-a"], first["x-b"], first["x-call"]) == ("1", "2", "1")
        assert first["agentrun-access-token"] == "base"
        assert second["agentrun-access-token"] == "other"
        assert server.requests[1].target == "/2030-01-01/agents/a"
        assert third["agentrun-access-token"] == "base"
        assert not {"x-b", "x-call"} & third.keys()
        assert server.requests[2].target == "/2025-09-10/agents/a"
    with RawServer((Stall(),)) as server, api(server) as client, pytest.raises(ReadTimeout):
        client.get("a", config=Config(timeout=0.5))


def test_an_endpoint_of_one_call():
    with RawServer() as first, RawServer() as second, api(first) as client:
        client.get("a", config=Config(data_endpoint=second.url))
        client.get("a")
        assert (len(first.requests), len(second.requests)) == (1, 1)


# --- the hook


class Three(DataAPI):
    def auth(self, url, headers, query):
        return url + ("&" if "?" in url else "?") + "signed=1", {**headers, "X-Mine": "3"}, {"more": "é"}


class Four(DataAPI):
    def auth(self, url="", headers=None, query=None, config=None):
        assert isinstance(config, Config)
        return url, {**headers, "X-Mine": "4"}, query


class Six(DataAPI):
    def auth(self, url="", headers=None, query=None, config=None, method=None, body=None):
        return url, {**headers, "X-Mine": f"{method} {body!r}"}, query


class Any_(DataAPI):
    def auth(self, *arguments):
        url, headers, query, _config, method, body = arguments
        return url, {**headers, "X-Mine": f"{method} {body!r}"}, query


class SuperThree(DataAPI):
    def auth(self, url, headers, query):
        url, headers, query = super().auth(url, headers, query)
        return url, {**headers, "X-Mine": "super"}, query


class SuperFour(DataAPI):
    def auth(self, url="", headers=None, query=None, config=None):
        url, headers, query = super().auth(url, headers, {**(query or {}), "added": 1}, config)
        return url, {**headers, "X-Mine": "super"}, query


class SuperSix(DataAPI):
    def auth(self, url="", headers=None, query=None, config=None, method=None, body=None):
        return super().auth(url, {**headers, "X-Acs-Mine": "super"}, query, config, method, body)


def test_what_an_override_returns_is_what_is_sent():
    with RawServer() as server:
        api(server, Three).post("r?a=1", {"b": 2}, headers={"X-A": "1"})
        (request,) = server.requests
        fields = dict(request.lines)
        assert request.target == "/2025-09-10/agents/r?a=1&signed=1&more=%C3%A9"
        assert (fields["X-Mine"], fields["X-A"]) == ("3", "1")
        assert fields["Content-Type"] == "application/json"
        assert request.body == b'{"b":2}'
        assert len({name.lower() for name in fields}) == len(request.lines)


@pytest.mark.parametrize(
    ("cls", "mine"),
    [(Four, "4"), (Six, "POST b'{\"b\":2}'"), (Any_, "POST b'{\"b\":2}'")],
    ids=["four", "six", "any"],
)
def test_overrides_with_other_numbers_of_parameters(cls, mine):
    with RawServer() as server:
        api(server, cls).post("r", {"b": 2})
        assert dict(server.requests[0].lines)["X-Mine"] == mine


@pytest.mark.hostile("published-signed-early")
@pytest.mark.parametrize("cls", [SuperThree, SuperFour, SuperSix])
@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete"])
def test_super_auth_signs_the_request_that_is_sent(cls, method):
    """With three parameters the method of the request is known all the same."""
    with RawServer() as server:
        arguments = {} if method in ("get", "delete") else {"data": {"b": 2}}
        getattr(api(server, cls, **KEY), method)("r?a=1", query={"c": "é"}, **arguments)
        (request,) = server.requests
        computed, sent, _ = received_signature(
            method=method.upper(), target=request.target, lines=request.lines, secret="secret"
        )
        assert computed == sent
        names = [name.lower() for name, _ in request.lines]
        assert len(set(names)) == len(names), "a field went out twice"


@pytest.mark.parametrize("cls", [DataAPI, SuperThree, SuperFour, SuperSix])
def test_the_emulator_accepts_it(cls, tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"content")
    with Emulator() as emulator:
        with cls("n", ResourceType.Runtime, Config.from_env(emulator.environment)) as client:
            made = client.post("resources", {"name": "first"})
            assert made["data"]["name"] == "first"
            assert client.get("resources", query={"limit": 1})["code"] == "SUCCESS"
            client.post_file("files", path, "/dir/f")
            assert client.get_file("files", tmp_path / "g", query={"path": "/dir/f"})["size"] == 7
        wrong = Config.from_env(emulator.environment).merge(
            Config(access_key_id="emulator-id", access_key_secret="x")
        )
        with cls("n", ResourceType.Runtime, wrong) as client, pytest.raises(AgentRunClientError) as caught:
            client.get("resources")
        assert caught.value.status_code in (401, 403)
        assert issubclass(AuthenticationError, AgentRunClientError)


@pytest.mark.parametrize("cls", [SuperThree, SuperFour, SuperSix])
def test_super_auth_knows_the_config_of_the_call(cls):
    """The credential and the endpoint that one call sets are those that its own hook authorises with."""
    with RawServer() as server, RawServer() as other:
        client = api(server, cls, token="base")
        client.get("r", config=Config(token="other"))
        assert dict(server.requests[0].lines)["Agentrun-Access-Token"] == "other"
        client.get("r", config=Config(data_endpoint=other.url, token="third"))
        assert dict(other.requests[0].lines)["Agentrun-Access-Token"] == "third"


def test_super_auth_by_hand_with_nothing():
    with RawServer() as server:
        client = api(server, token="t")
        url, headers, query = client.auth()
        assert url.startswith(server.url)
        assert headers["Agentrun-Access-Token"] == "t"
        assert query is None
        with pytest.raises(ValueError):
            client.auth("http://elsewhere.example/")


@pytest.mark.hostile("requests-injection")
@pytest.mark.parametrize(
    "returned",
    [
        ("http://h/a\r\nX: 1", {}, None),
        ("http://h/a", {"X-A": "1\r\nX-B: 2"}, None),
        ("http://h/a", {"X\n": "1"}, None),
        ("http://h/a", {"Content-Length": "1"}, None),
        ("http://h/a", {"Transfer-Encoding": "chunked"}, None),
        ("http://h/a", {"Host": "other"}, None),
        ("file:///etc/passwd", {}, None),
        ("nonsense", {}, None),
        ("http://h/../a", {}, None),
    ],
)
def test_an_override_cannot_inject(returned):
    with RawServer() as server:

        class Hooked(DataAPI):
            def auth(self, url, headers, query):
                return (returned[0].replace("http://h", server.url), *returned[1:])

        with pytest.raises((ValueError, TypeError)):
            api(server, Hooked).get("r")
        assert server.connections == 0


def test_an_override_that_fails_leaves_nothing_behind(tmp_path):
    class Failing(DataAPI):
        fail = True

        def auth(self, url, headers, query):
            if self.fail:
                raise RuntimeError("no key today")
            return url, headers, query

    path = tmp_path / "f"
    path.write_bytes(b"old")
    with RawServer() as server:
        client = api(server, Failing)
        for call in (
            lambda: client.get("r"),
            lambda: client.post_file("r", path, "/x"),
            lambda: client.get_file("r", path),
        ):
            with pytest.raises(RuntimeError):
                call()
        assert [entry.name for entry in tmp_path.iterdir()] == ["f"]
        assert path.read_bytes() == b"old"
        assert server.connections == client._session.pool.open == 0
        client.fail = False
        assert client.get("own")["target"].endswith("/own")


def test_an_override_may_call_the_client_itself():
    """A hook that fetches its token with the same client: no place is held meanwhile, so one is enough."""
    from agentrun_transports import Limits

    class Nested(DataAPI):
        depth = threading.local()

        def auth(self, url, headers, query):
            if not getattr(self.depth, "inside", False):
                self.depth.inside = True
                try:
                    headers = {**headers, "X-Token": self.get("token")["token"]}
                finally:
                    self.depth.inside = False
            return url, headers, query

    with RawServer(Say(answer({"token": "t"})).data) as server:
        client = Nested("n", ResourceType.Runtime, server.config(timeout=5), limits=Limits(total=1))
        client.post("r", {"a": 1})
        assert [request.method for request in server.requests] == ["GET", "POST"]
        assert dict(server.requests[1].lines)["X-Token"] == "t"


@pytest.mark.hostile("published-namespace")
def test_threads_do_not_mix_what_their_hooks_are_asked():
    with RawServer() as server:
        client = api(server, SuperThree, **KEY)
        failures = []

        def work(method):
            try:
                for _ in range(30):
                    getattr(client, method)(f"only-{method}")
            except BaseException as error:
                failures.append(error)

        threads = [
            threading.Thread(target=work, args=(name,)) for name in ("get", "post", "put", "delete") * 2
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not failures
        for request in server.requests:
            assert request.target.endswith(f"/only-{request.method.lower()}")
            computed, sent, _ = received_signature(
                method=request.method, target=request.target, lines=request.lines, secret="secret"
            )
            assert computed == sent


@pytest.mark.hostile("calling-secrets")
def test_no_secret_shows():
    with RawServer(answer(b"", "403 No")) as server:
        client = DataAPI(
            "n",
            ResourceType.Runtime,
            server.config(
                access_key_id="id", access_key_secret="hunter2-secret", security_token="hunter2-token"
            ),
        )
        with pytest.raises(AgentRunClientError) as caught:
            client.get("r")
        import traceback

        shown = "".join(traceback.format_exception(caught.value))
        shown += (
            repr(client)
            + repr(client.config)
            + repr(vars(client))
            + repr(caught.value)
            + repr(vars(caught.value))
        )
        assert "hunter2" not in shown
