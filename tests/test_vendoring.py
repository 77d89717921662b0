"""Both packages under another name, as the README says to vendor them, pass their own unit tests.

The tests are copied and rewritten by the same command as the packages. In the process that runs them the
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
COMMAND = re.compile(r"^\$ (.*(?:_vendor).*)$", re.M)
# Unit tests of either package, and what they need.
COPIED = (
    "proto/test_proto_body.py",
    "proto/test_proto_credentials.py",
    "proto/test_proto_flows.py",
    "proto/test_proto_messages.py",
    "proto/test_proto_signing.py",
    "transports/test_blocking_requests.py",
    "transports/test_data_api.py",
    "transports/test_files.py",
    "transports/test_pool.py",
    "transports/test_wire_hostile.py",
    "data/agentrun4_vectors.json",
    "data/acs3_vectors.json",
    "data/hostile.json",
    "hostile.py",
    "proto_strategies.py",
    "transports_support.py",
)
BLOCK = """
import importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("agentrun_proto", "agentrun_transports"):
            raise ImportError(f"{name} is not there: the copy is to be imported")

sys.meta_path.insert(0, Block())
"""


@pytest.mark.once
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the README's command is for GNU sed")
def test_a_vendored_copy_passes_its_own_tests(tmp_path):
    commands = COMMAND.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert [command.split()[0] for command in commands] == ["mkdir", "cp", "find"]
    (tmp_path / "src").symlink_to(SOURCES)
    copied = tmp_path / "my_sdk" / "_vendor" / "tests"  # the command is for all that lies in this folder
    for name in COPIED:
        (copied / name).parent.mkdir(parents=True, exist_ok=True)
        (copied / name).write_bytes((TESTS / name).read_bytes())
    (copied / "conftest.py").write_text(BLOCK)
    subprocess.run(["sh", "-ec", "\n".join(commands)], cwd=tmp_path, check=True, timeout=60)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\npythonpath = . my_sdk/_vendor/tests\nfilterwarnings = error\n"
        "markers =\n    once\n    hostile\n"
        "addopts = --import-mode=importlib -p no:cacheprovider\n"
    )
    # Beside the copy, what is left of the environment is pytest and the other libraries.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTEST_ADDOPTS")
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "my_sdk/_vendor/tests"],
        cwd=tmp_path,
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 1000
