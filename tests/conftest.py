"""What holds for all tests: a worker runs with the flags of the Python that started it.

`python -bb -W error -m pytest` says something about the tests only where they run, which is in the workers.
"""

import shlex
import subprocess
import sys

import pytest


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_setupnodes(specs):
    flags = subprocess._args_from_interpreter_flags()  # what multiprocessing hands its own workers
    for spec in specs:
        if spec.popen and flags:
            spec.python = shlex.join([sys.executable, *flags])
