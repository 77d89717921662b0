"""The core's commands over httpcore: for proxies, SOCKS and HTTP/2. Blocking, asyncio and trio alike.

`network` stands between httpcore and the sockets, and does what httpcore does not: it keeps deadlines, and
has connections closed that have left-over bytes. `conduct` decides, once for all loops: it turns the core's
commands into three of httpcore's. `sessions` performs these, blocking and asynchronously.

Rules of this folder: httpcore is used through its public names; its errors end here; a proxy's credentials
are shown nowhere.
"""

from .sessions import HttpcoreBlockingSession, HttpcoreSessions

__all__ = ["HttpcoreBlockingSession", "HttpcoreSessions"]
