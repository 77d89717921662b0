"""The service over values: who may call, the envelope, resources, refusals, and what a folder keeps."""

from __future__ import annotations

import json

import pytest

from agentrun_transports.emulator import Request

ROOT = "/2025-09-10/agents/resources"


# Who is calling.


def test_nobody_is_refused(ask):
    assert ask.refused("GET", ROOT, headers={"Agentrun-Access-Token": "wrong"}) == (401, "ERR_UNAUTHORIZED")
    answer = ask.service.handle(Request(method="GET", target=ROOT))
    assert (answer.status, answer.json()["code"]) == (401, "ERR_UNAUTHORIZED")


def test_a_signed_request_is_served(ask, signer):
    fields = signer.agentrun4("GET", f"{ROOT}?limit=1&page=1")
    answer = ask.service.handle(
        Request(method="GET", target=f"{ROOT}?limit=1&page=1", headers=tuple(fields.items()))
    )
    assert answer.status == 200


def test_every_credential_that_is_sent_must_be_right(ask, signer):
    signed = signer.agentrun4("GET", ROOT)
    assert ask("GET", ROOT, headers=signed).status == 200
    assert ask.refused("GET", ROOT, headers={**signed, "Agentrun-Access-Token": "x"}) == (
        401,
        "ERR_UNAUTHORIZED",
    )
    spoiled = signer.agentrun4("GET", ROOT, secret="other")
    assert ask.refused("GET", ROOT, headers=spoiled) == (403, "ERR_FORBIDDEN")


def test_tokens_come_and_go(ask):
    ask.service.revoke_token("t")
    assert ask.refused("GET", ROOT)[0] == 401
    ask.service.add_token("t")
    assert ask("GET", ROOT).status == 200
    ask.service.revoke_token("never known")


def test_an_old_date_is_refused_with_the_date_in_the_answer(ask, signer, fixed_now):
    fields = signer.agentrun4("GET", ROOT, now=fixed_now - 3600)
    assert ask.refused("GET", ROOT, headers=fields) == (403, "ERR_FORBIDDEN")


TOKEN = "/2025-09-10/agents/accessToken?resourceName=a%2Fb&resourceType=runtime"


def token_request(signer, target=TOKEN, nonce="n1", **changes):
    fields = signer.acs3("GET", target, nonce=nonce, **changes)
    return Request(method="GET", target=target, headers=tuple(fields.items()))


def test_an_access_token_is_given_counted_and_good(ask, signer):
    answer = ask.service.handle(token_request(signer))
    assert answer.json()["code"] == "SUCCESS"
    token = answer.json()["data"]["accessToken"]
    assert ask.service.token_fetches == 1
    assert ask("GET", ROOT, headers={"Agentrun-Access-Token": token}).status == 200
    other = ask.service.handle(token_request(signer, nonce="n2")).json()["data"]["accessToken"]
    assert other != token
    assert ask.service.token_fetches == 2


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("resourceName=a&resourceType=sandbox", "ERR_VALIDATION_FAILED"),
        ("resourceId=a&resourceType=runtime", "ERR_VALIDATION_FAILED"),
        ("resourceName=a&resourceType=Runtime", "ERR_VALIDATION_FAILED"),
        ("resourceName=a", "ERR_VALIDATION_FAILED"),
        ("resourceName=&resourceType=tool", "ERR_VALIDATION_FAILED"),
        ("resourceId=a&resourceType=sandbox", "SUCCESS"),
    ],
)
def test_what_names_a_resource(ask, signer, query, code):
    answer = ask.service.handle(token_request(signer, f"/2025-09-10/agents/accessToken?{query}"))
    assert answer.json()["code"] == code
    assert ask.service.token_fetches == (code == "SUCCESS")


def test_a_token_is_not_given_twice_for_one_nonce_nor_without_a_signature(ask, signer, fixed_now):
    assert ask.service.handle(token_request(signer)).status == 200
    again = ask.service.handle(token_request(signer))
    assert (again.status, again.json()["code"]) == (400, "SignatureNonceUsed")
    assert ask.service.handle(token_request(signer, nonce="n2", secret="x")).status == 403
    # An access token fetches no access token, and neither does the data plane's signature.
    assert ask.refused("GET", TOKEN) == (403, "ERR_FORBIDDEN")
    assert ask.refused("GET", TOKEN, headers=signer.agentrun4("GET", TOKEN)) == (403, "ERR_FORBIDDEN")
    assert ask.refused("POST", TOKEN) == (405, "ERR_METHOD_NOT_ALLOWED")
    assert ask.service.token_fetches == 1
    # A nonce is forgotten when its date would be refused anyway.
    ask.now += 3601
    assert ask.service.handle(token_request(signer, now=fixed_now + 3601)).status == 200


