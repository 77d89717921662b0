"""The arrows of the design, the purity of the core, and that both hold when the core is vendored.

The two tables below are the design as data. A file that is in neither, or an import that is not in its row,
fails a test: change the design first, then its row here.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import agentrun_proto
import agentrun_transports
from proto_strategies import load

CORE = Path(agentrun_proto.__file__).parent
TRANSPORTS = Path(agentrun_transports.__file__).parent

# DESIGN, The rooms: api -> flows -> {retry, signing, decoding, body} -> {messages, urls, credentials, config,
# commands} -> errors. From the top to the bottom rank; a module may import what stands in a lower rank ...
CORE_RANKS: tuple[frozenset[str], ...] = (
    frozenset({"__init__"}),
    frozenset({"api"}),
    frozenset({"streams", "super_agents", "tokens", "transfers"}),
    frozenset({"flows"}),
    frozenset({"recovery"}),
    frozenset({"context"}),
    frozenset({"retry", "signing", "decoding", "events", "body", "multipart"}),
    frozenset({"messages", "urls", "credentials", "credential_cache", "config", "commands", "telemetry"}),
    frozenset({"codings", "errors"}),
)
# ... and of its own rank only these, which form no circle.
WITHIN_A_RANK: Mapping[str, frozenset[str]] = {
    "multipart": frozenset({"body"}),
    "events": frozenset({"decoding"}),
    "commands": frozenset({"config", "credentials", "messages", "telemetry"}),
    "credential_cache": frozenset({"credentials"}),
    "config": frozenset({"credentials", "messages", "urls"}),
    "messages": frozenset({"urls"}),
}
# What each module of the core may take from the standard library: nothing that reads a clock, the
# environment, randomness or a file, and nothing that talks.
PURE = frozenset(
    {
        "__future__",
        "binascii",
        "collections",
        "collections.abc",
        "dataclasses",
        "datetime",
        "enum",
        "functools",
        "hashlib",
        "hmac",
        "ipaddress",
        "itertools",
        "json",
        "math",
        "re",
        "typing",
        "urllib.parse",
        "zlib",
    }
)
# Reached through a pure module, these are not pure.
IMPURE_CALLS = frozenset(
    {
        "datetime.now",
        "datetime.utcnow",
        "datetime.today",
        "date.today",
        "open",
        "print",
        "input",
        "__import__",
        "eval",
        "exec",
    }
)

# DESIGN: cli (with its parts in _cli) -> data_api -> {_blocking, _asyncio, _trio, _httpcore} -> _exchange ->
# {_pool, _wire} -> agentrun_proto; _files, the emulator and testing stand beside. A folder is one room.
# Between the drivers and the exchange: what a client offers (_faces), whose connections it has (_sessions).
_LEAVES = frozenset(
    {
        "_addresses",
        "_awaitable",
        "_blocking_call",
        "_codings",
        "_crc64",
        "_drive",
        "_logging",
        "_progress",
        "_proxies",
        "_readiness",
        "_request_credential",
        "_sources",
        "_tickets",
        "_tls",
        "_wire",
    }
)
_BELOW_HTTPCORE = _LEAVES | {
    "_exchange",
    "_flights",
    "_local",
    "_network",
    "_files",
    "_performing",
    "_pool",
    "_sessions",
    "_streams",
}
_BELOW_DRIVERS = _BELOW_HTTPCORE | {"_asyncio_link", "_faces", "_httpcore", "_routes"}
_DRIVERS = frozenset({"_blocking", "_asyncio", "_trio"})
_CLIENTS = _BELOW_DRIVERS | _DRIVERS | {"_blocking_client", "data_api", "embedding"}
TRANSPORT_ARROWS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(_LEAVES, frozenset()),
    "_asyncio_link": frozenset({"_readiness", "_tls", "_wire"}),
    "_files": frozenset({"_crc64"}),
    "_pool": frozenset({"_tickets"}),
    "_flights": frozenset({"_tickets"}),
    "_network": frozenset({"_pool", "_tickets", "_wire"}),
    "_local": frozenset({"_awaitable", "_files", "_flights", "_network", "_tickets"}),
    "_exchange": frozenset(
        {"_drive", "_files", "_flights", "_local", "_network", "_pool", "_progress", "_wire"}
    ),
    "_streams": frozenset({"_drive", "_network"}),
    "_sessions": frozenset({"_exchange", "_flights", "_network", "_pool", "_streams", "_tls"}),
    "_performing": frozenset({"_exchange", "_flights", "_local", "_network"}),
    "embedding": frozenset(
        {
            "_drive",
            "_exchange",
            "_files",
            "_flights",
            "_local",
            "_network",
            "_performing",
            "_pool",
            "_routes",
            "_tickets",
            "_wire",
        }
    ),
    # What applications import beside a client: where credentials come from, and who is told what happens.
    "credentials": frozenset({"_awaitable", "_request_credential"}),
    "opentelemetry": frozenset(),
    "_httpcore": _BELOW_HTTPCORE,
    # Which of the two serves a client; httpcore is imported where it is chosen, and not before.
    "_routes": _BELOW_HTTPCORE | {"_httpcore"},
    "_faces": frozenset(
        {
            "_logging",
            "_network",
            "_pool",
            "_proxies",
            "_request_credential",
            "_routes",
            "_sessions",
            "_sources",
            "_streams",
            "_tls",
        }
    ),
    **dict.fromkeys(_DRIVERS, _BELOW_DRIVERS),
    "_blocking_client": _BELOW_DRIVERS | {"_blocking"},
    "data_api": _BELOW_DRIVERS | _DRIVERS | {"_blocking_client"},
    "emulator": frozenset(),
    "testing": _CLIENTS | {"emulator"},
    "_cli": _CLIENTS | {"emulator"},
    "cli": _CLIENTS | {"_cli", "emulator"},
    "__init__": _CLIENTS,
    "__main__": frozenset({"cli"}),
}
# The emulator checks signatures on its own: it must not know the signer that it checks.
WITHOUT_THE_CORE = frozenset({"emulator"})


def imports(path: Path, package: str) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything a file imports; a name that is taken from a package counts too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module or ""]))
            if node.module is None:  # from . import x: each name is a module
                for alias in node.names:
                    yield node.lineno, f"{module}.{alias.name}"
            else:
                yield node.lineno, module


def modules_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.py"))


def core_may_import(module: str) -> frozenset[str]:
    rank = next(index for index, names in enumerate(CORE_RANKS) if module in names)
    lower = frozenset[str]().union(*CORE_RANKS[rank + 1 :])
    return lower | WITHIN_A_RANK.get(module, frozenset())


# --- the core


def test_every_file_of_the_core_has_its_place():
    known = frozenset[str]().union(*CORE_RANKS)
    assert {path.stem for path in modules_of(CORE)} <= known
    assert [path for path in CORE.rglob("*.py") if path.parent != CORE] == [], "the core is one folder"
    assert sum(len(rank) for rank in CORE_RANKS) == len(known), "no module stands in two ranks"


@pytest.mark.parametrize("path", modules_of(CORE), ids=lambda path: path.stem)
def test_the_arrows_inside_the_core(path):
    allowed = core_may_import(path.stem)
    found = {
        name.removeprefix("agentrun_proto.").partition(".")[0]: line
        for line, name in imports(path, "agentrun_proto")
        if name.startswith("agentrun_proto")
    }
    wrong = [f"{path.name}:{line} -> {name}" for name, line in found.items() if name not in allowed]
    assert wrong == []


def test_the_arrows_within_a_rank_form_no_circle():
    for start in WITHIN_A_RANK:
        reached, waiting = set(), [start]
        while waiting:
            for name in WITHIN_A_RANK.get(waiting.pop(), frozenset()):
                assert name != start
                if name not in reached:
                    reached.add(name)
                    waiting.append(name)


@pytest.mark.parametrize("path", modules_of(CORE), ids=lambda path: path.stem)
def test_the_core_imports_relatively_and_only_what_is_pure(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    foreign = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            foreign += [alias.name for alias in node.names if alias.name not in PURE]
        elif isinstance(node, ast.ImportFrom):
            assert node.level in (0, 1), f"{path.name}:{node.lineno} climbs out of the core"
            if node.level == 0 and node.module not in PURE:
                foreign.append(node.module)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in IMPURE_CALLS, f"{path.name}:{node.lineno}"
    assert foreign == []


def run_python(code: str, *arguments: str) -> str:
    """The output of a fresh interpreter, which has imported nothing yet."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_core_loads_nothing_that_talks():
    loaded = run_python("import sys, agentrun_proto; print(*sys.modules)").split()
    assert "agentrun_proto.api" in loaded
    talking = {
        "socket", "_socket", "ssl", "_ssl", "asyncio", "trio", "h11", "threading", "logging", "random",
        "secrets", "tempfile", "subprocess", "selectors", "http.client", "agentrun_transports",
    }  # fmt: skip
    assert talking.isdisjoint(loaded)


