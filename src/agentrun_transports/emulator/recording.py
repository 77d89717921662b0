"""A recording, made by rule: one second of a grey square that grows brighter, as a Matroska file (RFC 9559).

It is there so that a download of a video brings a file that a player opens, with nothing binary in the
sources. The same bytes come out each time.
"""

from __future__ import annotations

from functools import cache

_SIDE = 64
_FRAMES = 25

# RFC 9559 5.1: the identifiers of the elements that are used here, length mark included.
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_INFO, _TRACKS, _CLUSTER = b"\x15\x49\xa9\x66", b"\x16\x54\xae\x6b", b"\x1f\x43\xb6\x75"


def _element(identifier: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    # RFC 8794 4.4: a size of eight bytes, of which the first is the length mark.
    return identifier + b"\x01" + len(data).to_bytes(7, "big") + data


def _number(identifier: bytes, value: int) -> bytes:
    return _element(identifier, value.to_bytes(8, "big"))


@cache
def recording() -> bytes:
    """Return the file.

    >>> recording()[:4].hex(), b"matroska" in recording()[:120]
    ('1a45dfa3', True)
    """
    head = _element(
        _EBML,
        _number(b"\x42\x86", 1),  # EBMLVersion
        _number(b"\x42\xf7", 1),  # EBMLReadVersion
        _number(b"\x42\xf2", 4),  # EBMLMaxIDLength
        _number(b"\x42\xf3", 8),  # EBMLMaxSizeLength
        _element(b"\x42\x82", b"matroska"),  # DocType
        _number(b"\x42\x87", 4),  # DocTypeVersion
        _number(b"\x42\x85", 2),  # DocTypeReadVersion
    )
    info = _element(
        _INFO,
        _number(b"\x2a\xd7\xb1", 1_000_000),  # TimestampScale: milliseconds
        _element(b"\x4d\x80", b"agentrun emulator"),  # MuxingApp
        _element(b"\x57\x41", b"agentrun emulator"),  # WritingApp
    )
    video = _element(
        b"\xe0",
        _number(b"\xb0", _SIDE),  # PixelWidth
        _number(b"\xba", _SIDE),  # PixelHeight
        _element(b"\x2e\xb5\x24", b"Y800"),  # UncompressedFourCC: eight bits of grey
    )
    track = _element(
        b"\xae",
        _number(b"\xd7", 1),  # TrackNumber
        _number(b"\x73\xc5", 1),  # TrackUID
        _number(b"\x83", 1),  # TrackType: video
        _element(b"\x86", b"V_UNCOMPRESSED"),  # CodecID
        video,
    )
    # A SimpleBlock (RFC 9559 10.2): track number, time within the cluster, flags (0x80: a keyframe), the
    # frame.
    blocks = [
        _element(
            b"\xa3",
            b"\x81" + (frame * 1000 // _FRAMES).to_bytes(2, "big") + b"\x80",
            bytes([frame * 255 // (_FRAMES - 1)]) * _SIDE**2,
        )
        for frame in range(_FRAMES)
    ]
    return head + _element(
        _SEGMENT, info, _element(_TRACKS, track), _element(_CLUSTER, _number(b"\xe7", 0), *blocks)
    )
