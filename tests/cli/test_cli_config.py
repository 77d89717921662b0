"""config: what is in force and where it comes from, secrets masked."""

import re

import pytest


def rows(ran):
    table = ran.out.partition("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in table]
    assert cells[0] == ["SETTING", "VALUE", "FROM"]
    return {name: (value, source) for name, value, source in cells[1:]}


def summary(ran):
    lines = ran.out.partition("\n\n")[2].splitlines()
    return dict(re.split(r" {2,}", line, maxsplit=1) for line in lines)


def test_each_value_and_its_source(run, monkeypatch):
    monkeypatch.setenv("AGENTRUN_ACCOUNT_ID", "123")
    monkeypatch.setenv("FC_ACCOUNT_ID", "456")
    monkeypatch.setenv("AGENTRUN_REGION", "")
    monkeypatch.setenv("FC_REGION", "cn-beijing")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "LTAI5t")
    monkeypatch.setenv("AGENTRUN_ACCESS_KEY_SECRET", "marked-secret")
    monkeypatch.setenv("AGENTRUN_SECURITY_TOKEN", "marked-token")
    ran = run("config", "--namespace", "sandboxes/sb-1", "--timeout", "2.5", "--attempts", "5")
    assert (ran.code, ran.err) == (0, "")
    assert rows(ran) == {
        "data_endpoint": ("-", "unset"),
        "account_id": ("123", "environment variable AGENTRUN_ACCOUNT_ID"),
        "region_id": ("cn-beijing", "environment variable FC_REGION"),
        "access_key_id": ("LTAI5t", "environment variable ALIBABA_CLOUD_ACCESS_KEY_ID"),
        "access_key_secret": ("***", "environment variable AGENTRUN_ACCESS_KEY_SECRET"),
        "security_token": ("***", "environment variable AGENTRUN_SECURITY_TOKEN"),
        "timeout": ("2.5", "flag --timeout"),
        "attempts": ("5", "flag --attempts"),
        "namespace": ("sandboxes/sb-1", "flag --namespace"),
    }
    assert summary(ran) == {
        "requests go to": "https://123-ram.agentrun-data.cn-beijing.aliyuncs.com/sandboxes/sb-1",
        "authorised by": "a signature with the temporary access key LTAI5t",
    }
    assert "marked" not in ran.out


def test_defaults_and_flags(run):
    ran = run("config", "--account-id", "123")
    found = rows(ran)
    assert found["account_id"] == ("123", "flag --account-id")
    assert found["region_id"] == ("cn-hangzhou", "default")
    assert found["timeout"] == ("600", "default")
    assert found["attempts"] == ("3", "default")
    assert found["namespace"] == ("agents", "default")
    assert summary(ran)["requests go to"].endswith(
        "//123.agentrun-data.cn-hangzhou.aliyuncs.com/2025-09-10/agents"
    )
    assert summary(ran)["authorised by"].startswith("nothing: AGENTRUN_ACCESS_KEY_ID or ")


def test_a_flag_wins_and_is_named(run, monkeypatch):
    monkeypatch.setenv("AGENTRUN_DATA_ENDPOINT", "http://127.0.0.1:1")
    ran = run("config", "--endpoint", "http://127.0.0.1:2/base")
    assert rows(ran)["data_endpoint"] == ("http://127.0.0.1:2/base", "flag --endpoint")
    assert summary(ran)["requests go to"] == "http://127.0.0.1:2/base/2025-09-10/agents"


def test_a_password_in_an_endpoint_is_masked(run):
    ran = run("config", "--endpoint", "http://user:marked@127.0.0.1:2")
    assert "marked" not in ran.out + ran.err
    assert "http://***@127.0.0.1:2" in ran.out


@pytest.mark.parametrize(
    ("variables", "missing"),
    [
        ({}, "--account-id"),
        ({"AGENTRUN_ACCOUNT_ID": "1", "AGENTRUN_ACCESS_KEY_ID": "x"}, "access_key_secret"),
    ],
)
def test_what_is_missing_is_told_after_the_table(run, monkeypatch, variables, missing):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ran = run("config")
    assert ran.code == 2
    assert "access_key_id" in rows(ran)
    assert missing in ran.err


def test_nothing_is_sent(emulator, run):
    assert run("config").code == 0
    assert emulator.connections == 0
