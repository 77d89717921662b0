"""TLS between bytes and bytes, held in the hand: what is deciphered before an end, and before damage."""

from __future__ import annotations

import ssl

import pytest

from agentrun_transports._tls import TLS, TLSLayer, tls_context
from drivers_support import Authority


class Peer:
    """The server's side; `say` is what it puts on the connection."""

    def __init__(self, authority: Authority) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.secure = authority.context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def say(self, content: bytes) -> bytes:
        self.secure.write(content)
        return self.outgoing.read()

    def goodbye(self) -> bytes:
        with pytest.raises(ssl.SSLWantReadError):
            self.secure.unwrap()
        return self.outgoing.read()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def shaken(authority):
    """Both sides, after the handshake."""
    layer, peer = TLSLayer(tls_context(TLS(ca_file=authority.ca_file)), "localhost"), Peer(authority)
    while not layer.handshake():
        peer.incoming.write(layer.to_send())
        try:
            peer.secure.do_handshake()
        except ssl.SSLWantReadError:
            pass
        layer.receive(peer.outgoing.read())
    peer.incoming.write(layer.to_send())
    peer.secure.do_handshake()
    layer.receive(peer.outgoing.read() or peer.say(b"first"))
    return layer, peer


def deciphered(layer: TLSLayer, size: int = 100) -> bytes | None:
    room = memoryview(bytearray(size))
    count = layer.read_into(room)
    return None if count is None else bytes(room[:count])


def settled(shaken):
    """Both sides, and nothing on the way between them."""
    layer, peer = shaken
    while deciphered(layer):
        pass
    return layer, peer


def test_all_that_is_there_is_deciphered_at_once(shaken):
    layer, peer = settled(shaken)
    layer.receive(peer.say(b"one") + peer.say(b"two"))
    assert deciphered(layer, 4) == b"onet"
    assert deciphered(layer) == b"wo"
    assert deciphered(layer) is None


def test_the_end_is_the_end_again_and_again(shaken):
    layer, peer = settled(shaken)
    layer.receive(peer.say(b"last") + peer.goodbye())
    assert deciphered(layer) == b"last"
    layer.receive(b"")
    for _ in range(3):
        assert deciphered(layer) == b""


def test_what_came_before_damage_is_deciphered_first(shaken):
    layer, peer = settled(shaken)
    spoilt = bytearray(peer.say(b"whole") + peer.say(b"spoilt"))
    spoilt[-1] ^= 1
    layer.receive(spoilt)
    assert deciphered(layer) == b"whole"
    with pytest.raises(ssl.SSLError):
        deciphered(layer)


def test_a_connection_that_ends_without_a_word_is_cut(shaken):
    layer, peer = settled(shaken)
    layer.receive(peer.say(b"whole"))
    layer.receive(b"")
    assert deciphered(layer) == b"whole"
    with pytest.raises(ssl.SSLError, match="EOF"):
        deciphered(layer)
