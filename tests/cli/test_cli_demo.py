"""demo: it passes against the real emulator, and fails when anything is not as it should be."""

import sys
import tempfile
import threading

import pytest

import agentrun_transports.emulator
from agentrun_proto import NotFoundError
from agentrun_transports import DataAPI
from agentrun_transports._cli import demo
from agentrun_transports.emulator import Emulator, Fault

NAMES = [step.name for step in demo.STEPS]


@pytest.fixture
def private_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(demo, "_SIZE", 100_000)


def lines(ran):
    """The step lines as (mark, name)."""
    return [
        (line.split()[0], name)
        for line in ran.out.splitlines()
        for name in NAMES
        if line.startswith((f" ok   {name}  ", f" FAIL {name}  ")) and " ms  " in line
    ]


def test_the_whole_job(run, private_temporary_folder):
    before = set(threading.enumerate())
    ran = run("demo")
    assert (ran.code, ran.err) == (0, "")
    assert lines(ran) == [("ok", name) for name in NAMES]
    for shown in (
        "?page=1&limit=10",
        "404 ResourceNotFound: ",
        "403 ERR_FORBIDDEN: ",
        "request id ",
        "POST 20 MB",
        "sha256 equal",
    ):
        assert shown in ran.out
    assert ran.out.splitlines()[-1].startswith("All 10 steps are as they should be, over blocking, in ")
    assert list(private_temporary_folder.iterdir()) == []
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("driver", ["asyncio", "trio"])
def test_the_whole_job_on_a_loop(run, small, monkeypatch, driver):
    """Every call goes over that driver: none of them is a blocking one."""
    monkeypatch.setattr(DataAPI, "_run", None)
    monkeypatch.setattr(DataAPI, "_begin", None)
    ran = run("demo", "--driver", driver)
    assert (ran.code, ran.err) == (0, "")
    assert lines(ran) == [("ok", name) for name in NAMES]
    assert ran.out.splitlines()[-1].startswith(f"All 10 steps are as they should be, over {driver}, in ")


def test_a_loop_that_is_not_installed(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "trio", None)
    ran = run("demo", "--driver", "trio")
    assert ran.code == 2
    assert "pip install 'agentrun-proto[trio]'" in ran.err


def test_the_callers_environment_is_not_used(run, small, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    for name in ("AGENTRUN_DATA_ENDPOINT", "AGENTRUN_CONTROL_ENDPOINT"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("ACCESS_KEY_ID", "ACCESS_KEY_SECRET", "SECURITY_TOKEN", "ACCOUNT_ID", "REGION"):
        monkeypatch.setenv(f"AGENTRUN_{name}", "elsewhere")
    assert run("demo").code == 0


def changed(method, change):
    """A patch of DataAPI: the method's answer, changed."""
    original = getattr(DataAPI, method)

    def patched(self, *args, **kwargs):
        answer = original(self, *args, **kwargs)
        change(answer)
        return answer

    return method, patched


def only(path, change):
    """A patch of DataAPI.get, for answers that belong to a path."""
    original = DataAPI.get

    def patched(self, asked, *args, **kwargs):
        answer = original(self, asked, *args, **kwargs)
        if asked.startswith(path):
            change(answer)
        return answer

    return "get", patched


def spoil_file(answer):
    with open(answer["saved_path"], "r+b") as file:
        file.write(b"spoilt")


def other_words(original, **changes):
    """A patch of DataAPI: an agent is asked something else, or another way."""

    def patched(self, name, messages, **options):
        return original(self, name, [{**messages[0], **changes}], **options)

    return "invoke_stream", patched


def unnamed():
    """A refusal without a code, and without a request id."""
    raise NotFoundError("gone", status_code=404)


WRONG = [
    ("create", changed("post", lambda answer: answer["data"].update(name="other"))),
    ("create", changed("post", dict.clear)),
    ("list", only("resources?", lambda answer: answer["data"]["items"].clear())),
    ("patch", changed("patch", lambda answer: answer["data"].update(description="other"))),
    ("read", only("resources/", lambda answer: answer["data"].pop("labels"))),
    (
        "not found",
        ("get", lambda self, path, *rest: {"data": 1} if "missing" in path else GET(self, path, *rest)),
    ),
    (
        "not found",
        ("get", lambda self, path, *rest: unnamed() if "missing" in path else GET(self, path, *rest)),
    ),
    ("forged", ("get", lambda self, path, query=None, config=None: GET(self, path, query))),
    ("upload", changed("post_file", lambda answer: answer["data"].update(size=1))),
    ("upload", changed("post_file", lambda answer: answer["data"].update(sha256="0"))),
    ("download", changed("get_file", spoil_file)),
    ("download", changed("get_file", lambda answer: answer.update(size=1))),
    ("chat", other_words(DataAPI.invoke_stream, content="other words")),
    ("chat", other_words(DataAPI.invoke_stream, role="nobody")),
    ("delete", ("delete", lambda self, path: {})),
]
GET = DataAPI.get


@pytest.mark.parametrize(
    ("name", "patch"), WRONG, ids=[f"{name}-{number}" for number, (name, _) in enumerate(WRONG)]
)
def test_a_step_that_is_not_as_it_should_be(run, small, private_temporary_folder, monkeypatch, name, patch):
    monkeypatch.setattr(DataAPI, *patch)
    ran = run("demo")
    assert ran.code == 1
    assert lines(ran) == [("ok", each) for each in NAMES[: NAMES.index(name)]] + [("FAIL", name)]
    assert ran.out.splitlines()[-1] == f"Step {name} is not as it should be."
    assert list(private_temporary_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("create", "POST /2025-09-10/agents/resources"),
        ("patch", "PATCH"),
        ("upload", "POST /2025-09-10/agents/files"),
        ("download", "GET /2025-09-10/agents/files"),
        ("chat", "POST /agent-runtimes"),
        ("delete", "DELETE"),
    ],
)
def test_a_service_that_fails_is_shown_with_its_request_id(run, small, monkeypatch, name, match):
    class Faulty(Emulator):
        def __init__(self):
            super().__init__()
            self.service.faults.add(Fault(status=500), match=match)

    monkeypatch.setattr(agentrun_transports.emulator, "Emulator", Faulty)
    ran = run("demo")
    assert (ran.code, lines(ran)[-1]) == (1, ("FAIL", name))
    assert "HTTP 500, code ERR_INTERNAL_SERVER_ERROR, request id " in ran.out


def test_a_request_that_is_not_signed_is_noticed(run, small, monkeypatch):
    monkeypatch.setattr(
        agentrun_transports.emulator.RequestLog,
        "last",
        property(
            lambda log: [
                agentrun_transports.emulator.ReceivedRequest(
                    connection=1, method="POST", target="/", headers=(), body=b"", body_length=0
                )
            ]
        ),
    )
    ran = run("demo")
    assert (ran.code, lines(ran)) == (1, [("FAIL", "create")])
    assert "algorithm" in ran.out


def test_without_rich(run, small, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    assert run("demo").code == 0
