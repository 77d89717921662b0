"""The benchmarks' harness: it starts its servers, plays a tiny round, and what it prints and writes is
well-formed.

How fast anything is, is no matter of these tests.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from calendar import timegm
from contextlib import closing
from pathlib import Path
from time import strptime
from urllib.parse import parse_qs, urlsplit

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
VECTORS = json.loads((Path(__file__).parent / "data" / "agentrun4_vectors.json").read_text(encoding="utf-8"))[
    "cases"
]
SENT = {"host", "x-acs-date", "x-acs-content-sha256", "Agentrun-Authorization"}
SIGNED = {"Agentrun-Authorization": "anything"}


@pytest.fixture
def benchmarks(monkeypatch):
    """The package of the checkout, which is not installed."""
    monkeypatch.syspath_prepend(str(ROOT))


def run(*arguments, interpreter=sys.executable):
    done = subprocess.run(
        [interpreter, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


def test_a_tiny_run_gives_a_table_json_and_a_plot(tmp_path):
    results, plot = tmp_path / "results.json", tmp_path / "plot.svg"
    code, out, err = run(
        *(
            "benchmarks",
            "--quick",
            "--rounds",
            "2",
            "--section",
            "json-blocking",
            "--section",
            "json-asyncio-32",
        ),
        *("--contender", "raw", "--contender", "http.client", "--json", str(results)),
    )
    assert (code, err) == (0, "")

    lines = out.splitlines()
    titles = [number for number, line in enumerate(lines) if line.endswith("[json-blocking]")]
    head, rule, *rows = lines[titles[0] + 1 : titles[0] + 5]
    assert {row[:11].strip() for row in rows} == {"raw", "http.client"}
    assert {len(line) for line in (head, rule, *rows)} == {len(rule)}, "columns are not aligned"
    assert lines[1].startswith("server: "), "the output must say which server was used"

    document = json.loads(results.read_text(encoding="utf-8"))
    assert document["machine"]["python"].endswith(".".join(map(str, sys.version_info[:3])))
    blocking, on_asyncio = document["sections"]
    assert [row["contender"] for row in blocking["rows"]] == ["raw", "http.client"]
    assert [row["contender"] for row in on_asyncio["rows"]] == ["raw"]
    assert blocking["missing"] == on_asyncio["missing"] == []
    for row in (*blocking["rows"], *on_asyncio["rows"]):
        assert len(row["rounds"]) == 2
        assert 0 < row["cpu_min"] <= row["cpu_median"] <= row["cpu_max"]
        assert 0 < row["wall_min"] <= row["wall_median"]
    assert blocking["rows"][0]["cpu_ratio_to"]["raw"] == 1

    code, out, err = run("benchmarks.plot", str(results), str(plot))
    assert (code, out, err) == (0, "", "")
    words = [element.text for element in ET.parse(plot).iter("{http://www.w3.org/2000/svg}text")]
    assert "http.client" in words
    assert blocking["title"] in words


def test_who_is_not_installed_is_named(tmp_path):
    code, out, _ = run(
        *("benchmarks", "--quick", "--rounds", "1", "--section", "json-blocking", "--contender", "raw"),
        *("--contender", "urllib3", "--python", f"urllib3={bare_interpreter(tmp_path)}"),
    )
    assert code == 0
    assert "  missing: urllib3: No module named 'urllib3'" in out.splitlines()


def test_who_fails_is_named_and_the_others_are_measured():
    code, out, _ = run(
        *("benchmarks", "--quick", "--rounds", "1", "--section", "json-blocking", "--contender", "raw"),
        *("--contender", "http.client", "--python", "http.client=/bin/false"),
    )
    assert code == 0
    assert any(line.startswith("raw ") for line in out.splitlines())
    assert "  failed: http.client: ended with status 1, or took more than 180 s" in out.splitlines()


def bare_interpreter(folder):
    """Make a virtual environment with nothing in it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "bare")], check=True)
    return folder / "bare" / "bin" / "python"


def test_an_unknown_name_is_refused_with_the_known_ones():
    code, _, err = run("benchmarks", "--section", "no-such-section")
    assert code == 2
    assert "json-blocking" in err
    assert "aiohttp" in err


@pytest.fixture(params=["C", "Python"])
def port(request, benchmarks):
    """Each of the two servers in turn."""
    from benchmarks import server

    command = [sys.executable, "-m", "benchmarks.fallback_server"]
    if request.param == "C":
        try:
            command = [str(server.build())]
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"the C server cannot be built here: {error}")
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield int(process.stdout.readline())
        process.stdin.close()
        assert process.wait(10) == 0, "the server must end with its standard input"


def test_both_servers_answer_alike(port):
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:

        def ask(method, route, body=None, headers=SIGNED):
            connection.request(method, f"/2025-09-10/agents/{route}?limit=10", body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, len(answer.getheaders()), answer.read()

        status, fields, body = ask("GET", "small")
        assert (status, fields, len(body), json.loads(body)["code"]) == (200, 8, 200, "SUCCESS")
        assert ask("GET", "resources") == ask("GET", "open", headers={}) == (status, fields, body)
        assert ask("GET", "small", headers={})[0] == 401
        _, _, large = ask("GET", "large")
        assert (len(large), json.loads(large)["code"]) == (64 * 1024, "SUCCESS")
        assert len(ask("GET", "download-3")[2]) == 3 * 1024 * 1024
        assert ask("GET", "events-5")[2] == b'data: {"index": 1234, "delta": "some words of text"}\n\n' * 5
        for size in (0, 1, 10_000, 5_000_000):
            assert json.loads(ask("PUT", "upload", body=bytes(size))[2]) == {"received": size}


@pytest.mark.parametrize(
    "case",
    [case for case in VECTORS if set(case["headers"]) == SENT and case["product"] == "agentrun"],
    ids=lambda case: f"{case['method']} {case['url'][-40:]}",
)
def test_the_shared_signer_signs_as_the_service_asks(benchmarks, case):
    from benchmarks.signer import Signer

    parts = urlsplit(case["url"])
    query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    signer = Signer(
        parts.netloc, key_id=case["access_key_id"], secret=case["access_key_secret"], region=case["region"]
    )
    now = timegm(strptime(case["time"], "%Y-%m-%dT%H:%M:%SZ"))
    signed = signer.sign(case["method"], parts.path or "/", query, now=now)
    assert {"host": parts.netloc, **signed} == case["headers"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
def test_big_files_stay_out_of_memory_and_are_sent_once(tmp_path):
    """The harness, on files that are not big; `python -m benchmarks.big_files` takes a gibibyte."""
    results = tmp_path / "results.json"
    code, out, err = run(
        "benchmarks.big_files", "--mib", "12", "--cuts", "4", "--driver", "trio", "--json", str(results)
    )
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 4
    rows = json.loads(results.read_text())
    assert [(row["driver"], row["direction"]) for row in rows] == [("trio", "up"), ("trio", "down")]
    for row in rows:
        assert row["grown"] <= 4 << 20
        assert 1.0 <= row["sent"] <= 1.1
        assert row["late"] > 0
