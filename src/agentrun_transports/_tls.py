"""TLS: what a client trusts, and who it says it is. `ssl` is imported when the first context is made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

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
