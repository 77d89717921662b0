"""What holds for all tests: how many run at once, and that workers have the flags of the Python that began.

`python -bb -W error -m pytest` says something about the tests only where they run, which is in the workers.
"""

import os
import shlex
import subprocess
import sys

import pytest


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Three a core: more than half of what tests of a client do is wait for the other side."""
    return 3 * (os.cpu_count() or 1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs):
    flags = subprocess._args_from_interpreter_flags()  # what multiprocessing hands its own workers
    for spec in specs:
        if spec.popen and flags:
            spec.python = shlex.join([sys.executable, *flags])
