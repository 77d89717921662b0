"""The benchmarks' harness: it starts its servers, plays a tiny round, and what it prints and writes is
well-formed.

How fast anything is, is no matter of these tests.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import xml.etree.ElementTree as ET
from calendar import timegm
from contextlib import closing
from importlib import metadata
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


def run(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
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


# What the sections of each kind are, and who must be in all of them.
KINDS = {
    "json-tls-*": {"json-tls-blocking", "json-tls-asyncio-32", "json-tls-trio-32"},
    "events-*": {"events-blocking", "events-asyncio", "events-trio"},
    "download-*": {"download-asyncio", "download-trio"},
    "multipart-*": {"multipart-asyncio", "multipart-trio"},
}
ALWAYS = {"raw", "agentrun-proto", "agentrun-proto httpcore", "httpx"}


@pytest.mark.parametrize("pattern", KINDS)
def test_every_contender_does_its_work(tmp_path, benchmarks, pattern):
    """One round each: a worker that reads too few events, saves too little, or trusts nobody, fails."""
    from benchmarks import tls_server

    results, plot = tmp_path / "results.json", tmp_path / "plot.svg"
    elsewhere = {"REQUESTS_CA_BUNDLE": str(tmp_path / "nobody.pem")}  # what requests would trust instead
    code, out, _ = run(
        *("benchmarks", "--quick", "--rounds", "1", "--section", pattern, "--json", str(results)), **elsewhere
    )
    assert code == 0
    assert "  failed: " not in out
    document = json.loads(results.read_text(encoding="utf-8"))
    sections = {section["name"]: section for section in document["sections"]}
    if pattern == "json-tls-*" and not sections and tls_server.program() is None:
        pytest.skip("nginx is not installed")
    assert set(sections) == KINDS[pattern]
    for section in sections.values():
        assert {row["contender"] for row in section["rows"]} >= ALWAYS
        assert all(row["cpu_min"] > 0 for row in section["rows"])
    assert (document["tls_server"] != "") == (pattern == "json-tls-*")
    assert document["tls_server"] in out.splitlines()[1]

    assert run("benchmarks.plot", str(results), str(plot)) == (0, "", "")
    words = {element.text for element in ET.parse(plot).iter("{http://www.w3.org/2000/svg}text")}
    assert {section["title"] for section in sections.values() if section["name"] != "events-trio"} <= words


@pytest.mark.parametrize("loop", ["blocking", "asyncio-32", "trio-32"])
def test_our_client_over_httpcore_takes_part(tmp_path, loop):
    results = tmp_path / "results.json"
    code, _, _ = run(
        *("benchmarks", "--quick", "--rounds", "1", "--section", f"json-{loop}", "--json", str(results)),
        *("--contender", "agentrun-proto httpcore"),
    )
    assert code == 0
    (section,) = json.loads(results.read_text(encoding="utf-8"))["sections"]
    assert [row["contender"] for row in section["rows"]] == ["agentrun-proto httpcore"]


def test_without_nginx_the_tls_sections_are_named_as_not_measured(tmp_path):
    results, nowhere = tmp_path / "results.json", tmp_path / "nginx"
    code, out, _ = run(
        *("benchmarks", "--quick", "--section", "json-tls-blocking", "--json", str(results)),
        NGINX=str(nowhere),
    )
    assert code == 0
    assert "under TLS" not in out
    document = json.loads(results.read_text(encoding="utf-8"))
    (named,) = [name for name in document["not_measured"] if name.startswith("json-tls-blocking")]
    assert named.startswith("json-tls-blocking (nginx does not start: ")
    assert named in out.splitlines()[-1]
    assert document["sections"] == []


def test_the_install_is_counted_in_full_though_it_is_editable(tmp_path):
    results = tmp_path / "results.json"
    code, _, _ = run(
        *("benchmarks", "--quick", "--rounds", "1", "--section", "footprint", "--json", str(results)),
        *("--contender", "agentrun-proto"),
    )
    assert code == 0
    (section,) = json.loads(results.read_text(encoding="utf-8"))["sections"]
    (played,) = section["rows"][0]["rounds"]
    assert played["distributions"] == 2  # h11 and ours
    assert played["installed"] >= sum(path.stat().st_size for path in (ROOT / "src").rglob("*.py"))


def test_every_bar_is_held_against_something_that_is_measured(benchmarks):
    from benchmarks import contenders, footprint
    from benchmarks.bars import BARS, OURS
    from benchmarks.sections import SECTIONS

    takes_part = {
        section.name: set(contenders.names(section.loop, section.operation)) - set(section.without)
        for section in SECTIONS
    }
    takes_part[footprint.NAME] = {library.contender for library in footprint.LIBRARIES}
    assert len({bar.what for bar in BARS}) == len(BARS)
    for bar in BARS:
        for name in (OURS, *bar.against):
            section, _, contender = name.rpartition("/")
            assert contender in takes_part[section or bar.section], bar.what


def a_run(*, ours, aiohttp=100e-6):
    """What a run writes, as far as a summary reads it; the CPU seconds of two rows."""
    rows = [
        {"contender": name, "version": "1", "calls_per_round": 1, "rounds": [{"cpu": cpu}, {"cpu": 2 * cpu}]}
        for name, cpu in (("agentrun-proto", ours), ("aiohttp", aiohttp))
    ]
    return {
        "started": "2026-03-06T12:00:00Z",
        "rounds": 2,
        "quick": False,
        "machine": {"python": "CPython 3.11.7", "processor": "Some Processor"},
        "server": "C",
        "tls_server": "nginx/1.2.3",
        "sections": [{"name": "json-asyncio-32", "title": "", "rows": rows, "missing": []}],
    }


@pytest.mark.parametrize(
    ("ours", "row"),
    [
        ([40e-6], "| 0.45 | 0.4 | yes |"),
        ([45e-6], "| 0.45 | 0.45 | yes |"),
        ([44e-6, 40e-6, 42e-6], "| 0.45 | 0.4..0.44 | yes |"),
        ([40e-6, 50e-6], "| 0.45 | 0.4..0.5 | in 1 of 2 runs |"),
        ([60e-6, 50e-6], "| 0.45 | 0.5..0.6 | no |"),
    ],
)
def test_a_summary_says_of_each_bar_what_was_measured_in_all_runs(benchmarks, tmp_path, ours, row):
    from benchmarks.bars import BARS

    files = [tmp_path / f"{number}.json" for number in range(len(ours))]
    for file, cpu in zip(files, ours, strict=True):
        file.write_text(json.dumps(a_run(ours=cpu)), encoding="utf-8")
    code, out, err = run("benchmarks.summary", *map(str, files))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    described = (
        "- 2026-03-06T12:00:00Z: 2 rounds; CPython 3.11.7 on Some Processor; C; under TLS: nginx/1.2.3"
    )
    head = [*[described] * len(files), "", "| what | bar | measured | met |", "|---|---|---|---|"]
    assert lines[: len(head)] == head
    assert [line.split(" | ")[0] for line in lines[len(head) :]] == [f"| {bar.what}" for bar in BARS]
    assert f"| asyncio, 32: CPU against aiohttp {row}" in lines
    assert "| build and sign: CPU against httpx's unsigned build | 1 |  | not measured |" in lines


def test_a_summary_of_nothing_is_refused():
    code, out, err = run("benchmarks.summary")
    assert (code, out) == (2, "")
    assert err.startswith("usage: ")


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


def test_the_tls_server_answers_as_the_others_do_to_who_trusts_its_authority(benchmarks):
    from benchmarks import tls_server
    from benchmarks.fallback_server import SMALL

    if tls_server.program() is None:
        pytest.skip("nginx is not installed")
    with tls_server.running(None) as server:
        trusting = ssl.create_default_context(cafile=server.ca_file)
        address = ("127.0.0.1", server.port)
        with closing(http.client.HTTPSConnection(*address, timeout=10, context=trusting)) as connection:
            for route, headers, status in (
                ("small", SIGNED, 200),
                ("small", {}, 401),
                ("open", {}, 200),
            ):
                connection.request("GET", f"/2025-09-10/agents/{route}?limit=10", headers=headers)
                answer = connection.getresponse()
                body = answer.read()
                assert answer.status == status
                if status == 200:
                    assert (len(answer.getheaders()), body) == (8, SMALL)
                    assert answer.getheader("content-type") == "application/json"
        with (
            closing(http.client.HTTPSConnection(*address, timeout=10)) as connection,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            connection.request("GET", "/small")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 10)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 53, 54, 60, 1000, 100_000])
def test_the_limit_counts_events_wherever_reads_end(benchmarks, size):
    from benchmarks.contenders.raw import EventCounter
    from benchmarks.fallback_server import EVENT

    sent = EVENT * 50 + b"0\r\n\r\n"
    counter = EventCounter()
    for at in range(0, len(sent), size):
        assert not counter.ended
        counter.feed(memoryview(sent)[at : at + size])
    assert counter.ended
    assert counter.count == 50


@pytest.mark.parametrize("count", [0, 4, 6])
def test_who_reads_too_few_or_too_many_events_has_failed(benchmarks, count):
    from benchmarks.worker import check

    spec = {"operation": "events", "arguments": ["events-5"]}
    check(spec, 5)
    with pytest.raises(ValueError, match=f"^{count} events were read of events-5$"):
        check(spec, count)


def test_what_stands_in_urllib3s_place_is_not_measured_under_its_name(benchmarks, monkeypatch):
    version = pytest.importorskip("urllib3._version")
    from benchmarks.contenders.base import Missing
    from benchmarks.contenders.with_blocking import urllib3_itself

    monkeypatch.setattr(version, "__version__", metadata.version("urllib3"))
    urllib3_itself()
    monkeypatch.setattr(version, "__version__", "2.25.904")
    with pytest.raises(Missing, match="urllib3-future stands in urllib3's place"):
        urllib3_itself()


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