# Paths, methods, bodies.


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        ("GET", "/", 404, "ERR_NOT_FOUND"),
        ("GET", "/2025-09-10/agents", 404, "ERR_NOT_FOUND"),
        ("GET", "/agents/resources", 404, "ERR_NOT_FOUND"),
        ("GET", "/2025-09-11/agents/resources", 404, "ERR_NOT_FOUND"),
        ("GET", "/2025-09-10/sandboxes/x", 404, "ERR_NOT_FOUND"),
        ("GET", ROOT + "/", 404, "ERR_NOT_FOUND"),
        ("GET", "/2025-09-10/agents//x", 404, "ERR_NOT_FOUND"),
        ("GET", ROOT + "/a/b", 404, "ERR_NOT_FOUND"),
        ("GET", ROOT + "/a%2Fb", 404, "ResourceNotFound"),
        ("GET", ROOT + "/..", 400, "ERR_BAD_REQUEST"),
        ("GET", ROOT + "/%2e%2E", 400, "ERR_BAD_REQUEST"),
        ("GET", ROOT + "/%zz", 400, "ERR_BAD_REQUEST"),
        ("GET", ROOT + "/%FF", 400, "ERR_BAD_REQUEST"),
        ("GET", ROOT + "?limit=%F", 400, "ERR_BAD_REQUEST"),
        ("GET", ROOT + "?limit=%FF", 400, "ERR_BAD_REQUEST"),
        ("GET", "*", 400, "ERR_BAD_REQUEST"),
        ("GET", "http://other/x", 400, "ERR_BAD_REQUEST"),
        ("GET", "/sandboxes", 405, "ERR_METHOD_NOT_ALLOWED"),
    ],
)
def test_paths(ask, method, target, status, code):
    assert ask.refused(method, target) == (status, code)


@pytest.mark.parametrize(
    ("target", "allow"),
    [
        (ROOT, "GET, HEAD, POST"),
        (ROOT + "/x", "DELETE, GET, HEAD, PATCH, PUT"),
        ("/2025-09-10/agents/files", "GET, HEAD, POST"),
        ("/2025-09-10/agents/videos", "GET, HEAD"),
        ("/sandboxes", "POST"),
        ("/sandboxes/x/stop", "POST"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(ask, target, allow):
    answer = ask("OPTIONS", target)
    assert (answer.status, answer.header("Allow")) == (405, allow)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1e999}',
        b'{"a":1,"a":2}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b"\xef\xbb\xbf{}",
        b'{"a":' + b"[" * 101 + b"]" * 101 + b"}",
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' + b"9" * 5000 + b"}",
        b"a=b",
    ],
    ids=range(16),
)
def test_what_is_no_json_object(ask, body):
    assert ask.refused("POST", ROOT, body=body) == (400, "ERR_BAD_REQUEST")
    assert ask.data("GET", ROOT)["total"] == 0


def test_json_that_is_deep_but_not_too_deep(ask):
    value = json.loads("[" * 99 + "]" * 99)
    assert ask.data("POST", ROOT, {"v": value})["v"] == value
    many = [{"a": []}] * 200
    assert ask.data("POST", ROOT, {"v": many, "pair": "\U0001f600"})["v"] == many


def test_json_beyond_its_limit(ask):
    assert ask.refused("POST", ROOT, body=b'{"a":"' + b"x" * (16 << 20) + b'"}') == (
        413,
        "ERR_PAYLOAD_TOO_LARGE",
    )


def test_a_length_beyond_the_limit_is_refused_on_sight(asker):
    ask = asker(body_limit=10)
    for length, status in (("10", None), ("11", 413)):
        answer = ask.service.admit(Request(method="POST", target=ROOT, headers=(("content-length", length),)))
        assert (answer and answer.status) == status
    assert ask.service.admit(Request(method="GET", target=ROOT)) is None


def test_head_says_what_get_would_bring(ask):
    got, head = ask("GET", ROOT), ask("HEAD", ROOT)
    assert (head.status, head.body) == (200, b"")
    assert head.header("Content-Length") == got.header("Content-Length") == str(len(got.body))
    assert head.header("Content-Type") == "application/json"


# Resources.


def test_the_life_of_a_resource(ask):
    made = ask.data("POST", ROOT, {"name": "first", "tags": {"a": 1, "b": {"c": 2}}, "ü": "中"})
    assert made["createdAt"] == made["updatedAt"] == "2026-03-06T12:00:00Z"
    assert ask.data("GET", f"{ROOT}/{made['id']}") == made
    ask.now += 60
    patched = ask.data("PATCH", f"{ROOT}/{made['id']}", {"tags": {"a": None, "b": {"d": 3}}, "x": [1]})
    assert patched["tags"] == {"b": {"c": 2, "d": 3}}
    assert (patched["name"], patched["x"]) == ("first", [1])
    assert (patched["createdAt"], patched["updatedAt"]) == ("2026-03-06T12:00:00Z", "2026-03-06T12:01:00Z")
    replaced = ask.data("PUT", f"{ROOT}/{made['id']}", {"name": "second", "createdAt": "never"})
    assert replaced == {
        "name": "second",
        "id": made["id"],
        "createdAt": "2026-03-06T12:00:00Z",
        "updatedAt": "2026-03-06T12:01:00Z",
    }
    assert ask.data("DELETE", f"{ROOT}/{made['id']}") == replaced
    ask.now -= 60
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        assert ask.refused(method, f"{ROOT}/{made['id']}", {}) == (404, "ResourceNotFound")


