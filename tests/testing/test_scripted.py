"""The scripted server itself: what it counts as a request."""

import socket

from agentrun_transports.testing import ScriptedServer


def test_what_did_not_come_whole_is_no_request():
    with ScriptedServer() as server:
        for sent in (b"POST /half HTTP/1.1\r\nContent-Length: 5\r\n\r\n12", b"GET /whole HTTP/1.1\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", server.port)) as sock:
                sock.sendall(sent)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
        assert [request.target for request in server.requests] == ["/whole"]
        assert server.connections == 2
