"""The server of the TLS sections: nginx, which answers small JSON by itself, as the server in C does.

Its certificate is made on the spot, and so is the authority that signs it, which every contender verifies it
against. nginx is one process and keeps connections for as long as it runs. Where it is not installed, or
trustme is not, the TLS sections are not measured, and the output says so. `NGINX` names another program.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.fallback_server import SMALL
from benchmarks.machine import pin
from benchmarks.server import Server

if TYPE_CHECKING:
    from collections.abc import Generator

PATIENCE = 10.0  # seconds that nginx may take to listen, and to end
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

# Date, Content-Type, Content-Length, Connection and Server are nginx's own: eight fields, as from the others.
CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    {temporary}
    access_log off;
    default_type application/json;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    add_header X-Acs-Request-Id 5f0c9a4e-1b7d-4c3f-9a35-0d9b6f1c2e44;
    add_header X-Fc-Instance c-65a1f3b2-1a2b3c4d5e6f;
    add_header Cache-Control no-store;
    server {{
        listen 127.0.0.1:{port} ssl backlog=4096;
        ssl_protocols TLSv1.3;
        ssl_certificate {folder}/certificate.pem;
        ssl_certificate_key {folder}/certificate.pem;
        location / {{
            if ($http_agentrun_authorization = "") {{ return 401 '{{"code":"ERR_FORBIDDEN"}}'; }}
            return 200 '{small}';
        }}
        location ~ /open$ {{ return 200 '{small}'; }}
    }}
}}
"""


class Unavailable(Exception):
    """There is no TLS server here; the text says why."""


def program() -> str | None:
    """Return where nginx is, if it is."""
    return os.environ.get("NGINX") or shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


@contextmanager
def running(core: int | None) -> Generator[Server]:
    """Run nginx on `core` for as long as the block lasts; Unavailable where it cannot be."""
    nginx = program()
    if nginx is None:
        raise Unavailable("nginx is not installed")
    with tempfile.TemporaryDirectory(prefix="benchmarks-nginx-") as name:
        folder = Path(name)
        port = _configure(folder)
        log = folder / "error.log"
        try:
            shown = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True).stderr
            command = [nginx, "-e", str(log), "-p", name, "-c", str(folder / "nginx.conf")]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Unavailable(f"nginx does not start: {error}") from error
        try:
            _await(process, port, log)
            pin(core, process.pid)
            kind = f"{shown.strip().rpartition(' ')[2]}, one process, TLS 1.3"
            yield Server(port=port, kind=kind, ca_file=str(folder / "authority.pem"))
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _configure(folder: Path) -> int:
    """Write what nginx reads; return the port that it is to listen on."""
    try:
        import trustme
    except ImportError as error:
        raise Unavailable("trustme is not installed") from error
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "certificate.pem")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    temporary = " ".join([f"{name}_temp_path {folder}/{name};" for name in TEMPORARY])
    (folder / "nginx.conf").write_text(
        CONFIGURATION.format(folder=folder, port=port, small=SMALL.decode(), temporary=temporary)
    )
    return port


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.01)
    lines = log.read_text(encoding="utf-8").strip().splitlines() if log.exists() else []
    raise Unavailable(f"nginx does not listen: {lines[-1] if lines else process.poll()}")