def test_ids_of_the_callers_own(ask):
    assert ask.data("POST", ROOT, {"id": "a/b ü"})["id"] == "a/b ü"
    assert ask.data("GET", ROOT + "/a%2Fb%20%C3%BC")["id"] == "a/b ü"
    assert ask.refused("POST", ROOT, {"id": "a/b ü"}) == (409, "ResourceAlreadyExists")
    assert ask.data("PUT", ROOT + "/a%2Fb%20%C3%BC", {"id": "a/b ü", "x": 1})["x"] == 1
    for method in ("PUT", "PATCH"):
        assert ask.refused(method, ROOT + "/a%2Fb%20%C3%BC", {"id": "other"}) == (
            400,
            "ERR_VALIDATION_FAILED",
        )
    for bad in ("", 3, None, ".", ".."):
        assert ask.refused("POST", ROOT, {"id": bad}) == (400, "ERR_VALIDATION_FAILED")


def test_names_are_unique_within_their_collection(ask):
    one = ask.data("POST", ROOT, {"name": "n"})
    two = ask.data("POST", ROOT, {"name": "m"})
    assert ask.refused("POST", ROOT, {"name": "n"}) == (409, "ResourceAlreadyExists")
    assert ask.refused("PATCH", f"{ROOT}/{two['id']}", {"name": "n"}) == (409, "ResourceAlreadyExists")
    assert ask.data("PATCH", f"{ROOT}/{one['id']}", {"name": "n", "x": 1})["x"] == 1
    assert ask.data("POST", "/2025-09-10/agents/others", {"name": "n"})["name"] == "n"
    assert ask.refused("POST", ROOT, {"name": 3}) == (400, "ERR_VALIDATION_FAILED")


def test_pages(ask):
    for number in range(25):
        ask.data("POST", ROOT, {"id": f"r{number:02}"})

    def ids(query):
        data = ask.data("GET", ROOT + query)
        assert data["total"] == 25
        return [item["id"] for item in data["items"]]

    everything = [f"r{number:02}" for number in range(25)]
    assert ids("") == everything[:20]
    assert ids("?page=2") == everything[20:]
    assert ids("?limit=10&page=3") == everything[20:]
    assert ids("?page=1&limit=10&limit=5&page=2") == everything[5:10]
    assert ids("?page=4&limit=10") == []
    assert ids("?limit=100") == everything
    for bad in (
        "limit=0",
        "limit=101",
        "limit=x",
        "limit=-1",
        "page=0",
        "page=1.0",
        "limit=",
        "page=99999999999",
    ):
        assert ask.refused("GET", f"{ROOT}?{bad}") == (400, "ERR_VALIDATION_FAILED")


# A folder.


def test_what_a_folder_keeps(asker, tmp_path, content_of):
    folder = tmp_path / "deep" / "state"
    first = asker(folder)
    made = first.data("POST", ROOT, {"name": "kept", "ü": "中"})
    gone = first.data("POST", ROOT, {"name": "gone"})
    first.data("DELETE", f"{ROOT}/{gone['id']}")
    for content in (b"old", b"new"):
        first.upload("/2025-09-10/agents/files", "a.txt", content)
    first.data("POST", "/sandboxes", {"templateName": "t", "sandboxId": "s"})
    first.bare("POST", "/sandboxes/s/files", {"path": "x/y", "content": "hello"})
    first.data("POST", "/sandboxes", {"templateName": "t", "sandboxId": "dead"})
    first.bare("POST", "/sandboxes/dead/files", {"path": "x", "content": "bye"})
    first.data("DELETE", "/sandboxes/dead")
    (folder / "blobs" / "stray").write_bytes(b"left by a crash")
    with (folder / "journal.ndjson").open("ab") as journal:
        journal.write(b'\n["resources/resources","torn",{"id"')

    for _ in range(2):
        again = asker(folder)
        assert again.data("GET", ROOT)["items"] == [made]
        assert content_of(again("GET", "/2025-09-10/agents/files?path=a.txt")) == b"new"
        assert again.bare("GET", "/sandboxes/s/files?path=x/y")["content"] == "hello"
        assert again.refused("GET", "/sandboxes/dead") == (404, "SandboxNotFound")
        assert len(list((folder / "blobs").iterdir())) == 2
        # A change after a torn line is not lost.
        made = again.data("PATCH", f"{ROOT}/{made['id']}", {"again": True})
    assert len((folder / "journal.ndjson").read_bytes().split(b"\n")) < 20
