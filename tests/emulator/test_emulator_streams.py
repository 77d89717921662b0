"""Answers that arrive piece by piece, as values: feeds, chat completions, super agents."""

from __future__ import annotations

import json
from itertools import islice
from urllib.parse import quote, urlsplit

import pytest

from agentrun_transports.emulator.dialogue import words
from agentrun_transports.emulator.super_agents import Run, Runs

CHAT = "/agent-runtimes/r/endpoints/Default/invocations/openai/v1/chat/completions"
EVENTS = "/2025-09-10/agents/events"
LINES = "/2025-09-10/agents/lines"
AGENT = "/2025-09-10/super-agents/__SUPER_AGENT__"
SAID = [{"role": "user", "content": "Hello,  wide world"}]


def events_of(data):
    """Return each event as its fields in their order: an own, plain reading of what is sent."""
    text = data.decode()
    assert text == "" or text.endswith("\n\n")
    return [[tuple(line.split(": ", 1)) for line in piece.split("\n")] for piece in text.split("\n\n")[:-1]]


def data_of(data):
    """Return what the `data` lines hold, decoded where it is JSON."""
    texts = ["\n".join(value for name, value in fields if name == "data") for fields in events_of(data)]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


# Feeds.


def test_events_have_ids_and_say_when_to_come_back(ask, content_of):
    answer = ask("GET", f"{EVENTS}?count=3&from=7&retry=25")
    assert (answer.status, answer.header("Content-Type")) == (200, "text/event-stream")
    assert (answer.header("Content-Length"), answer.header("Cache-Control")) == (None, "no-cache")
    assert events_of(content_of(answer)) == [
        [("retry", "25"), ("id", "7"), ("data", '{"number":7}')],
        [("id", "8"), ("data", '{"number":8}')],
        [("id", "9"), ("data", '{"number":9}')],
    ]


@pytest.mark.parametrize(
    ("last", "numbers"),
    [(None, [7, 8, 9]), ("", [7, 8, 9]), ("0", [7, 8, 9]), ("7", [8, 9]), ("8", [9]), ("9", []), ("99", [])],
)
def test_events_go_on_after_the_last_that_was_seen(ask, content_of, last, numbers):
    headers = {} if last is None else {"Last-Event-ID": last}
    answer = ask("GET", f"{EVENTS}?count=3&from=7", headers=headers)
    assert [item["number"] for item in data_of(content_of(answer))] == numbers
    assert answer.status == (200 if numbers else 204)
    if not numbers:
        assert answer.header("Content-Length") is None


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (f"{EVENTS}?count=x", {}),
        (f"{EVENTS}?from=-1", {}),
        (f"{LINES}?count=x", {}),
        (EVENTS, {"Last-Event-ID": "x"}),
    ],
)
def test_feeds_that_make_no_sense(ask, target, headers):
    assert ask.refused("GET", target, headers=headers) == (400, "ERR_VALIDATION_FAILED")


def test_nothing_is_made_before_it_is_sent(ask):
    answer = ask("GET", f"{LINES}?count=999999999")
    assert b"".join(islice(answer.body.events, 2)) == b'{"number":1}\n{"number":2}\n'
    answer = ask("GET", f"{EVENTS}?count=999999999")
    assert len(list(islice(answer.body.events, 2))) == 2


def test_lines(ask, content_of):
    answer = ask("GET", f"{LINES}?count=2&from=0")
    assert answer.header("Content-Type") == "application/x-ndjson"
    assert content_of(answer) == b'{"number":0}\n{"number":1}\n'
    assert json.loads(answer.body.failure)["error"]["code"] == "ERR_INTERNAL_SERVER_ERROR"


def test_feeds_are_read_by_who_may(ask):
    for target in (EVENTS, LINES):
        assert ask.refused("GET", target, headers={"Agentrun-Access-Token": "x"}) == (401, "ERR_UNAUTHORIZED")
        assert ask.refused("POST", target, {}) == (405, "ERR_METHOD_NOT_ALLOWED")


