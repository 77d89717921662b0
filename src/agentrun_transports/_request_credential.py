"""The credential of the request that a program is serving: over the client's own, for the calls in it.

Rules of this file: it is set for one task or thread alone; only a complete credential counts.
"""

from __future__ import annotations

from contextvars import ContextVar

from agentrun_proto import AccessKey

current: ContextVar[AccessKey | None] = ContextVar("agentrun_request_credential", default=None)
"""The access key that came with the request being served."""
