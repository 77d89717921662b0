"""Both packages under another name, as the README says to vendor them, pass their own unit tests.

The tests are copied, and rewritten in the same way as the packages. In the process that runs them the
packages' own names cannot be imported at all, so that nothing of the copy leans on what is installed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import agentrun_proto

TESTS = Path(__file__).parent
ROOT = TESTS.parent
SOURCES = Path(agentrun_proto.__file__).parent.parent
# Unit tests of the core and of the transports, and what they need.
OF_THE_CORE = (
    "proto/test_proto_body.py",
    "proto/test_proto_credentials.py",
    "proto/test_proto_flows.py",
    "proto/test_proto_messages.py",
    "proto/test_proto_signing.py",
    "data/agentrun4_vectors.json",
    "data/acs3_vectors.json",
    "proto_strategies.py",
)
OF_THE_TRANSPORTS = (
    "transports/test_blocking_requests.py",
    "transports/test_data_api.py",
    "transports/test_files.py",
    "transports/test_pool.py",
    "transports/test_wire_hostile.py",
    "data/hostile.json",
    "hostile.py",
    "transports_support.py",
    "proto/test_proto_messages.py",
    "data/agentrun4_vectors.json",
    "proto_strategies.py",
)
BLOCK = """
import importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("agentrun_proto", "agentrun_transports"):
            raise ImportError(f"{name} is not there: the copy is to be imported")

sys.meta_path.insert(0, Block())
"""


pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the README's command is for GNU sed"),
]


def commands(folder):
    """The README's commands that make a copy in this folder."""
    return re.findall(rf"^\$ (.*{folder}.*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)


def copy_tests(names, to):
    for name in names:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).write_bytes((TESTS / name).read_bytes())
    (to / "conftest.py").write_text(BLOCK)


def run_in(folder, commands):
    (folder / "src").symlink_to(SOURCES)
    subprocess.run(["sh", "-ec", "\n".join(commands)], cwd=folder, check=True, timeout=60)


def passed(folder, tests):
    """How many of the copied tests have passed, which all must."""
    (folder / "pytest.ini").write_text(
        f"[pytest]\npythonpath = . {tests}\nfilterwarnings = error\n"
        "markers =\n    once\n    hostile\naddopts = --import-mode=importlib -p no:cacheprovider\n"
    )
    # Beside the copy, what is left of the environment is pytest and the other libraries.
    left_out = ("PYTHONPATH", "PYTEST_ADDOPTS")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", tests],
        cwd=folder,
        env={
            **{name: os.environ[name] for name in os.environ if name not in left_out},
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return int(re.findall(r"(\d+) passed", done.stdout)[-1])


def test_a_copy_of_the_core_passes_its_own_tests(tmp_path):
    """A plain copy: not a byte of it is changed."""
    copied = tmp_path / "tests"
    (tmp_path / "my_sdk").mkdir()
    (command,) = commands("my_sdk/_agentrun")
    run_in(tmp_path, [command])
    copy_tests(OF_THE_CORE, copied)
    for path in copied.rglob("*.py"):
        path.write_text(
            re.sub(r"^( *from )agentrun_proto\b", r"\1my_sdk._agentrun", path.read_text(), flags=re.M)
        )
    assert passed(tmp_path, "tests") > 300


def test_a_vendored_copy_of_both_passes_its_own_tests(tmp_path):
    """The command rewrites whatever lies in its folder: the tests, too."""
    copied = tmp_path / "my_sdk" / "_vendor" / "tests"
    copy_tests(OF_THE_TRANSPORTS, copied)
    steps = commands("my_sdk/_vendor")
    assert [step.split()[0] for step in steps] == ["mkdir", "cp", "find"]
    run_in(tmp_path, steps)
    assert passed(tmp_path, "my_sdk/_vendor/tests") > 1000
