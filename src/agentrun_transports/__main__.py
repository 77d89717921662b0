"""``python -m agentrun_transports``: the command line, where ``agentrun-data`` is not on the path."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
