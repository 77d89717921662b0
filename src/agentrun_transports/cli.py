"""``agentrun-data``: the data plane from a shell. Here is the entry point, and how a run ends.

Rules of this file: ``main`` returns an exit code and raises nothing that a user could have caused; an error
that is documented becomes a block on stderr, never a traceback; a bug of this program stays a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from agentrun_proto import AgentRunError

from ._cli.arguments import build_parser
from ._cli.failures import CLOSED_PIPE, DONE, INTERRUPTED, MISUSE, describe, exit_code
from ._cli.screen import Screen


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments after the program's name; None takes them from ``sys.argv``.

    Returns:
        The exit code: 0 done, 1 refused by the service, 2 misuse, 3 network, 130 interrupted, 141 when the
        reader of stdout went away (the numbers a shell shows for SIGINT and SIGPIPE).

    >>> main(["--version"])
    agentrun-data 0.1.0
    0
    """
    try:
        code = _run(argv)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # pyright: ignore[reportUnnecessaryComparison] - `>&-` makes it None
                stream.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # What is still buffered must not fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    return code


def _run(argv: Sequence[str] | None) -> int:
    parser = build_parser()
    try:
        args = parser.parse_args(argv)
    except SystemExit as end:  # argparse has printed its help, or what is wrong
        return int(end.code or DONE)
    if args.command is None:
        parser.print_help(sys.stderr)
        return MISUSE
    screen = Screen(sys.stdout, sys.stderr)
    try:
        code: int = args.run(args, screen)
    except BrokenPipeError:
        raise
    except (AgentRunError, ValueError, TypeError, OSError) as error:
        screen.failure(describe(error, args.command))
        return exit_code(error)
    return code
