"""The AgentRun data plane, small and honest, for trying things out and for tests: no account is needed.

``Emulator`` serves it on a port or a Unix socket; ``Service`` is the same thing over values, without a
socket; ``Fault`` is what may be made to go wrong. Signatures and access tokens are checked for real, by
code that shares nothing with the client library's signer.

>>> import http.client
>>> with Emulator() as emulator:
...     connection = http.client.HTTPConnection("127.0.0.1", emulator.port)
...     caller = {"Agentrun-Access-Token": "emulator-token"}
...     connection.request("GET", "/2025-09-10/agents/resources", headers=caller)
...     answer = connection.getresponse()
...     print(answer.status, answer.read()[:17].decode())
...     connection.close()
200 {"code":"SUCCESS"
"""

from .faults import Fault, Faults
from .log import ReceivedRequest, RequestLog
from .messages import FileBody, Request, Response, StreamBody
from .server import Emulator, serve
from .service import Service
from .verify import Account

__all__ = [
    "Account",
    "Emulator",
    "Fault",
    "Faults",
    "FileBody",
    "ReceivedRequest",
    "Request",
    "RequestLog",
    "Response",
    "Service",
    "StreamBody",
    "serve",
]
