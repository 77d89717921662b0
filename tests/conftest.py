"""What holds for every test: how many run at once."""

import os

import pytest


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two a core: half of what tests of a client do is wait for the other side."""
    return 2 * (os.cpu_count() or 1)