# Chat completions.


def test_a_completion(ask, fixed_now):
    answer = ask.bare("POST", CHAT, {"model": "m", "messages": SAID})
    assert answer.pop("id").startswith("chatcmpl-id")
    assert answer == {
        "object": "chat.completion",
        "created": int(fixed_now),
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello,  wide world"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6},
    }


@pytest.mark.parametrize("with_usage", [False, True])
def test_a_completion_token_by_token(ask, content_of, fixed_now, with_usage):
    options = {"stream_options": {"include_usage": True}} if with_usage else {}
    answer = ask("POST", CHAT, {"model": "m", "messages": SAID, "stream": True, **options})
    assert (answer.status, answer.header("Content-Type")) == (200, "text/event-stream")
    *chunks, done = data_of(content_of(answer))
    assert done == "[DONE]"
    assert len({chunk.pop("id") for chunk in chunks}) == 1
    for chunk in chunks:
        assert chunk.pop("object") == "chat.completion.chunk"
        assert (chunk.pop("created"), chunk.pop("model")) == (int(fixed_now), "m")
    usage = {"usage": None} if with_usage else {}
    deltas = [
        ({"role": "assistant", "content": ""}, None),
        ({"content": "Hello,  "}, None),
        ({"content": "wide "}, None),
        ({"content": "world"}, None),
        ({}, "stop"),
    ]
    expected = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **usage}
        for delta, reason in deltas
    ]
    if with_usage:
        counts = {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
        expected.append({"choices": [], "usage": counts})
    assert chunks == expected


def test_what_is_said_comes_back_to_the_letter(ask, content_of):
    for said in ("", " ", "\n\n a\r\nb\u2028c\v\x85d  ", "ü中\0\x1c", "x" * 100_000, 'data: "\\'):
        messages = [
            {"role": "user", "content": "not this"},
            {"role": "user", "content": [{"type": "text", "text": said}, {"type": "image_url"}]},
            {"role": "assistant", "content": None},
            {"role": "tool", "content": "nor this"},
        ]
        answer = ask("POST", CHAT, {"model": "m", "messages": messages, "stream": True})
        chunks = data_of(content_of(answer))[:-1]
        assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == said
        assert "".join(words(said)) == said


@pytest.mark.parametrize(
    "change",
    [
        {"model": ""},
        {"model": None},
        {"messages": None},
        {"messages": []},
        {"messages": {}},
        {"messages": ["x"]},
        {"messages": SAID * 10_001},
        {"messages": [{"role": "nobody", "content": "x"}]},
        {"messages": [{"role": ["user"], "content": "x"}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": []}]},
        {"messages": [{"role": "user", "content": ["x"]}]},
        {"messages": [{"role": "user", "content": [{"text": 1}]}]},
        {"messages": [{"role": "system", "content": "x"}]},
        {"stream": "yes"},
        {"stream": None},
        {"stream_options": []},
        {"stream_options": {"include_usage": 1}},
    ],
    ids=range(18),
)
def test_completions_that_make_no_sense(ask, change):
    data = {"model": "m", "messages": SAID, **change}
    assert ask.refused("POST", CHAT, data) == (400, "ERR_VALIDATION_FAILED")


def test_a_completion_is_asked_for_by_post_and_by_who_may(ask):
    assert ask.refused("GET", CHAT) == (405, "ERR_METHOD_NOT_ALLOWED")
    body = json.dumps({"model": "m", "messages": SAID}).encode()
    assert ask.refused("POST", CHAT, body=body, headers={"Agentrun-Access-Token": "x"})[0] == 401
    assert ask.refused("POST", CHAT.replace("/r/", "//"), {"model": "m", "messages": SAID})[0] == 404


def test_an_error_in_a_chat_is_an_object_of_its_own(ask):
    answer = ask("POST", CHAT, {"model": "m", "messages": SAID, "stream": True})
    (failure,) = data_of(answer.body.failure)
    assert set(failure) == {"error"}
    assert failure["error"]["type"] == "server_error"


# Super agents.


def invoke(ask, said="Hi there", conversation=None, name="helper", **further):
    forwarded = {"metadata": {"agentRuntimeName": name}, **further}
    if conversation is not None:
        forwarded["conversationId"] = conversation
    messages = [{"role": "user", "content": said}]
    return ask.data("POST", f"{AGENT}/invoke", {"messages": messages, "forwardedProps": forwarded})


def target_of(url):
    return urlsplit(url).path


def fetch(ask, invoked):
    """Fetch a stream as somebody who has no credential."""
    return ask("GET", target_of(invoked["url"]), headers=invoked["headers"], token=None)


def test_an_invocation_and_its_stream(ask, content_of):
    invoked = invoke(ask)
    assert set(invoked) == {"conversationId", "url", "headers"}
    assert invoked["url"].startswith("http://localhost/2025-09-10/super-agents/__SUPER_AGENT__/streams/")
    assert list(invoked["headers"]) == ["X-Super-Agent-Session-Id"]
    answer = fetch(ask, invoked)
    assert (answer.status, answer.header("Content-Type")) == (200, "text/event-stream")
    data = content_of(answer)
    told = data_of(data)
    assert [dict(fields)["event"] for fields in events_of(data)] == [item["type"] for item in told]
    assert [item["type"] for item in told] == [
        "RUN_STARTED",
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_END",
        "RUN_FINISHED",
    ]
    assert told[0]["threadId"] == told[-1]["threadId"] == invoked["conversationId"]
    assert [item["delta"] for item in told[2:4]] == ["Hi ", "there"]
    assert len({item["messageId"] for item in told[1:5]}) == 1
    # It may be fetched again.
    assert content_of(fetch(ask, invoked)) == data
    assert b"event: RUN_ERROR\n" in answer.body.failure


def test_a_stream_is_opened_by_its_session(ask):
    invoked, other = invoke(ask), invoke(ask)
    target = target_of(invoked["url"])
    assert ask.refused("GET", target, headers=other["headers"]) == (403, "ERR_FORBIDDEN")
    assert ask.refused("GET", target) == (403, "ERR_FORBIDDEN")
    assert ask.refused("GET", target, headers={"X-Super-Agent-Session-Id": "ü"}) == (403, "ERR_FORBIDDEN")
    assert ask.refused("GET", f"{target}x", headers=invoked["headers"]) == (403, "ERR_FORBIDDEN")
    # A credential is not needed; one that is wrong is refused all the same.
    wrong = {**invoked["headers"], "Agentrun-Access-Token": "x"}
    assert ask.refused("GET", target, headers=wrong) == (401, "ERR_UNAUTHORIZED")
    assert ask("GET", target, headers=invoked["headers"]).status == 200
    # Nothing but streams is open to all.
    for closed in (f"{AGENT}/streams", f"{AGENT}/conversations", f"{target}/x"):
        assert ask("GET", closed, headers=invoked["headers"], token=None).status == 401


def test_conversations(ask, fixed_now):
    first = invoke(ask, "one", prompt="be kind", tools=["t"])["conversationId"]
    second = invoke(ask, "two", name="other")["conversationId"]
    ask.now += 1
    assert invoke(ask, "three", conversation=first)["conversationId"] == first
    found = ask.data("GET", f"{AGENT}/conversations/{first}")
    assert [(m["role"], m["content"]) for m in found["messages"]] == [
        ("user", "one"),
        ("assistant", "one"),
        ("user", "three"),
        ("assistant", "three"),
    ]
    assert len({m["messageId"] for m in found["messages"]}) == 4
    assert (found["conversationId"], found["agentId"], found["title"]) == (first, "helper", "one")
    assert (found["createdAt"], found["updatedAt"]) == (int(fixed_now * 1000), int(fixed_now * 1000) + 1000)

    def listed(metadata=None):
        query = "" if metadata is None else f"?metadata={quote(json.dumps(metadata))}"
        rows = ask.data("GET", f"{AGENT}/conversations{query}")["conversations"]
        assert all("messages" not in row for row in rows)
        return [row["conversationId"] for row in rows]

    assert listed() == listed({}) == [first, second]
    assert listed({"agentRuntimeName": "helper"}) == [first]
    assert listed({"agentRuntimeName": "helper", "x": None}) == []
    assert ask.data("DELETE", f"{AGENT}/conversations/{first}") == {"conversationId": first}
    assert listed() == [second]
    ask.now = fixed_now
    for method in ("GET", "DELETE"):
        assert ask.refused(method, f"{AGENT}/conversations/{first}") == (404, "ConversationNotFound")


def test_what_was_forwarded_is_kept_with_the_conversation(ask):
    identifier = invoke(ask, prompt="be kind", tools=["t"])["conversationId"]
    found = ask.data("GET", f"{AGENT}/conversations/{identifier}")
    assert found["params"] == {"prompt": "be kind", "tools": ["t"]}
    assert found["metadata"] == {"agentRuntimeName": "helper"}


@pytest.mark.parametrize(
    ("data", "refused"),
    [
        ({}, (400, "ERR_VALIDATION_FAILED")),
        ({"messages": SAID}, (400, "ERR_VALIDATION_FAILED")),
        ({"messages": SAID, "forwardedProps": {}}, (400, "ERR_VALIDATION_FAILED")),
        ({"messages": SAID, "forwardedProps": {"metadata": {}}}, (400, "ERR_VALIDATION_FAILED")),
        (
            {
                "messages": SAID,
                "forwardedProps": {"metadata": {"agentRuntimeName": "a"}, "conversationId": "none"},
            },
            (404, "ConversationNotFound"),
        ),
    ],
    ids=range(5),
)
def test_invocations_that_make_no_sense(ask, data, refused):
    assert ask.refused("POST", f"{AGENT}/invoke", data) == refused
    assert ask.data("GET", f"{AGENT}/conversations") == {"conversations": []}


@pytest.mark.parametrize("metadata", ["x", "[]", "null", "[" * 100_000])
def test_a_filter_that_is_none(ask, metadata):
    target = f"{AGENT}/conversations?metadata={quote(metadata)}"
    assert ask.refused("GET", target) == (400, "ERR_VALIDATION_FAILED")


def test_conversations_outlive_the_service_and_streams_do_not(asker, tmp_path):
    first = asker(tmp_path)
    invoked = invoke(first)
    second = asker(tmp_path)
    assert second.data("GET", f"{AGENT}/conversations/{invoked['conversationId']}")["title"] == "Hi there"
    assert fetch(second, invoked).status == 403


def test_streams_may_be_served_elsewhere(asker, content_of):
    streams = asker()
    ask = asker(origin="https://streams.test", streams=streams.service.runs)
    invoked = invoke(ask)
    assert invoked["url"].startswith("https://streams.test/2025-09-10/")
    assert fetch(ask, invoked).status == 403
    assert b"RUN_FINISHED" in content_of(fetch(streams, invoked))


def test_the_runs_that_are_kept_are_bounded():
    runs = Runs()
    for number in range(1001):
        run = {"conversation_id": "c", "message_id": "m", "session": "s", "reply": ""}
        runs.add(Run(run_id=str(number), **run))
    assert runs.get("0") is None
    assert runs.get("1") is not None
    assert runs.get("1000") is not None


def test_a_collection_of_any_name_holds_any_resource(tmp_path, asker):
    # Not a name of its own: what looks like a file's record is a resource all the same, after a restart too.
    for _ in range(2):
        ask = asker(tmp_path)
        assert ask("POST", "/2025-09-10/agents/resources", {"blob": ["x"]}).status == 200
