"""Whether a callable is to be awaited: asked of providers, and of sources that are read.

Rules of this file: it looks, and calls nothing.
"""

from __future__ import annotations

import inspect


def is_async(function: object) -> bool:
    """Whether it is an ``async`` function, or an object that is called as one."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - whether it is callable is not the question
    )
