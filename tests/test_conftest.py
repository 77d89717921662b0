"""The flags of the Python that runs the tests reach the workers, where the tests are run."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

TEST = """
import sys

def test_flags():
    assert sys.flags.bytes_warning == 2
    assert "error" in sys.warnoptions
"""


@pytest.mark.parametrize(("flags", "status"), [(("-bb", "-W", "error"), 0), ((), 1)], ids=["given", "none"])
@pytest.mark.parametrize("workers", ["0", "1"])
def test_flags_reach_the_workers(tmp_path, workers, flags, status):
    (tmp_path / "test_flags.py").write_text(TEST)
    shutil.copy(Path(__file__).parent / "conftest.py", tmp_path)
    done = subprocess.run(
        [sys.executable, *flags, "-m", "pytest", "-q", "-n", workers, "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