@pytest.mark.hostile("published-import")
def test_importing_the_transports_loads_no_event_loop_and_no_tls():
    loaded = run_python("import sys, agentrun_transports; print(*sys.modules)").split()
    assert "agentrun_transports.data_api" in loaded
    assert {"asyncio", "trio", "httpcore", "ssl", "rich"}.isdisjoint(loaded)


IMPORTED_QUIETLY = """
import logging, os, sys, warnings
before = dict(os.environ), list(sys.path), list(warnings.filters), sorted(os.listdir("."))
import agentrun_proto, agentrun_transports
assert (dict(os.environ), list(sys.path), list(warnings.filters), sorted(os.listdir("."))) == before
loggers = [logging.getLogger(), *map(logging.getLogger, logging.Logger.manager.loggerDict)]
handlers = {type(handler) for logger in loggers for handler in logger.handlers}
assert handlers <= {logging.NullHandler}  # which keeps logging's own last resort from writing
assert {logger.level for logger in loggers[1:]} <= {logging.NOTSET}
"""


@pytest.mark.hostile("published-import")
def test_importing_changes_neither_the_environment_nor_logging(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("AGENTRUN_ACCOUNT_ID=from-a-file\n")
    monkeypatch.chdir(tmp_path)
    assert run_python(IMPORTED_QUIETLY) == ""


VENDORED = """
import json, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "agentrun_proto":
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Block())
sys.path.insert(0, sys.argv[1])
import vendored_core
from vendored_core.signing import Signer
from vendored_core.urls import parse_url

case = json.loads(sys.argv[2])
target = parse_url(case["url"])
key = vendored_core.AccessKey(
    access_key_id=case["access_key_id"], access_key_secret=vendored_core.Secret(case["access_key_secret"])
)
request = vendored_core.Request(method=case["method"], origin=target.origin, target=target.request_target)
print(dict(Signer(key, case["region"]).fields(request, 1772798400.0))["Agentrun-Authorization"])
try:
    vendored_core.decode(vendored_core.Head(status=404), b"")
except vendored_core.NotFoundError as error:
    import pickle
    assert type(pickle.loads(pickle.dumps(error))) is vendored_core.NotFoundError
assert not [name for name in sys.modules if name.partition(".")[0] == "agentrun_proto"]
"""


def test_the_core_works_as_a_folder_under_another_name(tmp_path):
    import json

    case = load("agentrun4_vectors.json")["cases"][0]
    assert (case["time"], case["security_token"], case["content_type"]) == (
        "2026-03-06T12:00:00Z",
        None,
        None,
    )
    shutil.copytree(CORE, tmp_path / "vendored_core", ignore=shutil.ignore_patterns("__pycache__"))
    assert run_python(VENDORED, str(tmp_path), json.dumps(case)) == case["headers"]["Agentrun-Authorization"]


# --- the transports


def room_of(path: Path) -> str:
    relative = path.relative_to(TRANSPORTS)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


TRANSPORT_FILES = sorted(TRANSPORTS.rglob("*.py"))


def test_every_file_of_the_transports_has_its_place():
    assert {room_of(path) for path in TRANSPORT_FILES} <= set(TRANSPORT_ARROWS)


@pytest.mark.parametrize("path", TRANSPORT_FILES, ids=lambda path: str(path.relative_to(TRANSPORTS)))
def test_the_arrows_between_the_transports(path):
    room = room_of(path)
    package = ".".join(["agentrun_transports", *path.relative_to(TRANSPORTS).parts[:-1]])
    wrong = []
    for line, name in imports(path, package):
        top, _, rest = name.partition(".")
        to = rest.partition(".")[0]
        if top == "agentrun_transports" and to != room and to not in TRANSPORT_ARROWS[room]:
            wrong.append(f"{path.name}:{line} -> {name}")
        if top == "agentrun_proto" and room in WITHOUT_THE_CORE:
            wrong.append(f"{path.name}:{line} -> {name}")
    assert wrong == []


def test_the_arrows_between_the_transports_form_no_circle():
    done: set[str] = set()
    while len(done) < len(TRANSPORT_ARROWS):
        free = {room for room, to in TRANSPORT_ARROWS.items() if room not in done and to <= done}
        assert free, f"a circle among {set(TRANSPORT_ARROWS) - done}"
        done |= free


def test_the_net_holds(tmp_path):
    """An arrow that is not in the table is found, however it is written."""
    bad = tmp_path / "urls.py"
    for text in (
        "from .api import x",
        "from . import api",
        "import agentrun_proto.api",
        "def f():\n    from .api import x",
    ):
        bad.write_text(text)
        names = {name.removeprefix("agentrun_proto.") for _, name in imports(bad, "agentrun_proto")}
        assert names == {"api"}
        assert not names <= core_may_import("urls")
    bad.write_text("from ..data_api import DataAPI")
    assert list(imports(bad, "agentrun_transports.emulator")) == [(1, "agentrun_transports.data_api")]


# --- the examples in the docstrings


def module_names(package: object) -> list[str]:
    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    return [package.__name__, *(module.name for module in found if not module.name.endswith("__main__"))]


@pytest.mark.parametrize("name", [*module_names(agentrun_proto), *module_names(agentrun_transports)])
def test_the_examples_in_docstrings_are_right(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module = importlib.import_module(name)
        assert doctest.testmod(module).failed == 0


def test_the_core_has_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    counts = {
        name: sum(len(found.examples) for found in finder.find(importlib.import_module(name)))
        for name in module_names(agentrun_proto)
    }
    assert sum(counts.values()) >= 30
