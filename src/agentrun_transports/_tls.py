"""TLS: what a client trusts, who it says it is, and the layer itself for a network that needs its own.

Rules of this file: `ssl` is imported when the first context is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import ssl


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """How connections to https origins are secured. Certificates and host names are always verified.

    Args:
        ca_file: a PEM file of certificate authorities to trust instead of the system's.
        cert_file, key_file: PEM files of a client certificate and its key.
        key_password: the key's password.
        context: a context made elsewhere, to be used as it is.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    key_password: str | None = None
    context: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        return f"TLS(ca_file={self.ca_file!r}, cert_file={self.cert_file!r}, key_file={self.key_file!r})"


@lru_cache(maxsize=16)
def tls_context(tls: TLS) -> ssl.SSLContext:
    """The context for these settings: made once, on first need, since it takes about 20 ms.

    Raises:
        ValueError: a file is missing, or does not hold what it should.
    """
    import ssl

    if tls.context is not None:
        return tls.context
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        if tls.cert_file is not None:
            context.load_cert_chain(tls.cert_file, tls.key_file, tls.key_password)
    except OSError as error:
        files = ", ".join(filter(None, (tls.ca_file, tls.cert_file, tls.key_file)))
        raise ValueError(f"TLS: cannot load {files or 'the certificate authorities'}: {error}") from error
    context.set_alpn_protocols(["http/1.1"])
    return context


class TLSLayer:
    """TLS between bytes and bytes, for a network whose own TLS cannot be asked what it holds.

    What a peer sends beyond its answer may be deciphered already: only whoever holds it can tell.

    Args:
        context: how the connection is secured.
        host: the name that the peer's certificate must bear.
    """

    __slots__ = ("_incoming", "_outgoing", "_secure")

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        import ssl

        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._secure = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    def receive(self, data: bytes | memoryview) -> None:
        """Takes what came over the connection; nothing at its end."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def to_send(self) -> bytes:
        """What is to go over the connection."""
        return self._outgoing.read()

    def handshake(self) -> bool:
        """Goes on with the handshake; whether it is done. Raises ssl.SSLError if it fails."""
        import ssl

        try:
            self._secure.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def read_into(self, room: memoryview) -> int | None:
        """Deciphers into `room` all that is there; 0 at the end, None if more is needed.

        Raises:
            ssl.SSLError: what came is no TLS, or the connection ended without TLS saying so.
        """
        import ssl

        filled = 0
        while filled < len(room):
            try:
                # With a buffer, read() answers with a count, whatever its type stub says.
                count = cast("int", self._secure.read(len(room) - filled, room[filled:]))
            except ssl.SSLWantReadError:
                return filled or None
            except ssl.SSLError:
                if filled:
                    break  # it shows again at the next read
                raise
            if not count:
                break
            filled += count
        return filled

    def write(self, data: bytes | memoryview) -> int:
        """Enciphers some of it; how much."""
        return self._secure.write(data)
