"""A blocking call inside a running event loop: it works, it holds everybody up, and it is warned of.

Rules of this file: neither asyncio nor trio is imported to find out; no call is refused.
"""

from __future__ import annotations

import os
import sys
import warnings


class BlockingCallWarning(RuntimeWarning):
    """A blocking call was made where an event loop runs; nothing else on it went on meanwhile.

    Await the method whose name ends in ``_async`` instead, or call from a thread. Told once for each client.
    To have it silent: ``warnings.filterwarnings("ignore", category=BlockingCallWarning)``; to have it raised:
    ``"error"``.
    """


def warn_in_a_loop() -> bool:
    """Warns if an event loop runs in this thread; whether it did."""
    running = _running()
    if running is None:
        return False
    message = f"a blocking call inside {running} holds up all that runs there; await the *_async method"
    warnings.warn(message, BlockingCallWarning, stacklevel=_callers_level())
    return True


def _running() -> str | None:
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        return "trio"
    asyncio = sys.modules.get("asyncio")
    # In asyncio.events.__all__; unlike get_running_loop, it raises nothing where no loop runs, as is usual.
    if asyncio is not None and asyncio._get_running_loop() is not None:
        return "asyncio"
    return None


def _callers_level() -> int:
    """How far up the first frame is that is not this library's: whose line the warning is about."""
    import inspect  # only here: it takes longer to import than all of this library

    ours = os.path.dirname(__file__)
    level, frame = 0, inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(ours):
        level, frame = level + 1, frame.f_back
    return level
